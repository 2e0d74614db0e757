"""Rounding that minimises a layer's response error + price x bits: column by column with error feedback, then descent.

Column by column as the optimal brain surgeon does it (GPTQ, arXiv 2210.17323; with a rate term, arXiv 2505.18758): the
error of a column is passed on to the columns that are still free. What that greedy pass leaves, coordinate descent
takes: each weight in turn is set to its best level given all others, until little is gained.

Levels are multiples of a step for each row, steps as the inverse root of the row's weight: an error then costs the
same in every row. One price for all layers is the allocation: equal slopes.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from mobilemodel.errors import CheckFailedError
from mobilemodel.quantize.response import Float32, Float64, Response

Levels = npt.NDArray[np.int32]
TABLE_ROWS = 256
"""rows for which levels have the same lengths, about what shares a table in zstd: where units are ordered, quiet rows
stand together and their zeros cost next to nothing"""
BLOCK = 128
"""columns that are settled before the others hear of them"""
STEP_SHARE = 0.7
"""steps, as a share of what high-rate theory gives at a price: finer steps with wider zeros won at 0.3 to 1 bit"""
SWEEPS = 3
PASSES = 2
MOST_LEVELS = 32_767
_STEPS_PER_OCTAVE = 8
_UNITS = (-100, 100)
"""exponents of two that a layer's unit of steps may have: float32 then holds every step and every level"""


@dataclass(frozen=True)
class Rounded:
    """Levels (rows, columns) in units of each row's step."""

    levels: Levels
    steps: Float32
    """(rows,), each a float16 times one power of two"""

    @property
    def weights(self) -> Float32:
        return np.asarray(self.levels.astype(np.float32) * self.steps[:, None])


@dataclass(frozen=True)
class Lengths:
    """Bits of each level, by tables for some rows each: a coder has a table for each block of its stream."""

    bits: Float32
    """all tables, one behind the other"""
    zeros: npt.NDArray[np.int32]
    """(rows,), where the length of level 0 stands for each row"""
    most: int
    """levels go from -most to most"""

    def of(self, levels: Float32) -> Float32:
        """Bits of levels (..., rows)."""
        return np.asarray(self.bits[levels.astype(np.int32) + self.zeros])

    def part(self, rows: slice) -> Lengths:
        """Those of some rows."""
        return replace(self, zeros=self.zeros[rows])


def priced_rounding(response: Response, price: float, *, share: float = STEP_SHARE, sweeps: int = SWEEPS) -> Rounded:
    """Round a layer's target for the least response error + ``price`` x bits of its entropy-coded levels.

    The price is in units of the response error (row weights included) for a bit.
    """
    factors = [_feedback_order(moments) for moments in response.moments]
    steps = _row_steps(response, factors, price, share)
    most = _largest_level(response, steps)
    levels = np.clip(np.rint(response.target / steps[:, None]), -most, most).astype(np.int32)
    for _ in range(PASSES):
        lengths = row_lengths(levels, most)
        for group, (order, factor) in enumerate(factors):
            rows = response.group(group)
            levels[rows] = _round_columns(response, rows, steps, order, factor, lengths.part(rows), price)
    for _ in range(sweeps):
        lengths = row_lengths(levels, most)
        for group, (order, _) in enumerate(factors):
            rows = response.group(group)
            levels[rows] = _descend(response, group, levels[rows], steps[rows], order, lengths.part(rows), price)
    return Rounded(levels, steps)


def row_lengths(levels: Levels, most: int) -> Lengths:
    """A table of lengths for every TABLE_ROWS rows, by the levels in them."""
    starts = range(0, max(len(levels), 1), TABLE_ROWS)
    tables = [level_lengths(levels[start : start + TABLE_ROWS], most) for start in starts]
    zeros = np.arange(len(levels)) // TABLE_ROWS * (2 * most + 1) + most
    return Lengths(np.concatenate(tables), zeros.astype(np.int32), most)


def level_lengths(levels: Levels, most: int) -> Float32:
    """Bits that each level from -most to most costs, by how often it occurs; one that does not occur costs as if half
    of one did."""
    counts = np.bincount((levels + most).reshape(-1), minlength=2 * most + 1) + 0.5
    return np.asarray(-np.log2(counts / counts.sum()), np.float32)


def _feedback_order(moments: Float32) -> tuple[npt.NDArray[np.int64], Float32]:
    """Columns by falling power, and the upper factor T of their inverse moments: H^-1 = T^T T in that order."""
    from scipy.linalg import LinAlgError, cholesky
    from scipy.linalg.lapack import dtrtri

    order = np.argsort(-np.diag(moments), kind="stable")
    # With H = U U^T, U upper, the inverse is U^-T U^-1: U is the lower factor of H in reverse order.
    reverse = order[::-1]
    try:
        lower = cholesky(moments[np.ix_(reverse, reverse)].astype(np.float64), lower=True, check_finite=False)
    except LinAlgError:
        raise CheckFailedError("a layer's moments are not positive definite", advice="Raise the damping.") from None
    upper = np.asfortranarray(lower[::-1, ::-1])
    inverse, _ = dtrtri(upper, lower=0, overwrite_c=1)
    return order, np.ascontiguousarray(inverse, np.float32)


def _row_steps(
    response: Response, factors: list[tuple[npt.NDArray[np.int64], Float32]], price: float, share: float
) -> Float32:
    """Steps by price: the error d s^2 / 12 of a level falls by 2 ln 2 of itself for a bit, at high rate."""
    steps = np.empty(len(response.target), np.float64)
    for group, (_, factor) in enumerate(factors):
        rows = response.group(group)
        worth = 1 / np.median(np.diag(factor).astype(np.float64) ** 2)
        steps[rows] = share * np.sqrt(6 * price / (np.log(2) * worth * response.row_weights[rows]))
    # A low price must not ask for more levels than there are: half of them leave room for what feedback adds.
    steps = np.maximum(steps, np.abs(response.target).max(axis=1, initial=0.0) / (MOST_LEVELS / 2))
    # A step's exact size matters little; a coarse grid of them compresses well.
    exponents = np.round(np.log2(steps) * _STEPS_PER_OCTAVE) / _STEPS_PER_OCTAVE
    unit = np.exp2(np.clip(np.floor(max(np.median(exponents), exponents.max() - 14)), *_UNITS))
    ratios = np.clip(np.exp2(exponents) / unit, 2.0**-13, 2.0**15).astype(np.float16)
    return np.asarray(ratios.astype(np.float64) * unit, np.float32)


def _largest_level(response: Response, steps: Float32) -> int:
    peak = float((np.abs(response.target) / steps[:, None]).max(initial=0.0))
    return int(min(max(np.ceil(1.25 * peak), 1), MOST_LEVELS))


def _single(worth: Float64) -> Float32:
    """As float32; where an error is worth more than any number of bits, it is enough to say so."""
    return np.minimum(worth, 1e30).astype(np.float32)


def _best_levels(wanted: Float32, worth: Float32, lengths: Lengths, *others: Float32) -> Float32:
    """The level of least worth x (wanted - level)^2 + bits among the nearest, its neighbour towards zero, zero, and
    ``others``."""
    nearest = np.clip(np.rint(wanted), -lengths.most, lengths.most)
    candidates = np.stack((nearest, nearest - np.sign(nearest), np.zeros_like(nearest), *others))
    costs = worth * np.square(wanted - candidates) + lengths.of(candidates)
    best: Float32 = np.take_along_axis(candidates, costs.argmin(axis=0)[None], axis=0)[0]
    return best


def _round_columns(
    response: Response, rows: slice, steps: Float32, order: npt.NDArray[np.int64], factor: Float32,
    lengths: Lengths, price: float,
) -> Levels:  # fmt: skip
    """One pass with error feedback over a group's columns; returns its levels."""
    step = steps[rows]
    # In units of steps, a column to each line: what is left to be represented.
    left = np.ascontiguousarray((response.target[rows] / step[:, None]).T[order])
    worth = response.row_weights[rows] * step.astype(np.float64) ** 2 / price
    levels = np.empty_like(left)
    columns = len(left)
    for start in range(0, columns, BLOCK):
        end = min(start + BLOCK, columns)
        errors = np.empty((end - start, left.shape[1]), np.float32)
        for column in range(start, end):
            scale = factor[column, column]
            levels[column] = _best_levels(left[column], _single(worth / float(scale) ** 2), lengths)
            error = (left[column] - levels[column]) / scale
            errors[column - start] = error
            left[column + 1 : end] -= factor[column, column + 1 : end, None] * error
        left[end:] -= factor[start:end, end:].T @ errors
    out = np.empty((left.shape[1], columns), np.int32)
    out[:, order] = levels.T
    return out


def _descend(
    response: Response, group: int, levels: Levels, steps: Float32, order: npt.NDArray[np.int64], lengths: Lengths,
    price: float,
) -> Levels:  # fmt: skip
    """One sweep of coordinate descent over a group's columns, by blocks; returns the better levels."""
    rows = response.group(group)
    moments = response.moments[group][np.ix_(order, order)]
    wanted = np.ascontiguousarray((response.target[rows] / steps[:, None]).T[order])
    current = np.ascontiguousarray(levels.T[order].astype(np.float32))
    apart = wanted - current
    pull = moments @ apart
    worth = response.row_weights[rows] * steps.astype(np.float64) ** 2 / price
    for start in range(0, len(wanted), BLOCK):
        block = slice(start, min(start + BLOCK, len(wanted)))
        inner, here = moments[block, block], pull[block].copy()
        before = apart[block].copy()
        for column in range(len(inner)):
            power, place = inner[column, column], start + column
            best = wanted[place] - apart[place] + here[column] / power
            current[place] = _best_levels(best, _single(worth * float(power)), lengths, current[place])
            change = wanted[place] - current[place] - apart[place]
            if change.any():
                apart[place] += change
                here += inner[:, column, None] * change
        pull += moments[:, block] @ (apart[block] - before)
    out = np.empty(levels.shape, np.int32)
    out[:, order] = current.T.astype(np.int32)
    return out
