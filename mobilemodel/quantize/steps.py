"""Float matrix -> evenly spaced codes, one scale for each row (spec/tensors.md §6)."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from mobilemodel.encodings.packing import Codes
from mobilemodel.encodings.tensor import SMALLEST_NORMAL
from mobilemodel.quantize.pieces import CHUNK

Float32 = npt.NDArray[np.float32]
SMALLEST_SCALE = np.float32(SMALLEST_NORMAL)


@dataclass(frozen=True)
class Steps:
    """Codes (rows x columns) around 2^(depth - 1) and the scale of each row."""

    codes: Codes
    scales: Float32
    depth: int

    def decoded_rows(self) -> Iterator[Float32]:
        """The decoded rows in blocks, as every reader computes them."""
        rows = max(1, CHUNK // max(1, self.codes.shape[1]))
        zero = np.int32(1 << (self.depth - 1))
        for start in range(0, len(self.codes), rows):
            steps = (self.codes[start : start + rows].astype(np.int32) - zero).astype(np.float32)
            yield steps * self.scales[start : start + rows, None]


def symmetric_steps(matrix: Float32, depth: int) -> Steps:
    """Round each row to multiples of its largest magnitude / (2^(depth - 1) - 1), to nearest even.

    >>> symmetric_steps(np.float32([[1, -0.5]]), 8).codes.tolist()
    [[255, 64]]
    """
    most = (1 << (depth - 1)) - 1
    zero = 1 << (depth - 1)
    rows, columns = matrix.shape
    codes: Codes = np.empty((rows, columns), np.uint16) if depth == 16 else np.empty((rows, columns), np.uint8)
    scales = np.ones(rows, np.float32)
    block = max(1, CHUNK // max(1, columns))
    for start in range(0, rows if columns else 0, block):
        piece = matrix[start : start + block].astype(np.float32, copy=False)
        peaks = np.abs(piece).max(axis=1)
        scale = np.maximum(peaks / np.float32(most), SMALLEST_SCALE).astype(np.float32)
        scale[peaks == 0] = 1
        # A scale that was rounded up can carry the largest weights past float32.
        with np.errstate(over="ignore"):
            scale = np.where(np.isfinite(scale * np.float32(most)), scale, np.nextafter(scale, np.float32(0)))
        steps = np.clip(np.rint(piece / scale[:, None]), -most, most)
        codes[start : start + block] = (steps + zero).astype(codes.dtype)
        scales[start : start + block] = scale
    return Steps(codes, scales, depth)
