"""Codebooks against exhaustive search, affine steps, and losses as they are defined."""

from __future__ import annotations

import itertools
import zlib
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from mobilemodel.quantize.codebook import Codebook, exact_codebook, optimal_codebook, predicted_size
from mobilemodel.quantize.loss import Loss, measure
from mobilemodel.quantize.pieces import CHUNK
from mobilemodel.quantize.steps import SMALLEST_SCALE, symmetric_steps

Floats = npt.NDArray[np.float32]
FLOAT32 = st.floats(width=32, allow_nan=False, allow_infinity=False)


def floats(numbers: Sequence[Any]) -> Floats:
    return np.array(numbers, np.float32)


def decoded(codebook: Codebook) -> Floats:
    return codebook.table.astype(np.float32)[codebook.codes]


def squared_error(weights: Floats, values: npt.NDArray[Any]) -> float:
    return float(((weights.astype(np.float64) - values) ** 2).sum())


def least_error(weights: Floats, entries: int) -> float:
    """Every way to cut the sorted weights into at most ``entries`` runs, each with its mean."""
    ordered = np.sort(weights.astype(np.float64))
    best = np.inf
    for count in range(1, min(entries, len(ordered)) + 1):
        for cuts in itertools.combinations(range(1, len(ordered)), count - 1):
            pieces = np.split(ordered, cuts)
            best = min(best, sum(float(((piece - piece.mean()) ** 2).sum()) for piece in pieces))
    return best


@given(
    st.lists(st.integers(-2000, 2000), min_size=1, max_size=9), st.integers(1, 5), st.integers(-30, 30)
)
def test_a_codebook_is_optimal(numbers: list[int], entries: int, power: int) -> None:
    """On values of the float16 grid the histogram is exact: no partition is better, but for the table's rounding."""
    weights = np.ldexp(floats(numbers), power).astype(np.float32)
    found = optimal_codebook(weights, entries)
    assert found.table.size <= entries
    best = least_error(weights, entries)
    assert squared_error(weights, decoded(found)) <= best * 1.0011 + 1e-12 * float((weights**2).max())


@given(arrays.arrays(np.float32, st.integers(1, 40), elements=FLOAT32), st.integers(1, 8))
def test_codes_and_tables_are_well_formed_for_any_floats(weights: Floats, entries: int) -> None:
    found = optimal_codebook(weights, entries)
    assert np.isfinite(found.table).all()
    assert found.codes.shape == weights.shape
    assert int(found.codes.max()) < found.table.size <= entries
    assert (np.diff(found.table.astype(np.float64)) >= 0).all()


def test_a_codebook_within_a_hundredth_of_a_decibel_of_the_optimum_on_the_weights_themselves() -> None:
    """The histogram's grid costs next to nothing: against dynamic programming over all 2,000 sorted weights."""
    weights = np.random.default_rng(0).standard_t(5, 2000).astype(np.float32)
    ordered = np.sort(weights.astype(np.float64))
    sums, squares = (np.concatenate([[0], np.cumsum(v)]) for v in (ordered, ordered**2))
    starts, ends = np.arange(2000)[:, None], np.arange(1, 2001)
    with np.errstate(divide="ignore", invalid="ignore"):
        cost = (squares[ends] - squares[starts]) - (sums[ends] - sums[starts]) ** 2 / (ends - starts)
    cost = np.where(ends > starts, cost, np.inf)
    best = cost[0]
    for _ in range(15):
        best = np.concatenate([[np.inf], (best[:-1, None] + cost[1:]).min(axis=0)[1:]])
    assert squared_error(weights, decoded(optimal_codebook(weights, 16))) <= best[-1] * 10**0.001


@given(arrays.arrays(np.float32, st.integers(1, 60), elements=st.sampled_from([0.0, -0.0, 1.5, -3e38, 1e-45, 0.1])))
def test_an_exact_codebook_reproduces_every_bit(weights: Floats) -> None:
    found = exact_codebook(weights, 6)
    assert found is not None
    assert decoded(found).tobytes() == weights.tobytes()


def test_an_exact_codebook_only_where_the_values_fit() -> None:
    weights = np.arange(10_000, dtype=np.float32) % 256
    assert exact_codebook(weights, 256) is not None
    assert exact_codebook(weights, 255) is None
    late = np.zeros(10_000, np.float32)
    late[9_000:] = np.arange(1_000)
    assert exact_codebook(late, 256) is None
    assert exact_codebook(floats([1, np.nan]), 4) is None
    assert exact_codebook(np.empty(0, np.float32), 4) is None


def test_an_exact_table_is_float16_where_that_is_exact() -> None:
    assert exact_codebook(floats([0.5, 1]), 4).table.dtype == np.float16  # type: ignore[union-attr]
    assert exact_codebook(floats([0.1, 1]), 4).table.dtype == np.float32  # type: ignore[union-attr]
    assert exact_codebook(floats([70000, 1]), 4).table.dtype == np.float32  # type: ignore[union-attr]


def test_weights_that_are_not_finite_have_no_codebook() -> None:
    with pytest.raises(ValueError, match="finite"):
        optimal_codebook(floats([1, np.inf]), 4)


def test_a_predicted_size_is_that_of_the_codebook() -> None:
    weights = np.random.default_rng(1).standard_normal((300, 50)).astype(np.float32)
    assert predicted_size(weights, 256) == pytest.approx(optimal_codebook(weights, 256).size, rel=1e-3)
    few = np.round(weights)
    exact = exact_codebook(few, 256)
    assert exact is not None
    assert predicted_size(few, 256) == pytest.approx(exact.size, rel=0.06)
    assert predicted_size(weights[:2, :3], 256) == 24


@pytest.mark.parametrize("depth", [4, 8, 16])
@given(matrix=arrays.arrays(np.float32, st.tuples(st.integers(1, 4), st.integers(1, 9)), elements=FLOAT32))
def test_affine_steps(depth: int, matrix: Floats) -> None:
    """Each weight within half a step; scales normal, products finite; zero is exact; codes around 2^(depth-1)."""
    steps = symmetric_steps(matrix, depth)
    values = np.concatenate(list(steps.decoded_rows()))
    assert (steps.scales >= SMALLEST_SCALE).all()
    assert np.isfinite(values).all()
    assert int(steps.codes.min()) >= 1
    assert int(steps.codes.max()) < 1 << depth
    error = np.abs(matrix.astype(np.float64) - values)
    # The scale and the product are rounded to float32 once each.
    allowed = steps.scales[:, None] * 0.5000001 + np.abs(matrix) * 2.0**-22 + 2.0**-149
    assert (error <= allowed).all()
    assert (values[matrix == 0] == 0).all()


def test_steps_of_the_largest_float() -> None:
    largest = np.finfo(np.float32).max
    for depth in (4, 8, 16):
        values = np.concatenate(list(symmetric_steps(floats([[largest, -largest, 1]]), depth).decoded_rows()))
        assert np.isfinite(values).all()


def test_loss_of_known_errors() -> None:
    found = measure(floats([3, 4, 0]), [floats([3, 4.5]), floats([0])])
    assert (found.signal, found.noise, found.largest_error, found.largest_weight) == (25, 0.25, 0.5, 4)
    assert found.sqnr_db == pytest.approx(20)
    assert not found.identical
    assert found.crc32 == zlib.crc32(floats([3, 4.5, 0]).tobytes())
    message = found.message()
    assert message is not None
    assert (message.sqnr_millidb, message.largest_error) == (20_000, 2**21)


def test_the_largest_error_is_rounded_up_and_bounded() -> None:
    assert Loss(1, 1, 1 / 3, 1, False, 0).message().largest_error == 5_592_406  # type: ignore[union-attr]
    assert Loss(1, 1, 1e9, 1, False, 0).message().largest_error == 2**32 - 1  # type: ignore[union-attr]


def test_identical_means_every_bit() -> None:
    weights = floats([0.0, 1])
    assert measure(weights, [weights.copy()]).message() is None
    signed = measure(weights, [floats([-0.0, 1])])
    assert (signed.identical, signed.noise, signed.sqnr_db) == (False, 0, None)
    message = signed.message()
    assert message is not None
    assert not message.HasField("sqnr_millidb")


@pytest.mark.parametrize("power", [-149, -120, 0, 100, 120])
def test_loss_does_not_depend_on_the_scale(power: int) -> None:
    weights = floats([4, -8, 16, 2])
    values = floats([4, -8, 17, 2])
    plain, scaled = (measure(np.ldexp(weights, p), [np.ldexp(values, p)]) for p in (0, power))
    assert scaled.sqnr_db == pytest.approx(plain.sqnr_db)


def test_loss_over_many_chunks() -> None:
    weights = np.random.default_rng(0).standard_normal(2 * CHUNK + 5).astype(np.float32)
    values = weights.astype(np.float16).astype(np.float32)
    found = measure(weights, (values[i : i + CHUNK] for i in range(0, values.size, CHUNK)))
    assert found.noise == pytest.approx(squared_error(weights, values), rel=1e-5)
    assert found.signal == pytest.approx(float((weights.astype(np.float64) ** 2).sum()), rel=1e-5)


def test_loss_of_halves() -> None:
    weights = floats([1, 2, 65504]).astype(np.float16)
    found = measure(weights, [floats([1, 2, 65472]).astype(np.float16)])
    assert (found.largest_error, found.largest_weight) == (32, 65504)
