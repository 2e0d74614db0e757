"""Invalid vectors of encodings: what a manifest says of its tensors, one fault each."""

from __future__ import annotations

from collections.abc import Callable

from mobilemodel.v1 import bundle_pb2 as pb
from tests.conformance.builder import (
    F16,
    FLOAT,
    FLOAT16,
    INT8,
    UINT8,
    ZLIB,
    ZSTD,
    Draft,
    floats,
    halves,
)
from tests.conformance.parts import affine, palette, put_floats, split
from tests.conformance.rows import Row
from tests.conformance.vectors_invalid import refuse

ROWS: list[Row] = []
BAD, LIMIT, STREAM, CONTENT = "MALFORMED_MANIFEST", "LIMIT_EXCEEDED", "MALFORMED_STREAM", "MALFORMED_CONTENT"


def tensor_fault(
    name: str,
    start: Callable[[Draft], pb.Tensor],
    change: Callable[[pb.Tensor], object],
    about: str,
    *covers: str,
    status: str = BAD,
) -> None:
    """Register a file whose only tensor was changed."""

    def make() -> bytes:
        draft = Draft()
        change(start(draft))
        return draft.build()

    refuse(name, status, make, about, *covers, rows=ROWS)


# tensors.md §4: dense.
DENSE = "tensors.md §4"


def small(draft: Draft) -> pb.Tensor:
    return draft.small("w", floats(1, 2), [2])


def chunked(draft: Draft) -> pb.Tensor:
    tensor = draft.tensor("w", [2])
    tensor.dense.stored_dtype, tensor.dense.chunk_elements = FLOAT, 64
    tensor.dense.first_payload = draft.add(floats(1, 2))
    return tensor


def dense(name: str, start: Callable[[Draft], pb.Tensor], about: str, status: str = BAD, **fields: object) -> None:
    def change(tensor: pb.Tensor) -> None:
        for field, value in fields.items():
            setattr(tensor.dense, field, value)

    tensor_fault(f"dense-{name}", start, change, about, DENSE, status=status)


dense("stored-dtype", small, "Stored as UINT32 under FLOAT.", stored_dtype=12)
dense("widened-dtype", lambda d: d.small("w", halves(1, 2), [2], 16), "FLOAT16 under BFLOAT16.", stored_dtype=FLOAT16)
dense("small-and-chunks", small, "A slice and chunks.", chunk_elements=64)
dense("small-planes", small, "Byte planes of a slice.", byte_planes=True)
dense("small-too-large", lambda d: d.small("w", bytes(4100), [1025]), "A slice of more than 4 KiB.")
dense("chunk-63", chunked, "Chunks of 63 elements.", chunk_elements=63)
dense("chunk-96", chunked, "Chunks of 96 elements.", chunk_elements=96)
dense("planes-8", lambda d: d.small("w", b"\1", [1], UINT8), "Byte planes of bytes.", byte_planes=True)
dense("no-payload", lambda d: d.tensor("w", [0]), "An empty tensor with chunks.", stored_dtype=FLOAT, chunk_elements=64)


def _size_8(tensor: pb.Tensor) -> None:
    tensor.dims[0] = 3


tensor_fault("dense-slice-size", small, _size_8, "A slice that is not the tensor's size.", DENSE, "codecs.md §6")
tensor_fault("dense-raw-size", chunked, _size_8, "A chunk that is not its elements' size.", DENSE, "codecs.md §2")


def sized(draft: Draft, raw_size: int) -> int:
    """Add a payload that is said to hold so much. It is never decoded: zstd's ratio has no bound at opening."""
    return draft.stored(ZSTD, bytes(10), raw_size)


def over(name: str, start: Callable[[Draft], pb.Tensor], about: str, *covers: str) -> None:
    """Register a file whose only fault is a number above its limit."""
    tensor_fault(name, start, lambda tensor: None, about, *covers, "security.md §3", status=LIMIT)


def _large_chunk(draft: Draft) -> pb.Tensor:
    tensor = draft.tensor("w", [1 << 23])
    tensor.dense.stored_dtype, tensor.dense.chunk_elements = FLOAT, 1 << 23
    tensor.dense.first_payload = sized(draft, 32 << 20)
    return tensor


over("dense-chunk-limit", _large_chunk, "A chunk of 32 MiB.", DENSE)


# tensors.md §3, §5, §6.
def four(draft: Draft) -> pb.Tensor:
    """A sound palette: dims 2 x 4, depth 4, 3 entries."""
    return palette(draft, "w", [2, 4], [[0, 1, 2, 0], [2, 1, 0, 1]], 4, halves(1, 2, 3), 3)


def _four_in_a_pool(draft: Draft) -> pb.Tensor:
    """The same, its tables at the start of a pool of 32 bytes."""
    tensor = four(draft)
    part = draft.parts[tensor.palette.tables.payload]
    part.stored = part.stored.ljust(32, b"\0")
    part.raw_size, part.crc32 = 32, None
    return tensor


def _change(message: str, fields: dict[str, object]) -> Callable[[pb.Tensor], None]:
    def change(tensor: pb.Tensor) -> None:
        target = getattr(tensor, tensor.WhichOneof("encoding") or "dense")
        for part in filter(None, message.split(".")):
            target = getattr(target, part)
        for field, value in fields.items():
            if isinstance(value, list):
                getattr(target, field).extend(value)
            else:
                setattr(target, field, value)

    return change


def codes(name: str, about: str, covers: str, status: str = BAD, **fields: object) -> None:
    tensor_fault(f"codes-{name}", four, _change("codes", fields), about, covers, status=status)


ORDER, VECTORS, STREAMS = "tensors.md §3.1", "tensors.md §3.2", "tensors.md §3.3"
codes("view-product", "A view of another number of elements.", ORDER, view=[2, 5])
codes("view-rank", "A view of 17 axes.", ORDER, LIMIT, view=[2, 4] + [1] * 15)
codes("perm-twice", "An axis twice.", ORDER, perm=[1, 1])
tensor_fault(
    "codes-perm-repeated",
    lambda draft: palette(draft, "w", [2, 2, 2], [[0, 1, 2, 0], [2, 1, 0, 1]], 4, halves(1, 2, 3), 3),
    _change("codes", {"perm": [0, 2, 2]}),
    "An axis twice, among axes of one size.",
    ORDER,
)
codes("perm-short", "A permutation of one of two axes.", ORDER, perm=[0])
codes("perm-range", "An axis that is not there.", ORDER, perm=[0, 2])
codes("row-axes", "Three row axes of two.", ORDER, row_axes=3)
codes("depth-0", "No depth.", STREAMS, depth=0)
codes("depth-3", "Depth 3.", STREAMS, depth=3)
codes("depth-32", "Depth 32.", STREAMS, depth=32)
codes("vector-0", "Sub-vectors of nothing.", VECTORS, vector=0)
codes("rows-per-block-0", "Blocks of no rows.", STREAMS, rows_per_block=0)
codes("segment-3", "A segment that does not divide the row.", VECTORS, segment=3)
codes("segment-8", "A segment above the row.", VECTORS, segment=8)
codes("background", "A background without a split stream.", STREAMS, background=1)
codes("first-payload", "A block that is not there.", "container.md §3", first_payload=2)
codes(
    "first-payload-32-bits",
    "A second block whose index exceeds 32 bits.",
    "security.md §3",
    first_payload=0xFFFFFFFF,
    rows_per_block=1,
)


def matrix_of(draft: Draft, dims: list[int], depth: int, table: bytes, **fields: int) -> pb.Tensor:
    """A palette of two entries by rows, its tables in payload 0; the fields are those of its codes."""
    tensor = draft.tensor("w", dims)
    out = tensor.palette
    out.codes.CopyFrom(pb.Codes(row_axes=1, depth=depth, vector=1, rows_per_block=1, first_payload=1))
    for field, value in fields.items():
        setattr(out.codes, field, value)
    out.entries, out.table_type = 2, F16
    put_floats(draft, out.tables, table)
    return tensor


def _view_beside_0(draft: Draft) -> pb.Tensor:
    tensor = matrix_of(draft, [0, 4], 1, b"", first_payload=0)
    tensor.palette.codes.view.extend([0, 1 << 40, 1 << 40])
    return tensor


over("codes-view-beside-0", _view_beside_0, "An empty view of 2^80 beside its 0.", ORDER)


def _long_vector(draft: Draft) -> pb.Tensor:
    tensor = matrix_of(draft, [1, 257], 1, halves(*range(2 * 257)), vector=257)
    draft.matrix([[1]], 1)
    return tensor


over("codes-vector-257", _long_vector, "Sub-vectors of 257.", VECTORS)


def _empty_with_payload(draft: Draft) -> pb.Tensor:
    draft.add(b"x")
    tensor = draft.tensor("w", [0, 4])
    out = tensor.palette
    out.codes.depth = out.codes.vector = out.codes.row_axes = out.codes.rows_per_block = out.codes.first_payload = 1
    out.entries, out.table_type = 2, F16
    put_floats(draft, out.tables, b"")
    return tensor


def _empty_with_first_payload(draft: Draft) -> pb.Tensor:
    return matrix_of(draft, [0, 4], 1, b"", first_payload=1)


tensor_fault(
    "codes-empty-first-payload", _empty_with_first_payload, lambda t: None,
    "An empty matrix that names a payload, which is not there.", STREAMS,
)  # fmt: skip
tensor_fault("codes-empty-payload", _empty_with_payload, lambda t: None, "A block of an empty matrix.", STREAMS)


def _large_block(draft: Draft) -> pb.Tensor:
    tensor = matrix_of(draft, [1 << 13, 1 << 13], 4, halves(1, 2), rows_per_block=1 << 13)
    sized(draft, 32 << 20)
    return tensor


over("codes-block-limit", _large_block, "A block of 32 MiB.", STREAMS)
FIELDS = "tensors.md §5.1"


def palettes(name: str, about: str, message: str = "", status: str = BAD, **fields: object) -> None:
    tensor_fault(f"palette-{name}", four, _change(message, fields), about, FIELDS, status=status)


palettes("entries-0", "No entries.", entries=0)
palettes("entries-17", "17 entries of depth 4.", entries=17)
palettes("table-type", "A table type of 3.", table_type=3)
palettes("table-type-0", "No table type.", table_type=0)
palettes("tables-size", "A slice of another size.", "tables", size=8)
palettes("tables-offset", "An offset that is no multiple of 16.", "tables", offset=8)
tensor_fault(
    "palette-offset-in-pool", _four_in_a_pool, _change("tables", {"offset": 8}),
    "An offset that is no multiple of 16, with room behind it.", "codecs.md §6",
)  # fmt: skip
palettes("scale-type", "A scale type without scales.", scale_type=1)
palettes("scales-by", "A grouping of scales without scales.", "scales_by", row_group=1)
palettes("past-payload", "A slice past its payload.", "tables", offset=16)
palettes("slice-overflow", "offset + size beyond 2^64.", "tables", offset=(1 << 64) - 16)
tensor_fault("palette-no-tables", four, lambda t: t.palette.ClearField("tables"), "No tables.", FIELDS)
tensor_fault("palette-no-codes", four, lambda t: t.palette.ClearField("codes"), "No codes.", FIELDS)
tensor_fault("palette-int8", four, lambda t: setattr(t, "dtype", INT8), "A palette of INT8.", "tensors.md §1")


def _many_entries(draft: Draft) -> pb.Tensor:
    tensor = matrix_of(draft, [1, 2], 16, b"", split=True)
    tensor.palette.entries = 65_537
    tensor.palette.tables.size = draft.parts[0].raw_size = 2 * 65_537
    draft.parts[0].codec, draft.parts[0].stored = ZSTD, bytes(10)
    draft.matrix([[0, 0]], 1)
    draft.add(b"")
    return tensor


over("palette-entries-65537", _many_entries, "65,537 entries, which a split stream of depth 16 could name.", FIELDS)


def _many_tables(draft: Draft) -> pb.Tensor:
    tensor = matrix_of(draft, [(1 << 23) + 1, 1], 1, b"", rows_per_block=(1 << 23) + 1)
    tensor.palette.tables_by.row_group = 1
    tensor.palette.tables.size = draft.parts[0].raw_size = 2 * 2 * ((1 << 23) + 1)
    draft.parts[0].codec, draft.parts[0].stored = ZSTD, bytes(10)
    sized(draft, (1 << 23) + 1)
    return tensor


over("palette-tables-limit", _many_tables, "2^23 + 1 tables of 2 entries.", FIELDS)


def _many_scales(draft: Draft) -> pb.Tensor:
    rows = (1 << 24) + 1
    tensor = draft.tensor("w", [rows, 1])
    out = tensor.affine
    out.codes.CopyFrom(pb.Codes(row_axes=1, depth=4, vector=1, rows_per_block=1 << 23, first_payload=1))
    out.by.row_group = 1
    out.scales.payload, out.scales.size = sized(draft, 4 * rows), 4 * rows
    for block in (1 << 23, 1 << 23, 1):
        sized(draft, block)
    return tensor


over("slice-limit", _many_scales, "A payload of scales alone of more than 64 MiB.", "codecs.md §6")


def four_split(draft: Draft) -> pb.Tensor:
    return split(draft, "w", [2, 4], [[[0, 1, 0, 0], [1, 0, 0, 1]]], [[0, 1, 2]], 2, 0, halves(*range(5)), 5)


tensor_fault(
    "split-background", four_split, _change("codes", {"background": 5}), "A background that is no entry.", FIELDS
)
tensor_fault("split-entries", four_split, _change("", {"entries": 6}), "Two entries more than 2^depth.", FIELDS)


def _split_parts(change: Callable[[Draft], object]) -> Callable[[], bytes]:
    def make() -> bytes:
        draft = Draft()
        four_split(draft)
        change(draft)
        return draft.build()

    return make


def _set_part(index: int, stored: bytes) -> Callable[[Draft], None]:
    def change(draft: Draft) -> None:
        draft.parts[index].stored, draft.parts[index].raw_size = stored, len(stored)

    return change


refuse(
    "split-too-large",
    BAD,
    _split_parts(_set_part(1, bytes(3))),
    "More other codes than the block has.",
    STREAMS,
    "codecs.md §2",
    rows=ROWS,
)
refuse(
    "split-count",
    STREAM,
    _split_parts(_set_part(1, bytes(2))),
    "More other codes than the plane has ones.",
    STREAMS,
    scope="tensor",
    rows=ROWS,
)
AFFINE = "tensors.md §6"


def eight(draft: Draft) -> pb.Tensor:
    return affine(draft, "w", [2, 2], [[1, 2], [3, 4]], 8, floats(0.5), b"\x80")


for _name, _part, _fields, _about in (
    ("depth-2", "codes", {"depth": 2}, "Depth 2."),
    ("vector-2", "codes", {"vector": 2}, "Sub-vectors."),
    ("split", "codes", {"split": True}, "A split stream."),
    ("zeros-size", "zeros", {"size": 2}, "Two zero points."),
    ("scales-size", "by", {"row_group": 1}, "One scale of two."),
):
    tensor_fault(f"affine-{_name}", eight, _change(_part, dict(_fields)), _about, AFFINE)
tensor_fault("affine-no-scales", eight, lambda t: t.affine.ClearField("scales"), "No scales.", AFFINE)


def _large_pool() -> bytes:
    draft = Draft()
    index = draft.add(bytes((64 << 10) + 16), ZLIB)
    tensor = draft.tensor("w", [1])
    tensor.dense.stored_dtype = FLOAT
    tensor.dense.small.CopyFrom(pb.Slice(payload=index, size=4))
    return draft.build()


def _empty_in_large() -> bytes:
    draft = Draft()
    tensor = matrix_of(draft, [1, 1], 16, b"")
    draft.parts.clear()
    put_floats(draft, tensor.palette.tables, floats(*[i % 7 for i in range(20_000)]), ZLIB)
    tensor.palette.entries, tensor.palette.table_type = 20_000, pb.FLOAT_TYPE_F32
    draft.matrix([[1]], 16)
    empty = draft.tensor("x", [0])
    empty.dense.stored_dtype = FLOAT
    empty.dense.small.SetInParent()
    return draft.build()


refuse(
    "pool-limit-empty", LIMIT, _empty_in_large,
    "An empty slice of a table of 80,000 bytes, which is a pool with it.", "codecs.md §6", "security.md §3", rows=ROWS,
)  # fmt: skip
refuse("pool-limit", LIMIT, _large_pool, "A pool of more than 64 KiB.", "codecs.md §6", "security.md §3", rows=ROWS)
