"""Layers that normalise, and those that scale and shift: LRN, BatchNorm, Scale, Bias, MVN, Normalize."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from mobilemodel.errors import escape
from mobilemodel_converters.caffe.fold import ScaledBatchNorm
from mobilemodel_converters.caffe.layers.shapes import channels_of, per_channel
from mobilemodel_converters.caffe.layers.window import Window
from mobilemodel_converters.caffe.net import Blob, Float32
from mobilemodel_converters.caffe.schema import enum_name
from mobilemodel_converters.caffe.scope import Scope


def _lrn(scope: Scope) -> None:
    parameters, value = scope.layer.message.lrn_param, scope.input
    size = parameters.local_size
    if size % 2 == 0 or len(value.shape) != 4:
        scope.malformed("local_size and input", expected="an odd size, 4 axes", found=f"{size}, {value.shape}")
    Window((size, size)).check(scope)
    if not np.isfinite([parameters.alpha, parameters.beta, parameters.k]).all():
        scope.malformed("alpha, beta and k", expected="finite numbers")
    if enum_name(parameters, "norm_region") == "WITHIN_CHANNEL":
        _lrn_within_channel(scope)
    elif parameters.alpha <= 0 or parameters.beta <= 0:
        scope.refuse("ONNX Runtime takes an LRN whose alpha and beta are above 0 alone")
    else:
        scope.emit("LRN", (value.name,), value.shape, size=size, alpha=parameters.alpha, beta=parameters.beta,
                   bias=parameters.k)  # fmt: skip


def _lrn_within_channel(scope: Scope) -> None:
    """x (1 + alpha mean(x^2))^-beta: the mean over a square with zeros beyond the edges; k means nothing here."""
    parameters, value = scope.layer.message.lrn_param, scope.input
    size = parameters.local_size
    square = scope.add("Mul", (value.name, value.name), "square")
    mean = scope.add("AveragePool", (square,), "mean", kernel_shape=(size, size), pads=(size // 2,) * 4,
                     count_include_pad=1)  # fmt: skip
    scaled = scope.add("Mul", (mean, scope.number(parameters.alpha, "alpha")), "scaled")
    base = scope.add("Add", (scaled, scope.number(1, "one")), "base")
    factor = scope.add("Pow", (base, scope.number(-parameters.beta, "power")), "factor")
    scope.emit("Mul", (value.name, factor), value.shape)


def _batch_norm(scope: Scope) -> None:
    """(x - mean) / sqrt(variance + eps), and the Scale layer behind it where one was folded in.

    The blobs are sums of means and of variances, and the number that divides them; divided by 0 they count as 0.
    """
    parameters, value = scope.layer.message.batch_norm_param, scope.input
    if parameters.HasField("use_global_stats") and not parameters.use_global_stats:
        scope.refuse("it takes the statistics of the batch, not learned ones: use_global_stats is false")
    count = len(scope.layer.blobs) or 3
    if count not in (2, 3):
        scope.refuse(f"it has {count} blobs, and only mean, variance and their factor are known")
    channels = channels_of(scope, value)
    mean, variance = scope.blob(0, channels), scope.blob(1, channels)
    factor = scope.blob(2, 1) if count == 3 else None
    if factor is None:
        name = escape(scope.layer.name)
        scope.notes.append(f"Layer '{name}' holds no factor of its statistics: they were taken as they are.")
    weights = [
        *_scale_and_shift(scope, channels),
        scope.derived((channels,), "mean", lambda: _divided(mean, factor)),
        scope.derived((channels,), "variance", lambda: _divided(variance, factor)),
    ]
    scope.emit("BatchNormalization", (value.name, *weights), value.shape, epsilon=parameters.eps)


def _divided(blob: Blob, factor: Blob | None) -> Float32:
    """Running sums divided by how much they sum up."""
    if factor is None:
        return blob.read()
    divisor = factor.read()[0]
    with np.errstate(all="ignore"):
        return blob.read() * (1 / divisor) if divisor else np.zeros(blob.count, np.float32)


def _scale_and_shift(scope: Scope, channels: int) -> tuple[str, str]:
    """What BatchNormalization multiplies and adds at the end: the folded Scale layer's blobs, else ones and zeros."""
    layer = scope.layer
    if not isinstance(layer, ScaledBatchNorm):
        return (
            scope.derived((channels,), "scale", lambda: np.ones(channels, np.float32)),
            scope.derived((channels,), "shift", lambda: np.zeros(channels, np.float32)),
        )
    behind = replace(scope, layer=layer.scale, used_blobs=set())
    has_bias = layer.scale.message.scale_param.bias_term
    if len(layer.scale.blobs) > 1 + has_bias:
        behind.malformed("blobs", expected=1 + has_bias, found=len(layer.scale.blobs))
    blobs = [behind.blob(index, channels) for index in range(1 + has_bias)]
    scale = scope.derived((channels,), "scale", blobs[0].read)
    shift = blobs[1].read if has_bias else lambda: np.zeros(channels, np.float32)
    return scale, scope.derived((channels,), "shift", shift)


def _folded_batch_norm(scope: Scope) -> None:
    """The layer BN of forks, its statistics folded: a factor and a summand for each channel."""
    value, count = scope.input, len(scope.layer.blobs)
    if count not in (0, 2):
        scope.refuse(f"it has {count} blobs: forks differ in their order, and only scale and shift are known")
    dims = per_channel(scope, value)
    scaled = scope.add("Mul", (value.name, scope.weight(0, dims, "scale")), "scaled")
    scope.emit("Add", (scaled, scope.weight(1, dims, "shift")), value.shape)


def _scale(scope: Scope) -> None:
    """A product with a learned value or a second bottom, then a learned sum."""
    parameters = scope.layer.message.scale_param
    axes = _covered(scope, parameters.axis, parameters.num_axes)
    value, factor = scope.inputs[0], _operand(scope, axes, "weight")
    if not parameters.bias_term:
        scope.emit("Mul", (value.name, factor), value.shape)
        return
    bias = scope.weight(2 - len(scope.inputs), _learned(scope, axes), "bias")
    scope.emit("Add", (scope.add("Mul", (value.name, factor), "scaled"), bias), value.shape)


def _bias(scope: Scope) -> None:
    """A sum with a learned value or a second bottom."""
    parameters = scope.layer.message.bias_param
    axes = _covered(scope, parameters.axis, parameters.num_axes)
    value, summand = scope.inputs[0], _operand(scope, axes, "bias")
    scope.emit("Add", (value.name, summand), value.shape)


def _covered(scope: Scope, axis: int, num_axes: int) -> range:
    """The axes of the first input that the second operand has: a second bottom has as many as it has, a learned value
    ``num_axes``, -1 being all; none for a single value.
    """
    if len(scope.inputs) not in (1, 2):
        scope.malformed("bottoms", expected="1 or 2", found=len(scope.inputs))
    rank = len(scope.inputs[0].shape)
    count = len(scope.inputs[1].shape) if len(scope.inputs) == 2 else num_axes
    if count == 0:
        return range(0)
    first = scope.axis(axis, rank)
    end = rank if count == -1 else first + count
    if not first < end <= rank:
        scope.malformed("num_axes", expected=f"an input of {rank} axes holds them from axis {first} on", found=count)
    return range(first, end)


def _operand(scope: Scope, axes: range, suffix: str) -> str:
    """The second operand of Scale and Bias, blob 0 or the second bottom, with axes of 1 where it ends early."""
    if len(scope.inputs) == 1:
        return scope.weight(0, _learned(scope, axes), suffix)
    first, second = scope.inputs
    sizes = [first.shape[axis] for axis in axes]
    if any(None not in (a, b) and a != b for a, b in zip(sizes, second.shape, strict=True)):
        scope.malformed("second bottom", expected=sizes, found=second.shape)
    behind = len(first.shape) - axes.stop
    if not axes or not behind:
        return second.name
    added = scope.integers(range(len(axes), len(axes) + behind), "axes")
    return scope.add("Unsqueeze", (second.name, added))


def _learned(scope: Scope, axes: range) -> tuple[int, ...]:
    """Dims of a learned value that covers some axes of the first input."""
    if not axes:
        return ()
    shape = scope.inputs[0].shape
    if axes.start == 0:
        scope.fix_batch()
    return (*scope.known(*shape[axes.start : axes.stop]), *(1,) * (len(shape) - axes.stop))


def _mvn(scope: Scope) -> None:
    """Mean 0, and divided by the standard deviation + eps: eps stands outside of the root."""
    parameters, value = scope.layer.message.mvn_param, scope.input
    axes = tuple(range(1 if parameters.across_channels else 2, len(value.shape)))
    if not axes or len(value.shape) > 4:
        scope.refuse(f"it has no axes to take the mean over in an input of shape {value.shape}")
    mean = scope.add("ReduceMean", (value.name,), "mean", axes=axes)
    if not parameters.normalize_variance:
        scope.emit("Sub", (value.name, mean), value.shape)
        return
    centred = scope.add("Sub", (value.name, mean), "centred")
    square = scope.add("Mul", (centred, centred), "square")
    deviation = scope.add("Sqrt", (scope.add("ReduceMean", (square,), "variance", axes=axes),), "deviation")
    divisor = scope.add("Add", (deviation, scope.number(parameters.eps, "eps")), "divisor")
    scope.emit("Div", (centred, divisor), value.shape)


def _normalize(scope: Scope) -> None:
    """SSD's: x / sqrt(sum x^2 + eps) over the channels of a pixel, or all of a picture, times a learned scale."""
    parameters, value = scope.layer.message.norm_param, scope.input
    learned = per_channel(scope, value)
    axes = tuple(range(1, len(value.shape))) if parameters.across_spatial else (1,)
    total = scope.add("ReduceSumSquare", (value.name,), "total", axes=axes)
    norm = scope.add("Sqrt", (scope.add("Add", (total, scope.number(parameters.eps, "eps"))),), "norm")
    unit = scope.add("Div", (value.name, norm), "unit")
    dims = (1,) if parameters.channel_shared else learned
    scope.emit("Mul", (unit, scope.weight(0, dims, "scale")), value.shape)


RULES = {
    "LRN": _lrn,
    "BatchNorm": _batch_norm,
    "BN": _folded_batch_norm,
    "Scale": _scale,
    "Bias": _bias,
    "MVN": _mvn,
    "Normalize": _normalize,
}
