"""Indices that lie bit after bit in a run of bytes, the first in the high bits: ccv's blocks, Q-CNN's chunks, PNG."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

Bytes = npt.NDArray[np.uint8]


def unpack(packed: Bytes, bits: int, count: int) -> Bytes:
    """The first ``count`` indices of ``bits`` bits each, 1 to 8; ``packed`` has at least the bytes that they take.

    >>> unpack(np.array([0b10110100], np.uint8), 3, 2).tolist()
    [5, 5]
    """
    out = np.empty(count, np.uint8)
    # Eight indices take ``bits`` whole bytes: every eighth begins at the same bit of a byte.
    for first in range(8):
        byte, bit = divmod(first * bits, 8)
        wanted = out[first::8]
        pairs = packed[byte::bits][: wanted.size].astype(np.uint16) << 8
        if bit + bits > 8:
            pairs |= packed[byte + 1 :: bits][: wanted.size]
        wanted[:] = (pairs >> (16 - bits - bit)) & ((1 << bits) - 1)
    return out
