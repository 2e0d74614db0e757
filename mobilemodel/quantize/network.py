"""What a price is relative to: the weights of the whole network."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from mobilemodel import dtypes
from mobilemodel.model import WEIGHT_ROLES, SourceTensor
from mobilemodel.quantize.pieces import pieces


@dataclass(frozen=True)
class Network:
    """The float weights of a network."""

    weights: int
    """how many there are in all its weight tensors"""
    energy: float
    """typical sum of squares of a tensor: the geometric mean, each tensor counting by its weights"""


def measured_network(tensors: Iterable[SourceTensor]) -> Network:
    """Read each weight tensor once and measure it; those without finite, non-zero float values do not count."""
    weights = 0
    logarithms = 0.0
    for tensor in tensors:
        if tensor.role not in WEIGHT_ROLES or tensor.dtype not in dtypes.QUANTIZABLE or tensor.quantized is not None:
            continue
        energy = _energy(tensor)
        if 0 < energy < math.inf:
            weights += tensor.elements
            logarithms += tensor.elements * math.log(energy)
    return Network(weights, math.exp(logarithms / weights) if weights else 0.0)


def _energy(tensor: SourceTensor) -> float:
    raw = tensor.read()
    if len(raw) != tensor.raw_bytes:
        return 0.0  # encoding it will say so
    total = 0.0
    for piece in pieces(dtypes.from_raw(raw, tensor.dtype, tensor.dims)):
        with np.errstate(all="ignore"):
            wide = piece.astype(np.float64)
            total += float(np.dot(wide, wide))
    return total if math.isfinite(total) else 0.0
