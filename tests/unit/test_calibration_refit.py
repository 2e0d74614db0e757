"""From sums over the data to what a layer is to reproduce."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mobilemodel.calibration.calibrate import near_halves
from mobilemodel.calibration.moments import Moments, check_moments
from mobilemodel.calibration.refit import Problem, make_problem
from mobilemodel.errors import CheckFailedError
from mobilemodel.quantize.response import response_error, response_signal
from tests.calibrating import read, residual_net, rounded
from tests.models import Array


def gathered(x: Array, y: Array, pieces: int = 1) -> Moments:
    """Moments of inputs (groups, n, columns) and responses (groups, n, rows)."""
    moments = Moments(len(x), x.shape[2], y.shape[2])
    for part in np.array_split(np.arange(x.shape[1]), pieces):
        moments.add(x[:, part], y[:, part])
    moments.flush()
    return moments


def inputs(generator: np.random.Generator, count: int, columns: int, groups: int = 1) -> Array:
    """Correlated, with a mean, as behind a ReLU."""
    x = generator.standard_normal((groups, count, columns)) @ generator.standard_normal((columns, columns))
    return np.maximum(x + 0.5, 0).astype(np.float32)


def responses(x: Array, weights: Array, bias: Array) -> Array:
    """(groups, n, rows of a group), of weights (groups x rows, columns)."""
    each = weights.reshape(len(x), -1, weights.shape[1])
    return np.asarray(np.einsum("gnc,grc->gnr", x, each) + bias.reshape(len(x), 1, -1), np.float32)


def problem(x: Array, y: Array, weights: Array, *, damping: float, biased: bool = True) -> Problem:
    return make_problem(gathered(x, y), weights, np.ones(len(weights)), damping=damping, biased=biased)


@given(st.integers(0, 2**32), st.integers(1, 5), st.sampled_from([1, 2]))
def test_moments_are_sums_however_the_rows_come(seed: int, pieces: int, groups: int) -> None:
    generator = np.random.default_rng(seed)
    x, y = inputs(generator, 30, 4, groups), generator.standard_normal((groups, 30, 3)).astype(np.float32)
    found = gathered(x, y, pieces)
    assert found.count == 30
    wide, tall = x.astype(np.float64), y.astype(np.float64)
    np.testing.assert_allclose(found.sum_x, wide.sum(1), rtol=1e-5)
    np.testing.assert_allclose(found.sum_y, tall.sum(1), rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(found.sum_yy, np.square(tall).sum(1), rtol=1e-5)
    np.testing.assert_allclose(found.sum_xx, np.einsum("gni,gnj->gij", wide, wide), rtol=1e-4)
    np.testing.assert_allclose(found.sum_xy, np.einsum("gni,gnr->gir", wide, tall), rtol=1e-4, atol=1e-4)


def test_many_rows_are_multiplied_as_they_come() -> None:
    moments = Moments(1, 2, 1)
    x = np.ones((1, 5000, 2), np.float32)
    moments.add(x, x[..., :1])
    assert moments.count == 5000
    assert moments._waiting == []


@pytest.mark.parametrize("groups", [1, 3])
@pytest.mark.parametrize("biased", [False, True])
def test_exact_data_give_the_weights_that_made_them(groups: int, *, biased: bool) -> None:
    """With y = W x + b, many samples and next to no damping, the target is W: the given weights do not matter."""
    generator = np.random.default_rng(groups)
    weights = generator.standard_normal((6 * groups, 5)).astype(np.float32)
    bias = generator.standard_normal(6 * groups).astype(np.float32) * biased
    x = inputs(generator, 4000, 5, groups)
    found = problem(x, responses(x, weights, bias), weights * 0, damping=1e-9, biased=biased)
    np.testing.assert_allclose(found.response.target, weights, atol=2e-3)
    if biased:
        np.testing.assert_allclose(found.bias(found.response.target), bias, atol=1e-2)


def test_the_refit_corrects_what_the_layers_before_have_lost() -> None:
    generator = np.random.default_rng(1)
    weights, bias = generator.standard_normal((8, 6)).astype(np.float32), np.ones(8, np.float32)
    exact = inputs(generator, 3000, 6)
    seen = rounded(exact, 1.5)
    y = responses(exact, weights, bias)
    found = problem(seen, y, weights, damping=1e-4)

    def error(candidate: Array) -> float:
        return float(np.square(responses(seen, candidate, found.bias(candidate)) - y).mean())

    assert error(found.response.target) < 0.9 * error(weights)


def test_damping_pulls_to_the_float_weights() -> None:
    generator = np.random.default_rng(2)
    weights = generator.standard_normal((4, 5)).astype(np.float32)
    x = inputs(generator, 500, 5)
    y = responses(x, 2 * weights, np.zeros(4, np.float32))
    apart = [np.abs(problem(x, y, weights, damping=d).response.target - weights).max() for d in (1e-6, 0.1, 10, 1e6)]
    assert apart == sorted(apart, reverse=True)
    np.testing.assert_allclose(apart[0], np.abs(weights).max(), rtol=1e-2)
    assert apart[-1] < 1e-3


def test_damping_is_a_share_of_the_mean_diagonal() -> None:
    x = inputs(np.random.default_rng(3), 400, 5)
    y = responses(x, np.ones((2, 5), np.float32), np.zeros(2, np.float32))
    plain, damped = (problem(x, y, np.ones((2, 5), np.float32), damping=d).response.moments[0] for d in (0.0, 0.25))
    added = damped - plain
    np.testing.assert_allclose(np.diag(added), 0.25 * np.trace(plain) / 5, rtol=1e-4)
    np.testing.assert_allclose(added - np.diag(np.diag(added)), 0, atol=1e-6)
    np.testing.assert_allclose(plain, np.cov(x[0].T, bias=True), rtol=1e-3, atol=1e-4)


def test_where_data_say_nothing_the_weights_stay() -> None:
    generator = np.random.default_rng(4)
    weights = generator.standard_normal((3, 5)).astype(np.float32)
    x = inputs(generator, 300, 5)
    x[..., 2] = 0
    y = responses(x, 3 * weights, np.zeros(3, np.float32))
    found = problem(x, y, weights, damping=1e-6).response.target
    np.testing.assert_allclose(found[:, 2], weights[:, 2], rtol=1e-5)
    np.testing.assert_allclose(np.delete(found, 2, 1), np.delete(3 * weights, 2, 1), atol=1e-2)


def test_the_bias_takes_the_mean_of_the_response() -> None:
    generator = np.random.default_rng(5)
    weights = generator.standard_normal((4, 6)).astype(np.float32)
    x = inputs(generator, 800, 6, 2)
    y = responses(x, weights, generator.standard_normal(4).astype(np.float32))
    found = problem(x, y, weights, damping=0.01)
    coarse = rounded(weights, 0.8)
    apart = responses(x, coarse, found.bias(coarse)) - y
    np.testing.assert_allclose(apart.mean(axis=1), 0, atol=1e-3)


@pytest.mark.parametrize("groups", [1, 2])
@pytest.mark.parametrize("biased", [False, True])
def test_the_error_that_is_told_is_the_error_on_the_data(groups: int, *, biased: bool) -> None:
    """«Nothing lies»: what the refit cannot explain counts, and damping does not."""
    generator = np.random.default_rng(6)
    weights = generator.standard_normal((4, 6)).astype(np.float32)
    bias = generator.standard_normal(4).astype(np.float32) * biased
    exact = inputs(generator, 900, 6, groups)
    seen, y = rounded(exact, 1.0), responses(exact, weights, bias)
    costs = np.array([1.0, 2.0, 0.5, 3.0])
    found = make_problem(gathered(seen, y), weights, costs, damping=0.3, biased=biased)
    for candidate in (rounded(weights, 0.6), found.response.target, weights):
        made = responses(seen, candidate, found.bias(candidate) if biased else bias * 0)
        measured = np.square(made - y).mean(axis=1).reshape(-1) * costs
        np.testing.assert_allclose(found.errors(candidate, weights), measured, rtol=2e-3, atol=1e-4)
    signal = y.var(axis=1) if biased else np.square(y).mean(axis=1)
    np.testing.assert_allclose(found.variance_y, signal.reshape(-1), rtol=1e-3)


def test_signal_is_the_response_of_the_target() -> None:
    generator = np.random.default_rng(7)
    weights = generator.standard_normal((4, 6)).astype(np.float32)
    x = inputs(generator, 500, 6)
    found = problem(x, responses(x, weights, np.zeros(4, np.float32)), weights, damping=1e-8)
    np.testing.assert_allclose(response_signal(found.response), found.variance_y, rtol=1e-2)
    assert response_error(found.response, found.response.target).tolist() == [0.0] * 4


def test_there_is_never_less_damping_than_float32_resolves() -> None:
    """Inputs of no rank, and without a word of damping: a channel that hardly changes is no reason to fail."""
    generator = np.random.default_rng(9)
    weights = generator.standard_normal((2, 5)).astype(np.float32)
    for x in (
        np.ones((1, 50, 5)),
        generator.uniform(1, 1 + 1e-6, (1, 3000, 5)),
        generator.standard_normal((1, 50, 1)) * np.ones(5),
    ):
        rows = x.astype(np.float32)
        y = responses(rows, weights, np.ones(2, np.float32))
        for biased in (False, True):
            found = problem(rows, y, weights, damping=0.0, biased=biased)
            assert (found.strengths > 0).all()
            assert np.isfinite(found.response.target).all()
            np.linalg.cholesky(found.response.moments[0].astype(np.float64))


def test_moments_that_are_none_are_an_error() -> None:
    moments = gathered(np.ones((1, 9, 2), np.float32), np.ones((1, 9, 2), np.float32))
    moments.sum_xx[0] = [[1, 5], [5, 1]]
    with pytest.raises(CheckFailedError, match="not positive definite"):
        make_problem(moments, np.eye(2, dtype=np.float32), np.ones(2), damping=0.01, biased=False)


def test_inputs_that_never_change_leave_all_to_the_bias() -> None:
    x = np.ones((1, 50, 3), np.float32)
    weights = np.eye(3, dtype=np.float32)
    found = problem(x, responses(x, weights, np.full(3, 2, np.float32)), weights, damping=0.01)
    np.testing.assert_allclose(found.response.target, weights, rtol=1e-6)
    np.testing.assert_allclose(found.bias(weights * 0), 3)


def test_a_layer_that_sees_nothing_but_zeros_is_named() -> None:
    layer = read(residual_net()).layers["fc1.weight"]
    zeros = gathered(np.zeros((1, 9, 3), np.float32), np.ones((1, 9, 2), np.float32))
    for moments in (zeros, Moments(1, 3, 2)):
        with pytest.raises(CheckFailedError, match=r"layer 'fc1\.weight'.*zero") as caught:
            check_moments(moments, layer)
        assert "data" in str(caught.value.advice)
    fine = gathered(np.ones((1, 9, 3), np.float32), np.ones((1, 9, 2), np.float32))
    check_moments(fine, layer)
    for key in ("sum_xx", "sum_xy"):
        getattr(fine, key)[0, 0, 0] = np.inf
        with pytest.raises(CheckFailedError, match=r"layer 'fc1\.weight'.*not finite"):
            check_moments(fine, layer)
        getattr(fine, key)[0, 0, 0] = 1


def test_a_bias_is_rounded_to_halves_where_they_are_fine_enough() -> None:
    usual = np.array([0.1, -3.7, 0.0], np.float32)
    np.testing.assert_array_equal(near_halves(usual), usual.astype(np.float16))
    for odd in (np.array([1e5, 0.1], np.float32), np.array([3e-8, -2e-8], np.float32), np.zeros(0, np.float32)):
        np.testing.assert_array_equal(near_halves(odd), odd)


def test_a_problem_with_other_row_weights_has_the_same_target() -> None:
    generator = np.random.default_rng(8)
    weights = generator.standard_normal((4, 6)).astype(np.float32)
    x = inputs(generator, 500, 6)
    moments = gathered(x, responses(x, weights, np.ones(4, np.float32)))
    one, other = (
        make_problem(moments, weights, costs, damping=0.01, biased=True) for costs in (np.ones(4), np.arange(1.0, 5))
    )
    np.testing.assert_array_equal(one.response.target, other.response.target)
    again = replace(one.response, row_weights=other.response.row_weights)
    np.testing.assert_array_equal(response_error(again, weights), response_error(other.response, weights))
