"""Levels and steps -> a palette with a scale for each row (spec/tensors.md §5.2)."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from mobilemodel.encodings.matrix import code_type
from mobilemodel.model import MatrixOrder, QuantizedValue
from mobilemodel.quantize.feedback import Rounded
from mobilemodel.v1 import bundle_pb2 as pb


def scaled_palette(rounded: Rounded, order: MatrixOrder) -> QuantizedValue:
    """A palette whose entries are the levels that occur, as multiples of a power of two, and whose scales are the
    rows' steps in units of it: a reader's products are those of levels and steps, to the last bit.

    >>> value = scaled_palette(Rounded(np.int32([[0, -1], [3, 0]]), np.float32([0.5, 1.0])), MatrixOrder())
    >>> value.tables.ravel().tolist(), value.scales.tolist(), value.codes.tolist()
    ([-0.5, 0.0, 1.5], [1.0, 2.0], [[1, 0], [2, 1]])
    """
    used, places = np.unique(rounded.levels, return_inverse=True)
    codes = places.reshape(rounded.levels.shape).astype(code_type(max(len(used), 1)))
    exponent = int(np.floor(np.log2(float(np.median(rounded.steps)))))
    unit = np.ldexp(1.0, exponent)
    encoding = pb.Palette()
    encoding.codes.view.extend(order.view)
    encoding.codes.perm.extend(order.perm)
    encoding.codes.row_axes = order.row_axes
    encoding.scales_by.row_group = 1
    tables = _narrow(used.astype(np.float64) * unit).reshape(1, -1, 1)
    return QuantizedValue(encoding, codes, tables, _narrow(rounded.steps.astype(np.float64) / unit))


def _narrow(values: npt.NDArray[np.float64]) -> npt.NDArray[Any]:
    """As float16 where that holds every value, else as float32."""
    with np.errstate(over="ignore"):
        half = values.astype(np.float16)
    return half if np.array_equal(half.astype(np.float64), values) else values.astype(np.float32)
