"""A price for a size on synthetic curves: few evaluations, never above the target, and a reason where it fails."""

from __future__ import annotations

import math
import random
from collections.abc import Callable

import pytest

from mobilemodel.errors import UsageError
from mobilemodel.search import (
    Candidate,
    Evaluation,
    Outcome,
    paired_drop,
    search_quality,
    search_size,
    search_thoroughly,
)

Size = Callable[[float], float]


def smooth(price: float) -> float:
    """Slope -0.4 at low prices, -0.9 at high ones."""
    return 3e6 * math.pow(price, -0.4) / (1 + math.sqrt(price / 1e-3))


def jumpy(price: float) -> float:
    return smooth(price) * (1 + random.Random(repr(price)).uniform(-0.005, 0.005))


def plateaus(price: float) -> float:
    """Flat over four decades, then falling."""
    return 5e6 if price < 1e-3 else 5e6 * (price / 1e-3) ** -0.6


def waves(price: float) -> float:
    """Rises by some per cent again and again on its way down."""
    return smooth(price) * (1 + 0.05 * math.sin(6 * math.log(price)))


def size_only(size: Size) -> Callable[[Candidate], Outcome]:
    return lambda candidate: Outcome(int(size(candidate.price)))


@pytest.mark.parametrize("first", [1e-3, 2e-3, 1e-2, 0.3])
@pytest.mark.parametrize("target", [3_000_000, 1_234_567, 4_194_304, 20_000_000])
def test_a_smooth_curve_takes_five_evaluations_at_most(target: int, first: float) -> None:
    found = search_size(size_only(smooth), target, first_price=first)
    assert found.met
    assert found.reason == ""
    assert found.chosen is not None
    assert 0.99 * target <= found.chosen.size <= target
    assert len(found.evaluations) <= 5


def test_a_good_guess_takes_three() -> None:
    for factor in (0.7, 0.9, 1.1, 1.4):
        target = int(smooth(1e-3))
        assert len(search_size(size_only(smooth), target, first_price=1e-3 * factor).evaluations) <= 3


@pytest.mark.parametrize("size", [jumpy, plateaus, waves])
@pytest.mark.parametrize("target", [600_000, 1_000_000, 3_000_000])
def test_curves_that_are_not_smooth_are_met_too(size: Size, target: int) -> None:
    found = search_size(size_only(size), target, first_price=1e-6)
    assert found.met
    assert found.chosen is not None
    assert 0.99 * target <= found.chosen.size <= target


def test_a_size_that_no_price_reaches_is_told_with_the_nearest() -> None:
    def size(price: float) -> float:
        return min(max(smooth(price), 100_000), 9_000_000)

    small = search_size(size_only(size), 50_000, first_price=1e-3)
    assert (small.met, small.chosen) == (False, None)
    assert small.reason.startswith("no price gives 50,000 bytes: the smallest file, at price ")
    assert small.reason.endswith("has 100,000")
    assert len(small.evaluations) <= 6

    large = search_size(size_only(size), 20_000_000, first_price=1e-3)
    assert not large.met
    assert large.chosen is not None
    assert large.chosen.size == 9_000_000
    assert large.reason.startswith("no price gives as much as 20,000,000 bytes: the largest file")


def test_a_jump_over_the_window_is_told_with_its_sides() -> None:
    found = search_size(size_only(lambda p: 2_000_000 if p < 3.3e-4 else 900_000), 1_000_000, first_price=1e-3,
                        most_evaluations=30)  # fmt: skip
    assert not found.met
    assert found.chosen is not None
    assert found.chosen.size == 900_000
    assert len(found.evaluations) <= 16, "an interval that does not shrink is bisected"
    assert "the size jumps over the target of 1,000,000 bytes: 2,000,000 bytes at price 0.00" in found.reason


def test_running_out_of_evaluations_is_told() -> None:
    found = search_size(size_only(smooth), 1_000_000, first_price=1e-9, most_evaluations=2)
    assert len(found.evaluations) == 2
    assert not found.met
    assert found.reason.startswith("2 evaluations ")


def test_a_target_that_the_first_guess_hits_costs_one_evaluation() -> None:
    found = search_size(size_only(smooth), int(smooth(1e-3) * 1.004), first_price=1e-3)
    assert found.met
    assert [e.price for e in found.evaluations] == [1e-3]


def test_one_byte_above_the_target_is_too_large() -> None:
    size = int(smooth(1e-3))
    assert len(search_size(size_only(smooth), size, first_price=1e-3).evaluations) == 1
    found = search_size(size_only(smooth), size - 1, first_price=1e-3)
    assert found.met
    assert found.chosen is not None
    assert found.chosen.size < size


def test_known_evaluations_are_not_made_again() -> None:
    first = search_size(size_only(smooth), 1_000_000, first_price=1e-3)
    again = search_size(lambda _: pytest.fail("evaluated"), 1_000_000, first_price=1e-5, known=first.evaluations)
    assert again == first
    other = search_size(size_only(smooth), 990_000, first_price=1e-5, known=first.evaluations)
    assert set(first.evaluations) < set(other.evaluations)


def test_known_evaluations_with_other_factors_are_left_aside() -> None:
    known = [Evaluation(Candidate(1e-3, {"fc6": 2.0}), Outcome(1_000_000))]
    found = search_size(size_only(smooth), 1_000_000, first_price=1e-3, known=known)
    assert known[0] not in found.evaluations


def test_factors_reach_every_candidate() -> None:
    found = search_size(size_only(smooth), 1_000_000, first_price=1e-5, layer_weights={"fc6": 0.5})
    assert all(e.candidate.layer_weights == {"fc6": 0.5} for e in found.evaluations)


def test_prices_stay_within_their_limits() -> None:
    found = search_size(size_only(smooth), 1, first_price=1e-3, prices=(1e-4, 1e-2))
    assert found.evaluations[-1].price == 1e-2
    found = search_size(size_only(smooth), 10**12, first_price=1e-3, prices=(1e-4, 1e-2))
    assert found.evaluations[0].price == 1e-4


@pytest.mark.parametrize(
    "call",
    [
        lambda: search_size(size_only(smooth), 0, first_price=1.0),
        lambda: search_size(size_only(smooth), 10, first_price=0.0),
        lambda: search_size(size_only(smooth), 10, first_price=math.nan),
        lambda: search_size(size_only(smooth), 10, first_price=1.0, floor=1.0),
        lambda: search_size(size_only(smooth), 10, first_price=1.0, width=0),
        lambda: search_size(size_only(smooth), 10, first_price=1.0, most_evaluations=0),
        lambda: search_quality(size_only(smooth), first_price=1.0),
        lambda: search_quality(size_only(smooth), first_price=1.0, largest_drop=1.0, largest_divergence=1.0),
        lambda: search_quality(size_only(smooth), first_price=1.0, largest_drop=0.0),
        lambda: search_quality(size_only(smooth), first_price=1.0, largest_drop=1.0),
        lambda: search_quality(size_only(smooth), first_price=1.0, largest_divergence=1.0),
        lambda: search_quality(lambda c: Outcome(9, divergence=0.1), first_price=1.0, largest_drop=1.0),
        lambda: search_thoroughly(size_only(smooth), Evaluation(Candidate(1.0), Outcome(9)), 9, ["fc6"]),
        lambda: Candidate(math.inf),
        lambda: Candidate(1.0, {"fc6": -1.0}),
        lambda: Outcome(0),
        lambda: Outcome(1, drop=math.nan),
        lambda: Outcome(1, drop=0.0, drop_error=0.0),
        lambda: Outcome(1, divergence=math.nan),
        lambda: paired_drop(3, 3, 5),
    ],
)  # fmt: skip
def test_what_cannot_be_is_refused(call: Callable[[], object]) -> None:
    with pytest.raises(UsageError):
        call()
