"""The invalid vectors of tensors and codecs, those that only a Verifier reports, and those with two right answers."""

from __future__ import annotations

import math
import struct
import zlib
from collections.abc import Callable, Sequence

from mobilemodel.layout import MatrixShape
from mobilemodel.v1 import bundle_pb2 as pb
from tests.conformance.builder import (
    F16, F32, FLOAT, FLOAT16, INT8, PNG, STORED, UINT8, ZLIB, ZSTD, Draft, bytes_field, floats, halves, png_chunk,
    png_file, zstd_frame, zstd_raw_frame,
)  # fmt: skip
from tests.conformance.rows import Row
from tests.conformance.vectors_invalid import one, refuse
from tests.conformance.vectors_valid import affine, described, palette, put_floats, split

ROWS: list[Row] = []
EITHER: list[Row] = []
BAD, LIMIT, STREAM, CONTENT = "MALFORMED_MANIFEST", "LIMIT_EXCEEDED", "MALFORMED_STREAM", "MALFORMED_CONTENT"


def tensor_fault(
    name: str, start: Callable[[Draft], pb.Tensor], change: Callable[[pb.Tensor], object], about: str, *covers: str,
    status: str = BAD,
) -> None:  # fmt: skip
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
    tensor.dense.first_payload = draft.bytes(floats(1, 2))
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


def _large_chunk(tensor: pb.Tensor) -> None:
    tensor.dims[0], tensor.dense.chunk_elements = 1 << 23, 1 << 23


tensor_fault("dense-chunk-limit", chunked, _large_chunk, "A chunk of 32 MiB.", DENSE, "security.md §3", status=LIMIT)


# tensors.md §3, §5, §6.
def four(draft: Draft) -> pb.Tensor:
    """A sound palette: dims 2 x 4, depth 4, 3 entries."""
    return palette(draft, "w", [2, 4], [[0, 1, 2, 0], [2, 1, 0, 1]], 4, halves(1, 2, 3), 3)


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
codes("perm-short", "A permutation of one of two axes.", ORDER, perm=[0])
codes("perm-range", "An axis that is not there.", ORDER, perm=[0, 2])
codes("row-axes", "Three row axes of two.", ORDER, row_axes=3)
codes("depth-0", "No depth.", STREAMS, depth=0)
codes("depth-3", "Depth 3.", STREAMS, depth=3)
codes("depth-32", "Depth 32.", STREAMS, depth=32)
codes("vector-0", "Sub-vectors of nothing.", VECTORS, vector=0)
codes("vector-257", "Sub-vectors of 257.", VECTORS, LIMIT, vector=257)
codes("rows-per-block-0", "Blocks of no rows.", STREAMS, rows_per_block=0)
codes("segment-3", "A segment that does not divide the row.", VECTORS, segment=3)
codes("segment-8", "A segment above the row.", VECTORS, segment=8)
codes("background", "A background without a split stream.", STREAMS, background=1)
codes("first-payload", "A block that is not there.", "container.md §3", first_payload=2)
codes("first-payload-32-bits", "A second block whose index exceeds 32 bits.", "security.md §3", first_payload=0xFFFFFFFF,
      rows_per_block=1)  # fmt: skip


def _view_beside_0(tensor: pb.Tensor) -> None:
    tensor.dims[:] = [0, 4]
    tensor.palette.codes.view.extend([0, 1 << 40, 1 << 40])


tensor_fault("codes-view-beside-0", four, _view_beside_0, "An empty view of 2^80 beside its 0.", ORDER, status=LIMIT)


def _empty_with_payload(draft: Draft) -> pb.Tensor:
    draft.bytes(b"x")
    tensor = draft.tensor("w", [0, 4])
    out = tensor.palette
    out.codes.depth = out.codes.vector = out.codes.row_axes = out.codes.rows_per_block = out.codes.first_payload = 1
    out.entries, out.table_type = 2, F16
    put_floats(draft, out.tables, b"")
    return tensor


tensor_fault("codes-empty-payload", _empty_with_payload, lambda t: None, "A block of an empty matrix.", STREAMS)


def _large_block(tensor: pb.Tensor) -> None:
    tensor.dims[:] = [1 << 13, 1 << 13]
    tensor.palette.codes.rows_per_block = 1 << 13


tensor_fault("codes-block-limit", four, _large_block, "A block of 32 MiB.", STREAMS, "security.md §3", status=LIMIT)
FIELDS = "tensors.md §5.1"


def palettes(name: str, about: str, message: str = "", status: str = BAD, **fields: object) -> None:
    tensor_fault(f"palette-{name}", four, _change(message, fields), about, FIELDS, status=status)


palettes("entries-0", "No entries.", entries=0)
palettes("entries-17", "17 entries of depth 4.", entries=17)
palettes("entries-65537", "65,537 entries.", status=LIMIT, entries=65537)
palettes("table-type", "A table type of 3.", table_type=3)
palettes("table-type-0", "No table type.", table_type=0)
palettes("tables-size", "A slice of another size.", "tables", size=8)
palettes("tables-offset", "An offset that is no multiple of 16.", "tables", offset=8)
palettes("scale-type", "A scale type without scales.", scale_type=1)
palettes("scales-by", "A grouping of scales without scales.", "scales_by", row_group=1)
palettes("past-payload", "A slice past its payload.", "tables", offset=16)
palettes("slice-overflow", "offset + size beyond 2^64.", "tables", offset=(1 << 64) - 16)
tensor_fault("palette-no-tables", four, lambda t: t.palette.ClearField("tables"), "No tables.", FIELDS)
tensor_fault("palette-no-codes", four, lambda t: t.palette.ClearField("codes"), "No codes.", FIELDS)
tensor_fault("palette-int8", four, lambda t: setattr(t, "dtype", INT8), "A palette of INT8.", "tensors.md §1")


def _many_tables(tensor: pb.Tensor) -> None:
    tensor.dims[:] = [1 << 23, 2]
    tensor.palette.tables_by.row_group = 1
    tensor.palette.codes.rows_per_block = 1 << 20


tensor_fault("palette-tables-limit", four, _many_tables, "2^23 tables of 3 entries.", FIELDS, "security.md §3", status=LIMIT)


def four_split(draft: Draft) -> pb.Tensor:
    return split(draft, "w", [2, 4], [[[0, 1, 0, 0], [1, 0, 0, 1]]], [[0, 1, 2]], 2, 0, halves(*range(5)), 5)


tensor_fault("split-background", four_split, _change("codes", {"background": 5}), "A background that is no entry.", FIELDS)
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


refuse("split-too-large", BAD, _split_parts(_set_part(1, bytes(3))), "More other codes than the block has.", STREAMS,
       "codecs.md §2", rows=ROWS)  # fmt: skip
refuse("split-count", STREAM, _split_parts(_set_part(1, bytes(2))), "More other codes than the plane has ones.", STREAMS,
       scope="tensor", rows=ROWS)  # fmt: skip
AFFINE = "tensors.md §6"


def eight(draft: Draft) -> pb.Tensor:
    return affine(draft, "w", [2, 2], [[1, 2], [3, 4]], 8, floats(0.5), b"\x80")


for _name, _part, _fields, _about in (
    ("depth-2", "codes", {"depth": 2}, "Depth 2."), ("vector-2", "codes", {"vector": 2}, "Sub-vectors."),
    ("split", "codes", {"split": True}, "A split stream."), ("zeros-size", "zeros", {"size": 2}, "Two zero points."),
    ("scales-size", "by", {"row_group": 1}, "One scale of two."),
):  # fmt: skip
    tensor_fault(f"affine-{_name}", eight, _change(_part, dict(_fields)), _about, AFFINE)
tensor_fault("affine-no-scales", eight, lambda t: t.affine.ClearField("scales"), "No scales.", AFFINE)


def _large_pool() -> bytes:
    draft = Draft()
    index = draft.bytes(bytes((64 << 10) + 16), ZLIB)
    tensor = draft.tensor("w", [1])
    tensor.dense.stored_dtype = FLOAT
    tensor.dense.small.CopyFrom(pb.Slice(payload=index, size=4))
    return draft.build()


refuse("pool-limit", LIMIT, _large_pool, "A pool of more than 64 KiB.", "codecs.md §6", "security.md §3", rows=ROWS)

# Faults in payloads: a tensor fails alone. ``a`` stays sound.
RAW = bytes(range(64))


def payload_fault(
    name: str, codec: int, stored: bytes | Callable[[], bytes], about: str, *covers: str, status: str = STREAM,
    rows: list[Row] = ROWS, expect: str = "error", crc32: int | None = None,
) -> None:  # fmt: skip
    """Register a file with a chunk of 64 bytes, 0 to 63, stored like this."""

    def make() -> bytes:
        draft = Draft()
        draft.small("a", floats(1.0), [1])
        tensor = draft.tensor("b", [64], UINT8)
        tensor.dense.stored_dtype, tensor.dense.chunk_elements = UINT8, 64
        data = stored() if callable(stored) else stored
        tensor.dense.first_payload = draft.stored(codec, data, 64, crc32)
        return draft.build()

    profile = "full" if codec == ZSTD else "baseline"
    refuse(name, status, make, about, *covers, scope="tensor", profile=profile, rows=rows, expect=expect)


GOOD = zlib.compress(RAW, 9)
DICTIONARY = zlib.compressobj(9, zdict=bytes(range(32)))
PRESET = DICTIONARY.compress(RAW) + DICTIONARY.flush()
ZLIBS = "codecs.md §3"
payload_fault("payload-crc", STORED, RAW, "A payload's checksum is wrong.", "container.md §3", status="PAYLOAD_CHECKSUM",
              crc32=zlib.crc32(RAW) ^ 1)  # fmt: skip
payload_fault("zlib-short", ZLIB, zlib.compress(RAW[:63]), "A stream of 63 bytes for 64.", ZLIBS)
payload_fault("zlib-long", ZLIB, zlib.compress(RAW + b"x"), "A stream of 65 bytes for 64.", ZLIBS)
payload_fault("zlib-cut", ZLIB, GOOD[:-5], "A stream without its end.", ZLIBS)
payload_fault("zlib-trailing", ZLIB, GOOD + b"\0", "A byte after the stream.", ZLIBS)
payload_fault("zlib-raw-deflate", ZLIB, GOOD[2:-4], "Deflate without zlib's header.", ZLIBS)
payload_fault("zlib-dictionary", ZLIB, PRESET, "A preset dictionary.", ZLIBS)
payload_fault("zlib-broken", ZLIB, GOOD[:2] + b"\x07" + GOOD[3:], "A block of type 3.", ZLIBS)
payload_fault("zlib-adler", ZLIB, GOOD[:-1] + bytes([GOOD[-1] ^ 1]), "A wrong Adler-32, which a reader may skip.", ZLIBS,
              rows=EITHER, expect="either")  # fmt: skip
ZSTDS = "codecs.md §5"
payload_fault("zstd-two-frames", ZSTD, lambda: zstd_frame(RAW[:32]) + zstd_frame(RAW[32:]), "Two frames.", ZSTDS)
payload_fault("zstd-frame-after", ZSTD, lambda: zstd_frame(RAW) + zstd_frame(b""), "An empty frame after the frame.", ZSTDS)
payload_fault("zstd-skippable", ZSTD, lambda: b"\x50\x2a\x4d\x18" + bytes(4) + zstd_frame(RAW), "A skippable frame.", ZSTDS)
payload_fault("zstd-trailing", ZSTD, lambda: zstd_frame(RAW) + b"\0", "A byte after the frame.", ZSTDS)
payload_fault("zstd-no-size", ZSTD, zstd_raw_frame(RAW, 0, b"\0"), "A frame without its content size.", ZSTDS)
payload_fault("zstd-size", ZSTD, zstd_raw_frame(RAW, 0x20, b"\x41"), "A content size of 65.", ZSTDS)
payload_fault("zstd-window", ZSTD, zstd_raw_frame(RAW, 0x80, b"\x01" + struct.pack("<I", 64)), "A window of 1,152 bytes.", ZSTDS)
payload_fault("zstd-dictionary", ZSTD, zstd_raw_frame(RAW, 0x21, b"\x07\x40"), "A dictionary.", ZSTDS)
payload_fault("zstd-cut", ZSTD, lambda: zstd_frame(RAW)[:-1], "A frame without its end.", ZSTDS)
payload_fault("zstd-magic", ZSTD, lambda: b"\x29" + zstd_frame(RAW)[1:], "Another magic.", ZSTDS)
payload_fault("zstd-checksum", ZSTD, lambda: (f := zstd_frame(RAW, write_checksum=True))[:-1] + bytes([f[-1] ^ 1]),
              "A wrong content checksum, which a reader may skip.", ZSTDS, rows=EITHER, expect="either")  # fmt: skip

# PNG: a matrix of 2 rows of 5 samples of 4 bits.
SHAPE = MatrixShape(2, 5, 4)
LINES = (b"\0\x01\x20\x10", b"\0\x21\x01\x20")
PNGS = "codecs.md §4"


def png_fault(
    name: str, stored: bytes, about: str, rows: list[Row] = ROWS, expect: str = "error"
) -> None:
    def make() -> bytes:
        draft = Draft()
        draft.small("a", floats(1.0), [1])
        palette(draft, "b", [2, 5], [[0, 1, 2, 0, 1], [2, 1, 0, 1, 2]], 4, halves(1, 2, 3), 3)
        draft.parts[1].codec, draft.parts[1].stored = PNG, stored
        return draft.build()

    refuse(name, STREAM, make, about, PNGS, scope="tensor", rows=rows, expect=expect)


def _header(width: int, height: int, depth: int, colour: int = 0, interlace: int = 0) -> bytes:
    return struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, interlace)


PICTURE = png_file(SHAPE, LINES)
png_fault("png-depth", png_file(MatrixShape(2, 3, 8), LINES), "3 samples of 8 bits, the same rows.")
png_fault("png-height", png_file(SHAPE, LINES, header=_header(5, 1, 4)), "A header of one row.")
png_fault("png-colour", png_file(SHAPE, LINES, header=_header(5, 2, 4, colour=3)), "A palette picture.")
png_fault("png-interlace", png_file(SHAPE, LINES, header=_header(5, 2, 4, interlace=1)), "An interlaced picture.")
png_fault("png-two-idat", png_file(SHAPE, LINES, idats=2), "Two IDATs.")
png_fault("png-text", png_file(SHAPE, LINES, extra=png_chunk(b"tEXt", b"a\0b")), "A text chunk.")
png_fault("png-filter-5", png_file(SHAPE, (LINES[0], b"\5" + LINES[1][1:])), "Filter type 5.")
png_fault("png-rows", png_file(SHAPE, (*LINES, LINES[0])), "Three rows of data.")
png_fault("png-trailing", PICTURE + b"\0", "A byte after IEND.")
png_fault("png-no-end", PICTURE[:-12], "No IEND.")
png_fault("png-signature", b"\x88" + PICTURE[1:], "Another signature.")
png_fault("png-crc", PICTURE[:-1] + bytes([PICTURE[-1] ^ 1]), "A wrong chunk CRC, which a reader may skip.", EITHER, "either")
_EMPTY_PNG = png_file(MatrixShape(0, 0, 2), ())


def _empty_png() -> bytes:
    draft = Draft()
    split(draft, "w", [1, 4], [[[0, 0, 0, 0]]], [[]], 2, 0, halves(*range(4)), 4)
    draft.parts[1].codec, draft.parts[1].stored = PNG, _EMPTY_PNG
    return draft.build()


refuse("png-no-codes", STREAM, _empty_png, "A PNG without rows.", PNGS, STREAMS, scope="tensor", rows=ROWS)


def _labels() -> bytes:
    draft = one()
    draft.manifest.labels = draft.bytes(b"cat\n\xff\n")
    return draft.build()


refuse("labels-utf8", CONTENT, _labels, "Labels that are not UTF-8.", "container.md §4.1", scope="tensor", rows=ROWS)


# What a Verifier reports; a reader decodes it.
def verify_fault(name: str, make: Callable[[Draft], object], about: str, *covers: str) -> None:
    def build() -> bytes:
        draft = Draft()
        make(draft)
        return draft.build()

    refuse(f"verify-{name}", CONTENT, build, about, *covers, scope="verify", rows=ROWS)


WRITERS, TOTAL = "tensors.md §7", "tensors.md §5.3"


def _scaled(tables: Sequence[float], scales: Sequence[float]) -> Callable[[Draft], None]:
    def make(draft: Draft) -> None:
        tensor = palette(draft, "w", [2], [[0], [1]], 1, floats(*tables), 2, table_type=F32)
        tensor.palette.scale_type = F32
        put_floats(draft, tensor.palette.scales, floats(*scales))

    return make


def _stored_bits(codes: bytes) -> Callable[[Draft], None]:
    def make(draft: Draft) -> None:
        palette(draft, "w", [1, 3], [[1, 2, 0]], 4, halves(1, 2, 3), 3)
        draft.parts[0].stored = codes

    return make


verify_fault("code", lambda d: palette(d, "w", [1, 3], [[0, 3, 15]], 4, halves(1, 2, 3), 3),
             "Codes 3 and 15 of 3 entries decode to +0.0.", TOTAL, WRITERS)  # fmt: skip


def _vector_code(draft: Draft) -> None:
    tensor = palette(draft, "w", [1, 4], [[1, 2]], 2, halves(-1, -2, -3, -4), 2, vector=2)
    tensor.palette.scale_type = F32
    put_floats(draft, tensor.palette.scales, floats(2.0))


verify_fault("code-vector", _vector_code, "A code past the entries: all its elements are +0.0.", TOTAL, WRITERS)
verify_fault("code-split-16", lambda d: split(d, "w", [1, 3], [[[1, 0, 1]]], [[65535, 5]], 16, 0, halves(7, 8), 2),
             "Code 65,536 of a split stream of depth 16 needs 17 bits; it is no entry, nor is 6.", TOTAL, STREAMS)  # fmt: skip
verify_fault("table-nan", lambda d: palette(d, "w", [2], [[0], [1]], 1, halves(math.nan, 1), 2), "A NaN in a table.", WRITERS)
verify_fault("table-infinite", lambda d: palette(d, "w", [2], [[0], [1]], 1, halves(math.inf, 1), 2), "An infinite entry.", WRITERS)
verify_fault("scale-0", _scaled((1, 2), (0.0,)), "A scale of 0.", WRITERS)
verify_fault("scale-negative", _scaled((1, 2), (-1.0,)), "A negative scale.", WRITERS)
verify_fault("scale-subnormal", _scaled((1, 2), (1e-40,)), "A subnormal scale.", WRITERS)
verify_fault("product", _scaled((1e-20, 2), (1e-20,)), "A product below 2^-126.", WRITERS)
verify_fault("affine-scale", lambda d: affine(d, "w", [1, 1], [[3]], 8, floats(math.inf)), "An infinite scale.", WRITERS)
verify_fault("spare-bits", _stored_bits(b"\x12\x01"), "Spare bits at the end of a row.", WRITERS, STREAMS)


def _split_spare(index: int, stored: bytes) -> Callable[[Draft], None]:
    def make(draft: Draft) -> None:
        split(draft, "w", [1, 5], [[[0, 1, 0, 1, 1]]], [[0, 1, 2]], 2, 0, halves(*range(4)), 4)
        assert draft.parts[index].stored[0] & stored[0] == draft.parts[index].stored[0] != stored[0]
        draft.parts[index].stored = stored

    return make


verify_fault("spare-bits-plane", _split_spare(0, b"\x5f"), "Spare bits of a plane, which do not count as ones.", WRITERS, STREAMS)
verify_fault("spare-bits-others", _split_spare(1, b"\x1b"), "Spare bits after a block's other codes.", WRITERS, STREAMS)


def _hidden(draft: Draft) -> None:
    tensor = draft.small("w", floats(1.0), [1])
    draft.parts[0].stored = floats(1.0) + b"\1"
    draft.parts[0].raw_size = 5
    assert tensor.dense.small.size == 4


verify_fault("pool-bytes", _hidden, "A byte of a pool that belongs to no slice.", WRITERS)


def _mean_nan() -> bytes:
    draft = described()
    picture = pb.MeanPicture(payload=draft.bytes(floats(math.nan, 1, 2)), height=1, width=1)
    draft.manifest.preprocessing.add(input="data", mean_picture=picture)
    return draft.build()


refuse("verify-mean-nan", CONTENT, _mean_nan, "A NaN in a mean picture.", WRITERS, "preprocessing.md §8", scope="verify",
       rows=ROWS)  # fmt: skip


def _report() -> bytes:
    draft = one()
    draft.manifest.report = draft.bytes(b"[1]")
    return draft.build()


refuse("verify-report", CONTENT, _report, "A report that is no JSON object.", "container.md §4.1", scope="verify", rows=ROWS)
assert bytes_field(1, b"") == b"\x0a\x00"
