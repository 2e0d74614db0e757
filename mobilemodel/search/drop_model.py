"""How many points of top-1 a divergence costs: a curve through all that a search has measured, and its upper bound.

Top-1 of a few thousand pictures is noisy, the divergence of the outputs is not, and the two go together: noise of
variance v in the outputs moves as many pictures across a class boundary in one direction as in the other but for a
difference in proportion to v, and for small v the divergence is in proportion to v as well. So

    drop = a * divergence^b, a >= 0, b near 1

is fitted to all evaluations, and the divergence that a limit allows is where the upper end of the fit's one-sided 95 %
interval meets the limit. The bound of a single candidate would be sound too, but with 2048 pictures it is 0.5 points
above a drop of nothing: hardly any candidate would pass (docs/search.md has the figures).

The interval is that of the profile likelihood: every (a, b) whose chi squared is within 1.645^2 of the least. The
pictures are the same for all evaluations, hence their errors go together: n evaluations are not taken to know n times
as much, their errors are scaled by the root of 1 + (n - 1) * 0.5. Where the fit is worse than its errors allow, they
are scaled to its misfit (Birge 1932, Phys. Rev. 40:207-227).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import NormalDist

_EXPONENTS = tuple(0.5 + 0.05 * step for step in range(31))
"""b: 0.5 where every moved picture is lost, 2 at a cliff"""
_SPREAD = 0.2
"""standard deviation of b around 1; two trained networks gave 0.95 (docs/search.md)"""
_CORRELATION = 0.5
"""of the errors of two evaluations"""
SIDE = NormalDist().inv_cdf(0.95)
"""standard errors of a one-sided 95 % interval"""


@dataclass(frozen=True)
class Measured:
    """One evaluation: points of top-1 lost, their standard error, and the divergence."""

    divergence: float
    drop: float
    error: float


@dataclass(frozen=True)
class DropCurve:
    """For each exponent b that is plausible, the largest plausible a; and the likeliest (a, b)."""

    largest: tuple[tuple[float, float], ...]
    likeliest: tuple[float, float]

    def expected(self, divergence: float) -> float:
        """Points lost at a divergence."""
        a, b = self.likeliest
        return float(a * divergence**b)

    def bound(self, divergence: float) -> float:
        """Points lost at most, with 95 % confidence."""
        return float(max(a * divergence**b for a, b in self.largest))

    def divergence_within(self, drop: float) -> float:
        """The largest divergence whose bound is within ``drop`` > 0; infinite where nothing was lost."""
        return float(min((drop / a) ** (1 / b) if a > 0 else math.inf for a, b in self.largest))


def fit(measured: Sequence[Measured]) -> DropCurve:
    """Fit the curve to at least one evaluation; divergences are finite, errors above 0.

    >>> curve = fit([Measured(d, 40 * d, 0.3) for d in (0.01, 0.04, 0.1)])
    >>> round(curve.expected(0.02), 2), curve.bound(0.02) > 0.8
    (0.8, True)
    """
    scale = 1 + (len(measured) - 1) * _CORRELATION
    fits = [_fit(b, measured, scale) for b in _EXPONENTS]
    least = min(fits, key=lambda found: found.misfit)
    freedom = len(measured) - 2
    misfit = max(1.0, least.misfit / freedom) if freedom > 0 else 1.0
    limit = least.misfit + SIDE**2 * misfit
    largest = tuple((found.upper(limit), found.b) for found in fits if found.misfit <= limit)
    return DropCurve(largest, (least.a, least.b))


@dataclass(frozen=True)
class _Fit:
    """Chi squared as a function of a for one b: ``misfit`` at its least, rising by ``curvature * (a - centre)^2``."""

    b: float
    a: float
    misfit: float
    centre: float
    lowest: float
    curvature: float

    def upper(self, limit: float) -> float:
        """The largest a whose chi squared is within the limit."""
        if self.curvature <= 0:
            return 0.0
        return self.centre + math.sqrt(max(0.0, limit - self.lowest) / self.curvature)


def _fit(b: float, measured: Sequence[Measured], scale: float) -> _Fit:
    weights = [1 / (one.error**2 * scale) for one in measured]
    powers = [one.divergence**b for one in measured]
    curvature = sum(w * p * p for w, p in zip(weights, powers, strict=True))
    cross = sum(w * p * one.drop for w, p, one in zip(weights, powers, measured, strict=True))
    centre = cross / curvature if curvature > 0 else 0.0
    a = max(0.0, centre)
    prior = ((b - 1) / _SPREAD) ** 2
    lowest = prior + sum(w * (one.drop - centre * p) ** 2 for w, p, one in zip(weights, powers, measured, strict=True))
    return _Fit(b, a, lowest + curvature * (a - centre) ** 2, centre, lowest, curvature)
