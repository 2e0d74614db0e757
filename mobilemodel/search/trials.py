"""Trials: candidates are evaluated once each, a round at a time, and no more of them than a search may."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from concurrent.futures import BrokenExecutor, CancelledError, Executor

from mobilemodel.errors import CheckFailedError
from mobilemodel.search.candidate import Candidate, Evaluate, Evaluation, Outcome


class Trials:
    """All evaluations of a search. ``known`` ones, of an earlier search, cost nothing."""

    def __init__(
        self, evaluate: Evaluate, most: int, executor: Executor | None = None, known: Iterable[Evaluation] = ()
    ) -> None:
        self._evaluate = evaluate
        self._executor = executor
        self._cache: dict[Candidate, Outcome] = {}
        self._rounds: dict[Candidate, int] = {}
        self.left = most
        """how many candidates may still be evaluated"""
        self.round = 0
        for evaluation in known:
            self._keep(evaluation.candidate, evaluation.outcome)

    def run(self, candidates: Sequence[Candidate]) -> None:
        """Evaluate those that are new, side by side where there is an executor; as many as are left.

        The order in which they end changes nothing. Raises what the first that failed raised, CheckFailedError where
        its worker died.
        """
        self.round += 1
        new = [candidate for candidate in dict.fromkeys(candidates) if candidate not in self._cache][: self.left]
        self.left -= len(new)
        if self._executor is None:
            outcomes = [self._evaluate(candidate) for candidate in new]
        else:
            outcomes = _side_by_side(self._executor, self._evaluate, new)
        for candidate, outcome in zip(new, outcomes, strict=True):
            self._keep(candidate, outcome)

    def _keep(self, candidate: Candidate, outcome: Outcome) -> None:
        self._cache[candidate] = outcome
        self._rounds[candidate] = self.round

    def seen(self, candidate: Candidate) -> bool:
        return candidate in self._cache

    def evaluations(self) -> tuple[Evaluation, ...]:
        """By rising price; of one price in the order in which they were asked for."""
        found = [Evaluation(candidate, outcome) for candidate, outcome in self._cache.items()]
        return tuple(sorted(found, key=lambda evaluation: evaluation.price))

    def round_of(self, candidate: Candidate) -> int:
        """The round that a candidate was evaluated in, from 1 on; 0: it was known before."""
        return self._rounds[candidate]


def _side_by_side(executor: Executor, evaluate: Evaluate, candidates: Sequence[Candidate]) -> list[Outcome]:
    futures = [executor.submit(evaluate, candidate) for candidate in candidates]
    try:
        return [future.result() for future in futures]
    except (BrokenExecutor, CancelledError) as error:
        raise CheckFailedError("a worker ended before its candidate was evaluated", found=str(error) or None,
                               advice="It may have run out of memory: take fewer workers.") from None  # fmt: skip
    finally:
        for future in futures:
            future.cancel()
