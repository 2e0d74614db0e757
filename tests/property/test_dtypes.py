"""Element types: ONNX's numbers, widths and packing (format 1.0 §4: 'Dense bytes are exactly ONNX raw_data')."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from onnx import numpy_helper

from mobilemodel import dtypes
from mobilemodel.dtypes import DType
from mobilemodel.errors import UnsupportedEncodingError

KNOWN = sorted(DType)


def test_numbers_are_those_of_onnx() -> None:
    """'dtype is the decoded type as onnx.TensorProto.DataType', each type but strings."""
    numbers = dict(onnx.TensorProto.DataType.items())
    for dtype in DType:
        assert numbers.get(dtype.name, int(dtype)) == dtype
    # onnx adds numbers at the end; those of format 1.0 end at 26.
    assert {number for number in numbers.values() if number <= 26} - {0, numbers["STRING"]} <= set(DType)


@pytest.mark.parametrize("dtype", KNOWN)
def test_widths(dtype: DType) -> None:
    """'any fixed-size dtype': the size of raw data follows from the type."""
    width = dtypes.bits(dtype)
    assert dtypes.raw_size(dtype, 5) == -(-5 * width // 8)
    assert dtypes.numpy_dtype(dtype).itemsize == max(1, width // 8)
    assert dtypes.name(dtype) == dtypes.numpy_dtype(dtype).name


@given(st.sampled_from([d for d in KNOWN if d <= DType.FLOAT4E2M1 or d == DType.FLOAT8E8M0]), st.integers(0, 40),
       st.integers(0, 2**32 - 1))  # fmt: skip
def test_arrays_are_those_of_onnx(dtype: DType, elements: int, seed: int) -> None:
    """'Dense bytes are exactly ONNX raw_data': onnx reads the same values from the same bytes."""
    raw = np.random.default_rng(seed).integers(0, 256, dtypes.raw_size(dtype, elements), np.uint8)
    if dtype is DType.BOOL:
        raw &= 1
    found = dtypes.from_raw(raw.tobytes(), dtype, (elements,))
    tensor = onnx.TensorProto(data_type=int(dtype), dims=[elements], raw_data=raw.tobytes())
    expected = numpy_helper.to_array(tensor)
    assert found.dtype.name == expected.dtype.name
    assert found.tobytes() == expected.tobytes()


@pytest.mark.parametrize(("dtype", "expected"), [(DType.UINT2, [3, 2, 1, 0, 1]), (DType.INT2, [-1, -2, 1, 0, 1])])
def test_two_bits(dtype: DType, expected: list[int]) -> None:
    """'Sub-byte types share bytes, the first in the low bits.'"""
    assert dtypes.from_raw(bytes([0b00_01_10_11, 0b01]), dtype, (5,)).astype(int).tolist() == expected


@pytest.mark.parametrize("number", [0, 8, 27, -1, 2**31 - 1])
def test_unknown_types(number: int) -> None:
    """An element type of a later version: 'that tensor fails as unsupported, all else works'."""
    assert not dtypes.is_known(number)
    assert dtypes.name(number) == f"dtype {number}"
    with pytest.raises(UnsupportedEncodingError):
        dtypes.numpy_dtype(number)
