"""Valid vectors of what readers are likely to do differently: sizes at the edge, odd bits, later versions."""

from __future__ import annotations

from mobilemodel import dtypes
from mobilemodel.v1 import bundle_pb2 as pb
from tests.conformance.builder import (
    F32,
    FLOAT,
    STORED,
    UINT8,
    ZLIB,
    ZSTD,
    Draft,
    bytes_field,
    floats,
    halves,
    zstd_raw_frame,
)
from tests.conformance.parts import affine, chunked, palette, put_floats, split
from tests.conformance.rows import Row, vector

ROWS: list[Row] = []
LATER = "a later version's feature"


@vector(ROWS, "tensors.md §2", "container.md §4.2")
def foreign_types() -> bytes:
    """No element type, the type of strings, and type 99: the tensors are listed and fail alone."""
    draft = Draft()
    for name, dtype in (("a", 0), ("b", 8), ("c", 99)):
        tensor = draft.small(name, floats(1.0), [1])
        tensor.dtype = tensor.dense.stored_dtype = dtype
    affine(draft, "d", [1, 2], [[1, 2]], 8, floats(0.5)).dtype = 99
    return draft.build()


@vector(ROWS, "container.md §4.2", "container.md §6")
def foreign_quantized() -> bytes:
    """Foreign palettes and affine tensors, whose fields contradict each other and name no payload: not looked at."""
    draft = Draft()
    draft.small("a", floats(1.0), [1])
    draft.add(b"used by a later version")
    foreign = draft.tensor("b", [2, 4])
    foreign.required_features.append(LATER)
    foreign.palette.codes.CopyFrom(pb.Codes(depth=3, vector=300, perm=[7], first_payload=99))
    foreign.palette.tables.CopyFrom(pb.Slice(payload=99, offset=1, size=1 << 63))
    foreign = draft.tensor("c", [2, 4], 99)
    foreign.required_features.append(LATER)
    foreign.affine.codes.CopyFrom(pb.Codes(rows_per_block=0, split=True))
    return draft.build()


@vector(ROWS, "container.md §6", "codecs.md §1")
def unknown_codec_parts() -> bytes:
    """Codec 9 in one part of a tensor: each part fails with its own payloads, the values with any of them."""
    draft = Draft()
    for name in ("a", "b"):
        tensor = palette(draft, name, [1, 2], [[0, 1]], 1, halves(1, 2), 2)
        tensor.palette.scale_type = F32
        put_floats(draft, tensor.palette.scales, floats(2.0))
        part = tensor.palette.tables if name == "a" else tensor.palette.scales
        draft.parts[part.payload].codec = 9
    tensor = affine(draft, "c", [1, 2], [[0, 1]], 8, floats(0.5), b"\x01")
    draft.parts[tensor.affine.zeros.payload].codec = 9
    tensor = affine(draft, "d", [1, 2], [[0, 1]], 8, floats(0.5))
    draft.parts[tensor.affine.scales.payload].codec = 9
    tensor = split(draft, "e", [1, 4], [[[0, 1, 0, 0]]], [[1]], 2, 0, halves(0, 1, 2), 3)
    draft.parts[tensor.palette.codes.first_payload + 1].codec = 9
    return draft.build()


@vector(ROWS, "tensors.md §3.3", "tensors.md §4")
def large_blocks() -> bytes:
    """Blocks of up to 2^32 - 1 rows and chunks of up to 2^64 - 64 elements: their sizes are those of what is there."""
    draft = Draft()
    tensor = palette(draft, "a", [3, 2], [[0, 1], [2, 3], [1, 0]], 2, halves(1, 2, 3, 4), 4)
    tensor.palette.codes.rows_per_block = (1 << 32) - 1
    tensor = split(draft, "b", [2, 3], [[[0, 1, 0], [1, 0, 1]]], [[0, 1, 2]], 2, 0, halves(*range(4)), 4)
    tensor.palette.codes.rows_per_block = (1 << 32) - 1
    tensor = affine(draft, "c", [2, 1], [[1], [2]], 16, floats(0.5))
    tensor.affine.codes.rows_per_block = 1 << 31
    chunked(draft, "d", [2], [(floats(1, 2), STORED)], FLOAT).dense.chunk_elements = (1 << 64) - 64
    tensor = palette(draft, "e", [3, 2], [[0, 1], [2, 3], [1, 0]], 2, halves(1, 2, 3, 4), 4)
    tensor.palette.tables_by.row_group = tensor.palette.tables_by.col_group = (1 << 32) - 1
    return draft.build()


@vector(ROWS, "codecs.md §6", "container.md §3")
def slice_uses() -> bytes:
    """A table of 80,000 bytes that two tensors share; empty slices in, at the end of, and alone with a payload."""
    draft = Draft()
    table = floats(*[i % 7 for i in range(20_000)])
    first = palette(draft, "a", [1, 2], [[19_999, 5]], 16, b"", 20_000, table_type=F32)
    draft.parts.pop()
    put_floats(draft, first.palette.tables, table, ZLIB)
    second = palette(draft, "b", [1, 2], [[1, 2]], 16, b"", 20_000, table_type=F32)
    draft.parts.pop()
    second.palette.tables.CopyFrom(first.palette.tables)
    pool = draft.small("c", bytes(range(32)), [32], UINT8).dense.small
    alone = draft.add(b"")
    for name, payload, offset in (("d", pool.payload, 16), ("e", pool.payload, 32), ("f", alone, 0)):
        tensor = draft.tensor(name, [0], UINT8)
        tensor.dense.stored_dtype = UINT8
        tensor.dense.small.CopyFrom(pb.Slice(payload=payload, offset=offset))
    return draft.build()


@vector(ROWS, "container.md §4.1")
def sources() -> bytes:
    """Sources without a name, with a colon that is the third byte, and with a SHA-256 that stands but is empty."""
    draft = Draft()
    draft.manifest.sources.add(format="onnx")
    draft.manifest.sources.add(format="caffe", file_name="\u00e9:x")
    draft.manifest.sources.add(format="onnx", file_name="...", sha256=bytes(range(32)))

    def edit(raw: bytes) -> bytes:
        return raw.replace(bytes_field(6, bytes_field(1, b"onnx")), bytes_field(6, bytes_field(1, b"onnx") + b"\x1a\0"))

    return draft.build(edit)


@vector(ROWS, "tensors.md §2", "tensors.md §7")
def dense_odd_bits() -> bytes:
    """BOOL bytes other than 0 and 1, and spare bits of sub-byte types: copied as they are, reported by nobody."""
    draft = Draft()
    draft.small("a", b"\x00\x01\x02\xff", [4], dtypes.DType.BOOL)
    draft.small("b", b"\x21\xf3", [3], dtypes.DType.INT4)
    draft.small("c", b"\xff", [1], dtypes.DType.UINT2)
    return draft.build()


@vector(ROWS, "codecs.md §5", profile="full")
def zstd_unused_bit() -> bytes:
    """Bit 4 of the frame header's descriptor has no meaning."""
    draft = Draft()
    chunked(draft, "a", [64], [(bytes(64), STORED)], UINT8)
    draft.parts[0].codec, draft.parts[0].stored = ZSTD, zstd_raw_frame(bytes(range(64)), 0x30, b"\x40")
    return draft.build()
