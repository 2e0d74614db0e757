"""Exact weighted k-means in one dimension.

In one dimension the clusters of an optimal k-means solution are intervals of the sorted values, so the
problem is a shortest path with exactly k edges over the n + 1 gaps between values; the edge (j, i) is the
cluster of values j..i-1 and costs their squared error (Wu 1991, "Optimal quantization by matrix searching").
The edge costs have the concave Monge property (quadrangle inequality), hence the three facts used here:

1. The optimal cost D(k) is convex in k. A shortest path under an extra price `lam` per edge therefore is
   an optimal partition for the number of edges it happens to have (Aggarwal, Schieber and Tokuyama 1994,
   "Finding a minimum-weight k-link path in graphs with the concave Monge property"). A few prices lead to k;
   that is n log n work each instead of the k n log n of dynamic programming over k (Gronlund et al. 2017,
   arXiv 1701.07204, review all of these).
2. Where D is linear around k no price singles out k, but two shortest paths of the same price, one with too
   few edges and one with too many, can be spliced into one with exactly k (same paper by Aggarwal et al.).
3. The best predecessor of a node grows with the node: minima over blocks of nodes are found by
   divide and conquer.

The shortest path itself looks sequential: distances need earlier distances. It still goes block by block in
numpy because an edge that starts at or after node s leads to a distance of at least dist(s) + lam: all nodes
whose distance from earlier nodes alone is not above that are final at once. Such a block is about two thirds
of a cluster long, so there are about 1.5 k blocks, however many values there are.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

_Floats = npt.NDArray[np.float64]
_Ints = npt.NDArray[np.int64]

# Row minima: up to this many rows (and elements, 1 MiB) the whole matrix is cheaper than divide and conquer.
_DENSE_ROWS = 64
_DENSE_SIZE = 1 << 17
# Rows added between two known rows per step of divide and conquer, plus one. 4 reads each column three times
# in half as many (overhead bound) steps as 2.
_BRANCH = 4
# Share of the price that a block is predicted to climb. Below 1: nodes past the block's end are lost work.
_REACH = 0.95
# Least weight relative to the largest that the search tells apart. A sum of 2**16 weights keeps 5 bits of it.
_LEAST_WEIGHT = 2.0**-32
# Rows evaluated in full to start divide and conquer: at most this many.
_DENSE_FIRST = 8
# Prices tried by the law of fine quantization before the secant, whose convergence is certain, takes over.
_MODEL_STEPS = 12


@dataclass(frozen=True)
class Partition:
    """Values cut into k intervals.

    Attributes:
        starts: int64 (k,), first value of each cluster, strictly ascending from 0.
        centroids: float64 (k,), weighted mean of each cluster, in the unit of the values, ascending.
        cost: sum of weight times squared distance to the centroid, in squared units of the values.
    """

    starts: npt.NDArray[np.int64]
    centroids: npt.NDArray[np.float64]
    cost: float


def optimal_partition(values: npt.ArrayLike, weights: npt.ArrayLike, k: int) -> Partition:
    """Partition of sorted values into at most k clusters with the least weighted squared error.

    The result is optimal up to float64 rounding and deterministic; the module's docstring has the method.

    Args:
        values: float64 (n,), strictly ascending, finite.
        weights: float64 (n,), > 0, finite; typically counts. Clusters are chosen as if no weight were below
            2**-32 of the largest (sums would lose it), yet fitted with the weights as they are.
        k: number of clusters, at least 1. With n <= k every value becomes a cluster of its own, at no cost.

    Returns:
        The partition with min(k, n) clusters.

    Raises:
        ValueError: `k` < 1, or arrays that are not as described.

    >>> part = optimal_partition([0.0, 1.0, 10.0, 12.0], [1, 1, 1, 3], 2)
    >>> part.starts.tolist(), part.centroids.tolist(), part.cost
    ([0, 2], [0.5, 11.5], 3.5)
    """
    x, w = np.asarray(values, np.float64), np.asarray(weights, np.float64)
    _check(x, w, k)
    if x.size <= k:
        return Partition(np.arange(x.size), x.copy(), 0.0)
    # Powers of two, hence exact: squares and their sums then neither overflow nor vanish.
    x_power = int(np.frexp(max(abs(x[0]), abs(x[-1])))[1])
    w_power = int(np.frexp(w.max())[1])
    x, w = np.ldexp(x, -x_power), np.ldexp(w, -w_power)
    starts = _optimal_path(x, np.maximum(w, w.max() * _LEAST_WEIGHT), k)[:-1]
    centroids, cost = _fit(x, w, starts)
    return Partition(starts, np.ldexp(centroids, x_power), float(np.ldexp(cost, 2 * x_power + w_power)))


def _check(x: _Floats, w: _Floats, k: int) -> None:
    if k < 1:
        raise ValueError(f"k must be at least 1, not {k}")
    if x.ndim != 1 or x.shape != w.shape:
        raise ValueError(f"values and weights must be 1-D and equally long, got {x.shape} and {w.shape}")
    if not (np.isfinite(x).all() and (x[1:] > x[:-1]).all()):
        raise ValueError("values must be finite and strictly ascending")
    if not (np.isfinite(w).all() and (w > 0.0).all()):
        raise ValueError("weights must be finite and positive")


def _fit(x: _Floats, w: _Floats, starts: _Ints) -> tuple[_Floats, float]:
    """Centroids (k,) and total cost of the clusters that begin at `starts` (k,)."""
    lengths = np.diff(starts, append=x.size)
    first = x[starts]
    # Relative to the first value: single values stay exact, and narrow clusters far from zero lose nothing.
    shift = np.add.reduceat(w * (x - np.repeat(first, lengths)), starts) / np.add.reduceat(w, starts)
    centroids = np.clip(first + shift, first, x[starts + lengths - 1])
    error = x - np.repeat(centroids, lengths)
    return centroids, float(np.sum(w * error * error))


def _optimal_path(x: _Floats, w: _Floats, k: int) -> _Ints:
    """Nodes (k + 1,) of the cheapest path with k edges from 0 to n; 1 <= k < n.

    Keeps the optimal paths for some `few` <= k and some `many` > k edges and moves them together. Prices
    follow the law of fine quantization, D(k) ~ 1 / k**2, which takes two or three to hit k; should that not
    do, the secant of D between the two, which gives a number of edges strictly between them or proves a tie.
    """
    n = x.size
    few, few_path, few_cost = 1, np.array([0, n]), _fit(x, w, np.array([0]))[1]
    many, many_path, many_cost = n, np.arange(n + 1), 0.0
    distances, lam = _high_rate(x, w, k, few_cost)
    step, price, stalled = 0, lam, 0
    while few < k:
        secant = (few_cost - many_cost) / (many - few)
        if secant <= 0.0:  # All that is left to gain has vanished in rounding.
            return _splice(few_path, many_path, k)
        if step >= _MODEL_STEPS or (many < n and (stalled or many - few == 2)):
            price = secant
        elif few > 1 and many < n:
            # D = c / k**2 turns the secant into the derivative at k.
            price = 2.0 * secant * (few * many) ** 2 / ((few + many) * k**3)
        # Between similar prices distances scale like this where clusters are fine; it only predicts.
        distances, path = _shortest_path(x, w, price, distances * (price / lam) ** (2 / 3))
        edges, cost = path.size - 1, _fit(x, w, path[:-1])[1]
        if few < edges <= k:
            few, few_path, few_cost, stalled = edges, path, cost, 0
        elif k < edges < many:
            many, many_path, many_cost, stalled = edges, path, cost, 0
        elif price == secant:
            return _splice(few_path, many_path, k)
        else:
            stalled += 1
        # The next price unless both ends have been found: D = c / k**2 again, from this path alone, and
        # beyond that where D has a kink that holds many prices.
        lam, price, step = price, price * (edges / k) ** (3 << min(stalled // 2, 4)), step + 1
    return few_path


def _splice(few: _Ints, many: _Ints, k: int) -> _Ints:
    """Path with k edges from two shortest paths of the same price with fewer and more edges.

    Where an edge of `few` spans one of `many`, follow `few` before it and `many` after it. By the Monge
    property this path and the reverse one together cost no more than the two paths, so each is shortest too.
    The first edge of `few` to end no earlier than the edge `skip` - 1 places ahead in `many` spans that one:
    the edge before it ended too early, hence before the spanned edge begins.
    """
    skip = many.size - k
    at = int(np.argmax(many[skip : skip + few.size - 1] <= few[1:]))
    return np.concatenate((few[: at + 1], many[at + skip :]))


def _high_rate(x: _Floats, w: _Floats, k: int, cost: float) -> tuple[_Floats, float]:
    """Predicted distances (n + 1,) and price per edge for k clusters; `cost` is that of one cluster.

    With density p the clusters of fine quantization have widths ~ p**(-1/3), the cost is the cubed integral
    of p**(1/3) over 12 k**2 (Panter and Dite 1951), and the price -dD/dk is twice the cost of a cluster.
    """
    share = np.cbrt(w * np.gradient(x) ** 2)
    total = float(share.sum())
    # By convexity the price is at most the mean slope of D from one cluster on.
    lam = min(total**3 / (6.0 * k**3), cost / max(k - 1, 1))
    distances = np.concatenate(([0.0], np.cumsum(share))) * (1.5 * k * lam / total)
    return distances, lam


def _shortest_path(x: _Floats, w: _Floats, lam: float, guess: _Floats) -> tuple[_Floats, _Ints]:
    """Distances (n + 1,) from node 0 at price `lam` per edge, and the nodes of a shortest path to node n.

    `guess` (n + 1,), ascending: predicted distances. They set the block lengths, thus the speed, but not the
    result.
    """
    n = x.size
    distance, before = np.zeros(n + 1), np.zeros(n + 1, np.int64)
    low, start = 0, 1
    while start <= n:
        stop = int(guess.searchsorted(guess[start] + _REACH * lam)) if start < n else n
        stop = min(max(stop, start), n) + 1
        # Moments about a value of the block: nothing is lost to cancellation, however large n and k.
        weight, offset = w[low : stop - 1], x[low : stop - 1] - x[start - 1]
        moments = np.zeros((3, stop - low))
        np.cumsum(weight, out=moments[0, 1:])
        first = weight * offset
        np.cumsum(first, out=moments[1, 1:])
        np.cumsum(first * offset, out=moments[2, 1:])
        # The part of an edge's cost that is a difference of its nodes stays out of the matrix.
        known = start - low
        head = distance[low:start] - moments[2, :known]
        reached, origin = _row_minima(head, moments[:2, :known], moments[:2, known:])
        reached += moments[2, known:] + lam
        final = int(reached.searchsorted(reached[0] + lam, "right"))
        distance[start : start + final] = reached[:final]
        before[start : start + final] = origin[:final] + low
        start += final
        low = int(before[start - 1])
    path = [n]
    while path[-1] > 0:
        path.append(int(before[path[-1]]))
    return distance, np.array(path[::-1])


def _row_minima(head: _Floats, tail: _Floats, ends: _Floats) -> tuple[_Floats, _Ints]:
    """Least value (rows,) and leftmost column (rows,) of it for each row of the totally monotone matrix
    ``head[j] - (ends[1, i] - tail[1, j])**2 / (ends[0, i] - tail[0, j])``, head (columns,), ends (2, rows).
    """
    rows, columns = ends.shape[1], head.size
    if rows <= _DENSE_ROWS and rows * columns <= _DENSE_SIZE:
        return _dense_minima(head, tail, ends)
    step = _BRANCH
    while step * _DENSE_FIRST < rows:
        step *= _BRANCH
    least, where = np.empty(rows), np.empty(rows, np.int64)
    least[::step], where[::step] = _dense_minima(head, tail, ends[:, ::step])
    while step > 1:
        # Row r between the known rows a < r < b has its minimum in columns where[a]..where[b].
        # Rounding may break the order of where by ties; the running maximum mends it.
        limits = np.maximum.accumulate(np.append(where[::step], columns - 1))
        fine = step // _BRANCH
        new = np.arange(0, rows, fine)
        new = new[new % step != 0]
        first, last = limits[new // step], limits[new // step + 1]
        least[new], where[new] = _ragged_minima(head, tail, ends[:, new], first, last)
        step = fine
    return least, where


def _dense_minima(head: _Floats, tail: _Floats, ends: _Floats) -> tuple[_Floats, _Ints]:
    """`_row_minima` by evaluating the whole matrix."""
    matrix = ends[1][:, None] - tail[1]
    matrix *= matrix
    matrix /= ends[0][:, None] - tail[0]
    np.subtract(head, matrix, out=matrix)
    where = matrix.argmin(axis=1)
    return matrix[np.arange(where.size), where], where


def _ragged_minima(
    head: _Floats,
    tail: _Floats,
    ends: _Floats,
    first: _Ints,
    last: _Ints,
) -> tuple[_Floats, _Ints]:
    """`_row_minima` where row r is known to have its minimum in columns first[r]..last[r]."""
    lengths = last - first + 1
    begins = np.cumsum(lengths) - lengths
    column = np.arange(int(lengths.sum())) + np.repeat(first - begins, lengths)
    value = np.repeat(ends[1], lengths) - tail[1][column]
    value *= value
    value /= np.repeat(ends[0], lengths) - tail[0][column]
    np.subtract(head[column], value, out=value)
    least = np.minimum.reduceat(value, begins)
    hits = np.flatnonzero(value == np.repeat(least, lengths))
    return least, column[hits[np.searchsorted(hits, begins)]]
