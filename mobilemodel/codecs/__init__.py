"""Payload codecs: stored bytes <-> raw bytes (spec/codecs.md). One file is one codec; none knows of tensors.

Decoders check everything before they allocate: they raise MalformedStreamError for a stream that is not exactly
what the spec allows, and never return anything but ``raw_size`` bytes.
"""

from __future__ import annotations

from enum import Enum

from mobilemodel.codecs import png, stored, zlib, zstd
from mobilemodel.errors import MalformedStreamError, UnsupportedCodecError
from mobilemodel.layout import MatrixShape
from mobilemodel.v1 import bundle_pb2 as pb

Buffer = bytes | memoryview
WORTH_PNG = 0.99
"""size of a PNG over that of a zstd frame below which a full bundle takes the PNG, which decodes several times slower:
zstd's Huffman codes end at 11 bits, deflate's at 15, and its blocks are longer"""


class Family(Enum):
    """What a writer packs with: PNG and zlib (baseline readers), or zstd (full readers)."""

    BASELINE = "png"
    FULL = "zstd"


class Effort(Enum):
    """How many encoder settings are tried; a decoder cannot tell.

    Below 2 bits of entropy a symbol, match searching hurts and settings differ by up to 40 %; above, the quick one
    is within 1 % of the entropy.
    """

    QUICK = 1
    THOROUGH = 2


def name(codec: int) -> str:
    """Lower-case name of a codec number: ``zstd``; ``codec 9`` for an unknown one."""
    known: dict[int, str] = {
        pb.CODEC_STORED: "stored", pb.CODEC_ZLIB: "zlib", pb.CODEC_PNG: "png", pb.CODEC_ZSTD: "zstd",
    }  # fmt: skip
    return known.get(codec, f"codec {codec}")


def decode_bytes(codec: int, data: Buffer, raw_size: int) -> Buffer:
    """Decode a payload that is no matrix; the result has ``raw_size`` bytes.

    >>> bytes(decode_bytes(pb.CODEC_STORED, b"abc", 3))
    b'abc'
    """
    if codec == pb.CODEC_STORED:
        return stored.decode(data, raw_size)
    if codec == pb.CODEC_ZLIB:
        return zlib.decode(data, raw_size)
    if codec == pb.CODEC_ZSTD:
        return zstd.decode(data, raw_size)
    if codec == pb.CODEC_PNG:
        raise MalformedStreamError("a PNG payload where bytes are expected")
    raise UnsupportedCodecError("a payload has a codec that this reader does not know", found=codec)


def decode_matrix(codec: int, data: Buffer, shape: MatrixShape) -> Buffer:
    """Decode a packed matrix of ``shape``; the result has ``shape.raw_size`` bytes, rows from top to bottom."""
    if codec == pb.CODEC_PNG:
        return png.decode(data, shape)
    if codec == pb.CODEC_ZLIB:
        raise MalformedStreamError("a zlib payload where a matrix is expected")
    return decode_bytes(codec, data, shape.raw_size)


def encode_bytes(raw: Buffer, family: Family, effort: Effort, part: int = 0) -> tuple[int, bytes]:
    """Encode bytes; return the codec (stored where nothing is gained) and the stored bytes.

    ``part``: bytes after which their statistics change, as from one byte plane to the next; 0: nowhere.
    """
    if family is Family.BASELINE:
        return _smaller(raw, pb.CODEC_ZLIB, zlib.encode(raw, effort is Effort.THOROUGH))
    return _smaller(raw, pb.CODEC_ZSTD, zstd.encode(raw, effort is Effort.THOROUGH, part))


def encode_matrix(raw: Buffer, shape: MatrixShape, family: Family, effort: Effort, part: int = 0) -> tuple[int, bytes]:
    """Encode a packed matrix; return the codec (stored where nothing is gained) and the stored bytes.

    ``part`` as for ``encode_bytes``. With zstd, a PNG is taken where it saves more than 1 %.
    """
    if shape.raw_size == 0:
        return pb.CODEC_STORED, b""
    thorough = effort is Effort.THOROUGH
    if family is Family.BASELINE:
        return _smaller(raw, pb.CODEC_PNG, png.encode(raw, shape, thorough))
    frame = zstd.encode(raw, thorough, part, noise=True)
    picture = png.encode(raw, shape, thorough=False)
    if len(picture) < WORTH_PNG * len(frame):
        return _smaller(raw, pb.CODEC_PNG, picture)
    return _smaller(raw, pb.CODEC_ZSTD, frame)


def _smaller(raw: Buffer, codec: int, encoded: bytes) -> tuple[int, bytes]:
    return (codec, encoded) if len(encoded) < len(raw) else (pb.CODEC_STORED, bytes(raw))
