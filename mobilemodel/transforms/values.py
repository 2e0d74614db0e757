"""Values of tensors: read as arrays, made from arrays, scaled when they are read."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt

from mobilemodel import dtypes
from mobilemodel.dtypes import DType
from mobilemodel.errors import MalformedSourceError
from mobilemodel.model import Buffer, SourceTensor

Array = npt.NDArray[Any]
FLOATS = frozenset((DType.FLOAT, DType.FLOAT16, DType.DOUBLE, DType.BFLOAT16))
"""element types that transforms compute with"""
_PIECE = 1 << 22
"""values that are widened to float64 at a time"""


def read(tensor: SourceTensor) -> Array:
    """A tensor's value as an array of its own type, not to be written to.

    Raises MalformedSourceError where the source gives another size than the dims ask for.
    """
    raw = tensor.read()
    if len(raw) != tensor.raw_bytes:
        raise MalformedSourceError("a tensor's value has another size than its dims", tensor=tensor.name)
    return dtypes.from_raw(raw, tensor.dtype, tensor.dims)


def raw(values: Array) -> memoryview:
    """An array as ONNX ``raw_data``, without a copy where it is contiguous."""
    return np.ascontiguousarray(values).reshape(-1).view(np.uint8).data


def holding(tensor: SourceTensor, values: Array) -> SourceTensor:
    """The same tensor with these values, kept in memory in the tensor's type; its dims become theirs."""
    stored = rounded(values, tensor.dtype)
    return replace(tensor, dims=tuple(stored.shape), read=partial(raw, stored), quantized=None)


def rounded(values: Array, dtype: int) -> Array:
    """Values in an element type; what does not fit becomes infinite without a warning."""
    with np.errstate(over="ignore"):
        return np.ascontiguousarray(values.astype(dtypes.numpy_dtype(dtype)))


def resolution(dtype: int) -> float:
    """The step from 1 to the next value of a floating-point type; rounding costs about a fifth of it."""
    import ml_dtypes

    info: Any = ml_dtypes.finfo
    return float(info(dtypes.numpy_dtype(dtype)).eps)


def scaled(tensor: SourceTensor, factors: Array) -> SourceTensor:
    """The tensor times ``factors`` (float64, of its rank, broadcast against it), computed anew at each read."""
    return replace(tensor, read=partial(_read_scaled, tensor, factors), quantized=None)


def _read_scaled(tensor: SourceTensor, factors: Array) -> Buffer:
    out = np.empty(tensor.dims, dtypes.numpy_dtype(tensor.dtype))
    for rows, product in _products(tensor, factors):
        out[rows] = rounded(product, tensor.dtype)
    return raw(out)


def _products(tensor: SourceTensor, factors: Array) -> Iterator[tuple[slice, Array]]:
    """The float64 product in slices of the first axis."""
    values = read(tensor)
    step = max(1, _PIECE // max(1, values[:1].size))
    for start in range(0, len(values), step):
        rows = slice(start, start + step)
        yield rows, values[rows].astype(np.float64) * (factors[rows] if len(factors) > 1 else factors)


def scaling_loss(tensor: SourceTensor, factors: Array) -> float:
    """Relative error (root mean squares) of rounding ``scaled(tensor, factors)`` to its type; infinite where a value
    is not finite, before or after."""
    error = power = 0.0
    for _, product in _products(tensor, factors):
        stored = rounded(product, tensor.dtype).astype(np.float64)
        if not np.isfinite(stored).all():
            return float("inf")
        error += float(np.square(stored - product).sum())
        power += float(np.square(product).sum())
    return float(np.sqrt(error / power)) if power else 0.0


def relative_error(found: Array, wanted: Array) -> float:
    """Root mean square of the difference over that of ``wanted``; 0 where both are nothing."""
    error = float(np.square(np.asarray(found, np.float64) - wanted).sum())
    power = float(np.square(np.asarray(wanted, np.float64)).sum())
    if not power:
        return float("inf") if error else 0.0
    return float(np.sqrt(error / power))
