"""Crop, Tile, ShuffleChannel and Interp of Caffe against plain numpy, over their parameters."""

from __future__ import annotations

from math import prod
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mobilemodel.errors import LimitExceededError, MalformedSourceError, UnsupportedSourceError
from tests.caffe_layers import Array, assert_close, make_layer, run_layer, run_translated, translate_layer

Shape = tuple[int, ...]


def ramp(shape: Shape) -> Array:
    """Values that tell where they come from."""
    return np.arange(prod(shape), dtype=np.float32).reshape(shape)


@given(st.lists(st.integers(1, 6), min_size=1, max_size=4), st.data())
def test_crop_cuts_to_the_second_bottom(sizes: list[int], data: st.DataObject) -> None:
    """All axes from ``axis`` on; one offset for all of them, one for each, or none, which is 0."""
    axis = data.draw(st.integers(0, len(sizes) - 1))
    target = [*sizes[:axis], *(data.draw(st.integers(1, size)) for size in sizes[axis:])]
    rooms = [size - kept for size, kept in zip(sizes[axis:], target[axis:], strict=True)]
    offsets = data.draw(st.sampled_from([
        [], [data.draw(st.integers(0, min(rooms)))], [data.draw(st.integers(0, room)) for room in rooms],
    ]))  # fmt: skip
    starts = (offsets or [0]) * (len(rooms) if len(offsets) < 2 else 1)
    ends = [start + size for start, size in zip(starts, target[axis:], strict=True)]
    cuts = [slice(None)] * axis + [slice(start, end) for start, end in zip(starts, ends, strict=True)]
    parameters = {"axis": axis - data.draw(st.sampled_from([0, len(sizes)])), "offset": offsets}
    layer = make_layer("Crop", bottoms=2, crop_param=parameters)
    x, like = ramp(tuple(sizes)), np.zeros(target, np.float32)
    assert_close(run_layer(layer, [x, like])[0], x[tuple(cuts)], absolute=0)


@pytest.mark.parametrize(
    "parameters", [{"offset": [4]}, {"offset": [1, 2, 3]}, {"axis": 4}, {"offset": [4_294_967_295]}, {"axis": -5}]
)
def test_crop_stays_inside(parameters: dict[str, Any]) -> None:
    inputs = [ramp((1, 2, 6, 6)), ramp((1, 2, 3, 3))]
    with pytest.raises(MalformedSourceError):
        run_layer(make_layer("Crop", bottoms=2, crop_param=parameters), inputs)


@given(st.lists(st.integers(1, 4), min_size=1, max_size=4), st.integers(1, 4), st.data())
def test_tile_repeats_whole_blocks(sizes: list[int], tiles: int, data: st.DataObject) -> None:
    axis = data.draw(st.integers(-len(sizes), len(sizes) - 1))
    x = ramp(tuple(sizes))
    (found,) = run_layer(make_layer("Tile", tile_param={"axis": axis, "tiles": tiles}), [x])
    assert_close(found, np.concatenate([x] * tiles, axis), absolute=0)


def test_tile_counts() -> None:
    with pytest.raises(MalformedSourceError, match="tiles"):
        run_layer(make_layer("Tile", tile_param={"tiles": 0}), [ramp((1, 2))])
    with pytest.raises(LimitExceededError):
        run_layer(make_layer("Tile", tile_param={"tiles": 2**31 - 1}), [ramp((1, 2))])


@given(st.integers(1, 4), st.integers(1, 4))
def test_shuffle_channel_exchanges_groups_and_channels(groups: int, each: int) -> None:
    """Reshape to groups x channels, transpose, flatten; height and width need not be known."""
    x = ramp((2, groups * each, 3, 2))
    expected = x.reshape(2, groups, each, 3, 2).swapaxes(1, 2).reshape(x.shape)
    layer = make_layer("ShuffleChannel", shuffle_channel_param={"group": groups})
    assert_close(run_layer(layer, [x], free=True)[0], expected, absolute=0)


def test_shuffle_channel_needs_its_group() -> None:
    with pytest.raises(UnsupportedSourceError, match="give the prototxt"):
        run_layer(make_layer("ShuffleChannel"), [ramp((1, 4, 1, 1))])
    for group in (0, 3, 4_294_967_295):
        with pytest.raises(MalformedSourceError, match="group"):
            run_layer(make_layer("ShuffleChannel", shuffle_channel_param={"group": group}), [ramp((1, 4, 1, 1))])


def interpolated(x: Array, height: int, width: int) -> Array:
    """Bilinear with corners on corners, value by value (DeepLab's interp)."""
    down = (x.shape[2] - 1) / (height - 1) if height > 1 else 0.0
    across = (x.shape[3] - 1) / (width - 1) if width > 1 else 0.0
    out = np.zeros((*x.shape[:2], height, width))
    for row in range(height):
        top, along = divmod(row * down, 1)
        bottom = min(int(top) + 1, x.shape[2] - 1)
        for column in range(width):
            left, beside = divmod(column * across, 1)
            right = min(int(left) + 1, x.shape[3] - 1)
            upper = x[:, :, int(top), int(left)] * (1 - beside) + x[:, :, int(top), right] * beside
            lower = x[:, :, bottom, int(left)] * (1 - beside) + x[:, :, bottom, right] * beside
            out[:, :, row, column] = upper * (1 - along) + lower * along
    return out.astype(np.float32)


@given(st.integers(3, 7), st.integers(3, 7), st.integers(0, 1), st.integers(0, 1), st.data())
def test_interp_puts_corners_on_corners(height: int, width: int, begin: int, end: int, data: st.DataObject) -> None:
    x = np.random.default_rng(height * width).standard_normal((2, 3, height, width)).astype(np.float32)
    cut = x[:, :, begin : height - end, begin : width - end]
    rows, columns = cut.shape[2:]
    factors = st.integers(1, 3)
    given_sizes = {"height": data.draw(st.integers(1, 12)), "width": data.draw(st.integers(1, 12))}
    shrink, zoom = {"shrink_factor": data.draw(factors)}, {"zoom_factor": data.draw(factors)}
    # A lone factor comes before height and width, both factors come behind them.
    parameters = data.draw(st.sampled_from([
        given_sizes, shrink, zoom, shrink | zoom, given_sizes | shrink, given_sizes | shrink | zoom,
    ]))  # fmt: skip
    if "height" in parameters and len(parameters) != 3:
        target = given_sizes["height"], given_sizes["width"]
    else:
        shrunk = [(size - 1) // parameters.get("shrink_factor", 1) + 1 for size in (rows, columns)]
        target = tuple(size + (size - 1) * (parameters.get("zoom_factor", 1) - 1) for size in shrunk)
    layer = make_layer("Interp", interp_param={"pad_beg": -begin, "pad_end": -end, **parameters})
    assert_close(run_layer(layer, [x])[0], interpolated(cut, *target), absolute=1e-5)


def test_interp_keeps_the_batch_free() -> None:
    model = translate_layer(make_layer("Interp", interp_param={"zoom_factor": 2}), [(1, 2, 3, 4)])
    x = ramp((3, 2, 3, 4))
    assert_close(run_translated(model, [x])["y0"], interpolated(x, 5, 7), absolute=1e-5)


@pytest.mark.parametrize(
    "parameters",
    [{"zoom_factor": 0}, {"shrink_factor": -1}, {"pad_beg": 1, "zoom_factor": 1}, {"height": -1, "width": 3},
     {"pad_beg": -2, "pad_end": -2, "zoom_factor": 2}],
)  # fmt: skip
def test_interp_sizes_are_positive(parameters: dict[str, Any]) -> None:
    with pytest.raises(MalformedSourceError):
        run_layer(make_layer("Interp", interp_param=parameters), [ramp((1, 1, 4, 4))])


def test_interp_without_sizes_is_refused() -> None:
    for layer in (make_layer("Interp"), make_layer("Interp", interp_param={"height": 3})):
        with pytest.raises(UnsupportedSourceError):
            run_layer(layer, [ramp((1, 1, 4, 4))])
