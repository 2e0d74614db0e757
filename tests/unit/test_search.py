"""Searching prices on synthetic curves: few evaluations, never above the target, and a reason where it fails."""

from __future__ import annotations

import json
import math
import random
from collections.abc import Callable

import pytest

from mobilemodel.errors import UsageError
from mobilemodel.search import (
    Candidate,
    Effect,
    Evaluation,
    Found,
    Outcome,
    balance,
    curve_rows,
    curve_text,
    paired_drop,
    search_quality,
    search_size,
    search_thoroughly,
)
from mobilemodel.search.drop_model import Measured, fit
from mobilemodel.search.layer_weights import exchange_rate
from mobilemodel.search.prices import PRICES

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


# Quality ------------------------------------------------------------------------------------------------------------


class Network:
    """A drop of 35 points a nat, measured on so many pictures; divergence in proportion to the price."""

    def __init__(self, seed: int, pictures: int = 2048, exponent: float = 0.95) -> None:
        self.seed, self.pictures, self.exponent = seed, pictures, exponent

    def true_drop(self, divergence: float) -> float:
        return 35 * math.pow(divergence, self.exponent)

    def __call__(self, candidate: Candidate) -> Outcome:
        divergence = 20 * candidate.price
        chance = random.Random(f"{self.seed} {candidate.price}")
        moved = min(0.9, 0.25 * divergence**0.5)  # the share of pictures whose verdict changes
        lost = sum(chance.random() < (moved + self.true_drop(divergence) / 100) / 2 for _ in range(self.pictures))
        gained = sum(chance.random() < (moved - self.true_drop(divergence) / 100) / 2 for _ in range(self.pictures))
        drop, error = paired_drop(lost, min(gained, self.pictures - lost), self.pictures)
        return Outcome(int(smooth(candidate.price)), drop, error, divergence)


def test_a_drop_holds_on_pictures_that_nobody_has_seen() -> None:
    """The rule: the true drop is within the limit for 95 of 100 networks, though each is measured on 2048 pictures."""
    held, used = 0, []
    for seed in range(40):
        network = Network(seed)
        found = search_quality(network, largest_drop=0.5, first_price=[1e-4, 5e-4, 3e-3][seed % 3])
        assert found.chosen is not None
        assert found.chosen.outcome.divergence is not None
        assert found.bound is not None
        assert found.bound <= 0.5
        assert len(found.evaluations) <= 7
        held += network.true_drop(found.chosen.outcome.divergence) <= 0.5
        used.append(found.chosen.outcome.divergence)
    assert held >= 38
    assert sorted(used)[20] > 0.3 * (0.5 / 35) ** (1 / 0.95), "half of what the limit allows is given away at most"


def test_more_pictures_allow_a_smaller_file() -> None:
    sizes = []
    for pictures in (512, 8192):
        found = search_quality(Network(3, pictures), largest_drop=1.0, first_price=1e-3)
        assert found.chosen is not None
        sizes.append(found.chosen.size)
    assert sizes[1] < sizes[0]


def test_a_divergence_is_met_as_measured() -> None:
    for first in (1e-6, 1e-3, 1.0):
        found = search_quality(Network(0), largest_divergence=0.02, first_price=first)
        assert found.met
        assert found.bound is None
        assert found.chosen is not None
        assert 0.018 <= (found.chosen.outcome.divergence or 0) <= 0.02
        assert len(found.evaluations) <= 7


def test_an_infinite_divergence_is_too_much_and_no_more() -> None:
    def evaluate(candidate: Candidate) -> Outcome:
        if candidate.price > 1e-2:
            return Outcome(1000, 70.0, 1.0, math.inf)
        return Outcome(int(smooth(candidate.price)), 3000 * candidate.price, 0.2, 100 * candidate.price)

    for drop, divergence in ((1.0, None), (None, 0.03)):
        found = search_quality(evaluate, largest_drop=drop, largest_divergence=divergence, first_price=1.0,
                               most_evaluations=12)  # fmt: skip
        assert found.chosen is not None
        assert (found.chosen.outcome.drop or 9) <= 1.0


def test_a_network_that_loses_nothing_takes_the_highest_price() -> None:
    found = search_quality(lambda c: Outcome(int(smooth(c.price)), divergence=0.0), largest_divergence=0.1,
                           first_price=1e-3)  # fmt: skip
    assert found.met
    assert found.chosen is not None
    assert found.chosen.price == PRICES[1]


def test_a_limit_that_no_price_keeps_is_told_with_the_nearest() -> None:
    found = search_quality(lambda c: Outcome(int(smooth(c.price)), 9.0, 0.3, 0.5), largest_drop=0.5, first_price=1e-3)
    assert (found.met, found.chosen) == (False, None)
    assert "keeps a drop of at most 0.5 points with 95 % confidence" in found.reason
    assert "loses 9.00 points and 0.5 nats" in found.reason


def test_a_candidate_whose_own_drop_is_clearly_too_large_is_refused() -> None:
    """However small its divergence: what was measured of the file itself goes before the curve."""

    def evaluate(candidate: Candidate) -> Outcome:
        divergence = 20 * candidate.price
        return Outcome(int(smooth(candidate.price)), 2.0 if divergence < 0.05 else 35 * divergence, 0.1, divergence)

    assert search_quality(evaluate, largest_drop=1.0, first_price=1e-3).chosen is None


def test_the_bound_is_above_what_is_expected_and_narrows_where_drops_are_loud() -> None:
    quiet = fit([Measured(0.01, 0.4, 0.3)])
    loud = fit([Measured(0.01, 0.4, 0.3), Measured(0.1, 3.6, 0.5)])
    for curve in (quiet, loud):
        assert curve.bound(0.01) > curve.expected(0.01)
        assert curve.bound(curve.divergence_within(0.5)) == pytest.approx(0.5)
    assert loud.bound(0.01) < quiet.bound(0.01)


def test_a_network_that_only_gains_has_a_bound_above_nothing() -> None:
    curve = fit([Measured(0.01, -0.4, 0.2), Measured(0.05, -0.5, 0.3)])
    assert curve.expected(0.01) == 0
    assert curve.bound(0.05) > 0


# Factors of single tensors --------------------------------------------------------------------------------------------


def optimum(effects: list[Effect]) -> float:
    """The least divergence for no byte more, by an exact solver."""
    import numpy as np
    from scipy.optimize import Bounds, LinearConstraint, milp

    tensors = sorted({effect.tensor for effect in effects})
    one_each = np.array([[effect.tensor == tensor for effect in effects] for tensor in tensors], float)
    sizes = np.array([[effect.bytes for effect in effects]], float)
    found = milp([effect.divergence for effect in effects], integrality=np.ones(len(effects)), bounds=Bounds(0, 1),
                 constraints=[LinearConstraint(one_each, 0, 1), LinearConstraint(sizes, -np.inf, 0)])  # fmt: skip
    return float(found.fun)


@pytest.mark.parametrize("seed", range(20))
def test_balancing_promises_no_less_than_the_optimum_at_equal_size(seed: int) -> None:
    """Weak duality: divergence + rate x bytes of what is chosen is at most the least divergence for no byte more."""
    chance = random.Random(seed)
    effects = []
    for index in range(chance.randint(1, 12)):
        size, loss = chance.randint(1000, 100_000), chance.uniform(0.001, 0.1)
        effects.append(Effect(f"t{index}", 2.0, -int(size * chance.uniform(0.3, 0.6)), loss))
        effects.append(Effect(f"t{index}", 0.5, size, -loss * chance.uniform(0.2, 1.2)))
    factors = balance(effects)
    chosen = [effect for effect in effects if factors.get(effect.tensor) == effect.factor]
    assert len(chosen) == len(factors)
    cost = sum(effect.divergence + exchange_rate(effects) * effect.bytes for effect in chosen)
    assert cost <= optimum(effects) + 1e-9


def test_nothing_is_balanced_where_nothing_helps() -> None:
    assert balance([]) == {}
    assert balance([Effect("a", 0.5, 100, -0.01), Effect("b", 2.0, -100, 0.01)]) == {}
    assert balance([Effect("a", 2.0, -100, math.inf), Effect("a", 0.5, 100, -0.1)]) == {}
    assert balance([Effect("a", 2.0, -100, -0.1), Effect("b", 2.0, -100, 0.01)]) == {}, "bytes that cost nothing"


def uneven(candidate: Candidate) -> Outcome:
    """Two tensors of equal size, one of which matters thirty times as much as its error tells."""
    prices = candidate.price_of("dull"), candidate.price_of("sharp")
    size = sum(1e4 * price**-0.5 for price in prices)
    return Outcome(int(size), divergence=0.1 * prices[0] + 3 * prices[1])


def test_a_thorough_search_lowers_the_divergence_at_the_same_size() -> None:
    plain = search_size(uneven, 500_000, first_price=1e-3)
    assert plain.chosen is not None
    found = search_thoroughly(uneven, plain.chosen, 500_000, ["dull", "sharp"])
    assert found.chosen is not None
    assert found.chosen.candidate.layer_weights == {"dull": 2.0, "sharp": 0.5}
    assert 495_000 <= found.chosen.size <= 500_000
    assert (found.chosen.outcome.divergence or 9) < 0.8 * (plain.chosen.outcome.divergence or 0)
    assert len(found.evaluations) <= 1 + 4 + 6


def test_a_thorough_search_keeps_what_it_cannot_better() -> None:
    def even(candidate: Candidate) -> Outcome:
        prices = candidate.price_of("a"), candidate.price_of("b")
        return Outcome(int(sum(1e4 * price**-0.5 for price in prices)), divergence=sum(prices))

    start = Evaluation(Candidate(1e-3), even(Candidate(1e-3)))
    found = search_thoroughly(even, start, start.size, ["a", "b"])
    assert found.chosen == start


# Showing --------------------------------------------------------------------------------------------------------------

SEEN = (
    Evaluation(Candidate(1e-4), Outcome(2_000_000, 0.1, 0.2, 0.004)),
    Evaluation(Candidate(1e-3), Outcome(1_000_000, 0.9, 0.3, 0.03)),
    Evaluation(Candidate(1e-2, {"fc6": 2.0}), Outcome(500_000, 4.0, 0.5, math.inf)),
)


def test_the_curve_as_text() -> None:
    lines = curve_text(Found(SEEN[1], True, SEEN)).splitlines()
    assert lines[:6] == [
        " price      bytes   points lost  KL nats",
        "0.0001  2,000,000  0.10 +- 0.20    0.004",
        " 0.001  1,000,000  0.90 +- 0.30     0.03    chosen",
        "  0.01    500,000  4.00 +- 0.50      inf  1 factor",
        "",
        "3 candidates were evaluated",
    ]
    assert lines[7] == "points of top-1 lost"
    assert lines[8] == "        4 |o"
    assert lines[19] == "      0.1 |" + 48 * " " + "o"
    assert "\n".join(lines).count("*") == 1
    assert lines[-1] == "           500,000" + "2,000,000 bytes".rjust(42)
    assert max(map(len, lines)) <= 60


def test_the_curve_without_labels_shows_the_divergence_and_without_data_nothing() -> None:
    divergences = tuple(Evaluation(e.candidate, Outcome(e.size, divergence=e.price)) for e in SEEN)
    assert "\nKL nats\n" in curve_text(Found(None, False, divergences))
    sizes = tuple(Evaluation(e.candidate, Outcome(e.size)) for e in SEEN)
    assert curve_text(Found(None, False, sizes)).splitlines()[-1] == "3 candidates were evaluated"
    assert "1 candidate was evaluated" in curve_text(Found(None, False, sizes[:1]))


def test_the_curve_as_json() -> None:
    rows = curve_rows(Found(SEEN[1], True, SEEN))
    json.dumps(rows, allow_nan=False)
    assert rows[2] == {
        "price": 0.01, "layer_weights": {"fc6": 2.0}, "file_bytes": 500_000, "drop_points": 4.0, "drop_error": 0.5,
        "divergence_nats": None, "chosen": False,
    }  # fmt: skip
    assert [row["chosen"] for row in rows] == [False, True, False]
