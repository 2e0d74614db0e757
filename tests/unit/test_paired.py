"""Paired proportions: McNemar's test against exact fractions, Tango's interval against its definition."""

from __future__ import annotations

import math
from fractions import Fraction
from statistics import NormalDist

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mobilemodel.errors import UsageError
from mobilemodel.runtime import mcnemar, paired_difference, paired_interval

Z = NormalDist().inv_cdf(0.975)
COUNTS = st.tuples(st.integers(0, 60), st.integers(0, 60), st.integers(0, 400)).filter(lambda counts: sum(counts) > 0)


@given(st.integers(0, 300), st.integers(0, 300))
def test_mcnemar_is_a_two_sided_test_of_a_fair_coin(lost: int, gained: int) -> None:
    coins = lost + gained
    splits = [Fraction(math.comb(coins, heads), 2**coins) for heads in range(coins + 1)]
    expected = sum(share for share in splits if share <= splits[lost])  # every split that is at most as likely
    assert mcnemar(lost, gained) == pytest.approx(float(expected), rel=1e-9)


def test_mcnemar_of_millions_of_pictures() -> None:
    assert mcnemar(10**6, 10**6) == pytest.approx(1.0, abs=1e-6)
    z = 2000 / math.sqrt(2 * 10**6)  # half a picture less for continuity changes nothing here
    assert mcnemar(10**6 - 1000, 10**6 + 1000) == pytest.approx(2 * (1 - NormalDist().cdf(z)), rel=0.01)
    assert mcnemar(0, 5000) == 0.0


def statistic(lost: int, gained: int, count: int, difference: float) -> float:
    """Tango's score statistic: what is left of the difference over its deviation under it, with the likeliest share of
    ``lost`` found by golden section instead of by his formula."""

    def likelihood(share: float) -> float:
        cells = ((gained, share + difference), (lost, share), (count - lost - gained, 1 - 2 * share - difference))
        return math.fsum(n * math.log(max(p, 1e-300)) for n, p in cells if n)

    low, high = max(0.0, -difference), (1 - difference) / 2
    ratio = (math.sqrt(5) - 1) / 2
    for _ in range(200):
        a, b = high - ratio * (high - low), low + ratio * (high - low)
        low, high = (low, b) if likelihood(a) >= likelihood(b) else (a, high)
    deviation = math.sqrt(count * max(2 * low + difference - difference**2, 1e-300))
    return (gained - lost - count * difference) / deviation


@given(COUNTS)
def test_the_interval_holds_what_the_score_test_does_not_refuse(counts: tuple[int, int, int]) -> None:
    lost, gained, rest = counts
    count = lost + gained + rest
    low, high = (limit / 100 for limit in paired_interval(lost, gained, count))
    estimate = (gained - lost) / count
    assert -1 <= low <= estimate <= high <= 1
    if low > -0.999:
        assert statistic(lost, gained, count, low) == pytest.approx(Z, rel=1e-3)
    if high < 0.999:
        assert statistic(lost, gained, count, high) == pytest.approx(-Z, rel=1e-3)


@given(COUNTS)
def test_the_interval_excludes_zero_where_mcnemars_score_test_refuses_it(counts: tuple[int, int, int]) -> None:
    """At a difference of 0 the statistic is (gained - lost) / sqrt(gained + lost)."""
    lost, gained, rest = counts
    low, high = paired_interval(lost, gained, lost + gained + rest)
    assert (low > 0 or high < 0) == (abs(gained - lost) > Z * math.sqrt(gained + lost))
    assert paired_interval(gained, lost, lost + gained + rest) == pytest.approx((-high, -low), abs=1e-9)


def test_two_models_that_answer_alike_differ_by_less_on_more_pictures() -> None:
    """Without discordant pairs the limits are z^2 / (n + z^2) from 0."""
    for count in (1, 50, 5000):
        expected = 100 * Z**2 / (count + Z**2)
        assert paired_interval(0, 0, count) == pytest.approx((-expected, expected))


def test_the_interval_keeps_its_confidence() -> None:
    """Over all outcomes of 40 pictures, of which one model alone gets 10 % and the other alone 4 %."""
    count, lost_share, gained_share = 40, 0.10, 0.04
    covered = 0.0
    for lost in range(25):
        for gained in range(25 - lost):
            ways = math.comb(count, lost) * math.comb(count - lost, gained)
            rest = (1 - lost_share - gained_share) ** (count - lost - gained)
            low, high = paired_interval(lost, gained, count)
            covered += ways * lost_share**lost * gained_share**gained * rest * (low <= -6 <= high)
    assert 0.93 <= covered <= 0.98


def test_the_difference_of_two_models() -> None:
    first = np.array([True] * 60 + [False] * 40)
    model = np.concatenate([first[:57], ~first[57:62], first[62:]])  # loses 3, gains 2
    found = paired_difference(first, model)
    assert (found.lost, found.gained, found.points) == (3, 2, -1.0)
    assert (found.low, found.high) == paired_interval(3, 2, 100)
    assert found.p_value == mcnemar(3, 2) == pytest.approx(1.0)


@pytest.mark.parametrize("counts", [(-1, 0, 5), (0, -1, 5), (3, 3, 5), (0, 0, 0)])
def test_counts_that_do_not_fit(counts: tuple[int, int, int]) -> None:
    with pytest.raises(UsageError, match="at most count pictures"):
        paired_interval(*counts)
    with pytest.raises(UsageError):
        mcnemar(-1, 3)
