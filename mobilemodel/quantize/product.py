"""Product codebooks: a weight's rows are cut into sub-vectors, each named by a code of a table (spec/tensors.md §5).

Tables and codes are chosen for the least error of the layer's response to its inputs, as Wu, Leng, Wang, Hu and Cheng
did ("Quantized Convolutional Neural Networks for Mobile Devices", CVPR 2016), not of its weights. docs/qcnn.md has
the method and what it reaches.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from mobilemodel.encodings.matrix import entropy_bits
from mobilemodel.quantize.product_parts import Bytes, Float32, Float64, Ints, Parts, Shape, cut, shape_of
from mobilemodel.quantize.product_passes import Progress, in_turn, refit, sweep, upper_factor
from mobilemodel.quantize.product_tables import learn_table
from mobilemodel.quantize.rate import code_lengths
from mobilemodel.quantize.response import Response
from mobilemodel.v1 import bundle_pb2 as pb

Table = npt.NDArray[np.float16] | npt.NDArray[np.float32]

SWEEPS = 8
"""at most"""
WORTH_SWEEPING = 5e-3
"""share of the error below which a sweep's gain ends the work"""
HALF_ROUNDING = 1e-3
"""share of the error that tables in float16 may add; past it they are float32"""
_SAMPLE = 1 << 16
"""sub-vectors that a table is learned from"""
_POOLED_PASSES = 2


@dataclass(frozen=True, eq=False)
class Product:
    """Codes and tables of a weight, and what they cost.

    Attributes:
        codes: uint8 (rows, codes_per_row).
        tables: float16 or float32 (tables, entries, vector); the most frequent entries come first.
        decoded: float32 (rows, columns), as every reader computes it.
        counts: int64 (entries,), how often each code occurs.
        segment: columns of a segment; 0: the whole row.
        error: the response error, of the tables as they are stored.
        history: response error (with a price: error + price x bits) after the first choice and each sweep, of tables
            in float32; descending.
    """

    codes: Bytes
    tables: Table
    decoded: Float32
    counts: Ints
    segment: int
    error: float
    history: tuple[float, ...]

    @property
    def tables_by(self) -> pb.Grouping:
        """Which sub-vectors share a table: those at the same place of their segments, or all."""
        return pb.Grouping() if len(self.tables) == 1 else pb.Grouping(col_group=1)

    @property
    def size(self) -> float:
        """Bytes of the tables, and of the codes at their entropy."""
        return float(self.tables.nbytes + self.codes.size * entropy_bits(self.counts) / 8)


def quantize_product(
    response: Response, *, vector: int, entries: int, segment: int, seed: int, price: float = 0.0, shared: bool = False
) -> Product:
    """Codes and tables with the least response error (+ ``price`` x bits of the codes at their entropy).

    Sub-vectors of ``vector`` columns begin anew at each multiple of ``segment`` (0: the row; a convolution's inputs
    of one group, so that sub-vectors lie along them at each kernel position). Each place in a segment has a table of
    ``entries`` centroids, or all share one. A sub-vector longer than a segment is cut to it, and there are never more
    entries than sub-vectors that use a table. ``seed`` chooses what a table is learned from where more than 65,536
    sub-vectors share it.

    Raises UsageError for sizes that do not fit or values that are not finite, LimitExceededError for tables beyond
    the format.

    >>> weights = np.float32([[1, 2, 3, 4], [1, 2, 5, 6], [7, 8, 3, 4]])
    >>> response = Response(weights, np.eye(4, dtype=np.float32)[None], np.ones(3))
    >>> made = quantize_product(response, vector=2, entries=2, segment=0, seed=0)
    >>> made.codes.tolist(), made.error
    ([[0, 0], [0, 1], [1, 0]], 0.0)
    """
    rows, columns = response.target.shape
    parts = cut(response, shape_of(rows, columns, vector, entries, segment, shared))
    progress, history = _minimised(parts, response.target, seed, price / parts.unit)
    return _finished(parts, response.target, progress, segment, tuple(parts.unit * value for value in history))


def _minimised(parts: Parts, weights: Float32, seed: int, price: float) -> tuple[Progress, list[float]]:
    """Sweep until it is no longer worth it; the objective after each step."""
    progress = _first_choice(parts, weights, seed, price)
    history = [_objective(progress, price)]
    refitting = not parts.alone
    for _ in range(SWEEPS):
        before = replace(progress, codes=progress.codes.copy(), tables=progress.tables.copy())
        sweep(parts, progress, _tolls(progress, price))
        if refitting:
            refitting = refit(parts, progress) > WORTH_SWEEPING
        progress = _sorted(parts, progress)
        found = _objective(progress, price)
        if not found < history[-1]:
            # Nothing but rounding was left; what is apart went on, and nobody looks at it any more.
            return before, history
        history.append(found)
        if found > (1 - WORTH_SWEEPING) * history[-2]:
            break
    return progress, history


def _first_choice(parts: Parts, weights: Float32, seed: int, price: float) -> Progress:
    """Codes in turn. A table of a single sub-vector is learned in its turn, on what earlier ones have passed on; one of
    several is learned from the weights, and refitted to the codes that it led to."""
    factor, target = upper_factor(parts.moments), parts.target(weights)
    if parts.alone:
        return _sorted(parts, in_turn(parts, target, factor))
    tables, tolls = _pooled_tables(parts, target, factor, seed), None
    for _ in range(_POOLED_PASSES):
        progress = in_turn(parts, parts.target(weights), factor, tables, tolls)
        refit(parts, progress)
        progress = _sorted(parts, progress)
        tables, tolls = progress.tables, _tolls(progress, price)
    return progress


def _pooled_tables(parts: Parts, target: Float32, factor: Float32, seed: int) -> Float32:
    """A table for all sub-vectors that share it, learned in the mean of their metrics."""
    shape, generator = parts.shape, np.random.default_rng(seed)
    tables = np.empty((shape.tables, shape.entries, shape.vector), np.float32)
    vectors = target.reshape(*target.shape[:2], -1, shape.vector)
    for table in range(shape.tables):
        turns = np.flatnonzero(parts.table_of == table)
        columns = [parts.columns_of(turn, turn + 1) for turn in turns.tolist()]
        roots = np.stack([factor[:, own, own] for own in columns], axis=1)
        metrics = (roots @ roots.transpose(0, 1, 3, 2)).astype(np.float64)
        root = np.linalg.cholesky(metrics.mean(axis=(0, 1)))
        points = vectors[:, :, turns].reshape(-1, shape.vector) @ root.astype(np.float32)
        power = np.einsum("gtdd->gt", metrics)
        weights = (parts.weights[:, :, None] * power[:, None, :]).reshape(-1)
        if len(points) > _SAMPLE:
            chosen = generator.choice(len(points), _SAMPLE, replace=False)
            points, weights = points[chosen], weights[chosen]
        tables[table] = np.linalg.solve(root.T, learn_table(points, weights, shape.entries).T).T
    return tables


def _counts(progress: Progress) -> Ints:
    """How often each code occurs, whatever its table."""
    return np.bincount(progress.codes.reshape(-1), minlength=progress.tables.shape[1])


def _objective(progress: Progress, price: float) -> float:
    bits = progress.codes.size * entropy_bits(_counts(progress)) if price else 0.0
    return progress.error + price * bits


def _tolls(progress: Progress, price: float) -> Float64 | None:
    """What each code costs, by how often it occurs."""
    return price * code_lengths(_counts(progress)) if price else None


def _sorted(parts: Parts, progress: Progress) -> Progress:
    """Tables with their most frequent entries first, so that codes follow one skew law whatever their table."""
    count, entries = progress.tables.shape[:2]
    index = progress.codes + parts.table_of * entries
    often = np.bincount(index.reshape(-1), minlength=count * entries).reshape(count, entries)
    order = np.argsort(-often, axis=1, kind="stable")
    rank = np.argsort(order, axis=1).astype(np.uint8)
    tables = np.take_along_axis(progress.tables, order[:, :, None], axis=1)
    return replace(progress, tables=tables, codes=rank.reshape(-1)[index])


def _finished(parts: Parts, weights: Float32, progress: Progress, segment: int, history: tuple[float, ...]) -> Product:
    """The tables in the type that they are stored in, without entries that nothing uses, and rows as they were."""
    largest = float(np.finfo(np.float32).max)
    counts = np.trim_zeros(_counts(progress), "b")
    wide = progress.tables[:, : len(counts)] * np.float64(parts.scale)
    tables: Table = np.clip(wide, -largest, largest).astype(np.float32)
    target, error = parts.target(weights), progress.error
    with np.errstate(over="ignore"):
        half = tables.astype(np.float16)
    if np.isfinite(half).all():
        rounded = half.astype(np.float32) / np.float32(parts.scale)
        found = parts.error(target - parts.decoded(rounded, progress.codes))
        if found <= (1 + HALF_ROUNDING) * error:
            tables, error = half, found
    shape = parts.shape
    codes = np.empty((shape.rows, shape.codes_per_row), np.uint8)
    codes[:, parts.order] = progress.codes.reshape(shape.rows, -1)
    return Product(codes, tables, _decoded(codes, tables, shape), counts, segment, parts.unit * error, history)


def _decoded(codes: Bytes, tables: Table, shape: Shape) -> Float32:
    """Rows and columns as spec/tensors.md §5.2 has them."""
    values = tables.astype(np.float32)[shape.table_of, codes]
    segments = values.reshape(shape.rows, shape.segments, -1)[:, :, : shape.segment]
    return np.ascontiguousarray(segments).reshape(shape.rows, shape.columns)
