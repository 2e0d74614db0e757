"""Layers that only move values: Concat, Slice, Flatten, Reshape, Permute."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

from mobilemodel_converters.caffe.layers.shapes import agreed, count, several
from mobilemodel_converters.caffe.net import Shape
from mobilemodel_converters.caffe.scope import Scope

_MOST_AXES = 32
"""axes that Caffe gives a blob (kMaxBlobAxes)"""


def _axis(scope: Scope, parameters: Any, old_field: str) -> int:
    """``axis``, or the unsigned field that files of old have in its place; both at once are an error in Caffe."""
    axis = parameters.axis
    if parameters.HasField(old_field):
        if parameters.HasField("axis"):
            scope.malformed(f"axis and {old_field}", expected="one of them", found="both")
        axis = getattr(parameters, old_field)
    return scope.mixed_axis(axis, len(scope.inputs[0].shape))


def _concat(scope: Scope) -> None:
    inputs = several(scope, 1)
    axis = _axis(scope, scope.layer.message.concat_param, "concat_dim")
    shape = agreed(scope, [value.shape for value in inputs], but=axis)
    if len(inputs) == 1:
        scope.alias(inputs[0])
    else:
        scope.emit("Concat", [value.name for value in inputs], shape, axis=axis)


def _slice(scope: Scope) -> None:
    """Parts that begin at the slice points, or equal parts where there are none."""
    parameters, shape, tops = scope.layer.message.slice_param, scope.input.shape, len(scope.layer.tops)
    axis = _axis(scope, parameters, "slice_dim")
    (size,) = scope.known(shape[axis])
    if tops == 0 or tops > size:
        scope.malformed("tops", expected=f"1 to {size}, the size of axis {axis}", found=tops)
    points = tuple(parameters.slice_point)
    if not points:
        if size % tops:
            scope.malformed(f"{size} values of axis {axis} do not make {tops} equal parts")
        points = tuple(range(size // tops, size, size // tops))
    if len(points) != tops - 1:
        scope.malformed("slice points", expected=f"{tops - 1}, one less than tops", found=len(points))
    ends = (0, *points, size)
    if any(end <= start for start, end in pairwise(ends)):
        scope.malformed("slice points", expected=f"rising, from 1 to {size - 1}", found=points[:8])
    if tops == 1:
        scope.alias(scope.input)
        return
    sizes = [end - start for start, end in pairwise(ends)]
    shapes = [(*shape[:axis], part, *shape[axis + 1 :]) for part in sizes]
    scope.emit_many("Split", (scope.input.name, scope.integers(sizes, "sizes")), shapes, axis=axis)


def _flatten(scope: Scope) -> None:
    """The axes from ``axis`` to ``end_axis`` become one, all others stay."""
    parameters, shape = scope.layer.message.flatten_param, scope.input.shape
    first = scope.axis(parameters.axis, len(shape))
    last = scope.axis(parameters.end_axis, len(shape))
    if last < first:
        scope.malformed("end_axis", expected=f"{first} or later", found=last)
    if first == 0 and last > 0:
        scope.fix_batch()
    target = (*shape[:first], count(shape[first : last + 1]), *shape[last + 1 :])
    if first == 1 and last == len(shape) - 1:
        scope.emit("Flatten", (scope.input.name,), target, axis=1)
    else:
        sizes = (*(0 for _ in range(first)), -1, *scope.known(*shape[last + 1 :]))
        scope.emit("Reshape", (scope.input.name, scope.integers(sizes, "shape")), target)


def _reshape(scope: Scope) -> None:
    """A part of the axes gets other sizes: 0 copies the input's, -1 is what is left for it."""
    parameters, shape = scope.layer.message.reshape_param, scope.input.shape
    start, end = _range(scope, parameters.axis, parameters.num_axes, len(shape))
    wanted = tuple(parameters.shape.dim)
    if start + len(wanted) + len(shape) - end > _MOST_AXES:
        scope.malformed("axes", expected=f"at most {_MOST_AXES}", found=start + len(wanted) + len(shape) - end)
    if wanted.count(-1) > 1 or min(wanted, default=0) < -1:
        scope.malformed("shape", expected="sizes, 0, and -1 at most once", found=wanted)
    if any(size == 0 and start + place >= len(shape) for place, size in enumerate(wanted)):
        scope.malformed("a size of 0 where the input has no axis to copy", found=wanted)
    sizes = [*shape[:start], *(shape[start + i] if size == 0 else size for i, size in enumerate(wanted)), *shape[end:]]
    target = _infer(scope, sizes, start + wanted.index(-1) if -1 in wanted else None)
    # In ONNX's shape, 0 copies as in Caffe; sizes behind the replaced part have moved and are written out.
    text = [*(0 for _ in range(start)), *wanted, *(-1 if size is None else size for size in shape[end:])]
    if text.count(-1) > 1:
        scope.known(*shape[end:])
    if text and shape and target[0] == shape[0] and target[0] is not None:
        text[0] = 0
    elif not text or text[0] != 0:
        scope.fix_batch()
    scope.emit("Reshape", (scope.input.name, scope.integers(text, "shape")), target)


def _range(scope: Scope, axis: int, axes: int, rank: int) -> tuple[int, int]:
    """The axes that are replaced: from ``axis``, which may point behind the last one, on."""
    start = axis if axis >= 0 else rank + axis + 1
    if not 0 <= start <= rank:
        scope.malformed("axis", expected=f"{-rank - 1} to {rank}", found=axis)
    end = rank if axes == -1 else start + axes
    if axes < -1 or end > rank:
        scope.malformed("num_axes", expected=f"-1 to {rank - start}", found=axes)
    return start, end


def _infer(scope: Scope, sizes: list[int | None], place: int | None) -> Shape:
    """The output's sizes, with the one at ``place`` computed; the number of values must stay the same."""
    values = count(scope.input.shape)
    others = count(size for index, size in enumerate(sizes) if index != place)
    if values is None or others is None:
        return tuple(None if index == place else size for index, size in enumerate(sizes))
    if place is None:
        if others != values:
            scope.malformed("shape", expected=f"{values} values", found=f"{others}, {tuple(sizes)}")
        return tuple(sizes)
    if others == 0 or values % others:
        scope.malformed("shape", expected=f"a divisor of {values} values", found=others)
    return tuple(values // others if index == place else size for index, size in enumerate(sizes))


def _permute(scope: Scope) -> None:
    """Axes in the order given; those that are not named follow in their own order."""
    shape, order = scope.input.shape, list(scope.layer.message.permute_param.order)
    if not shape:
        scope.malformed("axes", expected="at least 1", found=0)
    if len(order) > len(shape) or len(set(order)) != len(order) or any(axis >= len(shape) for axis in order):
        scope.malformed("order", expected=f"different axes below {len(shape)}", found=tuple(order[:_MOST_AXES]))
    order += [axis for axis in range(len(shape)) if axis not in order]
    if order[0] != 0:
        scope.fix_batch()
    scope.emit("Transpose", (scope.input.name,), tuple(shape[axis] for axis in order), perm=order)


RULES = {"Concat": _concat, "Slice": _slice, "Flatten": _flatten, "Reshape": _reshape, "Permute": _permute}
