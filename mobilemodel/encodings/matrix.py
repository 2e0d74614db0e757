"""A tensor's matrix of codes: its order, its streams and their blocks (spec/tensors.md §3)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from mobilemodel import layout as layouts
from mobilemodel.codecs import Effort
from mobilemodel.encodings import packing
from mobilemodel.encodings.packing import Codes
from mobilemodel.encodings.payloads import PayloadSource, PayloadWriter, read_matrix
from mobilemodel.errors import LimitExceededError, MalformedContentError, MalformedStreamError
from mobilemodel.layout import CodesLayout, codes_shape
from mobilemodel.limits import FORMAT_LIMITS, KIB
from mobilemodel.v1 import bundle_pb2 as pb

BLOCK_BYTES = 256 * KIB
"""raw bytes that writers put in a block: against 1 MiB it costs 0.02 % and a quarter of the scratch"""
SPLIT_BELOW = 4.0
"""bits of entropy a code below which a split stream is tried"""
THOROUGH_BELOW = 2.0
"""bits of entropy a code below which all encoder settings are tried"""
_FAR_FROM_SPLIT = 1.1
"""size of the quickly coded plain stream over that of the split one above which no setting makes up for it"""

Array = npt.NDArray[Any]


def to_matrix(array: Array, view: Sequence[int], perm: Sequence[int], row_axes: int) -> Array:
    """Bring an array into the rows x columns order of its codes; empty ``view`` and ``perm`` mean as it is."""
    viewed = array.reshape(tuple(view)) if view else array
    permuted = viewed.transpose(tuple(perm)) if perm else viewed
    rows = layouts.elements_of(permuted.shape[:row_axes])
    return permuted.reshape(rows, layouts.elements_of(permuted.shape[row_axes:]))


def from_matrix(matrix: Array, view: Sequence[int], perm: Sequence[int], dims: Sequence[int]) -> Array:
    """Bring a rows x columns matrix back into the order of ``dims``, contiguous: the inverse of ``to_matrix``."""
    sizes = tuple(view) or tuple(dims)
    viewed = matrix.reshape([sizes[axis] for axis in perm]).transpose(np.argsort(perm)) if perm else matrix
    return np.ascontiguousarray(viewed).reshape(tuple(dims))


def group_index(layout: CodesLayout, by: pb.Grouping, first_row: int, rows: int) -> npt.NDArray[np.int64]:
    """The table of each (row, sub-vector) of a block: t = (r div Gr) ceil(S / Gc) + s div Gc."""
    row_group, col_group = layout.group_sizes(by)
    across = layouts.ceil_div(layout.subvectors, col_group)
    down = (np.arange(first_row, first_row + rows) // row_group) * across
    return down[:, None] + np.arange(layout.subvectors) // col_group


def read_blocks(source: PayloadSource, layout: CodesLayout, *, strict: bool = False) -> Iterator[tuple[int, Codes]]:
    """Decode the codes block by block: the first row of each, and its rows x codes_per_row matrix.

    Memory stays within one block. Raises MalformedStreamError where a stream is not what the manifest says, and with
    ``strict`` MalformedContentError where spare bits at a row's end are not 0.
    """
    read = _read_split if layout.split else _read_plain
    for block in range(layout.blocks):
        yield block * layout.rows_per_block, read(source, layout, block, strict)


def read_codes(source: PayloadSource, layout: CodesLayout) -> Codes:
    """Decode all codes as one rows x codes_per_row matrix of ``code_type``."""
    codes = np.empty((layout.rows, layout.codes_per_row), code_type(layout.index_range))
    for first_row, block in read_blocks(source, layout):
        codes[first_row : first_row + len(block)] = block
    return codes


def code_type(index_range: int) -> np.dtype[Any]:
    """The smallest unsigned type of codes below ``index_range``.

    >>> code_type(256), code_type(257), code_type((1 << 16) + 1)
    (dtype('uint8'), dtype('uint16'), dtype('uint32'))
    """
    return np.min_scalar_type(index_range - 1)


def _read_plain(source: PayloadSource, layout: CodesLayout, block: int, strict: bool) -> Codes:
    raw = _read_packed(source, layout.first_payload + block, layout.plain_shape(block), strict)
    return packing.unpack(raw, layout.block_rows(block), layout.codes_per_row, layout.depth)


def _read_split(source: PayloadSource, layout: CodesLayout, block: int, strict: bool) -> Codes:
    payload = layout.first_payload + 2 * block
    rows, columns = layout.block_rows(block), layout.codes_per_row
    raw = _read_packed(source, payload, layout.plane_shape(block), strict)
    plane = packing.unpack(raw, rows, columns, 1).view(np.bool_)
    count = int(np.count_nonzero(plane))
    shape = layout.others_shape(count)
    if source.entry(payload + 1).raw_size != shape.raw_size:
        raise MalformedStreamError(
            f"raw_size of payload {payload + 1} disagrees with the plane", expected=shape.raw_size,
            found=source.entry(payload + 1).raw_size,
        )  # fmt: skip
    raw = _read_packed(source, payload + 1, shape, strict)
    codes = np.full((rows, columns), layout.background, code_type(layout.index_range))
    if count:
        others = packing.unpack(raw, 1, count, layout.depth)[0].astype(codes.dtype)
        others += others >= layout.background
        codes[plane] = others
    return codes


def _read_packed(source: PayloadSource, payload: int, shape: layouts.MatrixShape, strict: bool) -> bytes | memoryview:
    raw = read_matrix(source, payload, shape)
    if strict and not packing.spare_bits_are_zero(raw, shape):
        raise MalformedContentError(f"spare bits of payload {payload} are not 0")
    return raw


def entropy_bits(counts: npt.NDArray[Any]) -> float:
    """Zeroth-order entropy of symbols with these counts, bits a symbol.

    >>> entropy_bits(np.array([1, 1, 2]))
    1.5
    """
    p = counts[counts > 0] / max(counts.sum(), 1)
    return float(-(p * np.log2(p)).sum())


def depth_for(entries: int) -> int:
    """The smallest depth whose codes can name ``entries`` entries; LimitExceededError above 65,536."""
    for depth in layouts.DEPTHS:
        if entries <= 1 << depth:
            return depth
    raise LimitExceededError("entries", expected=f"at most {1 << layouts.DEPTHS[-1]}", found=entries)


def write_codes(
    writer: PayloadWriter,
    out: pb.Codes,
    codes: Codes,
    entries: int,
    may_split: bool = True,
    *,
    block_bytes: int = BLOCK_BYTES,
) -> None:
    """Write a rows x codes_per_row matrix of codes below ``entries`` and fill in ``out``'s stream fields.

    Takes the smaller of the plain and the split stream; ``out``'s view, perm, row_axes, vector and segment are the
    caller's. A block has as many rows as fit ``block_bytes``, at least one.

    Raises MalformedContentError for a code that names no entry, LimitExceededError for a row above 16 MiB, or
    through the writer when the bundle grows past the format.
    """
    rows, columns = codes.shape
    out.depth = depth_for(entries)
    if not codes.size:
        out.rows_per_block = 1
        return
    out.rows_per_block = _rows_per_block(rows, columns, out.depth, block_bytes)
    if int(codes.max()) >= entries:
        raise MalformedContentError("a code names no entry", expected=f"below {entries}", found=int(codes.max()))
    counts = np.zeros(entries, np.int64)
    for start in range(0, rows, out.rows_per_block):
        counts += np.bincount(codes[start : start + out.rows_per_block].reshape(-1), minlength=entries)
    bits = entropy_bits(counts)
    # The high bytes of 16-bit codes are mostly 0.
    wide = out.depth == 16
    stream = _encode_plain(writer, codes, out, Effort.THOROUGH if wide else Effort.QUICK)
    background = int(counts.argmax())
    split = None
    # A code that makes up more than half takes a whole bit in a Huffman code: pruned layers of 3 bit and more.
    if may_split and entries > 1 and (bits < SPLIT_BELOW or 2 * int(counts[background]) > codes.size):
        depth = depth_for(entries - 1)
        # Its codes may be narrower, and its planes need long blocks: each block brings its own Huffman tables.
        rows_per_block = _rows_per_block(rows, columns, depth, block_bytes)
        effort = Effort.THOROUGH if bits < THOROUGH_BELOW else Effort.QUICK
        split = _encode_split(writer, codes, rows_per_block, background, depth, effort)
    if bits < THOROUGH_BELOW and not wide and (split is None or stream.size < _FAR_FROM_SPLIT * split.size):
        stream = _encode_plain(writer, codes, out, Effort.THOROUGH)
    if split is not None and split.size < stream.size:
        out.split, out.background, out.depth, out.rows_per_block = True, background, depth, rows_per_block
        stream = split
    out.first_payload = stream.write()


def _rows_per_block(rows: int, columns: int, depth: int, block_bytes: int) -> int:
    row_bytes = layouts.ceil_div(columns * depth, 8)
    if row_bytes > FORMAT_LIMITS.block:
        raise LimitExceededError(
            "a row of codes", expected=f"at most {FORMAT_LIMITS.block} bytes", found=row_bytes,
            advice="Choose row_axes so that the matrix has more rows.",
        )  # fmt: skip
    return max(1, min(rows, block_bytes // row_bytes))


def _row_blocks(codes: Codes, rows_per_block: int) -> Iterator[Codes]:
    for start in range(0, len(codes), rows_per_block):
        yield codes[start : start + rows_per_block]


def _encode_plain(writer: PayloadWriter, codes: Codes, out: pb.Codes, effort: Effort) -> _EncodedStream:
    stream = _EncodedStream(writer)
    for block in _row_blocks(codes, out.rows_per_block):
        shape = codes_shape(len(block), codes.shape[1], out.depth)
        part = shape.raw_size // 2 if out.depth == 16 else 0
        stream.add(packing.pack(block, out.depth), shape, effort, part)
    return stream


def _encode_split(
    writer: PayloadWriter, codes: Codes, rows_per_block: int, background: int, depth: int, effort: Effort
) -> _EncodedStream:
    stream = _EncodedStream(writer)
    for block in _row_blocks(codes, rows_per_block):
        plane = block != background
        stream.add(packing.pack(plane.view(np.uint8), 1), codes_shape(len(block), codes.shape[1], 1), effort)
        others = block[plane]
        others = others - (others > background)
        shape = codes_shape(1, others.size, depth) if others.size else layouts.MatrixShape(0, 0, min(depth, 8))
        raw = packing.pack(others.reshape(1, -1), depth) if others.size else np.empty((0, 0), np.uint8)
        stream.add(raw, shape, effort)
    return stream


class _EncodedStream:
    """Encoded blocks held back until it is known that their stream is the smaller one."""

    def __init__(self, writer: PayloadWriter) -> None:
        self._writer = writer
        self._payloads: list[tuple[int, bytes, int]] = []
        self.size = 0

    def add(self, packed: packing.Bytes, shape: layouts.MatrixShape, effort: Effort, part: int = 0) -> None:
        raw = np.ascontiguousarray(packed).data.cast("B") if packed.size else memoryview(b"")
        codec, stored = self._writer.encode_matrix(raw, shape, effort, part)
        self._payloads.append((codec, stored, shape.raw_size))
        # A payload costs 32 bytes in the manifest, and half the alignment on average.
        self.size += len(stored) + 64

    def write(self) -> int:
        """Add the payloads; return the index of the first."""
        indices = [self._writer.sink.add(stored, codec, raw_size) for codec, stored, raw_size in self._payloads]
        return indices[0]
