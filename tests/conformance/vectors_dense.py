"""Valid vectors of dense tensors, slices and pools."""

from __future__ import annotations

import math
import struct

from mobilemodel import dtypes
from mobilemodel.v1 import bundle_pb2 as pb
from tests.conformance.builder import (
    BFLOAT16,
    F16,
    FLOAT,
    FLOAT16,
    INT8,
    STORED,
    UINT8,
    ZLIB,
    ZSTD,
    Draft,
    floats,
    halves,
    zstd_frame,
    zstd_raw_frame,
)
from tests.conformance.parts import chunked, planes, sort_tensors
from tests.conformance.rows import Row, vector

ROWS: list[Row] = []


@vector(ROWS, "container.md §2", "container.md §3", "tensors.md §4")
def dense_small() -> bytes:
    """One float32 tensor of three values in one stored payload."""
    draft = Draft()
    draft.small("w", floats(1.0, -2.0, 0.5), [3])
    return draft.build()


@vector(ROWS, "tensors.md §2", "tensors.md §4", "codecs.md §6")
def dense_types() -> bytes:
    """Every element type, five elements each, in one pool."""
    draft = Draft()
    pool = bytearray()
    slices = []
    for dtype in dtypes.DType:
        size = dtypes.raw_size(dtype, 5)
        # BOOL holds 0 and 1 alone; others any bits
        raw = (
            bytes(i & 1 for i in range(size))
            if dtype == dtypes.DType.BOOL
            else bytes((37 * i + 11 * dtype) & 0x7F for i in range(size))
        )
        tensor = draft.tensor(f"{dtype:02d}", [5], dtype)
        tensor.dense.stored_dtype = dtype
        pool.extend(bytes(-len(pool) % 16))
        tensor.dense.small.offset, tensor.dense.small.size = len(pool), size
        slices.append(tensor.dense.small)
        pool.extend(raw)
    index = draft.add(bytes(pool), ZLIB)
    for piece in slices:
        piece.payload = index
    return draft.build()


@vector(ROWS, "tensors.md §4", "codecs.md §3")
def dense_chunks() -> bytes:
    """130 float32 values in chunks of 64: stored, zlib, and a short last one."""
    draft = Draft()
    values = [i / 8 for i in range(130)]
    pieces = [floats(*values[at : at + 64]) for at in (0, 64, 128)]
    chunked(draft, "w", [13, 10], [(pieces[0], STORED), (pieces[1], ZLIB), (pieces[2], STORED)], FLOAT)
    return draft.build()


@vector(ROWS, "tensors.md §2", "tensors.md §4")
def dense_int4_chunks() -> bytes:
    """70 int4 elements: a chunk of 32 bytes and one of 3; the first element stands in the low bits."""
    draft = Draft()
    raw = bytes((7 * i + 0x21) & 0xFF for i in range(35))
    chunked(draft, "w", [70], [(raw[:32], STORED), (raw[32:], STORED)], dtypes.DType.INT4)
    return draft.build()


@vector(ROWS, "tensors.md §4")
def dense_planes() -> bytes:
    """Byte planes of float32 (a chunk of 64 and one of 6) and of float16, by zlib."""
    draft = Draft()
    values = [math.sin(i) for i in range(70)]
    chunks = [(planes(floats(*values[at : at + 64]), 4), ZLIB) for at in (0, 64)]
    chunked(draft, "a", [70], chunks, FLOAT).dense.byte_planes = True
    raw = halves(1.0, -2.0, 0.5) + b"\x01\x7e"
    chunked(draft, "b", [4], [(planes(raw, 2), STORED)], FLOAT16).dense.byte_planes = True
    return draft.build()


@vector(ROWS, "tensors.md §4", "tensors.md §8")
def dense_widened() -> bytes:
    """float16 and bfloat16 under float32: zeros of both signs, subnormals, infinities, a NaN, the largest."""
    draft = Draft()
    half = draft.small("half", bytes.fromhex("0000 0080 0100 FF83 0004 003C FF7B 007C 00FC 017E"), [10], FLOAT16)
    brain = draft.small("brain", bytes.fromhex("0000 0080 0100 803F 80BF 7F7F 807F 80FF C17F"), [9], BFLOAT16)
    half.dtype = brain.dtype = FLOAT
    wide = chunked(draft, "planes", [64], [(planes(halves(*range(64)), 2), ZLIB)], FLOAT16)
    wide.dtype, wide.dense.byte_planes = FLOAT, True
    sort_tensors(draft)
    return draft.build()


@vector(ROWS, "tensors.md §8")
def dense_nan() -> bytes:
    """NaN payloads, signalling ones included, of float32, float16 and float64 are copied bit by bit."""
    draft = Draft()
    draft.small("a", bytes.fromhex("0100807F 563412FF 0000C07F"), [3])
    draft.small("b", bytes.fromhex("017C 34FE"), [2], FLOAT16)
    draft.small("c", bytes.fromhex("010000000000F07F"), [], dtypes.DType.DOUBLE)
    return draft.build()


@vector(ROWS, "tensors.md §1", "tensors.md §4")
def dense_empty() -> bytes:
    """Dims with a 0, without a payload and as an empty slice; a scalar."""
    draft = Draft()
    draft.tensor("a", [0, 3]).dense.stored_dtype = FLOAT
    draft.small("b", b"\x2a", [], UINT8)
    draft.tensor("c", [1, 0, 2147483647], INT8).dense.stored_dtype = INT8
    draft.small("d", b"", [2, 0])
    return draft.build()


@vector(ROWS, "codecs.md §5", profile="full")
def dense_zstd() -> bytes:
    """A chunk in a zstd frame, a frame with a checksum, and a frame of one raw block with a dictionary id of 0."""
    draft = Draft()
    raw = floats(*[i // 8 for i in range(64)])
    chunked(draft, "a", [64], [(raw, ZSTD)], FLOAT)
    for name, frame in (
        ("b", zstd_frame(raw, write_checksum=True)),
        ("c", zstd_raw_frame(raw, 0b01100001, b"\x00" + struct.pack("<H", 0))),
        ("d", zstd_raw_frame(raw, 0b01000000, b"\x00" + struct.pack("<H", 0))),
    ):
        tensor = draft.tensor(name, [64])
        tensor.dense.stored_dtype, tensor.dense.chunk_elements = FLOAT, 64
        tensor.dense.first_payload = draft.stored(ZSTD, frame, 256)
    return draft.build()


@vector(ROWS, "container.md §3", "codecs.md §6")
def shared_payload() -> bytes:
    """Two tensors that are the same slice, and one that overlaps them."""
    draft = Draft()
    first = draft.small("a", floats(*range(8)), [8]).dense.small
    for name, offset, size in (("b", 0, 32), ("c", 16, 16)):
        tensor = draft.tensor(name, [size // 4])
        tensor.dense.stored_dtype = FLOAT
        tensor.dense.small.CopyFrom(pb.Slice(payload=first.payload, offset=offset, size=size))
    return draft.build()


@vector(ROWS, "codecs.md §6", profile="full")
def pools() -> bytes:
    """Tables, scales, zero points and small tensors in one zstd pool, each at a multiple of 16."""
    draft = Draft()
    pool = floats(0.5, 0.25) + bytes(8) + b"\x01\x02" + bytes(14) + halves(1, 2, 3, 4) + bytes(8) + floats(9.0)
    index = draft.add(pool, ZSTD)
    tensor = draft.tensor("a", [2, 2])
    out = tensor.affine
    out.codes.depth, out.codes.vector, out.codes.row_axes, out.codes.rows_per_block = 8, 1, 1, 2
    out.codes.first_payload = draft.matrix([[1, 2], [3, 4]], 8)
    out.by.row_group = 1
    out.scales.CopyFrom(pb.Slice(payload=index, size=8))
    out.zeros.CopyFrom(pb.Slice(payload=index, offset=16, size=2))
    shape = draft.tensor("b", [2, 2]).palette
    shape.codes.depth, shape.codes.vector, shape.codes.row_axes, shape.codes.rows_per_block = 2, 1, 1, 2
    shape.codes.first_payload = draft.matrix([[1, 2], [3, 0]], 2)
    shape.entries, shape.table_type = 4, F16
    shape.tables.CopyFrom(pb.Slice(payload=index, offset=32, size=8))
    last = draft.tensor("c", [])
    last.dense.stored_dtype = FLOAT
    last.dense.small.CopyFrom(pb.Slice(payload=index, offset=48, size=4))
    return draft.build()
