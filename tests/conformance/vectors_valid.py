"""The valid vectors: what a conforming reader opens and decodes. Each function makes one; its docstring says of what."""

from __future__ import annotations

import math
import struct
from collections.abc import Sequence

from mobilemodel import dtypes
from mobilemodel.layout import MatrixShape
from mobilemodel.v1 import bundle_pb2 as pb
from tests.conformance.builder import (
    BFLOAT16, F16, F32, FLOAT, FLOAT16, INT8, PNG, STORED, UINT8, ZLIB, ZSTD, Draft, bytes_field, floats, forge_crc,
    halves, key, number_field, png_file, zstd_frame, zstd_raw_frame,
)  # fmt: skip
from tests.conformance.rows import Row, vector

ROWS: list[Row] = []
Table = Sequence[float] | Sequence[Sequence[float]]


def put_floats(draft: Draft, piece: pb.Slice, raw: bytes, codec: int = STORED) -> None:
    """Give a slice a payload of its own."""
    piece.payload = draft.bytes(raw, codec)
    piece.size = len(raw)


def palette(
    draft: Draft, name: str, dims: Sequence[int], codes: Sequence[Sequence[int]], depth: int, tables: bytes,
    entries: int, *, dtype: int = FLOAT, table_type: pb.FloatType = F16, codec: int = STORED, vector: int = 1,
) -> pb.Tensor:  # fmt: skip
    """Add a palette tensor of one plain block."""
    tensor = draft.tensor(name, dims, dtype)
    out = tensor.palette
    out.codes.depth, out.codes.vector, out.codes.row_axes = depth, vector, 1 if dims else 0
    out.codes.rows_per_block = max(len(codes), 1)
    out.codes.first_payload = draft.matrix(codes, depth, codec)
    out.entries, out.table_type = entries, table_type
    put_floats(draft, out.tables, tables)
    return tensor


def split(
    draft: Draft, name: str, dims: Sequence[int], planes: Sequence[Sequence[Sequence[int]]],
    others: Sequence[Sequence[int]], depth: int, background: int, tables: bytes, entries: int, codec: int = STORED,
) -> pb.Tensor:  # fmt: skip
    """Add a palette tensor of split blocks, given the plane and the other codes of each."""
    tensor = draft.tensor(name, dims)
    out = tensor.palette
    out.codes.depth, out.codes.vector, out.codes.row_axes = depth, 1, 1
    out.codes.rows_per_block, out.codes.split, out.codes.background = len(planes[0]), True, background
    out.codes.first_payload = len(draft.parts)
    for plane, rest in zip(planes, others, strict=True):
        draft.matrix(plane, 1, codec)
        if rest:
            draft.matrix([rest], depth, codec)
        else:
            draft.stored(STORED, b"", 0)
    out.entries, out.table_type = entries, F16
    put_floats(draft, out.tables, tables)
    return tensor


def affine(
    draft: Draft, name: str, dims: Sequence[int], codes: Sequence[Sequence[int]], depth: int, scales: bytes,
    zeros: bytes = b"", *, dtype: int = FLOAT, codec: int = STORED,
) -> pb.Tensor:  # fmt: skip
    """Add an affine tensor of one block."""
    tensor = draft.tensor(name, dims, dtype)
    out = tensor.affine
    out.codes.depth, out.codes.vector, out.codes.row_axes, out.codes.rows_per_block = depth, 1, 1, len(codes)
    out.codes.first_payload = draft.matrix(codes, depth, codec)
    put_floats(draft, out.scales, scales)
    if zeros:
        put_floats(draft, out.zeros, zeros)
    return tensor


@vector(ROWS, "container.md §2", "container.md §4")
def empty() -> bytes:
    """No tensors and no payloads: the file is its head and its manifest."""
    return Draft().build()


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
        raw = bytes(i & 1 for i in range(size)) if dtype == dtypes.DType.BOOL else bytes(
            (37 * i + 11 * dtype) & 0x7F for i in range(size)
        )  # fmt: skip
        tensor = draft.tensor(f"{dtype:02d}", [5], dtype)
        tensor.dense.stored_dtype = dtype
        pool.extend(bytes(-len(pool) % 16))
        tensor.dense.small.offset, tensor.dense.small.size = len(pool), size
        slices.append(tensor.dense.small)
        pool.extend(raw)
    index = draft.bytes(bytes(pool), ZLIB)
    for piece in slices:
        piece.payload = index
    return draft.build()


def _chunked(draft: Draft, name: str, dims: Sequence[int], chunks: Sequence[tuple[bytes, int]], dtype: int) -> pb.Tensor:
    tensor = draft.tensor(name, dims, dtype)
    tensor.dense.stored_dtype, tensor.dense.chunk_elements = dtype, 64
    tensor.dense.first_payload = len(draft.parts)
    for raw, codec in chunks:
        draft.bytes(raw, codec)
    return tensor


@vector(ROWS, "tensors.md §4", "codecs.md §3")
def dense_chunks() -> bytes:
    """130 float32 values in chunks of 64: stored, zlib, and a short last one."""
    draft = Draft()
    values = [i / 8 for i in range(130)]
    pieces = [floats(*values[at : at + 64]) for at in (0, 64, 128)]
    _chunked(draft, "w", [13, 10], [(pieces[0], STORED), (pieces[1], ZLIB), (pieces[2], STORED)], FLOAT)
    return draft.build()


@vector(ROWS, "tensors.md §2", "tensors.md §4")
def dense_int4_chunks() -> bytes:
    """70 int4 elements: a chunk of 32 bytes and one of 3; the first element stands in the low bits."""
    draft = Draft()
    raw = bytes((7 * i + 0x21) & 0xFF for i in range(35))
    _chunked(draft, "w", [70], [(raw[:32], STORED), (raw[32:], STORED)], dtypes.DType.INT4)
    return draft.build()


def _planes(raw: bytes, size: int) -> bytes:
    return b"".join(raw[i::size] for i in range(size))


@vector(ROWS, "tensors.md §4")
def dense_planes() -> bytes:
    """Byte planes of float32 (a chunk of 64 and one of 6) and of float16, by zlib."""
    draft = Draft()
    values = [math.sin(i) for i in range(70)]
    chunks = [(_planes(floats(*values[at : at + 64]), 4), ZLIB) for at in (0, 64)]
    _chunked(draft, "a", [70], chunks, FLOAT).dense.byte_planes = True
    raw = halves(1.0, -2.0, 0.5) + b"\x01\x7e"
    _chunked(draft, "b", [4], [(_planes(raw, 2), STORED)], FLOAT16).dense.byte_planes = True
    return draft.build()


@vector(ROWS, "tensors.md §4", "tensors.md §8")
def dense_widened() -> bytes:
    """float16 and bfloat16 under float32: zeros of both signs, subnormals, infinities, a NaN, the largest."""
    draft = Draft()
    half = draft.small("half", bytes.fromhex("0000 0080 0100 FF83 0004 003C FF7B 007C 00FC 017E"), [10], FLOAT16)
    brain = draft.small("brain", bytes.fromhex("0000 0080 0100 803F 80BF 7F7F 807F 80FF C17F"), [9], BFLOAT16)
    half.dtype = brain.dtype = FLOAT
    chunked = _chunked(draft, "planes", [64], [(_planes(halves(*range(64)), 2), ZLIB)], FLOAT16)
    chunked.dtype, chunked.dense.byte_planes = FLOAT, True
    tensors = sorted(draft.manifest.tensors, key=lambda tensor: tensor.name)
    del draft.manifest.tensors[:]
    draft.manifest.tensors.extend(tensors)
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
    _chunked(draft, "a", [64], [(raw, ZSTD)], FLOAT)
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


@vector(ROWS, "tensors.md §3.3", "tensors.md §5", "codecs.md §4")
def palette_depths() -> bytes:
    """Plain palettes of depth 1, 2, 4 and 8 with rows of 5 codes, stored and as PNG."""
    draft = Draft()
    for depth in (1, 2, 4, 8):
        count = min(1 << depth, 20)
        codes = [[(5 * r + 3 * c) % count for c in range(5)] for r in range(3)]
        table = halves(*[i / 4 - 1 for i in range(count)])
        palette(draft, f"p{depth}", [3, 5], codes, depth, table, count, codec=PNG)
        palette(draft, f"s{depth}", [3, 5], codes, depth, table, count)
    tensors = sorted(draft.manifest.tensors, key=lambda tensor: tensor.name)
    del draft.manifest.tensors[:]
    draft.manifest.tensors.extend(tensors)
    return draft.build()


@vector(ROWS, "tensors.md §3.3")
def palette_16() -> bytes:
    """Depth 16: rows of high bytes, then rows of low bytes; float32 table of 300 entries."""
    draft = Draft()
    codes = [[0, 299, 256], [255, 1, 130]]
    palette(draft, "w", [2, 3], codes, 16, floats(*[i * 0.1 for i in range(300)]), 300, table_type=F32, codec=PNG)
    return draft.build()


@vector(ROWS, "tensors.md §3.3", "codecs.md §5", profile="full")
def palette_zstd() -> bytes:
    """Plain and split blocks in zstd frames."""
    draft = Draft()
    codes = [[(r + c) % 16 for c in range(40)] for r in range(10)]
    palette(draft, "a", [10, 40], codes, 4, halves(*range(16)), 16, codec=ZSTD)
    plane = [[int(c % 5 == r % 5) for c in range(40)] for r in range(10)]
    split(draft, "b", [10, 40], [plane], [[i % 3 for i in range(80)]], 2, 1, halves(0, 1, 2, 3), 4, codec=ZSTD)
    return draft.build()


@vector(ROWS, "tensors.md §3.3", "tensors.md §3.4")
def palette_blocks() -> bytes:
    """Seven rows in blocks of three: PNG, stored, and a last block of one row."""
    draft = Draft()
    rows = [[(r * 7 + c) % 16 for c in range(9)] for r in range(7)]
    tensor = palette(draft, "w", [7, 9], rows[:3], 4, halves(*range(16)), 16, codec=PNG)
    tables = draft.parts.pop()
    tensor.palette.codes.first_payload = 0
    draft.matrix(rows[3:6], 4)
    draft.matrix(rows[6:], 4, PNG)
    draft.parts.append(tables)
    tensor.palette.tables.payload = 3
    return draft.build()


@vector(ROWS, "tensors.md §3.3", "tensors.md §3.4")
def palette_split_4() -> bytes:
    """Two rows of five codes of depth 4, background 2: 2 2 7 2 0 and 2 16 2 2 2; 17 entries, one more than 2^4."""
    draft = Draft()
    planes = [[[0, 0, 1, 0, 1], [0, 1, 0, 0, 0]]]
    split(draft, "w", [2, 5], planes, [[6, 0, 15]], 4, 2, halves(*[i / 2 for i in range(17)]), 17)
    return draft.build()


@vector(ROWS, "tensors.md §3.3", "codecs.md §4")
def palette_split() -> bytes:
    """Split streams of depth 1, 2, 8 and 16, by PNG; two blocks, the second without other codes."""
    draft = Draft()
    plane = [[1, 0, 0, 1, 0, 0, 0, 1, 1], [0] * 9]
    for name, depth, background, others, entries in (
        ("a", 1, 0, [0, 1, 1, 0], 3),
        ("b", 2, 4, [0, 1, 2, 3], 5),
        ("c", 8, 100, [99, 100, 255, 0], 257),
        ("d", 16, 0, [0, 1, 200, 298], 300),
    ):
        table = halves(*[i / 8 for i in range(entries)])
        none = [[0] * 9]
        split(draft, name, [3, 9], [plane, none], [others, []], depth, background, table, entries, codec=PNG)
    return draft.build()


@vector(ROWS, "tensors.md §3.2")
def palette_vector() -> bytes:
    """Sub-vectors of 2 in segments of 3: 2 codes a segment, the second with a surplus element; a table for each."""
    draft = Draft()
    tables = halves(0, 1, 2, 3, 4, 5, 6, 7, 10, -1, 11, -2, 12, -3, 13, -4)
    tensor = palette(draft, "w", [2, 6], [[0, 1, 2, 3], [3, 2, 1, 0]], 2, tables, 4, vector=2)
    tensor.palette.codes.segment = 3
    tensor.palette.tables_by.col_group = 1
    return draft.build()


@vector(ROWS, "tensors.md §3.2")
def palette_groups() -> bytes:
    """Tables for pairs of rows (the last group is one row) and for two and then one sub-vector of a row."""
    draft = Draft()
    codes = [[(r + c) % 2 for c in range(3)] for r in range(5)]
    tables = halves(*[t + e / 16 for t in range(6) for e in range(2)])
    tensor = palette(draft, "w", [5, 3], codes, 1, tables, 2)
    tensor.palette.tables_by.row_group, tensor.palette.tables_by.col_group = 2, 2
    return draft.build()


@vector(ROWS, "tensors.md §5.2", "tensors.md §3.2", "tensors.md §8")
def palette_scales() -> bytes:
    """Scales by rows and pairs of columns, in float32 and (subnormal ones too) in float16."""
    draft = Draft()
    codes = [[(r + c) % 4 for c in range(5)] for r in range(2)]
    for name, kind, scales in (
        ("a", F32, floats(0.1, 0.2, 0.3, 1.7, 3e30, 1e-20)),
        ("b", F16, halves(1, 2, 2**-24, 0.1, 0.3, 1000)),
    ):
        tensor = palette(draft, name, [2, 5], codes, 2, floats(-0.7, 0.0, 1.1, 3.3), 4, table_type=F32)
        tensor.palette.scales_by.row_group, tensor.palette.scales_by.col_group = 1, 2
        tensor.palette.scale_type = kind
        put_floats(draft, tensor.palette.scales, scales)
    return draft.build()


@vector(ROWS, "tensors.md §8")
def palette_float16() -> bytes:
    """float16 output of a float32 table: ties to even, overflow to infinity, subnormals, zeros with signs."""
    draft = Draft()
    values = floats(1 + 2**-11, 1 + 3 * 2**-11, 65519.996, 65520, -1e9, 2**-25, 3 * 2**-25, -(2**-26), -0.0, 2**-14)
    palette(draft, "a", [10], [[i] for i in range(10)], 4, values, 10, dtype=FLOAT16, table_type=F32)
    # The product is rounded to float32 first: 1.0009765 x 1.0009766 is above a tie only before that rounding.
    tensor = palette(draft, "b", [4], [[0], [1], [2], [3]], 2, floats(0.1, 1.00048828125, 3.1, 7.7), 4, dtype=FLOAT16,
                     table_type=F32)  # fmt: skip
    tensor.palette.scale_type = F32
    put_floats(draft, tensor.palette.scales, floats(1.00000012))
    return draft.build()


@vector(ROWS, "tensors.md §3.1")
def palette_orders() -> bytes:
    """A convolution by H, W, I; a grouped ConvTranspose through a view of five axes; MatMul in x out; B x K x N."""
    draft = Draft()
    table = halves(*range(16))

    def add(name: str, dims: Sequence[int], rows: int, view: Sequence[int], perm: Sequence[int], axes: int) -> None:
        columns = math.prod(dims) // rows
        codes = [[(r * columns + c) % 16 for c in range(columns)] for r in range(rows)]
        out = palette(draft, name, dims, codes, 4, table, 16).palette.codes
        out.view.extend(view)
        out.perm.extend(perm)
        out.row_axes = axes

    add("conv", [2, 3, 1, 2], 2, (), (0, 2, 3, 1), 1)
    add("convtranspose", [4, 3, 1, 2], 6, (2, 2, 3, 1, 2), (0, 2, 3, 4, 1), 2)
    add("matmul", [3, 4], 4, (), (1, 0), 1)
    add("matmul3", [2, 3, 4], 8, (), (0, 2, 1), 2)
    add("one row", [2, 3], 1, (), (), 0)
    add("rows only", [2, 3], 6, (), (), 2)
    return draft.build()


@vector(ROWS, "tensors.md §1", "tensors.md §3.3")
def palette_empty() -> bytes:
    """A scalar; no rows; no columns: tables of size 0 or more, no blocks."""
    draft = Draft()
    palette(draft, "a", [], [[1]], 1, halves(3, 4), 2)
    for name, dims, tables in (("b", [0, 4], b""), ("c", [4, 0], b"")):
        out = draft.tensor(name, dims).palette
        out.codes.depth = out.codes.vector = out.codes.row_axes = out.codes.rows_per_block = 1
        out.entries, out.table_type = 2, F16
        put_floats(draft, out.tables, tables)
    return draft.build()


@vector(ROWS, "codecs.md §4")
def png_filters() -> bytes:
    """A PNG with each filter type, on 8-bit samples and on 4-bit samples."""
    draft = Draft()
    for name, depth, width in (("a", 8, 4), ("b", 4, 8)):
        shape = MatrixShape(6, width, depth)
        filtered = [bytes([kind, 1, 2, 3, 4]) for kind in (1, 2, 3, 4, 0, 4)]
        tensor = draft.tensor(name, [6, width])
        out = tensor.palette
        out.codes.depth, out.codes.vector, out.codes.row_axes, out.codes.rows_per_block = depth, 1, 1, 6
        out.codes.first_payload = draft.stored(PNG, png_file(shape, filtered), 24)
        out.entries, out.table_type = 1 << depth, F16
        put_floats(draft, out.tables, halves(*[i / 2 for i in range(1 << depth)]), ZLIB)
    return draft.build()


@vector(ROWS, "tensors.md §6")
def affine_depths() -> bytes:
    """Depth 4, 8 and 16, with and without zero points, for the whole, for rows, for pairs of columns."""
    draft = Draft()
    affine(draft, "a4", [2, 3], [[0, 8, 15], [7, 1, 9]], 4, floats(0.1))
    tensor = affine(draft, "b8", [2, 3], [[0, 128, 255], [3, 200, 77]], 8, floats(0.1, 0.3), b"\x03\xff", codec=PNG)
    tensor.affine.by.row_group = 1
    zeros = struct.pack("<4H", 0, 65535, 32768, 1)
    tensor = affine(draft, "c16", [2, 3], [[0, 65535, 256], [1, 2, 40000]], 16, floats(0.1, 1, 3e-5, 2), zeros, codec=PNG)
    tensor.affine.by.row_group, tensor.affine.by.col_group = 1, 2
    affine(draft, "d16", [1, 2], [[0, 32769]], 16, floats(0.5))
    return draft.build()


@vector(ROWS, "tensors.md §6", "tensors.md §8", "tensors.md §3.2")
def affine_float16() -> bytes:
    """float16 output: the float32 product is rounded once more; overflow; segments share scales."""
    draft = Draft()
    tensor = affine(draft, "w", [2, 4], [[0, 255, 129, 127], [131, 64, 1, 2]], 8, floats(0.1, 700.0), dtype=FLOAT16)
    tensor.affine.codes.segment = 2
    tensor.affine.by.col_group = 1
    return draft.build()


@vector(ROWS, "container.md §4.2", "container.md §5")
def unknown_fields() -> bytes:
    """Optional fields of a later version in the manifest, a tensor, its encoding and its codes are passed over."""
    draft = Draft()
    tensor = palette(draft, "w", [2, 2], [[0, 1], [1, 0]], 1, halves(1, 2), 2)
    later = b"".join((
        number_field(300, 7), number_field(300, 8), bytes_field(301, b"\xff\xfe"), key(302, 5) + bytes(4),
        key(303, 1) + bytes(8),
    ))  # fmt: skip
    tensor.palette.codes.MergeFromString(later)
    tensor.palette.MergeFromString(later)
    tensor.MergeFromString(later)
    draft.manifest.MergeFromString(later)
    return draft.build()


@vector(ROWS, "container.md §4.1", "container.md §4.2")
def later_minor() -> bytes:
    """spec_minor 7 opens."""
    draft = Draft()
    draft.manifest.spec_minor = 7
    draft.small("w", floats(1.0), [1])
    return draft.build()


@vector(ROWS, "container.md §4.2", "container.md §6")
def tensor_feature() -> bytes:
    """A tensor that requires an unknown feature fails alone, and its encoding is not checked; unused payloads pass."""
    draft = Draft()
    draft.small("a", floats(1.0), [1])
    tensor = draft.small("b", floats(2.0), [1])
    tensor.required_features.append("trellis")
    tensor.dense.byte_planes = True
    draft.bytes(b"used in a way of a later version")
    return draft.build()


@vector(ROWS, "container.md §4.2", "codecs.md §1")
def unknown_codec() -> bytes:
    """A payload of codec 9 makes its tensors fail alone, as a block, a table or a chunk."""
    draft = Draft()
    draft.small("a", floats(1.0), [1])
    tensor = palette(draft, "b", [2, 2], [[0, 1], [1, 0]], 1, halves(1, 2), 2)
    draft.parts[tensor.palette.codes.first_payload].codec = 9
    tensor = palette(draft, "c", [2, 2], [[0, 1], [1, 0]], 1, halves(1, 2), 2)
    draft.parts[tensor.palette.tables.payload].codec = 9
    _chunked(draft, "d", [2], [(floats(1, 2), STORED)], FLOAT)
    draft.parts[-1].codec = 255
    return draft.build()


@vector(ROWS, "container.md §4.2", "tensors.md §1")
def later_encoding() -> bytes:
    """An encoding of a later version (field 8), and element type 99: both fail alone."""
    draft = Draft()
    draft.small("a", floats(1.0), [1])
    draft.tensor("b", [2]).MergeFromString(bytes_field(8, b"\x08\x01"))
    draft.small("c", b"\x00", [1]).dtype = 99
    return draft.build()


@vector(ROWS, "container.md §5")
def default_fields() -> bytes:
    """Fields that stand with their default value, and an empty packed run, mean what their absence means."""
    draft = Draft()
    codes = number_field(4, 1) + number_field(5, 1) + number_field(6, 0) + number_field(7, 1)
    codes = bytes_field(1, b"") + number_field(3, 0) + codes + number_field(8, 0) + number_field(9, 0) + number_field(10, 0)
    tables = number_field(1, 1) + number_field(2, 0) + number_field(3, 4)
    body = bytes_field(1, codes) + number_field(2, 2) + number_field(3, 1) + bytes_field(4, tables)
    tensor = bytes_field(1, b"w") + number_field(2, 1) + bytes_field(3, b"\x02")
    tensor += bytes_field(6, body + bytes_field(5, number_field(1, 0)))
    draft.matrix([[0, 1]], 1)
    draft.bytes(halves(5, 6))

    def edit(raw: bytes) -> bytes:
        at = raw.index(b"\x8a\x01\x1d")
        return raw[:at] + b"\x82\x01" + bytes([len(tensor)]) + tensor + raw[at:]

    return draft.build(edit)


@vector(ROWS, "container.md §2")
def paddings() -> bytes:
    """Payloads whose frames need no padding, a padding field of 65 bytes (one byte is none), and one of 2 bytes."""
    draft = Draft()
    for name, size in (("a", 62), ("b", 61), ("c", 60), ("d", 130), ("e", 1)):
        draft.small(name, bytes(range(size)), [size], UINT8)
    return draft.build()


@vector(ROWS, "container.md §2", "container.md §5")
def crc_zero() -> bytes:
    """A manifest whose CRC-32 is 0: the field is there all the same."""
    draft = Draft()
    draft.small("w", floats(1.0), [1])
    return draft.build(lambda raw: (more := raw + key(500, 5)) + forge_crc(more, 0))


@vector(ROWS, "container.md §4.1")
def names() -> bytes:
    """Names are ordered by their bytes, not by UTF-16 units or letters, and are not normalised."""
    draft = Draft()
    listed = ["Z", "a", "a b/c:0", "e\u0301", "\u00e9", "\uffee", "\U0001f600"]
    for name in sorted(listed, key=str.encode):
        draft.small(name, name.encode(), [len(name.encode())], UINT8)
    return draft.build()


def described() -> Draft:
    """A draft with inputs, outputs and sources."""
    draft = Draft()
    manifest = draft.manifest
    manifest.producer, manifest.licence = "vectors 1", "Apache-2.0"
    manifest.description, manifest.scheme = "for tests", "kmeans-4"
    manifest.sources.add(format="onnx", file_name="net.onnx", sha256=bytes(range(32)))
    data = manifest.inputs.add(name="data", dtype=FLOAT)
    for size in (0, 3, 227, 227):
        data.shape.dimensions.add(size=size) if size else data.shape.dimensions.add(symbol="N")
    manifest.inputs.add(name="scalar", dtype=7).shape.SetInParent()
    prob = manifest.outputs.add(name="prob", dtype=FLOAT)
    prob.shape.dimensions.add()
    prob.shape.dimensions.add(size=3)
    manifest.outputs.add(name="unknown rank", dtype=FLOAT)
    return draft


@vector(ROWS, "container.md §4.1", "graph.md §1", "preprocessing.md §8", "tensors.md §1")
def described_model() -> bytes:
    """Sources, inputs, outputs, labels, preprocessing, graph, report and losses."""
    draft = described()
    draft.manifest.graph = draft.bytes(b"\x08\x08" + bytes_field(7, bytes_field(2, b"g")), ZLIB)
    draft.manifest.labels = draft.bytes("cat\nGr\u00fc\u00dfe\n\nlast\n".encode(), ZLIB)
    draft.manifest.report = draft.bytes(b'{"tensors": []}')
    step = draft.manifest.preprocessing.add(input="data", crop_height=227, crop_width=227)
    step.resize.CopyFrom(pb.Resize(mode=2, height=256, width=256, kernel=1, antialias=True))
    step.colour_order, step.layout = pb.COLOUR_ORDER_BGR, pb.LAYOUT_NCHW
    step.mean.extend((104.0, 117.0, 123.0))
    step.scale.append(0.017)
    for name, loss in (("a", pb.Loss(sqnr_millidb=41234, largest_error=812)), ("b", pb.Loss(sqnr_millidb=-5)),
                       ("c", pb.Loss(largest_error=1))):  # fmt: skip
        draft.small(name, floats(1.0), [1]).loss.CopyFrom(loss)
    return draft.build()


@vector(ROWS, "container.md §4.1", "preprocessing.md §5")
def mean_picture() -> bytes:
    """A mean picture of 2 x 3 pixels and three channels, by zlib; labels without a last line feed."""
    draft = described()
    step = draft.manifest.preprocessing.add(input="data", colour_order=pb.COLOUR_ORDER_RGB)
    step.resize.CopyFrom(pb.Resize(mode=1, height=2, width=3, kernel=2))
    payload = draft.bytes(floats(*[i * 1.5 for i in range(18)]), ZLIB)
    step.mean_picture.CopyFrom(pb.MeanPicture(payload=payload, height=2, width=3))
    draft.manifest.labels = draft.bytes(b"one\ntwo")
    return draft.build()


@vector(ROWS, "preprocessing.md §8", "container.md §4.2")
def later_preprocessing() -> bytes:
    """A mode, kernel, colour order and layout of a later version: the bundle opens."""
    draft = described()
    step = draft.manifest.preprocessing.add(input="data", colour_order=9, layout=9)  # type: ignore[arg-type]
    step.resize.CopyFrom(pb.Resize(mode=9, height=1, width=2, kernel=9))  # type: ignore[arg-type]
    step.mean.extend((1.0, 2.0, 3.0))
    return draft.build()


@vector(ROWS, "codecs.md §6", profile="full")
def pools() -> bytes:
    """Tables, scales, zero points and small tensors in one zstd pool, each at a multiple of 16."""
    draft = Draft()
    pool = floats(0.5, 0.25) + bytes(8) + b"\x01\x02" + bytes(14) + halves(1, 2, 3, 4) + bytes(8) + floats(9.0)
    index = draft.bytes(pool, ZSTD)
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


@vector(ROWS, "tensors.md §8", "tensors.md §5.2")
def palette_signs() -> bytes:
    """Zeros keep their signs, with and without scales; a product overflows to infinity."""
    draft = Draft()
    palette(draft, "a", [2], [[0], [1]], 1, halves(-0.0, 0.0), 2)
    tensor = palette(draft, "b", [3], [[0], [1], [2]], 2, floats(-0.0, 3e38, -1.0), 3, table_type=F32)
    tensor.palette.scale_type = F32
    put_floats(draft, tensor.palette.scales, floats(2.0))
    return draft.build()

