"""Eltwise and Softmax of Caffe against plain numpy, over their parameters."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mobilemodel.errors import MalformedSourceError
from tests.caffe_layers import Array, assert_close, make_layer, run_layer

SHAPES = st.lists(st.integers(1, 4), min_size=1, max_size=4).map(tuple)
COEFFICIENTS = st.sampled_from([1.0, -1.0, 0.5, -2.25, 0.0])


def arrays(shape: tuple[int, ...], count: int, seed: int = 3) -> list[Array]:
    """Different values of one shape."""
    generator = np.random.default_rng(seed)
    return [generator.standard_normal(shape).astype(np.float32) for _ in range(count)]


@given(SHAPES, st.integers(2, 4), st.sampled_from(["PROD", "SUM", "MAX"]))
def test_eltwise_combines_values_of_the_same_place(shape: tuple[int, ...], count: int, operation: str) -> None:
    inputs = arrays(shape, count)
    expected = inputs[0]
    for other in inputs[1:]:
        expected = {"PROD": expected * other, "SUM": expected + other, "MAX": np.maximum(expected, other)}[operation]
    (found,) = run_layer(make_layer("Eltwise", bottoms=count, eltwise_param={"operation": operation}), inputs)
    assert_close(found, expected, absolute=1e-6)


@given(SHAPES, st.lists(COEFFICIENTS, min_size=2, max_size=4))
def test_a_sum_has_a_coefficient_for_each_bottom(shape: tuple[int, ...], coefficients: list[float]) -> None:
    inputs = arrays(shape, len(coefficients))
    expected = sum(factor * value for factor, value in zip(coefficients, inputs, strict=True))
    layer = make_layer("Eltwise", bottoms=len(inputs), eltwise_param={"coeff": coefficients})
    (found,) = run_layer(layer, inputs)
    assert_close(found, np.asarray(expected), absolute=1e-6)


def test_one_blob_may_be_taken_twice() -> None:
    (x,) = arrays((2, 3), 1)
    (found,) = run_layer(make_layer("Eltwise", bottoms=2, eltwise_param={"coeff": [1, -1]}), [x, x])
    assert_close(found, np.zeros_like(x), absolute=0)


@pytest.mark.parametrize("operation", ["PROD", "MAX"])
def test_only_a_sum_takes_coefficients(operation: str) -> None:
    layer = make_layer("Eltwise", bottoms=2, eltwise_param={"operation": operation, "coeff": [1, 2]})
    with pytest.raises(MalformedSourceError, match="coeff"):
        run_layer(layer, arrays((2, 2), 2))


@pytest.mark.parametrize("shape", [(2, 1), (1, 2), (2,), (2, 2, 1)])
def test_eltwise_never_broadcasts(shape: tuple[int, ...]) -> None:
    inputs = [*arrays((2, 2), 1), *arrays(shape, 1)]
    with pytest.raises(MalformedSourceError, match="shapes of the bottoms differ"):
        run_layer(make_layer("Eltwise", bottoms=2), inputs)


def test_eltwise_takes_two_bottoms_or_more_and_as_many_coefficients() -> None:
    with pytest.raises(MalformedSourceError, match="bottoms"):
        run_layer(make_layer("Eltwise"), arrays((2,), 1))
    with pytest.raises(MalformedSourceError, match="one for each bottom"):
        run_layer(make_layer("Eltwise", bottoms=2, eltwise_param={"coeff": [1.0]}), arrays((2,), 2))


@given(SHAPES, st.data())
def test_softmax_runs_over_one_axis_alone(shape: tuple[int, ...], data: st.DataObject) -> None:
    """``axis`` alone is summed over: neither what lies before it nor what lies behind."""
    axis = data.draw(st.integers(-len(shape), len(shape) - 1))
    (x,) = arrays(shape, 1)
    powers = np.exp(x - x.max(axis, keepdims=True))
    (found,) = run_layer(make_layer("Softmax", softmax_param={"axis": axis}), [x])
    assert_close(found, powers / powers.sum(axis, keepdims=True), absolute=1e-6)


def test_softmax_is_over_the_channels_by_default() -> None:
    (x,) = arrays((2, 3, 4, 5), 1)
    (found,) = run_layer(make_layer("Softmax"), [x], free=True)
    assert_close(found.sum(1), np.ones((2, 4, 5), np.float32), absolute=1e-6)
