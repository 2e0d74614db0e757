"""Two thin matrices for one: the arithmetic of low rank."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]


@dataclass(frozen=True)
class Spectrum:
    """The best subspaces of a matrix's outputs, best first."""

    directions: Array
    """outputs x k: orthonormal columns"""
    powers: Array
    """k: what each direction carries of E |W x|^2; falling"""

    def rank_for(self, energy: float) -> int:
        """The smallest rank whose directions carry this share of the whole.

        >>> Spectrum(np.eye(3), np.array([6.0, 3.0, 1.0])).rank_for(0.9)
        2
        """
        shares = np.cumsum(self.powers) / max(float(self.powers.sum()), np.finfo(np.float64).tiny)
        return min(int(np.searchsorted(shares, energy - 1e-12)) + 1, len(self.powers))


def spectrum(matrix: Array, moments: Array | None) -> Spectrum:
    """The directions of W x (outputs x inputs) for inputs with the second moments H; without moments, of W itself.

    They are the eigenvectors of W H W^T, and so the left singular vectors of W H^(1/2): projecting W on the first r,
    W' = U U^T W, minimises tr((W - W') H (W - W')^T), the mean squared error of the response, over all W' of rank r.
    No inverse of H is needed, so a singular H is welcome. W H^(1/2) is what SVD-LLM (arXiv 2403.07378) truncates.
    """
    gram = matrix @ matrix.T if moments is None else matrix @ moments @ matrix.T
    powers, directions = np.linalg.eigh((gram + gram.T) / 2)
    directions = directions[:, ::-1]
    # An eigenvector's sign is anyone's choice: its largest value is positive.
    largest = np.abs(directions).argmax(axis=0)
    signs = np.where(directions[largest, np.arange(directions.shape[1])] < 0, -1.0, 1.0)
    return Spectrum(directions * signs, np.maximum(powers[::-1], 0))


def factored(matrix: Array, directions: Array) -> tuple[Array, Array]:
    """W' = second @ first, the projection of W on the directions; their magnitudes are balanced for rounding."""
    first = directions.T @ matrix
    norms = np.sqrt(np.linalg.norm(first, axis=1))
    norms[norms == 0] = 1.0
    return first / norms[:, None], directions * norms
