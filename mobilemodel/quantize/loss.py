"""What quantization cost a tensor: SQNR and largest error, measured on the weights themselves."""

from __future__ import annotations

import math
import zlib
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from mobilemodel.v1 import bundle_pb2 as pb

Float32 = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Loss:
    """The error of decoded values against the source, and the CRC-32 of the decoded bytes."""

    signal: float
    """sum of w^2"""
    noise: float
    """sum of (w - w')^2"""
    largest_error: float
    """largest |w - w'|"""
    largest_weight: float
    """largest |w|"""
    identical: bool
    """every decoded bit equals the source's"""
    crc32: int

    @property
    def sqnr_db(self) -> float | None:
        """10 log10(signal / noise); None without error, or without signal."""
        return 10 * math.log10(self.signal / self.noise) if self.noise > 0 and self.signal > 0 else None

    def message(self) -> pb.Loss | None:
        """The manifest's form in integers; None for a bit-identical tensor."""
        if self.identical:
            return None
        out = pb.Loss()
        if self.sqnr_db is not None:
            out.sqnr_millidb = round(1000 * self.sqnr_db)
        if self.largest_weight > 0:
            out.largest_error = min(math.ceil(self.largest_error / self.largest_weight * 2**24), 2**32 - 1)
        return out


def measure(source: npt.NDArray[Any], decoded: Iterable[npt.NDArray[Any]]) -> Loss:
    """Compare a float32 or float16 tensor with pieces of its decoded values, flat and in C order.

    Pieces are of the source's type and cover it exactly. Sums are in float64, a chunk's in float32.

    >>> measure(np.float32([1, 2]), [np.float32([1, 3])]).noise
    1.0
    """
    flat = source.reshape(-1)
    unsigned = np.dtype(f"<u{flat.dtype.itemsize}")
    signal = noise = largest_error = largest_weight = 0.0
    identical = True
    crc = position = 0
    for piece in decoded:
        exact = flat[position : position + piece.size]
        position += piece.size
        crc = zlib.crc32(piece.tobytes(), crc)
        weights = exact.astype(np.float32, copy=False)
        error = weights - piece
        if identical and error.any():
            identical = False
        # Bits tell +0 from -0, where the difference can't.
        identical = identical and np.array_equal(exact.view(unsigned), piece.view(unsigned))
        if piece.size:
            # Scaled to the chunk's peak, so that squares of tiny weights do not vanish in float32.
            peak = float(max(weights.max(), -weights.min()))
            signal += _sum_of_squares(weights, peak)
            worst = float(max(error.max(), -error.min()))
            noise += _sum_of_squares(error, worst)
            largest_error, largest_weight = max(largest_error, worst), max(largest_weight, peak)
    return Loss(signal, noise, largest_error, largest_weight, identical, crc)


def _sum_of_squares(values: Float32, peak: float) -> float:
    if peak == 0.0:
        return 0.0
    if 1e-15 < peak < 1e15:
        return float(np.dot(values, values))
    scaled = values.astype(np.float64) / peak
    return float(np.dot(scaled, scaled)) * peak * peak
