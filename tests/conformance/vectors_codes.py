"""Valid vectors of palettes and affine tensors."""

from __future__ import annotations

import math
import struct
from collections.abc import Sequence

from mobilemodel.layout import MatrixShape
from tests.conformance.builder import (
    F16,
    F32,
    FLOAT16,
    PNG,
    ZLIB,
    ZSTD,
    Draft,
    floats,
    halves,
    png_file,
)
from tests.conformance.parts import affine, palette, put_floats, sort_tensors, split
from tests.conformance.rows import Row, vector

ROWS: list[Row] = []


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
    sort_tensors(draft)
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
    tensor = palette(
        draft, "b", [4], [[0], [1], [2], [3]], 2, floats(0.1, 1.00048828125, 3.1, 7.7), 4, dtype=FLOAT16, table_type=F32
    )
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
    tensor = affine(
        draft, "c16", [2, 3], [[0, 65535, 256], [1, 2, 40000]], 16, floats(0.1, 1, 3e-5, 2), zeros, codec=PNG
    )
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


@vector(ROWS, "tensors.md §8", "tensors.md §5.2")
def palette_signs() -> bytes:
    """Zeros keep their signs, with and without scales; a product overflows to infinity."""
    draft = Draft()
    palette(draft, "a", [2], [[0], [1]], 1, halves(-0.0, 0.0), 2)
    tensor = palette(draft, "b", [3], [[0], [1], [2]], 2, floats(-0.0, 3e38, -1.0), 3, table_type=F32)
    tensor.palette.scale_type = F32
    put_floats(draft, tensor.palette.scales, floats(2.0))
    return draft.build()
