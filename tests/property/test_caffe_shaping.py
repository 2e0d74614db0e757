"""Concat, Slice, Flatten, Reshape and Permute of Caffe against plain numpy, over their parameters."""

from __future__ import annotations

from math import prod
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mobilemodel.errors import MalformedSourceError, UnsupportedSourceError
from tests.caffe_layers import Array, assert_close, make_layer, run_layer, run_translated, translate_layer

Shape = tuple[int, ...]
SHAPES = st.lists(st.integers(1, 5), min_size=1, max_size=5).map(tuple)


def ramp(shape: Shape) -> Array:
    """Values that tell where they come from."""
    return np.arange(prod(shape), dtype=np.float32).reshape(shape)


def free_batch(layer: Any, shape: Shape, batch: int = 3) -> Array:
    """Translated for one batch size, run on another."""
    model = translate_layer(layer, [shape])
    return run_translated(model, [ramp((batch, *shape[1:]))])[layer.tops[0]]


@given(SHAPES, st.lists(st.integers(1, 4), min_size=1, max_size=4), st.booleans(), st.data())
def test_concat_puts_bottoms_side_by_side(shape: Shape, sizes: list[int], old: bool, data: st.DataObject) -> None:
    axis = data.draw(st.integers(0 if old else -len(shape), len(shape) - 1))
    place = axis % len(shape)
    inputs = [ramp((*shape[:place], size, *shape[place + 1 :])) + 100 * size for size in sizes]
    layer = make_layer("Concat", bottoms=len(sizes), concat_param={"concat_dim" if old else "axis": axis})
    assert_close(run_layer(layer, inputs)[0], np.concatenate(inputs, axis), absolute=0)


def test_concat_is_over_the_channels_by_default_and_refuses_two_axes() -> None:
    inputs = [ramp((2, 3, 4)), ramp((2, 1, 4))]
    assert run_layer(make_layer("Concat", bottoms=2), inputs)[0].shape == (2, 4, 4)
    with pytest.raises(MalformedSourceError, match="axis and concat_dim"):
        run_layer(make_layer("Concat", bottoms=2, concat_param={"axis": 1, "concat_dim": 1}), inputs)
    with pytest.raises(MalformedSourceError, match="shapes of the bottoms differ"):
        run_layer(make_layer("Concat", bottoms=2, concat_param={"axis": 2}), inputs)


@given(SHAPES, st.booleans(), st.booleans(), st.data())
def test_slice_points_are_where_parts_begin(shape: Shape, old: bool, equal: bool, data: st.DataObject) -> None:
    axis = data.draw(st.integers(0 if old else -len(shape), len(shape) - 1))
    size = data.draw(st.integers(1, 8))
    whole = [*shape]
    whole[axis] = size
    if equal:
        parts = data.draw(st.sampled_from([n for n in range(1, size + 1) if size % n == 0]))
        points = [size // parts * n for n in range(1, parts)]
    else:
        points = sorted(data.draw(st.sets(st.integers(1, size - 1), min_size=1))) if size > 1 else []
    x = ramp(tuple(whole))
    parameters = {"slice_dim" if old else "axis": axis, "slice_point": [] if equal else points}
    found = run_layer(make_layer("Slice", tops=len(points) + 1, slice_param=parameters), [x])
    for part, expected in zip(found, np.split(x, points, axis), strict=True):
        assert_close(part, expected, absolute=0)


@pytest.mark.parametrize(
    ("tops", "parameters"),
    [
        (2, {"slice_point": [0]}),
        (2, {"slice_point": [6]}),
        (3, {"slice_point": [3, 2]}),
        (3, {"slice_point": [2, 2]}),
        (3, {"slice_point": [2]}),
        (4, {}),
        (7, {}),
        (2, {"slice_point": [4_294_967_295]}),
        (2, {"slice_dim": 4_294_967_295}),
        (2, {"axis": 1, "slice_dim": 1}),
    ],
)
def test_slice_points_must_rise_within_the_axis(tops: int, parameters: dict[str, Any]) -> None:
    with pytest.raises(MalformedSourceError):
        run_layer(make_layer("Slice", tops=tops, slice_param=parameters), [ramp((1, 6))])


@given(SHAPES, st.data())
def test_flatten_merges_a_range_of_axes(shape: Shape, data: st.DataObject) -> None:
    first = data.draw(st.integers(0, len(shape) - 1))
    last = data.draw(st.integers(first, len(shape) - 1))
    sign = data.draw(st.sampled_from([0, len(shape)]))
    expected = ramp(shape).reshape(*shape[:first], prod(shape[first : last + 1]), *shape[last + 1 :])
    layer = make_layer("Flatten", flatten_param={"axis": first - sign, "end_axis": last - sign})
    assert_close(run_layer(layer, [ramp(shape)])[0], expected, absolute=0)


def test_flatten_keeps_batch_and_size_free() -> None:
    assert_close(free_batch(make_layer("Flatten"), (1, 2, 3)), ramp((3, 6)), absolute=0)
    x = ramp((2, 3, 4, 5))
    assert_close(run_layer(make_layer("Flatten"), [x], free=True)[0], x.reshape(2, 60), absolute=0)
    with pytest.raises(UnsupportedSourceError, match="--input-shape"):
        run_layer(make_layer("Flatten", flatten_param={"end_axis": 2}), [x], free=True)


def reshaped(shape: Shape, dims: list[int], axis: int, axes: int) -> Shape:
    """Caffe's rule, word for word: retained axes, the given ones, retained axes; 0 copies, -1 is what is left."""
    start = axis if axis >= 0 else len(shape) + axis + 1
    end = len(shape) if axes == -1 else start + axes
    top = [*shape[:start], *dims, *shape[end:]]
    for place, size in enumerate(dims):
        if size == 0:
            top[start + place] = shape[start + place]
    if -1 in dims:
        top[start + dims.index(-1)] = prod(shape) // prod(size for size in top if size != -1)
    return tuple(top)


@st.composite
def reshapes(draw: st.DrawFn) -> tuple[Shape, dict[str, Any]]:
    """A shape, and a Reshape that it allows: part of its axes become other axes of the same product."""
    shape = draw(SHAPES)
    start = draw(st.integers(0, len(shape)))
    end = draw(st.integers(start, len(shape)))
    rest, dims = prod(shape[start:end]), list[int]()
    for _ in range(draw(st.integers(0, 3))):
        dims.append(draw(st.sampled_from([size for size in range(1, rest + 1) if rest % size == 0])))
        rest //= dims[-1]
    if rest > 1 or draw(st.booleans()):
        dims.append(rest)
    for place, size in enumerate(dims):
        if start + place < len(shape) and shape[start + place] == size and draw(st.booleans()):
            dims[place] = 0
    if len(dims) > 0 and draw(st.booleans()):
        dims[draw(st.integers(0, len(dims) - 1))] = -1
    axis = start - draw(st.sampled_from([0, len(shape) + 1]))
    axes = -1 if end == len(shape) and draw(st.booleans()) else end - start
    return shape, {"shape": {"dim": dims}, "axis": axis, "num_axes": axes}


@given(reshapes())
def test_reshape_replaces_a_range_of_axes(case: tuple[Shape, dict[str, Any]]) -> None:
    shape, parameters = case
    target = reshaped(shape, parameters["shape"]["dim"], parameters["axis"], parameters["num_axes"])
    (found,) = run_layer(make_layer("Reshape", reshape_param=parameters), [ramp(shape)])
    assert_close(found, ramp(shape).reshape(target), absolute=0)


@pytest.mark.parametrize("dims", [[0, 2, -1], [1, 2, -1], [1, -1], [0, 0, -1], [-1, 12], [0, 2, 6]])
def test_reshape_keeps_the_batch_free(dims: list[int]) -> None:
    """A size in the first place that equals the batch's means the batch, as in files made for a batch of one."""
    layer = make_layer("Reshape", reshape_param={"shape": {"dim": dims}})
    assert_close(free_batch(layer, (1, 4, 3)), ramp((3, *reshaped((1, 4, 3), dims, 0, -1)[1:])), absolute=0)


def test_a_reshape_that_mixes_the_batch_fixes_it() -> None:
    layer = make_layer("Reshape", reshape_param={"shape": {"dim": [-1, 3]}})
    model = translate_layer(layer, [(1, 4, 3)])
    assert [dim.size for dim in model.inputs[0].shape.dimensions] == [1, 4, 3]
    assert_close(run_translated(model, [ramp((1, 4, 3))])["y0"], ramp((4, 3)), absolute=0)


def test_reshape_without_knowing_height_and_width() -> None:
    """Ultra-Light's heads: N x H x W x 2C to N x boxes x 2."""
    x = ramp((2, 6, 4, 5))
    layer = make_layer("Reshape", reshape_param={"shape": {"dim": [0, -1, 2]}})
    assert_close(run_layer(layer, [x], free=True)[0], x.reshape(2, 60, 2), absolute=0)


@pytest.mark.parametrize(
    "parameters",
    [
        {"shape": {"dim": [-1, -1]}},
        {"shape": {"dim": [7]}},
        {"shape": {"dim": [-2, 3]}},
        {"shape": {"dim": [5, -1]}},
        {"shape": {"dim": [2, 3, 2, 0]}},
        {"shape": {"dim": [2**62, 2**62, -1]}},
        {"shape": {"dim": [2**62, 4]}},
        {"shape": {"dim": [1] * 40}},
        {"axis": 5},
        {"axis": -5},
        {"axis": 1, "num_axes": 3},
        {"num_axes": -2},
        {"num_axes": 2**31 - 1},
    ],
)
def test_reshape_must_keep_the_values(parameters: dict[str, Any]) -> None:
    with pytest.raises(MalformedSourceError):
        run_layer(make_layer("Reshape", reshape_param=parameters), [ramp((2, 3, 2))])


@given(SHAPES, st.data())
def test_permute_appends_missing_axes_in_natural_order(shape: Shape, data: st.DataObject) -> None:
    order = data.draw(st.permutations(range(len(shape))))[: data.draw(st.integers(0, len(shape)))]
    whole = [*order, *(axis for axis in range(len(shape)) if axis not in order)]
    (found,) = run_layer(make_layer("Permute", permute_param={"order": order}), [ramp(shape)])
    assert_close(found, ramp(shape).transpose(whole), absolute=0)


@pytest.mark.parametrize("order", [[0, 0], [2], [4_294_967_295], [0, 1, 2]])
def test_permute_names_each_axis_once(order: list[int]) -> None:
    with pytest.raises(MalformedSourceError, match="order"):
        run_layer(make_layer("Permute", permute_param={"order": order}), [ramp((2, 3))])
