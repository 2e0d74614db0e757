"""Rounding with error feedback at the edges of what weights and prices can be."""

from __future__ import annotations

import sys

import numpy as np
import pytest

from mobilemodel.errors import CheckFailedError, MissingDependencyError
from mobilemodel.quantize import feedback
from mobilemodel.quantize.feedback import MOST_LEVELS, Rounded, level_lengths, priced_rounding
from mobilemodel.quantize.response import Response, response_error
from tests.calibrating import quadratic


def identity(target: np.ndarray[tuple[int, ...], np.dtype[np.float32]], scale: float = 1.0) -> Response:
    rows, columns = target.shape
    return Response(target, np.eye(columns, dtype=np.float32)[None] * np.float32(scale), np.ones(rows))


def test_the_order_is_by_falling_power_and_the_factor_is_that_of_the_inverse() -> None:
    moments = quadratic(np.random.default_rng(0), 1, 12).moments[0]
    order, factor = feedback._feedback_order(moments)
    assert (np.diff(np.diag(moments)[order]) <= 0).all()
    np.testing.assert_array_equal(np.tril(factor, -1), 0)
    inverse = np.linalg.inv(moments[np.ix_(order, order)].astype(np.float64))
    np.testing.assert_allclose(
        factor.T.astype(np.float64) @ factor, inverse, rtol=1e-3, atol=1e-5 * np.abs(inverse).max()
    )


def test_feedback_lowers_the_response_error_at_the_same_steps() -> None:
    """Where inputs are correlated: what the column by column rounding is for."""
    response = quadratic(np.random.default_rng(1), 24, 200)
    found = priced_rounding(response, 1e-7, sweeps=0)
    plain = np.rint(response.target / found.steps[:, None]).astype(np.int32)
    error, usual = (float(response_error(response, Rounded(levels, found.steps).weights).sum())
                    for levels in (found.levels, plain))  # fmt: skip
    assert error < 0.9 * usual
    swept = priced_rounding(response, 1e-7)
    assert float(response_error(response, swept.weights).sum()) < 1.02 * error


def test_blocks_of_columns_hear_of_one_another(monkeypatch: pytest.MonkeyPatch) -> None:
    response = quadratic(np.random.default_rng(2), 6, 70)
    whole = priced_rounding(response, 1e-4)
    for size in (1, 7, 64):
        monkeypatch.setattr(feedback, "BLOCK", size)
        found = priced_rounding(response, 1e-4)
        assert (found.levels != whole.levels).mean() < 0.02


def test_rows_that_matter_more_have_finer_steps() -> None:
    generator = np.random.default_rng(3)
    target = np.repeat(generator.standard_normal((1, 40)), 3, axis=0).astype(np.float32)
    weights = np.array([1.0, 4.0, 64.0])
    found = priced_rounding(Response(target, np.eye(40, dtype=np.float32)[None], weights), 1e-3)
    np.testing.assert_allclose(found.steps[0] / found.steps, np.sqrt(weights), rtol=0.1)


def test_steps_are_halves_times_one_power_of_two() -> None:
    found = priced_rounding(quadratic(np.random.default_rng(4), 40, 30), 1e-3)
    exponent = np.floor(np.log2(np.median(found.steps)))
    ratios = found.steps / np.exp2(exponent)
    np.testing.assert_array_equal(ratios.astype(np.float16).astype(np.float32), ratios)
    assert len(np.unique(found.steps)) < 20


@pytest.mark.parametrize("exponent", [-90, -40, 40, 90])
def test_the_scale_of_weights_does_not_matter(exponent: int) -> None:
    usual = quadratic(np.random.default_rng(5), 8, 20)
    response = Response(np.ldexp(usual.target, exponent), usual.moments, np.ldexp(usual.row_weights, -2 * exponent))
    found, unscaled = priced_rounding(response, 1e-3), priced_rounding(usual, 1e-3)
    np.testing.assert_array_equal(found.steps, np.ldexp(unscaled.steps, exponent))
    np.testing.assert_array_equal(found.levels, unscaled.levels)


@pytest.mark.parametrize("shape", [(1, 1), (1, 30), (30, 1), (5, 129)])
def test_one_row_and_one_column(shape: tuple[int, int]) -> None:
    response = quadratic(np.random.default_rng(6), *shape)
    found = priced_rounding(response, 1e-8)
    assert found.levels.shape == shape
    assert (np.abs(found.weights - response.target) <= 0.51 * found.steps[:, None] + 1e-7).mean() > 0.8


def test_a_target_of_zeros_needs_one_level() -> None:
    found = priced_rounding(identity(np.zeros((3, 5), np.float32)), 0.1)
    assert (found.levels == 0).all()
    assert (found.steps > 0).all()


@pytest.mark.parametrize("price", [1e-30, 1e-15, 1e-9])
def test_next_to_no_price_reproduces_the_target_to_the_step(price: float) -> None:
    response = identity(np.random.default_rng(7).standard_normal((6, 50)).astype(np.float32))
    found = priced_rounding(response, price)
    assert np.abs(found.levels).max() <= MOST_LEVELS
    assert (np.abs(found.weights - response.target) <= 0.51 * found.steps[:, None]).all()
    assert (found.steps <= np.maximum(np.abs(response.target).max(axis=1) / 10_000, 2 * np.sqrt(price))).all()


def test_a_row_of_giants_costs_the_others_nothing_but_their_fineness() -> None:
    target = np.random.default_rng(8).standard_normal((4, 30)).astype(np.float32)
    target[2] *= 1e6
    found = priced_rounding(identity(target), 1e-12)
    assert (np.abs(found.weights - target) <= 0.51 * found.steps[:, None]).all()


def test_a_huge_price_leaves_nothing() -> None:
    assert (priced_rounding(quadratic(np.random.default_rng(9), 8, 30), 1e6).levels == 0).all()


def test_groups_are_independent_but_for_the_lengths_of_their_levels() -> None:
    """Two groups that are equal are rounded as the group alone would be: the same levels are as frequent."""
    one = quadratic(np.random.default_rng(10), 6, 25)
    two = Response(np.tile(one.target, (2, 1)), np.tile(one.moments, (2, 1, 1)), np.tile(one.row_weights, 2))
    found, alone = priced_rounding(two, 1e-3), priced_rounding(one, 1e-3)
    np.testing.assert_array_equal(found.levels[:6], found.levels[6:])
    assert (found.levels[:6] == alone.levels).mean() > 0.98
    np.testing.assert_array_equal(found.steps, np.tile(alone.steps, 2))


def test_a_group_does_not_change_with_the_inputs_of_another(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        feedback, "level_lengths", lambda levels, most: np.abs(np.arange(-most, most + 1, dtype=np.float32))
    )
    generator = np.random.default_rng(11)
    one, other = quadratic(generator, 6, 25, 3), quadratic(generator, 6, 25, 3)
    mixed = Response(one.target, np.concatenate([one.moments[:2], other.moments[2:]]), one.row_weights)
    found, changed = priced_rounding(one, 1e-3), priced_rounding(mixed, 1e-3)
    np.testing.assert_array_equal(found.weights[:4], changed.weights[:4])
    assert (found.weights[4:] != changed.weights[4:]).any()


def test_lengths_are_those_of_an_entropy_coder() -> None:
    lengths = level_lengths(np.array([[0, 0, 0, 0], [1, 1, -1, 0]], np.int32), 2)
    counts = np.array([0.5, 1.5, 5.5, 2.5, 0.5])
    np.testing.assert_allclose(lengths, -np.log2(counts / counts.sum()), rtol=1e-6)


def test_rows_of_one_table_of_the_coder_have_lengths_of_their_own() -> None:
    """Where quiet rows stand together their zeros are cheap, whatever the busy ones hold."""
    rows = 2 * feedback.TABLE_ROWS + 1
    levels = np.zeros((rows, 4), np.int32)
    levels[: feedback.TABLE_ROWS, ::2] = 1
    lengths = feedback.row_lengths(levels, 1)
    busy, quiet, last = (lengths.of(np.zeros(rows, np.float32))[row] for row in (0, feedback.TABLE_ROWS, -1))
    np.testing.assert_allclose(busy, 1, atol=0.01)
    assert quiet < 0.01
    np.testing.assert_allclose(last, -np.log2(4.5 / 5.5), rtol=1e-6)
    np.testing.assert_array_equal(lengths.part(slice(3, 5)).zeros, lengths.zeros[3:5])


def test_moments_that_are_not_positive_definite_are_an_error() -> None:
    moments = np.ones((1, 3, 3), np.float32)
    with pytest.raises(CheckFailedError, match="not positive definite"):
        priced_rounding(Response(np.ones((2, 3), np.float32), moments, np.ones(2)), 0.1)


def test_without_scipy_the_error_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    from mobilemodel.calibration.arithmetic import one_thread

    for missing in ("scipy.linalg", "threadpoolctl"):
        with monkeypatch.context() as patched:
            patched.setitem(sys.modules, missing, None)
            with pytest.raises(MissingDependencyError) as caught, one_thread():
                pass
            assert caught.value.advice == 'Install it with: pip install "mobilemodel[calibration]"'
            assert missing.split(".")[0] in caught.value.message


def test_matrix_libraries_work_in_one_thread() -> None:
    from threadpoolctl import threadpool_info  # type: ignore[import-untyped, unused-ignore]

    from mobilemodel.calibration.arithmetic import one_thread

    with one_thread():
        assert {pool["num_threads"] for pool in threadpool_info() if pool["user_api"] == "blas"} == {1}
