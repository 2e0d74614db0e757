"""The raw samples of a PNG with one channel: what its file says, before anyone makes colours of it.

A library for pictures gives other numbers: Pillow opens a grey PNG of depth 4 already multiplied by 17. Here a sample
of a grey picture is the number that its bits spell; so is one of a picture with a palette, unless that lists greys
alone. Source: PNG, third edition, §5 to §11.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from mobilemodel.errors import LimitExceededError, MalformedSourceError, MalformedStreamError, UnsupportedSourceError
from mobilemodel.layout import MatrixShape
from mobilemodel.png_filters import unfilter
from mobilemodel_converters.bits import unpack
from mobilemodel_converters.sources import OpenedFile

SIGNATURE = bytes.fromhex("89504E470D0A1A0A")
MOST_SAMPLES = 2**27
"""samples of all pictures: the full connects of the largest network of that time, VGG's, have 123,633,664 weights"""
_GREY, _PALETTE = 0, 3
_COLOURS = {_GREY: "grey", 2: "red, green and blue", _PALETTE: "a palette", 4: "grey and alpha",
            6: "red, green, blue and alpha"}  # fmt: skip
_LONGEST_CHUNK = 1 << 28


@dataclass(frozen=True)
class Picture:
    """The samples of a PNG, height x width, each below 2^depth."""

    samples: npt.NDArray[np.uint8]
    depth: int
    indexed: bool
    """they name colours of a palette"""


@dataclass(frozen=True)
class _Chunk:
    kind: bytes
    offset: int
    content: bytes


def read_picture(file: OpenedFile, height: int, width: int) -> Picture:
    """Read a PNG of exactly ``height`` x ``width`` samples of 1, 2, 4 or 8 bits.

    Raises MalformedSourceError for a broken file or another size, UnsupportedSourceError for colours, 16 bits or
    interlacing, LimitExceededError for a picture of too many samples.
    """
    if file.size < len(SIGNATURE) or file.read(0, len(SIGNATURE)) != SIGNATURE:
        raise MalformedSourceError("not a PNG")
    chunks = _chunks(file)
    first = next(chunks)
    if first.kind != b"IHDR" or len(first.content) != 13:
        raise MalformedSourceError("a PNG starts with IHDR", offset=first.offset, expected="13 bytes of IHDR",
                                   found=f"{len(first.content)} bytes of {first.kind.decode('latin-1')}")  # fmt: skip
    shape, indexed = _header(first.content, height, width)
    palette = bytearray()
    rows = np.frombuffer(_inflated(chunks, shape, palette), np.uint8).reshape(height, 1 + shape.row_bytes)
    try:
        packed = np.frombuffer(unfilter(rows), np.uint8)
    except MalformedStreamError as error:
        raise MalformedSourceError(error.message, expected=error.expected, found=error.found) from None
    picture = Picture(_samples(packed, shape), shape.depth, indexed)
    return _shown(picture, palette) if indexed else picture


def _header(content: bytes, height: int, width: int) -> tuple[MatrixShape, bool]:
    """Check IHDR; return the shape of the packed samples and whether they are indices."""
    found_width, found_height, depth, colour, compression, filters, interlace = struct.unpack(">IIBBBBB", content)
    if compression or filters or interlace > 1 or colour not in _COLOURS:
        raise MalformedSourceError("IHDR of the PNG", found=content.hex(" "))
    if colour not in (_GREY, _PALETTE) or depth == 16:
        raise UnsupportedSourceError("indices are one channel of at most 8 bits", expected="grey or a palette",
                                     found=f"{_COLOURS[colour]}, {depth} bits")  # fmt: skip
    if depth not in (1, 2, 4, 8):
        raise MalformedSourceError("depth of the PNG", expected="1, 2, 4 or 8", found=depth)
    if interlace:
        raise UnsupportedSourceError("an interlaced PNG", advice="Write it again without interlacing.")
    if (found_height, found_width) != (height, width):
        raise MalformedSourceError(
            "the picture has another size than the layer's weight",
            expected=f"{width} wide, one column for each input, and {height} high, one row for each output",
            found=f"{found_width} wide, {found_height} high",
        )  # fmt: skip
    if height * width > MOST_SAMPLES:
        raise LimitExceededError("samples of a picture", expected=f"at most {MOST_SAMPLES}", found=height * width)
    return MatrixShape(height, width, depth), colour == _PALETTE


def _chunks(file: OpenedFile) -> Iterator[_Chunk]:
    """The chunks that a reader has to know, up to IEND; ancillary ones are passed over, by their CRC too."""
    offset = len(SIGNATURE)
    while True:
        if file.size - offset < 12:
            raise MalformedSourceError("the PNG ends before IEND", offset=offset)
        length, kind = struct.unpack(">I4s", file.read(offset, 8))
        if not kind.isalpha() or length > file.size - offset - 12:
            raise MalformedSourceError("a chunk of the PNG does not fit the file", offset=offset,
                                       found=f"{length} bytes")  # fmt: skip
        needed = kind[:1].isupper()
        if needed and length <= _LONGEST_CHUNK:
            content = file.read(offset + 8, length + 4)
            if zlib.crc32(kind + content[:length]) != int.from_bytes(content[length:], "big"):
                raise MalformedSourceError("CRC of a chunk of the PNG", offset=offset, found=kind.decode())
            yield _Chunk(kind, offset, content[:length])
        elif needed:
            raise LimitExceededError("a chunk of the PNG", offset=offset, expected=f"at most {_LONGEST_CHUNK} bytes",
                                     found=length)  # fmt: skip
        offset += 12 + length
        if kind == b"IEND":
            if offset != file.size:
                raise MalformedSourceError("bytes follow IEND", offset=offset, found=f"{file.size - offset} bytes")
            return


def _inflated(chunks: Iterator[_Chunk], shape: MatrixShape, palette: bytearray) -> bytes:
    """The filtered rows: all IDAT chunks as one zlib stream that ends with the last row; memory stays within them.

    ``palette`` takes what PLTE holds.
    """
    size = shape.height * (1 + shape.row_bytes)
    stream = zlib.decompressobj()
    raw = bytearray()
    for chunk in chunks:
        if chunk.kind not in (b"IDAT", b"PLTE", b"IEND"):
            raise UnsupportedSourceError("a critical chunk of the PNG is not known", offset=chunk.offset,
                                         found=chunk.kind.decode())  # fmt: skip
        if chunk.kind == b"PLTE":
            palette[:] = chunk.content
        if chunk.kind != b"IDAT" or not chunk.content:
            continue
        try:
            # At least 1: to zlib, 0 means without bound.
            raw += stream.decompress(chunk.content, size - len(raw) + 1)
        except zlib.error as error:
            raise MalformedSourceError(f"the PNG's zlib stream: {error}", offset=chunk.offset) from None
        if len(raw) > size or stream.unused_data or stream.unconsumed_tail:
            raise MalformedSourceError("the PNG holds more than its rows", offset=chunk.offset,
                                       expected=f"{size} bytes")  # fmt: skip
    if len(raw) != size or not stream.eof:
        raise MalformedSourceError("the PNG's rows are not whole", expected=f"{size} bytes", found=len(raw))
    return bytes(raw)


def _shown(picture: Picture, palette: bytearray) -> Picture:
    """The greys of a picture whose palette has nothing else, each once; other colours say nothing of indices.

    Tools that make pictures smaller write few greys as a palette of their own order, and a loader sees the greys.
    """
    colours = np.frombuffer(bytes(palette[: len(palette) // 3 * 3]), np.uint8).reshape(-1, 3)
    greys = colours[:, 0].copy()
    if (colours != greys[:, None]).any() or np.unique(greys).size < max(greys.size, 1):
        return picture
    largest = int(picture.samples.max())
    if largest >= greys.size:
        raise MalformedSourceError("the palette of the PNG lacks a colour", expected=f"more than {largest}",
                                   found=greys.size)  # fmt: skip
    return Picture(greys[picture.samples], 8, False)


def _samples(packed: npt.NDArray[np.uint8], shape: MatrixShape) -> npt.NDArray[np.uint8]:
    """The samples of rows that each begin with a new byte."""
    samples = unpack(packed, shape.depth, packed.size * 8 // shape.depth)
    return np.ascontiguousarray(samples.reshape(shape.height, -1)[:, : shape.width])
