"""Levels of a table that trade error against coded bits: entropy-constrained scalar quantization on a histogram.

Once codes are entropy coded, a small number of levels saves nothing: many, almost evenly spaced levels with the least
``error + price x bits`` win (Gish and Pierce 1968: even steps are optimal at high rates). Lloyd's two steps with the
code lengths in the decision rule find them (Chou, Lookabaugh and Gray 1989, "Entropy-constrained vector
quantization"): a weight goes to the level with the least squared error + price x code length, then levels move to
their centroids. In one dimension cells are intervals, and the levels that own any are those on the lower convex hull
of (level, level^2 + price x length). Sums over cells are differences of running sums over the histogram, so that a
round costs as little as there are levels.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from mobilemodel.encodings.matrix import entropy_bits
from mobilemodel.quantize.histogram import Histogram
from mobilemodel.quantize.rate import LARGEST_PACKED, LARGEST_SPLIT, code_lengths, coded_bits, coder_lengths

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]

ENTRY_BITS = 16.0
MOST_LEVELS = 1 << 16
CAPS = (2, 3, 5, 17, 256)
"""numbers of levels up to which codes are narrower: 1, 2 and 4 bits with and without a background, and 8"""
_ROUNDS = 60
_STEPS = (1.0, 1.25, 1.6)
"""first steps to try, in units of the one that is right at high rates"""
_CLUSTERED = 1.02
_KEPT_NOISE = 0.998
"""share of the noise that may be spent: rounding the table takes the rest"""
_ZERO_SHIFT = 1e-3
"""share of the error that an exact zero in place of its cell's centroid may add"""


@dataclass(frozen=True)
class Levels:
    """A table and the cells of a histogram that its levels stand for.

    Attributes:
        table: float64 (k,), ascending, in the unit of the weights.
        starts: int64 (k,), first bin of each cell.
        counts: float64 (k,), weights in each cell.
        error: sum of squared errors.
        bits: predicted bits of the coded stream and the table.
    """

    table: Floats
    starts: Ints
    counts: Floats
    error: float
    bits: float

    @property
    def entropy(self) -> float:
        """Bits a weight."""
        return entropy_bits(self.counts)

    def cost(self, price: float) -> float:
        """What is to be small: error + price x bits."""
        return self.error + price * self.bits


class _Sums:
    """Running sums of a histogram, in float64: squares of float32 values do not overflow."""

    def __init__(self, bins: Histogram) -> None:
        self.values = bins.values
        self.counts = _running(bins.weights)
        self.first = _running(bins.weights * bins.values)
        self.second = _running(bins.weights * bins.values**2)

    def cells(self, starts: Ints) -> tuple[Floats, Floats, Floats]:
        """Counts, sums and sums of squares of the cells."""
        edges = np.append(starts, self.values.size)
        return np.diff(self.counts[edges]), np.diff(self.first[edges]), np.diff(self.second[edges])


def _running(values: Floats) -> Floats:
    return np.concatenate(([0.0], np.cumsum(values)))


def high_rate_step(price: float) -> float:
    """The even step that is optimal for a price in squared weights a bit, where cells are narrow.

    A cell of width s has the error s^2 / 12 and its weights the length h - log2 s: the sum's derivative vanishes
    where s^2 = 6 price / ln 2.
    """
    return math.sqrt(6.0 * price / math.log(2.0))


def even_starts(bins: Histogram, step: float) -> Ints:
    """First bin of each occupied cell of an even grid that has a level at 0."""
    cells = np.rint(bins.values / max(step, np.ptp(bins.values) / (1 << 30), np.finfo(np.float64).tiny))
    return np.flatnonzero(np.concatenate(([True], cells[1:] != cells[:-1])))


def rate_distortion_levels(bins: Histogram, price: float) -> Levels:
    """The levels with the least error + price x bits that were found, from several even grids.

    ``price`` is in squared weights a bit. The histogram must have a bin. A tensor of few values is clustered already:
    it keeps them where that is within 2 % of the best, so that what was quantized is not quantized again.
    """
    sums = _Sums(bins)
    found = [_refined(sums, even_starts(bins, factor * high_rate_step(price)), price) for factor in _STEPS]
    best = min(found, key=lambda levels: levels.cost(price))
    for cap in CAPS:
        if cap < best.table.size <= 4 * cap:
            narrow = _refined(sums, _without_tails(best, cap), price)
            best = min(best, narrow, key=lambda levels: levels.cost(price))
    own = _exact(sums) if bins.values.size <= LARGEST_SPLIT else best
    return own if own.cost(price) <= _CLUSTERED * best.cost(price) else best


def levels_at(bins: Histogram, sqnr: float) -> Levels:
    """The levels of fewest bits whose signal to noise ratio on the weights is at least ``sqnr`` dB, as predicted."""
    sums = _Sums(bins)
    noise = _KEPT_NOISE * float(sums.second[-1]) / 10 ** (sqnr / 10) - rounding_noise(bins)
    if noise <= 0:
        return _exact(sums)
    low, high = 1e-3, 1e3
    unit = noise / float(sums.counts[-1])
    best = None
    for _ in range(24):
        middle = math.sqrt(low * high)
        levels = _refined(sums, even_starts(bins, high_rate_step(middle * unit)), middle * unit)
        if levels.error <= noise:
            low, best = middle, levels
        else:
            high = middle
    return best or _exact(sums)


def rounding_noise(bins: Histogram) -> float:
    """Squared error of the histogram's own grid, as predicted for weights spread evenly within its bins."""
    scaled = np.abs(np.ldexp(bins.values, -bins.exponent))
    spacing = np.ldexp(np.spacing(scaled.astype(np.float16)).astype(np.float64), bins.exponent)
    return float(np.dot(bins.weights, spacing**2) / 12)


def _exact(sums: _Sums) -> Levels:
    return _measured(sums, np.arange(min(sums.values.size, MOST_LEVELS)))


def _without_tails(levels: Levels, cap: int) -> Ints:
    """Starts of the ``cap`` neighbouring cells with the most weights; the tails go to the outermost of them."""
    sums = np.convolve(levels.counts, np.ones(cap), "valid")
    first = int(sums.argmax())
    starts = levels.starts[first : first + cap].copy()
    starts[0] = 0
    return starts


def _refined(sums: _Sums, starts: Ints, price: float) -> Levels:
    """Chou's iteration from given cells: with ideal lengths, which change smoothly, then with the coder's own."""
    ideal = _measured(sums, _iterated(sums, starts, price, code_lengths))
    if not LARGEST_PACKED < ideal.table.size <= LARGEST_SPLIT:
        return ideal
    coded = _measured(sums, _iterated(sums, ideal.starts, price, coder_lengths))
    return min(coded, ideal, key=lambda levels: levels.cost(price))


def _iterated(sums: _Sums, starts: Ints, price: float, lengths_of: Callable[[Floats, float], Floats]) -> Ints:
    """First bins of the cells when another round no longer gains."""
    least = math.inf
    best = starts
    for _ in range(_ROUNDS):
        counts, first, second = sums.cells(starts)
        table = first / counts
        lengths = lengths_of(counts, ENTRY_BITS)
        cost = float((second - first * table).sum() + price * np.dot(counts, lengths))
        if cost < least:
            best = starts
        if cost >= least * (1 - 1e-6):
            break
        least = cost
        starts = _decided(sums.values, table, lengths, price)
    return best


def _decided(values: Floats, table: Floats, lengths: Floats, price: float) -> Ints:
    """First bin of each cell under the rule of least error + price x length; levels that own no bin are left out."""
    heights = table**2 + price * lengths
    kept = _lower_hull(table, heights)
    table, heights = table[kept], heights[kept]
    thresholds = np.diff(heights) / (2 * np.diff(table))
    starts = np.concatenate(([0], np.searchsorted(values, thresholds, "right")))
    occupied = np.diff(np.append(starts, values.size)) > 0
    return np.asarray(starts[occupied], np.int64)


def _lower_hull(x: Floats, y: Floats) -> Ints:
    """Indices of the points on the lower convex hull; x ascending."""
    kept = np.arange(x.size)
    while kept.size > 2:
        slopes = np.diff(y[kept]) / np.diff(x[kept])
        above = np.concatenate(([False], slopes[1:] <= slopes[:-1], [False]))
        if not above.any():
            break
        # Of neighbours above the hull only each second is certain to go.
        runs = np.cumsum(~above)
        place = np.arange(kept.size) - np.searchsorted(runs, runs)
        kept = kept[~(above & (place % 2 == 1))]
    return kept


def _measured(sums: _Sums, starts: Ints) -> Levels:
    counts, first, second = sums.cells(starts)
    table = first / counts
    error = np.maximum(second - first * table, 0.0)
    # The cell around zero, where there is one: an exact zero is worth more to readers than the centroid.
    zero = int(np.searchsorted(sums.values[starts], 0.0, "right")) - 1
    if zero >= 0 and sums.values[np.append(starts, sums.values.size)[zero + 1] - 1] >= 0:
        added = counts[zero] * table[zero] ** 2
        if added <= _ZERO_SHIFT * error.sum():
            table[zero] = 0.0
            error[zero] += added
    bits = coded_bits(counts) + ENTRY_BITS * counts.size
    return Levels(table, starts, counts, float(error.sum()), bits)
