"""Two classifiers on the same pictures: is one better, and by how much? Statistics of paired proportions.

Only the pictures that one of them alone gets right count: ``lost`` (the first alone) and ``gained`` (the second alone).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np
import numpy.typing as npt

from mobilemodel.errors import UsageError

Flags = npt.NDArray[np.bool_]
_HALVINGS = 60
"""of an interval of length 2: below the rounding of float64"""


@dataclass(frozen=True)
class PairedDifference:
    """The top-1 of a model minus that of the first, on the same pictures."""

    points: float
    """per cent of the pictures, above 0 where the model is better"""
    low: float
    """lower end of the 95 % interval, in points"""
    high: float
    p_value: float
    """of McNemar's exact test, two-sided: small where chance does not explain the difference"""
    lost: int
    """pictures that the first alone gets right"""
    gained: int
    """pictures that the model alone gets right"""


def paired_difference(first: Flags, model: Flags) -> PairedDifference:
    """Compare which pictures two models get right, each a bool for every picture, at least one."""
    lost, gained = int((first & ~model).sum()), int((model & ~first).sum())
    low, high = paired_interval(lost, gained, len(first))
    return PairedDifference(100 * (gained - lost) / len(first), low, high, mcnemar(lost, gained), lost, gained)


def mcnemar(lost: int, gained: int) -> float:
    """The exact two-sided p value of McNemar's test: of ``lost + gained`` fair coins, how likely is a split as uneven.

    Source: McNemar 1947, Psychometrika 12:153-157, in its exact (binomial) form.

    >>> round(mcnemar(5, 0), 6), mcnemar(3, 3), mcnemar(0, 0)
    (0.0625, 1.0, 1.0)
    """
    coins, fewer = lost + gained, min(lost, gained)
    if fewer < 0:
        raise UsageError("discordant pictures", expected="at least 0", found=fewer)
    # log C(coins, k) from C(coins, k) / C(coins, k - 1) = (coins - k + 1) / k.
    k = np.arange(1, fewer + 1)
    logs = np.concatenate([[0.0], np.cumsum(np.log((coins - k + 1) / k))]) - coins * math.log(2)
    return min(1.0, 2.0 * float(np.exp(logs).sum()))


def paired_interval(lost: int, gained: int, count: int, confidence: float = 0.95) -> tuple[float, float]:
    """Tango's score interval of the difference ``100 (gained - lost) / count``, in points.

    It keeps its confidence for few discordant pairs, and has a width where there are none. Source: Tango 1998,
    Statistics in Medicine 17:891-908; recommended by Fagerland, Lydersen and Laake 2014, same journal, 33:2850-2875.

    Raises UsageError where the counts do not fit each other.

    >>> [round(limit, 1) for limit in paired_interval(7, 1, 21)]
    [-51.7, -2.6]
    """
    if min(lost, gained) < 0 or count < max(1, lost + gained) or not 0 < confidence < 1:
        raise UsageError("paired interval", expected="lost + gained of at most count pictures, 0 < confidence < 1",
                         found=f"{lost}, {gained}, {count}, {confidence}")  # fmt: skip
    z = NormalDist().inv_cdf((1 + confidence) / 2)
    return 100 * _lower_limit(lost, gained, count, z), -100 * _lower_limit(gained, lost, count, z)


def _lower_limit(lost: int, gained: int, count: int, z: float) -> float:
    """The smallest difference that the score test does not refuse; the test's statistic falls as it grows."""
    low, high = -1.0, (gained - lost) / count
    for _ in range(_HALVINGS):
        middle = (low + high) / 2
        refused = gained - lost - count * middle > z * _deviation(lost, gained, count, middle)
        low, high = (middle, high) if refused else (low, middle)
    return low


def _deviation(lost: int, gained: int, count: int, difference: float) -> float:
    """Standard deviation of ``gained - lost`` where the true difference is this, ``lost`` at its likeliest share."""
    b = (2 * count - gained + lost) * difference - gained - lost
    c = -lost * difference * (1 - difference)
    share = (math.sqrt(max(0.0, b * b - 8 * count * c)) - b) / (4 * count)
    return math.sqrt(max(0.0, count * (2 * share + difference * (1 - difference))))
