"""Convolution and Deconvolution."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from mobilemodel.errors import LimitExceededError, escape
from mobilemodel_converters.caffe.layers.window import Pair, Window
from mobilemodel_converters.caffe.net import Float32
from mobilemodel_converters.caffe.scope import Scope

_SIDES = {"kernel_size": ["kernel_h", "kernel_w"], "stride": ["stride_h", "stride_w"], "pad": ["pad_h", "pad_w"]}
_MOST_FILLED = 2**24
"""values of a weight that no file holds: FCN-32s, the largest in common use, has 1.8 million"""


def _convolution(scope: Scope) -> None:
    _convolve(scope, scope.layer.message.convolution_param.group)


def _depthwise_convolution(scope: Scope) -> None:
    """Forks have a type of its own, whose group is left out."""
    parameters = scope.layer.message.convolution_param
    _convolve(scope, parameters.group if parameters.HasField("group") else parameters.num_output)


def _convolve(scope: Scope, group: int) -> None:
    """Caffe rounds the output's size down, and pads all sides alike: ONNX's Conv as it is."""
    parameters = scope.layer.message.convolution_param
    window, channels = _window(scope), _channels(scope, group)
    weights = _learned(scope, (parameters.num_output, channels // group, *window.kernel))
    _emit_all(scope, "Conv", weights, window.places, group=group, **window.attributes())


def _deconvolution(scope: Scope) -> None:
    """The weight has its inputs first, as ONNX's ConvTranspose has; nothing is added to the output's size."""
    parameters = scope.layer.message.convolution_param
    group, outputs = parameters.group, parameters.num_output
    window, channels = _window(scope), _channels(scope, group)
    dims = (channels, outputs // group, *window.kernel)
    if not scope.layer.blobs and parameters.weight_filler.type == "bilinear":
        weights = _bilinear(scope, dims)
    else:
        weights = _learned(scope, dims)
    _emit_all(scope, "ConvTranspose", weights, window.reach, group=group, **window.attributes())


def _learned(scope: Scope, dims: tuple[int, ...]) -> list[str]:
    """The weight, and the bias where there is one."""
    parameters = scope.layer.message.convolution_param
    weight = scope.weight(0, dims, "weight")
    return [weight, scope.weight(1, (parameters.num_output,), "bias")] if parameters.bias_term else [weight]


def _emit_all(
    scope: Scope, operator: str, weights: list[str], size: Callable[[int, int], int], **attributes: Any
) -> None:
    """One node for each pair of bottom and top, all with the same weights; ``size`` is that of an axis after it."""
    outputs = scope.layer.message.convolution_param.num_output
    for value in scope.inputs:
        sizes = [None if now is None else size(now, axis) for axis, now in enumerate(value.shape[2:])]
        if any(after is not None and after < 1 for after in sizes):
            scope.malformed("a window larger than the padded input", found=f"{value.shape} to {sizes}")
        scope.emit(operator, (value.name, *weights), (value.shape[0], outputs, *sizes), **attributes)


def _channels(scope: Scope, group: int) -> int:
    """Channels of the inputs, which all have the same shape; they and the outputs divide into groups."""
    parameters = scope.layer.message.convolution_param
    if not scope.inputs or len(scope.inputs) != len(scope.layer.tops):
        scope.malformed("as many bottoms as tops", found=f"{len(scope.inputs)} and {len(scope.layer.tops)}")
    shape = scope.inputs[0].shape
    if any(value.shape != shape for value in scope.inputs):
        scope.malformed("bottoms of the same shape", found=[value.shape for value in scope.inputs])
    if len(shape) != 4 or scope.axis(parameters.axis, 4) != 1:
        scope.refuse(f"only convolutions over height and width are converted, not those of {shape}")
    (channels,) = scope.known(shape[1])
    outputs = parameters.num_output
    if not channels or not outputs or not group or channels % group or outputs % group:
        scope.malformed("channels and num_output, in groups", found=f"{channels} and {outputs} in {group}")
    return channels


def _window(scope: Scope) -> Window:
    window = Window(_pair(scope, "kernel_size", 0), _pair(scope, "stride", 1), _pair(scope, "pad", 0),
                    _pair(scope, "dilation", 1))  # fmt: skip
    window.check(scope)
    return window


def _pair(scope: Scope, field: str, default: int) -> Pair:
    """A measure given once, as (y, x), or by fields of its own for height and width; never by both, as in Caffe."""
    parameters = scope.layer.message.convolution_param
    values, sides = tuple(getattr(parameters, field)), _SIDES.get(field, [])
    if any(parameters.HasField(side) for side in sides):
        if values:
            scope.malformed(f"{field} beside {' and '.join(sides)}", expected="one or the other")
        return getattr(parameters, sides[0]), getattr(parameters, sides[1])
    if len(values) > 2:
        scope.malformed(field, expected="at most 2 values", found=len(values))
    return (values[0], values[-1]) if values else (default, default)


def _bilinear(scope: Scope, dims: tuple[int, int, int, int]) -> list[str]:
    """The weights of a layer that no file holds, as Caffe fills them in."""
    parameters = scope.layer.message.convolution_param
    side = dims[2]
    if dims[3] != side:
        scope.malformed("weight_filler 'bilinear'", expected="a square kernel", found=f"{dims[2]} x {dims[3]}")
    if math.prod(dims) > _MOST_FILLED:
        raise LimitExceededError("a weight that is filled in", expected=f"at most {_MOST_FILLED} values", found=dims)
    name = escape(scope.layer.name)
    scope.notes.append(f"Layer '{name}' has no learned values: its weight is bilinear, as its filler says.")
    weights = [scope.derived(dims, "weight", lambda: np.broadcast_to(bilinear(side), dims))]
    if parameters.bias_term:
        if parameters.bias_filler.type != "constant":
            scope.refuse(f"its bias is in no file, and its filler is '{parameters.bias_filler.type}'")
        value, outputs = parameters.bias_filler.value, parameters.num_output
        weights.append(scope.derived((outputs,), "bias", lambda: np.full(outputs, value, np.float32)))
    return weights


def bilinear(side: int) -> Float32:
    """The square kernel of Caffe's bilinear filler.

    >>> bilinear(4)[1].tolist()
    [0.1875, 0.5625, 0.5625, 0.1875]
    """
    half = (side + 1) // 2
    centre = (side - 1) / (2 * half)
    ramp = 1 - np.abs(np.arange(side) / half - centre)
    return np.outer(ramp, ramp).astype(np.float32)


RULES = {
    "Convolution": _convolution,
    "ConvolutionDepthwise": _depthwise_convolution,
    "DepthwiseConvolution": _depthwise_convolution,
    "Deconvolution": _deconvolution,
}
