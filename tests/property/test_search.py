"""Searches on any curve: a chosen size is never above the target, evaluations are counted, the order of the workers
changes nothing."""

from __future__ import annotations

import math
import random
import threading
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from mobilemodel.search import Candidate, Effect, Outcome, balance, search_quality, search_size
from mobilemodel.search.layer_weights import exchange_rate
from mobilemodel.search.prices import PRICES

SEEDS = st.integers(0, 2**32)
WIDTHS = st.integers(1, 5)
MOST = st.integers(1, 15)
FIRST = st.floats(1e-12, 1e2)


class Wild:
    """A falling size with jumps, waves and plateaus, of any strength; drops and divergences to go with it."""

    def __init__(self, seed: int) -> None:
        chance = random.Random(seed)
        self.seed = seed
        self.slope, self.jump = chance.uniform(0, 1.5), chance.choice([0, 0.005, 0.3])
        self.wave, self.step = chance.choice([0, 0.4]), chance.choice([1e-9, 0.5, 5.0])
        self.count = 0
        self.lock = threading.Lock()

    def __call__(self, candidate: Candidate) -> Outcome:
        with self.lock:
            self.count += 1
        x = self.step * math.floor(math.log(candidate.price) / self.step)
        noise = random.Random(f"{self.seed} {candidate.price}")
        size = math.exp(14 - self.slope * (x + 7) + self.wave * math.sin(x) + noise.uniform(-self.jump, self.jump))
        divergence = noise.choice([math.inf, math.exp(x)]) if candidate.price > 1 else math.exp(x)
        drop = min(90.0, 30 * divergence) + noise.gauss(0, 0.3)
        return Outcome(max(1, min(int(size), 10**12)), drop, 0.3, divergence)


@given(SEEDS, st.integers(1, 10**9), FIRST, WIDTHS, MOST)
def test_a_chosen_size_is_within_the_target(seed: int, target: int, first: float, width: int, most: int) -> None:
    wild = Wild(seed)
    found = search_size(wild, target, first_price=first, width=width, most_evaluations=most)
    assert wild.count == len(found.evaluations) <= most
    assert list(found.evaluations) == sorted(found.evaluations, key=lambda e: e.price)
    assert all(PRICES[0] <= e.price <= PRICES[1] for e in found.evaluations)
    fitting = [e.size for e in found.evaluations if e.size <= target]
    assert (found.chosen.size if found.chosen else None) == max(fitting, default=None)
    assert found.met == (found.chosen is not None and found.chosen.size >= 0.99 * target)
    assert found.met == (found.reason == "")


@given(SEEDS, st.floats(0.01, 20), FIRST, WIDTHS, MOST)
def test_a_chosen_quality_is_within_the_limit(seed: int, limit: float, first: float, width: int, most: int) -> None:
    wild = Wild(seed)
    found = search_quality(wild, largest_drop=limit, first_price=first, width=width, most_evaluations=most)
    assert wild.count == len(found.evaluations) <= most
    assert found.met == (found.reason == "")
    if found.chosen is not None:
        assert found.bound is not None
        assert found.bound <= limit * (1 + 1e-9)
    wild = Wild(seed)
    found = search_quality(wild, largest_divergence=limit, first_price=first, width=width, most_evaluations=most)
    assert wild.count == len(found.evaluations) <= most
    kept = [e for e in found.evaluations if (e.outcome.divergence or 0) <= limit]
    assert (found.chosen.size if found.chosen else None) == min((e.size for e in kept), default=None)


class Backwards(Executor):
    """Runs a round's jobs in reverse order of their submission, when the first result is asked for."""

    def __init__(self) -> None:
        self.waiting: list[Any] = []

    def submit(self, fn: Any, /, *args: Any, **kwargs: Any) -> Future[Any]:
        executor = self

        class Late(Future[Any]):
            def result(self, timeout: float | None = None) -> Any:
                while executor.waiting:
                    future, job = executor.waiting.pop()
                    Future.set_result(future, job())
                return super().result(timeout)

        future = Late()
        self.waiting.append((future, lambda: fn(*args, **kwargs)))
        return future


@given(SEEDS, st.integers(10**4, 10**8), WIDTHS)
def test_the_executor_changes_nothing(seed: int, target: int, width: int) -> None:
    """For one ``width`` any executor gives the same: in the caller, backwards, in one thread or in three."""
    expected = search_size(Wild(seed), target, first_price=1e-3, width=width)
    assert search_size(Wild(seed), target, first_price=1e-3, width=width, executor=Backwards()) == expected
    for workers in (1, 3):
        with ThreadPoolExecutor(workers) as executor:
            assert search_size(Wild(seed), target, first_price=1e-3, width=width, executor=executor) == expected


@given(st.lists(st.builds(Effect, st.sampled_from("abcd"), st.sampled_from([0.5, 2.0, 4.0]),
                          st.integers(-1000, 1000), st.floats(-1, 1)), max_size=10))  # fmt: skip
def test_balancing_chooses_what_pays_at_the_exchange_rate(effects: list[Effect]) -> None:
    effects = list({(effect.tensor, effect.factor): effect for effect in effects}.values())
    factors = balance(effects)
    chosen = [effect for effect in effects if factors.get(effect.tensor) == effect.factor]
    assert len(chosen) == len(factors)
    rate = exchange_rate(effects)
    assert all(effect.divergence + rate * effect.bytes < 0 for effect in chosen)
