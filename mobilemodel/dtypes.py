"""The element types of tensors: onnx.TensorProto.DataType numbers, their names, widths and numpy types.

Source: ONNX IR, TensorProto.DataType; spec/tensors.md §2.
"""

from __future__ import annotations

import math
from enum import IntEnum
from typing import Any

import numpy as np

from mobilemodel.errors import UnsupportedEncodingError


class DType(IntEnum):
    """Fixed-size element types; strings have no place in a bundle's tensors."""

    FLOAT = 1
    UINT8 = 2
    INT8 = 3
    UINT16 = 4
    INT16 = 5
    INT32 = 6
    INT64 = 7
    BOOL = 9
    FLOAT16 = 10
    DOUBLE = 11
    UINT32 = 12
    UINT64 = 13
    COMPLEX64 = 14
    COMPLEX128 = 15
    BFLOAT16 = 16
    FLOAT8E4M3FN = 17
    FLOAT8E4M3FNUZ = 18
    FLOAT8E5M2 = 19
    FLOAT8E5M2FNUZ = 20
    UINT4 = 21
    INT4 = 22
    FLOAT4E2M1 = 23
    FLOAT8E8M0 = 24
    UINT2 = 25
    INT2 = 26


QUANTIZABLE = frozenset((DType.FLOAT, DType.FLOAT16))
"""what palette and affine tensors decode to (spec/tensors.md §5, §6)"""

_BITS = {
    DType.FLOAT: 32, DType.UINT8: 8, DType.INT8: 8, DType.UINT16: 16, DType.INT16: 16, DType.INT32: 32,
    DType.INT64: 64, DType.BOOL: 8, DType.FLOAT16: 16, DType.DOUBLE: 64, DType.UINT32: 32, DType.UINT64: 64,
    DType.COMPLEX64: 64, DType.COMPLEX128: 128, DType.BFLOAT16: 16, DType.FLOAT8E4M3FN: 8, DType.FLOAT8E4M3FNUZ: 8,
    DType.FLOAT8E5M2: 8, DType.FLOAT8E5M2FNUZ: 8, DType.UINT4: 4, DType.INT4: 4, DType.FLOAT4E2M1: 4,
    DType.FLOAT8E8M0: 8, DType.UINT2: 2, DType.INT2: 2,
}  # fmt: skip

_NATIVE = {
    DType.FLOAT: "<f4", DType.UINT8: "u1", DType.INT8: "i1", DType.UINT16: "<u2", DType.INT16: "<i2",
    DType.INT32: "<i4", DType.INT64: "<i8", DType.BOOL: "?", DType.FLOAT16: "<f2", DType.DOUBLE: "<f8",
    DType.UINT32: "<u4", DType.UINT64: "<u8", DType.COMPLEX64: "<c8", DType.COMPLEX128: "<c16",
}  # fmt: skip

_EXTENDED = {
    DType.BFLOAT16: "bfloat16", DType.FLOAT8E4M3FN: "float8_e4m3fn", DType.FLOAT8E4M3FNUZ: "float8_e4m3fnuz",
    DType.FLOAT8E5M2: "float8_e5m2", DType.FLOAT8E5M2FNUZ: "float8_e5m2fnuz", DType.UINT4: "uint4", DType.INT4: "int4",
    DType.FLOAT4E2M1: "float4_e2m1fn", DType.FLOAT8E8M0: "float8_e8m0fnu", DType.UINT2: "uint2", DType.INT2: "int2",
}  # fmt: skip


def is_known(number: int) -> bool:
    """Whether ``number`` is an element type that a bundle can hold."""
    return number in _BITS


def is_native(number: int) -> bool:
    """Whether numpy itself has the element type; all others come from ml_dtypes."""
    return number in _NATIVE


def bits(dtype: int) -> int:
    """Bits of one element.

    >>> bits(DType.INT4)
    4
    """
    return _BITS[DType(dtype)]


def raw_size(dtype: int, elements: int) -> int:
    """Bytes of ``elements`` packed as ONNX ``raw_data``: sub-byte types share bytes, the first in the low bits."""
    return (elements * bits(dtype) + 7) // 8


def name(dtype: int) -> str:
    """Lower-case name for people: ``float32`` rather than ``FLOAT``.

    >>> name(1), name(16)
    ('float32', 'bfloat16')
    """
    if not is_known(dtype):
        return f"dtype {dtype}"
    known = DType(dtype)
    return np.dtype(_NATIVE[known]).name if known in _NATIVE else _EXTENDED[known]


def numpy_dtype(dtype: int) -> np.dtype[Any]:
    """The numpy type of one element; those that numpy lacks come from ml_dtypes.

    Raises UnsupportedEncodingError for numbers that format 1.0 does not know.
    """
    if not is_known(dtype):
        raise UnsupportedEncodingError("unknown element type", found=dtype)
    known = DType(dtype)
    if known in _NATIVE:
        return np.dtype(_NATIVE[known])
    import ml_dtypes

    extended: np.dtype[Any] = np.dtype(getattr(ml_dtypes, _EXTENDED[known]))
    return extended


def from_raw(raw: bytes | bytearray | memoryview, dtype: int, dims: tuple[int, ...]) -> np.ndarray[Any, np.dtype[Any]]:
    """View ONNX ``raw_data`` as an array of ``dims``; sub-byte elements are unpacked into one byte each."""
    width = bits(dtype)
    elements = math.prod(dims)
    if width >= 8:
        return np.frombuffer(raw, numpy_dtype(dtype)).reshape(dims)
    packed = np.frombuffer(raw, np.uint8)
    shifts = np.arange(0, 8, width, dtype=np.uint8)
    codes = ((packed[:, None] >> shifts) & ((1 << width) - 1)).reshape(-1)[:elements]
    if DType(dtype) in (DType.INT4, DType.INT2):
        codes = (codes.astype(np.int8) << (8 - width)) >> (8 - width)
        return codes.astype(numpy_dtype(dtype)).reshape(dims)
    if DType(dtype) is DType.FLOAT4E2M1:
        return codes.view(numpy_dtype(dtype)).reshape(dims)
    return codes.astype(numpy_dtype(dtype)).reshape(dims)
