"""Codes of product codebooks: one pass with error feedback, then sweeps that improve one sub-vector at a time.

With H = V V^T, V upper triangular, a row's response error e H e^T is the sum of squares of e V, whose parts depend on
the sub-vectors up to their own. Choosing them in turn, each with the least square given those before, is GPTQ (arXiv
2210.17323; of vectors: GPTVQ, arXiv 2402.15319) written without an inverse. It leaves the later sub-vectors free; the
sweeps then choose each given all others, which lowers the error at every step.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from mobilemodel.quantize.product_parts import Bytes, Float32, Float64, Ints, Parts
from mobilemodel.quantize.product_tables import learn_table, refit_tables

_RIDGE = 1e-6
"""share of a metric's trace that keeps steps finite where inputs never vary"""
_FACTOR_BLOCK = 256


@dataclass
class Progress:
    """Tables and codes so far, and what is left of the error; passes change it in place.

    Attributes:
        tables: float32 (tables, entries, d).
        codes: uint8 (groups, rows of a group, codes_per_row), in the order of turns.
        apart: float32 (groups, rows of a group, padded columns), target - decoded.
        error: the response error.
    """

    tables: Float32
    codes: Bytes
    apart: Float32
    error: float


def upper_factor(moments: Float32) -> Float32:
    """Upper triangular V (groups, n, n) with V V^T = moments, which are damped until they have one."""
    damping = 0.0
    while True:
        try:
            return _upper_factor(moments, damping)
        except np.linalg.LinAlgError:
            damping = 10 * damping or 1e-6


def _upper_factor(moments: Float32, damping: float) -> Float32:
    """Cholesky's method from the last columns to the first, in place: beside 9216 inputs memory is what counts."""
    factor = np.zeros_like(moments)
    size = moments.shape[1]
    for stop in range(size, 0, -_FACTOR_BLOCK):
        block = slice(max(0, stop - _FACTOR_BLOCK), stop)
        above = factor[:, :stop, stop:]
        factor[:, :stop, block] = moments[:, :stop, block] - above @ factor[:, block, stop:].transpose(0, 2, 1)
        corner = factor[:, block, block].astype(np.float64) + damping * np.eye(stop - block.start)
        root = np.linalg.cholesky(corner[:, ::-1, ::-1])[:, ::-1, ::-1]
        factor[:, block, block] = root
        inverse = np.linalg.inv(root).transpose(0, 2, 1).astype(np.float32)
        factor[:, : block.start, block] = factor[:, : block.start, block] @ inverse
    return factor


def in_turn(
    parts: Parts, target: Float32, factor: Float32, tables: Float32 | None = None, tolls: Float64 | None = None
) -> Progress:
    """Choose each code given those before it; without ``tables``, learn each sub-vector's table when its turn comes.

    ``target`` is used up. ``tolls``, (entries,), is what each code costs beside a row's error.
    """
    tolled = _for_rows(parts, tolls)
    shape, apart = parts.shape, target
    codes = np.zeros((*target.shape[:2], shape.codes_per_row), np.uint8)
    made = np.zeros((shape.tables, shape.entries, shape.vector), np.float32) if tables is None else tables
    for first, last in parts.blocks():
        block = parts.columns_of(first, last)
        passed_on = apart[:, :, : block.start] @ factor[:, : block.start, block]
        for turn, table in zip(range(first, last), parts.table_of[first:last], strict=True):
            own, inner = parts.columns_of(turn, turn + 1), parts.columns_of(turn - first, turn - first + 1)
            root = factor[:, own, own]
            points = apart[:, :, own] @ root + passed_on[:, :, inner]
            if tables is None:
                found = learn_table(points[0], parts.weights[0], shape.entries)
                made[table] = np.linalg.solve(root[0].T.astype(np.float64), found.T).T
            across = root.transpose(0, 2, 1)
            codes[:, :, turn] = nearest = _cheapest(points @ across, root @ across, made[table], tolled)
            apart[:, :, own] -= made[table][nearest]
            passed_on[:, :, inner.stop :] += apart[:, :, own] @ factor[:, own, own.stop : block.stop]
    return Progress(made, codes, apart, parts.error(apart))


def sweep(parts: Parts, progress: Progress, tolls: Float64 | None = None) -> None:
    """Choose each code again given all others; a table of a single sub-vector then moves to its rows' means.

    ``tolls``, (entries,), is what each code costs beside a row's error.
    """
    tables, codes, apart = progress.tables, progress.codes, progress.apart
    tolled = _for_rows(parts, tolls)
    for first, last in parts.blocks():
        block = parts.columns_of(first, last)
        pull = apart @ parts.moments[:, :, block]
        for turn, table in zip(range(first, last), parts.table_of[first:last], strict=True):
            own, inner = parts.columns_of(turn, turn + 1), parts.columns_of(turn - first, turn - first + 1)
            metric, before = parts.metric(turn), tables[table][codes[:, :, turn]]
            aims = before @ metric + pull[:, :, inner]
            codes[:, :, turn] = nearest = _cheapest(aims, metric, tables[table], tolled)
            if parts.alone:
                tables[table] = _moved(tables[table], aims[0], metric[0], parts.weights[0], nearest[0])
            change = before - tables[table][nearest]
            slope = 2 * pull[:, :, inner] + change @ metric
            progress.error += float(np.einsum("grd,grd,gr->", change, slope, parts.weights))
            apart[:, :, own] += change
            pull[:, :, inner.stop :] += change @ parts.moments[:, own, own.stop : block.stop]


def refit(parts: Parts, progress: Progress) -> float:
    """Refit the tables to the codes; returns the share of the error that it took away."""
    tables = refit_tables(parts, progress.tables, progress.codes, progress.apart)
    apart = progress.apart + parts.decoded(progress.tables - tables, progress.codes)
    error = parts.error(apart)
    # The steps lower the error in exact arithmetic; near its least value rounding has the last word.
    if not error < progress.error:
        return 0.0
    gain = 1 - error / progress.error
    progress.tables, progress.apart, progress.error = tables, apart, error
    return gain


def _for_rows(parts: Parts, tolls: Float64 | None) -> Float32 | None:
    """Tolls in the unit of ``_cheapest``, half a row's unweighted error: (groups, rows of a group, entries)."""
    if tolls is None:
        return None
    return np.asarray(0.5 * tolls / np.maximum(parts.weights, 1e-9)[:, :, None], np.float32)


def _cheapest(aims: Float32, metrics: Float32, table: Float32, tolled: Float32 | None = None) -> Ints:
    """The entry c of the least c M c / 2 - aim c, and toll, for each row: (groups, rows of a group).

    An aim is the wanted value times M, so that this is the error up to what no choice changes.
    """
    # Differences between entries keep their digits where all lie far from 0.
    middle = table.mean(axis=0)
    centred = table - middle
    scores = (aims - (middle @ metrics)[:, None, :]) @ -centred.T
    scores += 0.5 * np.einsum("kd,gde,ke->gk", centred, metrics, centred)[:, None, :]
    if tolled is not None:
        scores += tolled
    return np.asarray(scores.argmin(axis=2))


def _moved(table: Float32, aims: Float32, metric: Float32, weights: Float64, nearest: Ints) -> Float32:
    """The table with each entry at the best value for its rows: their weighted mean."""
    share = np.bincount(nearest, weights, len(table))
    used = share > 0
    sums = np.stack([np.bincount(nearest, weights * aim, len(table)) for aim in aims.T], axis=1)
    wide = metric.astype(np.float64)
    ridge = _RIDGE * max(float(wide.trace()), 1e-30) * np.eye(len(wide))
    lacking = sums[used] / share[used, None] - table[used] @ wide
    moved = table.copy()
    moved[used] += np.linalg.solve(wide + ridge, lacking.T).T.astype(np.float32)
    return moved
