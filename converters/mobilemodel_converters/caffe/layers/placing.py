"""Layers that take values from other places of their input: Crop, Tile, ShuffleChannel, Interp."""

from __future__ import annotations

from typing import Any

import numpy as np

from mobilemodel.errors import LimitExceededError
from mobilemodel_converters.caffe.scope import Scope

_MOST_CHANNELS = 65_536
"""channels that a shuffle lists one by one inside the graph"""


def _crop(scope: Scope) -> None:
    """The first bottom, cut to the second's size on all axes from ``axis`` on, from the offsets on."""
    parameters = scope.layer.message.crop_param
    if len(scope.inputs) != 2:
        scope.malformed("bottoms", expected=2, found=len(scope.inputs))
    shape, wanted = scope.inputs[0].shape, scope.inputs[1].shape
    axis = scope.mixed_axis(parameters.axis, len(shape))
    if len(wanted) != len(shape):
        scope.malformed("axes of the second bottom", expected=len(shape), found=len(wanted))
    axes = range(axis, len(shape))
    if len(parameters.offset) not in (0, 1, len(axes)):
        scope.malformed("offsets", expected=f"0, 1 or {len(axes)}", found=len(parameters.offset))
    offsets = list(parameters.offset) or [0]
    starts = offsets * len(axes) if len(offsets) == 1 else offsets
    before, sizes = scope.known(*shape[axis:]), scope.known(*wanted[axis:])
    for place, start, size, whole in zip(axes, starts, sizes, before, strict=True):
        if start + size > whole:
            scope.malformed(f"axis {place}", expected=f"at most {whole} values", found=f"{size} from {start} on")
    ends = [start + size for start, size in zip(starts, sizes, strict=True)]
    scope.emit("Slice", (scope.inputs[0].name, *_bounds(scope, starts, ends, list(axes))), (*shape[:axis], *sizes))


def _bounds(scope: Scope, starts: list[int], ends: list[int], axes: list[int]) -> tuple[str, str, str]:
    return scope.integers(starts, "starts"), scope.integers(ends, "ends"), scope.integers(axes, "axes")


def _tile(scope: Scope) -> None:
    """All that lies from ``axis`` on, ``tiles`` times one after the other."""
    parameters, shape = scope.layer.message.tile_param, scope.input.shape
    axis = scope.mixed_axis(parameters.axis, len(shape))
    if parameters.tiles < 1:
        scope.malformed("tiles", expected="at least 1", found=parameters.tiles)
    size = shape[axis]
    repeats = [parameters.tiles if place == axis else 1 for place in range(len(shape))]
    target = (*shape[:axis], None if size is None else size * parameters.tiles, *shape[axis + 1 :])
    scope.emit("Tile", (scope.input.name, scope.integers(repeats, "repeats")), target)


def _shuffle_channel(scope: Scope) -> None:
    """Channel g * (C / groups) + i goes to i * groups + g: a list of channels, so that no size has to be known."""
    layer, shape = scope.layer.message, scope.input.shape
    if not layer.HasField("shuffle_channel_param"):
        scope.refuse("the number of groups is not found: forks of Caffe number the field differently; give the "
                     "prototxt too")  # fmt: skip
    if len(shape) < 2:
        scope.malformed("axes", expected="at least 2", found=len(shape))
    (channels,), groups = scope.known(shape[1]), layer.shuffle_channel_param.group
    if groups < 1 or channels % groups:
        scope.malformed("group", expected=f"a divisor of {channels} channels", found=groups)
    if channels > _MOST_CHANNELS:
        raise LimitExceededError("channels to shuffle", expected=f"at most {_MOST_CHANNELS}", found=channels)
    order = np.arange(channels, dtype=np.int64).reshape(groups, -1).T.reshape(-1)
    scope.emit("Gather", (scope.input.name, scope.constant(order, "order")), shape, axis=1)


def _interp(scope: Scope) -> None:
    """Bilinear, corners on corners, after negative padding has cut the edges away (DeepLab's layer)."""
    layer, shape = scope.layer.message, scope.input.shape
    if not layer.HasField("interp_param"):
        scope.refuse("its sizes are not found: forks of Caffe number the field differently; give the prototxt too")
    parameters = layer.interp_param
    if len(shape) != 4:
        scope.malformed("axes", expected=4, found=len(shape))
    begin, end = -parameters.pad_beg, -parameters.pad_end
    if begin < 0 or end < 0:
        scope.malformed("pad_beg and pad_end", expected="0 or less", found=(-begin, -end))
    sizes = scope.known(*shape[2:])
    cut = [size - begin - end for size in sizes]
    target = _interp_sizes(scope, parameters, cut)
    if min(*cut, *target) < 1:
        scope.malformed("sizes", expected="1 or more", found=f"{cut} becomes {target}")
    name = scope.input.name
    if begin or end:
        name = scope.add("Slice", (name, *_bounds(scope, [begin] * 2, [begin + size for size in cut], [2, 3])), "cut")
    # Resize wants all four sizes: the first two are read from the value, so that the batch stays free.
    whole = scope.add("Shape", (name,))
    kept = scope.add("Slice", (whole, scope.integers([0], "first"), scope.integers([2], "two")), "kept")
    whole = scope.add("Concat", (kept, scope.integers(target, "size")), "sizes", axis=0)
    scope.emit("Resize", (name, "", "", whole), (*shape[:2], *target), mode="linear",
               coordinate_transformation_mode="align_corners")  # fmt: skip


def _interp_sizes(scope: Scope, parameters: Any, sizes: list[int]) -> list[int]:
    """Height and width of the output; of the ways to give them, Caffe asks for a lone factor first."""
    shrink, zoom = parameters.HasField("shrink_factor"), parameters.HasField("zoom_factor")
    if shrink == zoom and parameters.HasField("height") and parameters.HasField("width"):
        return [parameters.height, parameters.width]
    if not shrink and not zoom:
        scope.refuse("takes its size from neither height and width nor a factor")
    if parameters.shrink_factor < 1 or parameters.zoom_factor < 1:
        scope.malformed("shrink_factor and zoom_factor", expected="1 or more",
                        found=(parameters.shrink_factor, parameters.zoom_factor))  # fmt: skip
    return [((size - 1) // parameters.shrink_factor) * parameters.zoom_factor + 1 for size in sizes]


RULES = {"Crop": _crop, "Tile": _tile, "ShuffleChannel": _shuffle_channel, "Interp": _interp}
