"""Which weights a matrix can do without, and what the others do about it: Optimal Brain Surgeon."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]
DAMPING = 0.1
"""of the mean of H's diagonal, added to it; SparseGPT's 0.01 did worse on inputs that were not seen, with half as many
samples again as columns"""
_BLOCK = 128
"""columns that are updated together"""


def smallest(magnitudes: Array, count: int) -> npt.NDArray[np.bool_]:
    """A mask of the ``count`` smallest values; of equal ones the first.

    >>> smallest(np.array([[3.0, 1.0], [1.0, 2.0]]), 1)
    array([[False,  True],
           [False, False]])
    """
    flat = magnitudes.reshape(-1)
    if count <= 0 or not flat.size:
        return np.zeros(magnitudes.shape, np.bool_)
    if count >= flat.size:
        return np.ones(magnitudes.shape, np.bool_)
    threshold = np.partition(flat, count - 1)[count - 1]
    mask = flat < threshold
    ties = np.flatnonzero(flat == threshold)
    mask[ties[: count - int(np.count_nonzero(mask))]] = True
    return np.asarray(mask.reshape(magnitudes.shape))


def inverse_factor(moments: Array) -> Array:
    """The upper triangular U with U^T U = (H + damping)^-1; columns that no input reaches count as 1.

    U's row j is what a change in column j asks of the columns behind it, once those before it are settled.
    """
    damped = moments.copy()
    diagonal = np.einsum("ii->i", damped)
    diagonal[diagonal == 0] = 1.0
    diagonal += DAMPING * diagonal.mean()
    # H = R R^T with R upper triangular: Cholesky's factor of H read backwards. Then U is the inverse of R.
    return _inverse_upper(np.linalg.cholesky(damped[::-1, ::-1])[::-1, ::-1])


def _inverse_upper(matrix: Array) -> Array:
    """The inverse of an upper triangular matrix, by halves."""
    size = len(matrix)
    if size <= _BLOCK:
        return np.asarray(np.triu(np.linalg.inv(matrix)))
    half = size // 2
    out = np.zeros_like(matrix, order="C")
    first, last = _inverse_upper(matrix[:half, :half]), _inverse_upper(matrix[half:, half:])
    out[:half, :half], out[half:, half:] = first, last
    out[:half, half:] = -(first @ matrix[:half, half:]) @ last
    return out


def surgeon(matrix: Array, moments: Array, sparsity: float) -> Array:
    """The matrix (outputs x columns, float64) with a share of its weights zeroed and the others corrected for it.

    A weight's saliency is w^2 / [H^-1]_jj, the least error of the response that zeroing it costs (Hassibi & Stork
    1993); rows share H, as it belongs to the inputs. Columns are settled from left to right, H^-1 being that of the
    columns which still may change, so that no row needs an inverse of its own (SparseGPT, arXiv 2301.00774); each
    block of columns loses the same share.
    """
    columns = np.ascontiguousarray(matrix.T)
    factor = inverse_factor(moments)
    done = 0
    for start in range(0, len(columns), _BLOCK):
        stop = min(start + _BLOCK, len(columns))
        block = columns[start:stop]
        count = round(sparsity * matrix.shape[0] * stop) - done
        done += count
        mask = smallest(np.square(block / np.diagonal(factor)[start:stop, None]), count)
        errors = np.empty_like(block)
        for column in range(stop - start):
            row = factor[start + column, start:stop]
            errors[column] = np.where(mask[column], block[column], 0.0) / row[column]
            block[column:] -= row[column:, None] * errors[column]
            block[column, mask[column]] = 0.0
        columns[stop:] -= factor[start:stop, stop:].T @ errors
    return columns.T
