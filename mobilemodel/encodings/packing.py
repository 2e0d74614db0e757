"""Codes <-> packed rows: PNG's packing, first code in the high bits, rows padded to a byte (spec/tensors.md §3.3)."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from mobilemodel.layout import MatrixShape, codes_shape

Codes = npt.NDArray[np.uint8] | npt.NDArray[np.uint16] | npt.NDArray[np.uint32]
Bytes = npt.NDArray[np.uint8]


def pack(codes: Codes, depth: int) -> Bytes:
    """Pack a rows x columns matrix of codes below 2^depth into rows of bytes.

    Depth 16 gives twice the rows: the high bytes of all rows, then the low bytes. Spare bits are 0.

    >>> pack(np.array([[1, 2, 3]], np.uint8), 4).tolist()
    [[18, 48]]
    """
    rows, columns = codes.shape
    if depth == 16:
        wide = codes.astype("<u2", copy=False)
        return np.concatenate([(wide >> 8).astype(np.uint8), (wide & 0xFF).astype(np.uint8)])
    narrow = codes.astype(np.uint8, copy=False)
    if depth == 8:
        return narrow
    if depth == 1:
        return np.packbits(narrow, axis=1)
    each = 8 // depth
    if columns % each:
        padded = np.zeros((rows, columns + each - columns % each), np.uint8)
        padded[:, :columns] = narrow
        narrow = padded
    packed = np.zeros((rows, narrow.shape[1] // each), np.uint8)
    for lane in range(each):
        packed |= narrow[:, lane::each] << np.uint8(8 - depth * (lane + 1))
    return packed


def unpack(raw: bytes | memoryview, rows: int, columns: int, depth: int) -> Codes:
    """Unpack rows x columns codes from the raw bytes of a matrix; the inverse of ``pack``."""
    shape = codes_shape(rows, columns, depth)
    packed = np.frombuffer(raw, np.uint8).reshape(shape.height, shape.row_bytes)
    if depth == 16:
        return (packed[:rows].astype(np.uint16) << np.uint16(8)) | packed[rows:]
    if depth == 8:
        return packed
    if depth == 1:
        return np.unpackbits(packed, axis=1, count=columns)
    each = 8 // depth
    mask = np.uint8((1 << depth) - 1)
    codes = np.empty((rows, packed.shape[1] * each), np.uint8)
    for lane in range(each):
        codes[:, lane::each] = (packed >> np.uint8(8 - depth * (lane + 1))) & mask
    return codes[:, :columns]


def spare_bits_are_zero(raw: bytes | memoryview, shape: MatrixShape) -> bool:
    """Whether the bits past each row's last code are 0, as writers leave them."""
    spare = shape.row_bytes * 8 - shape.width * shape.depth
    if not spare or not shape.raw_size:
        return True
    last = np.frombuffer(raw, np.uint8).reshape(shape.height, shape.row_bytes)[:, -1]
    return not (last & ((1 << spare) - 1)).any()
