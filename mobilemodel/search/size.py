"""Searching the price at which a file has a given size."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from concurrent.futures import Executor
from itertools import pairwise

from mobilemodel.errors import UsageError
from mobilemodel.search.candidate import Candidate, Evaluate, Evaluation, Found
from mobilemodel.search.prices import PRICES, SAME, Point, check_prices, first_prices, next_prices
from mobilemodel.search.trials import Trials

_SLOPE = 0.6
"""by which log size falls as log price rises by 1: 0.4 to 0.9 on trained networks"""


def search_size(
    evaluate: Evaluate, target: int, *, first_price: float, floor: float = 0.99, most_evaluations: int = 12,
    prices: tuple[float, float] = PRICES, layer_weights: Mapping[str, float] | None = None, width: int = 1,
    executor: Executor | None = None, known: Iterable[Evaluation] = (),
) -> Found:  # fmt: skip
    """Find a price at which the file takes ``floor * target`` to ``target`` bytes, never more.

    Log size is interpolated over log price, aimed at the middle of the window. ``width`` candidates are evaluated side
    by side in each round: it alone decides which, so any ``executor`` gives the same result. ``known`` evaluations
    with the same ``layer_weights``, of an earlier search, are used. Chosen is the largest file within the target.

    Raises UsageError for a target, a floor or a price that cannot be, and what ``evaluate`` raises.

    >>> from mobilemodel.search import Outcome
    >>> found = search_size(lambda c: Outcome(int(1000 * c.price**-0.7)), 40_000, first_price=0.1)
    >>> found.met, found.chosen.size, len(found.evaluations)
    (True, 39801, 3)
    """
    check_prices(first_price, prices, width, most_evaluations)
    if target < 1 or not 0 <= floor < 1:
        raise UsageError("target size", expected="at least 1 byte, and a floor of at least 0 and below 1",
                         found=f"{target} and {floor}")  # fmt: skip
    weights = dict(layer_weights or {})
    trials = Trials(evaluate, most_evaluations, executor, (e for e in known if e.candidate.layer_weights == weights))
    while trials.left and _best(trials.evaluations(), target, floor) is None:
        points = [Point(math.log(e.price), -math.log(e.size), trials.round_of(e.candidate))
                  for e in trials.evaluations()]  # fmt: skip
        if points:
            ahead = next_prices(points, -math.log(target * (1 + floor) / 2), _SLOPE, width, prices)
        else:
            ahead = first_prices(first_price, prices, width)
        new = [candidate for price in ahead if not trials.seen(candidate := Candidate(price, weights))]
        if not new:
            break
        trials.run(new)
    return _found(trials.evaluations(), target, floor, prices)


def _best(evaluations: tuple[Evaluation, ...], target: int, floor: float) -> Evaluation | None:
    """The largest file within the window; of equal ones that of the lowest price."""
    within = [e for e in evaluations if floor * target <= e.size <= target]
    return max(within, key=lambda e: e.size, default=None)


def _found(evaluations: tuple[Evaluation, ...], target: int, floor: float, prices: tuple[float, float]) -> Found:
    best = _best(evaluations, target, floor)
    if best is not None:
        return Found(best, True, evaluations)
    fitting = _best(evaluations, target, 0.0)
    return Found(fitting, False, evaluations, _why_not(evaluations, fitting, target, prices))


def _why_not(
    evaluations: tuple[Evaluation, ...], fitting: Evaluation | None, target: int, prices: tuple[float, float]
) -> str:
    above = min((e for e in evaluations if e.size > target), key=lambda e: e.size, default=None)
    tried = "1 evaluation" if len(evaluations) == 1 else f"{len(evaluations)} evaluations"
    if fitting is None:
        assert above is not None, "every size is above or within the target"
        where = f"at price {above.price:g}, has {above.size:,}"
        if _at(prices[1], evaluations[-1]):
            return f"no price gives {target:,} bytes: the smallest file, {where}"
        return f"{tried} found no file within {target:,} bytes: the smallest, {where}"
    if above is None:
        where = f"at price {fitting.price:g}, has {fitting.size:,}"
        if _at(prices[0], evaluations[0]):
            return f"no price gives as much as {target:,} bytes: the largest file, {where}"
        return f"{tried} found no file of nearly {target:,} bytes: the largest, {where}"
    for one, next_one in pairwise(evaluations):
        if next_one.size <= target < one.size and math.log(next_one.price / one.price) < SAME:
            return f"the size jumps over the target of {target:,} bytes: {_sizes(one, next_one)}"
    return f"{tried} came no nearer to {target:,} bytes than {_sizes(above, fitting)}"


def _sizes(one: Evaluation, other: Evaluation) -> str:
    return f"{one.size:,} bytes at price {one.price:g} and {other.size:,} at price {other.price:g}"


def _at(price: float, evaluation: Evaluation) -> bool:
    return abs(math.log(evaluation.price / price)) < SAME
