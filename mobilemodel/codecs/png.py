"""Codec 2, png: one grey PNG of three chunks (spec/codecs.md §4; PNG, third edition, §7 to §11).

The image's packed rows are the matrix; no pixel is converted.
"""

from __future__ import annotations

import struct
import zlib

import numpy as np

from mobilemodel.codecs import zlib as zlib_codec
from mobilemodel.errors import MalformedStreamError
from mobilemodel.layout import MatrixShape
from mobilemodel.png_filters import unfilter

SIGNATURE = bytes.fromhex("89504E470D0A1A0A")


def encode(raw: bytes | memoryview, shape: MatrixShape, thorough: bool) -> bytes:
    """Write rows with filter 0: on index planes every other filter makes the file larger and slower to read."""
    rows = np.frombuffer(raw, np.uint8).reshape(shape.height, shape.row_bytes)
    filtered = np.zeros((shape.height, shape.row_bytes + 1), np.uint8)
    filtered[:, 1:] = rows
    stream = zlib_codec.encode(filtered.data.cast("B"), thorough, noise=True)
    return SIGNATURE + _chunk(b"IHDR", _header(shape)) + _chunk(b"IDAT", stream) + _chunk(b"IEND", b"")


def _header(shape: MatrixShape) -> bytes:
    return struct.pack(">IIBBBBB", shape.width, shape.height, shape.depth, 0, 0, 0, 0)


def _chunk(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


def decode(data: bytes | memoryview, shape: MatrixShape) -> bytes:
    """Decode the packed rows of a PNG whose IHDR says exactly ``shape``.

    Raises MalformedStreamError for any other chunk, order, header, CRC, length or filter type.
    """
    if shape.raw_size == 0:
        raise MalformedStreamError("a PNG has no place for a matrix without codes")
    if bytes(data[:8]) != SIGNATURE:
        raise MalformedStreamError("not a PNG", expected=SIGNATURE.hex(" "), found=bytes(data[:8]).hex(" "))
    header, position = _read_chunk(data, 8, b"IHDR")
    if bytes(header) != _header(shape):
        raise MalformedStreamError("IHDR", expected=_header(shape).hex(" "), found=bytes(header).hex(" "))
    stream, position = _read_chunk(data, position, b"IDAT")
    trailer, position = _read_chunk(data, position, b"IEND")
    if len(trailer) or position != len(data):
        raise MalformedStreamError("IEND is not the end of the PNG")
    raw = zlib_codec.decode(stream, shape.height * (1 + shape.row_bytes))
    return unfilter(np.frombuffer(raw, np.uint8).reshape(shape.height, 1 + shape.row_bytes))


def _read_chunk(data: bytes | memoryview, position: int, kind: bytes) -> tuple[memoryview, int]:
    if len(data) - position < 12:
        raise MalformedStreamError(f"the PNG ends before {kind.decode()}")
    length, found = struct.unpack(">I4s", data[position : position + 8])
    if found != kind:
        raise MalformedStreamError("a PNG chunk", expected=kind, found=found)
    end = position + 8 + length
    if end + 4 > len(data):
        raise MalformedStreamError(f"the PNG ends within {kind.decode()}")
    if zlib.crc32(data[position + 4 : end]) != int.from_bytes(data[end : end + 4], "big"):
        raise MalformedStreamError(f"CRC of {kind.decode()}")
    return memoryview(data)[position + 8 : end], end + 4
