"""Factors on the price of single tensors, from what other prices were measured to change.

One price for all tensors is the best allocation where error is all that counts and each bit costs alike. Measured
effects tell where that is wrong: where a byte of one tensor buys more than a byte of another, at equal size.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass

from mobilemodel.errors import UsageError
from mobilemodel.search.candidate import Candidate, Evaluate, Evaluation, Found
from mobilemodel.search.prices import PRICES
from mobilemodel.search.size import search_size
from mobilemodel.search.trials import Trials

_FACTORS = (0.5, 2.0)


@dataclass(frozen=True)
class Effect:
    """What another price of one tensor changes while all others stay."""

    tensor: str
    factor: float
    """on the price of the tensor"""
    bytes: int
    """change of the file's size; below 0 where it shrinks"""
    divergence: float
    """change of the divergence, nats"""


def exchange_rate(effects: Iterable[Effect]) -> float:
    """Nats that a byte is worth over all tensors: what all effects change together."""
    finite = [effect for effect in effects if math.isfinite(effect.divergence)]
    total = sum(abs(effect.bytes) for effect in finite)
    return sum(math.copysign(effect.divergence, -effect.bytes * effect.divergence) for effect in finite) / max(total, 1)


def balance(effects: Sequence[Effect]) -> dict[str, float]:
    """Choose one factor, or none, for each tensor; empty where nothing helps.

    The price of all tensors is searched again afterwards, so bytes that a tensor takes or gives are worth what a byte
    is worth over all of them: each tensor takes the factor with the least divergence + rate x bytes. That is the
    Lagrangian of the choice at equal size (Everett 1963, Oper. Res. 11:399-417); effects are taken to add up.

    >>> balance([Effect("a", 0.5, 100, -0.04), Effect("a", 2.0, -80, 0.06), Effect("b", 2.0, -110, 0.01)])
    {'a': 0.5, 'b': 2.0}
    """
    rate = exchange_rate(effects)
    best: dict[str, tuple[float, float]] = {}
    for effect in effects:
        cost = effect.divergence + rate * effect.bytes
        if rate > 0 and cost < best.get(effect.tensor, (0.0, 1.0))[0]:
            best[effect.tensor] = cost, effect.factor
    return {tensor: factor for tensor, (_, factor) in best.items()}


def search_thoroughly(
    evaluate: Evaluate, start: Evaluation, target: int, tensors: Sequence[str], *, floor: float = 0.99,
    most_evaluations: int = 6, prices: tuple[float, float] = PRICES, executor: Executor | None = None,
) -> Found:  # fmt: skip
    """Look for factors on the prices of ``tensors`` that lower the divergence at the same size.

    Each tensor is evaluated at half and at twice its price, all of them in one round; ``balance`` chooses, and the
    size is searched again with at most ``most_evaluations`` more. Chosen is the better of ``start`` and that.

    Raises UsageError where the divergence is not measured, and what ``evaluate`` raises.
    """
    trials = Trials(evaluate, 2 * len(tensors), executor, [start])
    tried = {(tensor, factor): _changed(start.candidate, {tensor: factor}) for tensor in tensors for factor in _FACTORS}
    tried = {key: changed for key, changed in tried.items() if prices[0] <= changed.price_of(key[0]) <= prices[1]}
    trials.run(list(tried.values()))
    outcomes = {evaluation.candidate: evaluation for evaluation in trials.evaluations()}
    effects = [
        Effect(tensor, factor, found.size - start.size, _divergence(found) - _divergence(start))
        for (tensor, factor), candidate in tried.items()
        for found in (outcomes[candidate],)
    ]
    factors = balance(effects)
    if not factors:
        return Found(start, True, trials.evaluations())
    again = search_size(
        evaluate, target, first_price=start.price, floor=floor, most_evaluations=most_evaluations, prices=prices,
        layer_weights=_changed(start.candidate, factors).layer_weights, executor=executor,
    )  # fmt: skip
    better = again.chosen is not None and _divergence(again.chosen) < _divergence(start)
    return Found(again.chosen if better else start, again.met or not better, _both(trials, again))


def _changed(candidate: Candidate, factors: dict[str, float]) -> Candidate:
    weights = dict(candidate.layer_weights)
    for tensor, factor in factors.items():
        weights[tensor] = weights.get(tensor, 1.0) * factor
    return Candidate(candidate.price, weights)


def _both(trials: Trials, again: Found) -> tuple[Evaluation, ...]:
    return tuple(sorted((*trials.evaluations(), *again.evaluations), key=lambda evaluation: evaluation.price))


def _divergence(evaluation: Evaluation) -> float:
    if evaluation.outcome.divergence is None:
        raise UsageError("the divergence of a candidate was not measured", advice="Give data: --calibration DATA.")
    return evaluation.outcome.divergence
