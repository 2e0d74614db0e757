"""Rounding with feedback and a rate term: what must hold for any layer."""

from __future__ import annotations

from unittest.mock import patch

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from mobilemodel.quantize import feedback
from mobilemodel.quantize.feedback import Levels, Rounded, level_lengths, priced_rounding
from mobilemodel.quantize.response import Float32, Response, response_error
from tests.calibrating import quadratic

SEEDS = st.integers(0, 2**32)
PRICES = st.floats(-7, 0).map(lambda exponent: 10.0**exponent)


def coded_bits(levels: Levels) -> float:
    """What the levels take at their own entropy."""
    counts = np.unique(levels, return_counts=True)[1]
    return float(-(counts * np.log2(counts / counts.sum())).sum())


def objective(response: Response, levels: Levels, steps: Float32, price: float, bits: float) -> float:
    return float(response_error(response, Rounded(levels, steps).weights).sum()) + price * bits


@given(SEEDS, PRICES, st.integers(4, 24), st.integers(4, 40), st.sampled_from([1, 2]))
def test_it_is_not_worse_than_plain_rounding_to_the_same_grid(
    seed: int, price: float, rows: int, columns: int, groups: int
) -> None:
    """«least response error + price x bits of its entropy-coded levels»: no more than the nearest levels have, but for
    a hundredth, which a few weights' lengths may be off by."""
    response = quadratic(np.random.default_rng(seed), rows * groups, columns, groups)
    found = priced_rounding(response, price)
    nearest = np.rint(response.target / found.steps[:, None]).astype(np.int32)
    reached, plain = (objective(response, levels, found.steps, price, coded_bits(levels))
                      for levels in (found.levels, nearest))  # fmt: skip
    assert reached <= 1.01 * plain


@given(SEEDS, PRICES, st.integers(1, 8), st.integers(1, 40), st.sampled_from([1, 2]), st.sampled_from([3, 128]))
def test_a_sweep_never_raises_the_objective_at_the_same_lengths(
    seed: int, price: float, rows: int, columns: int, groups: int, block: int
) -> None:
    """«each weight in turn is set to its best level given all others»: from any levels, near or far."""
    generator = np.random.default_rng(seed)
    response = quadratic(generator, rows * groups, columns, groups)
    near = bool(generator.integers(2))
    steps = priced_rounding(response, price).steps
    most = feedback._largest_level(response, steps)
    start = np.rint(response.target / steps[:, None] + generator.normal(0, 0.1 if near else 2, response.target.shape))
    levels = np.clip(start, -most, most).astype(np.int32)
    lengths = level_lengths(levels, most)
    before = objective(response, levels, steps, price, float(lengths[levels + most].sum()))
    for group, (order, _) in enumerate(map(feedback._feedback_order, response.moments)):
        here = response.group(group)
        with patch.object(feedback, "BLOCK", block):
            shared = feedback.Lengths(lengths, np.full(rows, most, np.int32), most)
            levels[here] = feedback._descend(response, group, levels[here], steps[here], order, shared, price)
        after = objective(response, levels, steps, price, float(lengths[levels + most].sum()))
        assert after <= before * (1 + 1e-5) + 1e-9
        before = after


@given(SEEDS, PRICES, st.integers(1, 8), st.integers(1, 20))
def test_with_inputs_that_are_independent_it_is_scalar_rounding(
    seed: int, price: float, rows: int, columns: int
) -> None:
    """With diagonal moments no weight concerns another: each takes the level of least error + price x length."""
    response = quadratic(np.random.default_rng(seed), rows, columns, diagonal=True)
    found = priced_rounding(response, price, sweeps=0)
    most = feedback._largest_level(response, found.steps)
    wanted = response.target / found.steps[:, None]
    levels = np.rint(wanted).astype(np.int32)
    power = (
        np.diag(response.moments[0]) * response.row_weights[:, None] * np.square(found.steps[:, None], dtype=np.float64)
    )
    grid = np.arange(-most, most + 1)
    for _ in range(feedback.PASSES):
        lengths = level_lengths(levels, most)
        costs = power[..., None] * np.square(wanted[..., None] - grid) + price * lengths
        # Only levels from the nearest to its neighbour towards zero, and zero, are looked at.
        nearest = np.rint(wanted)
        looked_at = (grid == nearest[..., None]) | (grid == (nearest - np.sign(nearest))[..., None]) | (grid == 0)
        costs = np.where(looked_at, costs, np.inf)
        levels = grid[costs.argmin(axis=2)].astype(np.int32)
    reached, least = (
        float((power * np.square(wanted - chosen)).sum() + price * coded_bits(chosen))
        for chosen in (found.levels, levels)
    )
    np.testing.assert_allclose(reached, least, rtol=1e-3)
    assert (found.levels != levels).mean() <= 0.02


@given(SEEDS, PRICES, st.integers(1, 12), st.integers(1, 40), st.sampled_from([1, 3]), st.integers(-60, 60))
def test_levels_times_steps_are_the_weights_and_steps_are_halves(
    seed: int, price: float, rows: int, columns: int, groups: int, exponent: int
) -> None:
    response = quadratic(np.random.default_rng(seed), rows * groups, columns, groups)
    scaled = Response(np.ldexp(response.target, exponent), response.moments, response.row_weights)
    found = priced_rounding(scaled, price)
    assert np.abs(found.levels).max() <= feedback.MOST_LEVELS
    assert (found.steps > 0).all()
    fractions = np.frexp(found.steps)[0] * 2.0**11
    np.testing.assert_array_equal(fractions, np.rint(fractions))
    np.testing.assert_array_equal(found.weights, found.levels.astype(np.float32) * found.steps[:, None])


@given(SEEDS, PRICES)
def test_a_higher_price_takes_fewer_bits(seed: int, price: float) -> None:
    response = quadratic(np.random.default_rng(seed), 16, 24)
    bits = [coded_bits(priced_rounding(response, price * factor).levels) for factor in (1, 8, 64)]
    assert bits == sorted(bits, reverse=True)
