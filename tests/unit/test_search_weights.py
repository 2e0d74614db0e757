"""Factors of single tensors' prices: a lower divergence at the same size."""

from __future__ import annotations

import math
import random

import pytest

from mobilemodel.search import (
    Candidate,
    Effect,
    Evaluation,
    Outcome,
    balance,
    search_size,
    search_thoroughly,
)
from mobilemodel.search.layer_weights import exchange_rate


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
