"""A layer's quadratic cut into sub-vectors, and what a choice of tables and codes leaves of it.

Rows of a grouped convolution meet other inputs than those of the next group, so that arrays here have a first axis of
groups. A short last sub-vector of a segment (spec/tensors.md §3.2) is filled up with inputs that are always 0,
whatever its table has there.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from mobilemodel.errors import LimitExceededError, UsageError
from mobilemodel.layout import ceil_div
from mobilemodel.quantize.response import Response

Float32 = npt.NDArray[np.float32]
Float64 = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]
Bytes = npt.NDArray[np.uint8]

MOST_ENTRIES = 256
"""a code is a byte"""
MOST_VECTOR = 256
MOST_TABLE_VALUES = 1 << 24
"""of all tables of a tensor (spec/tensors.md §5.1)"""
_BLOCK = 128
"""columns whose products with all others are taken at once"""


@dataclass(frozen=True)
class Shape:
    """How rows and columns become sub-vectors and tables, with the letters of spec/tensors.md §3.2."""

    rows: int
    columns: int
    vector: int
    """d"""
    segment: int
    """L"""
    entries: int
    """E"""
    shared: bool
    """one table for all sub-vectors, instead of one for each place in a segment"""

    @property
    def segments(self) -> int:
        return self.columns // self.segment

    @property
    def subvectors(self) -> int:
        """S: sub-vectors of a segment."""
        return ceil_div(self.segment, self.vector)

    @property
    def codes_per_row(self) -> int:
        """N."""
        return self.segments * self.subvectors

    @property
    def tables(self) -> int:
        """T."""
        return 1 if self.shared else self.subvectors

    @property
    def padded(self) -> int:
        """Columns, with short sub-vectors filled up."""
        return self.codes_per_row * self.vector

    @property
    def table_of(self) -> Ints:
        """The table of each code of a row."""
        return np.zeros(self.codes_per_row, np.int64) if self.shared else np.arange(self.codes_per_row) % self.tables

    def padded_columns(self) -> Ints:
        """Where each column stands once short sub-vectors are filled up."""
        segment, place = np.divmod(np.arange(self.columns), self.segment)
        return np.asarray(segment * self.subvectors * self.vector + place)


def shape_of(rows: int, columns: int, vector: int, entries: int, segment: int, shared: bool) -> Shape:
    """The shape that fits: sub-vectors no longer than a segment, no more entries than sub-vectors that use a table.

    Raises UsageError for numbers out of range, LimitExceededError for more table values than the format holds.
    """
    length = segment or columns
    if rows < 1 or columns < 1:
        raise UsageError("product codebooks of a weight without values", found=f"{rows} x {columns}")
    if length < 0 or columns % length:
        raise UsageError("segment of product codebooks", expected=f"a divisor of {columns} columns", found=segment)
    if not 1 <= vector <= MOST_VECTOR:
        raise UsageError("sub-vector of product codebooks", expected=f"1 to {MOST_VECTOR} values", found=vector)
    if not 1 <= entries <= MOST_ENTRIES:
        raise UsageError("entries of product codebooks", expected=f"1 to {MOST_ENTRIES}", found=entries)
    vector = min(vector, length)
    users = rows * (columns // length) * (ceil_div(length, vector) if shared else 1)
    shape = Shape(rows, columns, vector, length, min(entries, users), shared)
    values = shape.tables * shape.entries * vector
    if values > MOST_TABLE_VALUES:
        raise LimitExceededError("values of product codebooks", expected=f"at most {MOST_TABLE_VALUES}", found=values,
                                 advice="Take fewer entries, or one shared table.")  # fmt: skip
    return shape


@dataclass(frozen=True)
class Parts:
    """The quadratic of a layer, its sub-vectors in falling order of their inputs' power.

    GPTQ calls that order act-order: what is quantized first can still be made good by most others.

    Attributes:
        moments: float32 (groups, padded columns, padded columns), their mean diagonal between 1 and 2.
        weights: float64 (groups, rows of a group), their mean between 1 and 2.
        order: int64 (codes_per_row,), the place in a row of the sub-vector that comes at each turn.
        scale: what the target was divided by, a power of two.
        unit: error in the caller's units of one in these.
    """

    shape: Shape
    moments: Float32
    weights: Float64
    order: Ints
    scale: float
    unit: float

    @property
    def alone(self) -> bool:
        """Whether each table serves one sub-vector of rows that meet the same inputs: its best entries are means."""
        return len(self.moments) == 1 and self.shape.tables == self.shape.codes_per_row

    @property
    def table_of(self) -> Ints:
        """The table of the sub-vector at each turn."""
        return self.shape.table_of[self.order]

    def columns_of(self, first: int, last: int) -> slice:
        """The columns of the turns from ``first`` to before ``last``."""
        return slice(first * self.shape.vector, last * self.shape.vector)

    def blocks(self) -> Iterator[tuple[int, int]]:
        """Turns in runs of about 128 columns: the first, and one past the last."""
        step = max(1, _BLOCK // self.shape.vector)
        for first in range(0, len(self.order), step):
            yield first, min(first + step, len(self.order))

    def metric(self, turn: int) -> Float32:
        """The moments within a sub-vector, (groups, d, d)."""
        own = self.columns_of(turn, turn + 1)
        return self.moments[:, own, own]

    def target(self, weights: Float32) -> Float32:
        """Rows of weights, scaled and in the order of turns: (groups, rows of a group, padded columns)."""
        turned = np.zeros((self.shape.rows, self.shape.padded), np.float32)
        turned[:, _places(self.shape, self.order)] = weights / np.float32(self.scale)
        return turned.reshape(len(self.moments), -1, self.shape.padded)

    def decoded(self, tables: Float32, codes: Bytes) -> Float32:
        """What codes in the order of turns stand for, laid out as ``target``."""
        index = codes + self.table_of * tables.shape[1]
        return np.asarray(tables.reshape(-1, self.shape.vector)[index].reshape(*codes.shape[:2], -1))

    def error(self, apart: Float32) -> float:
        """The response error of target - decoded."""
        total = 0.0
        for first, last in self.blocks():
            block = self.columns_of(first, last)
            through = apart @ self.moments[:, :, block]
            total += float(np.einsum("grc,grc,gr->", through, apart[:, :, block], self.weights))
        return max(total, 0.0)


def cut(response: Response, shape: Shape) -> Parts:
    """Cut a response into sub-vectors.

    Raises UsageError where it holds values that are not finite, or inputs or rows without power.
    """
    power = _checked_power(response, shape)
    weights = response.row_weights.reshape(len(power), -1)
    scale = _power_of_two(float(np.abs(response.target).max()))
    by_moment, by_row = _power_of_two(float(power.mean())), _power_of_two(float(weights.mean()))
    strength = np.zeros(shape.padded)
    strength[shape.padded_columns()] = power.sum(axis=0)
    order = np.argsort(-strength.reshape(-1, shape.vector).sum(axis=1), kind="stable")
    places = _places(shape, order)
    moments = np.zeros((len(power), shape.padded, shape.padded), np.float32)
    for turned, given in zip(moments, response.moments, strict=True):
        turned[np.ix_(places, places)] = given
    moments /= np.float32(by_moment)
    return Parts(shape, moments, weights / by_row, order, scale, scale * scale * by_moment * by_row)


def _checked_power(response: Response, shape: Shape) -> Float64:
    """Power of each input, (groups, columns)."""
    moments, weights = response.moments, response.row_weights
    groups, rows, columns = len(moments), shape.rows, shape.columns
    if moments.shape != (groups, columns, columns) or weights.shape != (rows,) or groups < 1 or rows % groups:
        raise UsageError("moments and row weights do not fit the weights", expected=f"{rows} x {columns}",
                         found=f"{list(moments.shape)} and {list(weights.shape)}")  # fmt: skip
    power = np.einsum("gcc->gc", moments).astype(np.float64)
    for what, values in (("weights", response.target), ("moments of the inputs", power), ("row weights", weights)):
        if not np.isfinite(values).all():
            raise UsageError(f"{what} hold values that are not finite")
    if power.min() < 0 or weights.min() < 0 or not power.mean() > 0 or not weights.mean() > 0:
        raise UsageError("inputs or rows without power", expected="positive moments and row weights",
                         advice="Damp the moments.")  # fmt: skip
    return np.asarray(power)


def _places(shape: Shape, order: Ints) -> Ints:
    """Where each column of the weights stands in the order of turns."""
    subvector, element = np.divmod(shape.padded_columns(), shape.vector)
    return np.asarray(np.argsort(order)[subvector] * shape.vector + element)


def _power_of_two(value: float) -> float:
    """The power of two at or below a value: dividing by it changes no digit."""
    return math.ldexp(1.0, min(max(math.frexp(value)[1] - 1, -126), 126)) if value > 0 else 1.0
