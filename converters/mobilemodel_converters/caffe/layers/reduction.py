"""Layers that make few values of many: Reduction, ArgMax, SPP."""

from __future__ import annotations

from mobilemodel.dtypes import DType
from mobilemodel_converters.caffe.layers import pooling
from mobilemodel_converters.caffe.layers.shapes import agreed, count
from mobilemodel_converters.caffe.net import new_layer
from mobilemodel_converters.caffe.schema import enum_name
from mobilemodel_converters.caffe.scope import Scope, Value

_REDUCTIONS = {"SUM": "ReduceSum", "ASUM": "ReduceL1", "SUMSQ": "ReduceSumSquare", "MEAN": "ReduceMean"}


def _reduction(scope: Scope) -> None:
    """All axes from ``axis`` on become one value, times ``coeff``."""
    parameters, shape = scope.layer.message.reduction_param, scope.input.shape
    axis = scope.mixed_axis(parameters.axis, len(shape))
    operator, axes = _REDUCTIONS[enum_name(parameters, "operation")], list(range(axis, len(shape)))
    inputs, attributes = [scope.input.name], {"axes": axes}
    if operator == "ReduceSum":  # in opset 13 the only one whose axes are an input
        inputs, attributes = [scope.input.name, scope.integers(axes, "axes")], {}
    if parameters.coeff == 1:
        scope.emit(operator, inputs, shape[:axis], keepdims=0, **attributes)
    else:
        reduced = scope.add(operator, inputs, operator.lower(), keepdims=0, **attributes)
        scope.emit("Mul", (reduced, scope.number(parameters.coeff, "coeff")), shape[:axis])


def _argmax(scope: Scope) -> None:
    """Places of the largest values as floats, or the values; of equal ones, Caffe takes the last first."""
    parameters, shape = scope.layer.message.argmax_param, scope.input.shape
    if parameters.HasField("axis"):
        axis = scope.mixed_axis(parameters.axis, len(shape))
        places, values = _largest(scope, scope.input, axis, parameters.top_k)
        target = (*shape[:axis], parameters.top_k, *shape[axis + 1 :])
        scope.emit("Identity", (values if parameters.out_max_val else places,), target)
        return
    if not shape:
        scope.malformed("axes", expected="at least 1", found=0)
    flat = Value(scope.add("Flatten", (scope.input.name,), axis=1), (shape[0], count(shape[1:])))
    places, values = _largest(scope, flat, 1, parameters.top_k)
    if parameters.out_max_val:
        places = scope.add("Concat", (places, values), "both", axis=1)
    target = (shape[0], 2 if parameters.out_max_val else 1, parameters.top_k, *(1 for _ in shape[3:]))
    scope.emit("Reshape", (places, scope.integers((0, *target[1:]), "shape")), target)


def _largest(scope: Scope, value: Value, axis: int, most: int) -> tuple[str, str]:
    """Places (as floats) and values of the ``most`` largest along an axis, largest first.

    ONNX's TopK takes the first of equal values; turned round, the axis gives the last of them first.
    """
    (size,) = scope.known(value.shape[axis])
    if not 1 <= most <= size:
        scope.malformed("top_k", expected=f"1 to {size}", found=most)
    # The end -2^31 stands for "to the first one": -1 would be the last.
    bounds = [scope.integers([bound], name) for bound, name in ((-1, "from"), (-(2**31), "to"), (axis, "axis"))]
    turned = scope.add("Slice", (value.name, *bounds, scope.integers([-1], "step")), "turned")
    values, places = scope.network.add_many(
        "TopK", (turned, scope.integers([most], "top_k")),
        (f"{scope.layer.name}.values", f"{scope.layer.name}.turned_places"), axis=axis,
    )  # fmt: skip
    places = scope.add("Sub", (scope.integers([size - 1], "last"), places), "places")
    return scope.add("Cast", (places,), to=int(DType.FLOAT)), values


def _pyramid(scope: Scope) -> None:
    """Spatial pyramid pooling, made of Pooling, Flatten and Concat as in Caffe: 1, 4, 16... bins."""
    parameters, shape = scope.layer.message.spp_param, scope.input.shape
    if len(shape) != 4:
        scope.malformed("axes", expected=4, found=len(shape))
    height, width = scope.known(*shape[2:])
    levels = parameters.pyramid_height
    # With more bins than values the padding would reach the size of the kernel, which Caffe's Pooling refuses.
    if levels < 1 or levels > 32 or 2 ** (levels - 1) > min(height, width):
        scope.malformed("pyramid_height", expected=f"as many levels as {height} x {width} has bins for", found=levels)
    pooled = [_level(scope, 2**level, (height, width)) for level in range(levels)]
    if levels == 1:
        scope.emit("Identity", (pooled[0].name,), pooled[0].shape)
        return
    flat = [scope.add("Flatten", (value.name,), axis=1) for value in pooled]
    together = agreed(scope, [(shape[0], count(value.shape[1:])) for value in pooled], but=1)
    scope.emit("Concat", flat, together, axis=1)


def _level(scope: Scope, bins: int, sizes: tuple[int, int]) -> Value:
    """One level: windows beside each other, the padding about half of what they reach over the edges."""
    kernels = [-(-size // bins) for size in sizes]
    pads = [(kernel * bins - size + 1) // 2 for kernel, size in zip(kernels, sizes, strict=True)]
    parameters = {"pool": scope.layer.message.spp_param.pool}
    for name, (height, width) in (("kernel", kernels), ("stride", kernels), ("pad", pads)):
        parameters |= {f"{name}_h": height, f"{name}_w": width}
    layer = new_layer(scope.layer.name, "Pooling", scope.layer.bottoms, ("pooled",), pooling_param=parameters)
    inner = Scope(layer, scope.inputs, scope.network, (f"{scope.layer.name}.bins{bins}",))
    pooling.RULES["Pooling"](inner)
    return inner.outputs[0]


RULES = {"Reduction": _reduction, "ArgMax": _argmax, "SPP": _pyramid}
