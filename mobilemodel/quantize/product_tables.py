"""Tables of product codebooks: learned from points, and refitted to given codes.

Learning is vector quantization by splitting (Linde, Buzo and Gray 1980): it needs no random start. Refitting solves
the weighted least squares of all tables at once by conjugate gradients, because the places of a convolution that share
a table, and sub-vectors that share one, have responses that overlap.
"""

from __future__ import annotations

import numpy as np

from mobilemodel.quantize.product_parts import Bytes, Float32, Float64, Ints, Parts

_ROUNDS, _LAST_ROUNDS = 3, 8
"""k-means rounds after each split, and after the last one"""
_SHIFT = 0.7
"""of a cell's deviation along its widest axis, by which a split moves its halves; 0.8 is right for a Gaussian"""
_AT_ONCE = 1 << 19
"""distances that are computed at a time: 2 MiB stay in the cache"""
_FILLING = 8
"""times that entries without points are moved, at most"""
_REFIT_STEPS = 3
_USERS = 1024
"""sub-vectors for each entry that a refit looks at where there are more"""
_RIDGE = 1e-6
"""share of the mean curvature that keeps steps finite where inputs never vary and entries are unused"""


def learn_table(points: Float32, weights: Float64, entries: int) -> Float32:
    """Centroids (entries, d) of points (n, d) with the least weighted squared distance that splitting finds.

    Points of no more distinct values than entries are entries themselves. What is left over is 0.

    >>> learn_table(np.float32([[0, 1], [4, 1], [4, 3]]), np.ones(3), 2).tolist()
    [[0.0, 1.0], [4.0, 2.0]]
    """
    table = np.zeros((entries, points.shape[1]), np.float32)
    distinct = _few_distinct(points, entries)
    if distinct is None:
        weights = np.maximum(weights, weights.max() * 1e-9)
        # Distances keep their digits where points lie far from 0.
        middle = np.average(points, axis=0, weights=weights).astype(np.float32)
        distinct = _all_used(points - middle, weights, _split(points - middle, weights, entries), entries) + middle
    table[: len(distinct)] = distinct
    return table


def _few_distinct(points: Float32, entries: int) -> Float32 | None:
    """The distinct points where there are at most ``entries``, else None."""
    if len(np.unique(points[: 2 * entries], axis=0)) > entries:
        return None
    distinct = np.unique(points, axis=0)
    return distinct if len(distinct) <= entries else None


def _split(points: Float32, weights: Float64, entries: int) -> Float32:
    """Double the table by splitting the widest cells, with a few k-means rounds in between."""
    nearest = np.zeros(len(points), np.int64)
    table = np.zeros((1, points.shape[1]), np.float32)
    while len(table) < entries:
        spread = _sums(weights[:, None] * np.square(points - table[nearest]), nearest, len(table))
        widest = np.argsort(-spread.sum(axis=1), kind="stable")[: entries - len(table)]
        axis = spread[widest].argmax(axis=1)
        share = np.maximum(np.bincount(nearest, weights, len(table))[widest], weights.min())
        shift = np.zeros((widest.size, points.shape[1]), np.float32)
        shift[np.arange(widest.size), axis] = _SHIFT * np.sqrt(spread[widest, axis] / share)
        halves = table[widest] + shift
        table[widest] -= shift
        table = np.concatenate([table, halves])
        for _ in range(_ROUNDS if len(table) < entries else _LAST_ROUNDS):
            nearest = _nearest(points, table)
            table = _means(points, weights, nearest, table)
    return table


def _all_used(points: Float32, weights: Float64, table: Float32, entries: int) -> Float32:
    """Entries that are no point's nearest move to the points that are worst off."""
    for _ in range(_FILLING):
        nearest = _nearest(points, table)
        used = np.bincount(nearest, minlength=len(table)) > 0
        if used.sum() >= entries:
            break
        distance = weights * np.square(points - table[nearest]).sum(axis=1)
        worst = np.argsort(-distance, kind="stable")[: entries - int(used.sum())]
        table = np.concatenate([table[used], np.unique(points[worst], axis=0)])
        table = _means(points, weights, _nearest(points, table), table)
    return table


def _nearest(points: Float32, table: Float32) -> Ints:
    half = 0.5 * np.einsum("kd,kd->k", table, table)
    nearest = np.empty(len(points), np.int64)
    step = max(1, _AT_ONCE // len(table))
    for start in range(0, len(points), step):
        scores = points[start : start + step] @ -table.T
        scores += half
        scores.argmin(axis=1, out=nearest[start : start + step])
    return nearest


def _means(points: Float32, weights: Float64, nearest: Ints, table: Float32) -> Float32:
    """Weighted means of the cells; an empty one stays where it is."""
    share = np.bincount(nearest, weights, len(table))
    sums = _sums(weights[:, None] * points, nearest, len(table))
    means = sums / np.where(share > 0, share, 1.0)[:, None]
    return np.where(share[:, None] > 0, means, table).astype(np.float32)


def _sums(values: Float32 | Float64, cells: Ints, count: int) -> Float64:
    """Sums of the rows of values (n, d) in each cell: (count, d)."""
    return np.stack([np.bincount(cells, column, count) for column in np.ascontiguousarray(values.T)], axis=1)


def refit_tables(parts: Parts, tables: Float32, codes: Bytes, apart: Float32) -> Float32:
    """Tables nearer to those with the least response error for these codes: a few steps of conjugate gradients.

    ``apart`` is target - decoded. Of rows that are more than enough to tell the entries, evenly spread ones are taken.
    """
    every = max(1, codes.size // (_USERS * tables.shape[0] * tables.shape[1]))
    codes, apart, weights = codes[:, ::every], apart[:, ::every], parts.weights[:, ::every]
    index = (codes + parts.table_of * tables.shape[1]).reshape(-1)
    count, vector = tables.shape[0] * tables.shape[1], parts.shape.vector
    inverses = np.linalg.inv(_curvatures(parts, codes, weights, tables.shape[1])).reshape(count, vector, vector)

    def downhill(error: Float32) -> Float64:
        through = (error @ parts.moments) * weights[:, :, None].astype(np.float32)
        return _sums(through.reshape(-1, vector), index, count)

    residual = downhill(apart)
    direction = np.einsum("kd,kde->ke", residual, inverses)
    slope = float(np.vdot(residual, direction))
    change = np.zeros((count, vector))
    for _ in range(_REFIT_STEPS):
        if not slope > 0:
            break
        bent = downhill(parts.decoded(direction.astype(np.float32).reshape(tables.shape), codes))
        step = slope / float(np.vdot(direction, bent))
        change += step * direction
        residual -= step * bent
        steepest = np.einsum("kd,kde->ke", residual, inverses)
        steeper = float(np.vdot(residual, steepest))
        direction = steepest + steeper / slope * direction
        slope = steeper
    return (tables + change.reshape(tables.shape)).astype(np.float32)


def _curvatures(parts: Parts, codes: Bytes, row_weights: Float64, entries: int) -> Float64:
    """Each entry's own second derivative, (tables, entries, d, d): what makes the steps' directions sound."""
    groups, _, turns = codes.shape
    vector = parts.shape.vector
    places = np.arange(groups * turns).reshape(groups, 1, turns) * entries
    weights = np.broadcast_to(row_weights[:, :, None], codes.shape).reshape(-1)
    sums_of_codes = np.bincount((codes + places).reshape(-1), weights, groups * turns * entries)
    share = sums_of_codes.reshape(groups, turns, entries)
    metrics = np.stack([parts.metric(turn) for turn in range(turns)], axis=1).reshape(groups, turns, -1)
    found = np.empty((parts.shape.tables, entries, vector, vector))
    for table in range(len(found)):
        own = parts.table_of == table
        sums = share[:, own].reshape(-1, entries).T @ metrics[:, own].reshape(-1, vector * vector)
        found[table] = sums.reshape(entries, vector, vector)
    ridge = _RIDGE * np.einsum("tkdd->", found) / (found.shape[0] * entries * vector)
    return np.asarray(found + ridge * np.eye(vector))
