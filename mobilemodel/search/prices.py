"""Which prices to try next: root finding on a noisy, nearly monotone curve, from as few points as can be.

A point is (log price, height); heights rise with the price but for small jumps. Between two points on either side of
the aim the next is interpolated, through three points where there are three (inverse quadratic, as in Brent 1973,
Algorithms for Minimization without Derivatives, ch. 4), else linearly; an end that stays for several rounds loses half
of its weight for each (the Illinois rule; Dowell and Jarratt 1971, BIT 11:168-174), and an interval that does not
shrink is bisected. Beyond all points it is extrapolated. Nothing here is random: the same points give the same prices.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

from mobilemodel.errors import UsageError

PRICES = (1e-15, 1e3)
"""the lowest and the highest price that is tried"""
SAME = 1e-3
"""log price: two prices that are no further apart are one; what differs between them is a jump"""
_DIGITS = 6
"""of a price, so that plans stay readable; a step in the last one changes a size by less than 1e-5 of it"""
_FLAT, _STEEP = 0.05, 3.0
"""slopes: less is a plateau, more is not believed"""
_SHORT = 0.05
"""log price: two points nearer than this tell jumps, not a slope"""
_FARTHEST = 5.0
"""log price of an extrapolation"""
_LEAP = 8.0
"""how much farther than so far to look for the end of a plateau"""
_PATIENCE = 3
"""rounds after which an interval is bisected, unless it is half as wide as before them"""
_WIDE = 1.0
"""log price: an interval wider than this is cut by a tenth at least"""


@dataclass(frozen=True)
class Point:
    """What was measured at a price, and in which round."""

    x: float
    """log price"""
    y: float
    """height"""
    round: int = 0


def check_prices(first: float, prices: tuple[float, float], width: int, most: int) -> None:
    """Raise UsageError for numbers that no search can start from."""
    lowest, highest = prices
    if not 0 < lowest <= first <= highest < math.inf:
        raise UsageError("first price", expected=f"{lowest:g} to {highest:g}, above 0 and finite", found=first)
    if width < 1:
        raise UsageError("candidates side by side", expected="at least 1", found=width)
    if most < 1:
        raise UsageError("number of evaluations", expected="at least 1", found=most)


def first_prices(first: float, prices: tuple[float, float], width: int) -> list[float]:
    """A round around a guess, each twice the price of the next lower one."""
    return _around(math.log(first), math.log(2), width, prices, upwards=True)


def next_prices(
    points: Sequence[Point], aim: float, slope: float, width: int, prices: tuple[float, float] = PRICES
) -> list[float]:
    """The prices of the next round, the best guess first; none where no other price can help.

    ``slope`` is what the heights are expected to rise by, for log price rising by 1. Points need no order.
    """
    pair = crossing(points, aim)
    if pair is None:
        return _beyond(points, aim, slope, width, prices)
    low, high = pair
    if high.x - low.x < SAME:
        return []
    x = _between(points, low, high, aim)
    room = min(x - low.x, high.x - x)
    spacing = min(0.15, 0.9 / (width // 2 + 1)) * room
    return _around(x, spacing, width, prices, upwards=high.x - x > x - low.x)


def crossing(points: Sequence[Point], aim: float) -> tuple[Point, Point] | None:
    """The two neighbours between which the heights first reach ``aim`` as the price rises."""
    ordered = sorted(points, key=lambda point: point.x)
    for low, high in pairwise(ordered):
        if low.y < aim <= high.y:
            return low, high
    return None


def _between(points: Sequence[Point], low: Point, high: Point, aim: float) -> float:
    latest = max(point.round for point in points)
    stale = [max(0, latest - end.round - 1) for end in (low, high)]
    below, above = aim - low.y, max(high.y - aim, 1e-12)
    x = None if any(stale) else _through_three(points, low, high, aim)
    if x is None:
        below, above = below * 0.5 ** stale[0], above * 0.5 ** stale[1]
        x = low.x + (high.x - low.x) * below / (below + above)
    before = crossing([point for point in points if point.round <= latest - _PATIENCE], aim)
    if before is not None and high.x - low.x > (before[1].x - before[0].x) / 2:
        return (low.x + high.x) / 2
    margin = (0.1 if high.x - low.x > _WIDE else 0.01) * (high.x - low.x)
    return min(max(x, low.x + margin), high.x - margin)


def _through_three(points: Sequence[Point], low: Point, high: Point, aim: float) -> float | None:
    """Inverse quadratic interpolation; None without a third point, or where it leaves the interval."""
    others = [point for point in points if point.y < low.y or point.y > high.y]
    if not others:
        return None
    middle = (low.x + high.x) / 2
    third = min(others, key=lambda point: abs(point.x - middle))
    x = 0.0
    three = (low, high, third)
    for point in three:
        share = 1.0
        for other in three:
            if other is not point:
                share *= (aim - other.y) / (point.y - other.y)
        x += share * point.x
    return x if low.x < x < high.x else None


def _beyond(points: Sequence[Point], aim: float, slope: float, width: int, prices: tuple[float, float]) -> list[float]:
    """Prices past the outermost point: above while all heights are too low, else below."""
    ordered = sorted(points, key=lambda point: point.x)
    upwards = ordered[0].y < aim
    edge, inner = (ordered[-1], ordered[-2:-1]) if upwards else (ordered[0], ordered[1:2])
    end = math.log(prices[1] if upwards else prices[0])
    if abs(end - edge.x) < SAME:
        return []
    step = _step(edge, inner[0] if inner else None, aim, slope)
    x = min(edge.x + step, end) if upwards else max(edge.x - step, end)
    return _around(x, 0.3 * step, width, prices, upwards=upwards)


def _step(edge: Point, inner: Point | None, aim: float, slope: float) -> float:
    distance = abs(aim - edge.y)
    run = 0.0 if inner is None else abs(edge.x - inner.x)
    if inner is not None and run >= _SHORT:
        slope = (edge.y - inner.y) / (edge.x - inner.x)
        if slope < _FLAT:
            return max(_LEAP * run, 1.0)
    return max(min(distance / min(slope, _STEEP), _FARTHEST), 2 * SAME)


def _around(x: float, spacing: float, width: int, prices: tuple[float, float], *, upwards: bool) -> list[float]:
    """``width`` prices: the best guess, then by turns on either side of it, the likelier one first."""
    found: dict[float, None] = {}
    for index in range(width):
        side = 1 if (index % 2 == 1) == upwards else -1
        price = float(f"{math.exp(x + side * spacing * ((index + 1) // 2)):.{_DIGITS}g}")
        found[min(max(price, prices[0]), prices[1])] = None
    return list(found)
