"""Palette tensors: M[r, c] = tables[t][code[r, n]][j], times a scale where there is one (spec/tensors.md §5)."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt

from mobilemodel.encodings import matrix
from mobilemodel.encodings.packing import Codes
from mobilemodel.encodings.payloads import PayloadSource, PayloadWriter, read_slice
from mobilemodel.layout import CodesLayout
from mobilemodel.v1 import bundle_pb2 as pb

Float32 = npt.NDArray[np.float32]
_TYPES: dict[int, str] = {pb.FLOAT_TYPE_F16: "<f2", pb.FLOAT_TYPE_F32: "<f4"}


def _read_floats(source: PayloadSource, piece: pb.Slice, float_type: int) -> npt.NDArray[Any]:
    return np.frombuffer(read_slice(source, piece), _TYPES[float_type]).copy()


def read_tables(source: PayloadSource, palette: pb.Palette, layout: CodesLayout) -> npt.NDArray[Any]:
    """All tables in their stored type: tables x entries x vector."""
    return _read_floats(source, palette.tables, palette.table_type).reshape(-1, palette.entries, layout.vector)


def read_scales(source: PayloadSource, palette: pb.Palette) -> npt.NDArray[Any] | None:
    """The scale of each group in its stored type, flat; None for a palette without scales."""
    return _read_floats(source, palette.scales, palette.scale_type) if palette.HasField("scales") else None


def decode_blocks(source: PayloadSource, palette: pb.Palette, layout: CodesLayout) -> Iterator[tuple[int, Float32]]:
    """Decode block by block: the first row of each, and its rows x columns values in float32.

    A code at or past ``entries`` decodes to +0.0, whatever the table (spec/tensors.md §5.3).
    """
    # Tables of a damaged bundle may hold signalling NaNs and infinities: they decode, and `verify` reports them.
    with np.errstate(all="ignore"):
        tables = read_tables(source, palette, layout).astype(np.float32)
        stored_scales = read_scales(source, palette)
        scales = None if stored_scales is None else stored_scales.astype(np.float32)
    simple = len(tables) == 1 and layout.vector == 1 and scales is None
    lookup = np.zeros(max(layout.index_range, palette.entries), np.float32)
    if simple:
        lookup[: palette.entries] = tables.reshape(-1)
    for first_row, codes in matrix.read_blocks(source, layout):
        if simple:
            yield first_row, lookup[codes]
        else:
            yield first_row, _decode_block(palette, layout, tables, scales, first_row, codes)


def _decode_block(
    palette: pb.Palette, layout: CodesLayout, tables: Float32, scales: Float32 | None, first_row: int, codes: Codes
) -> Float32:
    rows = len(codes)
    indices = codes.reshape(rows, layout.segments, layout.subvectors).astype(np.int64)
    over = indices >= palette.entries
    np.minimum(indices, palette.entries - 1, out=indices)
    indices += palette.entries * matrix.group_index(layout, palette.tables_by, first_row, rows)[:, None, :]
    values = tables.reshape(-1, layout.vector)[indices]
    if over.any():
        values[over] = 0.0
    if scales is not None:
        with np.errstate(all="ignore"):
            values *= scales[matrix.group_index(layout, palette.scales_by, first_row, rows)][:, None, :, None]
    spread = values.reshape(rows, layout.segments, layout.subvectors * layout.vector)
    return np.ascontiguousarray(spread[:, :, : layout.segment]).reshape(rows, layout.columns)


def encode(
    writer: PayloadWriter,
    out: pb.Palette,
    codes: Codes,
    tables: npt.NDArray[Any],
    *,
    scales: npt.NDArray[Any] | None = None,
    block_bytes: int = matrix.BLOCK_BYTES,
) -> None:
    """Write codes (rows x codes_per_row) and tables (tables x entries x vector), and fill in ``out``.

    Tables and scales are stored in their own type, float16 or float32. The caller has set ``out.codes``' view, perm,
    row_axes and segment, and the groupings.
    """
    out.entries = tables.shape[1]
    out.codes.vector = tables.shape[2]
    matrix.write_codes(writer, out.codes, codes, out.entries, block_bytes=block_bytes)
    out.table_type = _float_type(tables)
    writer.add_piece(np.ascontiguousarray(tables).tobytes(), out.tables)
    if scales is not None:
        out.scale_type = _float_type(scales)
        writer.add_piece(np.ascontiguousarray(scales).tobytes(), out.scales)


def _float_type(values: npt.NDArray[Any]) -> pb.FloatType:
    return pb.FLOAT_TYPE_F16 if values.dtype == np.float16 else pb.FLOAT_TYPE_F32
