"""Reduction, ArgMax, SPP, Embed and Parameter of Caffe against plain numpy, over their parameters."""

from __future__ import annotations

from math import ceil, prod
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mobilemodel.errors import MalformedSourceError, UnsupportedSourceError
from mobilemodel.model import Role
from tests.caffe_layers import (
    Array,
    assert_close,
    make_layer,
    net_of,
    roles_of,
    run_layer,
    run_net,
    run_translated,
    translate_layer,
)

Shape = tuple[int, ...]
SHAPES = st.lists(st.integers(1, 4), min_size=1, max_size=4).map(tuple)


def normal(shape: Shape, seed: int = 3) -> Array:
    """Different values of both signs."""
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


@given(SHAPES, st.sampled_from(["SUM", "ASUM", "SUMSQ", "MEAN"]), st.sampled_from([1.0, -0.5]), st.data())
def test_reduction_makes_one_value_of_the_last_axes(
    shape: Shape, operation: str, coefficient: float, data: st.DataObject
) -> None:
    axis = data.draw(st.integers(-len(shape), len(shape) - 1))
    x = normal(shape)
    rows = x.reshape(*shape[: axis % len(shape)], -1)
    expected = {"SUM": rows.sum(-1), "ASUM": np.abs(rows).sum(-1), "SUMSQ": (rows * rows).sum(-1),
                "MEAN": rows.sum(-1) / rows.shape[-1]}[operation]  # fmt: skip
    parameters = {"operation": operation, "axis": axis, "coeff": coefficient}
    (found,) = run_layer(make_layer("Reduction", reduction_param=parameters), [x])
    assert_close(found, np.asarray(expected * coefficient, np.float32), absolute=1e-5)


def test_a_reduction_of_the_batch_fixes_it() -> None:
    model = translate_layer(make_layer("Reduction"), [(2, 3)])
    assert [dim.size for dim in model.inputs[0].shape.dimensions] == [2, 3]
    assert model.outputs[0].shape.dimensions == []


def largest(row: Array, most: int) -> list[tuple[float, int]]:
    """Caffe sorts pairs of value and place downwards: of equal values the last comes first."""
    return sorted(((float(value), place) for place, value in enumerate(row)), reverse=True)[:most]


VALUES = st.sampled_from([0.0, -1.0, 2.0, 2.5])


@given(st.lists(st.integers(1, 3), min_size=1, max_size=4), st.booleans(), st.data())
def test_argmax_over_all_of_a_picture(sizes: list[int], values: bool, data: st.DataObject) -> None:
    """Without an axis: N x 1 x top_k places, or N x 2 x top_k with the values behind them; ties are frequent."""
    x = np.array(data.draw(st.lists(VALUES, min_size=prod(sizes), max_size=prod(sizes))), np.float32).reshape(sizes)
    most = data.draw(st.integers(1, prod(sizes[1:])))
    expected = [[list(zip(*largest(row, most), strict=True))[place] for place in ((1, 0) if values else (1,))]
                for row in x.reshape(len(x), -1)]  # fmt: skip
    target = np.array(expected, np.float32).reshape(len(x), 2 if values else 1, most, *(1 for _ in sizes[3:]))
    (found,) = run_layer(make_layer("ArgMax", argmax_param={"out_max_val": values, "top_k": most}), [x])
    assert_close(found, target, absolute=0)


@given(st.lists(st.integers(1, 3), min_size=1, max_size=4), st.booleans(), st.data())
def test_argmax_along_an_axis(sizes: list[int], values: bool, data: st.DataObject) -> None:
    """With an axis its size becomes top_k, and the values come in place of the places."""
    x = np.array(data.draw(st.lists(VALUES, min_size=prod(sizes), max_size=prod(sizes))), np.float32).reshape(sizes)
    axis = data.draw(st.integers(-len(sizes), len(sizes) - 1))
    most = data.draw(st.integers(1, sizes[axis]))
    expected = np.apply_along_axis(
        lambda row: np.array([pair[0 if values else 1] for pair in largest(row, most)]), axis, x
    )
    parameters = {"axis": axis, "out_max_val": values, "top_k": most}
    (found,) = run_layer(make_layer("ArgMax", argmax_param=parameters), [x])
    assert_close(found, expected.astype(np.float32), absolute=0)


def test_argmax_over_classes_leaves_height_and_width_free() -> None:
    x = normal((2, 5, 3, 4))
    (found,) = run_layer(make_layer("ArgMax", argmax_param={"axis": 1}), [x], free=True)
    assert_close(found, x.argmax(1, keepdims=True).astype(np.float32), absolute=0)


@pytest.mark.parametrize("parameters", [{"top_k": 0}, {"top_k": 7}, {"axis": 1, "top_k": 4}, {"axis": 3}])
def test_argmax_gives_as_many_as_there_are(parameters: dict[str, Any]) -> None:
    with pytest.raises(MalformedSourceError):
        run_layer(make_layer("ArgMax", argmax_param=parameters), [normal((1, 3, 2))])


def bins(x: Array, count: int, method: str) -> Array:
    """One level of a pyramid, window by window, with Caffe's rules for the last window and for the mean's divisor."""
    kernels = [ceil(size / count) for size in x.shape[2:]]
    pads = [(kernel * count - size + 1) // 2 for kernel, size in zip(kernels, x.shape[2:], strict=True)]
    counts = []
    for size, kernel, pad in zip(x.shape[2:], kernels, pads, strict=True):
        number = ceil((size + 2 * pad - kernel) / kernel) + 1
        counts.append(number - 1 if any(pads) and (number - 1) * kernel >= size + pad else number)
    out = np.zeros((*x.shape[:2], *counts), np.float32)
    for row in range(counts[0]):
        for column in range(counts[1]):
            start = [place * kernel - pad for place, kernel, pad in zip((row, column), kernels, pads, strict=True)]
            end = [min(s + k, size + p) for s, k, size, p in zip(start, kernels, x.shape[2:], pads, strict=True)]
            window = x[:, :, max(start[0], 0) : end[0], max(start[1], 0) : end[1]]
            area = (end[0] - start[0]) * (end[1] - start[1])
            out[:, :, row, column] = window.max((2, 3)) if method == "MAX" else window.sum((2, 3)) / area
    return out


def possible(size: int, level: int) -> bool:
    """Caffe's Pooling refuses a padding as large as the window."""
    count = 1 << level
    kernel = ceil(size / count)
    return (kernel * count - size + 1) // 2 < kernel


@given(st.integers(1, 12), st.integers(1, 12), st.integers(1, 3), st.sampled_from(["MAX", "AVE"]))
def test_a_pyramid_is_levels_of_1_4_and_16_bins(height: int, width: int, levels: int, method: str) -> None:
    x = normal((2, 3, height, width))
    layer = make_layer("SPP", spp_param={"pyramid_height": levels, "pool": method})
    if not all(possible(size, level) for size in (height, width) for level in range(levels)):
        with pytest.raises(MalformedSourceError):
            run_layer(layer, [x])
        return
    pooled = [bins(x, 2**level, method) for level in range(levels)]
    expected = pooled[0] if levels == 1 else np.concatenate([level.reshape(2, -1) for level in pooled], 1)
    assert_close(run_layer(layer, [x])[0], expected, absolute=1e-5)


@pytest.mark.parametrize("height", [0, 5, 33, 4_294_967_295])
def test_a_pyramid_has_bins_for_all_its_levels(height: int) -> None:
    with pytest.raises(MalformedSourceError, match="pyramid_height"):
        run_layer(make_layer("SPP", spp_param={"pyramid_height": height}), [normal((1, 1, 8, 8))])


def test_stochastic_pyramids_are_refused() -> None:
    with pytest.raises(UnsupportedSourceError, match="stochastic"):
        run_layer(make_layer("SPP", spp_param={"pyramid_height": 1, "pool": "STOCHASTIC"}), [normal((1, 1, 8, 8))])


@given(SHAPES, st.integers(1, 6), st.integers(1, 5), st.booleans())
def test_embed_takes_a_row_for_each_value(shape: Shape, rows: int, width: int, bias: bool) -> None:
    weight, shift = normal((rows, width)), normal((width,), 4)
    x = np.random.default_rng(rows).integers(0, rows, shape)
    parameters = {"input_dim": rows, "num_output": width, "bias_term": bias}
    layer = make_layer("Embed", [weight, shift] if bias else [weight], embed_param=parameters)
    (found,) = run_layer(layer, [x.astype(np.float32)])
    assert_close(found, weight[x] + (shift if bias else 0), absolute=1e-6)


def test_the_weight_of_embed_is_an_embedding() -> None:
    layer = make_layer("Embed", [normal((4, 3)), normal((3,))], embed_param={"input_dim": 4, "num_output": 3})
    assert roles_of(translate_layer(layer, [(1, 2)])) == {"layer.weight": Role.EMBEDDING, "layer.bias": Role.OTHER}


@pytest.mark.parametrize("parameters", [{}, {"input_dim": 4_294_967_295, "num_output": 4_294_967_295}])
def test_embed_has_its_rows(parameters: dict[str, Any]) -> None:
    with pytest.raises(MalformedSourceError):
        run_layer(make_layer("Embed", [normal((2, 2))], embed_param=parameters), [normal((1, 2))])


def test_a_parameter_is_a_value_for_others_and_an_output_itself() -> None:
    """It may leave the graph, whoever takes it; the batch is fixed, since its first size is what it is."""
    weight, x = normal((2, 3)), normal((2, 3), 4)
    layer = make_layer("Parameter", [weight], bottoms=0, parameter_param={"shape": {"dim": [2, 3]}})
    both = make_layer("Eltwise", bottoms=2)
    both = type(both)("sum", both.type, ("y0", "data"), ("sum",), both.message)
    found = run_net(net_of(layer, both, inputs={"data": (2, 3)}, outputs=["sum", "y0"]), {"data": x})
    assert_close(found["sum"], weight + x, absolute=1e-6)
    assert_close(found["y0"], weight, absolute=0)


def test_a_parameter_has_its_values() -> None:
    for dims in ([2, 4], [2**62, 2**62], [-2, -3]):
        layer = make_layer("Parameter", [normal((2, 3))], bottoms=0, parameter_param={"shape": {"dim": dims}})
        with pytest.raises(MalformedSourceError):
            translate_layer(layer, [])


def test_a_scalar_comes_out_of_a_whole_reduction() -> None:
    x = normal((2, 3))
    model = translate_layer(make_layer("Reduction", reduction_param={"axis": 0}), [x.shape])
    assert_close(run_translated(model, [x])["y0"], np.asarray(x.sum()), absolute=1e-5)
