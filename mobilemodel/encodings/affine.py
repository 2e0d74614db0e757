"""Affine tensors: float32(code - zero) x scale, one multiplication (spec/tensors.md §6)."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt

from mobilemodel.encodings import matrix
from mobilemodel.encodings.packing import Codes
from mobilemodel.encodings.payloads import PayloadSource, PayloadWriter, read_slice
from mobilemodel.layout import CodesLayout
from mobilemodel.v1 import bundle_pb2 as pb

Float32 = npt.NDArray[np.float32]
Zeros = npt.NDArray[np.uint8] | npt.NDArray[np.uint16]


def read_scales(source: PayloadSource, affine: pb.Affine) -> Float32:
    """The scale of each group."""
    return np.frombuffer(read_slice(source, affine.scales), "<f4").copy()


def read_zeros(source: PayloadSource, affine: pb.Affine, layout: CodesLayout) -> Zeros:
    """The zero point of each group; absent ones are 2^(depth - 1)."""
    kind = "<u2" if layout.depth == 16 else "u1"
    if affine.HasField("zeros"):
        return np.frombuffer(read_slice(source, affine.zeros), kind).copy()
    return np.full(layout.tables(affine.by), 1 << (layout.depth - 1), kind)


def decode_blocks(source: PayloadSource, affine: pb.Affine, layout: CodesLayout) -> Iterator[tuple[int, Float32]]:
    """Decode block by block: the first row of each, and its rows x columns values in float32."""
    scales = read_scales(source, affine)
    zeros = read_zeros(source, affine, layout).astype(np.int32)
    for first_row, codes in matrix.read_blocks(source, layout):
        groups = matrix.group_index(layout, affine.by, first_row, len(codes))
        shape = (len(codes), layout.segments, layout.subvectors)
        steps = codes.reshape(shape).astype(np.int32) - zeros[groups][:, None, :]
        values = steps.astype(np.float32)
        with np.errstate(all="ignore"):
            values *= scales[groups][:, None, :]
        yield first_row, values.reshape(len(codes), layout.columns)


def encode(
    writer: PayloadWriter,
    out: pb.Affine,
    codes: Codes,
    depth: int,
    scales: Float32,
    zeros: Zeros | None,
    *,
    block_bytes: int = matrix.BLOCK_BYTES,
) -> None:
    """Write codes (rows x columns) of ``depth`` bits with their scales and zero points, and fill in ``out``.

    ``zeros`` None means 2^(depth - 1) everywhere. The caller has set ``out.codes``' view, perm and row_axes, and
    ``out.by``.
    """
    out.codes.vector = 1
    matrix.write_codes(writer, out.codes, codes, 1 << depth, may_split=False, block_bytes=block_bytes)
    writer.add_piece(scales.astype("<f4").tobytes(), out.scales)
    if zeros is not None:
        writer.add_piece(zeros.astype("<u2" if depth == 16 else "u1").tobytes(), out.zeros)
