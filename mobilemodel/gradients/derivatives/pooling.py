"""Derivatives of poolings and of sums and means over axes."""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np

from mobilemodel.gradients.derivatives.step import Array, Derivative, Step, window
from mobilemodel.gradients.derivatives.windows import Windows


def _max_pool(step: Step) -> Mapping[int, Array]:
    """All to the first place of a window, row by row, that holds its largest value."""
    largest, outputs = step.output(), step.gradient.shape[2:]
    windows = Windows.of(step, step.attribute("kernel_shape"))
    starts = (0, 0, *(-begin for begin in windows.begins))
    shape = (*largest.shape[:2], *windows.reach(outputs))
    padded = window(step.input(0), starts, shape, fill=-np.inf)
    found = np.zeros(shape, step.gradient.dtype)
    left = step.gradient
    for place in windows.places(outputs):
        share = left * (padded[place] == largest)
        found[place] += share
        left = left - share
    return {0: window(found, (0, 0, *windows.begins), step.shape())}


def _average_pool(step: Step) -> Mapping[int, Array]:
    outputs, inputs = step.gradient.shape[2:], step.shape()[2:]
    windows = Windows.of(step, step.attribute("kernel_shape"))
    counts = windows.counts(inputs, outputs, padding=bool(step.attribute("count_include_pad", 0)))
    share = step.gradient / counts
    found = np.zeros((*share.shape[:2], *windows.reach(outputs)), share.dtype)
    for place in windows.places(outputs):
        found[place] += share
    return {0: window(found, (0, 0, *windows.begins), step.shape())}


def _global_average(step: Step) -> Mapping[int, Array]:
    share = step.gradient / np.float32(max(math.prod(step.shape()[2:]), 1))
    return {0: np.broadcast_to(share, step.shape())}


def _global_max(step: Step) -> Mapping[int, Array]:
    values = step.input(0)
    rows = values.reshape(*values.shape[:2], -1)
    found = np.zeros(rows.shape, step.gradient.dtype)
    np.put_along_axis(found, rows.argmax(axis=2)[:, :, None], step.gradient.reshape(*values.shape[:2], 1), axis=2)
    return {0: found.reshape(values.shape)}


def _reduce(step: Step) -> tuple[Array, int]:
    """The gradient, as large as the input, and how many values each sum had."""
    shape = step.shape()
    axes = step.integers("axes", 1)
    if not axes and step.attribute("noop_with_empty_axes", 0):
        return step.gradient, 1
    reduced = {axis % len(shape) for axis in axes} if axes else set(range(len(shape)))
    kept = tuple(1 if axis in reduced else size for axis, size in enumerate(shape))
    return np.broadcast_to(step.gradient.reshape(kept), shape), math.prod(shape[axis] for axis in reduced)


def _reduce_sum(step: Step) -> Mapping[int, Array]:
    return {0: _reduce(step)[0]}


def _reduce_mean(step: Step) -> Mapping[int, Array]:
    gradient, count = _reduce(step)
    return {0: gradient / np.float32(max(count, 1))}


DERIVATIVES: dict[str, Derivative] = {
    "AveragePool": Derivative(_average_pool, shapes=(0,)),
    "GlobalAveragePool": Derivative(_global_average, shapes=(0,)),
    "GlobalMaxPool": Derivative(_global_max, inputs=(0,)),
    "MaxPool": Derivative(_max_pool, inputs=(0,), output=True, shapes=(0,)),
    "ReduceMean": Derivative(_reduce_mean, through=(0,), inputs=(1,), shapes=(0,)),
    "ReduceSum": Derivative(_reduce_sum, through=(0,), inputs=(1,), shapes=(0,)),
}
