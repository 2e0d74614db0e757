"""Searching the smallest file that loses no more than it may: points of top-1, or divergence of the outputs."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass, replace

from mobilemodel.errors import UsageError
from mobilemodel.search.candidate import Candidate, Evaluate, Evaluation, Found
from mobilemodel.search.drop_model import SIDE, DropCurve, Measured, fit
from mobilemodel.search.prices import PRICES, SAME, Point, check_prices, first_prices, next_prices
from mobilemodel.search.trials import Trials

_SLOPE = 1.0
"""by which log divergence rises as log price rises by 1: error is in proportion to the price at high rates"""
_POINTS_PER_NAT = 40.0
"""points of top-1 that a nat costs, where nothing is measured yet"""
_NEAR = 0.9
"""of the divergence that is allowed: nearer is not worth an evaluation, a tenth of it is about 5 % of the size"""
_SIGNAL, _LOUD = 4.0, 8.0
"""standard errors: a drop of fewer tells little of the curve; what is aimed at, to have one that does"""
_LEAST, _MOST = 1e-9, 1e3
"""nats: what is less or more is as good as this"""


@dataclass(frozen=True)
class _Limit:
    """The largest drop or the largest divergence; the other one is None."""

    drop: float | None
    divergence: float | None

    def __str__(self) -> str:
        if self.drop is None:
            return f"a divergence of at most {self.divergence:g} nats"
        return f"a drop of at most {self.drop:g} points with 95 % confidence"

    def curve(self, evaluations: Sequence[Evaluation]) -> DropCurve | None:
        """The drop over the divergence; None where no drop is asked for, or no divergence is finite."""
        measured = [] if self.drop is None else [_measured(evaluation) for evaluation in evaluations]
        finite = [one for one in measured if one.divergence < math.inf]
        return fit(finite) if finite else None

    def allowed(self, evaluations: Sequence[Evaluation]) -> float:
        """The largest divergence that keeps the limit."""
        if self.drop is None:
            assert self.divergence is not None, "one of the two is given"
            return self.divergence
        curve = self.curve(evaluations)
        return self.drop / _POINTS_PER_NAT if curve is None else curve.divergence_within(self.drop)

    def keeps(self, evaluation: Evaluation, allowed: float) -> bool:
        """Whether a candidate keeps the limit, and what was measured of itself does not speak against that."""
        if self.drop is not None:
            one = _measured(evaluation)
            if one.drop - SIDE * one.error > self.drop:
                return False
        return _divergence(evaluation) <= allowed

    def unheard(self, evaluations: Sequence[Evaluation]) -> float | None:
        """A divergence whose drop would stand out of the noise; None where one does already, or none is asked for."""
        if self.drop is None:
            return None
        measured = [_measured(evaluation) for evaluation in evaluations]
        if any(one.drop >= _SIGNAL * one.error for one in measured):
            return None
        largest = max(measured, key=lambda one: one.divergence)
        return max(_LOUD * largest.error / _POINTS_PER_NAT, 2 * largest.divergence)


def search_quality(
    evaluate: Evaluate, *, first_price: float, largest_drop: float | None = None,
    largest_divergence: float | None = None, most_evaluations: int = 7, prices: tuple[float, float] = PRICES,
    layer_weights: Mapping[str, float] | None = None, width: int = 1, executor: Executor | None = None,
    known: Iterable[Evaluation] = (),
) -> Found:  # fmt: skip
    """Find the smallest file within ``largest_drop`` points of top-1, or ``largest_divergence`` nats.

    A drop is noisy, so a candidate keeps the limit only where the upper bound of the curve through all evaluations
    does (``drop_model``), and its own drop is not beyond it by more than chance: the limit is to hold on pictures that
    nobody has seen. One candidate with a drop well above the noise is evaluated for the curve's sake. The divergence is
    taken as measured. ``width``, ``executor``, ``known`` and ``layer_weights`` are those of ``search_size``.

    Raises UsageError unless exactly one limit above 0 is given, where an outcome lacks what the limit is on, and what
    ``evaluate`` raises.

    >>> from mobilemodel.search import Outcome
    >>> def evaluate(c): return Outcome(int(1000 * c.price**-0.7), 40 * c.price, 0.3, c.price)
    >>> found = search_quality(evaluate, largest_drop=1.0, first_price=0.1)
    >>> found.met, found.chosen.outcome.drop < found.bound <= 1.0
    (True, True)
    """
    check_prices(first_price, prices, width, most_evaluations)
    limit = _limit(largest_drop, largest_divergence)
    weights = dict(layer_weights or {})
    trials = Trials(evaluate, most_evaluations, executor, (e for e in known if e.candidate.layer_weights == weights))
    while trials.left:
        evaluations = trials.evaluations()
        if evaluations:
            ceiling, kept = _state(evaluations, limit)
            aim = limit.unheard(evaluations)
            if aim is None and kept and _divergence(kept[-1]) >= _NEAR * ceiling:
                break
            aim = aim or ceiling * ((1 + _NEAR) / 2 if kept or len(evaluations) < 3 else 0.6)
            points = [Point(math.log(e.price), _height(_divergence(e)), trials.round_of(e.candidate))
                      for e in evaluations]  # fmt: skip
            ahead = next_prices(points, _height(aim), _SLOPE, width, prices)
        else:
            ahead = first_prices(first_price, prices, width)
        new = [candidate for price in ahead if not trials.seen(candidate := Candidate(price, weights))]
        if not new:
            break
        trials.run(new)
    return _found(trials.evaluations(), limit, prices)


def _limit(drop: float | None, divergence: float | None) -> _Limit:
    value = drop if divergence is None else divergence
    if value is None or (drop is not None and divergence is not None):
        raise UsageError("limit of a search", expected="either a largest drop or a largest divergence")
    if not 0 < value < math.inf:
        raise UsageError("limit of a search", expected="above 0 and finite", found=value,
                         advice="The scheme 'lossless' loses nothing.")  # fmt: skip
    return _Limit(drop, divergence)


def _divergence(evaluation: Evaluation) -> float:
    divergence = evaluation.outcome.divergence
    if divergence is None:
        raise UsageError("the divergence of a candidate was not measured", advice="Give data: --calibration DATA.")
    return divergence


def _measured(evaluation: Evaluation) -> Measured:
    outcome = evaluation.outcome
    if outcome.drop is None or outcome.drop_error is None:
        raise UsageError("the drop of a candidate was not measured",
                         advice="It takes data with classes; --max-divergence does without.")  # fmt: skip
    return Measured(_divergence(evaluation), outcome.drop, outcome.drop_error)


def _height(divergence: float) -> float:
    return math.log(min(max(divergence, _LEAST), _MOST))


def _state(evaluations: tuple[Evaluation, ...], limit: _Limit) -> tuple[float, list[Evaluation]]:
    """The divergence to come near to, and the evaluations that keep the limit, by rising divergence.

    Above the best that keeps it, a candidate whose own drop is too large lowers what to come near to.
    """
    allowed = limit.allowed(evaluations)
    ordered = sorted(evaluations, key=_divergence)
    kept = [e for e in ordered if limit.keeps(e, allowed)]
    best = _divergence(kept[-1]) if kept else -1.0
    refused = [_divergence(e) for e in ordered if best < _divergence(e) <= allowed]
    return min([allowed, *refused]), kept


def _found(evaluations: tuple[Evaluation, ...], limit: _Limit, prices: tuple[float, float]) -> Found:
    ceiling, kept = _state(evaluations, limit)
    tried = "1 evaluation" if len(evaluations) == 1 else f"{len(evaluations)} evaluations"
    if not kept:
        least = min(evaluations, key=_divergence)
        lost = "" if least.outcome.drop is None else f"{least.outcome.drop:.2f} points and "
        nearest = f"the nearest, at price {least.price:g}, loses {lost}{_divergence(least):.3g} nats"
        return Found(None, False, evaluations, f"none of {tried} keeps {limit}: {nearest}")
    chosen = min(kept, key=lambda e: e.size)
    curve = limit.curve(evaluations)
    found = Found(chosen, True, evaluations, bound=None if curve is None else curve.bound(_divergence(chosen)))
    at_the_end = abs(math.log(evaluations[-1].price / prices[1])) < SAME and evaluations[-1] in kept
    if at_the_end or _divergence(kept[-1]) >= _NEAR * ceiling:
        return found
    reason = f"{tried} came no nearer to {limit}: a smaller file may keep it"
    return replace(found, met=False, reason=reason)
