"""Histogram of a float32 tensor on the float16 grid, and the way back from bins to codes.

A palette is fitted to a histogram instead of to the weights: tens of millions of weights have at most
32,769 distinct values once they are scaled by a power of two to a peak in [1, 2) and rounded to float16.
The rounding error (relative 2**-11, absolute floor 2**-25 of the peak) is far below that of any palette of
256 values, and both passes over the weights become table look-ups by the 16-bit pattern.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
import numpy.typing as npt

from mobilemodel.quantize.pieces import CHUNK, pieces

_PATTERNS = 1 << 16

_Code = TypeVar("_Code", np.uint8, np.uint16)


@dataclass(frozen=True)
class Histogram:
    """Distinct values of a tensor after rounding to a scaled float16 grid, with their counts.

    Attributes:
        values: float64 (n,), strictly ascending, in the unit of the weights.
        weights: float64 (n,), how many weights fall on each value; all > 0.
        codes_of_half: uint16 (65536,), bin of every float16 bit pattern of ``weight * 2**-exponent``.
            Patterns that do not occur in the tensor lead to the nearest bin (NaN: to bin 0).
        exponent: the power of two e; ``max|w| * 2**-e`` lies in [1, 2). Zero for tensors without a peak.
    """

    values: npt.NDArray[np.float64]
    weights: npt.NDArray[np.float64]
    codes_of_half: npt.NDArray[np.uint16]
    exponent: int


def histogram(weights: npt.NDArray[np.float32]) -> Histogram:
    """Count the distinct values of `weights` on the float16 grid scaled to their peak.

    Args:
        weights: float32 array of any shape and memory layout, finite. It is read twice, in pieces.

    Returns:
        The histogram; -0 and +0 are one value, an all-zero tensor has the one bin 0.0, an empty one has none.

    Raises:
        ValueError: `weights` is not float32, or holds an infinity or a NaN.

    >>> h = histogram(np.array([[0.5, -0.0], [0.0, -3.0]], np.float32))
    >>> h.values.tolist(), h.weights.tolist(), h.exponent
    ([-3.0, 0.0, 0.5], [1.0, 2.0, 1.0], 1)
    """
    peak = _peak(weights)
    exponent = int(np.frexp(peak)[1]) - 1 if peak > 0.0 else 0
    counts = np.zeros(_PATTERNS, np.int64)
    for patterns in _half_patterns(weights, exponent):
        counts += np.bincount(patterns, minlength=_PATTERNS)
    counts[0x0000] += counts[0x8000]
    counts[0x8000] = 0
    used = np.flatnonzero(counts)
    grid = used.astype(np.uint16).view(np.float16).astype(np.float64)
    order = np.argsort(grid)
    return Histogram(
        values=np.ldexp(grid[order], exponent),
        weights=counts[used[order]].astype(np.float64),
        codes_of_half=_bin_of_pattern(grid[order]),
        exponent=exponent,
    )


def assign(
    weights: npt.NDArray[np.float32], histogram: Histogram, code_of_bin: npt.ArrayLike
) -> npt.NDArray[np.uint8] | npt.NDArray[np.uint16]:
    """Replace every weight by the code of its histogram bin.

    Args:
        weights: float32 array of any shape: the tensor the histogram was made of. Other values that are
            finite take the code of the nearest bin.
        histogram: result of `histogram`.
        code_of_bin: integers (n,) in 0..65535, one for each histogram bin.

    Returns:
        Codes in the shape of `weights`, C order; uint8 if all codes are below 256, uint16 otherwise.

    Raises:
        ValueError: wrong dtype, as many codes as bins are not given, a code is out of range, or the histogram
            is empty and the weights are not.

    >>> w = np.array([[0.5, -0.0], [0.0, -3.0]], np.float32)
    >>> assign(w, histogram(w), [7, 1, 0]).tolist()
    [[0, 1], [1, 7]]
    """
    _require_float32(weights)
    codes = np.asarray(code_of_bin)
    if codes.shape != histogram.values.shape:
        raise ValueError(f"{histogram.values.size} bins need as many codes, got shape {codes.shape}")
    if codes.size == 0:
        if weights.size:
            raise ValueError("an empty histogram has no code for any weight")
        return np.empty(weights.shape, np.uint8)
    if codes.dtype.kind not in "iu" or codes.min() < 0 or codes.max() >= _PATTERNS:
        raise ValueError("codes must be integers in 0..65535")
    # Two returns instead of one chosen dtype: the type checker then knows both results.
    if codes.max() < 256:
        return _look_up(weights, histogram, codes.astype(np.uint8), np.empty(weights.shape, np.uint8))
    return _look_up(weights, histogram, codes.astype(np.uint16), np.empty(weights.shape, np.uint16))


def _look_up(
    weights: npt.NDArray[np.float32], hist: Histogram, codes: npt.NDArray[_Code], out: npt.NDArray[_Code]
) -> npt.NDArray[_Code]:
    table = codes[hist.codes_of_half]
    flat, position = out.reshape(-1), 0
    for patterns in _half_patterns(weights, hist.exponent):
        # mode="clip" (no index can be out of range) lets take write to `out` without a buffer of its own.
        np.take(table, patterns, out=flat[position : position + patterns.size], mode="clip")
        position += patterns.size
    return out


def _bin_of_pattern(grid: npt.NDArray[np.float64]) -> npt.NDArray[np.uint16]:
    """Nearest entry of the ascending `grid` (m,) for each of the 65,536 float16 patterns."""
    if grid.size == 0:
        return np.zeros(_PATTERNS, np.uint16)
    halves = np.arange(_PATTERNS, dtype=np.uint16).view(np.float16).astype(np.float64)
    bins = np.searchsorted((grid[1:] + grid[:-1]) / 2, np.where(np.isnan(halves), grid[0], halves))
    return bins.astype(np.uint16)


def _require_float32(weights: npt.NDArray[np.float32]) -> None:
    if weights.dtype != np.float32:
        raise ValueError(f"weights must be float32, not {weights.dtype}")


def _peak(weights: npt.NDArray[np.float32]) -> float:
    """Largest magnitude, 0.0 for an empty array; ValueError unless all weights are finite float32."""
    _require_float32(weights)
    peak = 0.0
    for piece in pieces(weights):
        # Both extremes pass on a NaN, so they double as the finiteness check.
        low, high = float(piece.min()), float(piece.max())
        if not (np.isfinite(low) and np.isfinite(high)):
            raise ValueError("weights must be finite")
        peak = max(peak, -low, high)
    return peak


def _half_patterns(weights: npt.NDArray[np.float32], exponent: int) -> Iterator[npt.NDArray[np.uint16]]:
    """Float16 bit patterns of ``weights * 2**-exponent`` by pieces; each is overwritten by the next.

    2**-exponent may lie outside of the normal float32 range, its two halves never do. Multiplying up is
    exact; what multiplying down rounds is below 2**-126 and thus zero in float16.
    """
    factors = [-exponent] if abs(exponent) <= 126 else [-exponent // 2, -exponent - (-exponent // 2)]
    scaled = np.empty(min(CHUNK, weights.size), np.float32)
    half = np.empty(scaled.size, np.float16)
    for piece in pieces(weights):
        target = scaled[: piece.size]
        with np.errstate(under="ignore", over="ignore"):
            np.multiply(piece, np.float32(2.0 ** factors[0]), out=target)
            for power in factors[1:]:
                target *= np.float32(2.0**power)
            half[: piece.size] = target
        yield half[: piece.size].view(np.uint16)
