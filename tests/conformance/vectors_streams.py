"""Invalid vectors of payloads, where one tensor fails alone, and those with two right answers."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Callable

from mobilemodel.layout import MatrixShape
from tests.conformance.builder import (
    PNG,
    STORED,
    UINT8,
    ZLIB,
    ZSTD,
    Draft,
    floats,
    halves,
    png_chunk,
    png_file,
    zstd_frame,
    zstd_raw_frame,
)
from tests.conformance.parts import palette, split
from tests.conformance.rows import Row
from tests.conformance.vectors_invalid import one, refuse

ROWS: list[Row] = []
EITHER: list[Row] = []
BAD, LIMIT, STREAM, CONTENT = "MALFORMED_MANIFEST", "LIMIT_EXCEEDED", "MALFORMED_STREAM", "MALFORMED_CONTENT"


STREAMS = "tensors.md §3.3"

# Faults in payloads: a tensor fails alone. ``a`` stays sound.
RAW = bytes(range(64))


def payload_fault(
    name: str,
    codec: int,
    stored: bytes | Callable[[], bytes],
    about: str,
    *covers: str,
    status: str = STREAM,
    rows: list[Row] = ROWS,
    expect: str = "error",
    crc32: int | None = None,
) -> None:
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
payload_fault(
    "payload-crc",
    STORED,
    RAW,
    "A payload's checksum is wrong.",
    "container.md §3",
    status="PAYLOAD_CHECKSUM",
    crc32=zlib.crc32(RAW) ^ 1,
)
payload_fault("zlib-short", ZLIB, zlib.compress(RAW[:63]), "A stream of 63 bytes for 64.", ZLIBS)
payload_fault("zlib-long", ZLIB, zlib.compress(RAW + b"x"), "A stream of 65 bytes for 64.", ZLIBS)
payload_fault("zlib-cut", ZLIB, GOOD[:-5], "A stream without its end.", ZLIBS)
payload_fault("zlib-trailing", ZLIB, GOOD + b"\0", "A byte after the stream.", ZLIBS)
payload_fault("zlib-raw-deflate", ZLIB, GOOD[2:-4], "Deflate without zlib's header.", ZLIBS)
payload_fault("zlib-dictionary", ZLIB, PRESET, "A preset dictionary.", ZLIBS)
payload_fault("zlib-broken", ZLIB, GOOD[:2] + b"\x07" + GOOD[3:], "A block of type 3.", ZLIBS)
payload_fault(
    "zlib-adler",
    ZLIB,
    GOOD[:-1] + bytes([GOOD[-1] ^ 1]),
    "A wrong Adler-32, which a reader may skip.",
    ZLIBS,
    rows=EITHER,
    expect="either",
)
ZSTDS = "codecs.md §5"
payload_fault("zstd-two-frames", ZSTD, lambda: zstd_frame(RAW[:32]) + zstd_frame(RAW[32:]), "Two frames.", ZSTDS)
payload_fault(
    "zstd-frame-after", ZSTD, lambda: zstd_frame(RAW) + zstd_frame(b""), "An empty frame after the frame.", ZSTDS
)
payload_fault(
    "zstd-skippable", ZSTD, lambda: b"\x50\x2a\x4d\x18" + bytes(4) + zstd_frame(RAW), "A skippable frame.", ZSTDS
)
payload_fault("zstd-trailing", ZSTD, lambda: zstd_frame(RAW) + b"\0", "A byte after the frame.", ZSTDS)
payload_fault("zstd-no-size", ZSTD, zstd_raw_frame(RAW, 0, b"\0"), "A frame without its content size.", ZSTDS)
payload_fault("zstd-size", ZSTD, zstd_raw_frame(RAW, 0x20, b"\x41"), "A content size of 65.", ZSTDS)
payload_fault(
    "zstd-window", ZSTD, zstd_raw_frame(RAW, 0x80, b"\x01" + struct.pack("<I", 64)), "A window of 1,152 bytes.", ZSTDS
)
payload_fault("zstd-dictionary", ZSTD, zstd_raw_frame(RAW, 0x21, b"\x07\x40"), "A dictionary.", ZSTDS)
payload_fault("zstd-cut", ZSTD, lambda: zstd_frame(RAW)[:-1], "A frame without its end.", ZSTDS)
payload_fault("zstd-magic", ZSTD, lambda: b"\x29" + zstd_frame(RAW)[1:], "Another magic.", ZSTDS)
payload_fault(
    "zstd-checksum",
    ZSTD,
    lambda: (f := zstd_frame(RAW, write_checksum=True))[:-1] + bytes([f[-1] ^ 1]),
    "A wrong content checksum, which a reader may skip.",
    ZSTDS,
    rows=EITHER,
    expect="either",
)

# PNG: a matrix of 2 rows of 5 samples of 4 bits.
SHAPE = MatrixShape(2, 5, 4)
LINES = (b"\0\x01\x20\x10", b"\0\x21\x01\x20")
PNGS = "codecs.md §4"


def png_fault(name: str, stored: bytes, about: str, rows: list[Row] = ROWS, expect: str = "error") -> None:
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
png_fault(
    "png-crc", PICTURE[:-1] + bytes([PICTURE[-1] ^ 1]), "A wrong chunk CRC, which a reader may skip.", EITHER, "either"
)


def _without_codes(codec: int, stored: bytes) -> Callable[[], bytes]:
    """A split block whose codes are all the background, its second payload stored like this."""

    def make() -> bytes:
        draft = Draft()
        split(draft, "w", [1, 4], [[[0, 0, 0, 0]]], [[]], 2, 0, halves(*range(4)), 4)
        draft.parts[1].codec, draft.parts[1].stored = codec, stored
        return draft.build()

    return make


SIZES = "codecs.md §2"
_EMPTY_PNG, _EMPTY_FRAME = png_file(MatrixShape(0, 0, 2), ()), zstd_raw_frame(b"", 0x20, b"\0")
refuse("png-no-codes", BAD, _without_codes(PNG, _EMPTY_PNG), "A PNG without rows.", SIZES, PNGS, STREAMS, rows=ROWS)
refuse("zstd-no-codes", BAD, _without_codes(ZSTD, _EMPTY_FRAME), "A frame of nothing.", SIZES, STREAMS, rows=ROWS)
refuse("stored-no-codes", BAD, _without_codes(STORED, b"x"), "Stored bytes without raw ones.", SIZES, rows=ROWS)


def _empty_zlib() -> bytes:
    draft = one()
    draft.manifest.labels = draft.stored(ZLIB, zlib.compress(b""), 0)
    return draft.build()


refuse("zlib-no-bytes", BAD, _empty_zlib, "Labels of no bytes by zlib.", SIZES, rows=ROWS)


# container.md §6: codecs of all payloads, then each payload's CRC-32 before its stream.
def _codec_first() -> bytes:
    draft = one()
    tensor = draft.tensor("x", [128], UINT8)
    tensor.dense.stored_dtype, tensor.dense.chunk_elements = UINT8, 64
    tensor.dense.first_payload = draft.stored(STORED, RAW, 64, crc32=0)
    draft.stored(9, RAW, 64)
    return draft.build()


refuse(
    "codec-before-crc", "UNSUPPORTED_CODEC", _codec_first,
    "A damaged chunk, and then one of an unknown codec: the codec is reported.",
    "container.md §6", scope="tensor", runtime="status", rows=ROWS,
)  # fmt: skip
payload_fault(
    "crc-before-stream", ZLIB, GOOD[:-5], "A damaged payload whose stream is broken too: the checksum is reported.",
    "container.md §6", status="PAYLOAD_CHECKSUM", crc32=0,
)  # fmt: skip


def _labels() -> bytes:
    draft = one()
    draft.manifest.labels = draft.add(b"cat\n\xff\n")
    return draft.build()


refuse("labels-utf8", CONTENT, _labels, "Labels that are not UTF-8.", "container.md §4.1", scope="tensor", rows=ROWS)
