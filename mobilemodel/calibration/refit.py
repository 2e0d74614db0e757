"""From moments to what a layer's weights are to reproduce: refitted, damped, with the mean left to the bias.

The layer's inputs are those of the quantized network, the response that of the float network: the refit corrects what
the layers before have lost (error correction, Wu et al. 2016). Ridge regression towards the float weights: where data
say little, the weights stay.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from mobilemodel.calibration.moments import Moments
from mobilemodel.errors import CheckFailedError
from mobilemodel.quantize.response import Float32, Float64, Response, response_error

_RESOLVED = 1e-6
"""share of the inputs' variance that sums of float32 products resolve: less damping would be none"""
_SMALLEST = 1e-30
"""power of inputs that are as good as zero"""


@dataclass(frozen=True)
class Problem:
    """A layer's quadratic, and what its bias needs."""

    response: Response
    mean_x: Float64
    """(groups, columns); zeros where the layer has no bias of its own"""
    mean_y: Float64
    """(rows,), of the response with its bias"""
    variance_y: Float64
    """(rows,), of the wanted response: what its error is compared with"""
    unexplained: Float64
    """(rows,), the least that error and damping together can be: those of the target"""
    strengths: Float64
    """(groups,), what damping added to the diagonal"""

    def errors(self, weights: Float32, exact: Float32) -> Float64:
        """The weighted mean square of each row's error on the data, (rows,): of the whole response, without damping.

        ``exact`` are the float weights, which the damping pulled to.
        """
        costs = self.response.row_weights
        apart = np.square(weights - exact, dtype=np.float64).sum(axis=1)
        damping = np.repeat(self.strengths, self.response.group_rows) * apart
        found: Float64 = response_error(self.response, weights) + (self.unexplained - damping) * costs
        return np.maximum(found, 0.0, out=found)

    def bias(self, weights: Float32) -> Float32:
        """The bias that gives the quantized weights (rows, columns) the wanted mean response."""
        groups = weights.reshape(len(self.mean_x), -1, weights.shape[1]).astype(np.float64)
        means = np.einsum("grc,gc->gr", groups, self.mean_x).reshape(-1)
        return np.asarray(self.mean_y - means, np.float32)


def make_problem(
    moments: Moments, weights: Float32, row_weights: Float64, *, damping: float, biased: bool
) -> Problem:
    """Refit a layer's weights (rows, columns) to its wanted response and set up the quadratic around them.

    ``damping`` is a share of the mean diagonal of the moments, about the mean where there is a bias: of a group's and
    of all groups' in equal parts, so that a group which sees next to nothing keeps its weights. ``biased`` says whether
    the layer has a bias of its own to take the means.
    """
    from scipy.linalg import cho_solve

    groups, columns = moments.sum_x.shape
    rows = len(weights) // groups
    mean_x = moments.sum_x / moments.count if biased else np.zeros_like(moments.sum_x)
    mean_y = moments.sum_y / moments.count
    target = np.empty(weights.shape, np.float32)
    damped = np.empty((groups, columns, columns), np.float32)
    explained, strengths = np.empty(weights.shape[0]), np.empty(groups)
    powers = _powers(moments, mean_x)
    for group in range(groups):
        here = slice(group * rows, (group + 1) * rows)
        covariance = moments.sum_xx[group] / moments.count
        crossed = moments.sum_xy[group] / moments.count
        if biased:
            covariance -= np.outer(mean_x[group], mean_x[group])
            crossed -= np.outer(mean_x[group], mean_y[group])
        power = float(np.trace(moments.sum_xx[group])) / moments.count / columns
        least = max(max(damping, _RESOLVED) * float(powers[group]), 1e-6 * _RESOLVED * power, _SMALLEST)
        factor, strength = _damp(covariance, least, power)
        crossed += strength * weights[here].T
        found = cho_solve(factor, crossed, check_finite=False)
        pulled = strength * np.square(weights[here], dtype=np.float64).sum(axis=1)
        explained[here] = np.einsum("cr,cr->r", found, crossed) - pulled
        target[here], damped[group], strengths[group] = found.T, covariance, strength
    flat_mean = mean_y.reshape(-1)
    variance = moments.sum_yy.reshape(-1) / moments.count - flat_mean**2 * biased
    variance = np.maximum(variance, 0.0)
    quadratic = Response(target, damped, row_weights)
    return Problem(quadratic, mean_x, flat_mean, variance, variance - explained, strengths)


def _powers(moments: Moments, mean_x: Float64) -> Float64:
    """Mean diagonal of each group's moments about the mean, (groups,), averaged with that of all groups."""
    diagonals = np.einsum("gii->gi", moments.sum_xx) / moments.count - np.square(mean_x)
    own: Float64 = diagonals.mean(axis=1)
    return np.asarray((own + own.mean()) / 2)


def _damp(covariance: Float64, strength: float, power: float) -> tuple[Any, float]:
    """Add ``strength`` to the diagonal in place; its factors, and the strength.

    It is raised where rounding has left the covariance of inputs that hardly change without its last digits.
    """
    from scipy.linalg import LinAlgError, cho_factor

    diagonal, added = np.diag_indices(len(covariance)), 0.0
    while True:
        covariance[diagonal] += strength - added
        try:
            return cho_factor(covariance, check_finite=False), strength
        except LinAlgError:
            if strength > power:
                raise CheckFailedError("a layer's moments are not positive definite") from None
            added, strength = strength, 10 * strength


def as_float32(array: npt.NDArray[Any]) -> Float32:
    """The array in float32, contiguous."""
    return np.ascontiguousarray(array, np.float32)
