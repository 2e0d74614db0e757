"""Calibration data: prepared batches, in an order and number that do not depend on anything but the settings."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from mobilemodel.errors import UsageError
from mobilemodel.runtime.data import Data, Prepare

Array = npt.NDArray[Any]
BATCH = 64
"""samples, at most"""
BATCH_BYTES = 2**22
"""of a batch's inputs, at most, unless one sample has more: a network's values between the layers take over a hundred
times as much (SqueezeNet at 227 x 227: 140 times)"""


@dataclass(frozen=True)
class Samples:
    """Data as the network takes them: each sample, then mirrored where ``mirror_axis`` names the axis of columns."""

    data: Data
    prepare: Prepare
    input: str
    mirror_axis: int | None = None
    fixed: int | None = None
    """the only batch size that the network takes, a rest that does not fill one is left out; None: any"""

    def __len__(self) -> int:
        return len(self.data) * (1 if self.mirror_axis is None else 2)

    def limited(self, samples: int) -> Samples:
        """About ``samples`` of them, evenly spread; at least one."""
        views = 1 if self.mirror_axis is None else 2
        return replace(self, data=self.data.spread(max(self.fixed or 1, samples // views)))

    def plain(self) -> Samples:
        """The samples as they are, none mirrored."""
        return replace(self, mirror_axis=None)

    def batches(self) -> Iterator[Array]:
        """The samples in order, in batches of BATCH and BATCH_BYTES or of ``fixed`` samples, each batch once as it is
        and once mirrored."""
        size = BATCH if self.fixed is None else self.fixed
        for tensors in self.data.batches(size, self.prepare):
            if self.fixed is not None and len(tensors) < size:
                return
            if self.mirror_axis is not None and self.mirror_axis >= tensors.ndim:
                raise UsageError("there is no axis of columns to mirror", found=list(tensors.shape))
            for batch in self._cut(tensors):
                yield batch
                if self.mirror_axis is not None:
                    yield np.ascontiguousarray(np.flip(batch, self.mirror_axis))

    def _cut(self, tensors: Array) -> Iterator[Array]:
        whole = self.fixed is not None or tensors.nbytes <= BATCH_BYTES
        step = len(tensors) if whole else max(BATCH_BYTES * len(tensors) // tensors.nbytes, 1)
        for start in range(0, len(tensors), step):
            yield tensors[start : start + step]
