"""Caffe's Pooling: ONNX Runtime against loops written from Caffe's formulas, over sizes, windows, strides and pads."""

from __future__ import annotations

import itertools
import math
from typing import Any

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from onnx import ModelProto

from mobilemodel.errors import LimitExceededError, MalformedSourceError, UnsupportedSourceError
from tests.caffe_layers import Array, assert_close, make_layer, restored, run_layer, translate_layer

MISTAKES = (MalformedSourceError, UnsupportedSourceError, LimitExceededError)
Pair = tuple[int, int]


def pairs(least: int, most: int) -> st.SearchStrategy[Pair]:
    return st.tuples(st.integers(least, most), st.integers(least, most))


def counts(size: Pair, kernel: Pair, stride: Pair, pad: Pair, rounds: str) -> tuple[int, ...]:
    """n = ceil((in + 2p - k)/s) + 1, floor for FLOOR; with any padding, a last window that begins at or beyond
    in + p is dropped.
    """
    found = []
    for n, k, s, p in zip(size, kernel, stride, pad, strict=True):
        windows = (math.ceil if rounds == "CEIL" else math.floor)((n + 2 * p - k) / s) + 1
        if any(pad) and (windows - 1) * s >= n + p:
            windows -= 1
        found.append(windows)
    return tuple(found)


def pool(x: Array, kernel: Pair, stride: Pair, pad: Pair, rounds: str, method: str) -> Array | None:
    """Every window clipped as Caffe clips it; None where there is none, or one sees nothing of the input.

    AVE divides by the window's size within the input and its padding on both sides.
    """
    size = (x.shape[2], x.shape[3])
    windows = counts(size, kernel, stride, pad, rounds)
    if min(windows) < 1:
        return None
    y = np.zeros((*x.shape[:2], *windows))
    for place in np.ndindex(*windows):
        start = [i * s - p for i, s, p in zip(place, stride, pad, strict=True)]
        end = [min(a + k, n + p) for a, k, n, p in zip(start, kernel, size, pad, strict=True)]
        divisor = (end[0] - start[0]) * (end[1] - start[1])
        (top, bottom), (left, right) = ((max(a, 0), min(e, n)) for a, e, n in zip(start, end, size, strict=True))
        seen = x[:, :, top:bottom, left:right].astype(np.float64)
        if not seen.size:
            return None
        y[:, :, place[0], place[1]] = seen.max((2, 3)) if method == "MAX" else seen.sum((2, 3)) / divisor
    return y


def parameters(kernel: Pair, stride: Pair, pad: Pair, rounds: str, method: str) -> dict[str, Any]:
    return {
        "pool": method, "round_mode": rounds, "kernel_h": kernel[0], "kernel_w": kernel[1], "stride_h": stride[0],
        "stride_w": stride[1], "pad_h": pad[0], "pad_w": pad[1],
    }  # fmt: skip


def picture(size: Pair) -> Array:
    """Below 0, so that a padding that won, or counted for nothing, would show."""
    return (np.random.default_rng(sum(size)).normal(size=(2, 3, *size)) - 5).astype(np.float32)


METHODS = st.sampled_from(["MAX", "AVE"])
ROUNDS = st.sampled_from(["CEIL", "FLOOR"])


@given(pairs(1, 9), pairs(1, 5), pairs(1, 5), pairs(0, 4), ROUNDS, METHODS)
@example((12, 12), (3, 3), (2, 2), (1, 1), "CEIL", "AVE")
@example((2, 2), (3, 3), (2, 2), (0, 0), "CEIL", "AVE")
@example((4, 9), (3, 2), (2, 5), (1, 0), "CEIL", "MAX")
def test_pooling_rounds_up_and_drops_a_last_window_in_the_padding(
    size: Pair, kernel: Pair, stride: Pair, pad: Pair, rounds: str, method: str
) -> None:
    x = picture(size)
    layer = make_layer("Pooling", pooling_param=parameters(kernel, stride, pad, rounds, method))
    expected = pool(x, kernel, stride, pad, rounds, method)
    if expected is None or pad[0] >= kernel[0] or pad[1] >= kernel[1]:
        with pytest.raises(MISTAKES, match="layer"):
            run_layer(layer, [x])
    else:
        assert_close(run_layer(layer, [x])[0], expected)


@pytest.mark.parametrize("method", ["MAX", "AVE"])
def test_every_small_pooling_along_one_axis(method: str) -> None:
    """Windows to 4, strides to 5, all pads below the window, inputs to 10: with the other axis left alone."""
    tried = 0
    for kernel, stride, size in itertools.product(range(1, 5), range(1, 6, 2), (1, 2, 3, 5, 8, 10)):
        for pad in range(kernel):
            given_ = parameters((1, kernel), (1, stride), (0, pad), "CEIL", method)
            x = picture((1, size))
            expected = pool(x, (1, kernel), (1, stride), (0, pad), "CEIL", method)
            if expected is not None:
                assert_close(run_layer(make_layer("Pooling", pooling_param=given_), [x])[0], expected)
                tried += 1
    assert tried > 120


@given(pairs(1, 4), pairs(1, 4), pairs(0, 3), ROUNDS, METHODS, st.lists(pairs(1, 12), min_size=3, max_size=3))
@example((2, 2), (2, 2), (1, 1), "CEIL", "AVE", [(5, 6), (7, 8), (9, 10)])
def test_where_the_input_may_vary_one_graph_is_exact_for_all_sizes(
    kernel: Pair, stride: Pair, pad: Pair, rounds: str, method: str, sizes: list[Pair]
) -> None:
    pad = min(pad[0], kernel[0] - 1), min(pad[1], kernel[1] - 1)
    layer = make_layer("Pooling", pooling_param=parameters(kernel, stride, pad, rounds, method))
    if rounds == "CEIL" and not any(pad) and (stride[0] > kernel[0] or stride[1] > kernel[1]):
        with pytest.raises(UnsupportedSourceError, match=r"'layer'.*--input-shape"):
            translate_layer(layer, [(1, 3, 9, 9)], free=True)
        return
    for size in sizes:
        x = picture(size)
        expected = pool(x, kernel, stride, pad, rounds, method)
        if expected is not None:
            assert_close(run_layer(layer, [x], free=True)[0], expected)


@given(pairs(1, 9), METHODS, st.booleans())
def test_global_pooling_takes_the_whole_input(size: Pair, method: str, free: bool) -> None:
    x = picture(size)
    (y,) = run_layer(make_layer("Pooling", pooling_param={"pool": method, "global_pooling": True}), [x], free=free)
    assert_close(y, (x.max if method == "MAX" else x.mean)((2, 3), keepdims=True))


def operators(model: ModelProto) -> list[str]:
    return [node.op_type for node in model.graph.node]


@pytest.mark.parametrize(
    ("size", "given_", "pads"),
    [
        (224, {"kernel_size": 2, "stride": 2}, [0, 0, 0, 0]),
        (55, {"kernel_size": 3, "stride": 2}, [0, 0, 0, 0]),
        (56, {"kernel_size": 3, "stride": 2}, [0, 0, 1, 1]),
        (113, {"kernel_size": 3, "stride": 2, "pad": 1}, [1, 1, 1, 1]),
        (14, {"kernel_size": 3, "stride": 1, "pad": 1}, [1, 1, 1, 1]),
    ],
)
def test_plain_pools_stay_plain(size: int, given_: dict[str, int], pads: list[int]) -> None:
    """No ceil_mode, whose meaning has changed between runtimes: the end is padded by as much as a window overhangs."""
    for method in ("MAX", "AVE"):
        layer = make_layer("Pooling", pooling_param={"pool": method, **given_})
        graph = restored(translate_layer(layer, [(1, 3, size, size)]))
        assert operators(graph) == ["MaxPool" if method == "MAX" else "AveragePool"]
        attributes = {item.name: item for item in graph.graph.node[0].attribute}
        assert list(attributes["pads"].ints) == pads
        assert "ceil_mode" not in attributes


@pytest.mark.parametrize(
    "given_",
    [
        {}, {"kernel_size": 0}, {"kernel_size": 3, "kernel_h": 3, "kernel_w": 3}, {"kernel_h": 3},
        {"kernel_size": 3, "stride": 0}, {"kernel_size": 3, "stride_h": 2},
        {"kernel_size": 3, "stride": 2, "stride_h": 2, "stride_w": 2}, {"kernel_size": 3, "pad": 3},
        {"kernel_size": 3, "pad_h": 1}, {"kernel_size": 3, "pad": 1, "pad_h": 1, "pad_w": 1},
        {"kernel_size": 2**32 - 1}, {"kernel_size": 2**32 - 1, "pad": 2**32 - 2},
        {"kernel_size": 3, "stride": 2**32 - 1}, {"kernel_size": 12}, {"kernel_size": 9, "round_mode": "FLOOR"},
        {"global_pooling": True, "kernel_size": 8},
        {"global_pooling": True, "pad": 1}, {"global_pooling": True, "stride": 2},
        {"kernel_size": 3, "pool": "STOCHASTIC"}, {"kernel_size": 1, "stride": 2},
    ],
)  # fmt: skip
def test_windows_that_cannot_be_are_refused(given_: dict[str, Any]) -> None:
    with pytest.raises(MISTAKES, match="layer"):
        translate_layer(make_layer("Pooling", pooling_param=given_), [(1, 3, 8, 8)])


def test_the_place_of_the_largest_value_is_refused() -> None:
    layer = make_layer("Pooling", tops=2, pooling_param={"kernel_size": 2, "stride": 2})
    with pytest.raises(UnsupportedSourceError, match=r"'layer'.*second top"):
        translate_layer(layer, [(1, 3, 8, 8)])


@pytest.mark.parametrize("shape", [(3,), (1, 3), (1, 3, 8), (1, 3, 8, 8, 8)])
def test_only_pictures_are_pooled(shape: tuple[int, ...]) -> None:
    for given_ in ({"kernel_size": 2}, {"global_pooling": True}):
        with pytest.raises(MalformedSourceError, match="4 axes"):
            translate_layer(make_layer("Pooling", pooling_param=given_), [shape])


def test_a_window_far_larger_than_its_input_makes_no_large_value() -> None:
    layer = make_layer("Pooling", pooling_param={"pool": "AVE", "kernel_size": 16384, "pad": 16382, "stride": 5})
    with pytest.raises(LimitExceededError, match="layer"):
        translate_layer(layer, [(1, 64, 224, 224)])
