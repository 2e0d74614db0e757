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
        """The samples in order, BATCH or ``fixed`` at a time, each batch once as it is and once mirrored."""
        size = BATCH if self.fixed is None else self.fixed
        for tensors in self.data.batches(size, self.prepare):
            if self.fixed is not None and len(tensors) < size:
                return
            if self.mirror_axis is not None and self.mirror_axis >= tensors.ndim:
                raise UsageError("there is no axis of columns to mirror", found=list(tensors.shape))
            yield tensors
            if self.mirror_axis is not None:
                yield np.ascontiguousarray(np.flip(tensors, self.mirror_axis))
