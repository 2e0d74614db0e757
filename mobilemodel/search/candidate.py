"""What a search tries, what a trial tells, and what is found."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from mobilemodel.errors import UsageError


@dataclass(frozen=True)
class Candidate:
    """A price of a bit for all tensors, and factors on it for some of them by name.

    Raises UsageError for a price or a factor that is not above 0 and finite.

    >>> Candidate(0.5, {"fc6.weight": 2.0}).price_of("fc6.weight")
    1.0
    """

    price: float
    layer_weights: Mapping[str, float] = field(default_factory=dict, hash=False)

    def __post_init__(self) -> None:
        for name, value in (("", self.price), *self.layer_weights.items()):
            if not 0 < value < math.inf:
                what = "factor on the price" if name else "price"
                raise UsageError(what, tensor=name or None, expected="above 0 and finite", found=value)

    def price_of(self, tensor: str) -> float:
        """The price for one tensor."""
        return self.price * self.layer_weights.get(tensor, 1.0)


@dataclass(frozen=True)
class Outcome:
    """What a candidate gives. None: not measured, for want of data or of labels.

    Raises UsageError for numbers that cannot be, NaN among them.
    """

    size: int
    """bytes of the whole file"""
    drop: float | None = None
    """points of top-1 lost on held-out pictures; below 0 where the candidate is better"""
    drop_error: float | None = None
    """standard error of ``drop``, a paired difference: of ``paired_drop``"""
    divergence: float | None = None
    """mean KL(float || candidate) of the outputs on held-out pictures, nats; may be infinite"""
    tensor_bytes: Mapping[str, int] = field(default_factory=dict, hash=False)
    """stored bytes of each tensor that has a price"""

    def __post_init__(self) -> None:
        if self.size < 1:
            raise UsageError("size of a candidate", expected="at least 1 byte", found=self.size)
        if self.drop is not None and not math.isfinite(self.drop):
            raise UsageError("drop of a candidate", expected="a finite number of points", found=self.drop)
        if self.drop_error is not None and not 0 < self.drop_error < math.inf:
            raise UsageError("standard error of a drop", expected="above 0 and finite", found=self.drop_error)
        if self.divergence is not None and not self.divergence >= 0:
            raise UsageError("divergence of a candidate", expected="at least 0 nats", found=self.divergence)


Evaluate = Callable[[Candidate], Outcome]
"""Makes and measures a candidate: the same one has the same outcome, wherever and whenever it runs.

For processes and machines it must be picklable: a frozen dataclass with ``__call__``, no closure."""


@dataclass(frozen=True)
class Evaluation:
    """A candidate and what it gave."""

    candidate: Candidate
    outcome: Outcome

    @property
    def price(self) -> float:
        return self.candidate.price

    @property
    def size(self) -> int:
        return self.outcome.size


@dataclass(frozen=True)
class Found:
    """What a search found, and all that it saw on the way."""

    chosen: Evaluation | None
    """the best candidate that keeps the limit; None: no candidate keeps it"""
    met: bool
    """the aim is reached: for a size, at most 1 % below the target; for a quality, as small as the limit allows"""
    evaluations: tuple[Evaluation, ...]
    """everything that was evaluated, by rising price"""
    reason: str = ""
    """why the aim is not reached, one sentence without a full stop; empty where it is"""
    bound: float | None = None
    """points of top-1 that ``chosen`` loses at most on other pictures, with 95 % confidence; of a search for a drop"""


def paired_drop(lost: int, gained: int, count: int) -> tuple[float, float]:
    """Points of top-1 lost, and their standard error, of two models on the same ``count`` pictures.

    ``lost`` pictures only the first gets right, ``gained`` only the second. The error is that of Bonett and Price
    2012, J. Educ. Behav. Stat. 37:479-488, which adds a picture to either count, so that it is never 0.

    Raises UsageError where the counts do not fit each other.

    >>> [round(number, 2) for number in paired_drop(40, 30, 2048)]
    [0.49, 0.41]
    """
    if min(lost, gained) < 0 or count < max(1, lost + gained):
        raise UsageError("pictures lost and gained", expected="at least 0, together at most all",
                         found=f"{lost} and {gained} of {count}")  # fmt: skip
    first, second, total = (lost + 1) / (count + 2), (gained + 1) / (count + 2), count + 2
    error = math.sqrt((first + second - (first - second) ** 2) / total)
    return 100 * (lost - gained) / count, 100 * error
