"""Arithmetic on scores, against the definitions written out in plain Python."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mobilemodel.errors import UsageError
from mobilemodel.runtime.scores import (
    agreement,
    are_probabilities,
    divergences,
    mean_divergence,
    probabilities,
    ranks,
    top1,
    winners,
)

NAN = math.nan
COUNT, CLASSES = 6, 4


def rows(element: st.SearchStrategy[float]) -> st.SearchStrategy[list[list[float]]]:
    return st.lists(st.lists(element, min_size=CLASSES, max_size=CLASSES), min_size=COUNT, max_size=COUNT)


ODD = st.sampled_from([0.0, 1.0, 2.0, -1.0, math.inf, -math.inf, NAN])
WEIGHTS = st.one_of(st.just(0.0), st.floats(1e-30, 1e3))
CHOSEN = st.lists(st.integers(0, CLASSES - 1), min_size=COUNT, max_size=COUNT)


def winner(row: list[float]) -> int | None:
    """The best class, of equal ones the first; none where a score is NaN."""
    return None if any(map(math.isnan, row)) else max(range(len(row)), key=lambda index: (row[index], -index))


@given(rows(ODD), rows(ODD), CHOSEN)
def test_accuracy_and_agreement_are_counted(a: list[list[float]], b: list[list[float]], classes: list[int]) -> None:
    first, second, wanted = np.array(a), np.array(b), np.array(classes)
    right = [winner(row) == chosen for row, chosen in zip(a, classes, strict=True)]
    assert top1(first, wanted) == pytest.approx(100 * sum(right) / COUNT)
    alike = [winner(x) is not None and winner(x) == winner(y) for x, y in zip(a, b, strict=True)]
    assert agreement(first, second) == pytest.approx(100 * sum(alike) / COUNT)
    assert (winners(first) == [-1 if winner(row) is None else winner(row) for row in a]).all()
    assert ((ranks(first, wanted) == 0) == right).all()


def test_rows_of_nan_agree_with_nothing_not_even_with_themselves() -> None:
    broken = np.array([[NAN, 1.0], [0.0, 1.0]])
    assert agreement(broken, broken) == 50
    assert divergences(broken, broken).tolist() == [math.inf, 0.0]
    assert mean_divergence(broken, broken) == math.inf


def test_scores_of_other_sizes_are_not_compared() -> None:
    with pytest.raises(UsageError, match="expected 1, found 2"):
        agreement(np.zeros((1, 2)), np.zeros((2, 2)))
    with pytest.raises(UsageError, match="distributions to compare"):
        divergences(np.ones((1, 2)), np.ones((1, 3)))


def as_distribution(row: list[float]) -> list[float]:
    return [value / math.fsum(row) for value in row] if sum(row) else [0.0] * (CLASSES - 1) + [1.0]


def floored_log(value: float) -> float:
    """docs/eval.md: a probability below 2^-126, 0 among them, has the logarithm of 2^-126."""
    return math.log(max(value, 2.0**-126))


@given(rows(WEIGHTS), rows(WEIGHTS))
def test_divergence_is_the_sum_of_p_log_p_over_q(a: list[list[float]], b: list[list[float]]) -> None:
    p, q = [as_distribution(row) for row in a], [as_distribution(row) for row in b]
    found = divergences(np.array(p), np.array(q))
    for first, second, divergence in zip(p, q, found, strict=True):
        expected = math.fsum(x * (floored_log(x) - floored_log(y)) for x, y in zip(first, second, strict=True))
        assert divergence == pytest.approx(expected, abs=1e-12)
        assert divergence >= 0
    assert mean_divergence(np.array(p), np.array(q)) == pytest.approx(math.fsum(found) / COUNT)


def test_a_class_that_is_ruled_out_counts_87_nats() -> None:
    assert divergences(np.array([[1.0, 0.0]]), np.array([[0.0, 1.0]]))[0] == pytest.approx(126 * math.log(2))


def test_rows_are_brought_to_a_sum_of_one_first() -> None:
    """Halves round to sums that are not quite 1; that alone is no divergence."""
    p = np.array([[0.2, 0.3, 0.5]])
    for a, b in ((0.9995, 1.0004), (1.0004, 0.9995)):
        assert divergences(p * a, p * b)[0] == pytest.approx(0, abs=1e-15)


def test_rounding_makes_no_divergence_negative() -> None:
    p = np.random.default_rng(6).dirichlet(np.ones(10), 200)
    assert divergences(p, p * np.random.default_rng(7).uniform(1, 1 + 1e-12, p.shape)).min() >= 0


@pytest.mark.parametrize(
    ("scores", "expected"),
    [
        ([[0.5, 0.5], [1.0, 0.0]], True),
        ([[0.5, 0.5009]], True),
        ([[0.5, 0.502]], False),
        ([[1.5, -0.5]], False),
        ([[0.5, 0.5], [0.5, 0.6]], False),
        ([[NAN, 0.5], [0.5, 0.5]], True),
        ([[NAN, 0.5]], None),
        ([[math.inf, 0.5]], False),
        ([[-math.inf, 1.0]], False),
    ],
)
def test_outputs_are_probabilities_where_rows_sum_to_one(scores: list[list[float]], expected: bool | None) -> None:
    """docs/eval.md: no value is below 0 and each row sums to 1 within 0.001; rows with NaN are not asked."""
    assert are_probabilities(np.array(scores)) is expected


def test_halves_are_summed_in_doubles() -> None:
    """As float16, the sum 1.0013 would be 1.00098."""
    assert are_probabilities(np.array([[1.0, 0.0013]], np.float16)) is False


@given(rows(st.floats(-800, 800)))
def test_softmax(logits: list[list[float]]) -> None:
    for row, found in zip(logits, probabilities(np.array(logits), softmax=True), strict=True):
        powers = [math.exp(value - max(row)) for value in row]
        assert found == pytest.approx([power / math.fsum(powers) for power in powers], rel=1e-12)


def test_rows_without_a_distribution_are_nan_altogether() -> None:
    scores = np.array([[0.5, 0.5], [0.5, 0.6], [NAN, 1.0], [-math.inf, 1.0], [math.inf, 1.0]])
    assert np.isnan(probabilities(scores, softmax=False)).all(axis=1).tolist() == [False, True, True, True, True]
    assert np.isnan(probabilities(scores, softmax=True)).all(axis=1).tolist() == [False, False, True, False, True]
    assert np.isnan(probabilities(scores, softmax=True)).any(axis=1).tolist() == [False, False, True, False, True]
