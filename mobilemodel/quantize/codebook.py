"""Float tensor -> one table and codes: its own values, or a table for its histogram on the float16 grid.

Such a table has the least error for its number of entries, or the least error + price x bits.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from mobilemodel.encodings.matrix import entropy_bits
from mobilemodel.encodings.packing import Codes
from mobilemodel.quantize.grid import levels_at, rate_distortion_levels
from mobilemodel.quantize.histogram import Histogram, assign, histogram
from mobilemodel.quantize.kmeans import optimal_partition
from mobilemodel.quantize.pieces import pieces
from mobilemodel.quantize.rate import LARGEST_SPLIT, by_frequency
from mobilemodel.quantize.rules import Rule

Array = npt.NDArray[Any]
Table = npt.NDArray[np.float16] | npt.NDArray[np.float32]
_LARGEST = float(np.finfo(np.float32).max)
_FURTHEST = 8.0
HALF_ROUNDING = 1e-3
"""share of the squared error that storing the table in float16 may add; past it the table is float32"""


@dataclass(frozen=True)
class Codebook:
    """A table of float16 or float32 entries and the code of each weight in the weights' shape.

    Entries ascend, but for tables of more than 257 by price, which go by frequency.
    """

    table: Table
    codes: Codes
    counts: Array
    """how many weights have each code"""

    @property
    def size(self) -> float:
        """Bytes of the table, and of the codes at their entropy."""
        return _size(self.table, self.counts)

    def decoded(self, dtype: np.dtype[Any]) -> Iterator[Array]:
        """The decoded values in pieces, flat and in C order, as every reader computes them."""
        values = self.table.astype(np.float32).astype(dtype)
        for codes in pieces(self.codes):
            yield values[codes]


def _size(table: Table, counts: Array) -> float:
    return float(table.nbytes + counts.sum() * entropy_bits(counts) / 8)


def exact_codebook(weights: Array, entries: int) -> Codebook | None:
    """A codebook that reproduces a float32 or float16 tensor bit for bit; None if it has more distinct values.

    Values are told apart by their bits: -0.0 is an entry of its own.
    """
    unsigned = np.dtype(f"<u{weights.dtype.itemsize}")
    bits = np.ascontiguousarray(weights).view(unsigned).reshape(-1)
    distinct = np.unique(bits[:4096])
    for piece in pieces(bits[4096:]):
        if len(distinct) > entries:
            return None
        known = distinct[np.minimum(np.searchsorted(distinct, piece), len(distinct) - 1)] == piece
        if not known.all():
            distinct = np.union1d(distinct, piece[~known])
    if len(distinct) > entries or not len(distinct):
        return None
    values = distinct.view(weights.dtype).astype(np.float32)
    if not np.isfinite(values).all():
        return None
    with np.errstate(over="ignore"):
        half = values.astype(np.float16)
    table = half if np.array_equal(half.astype(np.float32).view(np.uint32), values.view(np.uint32)) else values
    codes: Codes = np.empty(bits.size, np.uint8) if len(distinct) <= 256 else np.empty(bits.size, np.uint16)
    counts = np.zeros(len(distinct), np.int64)
    position = 0
    for piece in pieces(bits):
        found = np.searchsorted(distinct, piece)
        codes[position : position + piece.size] = found
        counts += np.bincount(found, minlength=counts.size)
        position += piece.size
    return Codebook(table, codes.reshape(weights.shape), counts)


def optimal_codebook(weights: npt.NDArray[np.float32], entries: int) -> Codebook:
    """The codebook of at most ``entries`` values with the least squared error over the weights' histogram.

    Raises ValueError for weights that are not finite.
    """
    bins = histogram(weights)
    table, code_of_bin = _fit(bins, entries)
    return Codebook(table, assign(weights, bins, code_of_bin), np.bincount(code_of_bin, bins.weights))


def priced_codebook(weights: npt.NDArray[np.float32], rule: Rule) -> Codebook:
    """The codebook with the least error + price x bits, of as many values as that takes.

    With the rule's ``sqnr`` instead, the price is the highest one at which the signal to noise ratio is at least so
    many dB. Raises ValueError for weights that are not finite.
    """
    bins = histogram(weights)
    levels = levels_at(bins, rule.sqnr) if rule.sqnr else rate_distortion_levels(bins, bit_price(bins, rule))
    values = _stored_table(levels.table, levels.counts, levels.error)
    codes = np.arange(values.size) if values.size <= LARGEST_SPLIT else by_frequency(levels.counts)
    table, counts = np.empty_like(values), np.empty(values.size, np.int64)
    table[codes], counts[codes] = values, levels.counts
    sizes = np.diff(np.append(levels.starts, bins.values.size))
    return Codebook(table, assign(weights, bins, np.repeat(codes, sizes)), counts)


def bit_price(bins: Histogram, rule: Rule) -> float:
    """Squared error that a bit of these weights is worth under the rule's price.

    If noise of every layer counted relative to the layer's signal, this would be the price x share x mean square. Half
    of the way to the network's typical signal, hence one of the two roots of the mean square, was the better price on
    networks of both kinds; it stays within a factor, because scales of layers may be arbitrary (normalisation).
    """
    rms = math.sqrt(float(np.dot(bins.weights, bins.values**2) / bins.weights.sum()))
    typical = min(max(rule.typical_rms, rms / _FURTHEST), rms * _FURTHEST) if rule.typical_rms else rms
    return rule.price * rule.share * rms * typical


def _fit(bins: Histogram, entries: int) -> tuple[Table, npt.NDArray[np.int64]]:
    partition = optimal_partition(bins.values, bins.weights, entries)
    sizes = np.diff(np.append(partition.starts, bins.values.size))
    mass = np.add.reduceat(bins.weights, partition.starts)
    table = _stored_table(partition.centroids, mass, partition.cost)
    return table, np.repeat(np.arange(len(sizes)), sizes)


def _stored_table(centroids: npt.NDArray[np.float64], mass: npt.NDArray[np.float64], error: float) -> Table:
    """The centroids of cells with these weights as float16, or as float32 where rounding would add to the error."""
    # A bin of the histogram may lie above the largest float32, which it was rounded from.
    bounded = np.clip(centroids, -_LARGEST, _LARGEST)
    with np.errstate(over="ignore"):
        half = bounded.astype(np.float16)
    added = float(np.dot(mass, (bounded - half.astype(np.float64)) ** 2)) if np.isfinite(half).all() else np.inf
    return half if added <= HALF_ROUNDING * error else bounded.astype(np.float32)


def predicted_size(weights: Array, entries: int) -> float:
    """Bytes that a palette of a float32 or float16 tensor will take: its table, and its codes at their entropy.

    The tensor's own size where a palette would be no smaller.
    """
    codebook = exact_codebook(weights, entries)
    if codebook is not None:
        return min(codebook.size, weights.nbytes)
    bins = histogram(weights.astype(np.float32, copy=False))
    table, code_of_bin = _fit(bins, entries)
    return min(_size(table, np.bincount(code_of_bin, bins.weights)), weights.nbytes)
