"""Second moments of a layer's inputs, and with the response that they are to give, summed over the samples."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from mobilemodel.calibration.layers import Layer, Window
from mobilemodel.errors import CheckFailedError

Array = npt.NDArray[Any]
Float64 = npt.NDArray[np.float64]
_GATHERED = 4096
"""rows that are multiplied at a time"""
POSITIONS = 48
"""places of a convolution's output that are looked at in each sample"""


class Moments:
    """Sums over rows of inputs x (groups, n, columns) and responses y (groups, n, rows of a group)."""

    def __init__(self, groups: int, columns: int, rows: int) -> None:
        self.count = 0
        self.sum_x = np.zeros((groups, columns))
        self.sum_y = np.zeros((groups, rows))
        self.sum_yy = np.zeros((groups, rows))
        self.sum_xx = np.zeros((groups, columns, columns))
        self.sum_xy = np.zeros((groups, columns, rows))
        self._waiting: list[tuple[Array, Array]] = []
        self._held = 0

    def add(self, x: Array, y: Array) -> None:
        """Add rows in float32: x (groups, n, columns) and y (groups, n, rows)."""
        self._waiting.append((x, y))
        self._held += x.shape[1]
        if self._held >= _GATHERED:
            self.flush()

    def flush(self) -> None:
        """Multiply what was gathered."""
        if not self._waiting:
            return
        x, y = (np.concatenate([pair[side] for pair in self._waiting], axis=1) for side in (0, 1))
        self._waiting, self._held = [], 0
        self.count += x.shape[1]
        near_x, near_y = x.mean(axis=1), y.mean(axis=1)
        for group in range(len(x)):
            self._multiply(group, x[group], y[group], near_x[group], near_y[group])
        self.sum_x += x.sum(axis=1, dtype=np.float64)
        self.sum_y += y.sum(axis=1, dtype=np.float64)
        self.sum_yy += np.einsum("gnr,gnr->gr", y, y, dtype=np.float64)

    def _multiply(self, group: int, x: Array, y: Array, near_x: Array, near_y: Array) -> None:
        """Add a group's products. Means are taken out before the products in float32 and put back in float64: where
        they are large beside the deviations, nothing would be left of those."""
        from_x, from_y = x - near_x, y - near_y
        rest_x, rest_y = from_x.sum(axis=0, dtype=np.float64), from_y.sum(axis=0, dtype=np.float64)
        mean_x, mean_y = near_x.astype(np.float64), near_y.astype(np.float64)
        self.sum_xx[group] += from_x.T @ from_x
        self.sum_xx[group] += np.outer(rest_x, mean_x) + np.outer(mean_x, rest_x + len(x) * mean_x)
        self.sum_xy[group] += from_x.T @ from_y
        self.sum_xy[group] += np.outer(rest_x, mean_y) + np.outer(mean_x, rest_y + len(x) * mean_y)


@dataclass(frozen=True)
class Places:
    """Which places of a convolution's output are looked at: a few of each sample, drawn anew for each batch."""

    seed: int

    def choose(self, batch: int, samples: int, positions: int) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
        """Indices of samples and of positions, both (n,)."""
        if positions <= POSITIONS:
            return np.divmod(np.arange(samples * positions), positions)
        generator = np.random.default_rng((self.seed, batch))
        chosen = generator.integers(positions, size=samples * POSITIONS)
        return np.repeat(np.arange(samples), POSITIONS), chosen


def layer_rows_of(layer: Layer, x: Array, y: Array, places: Places, batch: int) -> tuple[Array, Array]:
    """The rows of a batch: inputs (groups, n, columns) and responses (groups, n, rows of a group), float32.

    A convolution's input is cut into windows at some places; columns are in the order of the weight's matrix.
    """
    if layer.window is None:
        return x.reshape(1, -1, x.shape[-1]), y.reshape(1, -1, y.shape[-1])
    return _windows(layer.window, x, y, places, batch)


def _windows(window: Window, x: Array, y: Array, places: Places, batch: int) -> tuple[Array, Array]:
    rank = len(window.kernel)
    before, after = window.pads[:rank], window.pads[rank:]
    padded = np.pad(x, [(0, 0), (0, 0), *zip(before, after, strict=True)])
    sizes = y.shape[2:]
    samples, positions = places.choose(batch, len(x), int(np.prod(sizes)))
    starts = np.unravel_index(positions, sizes)
    groups, channels = window.groups, x.shape[1] // window.groups
    taps = np.indices(window.kernel).reshape(rank, -1)
    index = [
        start[:, None] * stride + tap[None, :] * dilation
        for start, stride, tap, dilation in zip(starts, window.strides, taps, window.dilations, strict=True)
    ]
    # n x taps x channels: the order of the matrix is taps, then the channels of a group.
    everything: Any = slice(None)
    cut = padded[(samples[:, None], everything, *index)]
    cut = cut.reshape(*cut.shape[:2], groups, channels).transpose(2, 0, 1, 3).reshape(groups, len(samples), -1)
    found = y[(samples, everything, *starts)].reshape(len(samples), groups, -1).transpose(1, 0, 2)
    return cut, found


def check_moments(moments: Moments, layer: Layer) -> None:
    """Raise CheckFailedError where sums are not finite, or no input ever differed from zero."""
    if not (np.isfinite(moments.sum_xx).all() and np.isfinite(moments.sum_xy).all()):
        raise CheckFailedError("moments of the calibration data are not finite", layer=layer.name)
    if not moments.count or not np.einsum("gii->g", moments.sum_xx).any():
        raise CheckFailedError(
            "the layer's inputs are zero on all calibration data", layer=layer.name,
            advice="Check the preprocessing, or give data that reach this layer.",
        )  # fmt: skip
