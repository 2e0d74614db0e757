"""What the C reader has to give for a bundle, by the Python reader, and how both are compared."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from mobilemodel import dtypes
from mobilemodel.bundle import Tensor
from mobilemodel.dtypes import DType
from mobilemodel.encodings import matrix
from tests.native.serving import FLOAT, FLOAT16

Array = npt.NDArray[Any]
FLOATS = (DType.FLOAT, DType.FLOAT16, DType.BFLOAT16)
"""tensors that may also be decoded to FLOAT and FLOAT16"""


def same(found: bytes, wanted: bytes, kind: np.dtype[Any] | None) -> bool:
    """Bit for bit; with ``kind``, of floats that decoding makes or converts, a NaN is any NaN (tensors.md §8)."""
    if kind is None or len(found) != len(wanted):
        return found == wanted
    a, b = np.frombuffer(found, kind), np.frombuffer(wanted, kind)
    bits = f"<u{kind.itemsize}"
    return bool(((a.view(bits) == b.view(bits)) | (np.isnan(a) & np.isnan(b))).all())


@dataclass(frozen=True)
class Decoded:
    """The values of a tensor in one of the types that it can be decoded to."""

    tensor: Tensor
    dtype: int

    @property
    def made(self) -> np.dtype[Any] | None:
        """The type in whose NaNs there may be other bits; None where elements are copied."""
        dense = self.tensor.message.dense
        copied = self.tensor.encoding == "dense" and dense.stored_dtype == self.tensor.dtype_number == self.dtype
        return None if copied else dtypes.numpy_dtype(self.dtype)

    def values(self) -> Array:
        """Those of a tensor of floats, in its shape: widened exactly, or rounded once from binary32."""
        values = self.tensor.numpy()
        if self.dtype != self.tensor.dtype_number:
            with np.errstate(all="ignore"):
                values = values.astype(np.float32).astype(dtypes.numpy_dtype(self.dtype))
        return values

    def raw(self) -> bytes:
        """All raw bytes."""
        return bytes(self.tensor.raw()) if self.dtype == self.tensor.dtype_number else self.values().tobytes()

    def rows(self) -> Array:
        """The values in the order of the matrix of codes."""
        codes = _codes_of(self.tensor)
        return matrix.to_matrix(self.values(), codes.view, codes.perm, codes.row_axes)


def output_types(tensor: Tensor) -> list[int]:
    """Every type that a tensor can be decoded to, its own first."""
    others = [FLOAT, FLOAT16] if tensor.dtype_number in FLOATS else []
    return [tensor.dtype_number, *(other for other in others if other != tensor.dtype_number)]


def slices(tensor: Tensor) -> int:
    """How many slices the first axis has; a scalar has one."""
    return tensor.shape[0] if tensor.shape else 1


def bits_of_slice(tensor: Tensor) -> int:
    """Bits of one slice in the tensor's own type."""
    return math.prod(tensor.shape[1:]) * dtypes.bits(tensor.dtype_number)


def _codes_of(tensor: Tensor) -> Any:
    return getattr(tensor.message, tensor.encoding).codes


def positions(tensor: Tensor) -> Array:
    """The place in the tensor's own order of each element of the matrix of codes."""
    codes = _codes_of(tensor)
    order = np.arange(tensor.elements).reshape(tensor.shape)
    return matrix.to_matrix(order, codes.view, codes.perm, codes.row_axes)


def rows_per_block(tensor: Tensor) -> int:
    """B of the matrix of codes."""
    return int(_codes_of(tensor).rows_per_block)
