"""Pooling: the largest or the mean value of each window, with Caffe's own rule for the last window."""

from __future__ import annotations

from typing import Any

from mobilemodel_converters.caffe.layers.window import Pair, Window
from mobilemodel_converters.caffe.schema import enum_name
from mobilemodel_converters.caffe.scope import Scope, Value


def _pooling(scope: Scope) -> None:
    parameters = scope.layer.message.pooling_param
    value, method = scope.input, enum_name(parameters, "pool")
    if method == "STOCHASTIC":
        scope.refuse("stochastic pooling is not converted")
    if len(scope.layer.tops) > 1:
        scope.refuse("its second top, the places of the largest values, is not converted")
    if len(value.shape) != 4:
        scope.malformed("an input", expected="4 axes", found=value.shape)
    window = _window(scope)
    if window is None:
        operator = "GlobalMaxPool" if method == "MAX" else "GlobalAveragePool"
        scope.emit(operator, (value.name,), (*value.shape[:2], 1, 1))
        return
    rounded_up = enum_name(parameters, "round_mode") == "CEIL" and parameters.ceil_mode
    overhang = [_overhang(scope, window, axis, rounded_up) for axis in (0, 1)]
    sizes = [
        None if size is None else window.places(size, axis, overhang[axis]) for axis, size in enumerate(value.shape[2:])
    ]
    if any(size is not None and size < 1 for size in sizes):
        scope.malformed("a window larger than the padded input", found=value.shape)
    (_max_pool if method == "MAX" else _average_pool)(
        scope, value, window, (overhang[0], overhang[1]), (*value.shape[:2], *sizes)
    )


def _overhang(scope: Scope, window: Window, axis: int, rounded_up: bool) -> int:
    """Pixels that the last window may reach beyond the padded input: so many more of padding at the end make ONNX's
    plain rule, which rounds down, give Caffe's number of windows.

    Caffe rounds the number up. A last window that would begin beyond input and left padding is dropped where the layer
    pads at all, and where it does not, it has no value.
    """
    kernel, stride, pad = window.kernel[axis], window.stride[axis], window.pad[axis]
    most = kernel - pad - 1
    size = scope.inputs[0].shape[2 + axis]
    if not rounded_up:
        return 0
    if size is None and (any(window.pad) or stride - 1 <= most):
        return min(stride - 1, most)
    (size,) = scope.known(size)
    overhang = (kernel - size - 2 * pad) % stride
    if overhang <= most:
        return overhang
    if not any(window.pad):
        scope.refuse("its last window lies outside of the input, where Caffe's value is no number")
    return 0


def _max_pool(scope: Scope, value: Value, window: Window, overhang: Pair, shape: tuple[int | None, ...]) -> None:
    end = (window.pad[0] + overhang[0], window.pad[1] + overhang[1])
    scope.emit("MaxPool", (value.name,), shape, pads=(*window.pad, *end), **_attributes(window))


def _average_pool(scope: Scope, value: Value, window: Window, overhang: Pair, shape: tuple[int | None, ...]) -> None:
    """The divisor counts the padding, and not what lies beyond it: where both occur, the padding becomes a node."""
    if not any(overhang):
        scope.emit("AveragePool", (value.name,), shape, pads=window.pad * 2, count_include_pad=1,
                   **_attributes(window))  # fmt: skip
        return
    name = value.name
    if any(window.pad):
        padded = [size and size + 2 * pad for size, pad in zip(value.shape[2:], window.pad, strict=True)]
        scope.check_size((*value.shape[:2], *padded))
        pads = scope.integers((0, 0, *window.pad, 0, 0, *window.pad), "pads")
        name = scope.add("Pad", (name, pads))
    scope.emit("AveragePool", (name,), shape, pads=(0, 0, *overhang), count_include_pad=0, **_attributes(window))


def _attributes(window: Window) -> dict[str, Any]:
    return {"kernel_shape": window.kernel, "strides": window.stride}


def _window(scope: Scope) -> Window | None:
    """The window; None: the whole input is one."""
    parameters = scope.layer.message.pooling_param
    given = [field for field in ("kernel_size", "kernel_h", "kernel_w") if parameters.HasField(field)]
    pad, stride = _pair(scope, "pad"), _pair(scope, "stride")
    if parameters.global_pooling:
        if given or any(pad) or stride != (1, 1):
            scope.malformed("global_pooling", expected="no kernel_size, no pad, stride 1")
        return None
    if given not in (["kernel_size"], ["kernel_h", "kernel_w"]):
        scope.malformed("the window's size", expected="kernel_size, or kernel_h and kernel_w", found=given)
    side = parameters.kernel_size
    window = Window((side, side) if side else (parameters.kernel_h, parameters.kernel_w), stride, pad)
    window.check(scope)
    if any(p >= k for p, k in zip(window.pad, window.kernel, strict=True)):
        scope.malformed("pad", expected=f"less than the window's {window.kernel}", found=window.pad)
    return window


def _pair(scope: Scope, field: str) -> Pair:
    """A measure for both axes, or one for each by fields of their own; never by both, as in Caffe."""
    parameters = scope.layer.message.pooling_param
    sides = f"{field}_h", f"{field}_w"
    given = [side for side in sides if parameters.HasField(side)]
    if not given:
        value = getattr(parameters, field)
        return value, value
    if len(given) == 1 or parameters.HasField(field):
        scope.malformed(field, expected=f"{field}, or {' and '.join(sides)}")
    return getattr(parameters, sides[0]), getattr(parameters, sides[1])


RULES = {"Pooling": _pooling}
