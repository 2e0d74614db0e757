"""Histogram on the float16 grid and exact 1-D k-means against brute force."""

from __future__ import annotations

import doctest
from collections.abc import Callable
from itertools import combinations

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mobilemodel.quantize import histogram as histogram_module
from mobilemodel.quantize import kmeans as kmeans_module
from mobilemodel.quantize.histogram import assign, histogram
from mobilemodel.quantize.kmeans import Partition, optimal_partition

Floats = npt.NDArray[np.float64]


def interval_costs(x: Floats, w: Floats) -> Floats:
    """(n + 1, n + 1) two-pass squared error of values j..i-1 at [j, i], infinite unless j < i."""
    cost = np.full((x.size + 1, x.size + 1), np.inf)
    for j in range(x.size):
        offset = x[j:] - x[j]
        total, first = np.cumsum(w[j:]), np.cumsum(w[j:] * offset)
        cost[j, j + 1 :] = np.maximum(np.cumsum(w[j:] * offset**2) - first**2 / total, 0.0)
    return cost


def dynamic_programming(cost: Floats, k: int) -> list[float]:
    """Least cost of 1..k clusters in O(n**2 k), the textbook recurrence."""
    best, result = cost[0], []
    for _ in range(k):
        result.append(float(best[-1]))
        best = np.min(best[:, None] + cost, axis=0)
    return result


def exhaustive(x: Floats, w: Floats, k: int) -> float:
    """Least cost over all partitions into k intervals."""

    def error(cut: tuple[int, ...]) -> float:
        total = 0.0
        for j, i in zip((0, *cut), (*cut, x.size), strict=True):
            mean = np.average(x[j:i], weights=w[j:i])
            total += float(np.sum(w[j:i] * (x[j:i] - mean) ** 2))
        return total

    return min(error(cut) for cut in combinations(range(1, x.size), k - 1))


def check(part: Partition, x: Floats, w: Floats, k: int) -> None:
    """The partition is well formed, and its centroids and cost are those of its clusters."""
    assert part.starts.size == part.centroids.size == min(k, x.size)
    assert part.starts[0] == 0
    assert (np.diff(part.starts) > 0).all()
    assert part.starts[-1] < x.size
    assert (np.diff(part.centroids) > 0).all()
    cost = 0.0
    for j, i, centroid in zip(part.starts, [*part.starts[1:], x.size], part.centroids, strict=True):
        assert x[j] <= centroid <= x[i - 1]
        mean = np.average(x[j:i], weights=w[j:i])
        assert centroid == pytest.approx(mean, rel=1e-9, abs=1e-12 * abs(x).max())
        cost += float(np.sum(w[j:i] * (x[j:i] - centroid) ** 2))
    assert part.cost == pytest.approx(cost, rel=1e-9)


def heavy_tailed(n: int, seed: int = 0) -> npt.NDArray[np.float32]:
    """Generalized Gaussian of shape 1.2, like the weights of a trained layer."""
    rng = np.random.default_rng(seed)
    magnitude = rng.standard_gamma(1 / 1.2, n) ** (1 / 1.2)
    return np.asarray(0.006 * magnitude * rng.choice([-1.0, 1.0], n), np.float32)


thousandths = st.integers(-100_000, 100_000).map(lambda v: v / 1000)
numbers = st.one_of(st.integers(-12, 12).map(float), thousandths, st.just(1e4))
counts = st.one_of(st.integers(1, 3).map(float), st.floats(0.01, 1000.0))
histograms = st.lists(st.tuples(numbers, counts), min_size=1, max_size=9, unique_by=lambda v: v[0])


@settings(deadline=None, max_examples=400)
@given(histograms, st.integers(1, 5))
def test_optimal_against_exhaustive_search(points: list[tuple[float, float]], k: int) -> None:
    x, w = np.array(sorted(points)).T.copy()
    part = optimal_partition(x, w, k)
    check(part, x, w, k)
    if x.size <= k:
        assert part.cost == 0.0
        assert part.centroids.tolist() == x.tolist()
    else:
        assert part.cost == pytest.approx(exhaustive(x, w, k), rel=1e-9, abs=1e-12)


@settings(deadline=None, max_examples=60)
@given(st.integers(0, 2**32 - 1), st.integers(2, 60), st.sampled_from(["grid", "normal", "spread", "lumps"]))
def test_all_k_agree_with_dynamic_programming(seed: int, n: int, kind: str) -> None:
    rng = np.random.default_rng(seed)
    draw: dict[str, Callable[[], npt.ArrayLike]] = {
        "grid": lambda: np.arange(n) - 5.0,
        "normal": lambda: rng.standard_normal(n),
        "spread": lambda: np.exp(8 * rng.standard_normal(n)),
        "lumps": lambda: 50.0 * rng.integers(0, 4, n) + rng.random(n),
    }
    x = np.unique(np.asarray(draw[kind](), np.float64))
    w = rng.integers(1, rng.choice([2, 4, 10**6]), x.size).astype(float)
    for k, expected in enumerate(dynamic_programming(interval_costs(x, w), x.size), start=1):
        part = optimal_partition(x, w, k)
        check(part, x, w, k)
        assert part.cost == pytest.approx(expected, rel=1e-7, abs=1e-13 * float(w @ x**2))


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("kind", ["normal", "heavy", "grid"])
def test_agrees_with_dynamic_programming(seed: int, kind: str) -> None:
    rng = np.random.default_rng(seed)
    if kind == "heavy":
        h = histogram(heavy_tailed(220, seed))
        x, w = h.values, h.weights
    else:
        x = np.sort(rng.normal(size=200)) if kind == "normal" else np.arange(200.0)
        w = rng.pareto(1.0, 200) + 0.1 if kind == "normal" else np.ones(200)
    costs = dynamic_programming(interval_costs(x, w), 40)
    for k in (1, 2, 3, 4, 7, 16, 31, 40):
        part = optimal_partition(x, w, k)
        check(part, x, w, k)
        assert part.cost == pytest.approx(costs[k - 1], rel=1e-9)


def test_long_blocks_agree_with_dynamic_programming() -> None:
    """Enough values that minima are found by divide and conquer, ties included."""
    h = histogram(heavy_tailed(3000))
    for x, w in ((h.values, h.weights), (np.arange(1500.0), np.ones(1500))):
        costs = dynamic_programming(interval_costs(x, w), 6)
        assert [optimal_partition(x, w, k).cost for k in range(1, 7)] == pytest.approx(costs, rel=1e-9)


def test_cost_falls_with_k_and_is_convex() -> None:
    h = histogram(heavy_tailed(200_000))
    costs = np.array([optimal_partition(h.values, h.weights, k).cost for k in range(1, 40)])
    assert (np.diff(costs) < 0).all()
    assert (np.diff(costs, 2) > 0).all()


def test_tied_prices_are_spliced() -> None:
    """Pairs of equal width: D is linear in k, so no price per cluster leads to a k strictly inside."""
    x = np.array([10.0 * (i // 2) + i % 2 for i in range(40)])
    for k in range(20, 41):
        part = optimal_partition(x, np.ones(40), k)
        check(part, x, np.ones(40), k)
        assert part.cost == pytest.approx(0.5 * (40 - k))


@pytest.mark.parametrize("scale", [1e-300, 1e-45, 1.0, 1e140])
def test_scale_does_not_matter(scale: float) -> None:
    x, w = np.arange(30.0) ** 2 - 100, np.arange(1.0, 31.0)
    part = optimal_partition(x * scale, w / 1e100, 6)
    assert part.starts.tolist() == optimal_partition(x, w, 6).starts.tolist()


def test_extreme_weights_still_give_a_partition() -> None:
    rng = np.random.default_rng(0)
    x, w = np.sort(rng.normal(size=3000)), rng.pareto(0.2, 3000) + 1e-6
    for k in (2, 50):
        check(optimal_partition(x, w, k), x, w, k)


def test_errors_too_small_to_be_seen() -> None:
    x = np.array([0.0, 1e-200, 2e-200, 3e-200, 1.0])
    for k in (2, 3, 4):
        part = optimal_partition(x, np.ones(5), k)
        assert part.starts.size == k
        assert part.centroids[-1] == 1.0


def test_empty_single_and_deterministic() -> None:
    empty = optimal_partition([], [], 3)
    assert empty.starts.size == empty.centroids.size == 0
    assert empty.cost == 0.0
    assert optimal_partition([2.5], [3], 1).centroids.tolist() == [2.5]
    h = histogram(heavy_tailed(50_000))
    first, second = (optimal_partition(h.values, h.weights, 64) for _ in range(2))
    assert first.starts.tolist() == second.starts.tolist()
    assert first.cost == second.cost


@pytest.mark.parametrize(
    ("values", "weights", "k", "message"),
    [
        ([1.0, 2.0], [1, 1], 0, "at least 1"),
        ([2.0, 1.0], [1, 1], 1, "ascending"),
        ([1.0, 1.0], [1, 1], 1, "ascending"),
        ([1.0, np.inf], [1, 1], 1, "finite"),
        ([1.0, 2.0], [1, 0], 1, "positive"),
        ([1.0, 2.0], [1, np.nan], 1, "finite"),
        ([1.0, 2.0], [1], 1, "equally long"),
        ([[1.0, 2.0]], [[1, 1]], 1, "1-D"),
    ],
)
def test_invalid_partition_arguments(values: list[float], weights: list[float], k: int, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        optimal_partition(values, weights, k)


def rounded(w: npt.NDArray[np.float32], exponent: int) -> Floats:
    """The weights on the scaled float16 grid, by float64 arithmetic."""
    half = np.ldexp(w.astype(np.float64), -exponent).astype(np.float16)
    return np.ldexp(half.astype(np.float64), exponent) + 0.0


@pytest.mark.parametrize("scale", [1e-45, 3e-42, 1e-38, 1e-30, 1e-3, 1.0, 70000.0, 1e30, 1.5e38])
def test_histogram_at_any_scale(scale: float) -> None:
    drawn = np.random.default_rng(1).normal(size=(40, 50)) * scale
    w = np.clip(drawn, -3.4e38, 3.4e38).astype(np.float32)
    w[0, 0] = scale  # Never all zero, even where most values underflow.
    h = histogram(w)
    assert 1.0 <= np.ldexp(float(np.abs(w).max()), -h.exponent) < 2.0
    values, weights = np.unique(rounded(w, h.exponent), return_counts=True)
    assert h.values.tolist() == values.tolist()
    assert h.weights.tolist() == weights.tolist()
    codes = assign(w, h, np.arange(h.values.size))
    assert (h.values[codes] == rounded(w, h.exponent)).all()


@settings(deadline=None, max_examples=100)
@given(st.lists(st.floats(width=32, allow_nan=False, allow_infinity=False), max_size=30))
def test_histogram_of_any_floats(numbers: list[float]) -> None:
    w = np.array(numbers, np.float32)
    h = histogram(w)
    assert h.weights.sum() == w.size
    assert (np.diff(h.values) > 0).all()
    assert (h.weights > 0).all()
    assert (h.values[assign(w, h, np.arange(h.values.size))] == rounded(w, h.exponent)).all()


def test_histogram_of_zeros_and_nothing() -> None:
    zeros = np.array([0.0, -0.0, 0.0], np.float32)
    h = histogram(zeros)
    assert h.values.tolist() == [0.0]
    assert h.weights.tolist() == [3.0]
    assert h.exponent == 0
    assert assign(zeros, h, [5]).tolist() == [5, 5, 5]
    nothing = np.zeros((0, 4), np.float32)
    h = histogram(nothing)
    assert h.values.size == h.weights.size == 0
    assert assign(nothing, h, np.zeros(0, np.int64)).shape == (0, 4)
    assert histogram(np.array(-3.0, np.float32)).values.tolist() == [-3.0]


def test_histogram_in_pieces_and_any_layout() -> None:
    w = heavy_tailed(3 * 262_144 + 30).reshape(-1, 6)
    views = (w, np.asfortranarray(w), w[::-1, ::2], w.T)
    for view in views:
        h = histogram(view)
        values, weights = np.unique(rounded(view, h.exponent), return_counts=True)
        assert (h.values == values).all()
        assert (h.weights == weights).all()
        codes = assign(view, h, np.arange(h.values.size))
        assert codes.dtype == np.uint16
        assert codes.flags.c_contiguous
        assert (h.values[codes] == rounded(view, h.exponent)).all()


@pytest.mark.parametrize(("k", "dtype"), [(2, np.uint8), (16, np.uint8), (256, np.uint8), (300, np.uint16)])
def test_assign_gives_the_nearest_centroid(k: int, dtype: type[np.generic]) -> None:
    w = heavy_tailed(100_000).reshape(100, 1000)
    h = histogram(w)
    part = optimal_partition(h.values, h.weights, k)
    code_of_bin = np.searchsorted(part.starts, np.arange(h.values.size), "right") - 1
    codes = assign(w, h, code_of_bin)
    assert codes.dtype == dtype
    assert codes.shape == w.shape
    on_grid = rounded(w, h.exponent)
    error = np.abs(on_grid - part.centroids[codes])
    nearest = np.abs(on_grid.reshape(-1, 1)[:2000] - part.centroids).min(axis=1)
    assert error.reshape(-1)[:2000] == pytest.approx(nearest)
    assert float(np.sum(error**2)) == pytest.approx(part.cost)


def test_assign_takes_the_nearest_bin_for_other_weights() -> None:
    h = histogram(np.array([-1.0, 0.0, 1.5], np.float32))
    other = np.array([-3e38, -0.7, -0.3, 1e-40, 0.7, 0.8, 9.0], np.float32)
    assert assign(other, h, [0, 1, 2]).tolist() == [0, 0, 1, 1, 1, 2, 2]


def test_invalid_histogram_arguments() -> None:
    for bad in (np.array([1.0, np.nan]), np.array([1.0, np.inf]), np.array([-np.inf, np.nan])):
        with pytest.raises(ValueError, match="finite"):
            histogram(bad.astype(np.float32))
    with pytest.raises(ValueError, match="float32"):
        histogram(np.zeros(3))  # type: ignore[arg-type]
    w = np.array([1.0, 2.0], np.float32)
    h = histogram(w)
    for codes in ([1], [1, 2, 3], [-1, 0], [0, 65536], [0.5, 1.0]):
        with pytest.raises(ValueError, match="codes"):
            assign(w, h, codes)
    with pytest.raises(ValueError, match="empty"):
        assign(w, histogram(w[:0]), np.zeros(0, np.int64))


def test_doctests() -> None:
    for module in (histogram_module, kmeans_module):
        result = doctest.testmod(module)
        assert result.attempted
        assert not result.failed
