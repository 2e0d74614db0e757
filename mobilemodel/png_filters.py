"""The row filters of PNG undone, for the codec png and for converters that read PNG (PNG, third edition, §9)."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from mobilemodel.errors import MalformedStreamError

Rows = npt.NDArray[np.uint8]


def unfilter(filtered: Rows) -> bytes:
    """Undo the row filters 0 to 4 of one byte per pixel; column 0 holds each row's filter type."""
    kinds = filtered[:, 0]
    if not kinds.any():
        return filtered[:, 1:].tobytes()
    if kinds.max() > 4:
        raise MalformedStreamError("PNG filter type", expected="0 to 4", found=int(kinds.max()))
    rows = filtered[:, 1:].copy()
    above = np.zeros(rows.shape[1], np.uint8)
    for row, kind in zip(rows, kinds.tolist(), strict=True):
        if kind == 1:
            np.cumsum(row, dtype=np.uint8, out=row)
        elif kind == 2:
            row += above
        elif kind >= 3:
            row[:] = (_average if kind == 3 else _paeth)(row.tolist(), above.tolist())
        above = row
    return rows.tobytes()


def _average(row: list[int], above: list[int]) -> list[int]:
    left = 0
    out = []
    for value, up in zip(row, above, strict=True):
        left = (value + (left + up) // 2) & 0xFF
        out.append(left)
    return out


def _paeth(row: list[int], above: list[int]) -> list[int]:
    left = corner = 0
    out = []
    for value, up in zip(row, above, strict=True):
        to_left, to_up, to_corner = abs(up - corner), abs(left - corner), abs(left + up - 2 * corner)
        nearest = up if to_up <= to_corner else corner
        if to_left <= to_up and to_left <= to_corner:
            nearest = left
        left = (value + nearest) & 0xFF
        out.append(left)
        corner = up
    return out
