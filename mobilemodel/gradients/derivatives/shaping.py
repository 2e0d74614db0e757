"""Derivatives of operators that move, cut and join values."""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np

from mobilemodel.gradients.derivatives.step import EVERY, Array, Derivative, Operation, Step, unbroadcast, window

_WITHOUT_END = frozenset((2**31 - 1, 2**63 - 1))


def _reshape(step: Step) -> Mapping[int, Array]:
    return {0: step.gradient.reshape(step.shape())}


def _transpose(step: Step) -> Mapping[int, Array]:
    order = step.attribute("perm") or list(range(step.gradient.ndim))[::-1]
    return {0: step.gradient.transpose(np.argsort(order))}


def _concat(step: Step) -> Mapping[int, Array]:
    axis = step.attribute("axis", 1)  # opset 1 had a default
    bounds = np.cumsum([step.shape(index)[axis] for index in range(len(step.operation.inputs))])
    parts = np.split(step.gradient, bounds[:-1], axis=axis)
    return {index: parts[index] for index in step.wanted}


def _split(step: Step) -> Mapping[int, Array]:
    """Outputs that no gradient arrives at count as zeros."""
    parts = [
        step.gradients.get(index, np.zeros(step.output_shape(index), np.float32))
        for index in range(len(step.operation.outputs))
    ]
    return {0: np.concatenate(parts, axis=step.attribute("axis", 0))}


def _split_limits(operation: Operation) -> str:
    return "" if all(operation.outputs) else "one of its parts is left out"


def _slice(step: Step) -> Mapping[int, Array]:
    shape = step.shape()
    starts, ends = step.integers("starts", 1) or [], step.integers("ends", 2) or []
    axes = step.integers("axes", 3) or list(range(len(starts)))
    steps = step.integers("steps", 4) or [1] * len(starts)
    places = [slice(None)] * len(shape)
    for axis, start, end, stride in zip(axes, starts, ends, steps, strict=True):
        # A start before the first element is the first (with a step back Python would take nothing), and the largest
        # integers as an end mean all that there is, whatever the direction (ONNX: Slice).
        places[axis] = slice(max(start, -shape[axis]), None if end in _WITHOUT_END else end, stride)
    found = np.zeros(shape, step.gradient.dtype)
    found[tuple(places)] = step.gradient
    return {0: found}


def _pad(step: Step) -> Mapping[int, Array]:
    shape = step.shape()
    pads = step.integers("pads", 1) or []
    axes = step.integers("", 3) or list(range(len(shape)))
    starts = [0] * len(shape)
    for axis, begin in zip(axes, pads[: len(pads) // 2], strict=True):
        starts[axis] = begin
    return {0: window(step.gradient, starts, shape)}


def _pad_limits(operation: Operation) -> str:
    return "" if operation.attributes.get("mode", b"constant") == b"constant" else "its mode is not constant"


def _gather(step: Step) -> Mapping[int, Array]:
    shape, indices = step.shape(), step.input(1)
    axis = step.attribute("axis", 0) % len(shape)
    found = np.zeros(shape, step.gradient.dtype)
    parts = step.gradient.reshape(*shape[:axis], indices.size, *shape[axis + 1 :])
    np.add.at(found, (slice(None),) * axis + (indices.reshape(-1),), parts)
    return {0: found}


def _expand(step: Step) -> Mapping[int, Array]:
    return {0: unbroadcast(step.gradient, step.shape())}


def _resize(step: Step) -> Mapping[int, Array]:
    """Nearest neighbours: a picture of place numbers, resized by the operator itself, tells what came from where."""
    shape, gradient = step.shape(), step.gradient
    kept = 2 if gradient.shape[:2] == shape[:2] else 0
    numbers = np.arange(math.prod(shape[kept:]), dtype=np.int32).reshape((1,) * kept + shape[kept:])
    others = [step.optional(index) for index in range(1, len(step.operation.inputs))]
    if len(others) == 3 and others[2] is not None and len(others[2]) == len(shape):
        others[2] = np.array([1] * kept + list(gradient.shape[kept:]), np.int64)
    operation = step.operation
    resized = step.kernels.run(operation.operator, numbers, *others, opset=operation.opset, **operation.attributes)
    sources = resized.reshape(-1)
    order = np.argsort(sources, kind="stable")
    firsts = np.flatnonzero(np.diff(sources[order], prepend=-1))
    rows = gradient.reshape(math.prod(shape[:kept]), -1)
    found = np.zeros((len(rows), numbers.size), gradient.dtype)
    found[:, sources[order][firsts]] = np.add.reduceat(rows[:, order], firsts, axis=1)
    return {0: found.reshape(shape)}


def _resize_limits(operation: Operation) -> str:
    if operation.attributes.get("mode", b"nearest") != b"nearest":
        return "its mode is not nearest"
    rule = operation.attributes.get("coordinate_transformation_mode")
    return "it crops" if rule in (b"tf_crop_and_resize", b"tf_half_pixel_for_nn") else ""


DERIVATIVES: dict[str, Derivative] = {
    "Concat": Derivative(_concat, shapes=EVERY),
    "Expand": Derivative(_expand, through=(0,), shapes=(0,)),
    "Flatten": Derivative(_reshape, shapes=(0,)),
    "Gather": Derivative(_gather, through=(0,), inputs=(1,), shapes=(0,)),
    "Pad": Derivative(_pad, through=(0,), inputs=(1, 3), shapes=(0,), limits=_pad_limits),
    "Reshape": Derivative(_reshape, through=(0,), shapes=(0,)),
    "Resize": Derivative(_resize, through=(0,), inputs=range(1, 4), shapes=(0,), limits=_resize_limits),
    "Slice": Derivative(_slice, through=(0,), inputs=range(1, 5), shapes=(0,)),
    "Split": Derivative(_split, through=(0,), back_from=EVERY, output_shapes=EVERY, limits=_split_limits),
    "Squeeze": Derivative(_reshape, through=(0,), shapes=(0,)),
    "Transpose": Derivative(_transpose),
    "Unsqueeze": Derivative(_reshape, through=(0,), shapes=(0,)),
    "Upsample": Derivative(_resize, through=(0,), inputs=(1,), shapes=(0,), limits=_resize_limits),
}
