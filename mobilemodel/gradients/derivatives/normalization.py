"""Derivatives of normalizations and of softmax."""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np

from mobilemodel.gradients.derivatives.step import Array, Derivative, Operation, Step


def _batch_normalization(step: Step) -> Mapping[int, Array]:
    scale, variance = step.input(1), step.input(4)
    factor = scale / np.sqrt(variance + np.float32(step.attribute("epsilon", 1e-5)))
    return {0: step.gradient * factor.reshape(-1, *(1,) * (step.gradient.ndim - 2))}


def _batch_limits(operation: Operation) -> str:
    if operation.attributes.get("training_mode") or (operation.opset < 7 and not operation.attributes.get("is_test")):
        return "it is in training mode"
    return "it keeps statistics for each position" if operation.attributes.get("spatial", 1) == 0 else ""


def _lrn(step: Step) -> Mapping[int, Array]:
    """y = x / s^beta, s = bias + alpha / size * (sum of the squares of the neighbours) (ONNX: LRN)."""
    x, size = step.input(0), step.attribute("size")
    alpha, beta = step.attribute("alpha", 1e-4), step.attribute("beta", 0.75)
    below, above = (size - 1) // 2, size // 2
    sums = step.attribute("bias", 1.0) + alpha / size * _neighbours(x * x, below, above)
    scaled = step.gradient * sums**-beta
    through_sums = _neighbours(scaled * x / sums, above, below)
    return {0: scaled - 2 * alpha * beta / size * x * through_sums}


def _neighbours(values: Array, below: int, above: int) -> Array:
    """For each channel c the sum of the channels c - below to c + above."""
    found = values.copy()
    for distance in range(1, min(above, values.shape[1] - 1) + 1):
        found[:, :-distance] += values[:, distance:]
    for distance in range(1, min(below, values.shape[1] - 1) + 1):
        found[:, distance:] += values[:, :-distance]
    return found


def softmax_axes(operation: Operation, rank: int) -> tuple[int, ...]:
    """The axes over which a Softmax or LogSoftmax sums: one, or before opset 13 all from ``axis`` on."""
    if operation.opset >= 13:
        return (int(operation.attributes.get("axis", -1)) % rank,)
    return tuple(range(int(operation.attributes.get("axis", 1)) % (rank + 1), rank))


def _softmax(step: Step) -> Mapping[int, Array]:
    weighted = step.gradient * step.output()
    axes = softmax_axes(step.operation, weighted.ndim)
    return {0: weighted - step.output() * weighted.sum(axis=axes, keepdims=True)}


def _log_softmax(step: Step) -> Mapping[int, Array]:
    axes = softmax_axes(step.operation, step.gradient.ndim)
    return {0: step.gradient - np.exp(step.output()) * step.gradient.sum(axis=axes, keepdims=True)}


def _layer_normalization(step: Step) -> Mapping[int, Array]:
    x = step.input(0)
    axes = tuple(range(step.attribute("axis", -1) % x.ndim, x.ndim))
    return {0: _standardized(x, step.gradient * step.input(1), axes, step.attribute("epsilon", 1e-5))}


def _instance_normalization(step: Step) -> Mapping[int, Array]:
    x = step.input(0)
    scale = step.input(1).reshape(-1, *(1,) * (x.ndim - 2))
    return {0: _standardized(x, step.gradient * scale, tuple(range(2, x.ndim)), step.attribute("epsilon", 1e-5))}


def _standardized(x: Array, gradient: Array, axes: tuple[int, ...], epsilon: float) -> Array:
    """Back through (x - mean) / sqrt(variance + epsilon), both over ``axes``."""
    count = np.float32(max(math.prod(x.shape[axis] for axis in axes), 1))
    centred = x - x.sum(axis=axes, keepdims=True) / count
    deviation = np.sqrt((centred**2).sum(axis=axes, keepdims=True) / count + np.float32(epsilon))
    standard = centred / deviation
    along = (gradient * standard).sum(axis=axes, keepdims=True) / count
    return np.asarray((gradient - gradient.sum(axis=axes, keepdims=True) / count - standard * along) / deviation)


DERIVATIVES: dict[str, Derivative] = {
    "BatchNormalization": Derivative(_batch_normalization, through=(0,), inputs=(1, 4), limits=_batch_limits),
    "InstanceNormalization": Derivative(_instance_normalization, through=(0,), inputs=(0, 1)),
    "LRN": Derivative(_lrn, inputs=(0,)),
    "LayerNormalization": Derivative(_layer_normalization, through=(0,), inputs=(0, 1)),
    "LogSoftmax": Derivative(_log_softmax, output=True),
    "Softmax": Derivative(_softmax, output=True),
}
