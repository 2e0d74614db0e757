"""Arrays in pieces that stay in the processor's cache: temporaries are small however large the tensor is."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TypeVar

import numpy as np
import numpy.typing as npt

# 256 Ki weights keep every temporary (int64 indices inside bincount: 2 MiB) in the cache; larger pieces are no
# faster and cost memory.
CHUNK = 1 << 18

_Item = TypeVar("_Item", bound=np.generic)


def pieces(values: npt.NDArray[_Item]) -> Iterator[npt.NDArray[_Item]]:
    """1-D pieces of at most CHUNK elements in C order; copies only where the layout is not contiguous.

    >>> [piece.tolist() for piece in pieces(np.array([[1, 2], [3, 4]]))]
    [[1, 2, 3, 4]]
    """
    if values.size == 0:
        return
    if values.flags.c_contiguous:
        flat = values.reshape(-1)
        for start in range(0, flat.size, CHUNK):
            yield flat[start : start + CHUNK]
        return
    with np.nditer(values, flags=["external_loop", "buffered"], order="C", buffersize=CHUNK) as buffers:
        for piece in buffers:
            yield np.asarray(piece)
