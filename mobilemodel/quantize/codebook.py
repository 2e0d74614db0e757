"""Float tensor -> one table and codes: its own values, or the optimal table for its histogram on the float16 grid."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from mobilemodel.encodings.matrix import entropy_bits
from mobilemodel.encodings.packing import Codes
from mobilemodel.quantize.histogram import Histogram, assign, histogram
from mobilemodel.quantize.kmeans import optimal_partition
from mobilemodel.quantize.pieces import pieces

Array = npt.NDArray[Any]
Table = npt.NDArray[np.float16] | npt.NDArray[np.float32]
_LARGEST = float(np.finfo(np.float32).max)
HALF_ROUNDING = 1e-3
"""share of the squared error that storing the table in float16 may add; past it the table is float32"""


@dataclass(frozen=True)
class Codebook:
    """A table of float16 or float32 entries, ascending, and the code of each weight in the weights' shape."""

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


def _fit(bins: Histogram, entries: int) -> tuple[Table, npt.NDArray[np.int64]]:
    partition = optimal_partition(bins.values, bins.weights, entries)
    sizes = np.diff(np.append(partition.starts, bins.values.size))
    # A bin of the histogram may lie above the largest float32, which it was rounded from.
    centroids = np.clip(partition.centroids, -_LARGEST, _LARGEST)
    with np.errstate(over="ignore"):
        half = centroids.astype(np.float16)
    mass = np.add.reduceat(bins.weights, partition.starts)
    added = float(np.dot(mass, (centroids - half.astype(np.float64)) ** 2)) if np.isfinite(half).all() else np.inf
    table = half if added <= HALF_ROUNDING * partition.cost else centroids.astype(np.float32)
    return table, np.repeat(np.arange(len(sizes)), sizes)


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
