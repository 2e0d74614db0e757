"""Second moments H = E[x x^T] of a layer's inputs: checked, and what they say of an error in the layer's weights.

Columns are those of the weight's matrix (one row for each output, ``SourceTensor.order``). A convolution of several
groups has one matrix for each group.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from mobilemodel.errors import UsageError

Array = npt.NDArray[Any]


def checked(moments: Array, columns: int, groups: int, tensor: str) -> Array:
    """Second moments as float64, groups x columns x columns, symmetric, with 1 as the largest value.

    Nothing here depends on their scale. Takes columns x columns for one group, or for all groups alike, and groups x
    columns x columns. Raises UsageError for another shape, for values that are not finite, for a matrix that is not
    symmetric or has a negative diagonal.
    """
    shape = (columns, columns)
    if moments.shape not in (shape, (groups, *shape)):
        raise UsageError("the second moments of a layer's inputs", tensor=tensor, found=moments.shape,
                         expected=f"{columns} x {columns}, or {groups} of them")  # fmt: skip
    found = np.broadcast_to(np.asarray(moments, np.float64), (groups, *shape))
    if not np.isfinite(found).all():
        raise UsageError("the second moments of a layer's inputs are not finite", tensor=tensor,
                         advice="Are there values in the calibration data that are not finite?")  # fmt: skip
    diagonal = np.diagonal(found, axis1=1, axis2=2)
    largest = float(diagonal.max(initial=0.0))
    if (diagonal < 0).any() or np.abs(found - found.transpose(0, 2, 1)).max(initial=0.0) > 1e-6 * largest:
        raise UsageError("the second moments of a layer's inputs are no second moments", tensor=tensor,
                         expected="a symmetric matrix without negative values on its diagonal")  # fmt: skip
    return found / largest if largest > 0 else found


def response(rows: Array, moments: Array | None) -> float:
    """E |W x|^2 for rows (groups x outputs x columns) and inputs of these moments; |W|^2 without moments."""
    if moments is None:
        return float(np.square(rows).sum())
    return float(sum(np.sum((group @ moment) * group) for group, moment in zip(rows, moments, strict=True)))


def response_error(found: Array, wanted: Array, moments: Array | None) -> float:
    """Relative error of the response, a ratio of root mean squares; without moments of the weights."""
    power = response(wanted, moments)
    error = max(0.0, response(found - wanted, moments))
    if power <= 0:
        return 0.0 if error <= 0 else float("inf")
    return float(np.sqrt(error / power))
