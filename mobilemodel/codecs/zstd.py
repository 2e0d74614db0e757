"""Codec 3, zstd: one frame with its content size, without dictionary (spec/codecs.md §5)."""

from __future__ import annotations

from functools import cache

import zstandard

from mobilemodel.errors import MalformedStreamError

MAGIC = bytes.fromhex("28B52FFD")
MAX_WINDOW = 16 << 20
MIN_WINDOW = 1 << 10
LARGEST_RATIO = (128 << 10) // 4
"""a block holds at most 128 KiB and takes at least 4 bytes (RFC 8878 §3.1.1.2)"""


@cache
def _settings(thorough: bool, noise: bool) -> tuple[zstandard.ZstdCompressionParameters, ...]:
    """Level 1, level 1 with few and long matches, and level 19, for index matrices with long matches only."""
    make = zstandard.ZstdCompressionParameters.from_level
    common = {"write_content_size": True, "write_checksum": False, "write_dict_id": False}
    quick = make(1, window_log=22, **common)
    few = make(1, window_log=22, min_match=7, hash_log=6, **common)
    if not thorough:
        return (quick, few) if noise else (quick,)
    return quick, few, make(19, window_log=24, **common, **({"min_match": 7} if noise else {}))


def encode(raw: bytes | memoryview, thorough: bool, part: int = 0, noise: bool = False) -> bytes:
    """Encode with each setting and return the smallest frame; on a tie the earlier setting.

    With ``part`` new blocks start at its multiples: a block has one Huffman table, and byte planes differ in theirs.
    ``noise`` says that short matches are not worth searching, as in index matrices.
    """
    settings = _settings(thorough, noise)
    return min((_compress(raw, setting, part or len(raw)) for setting in settings), key=len)


def _compress(raw: bytes | memoryview, settings: zstandard.ZstdCompressionParameters, part: int) -> bytes:
    if part >= len(raw):
        return zstandard.ZstdCompressor(compression_params=settings).compress(raw)
    compressor = zstandard.ZstdCompressor(compression_params=settings).compressobj(size=len(raw))
    out = []
    for start in range(0, len(raw), part):
        out.append(compressor.compress(raw[start : start + part]))
        last = start + part >= len(raw)
        out.append(compressor.flush(zstandard.COMPRESSOBJ_FLUSH_FINISH if last else zstandard.COMPRESSOBJ_FLUSH_BLOCK))
    return b"".join(out)


def decode(data: bytes | memoryview, raw_size: int) -> bytes:
    """Decode exactly ``raw_size`` bytes; the frame's header is checked before anything is allocated.

    Raises MalformedStreamError for another magic, size, window, a dictionary, or bytes after the frame.
    """
    if data[:4] != MAGIC:
        raise MalformedStreamError("not a zstd frame", expected=MAGIC.hex(" "), found=bytes(data[:4]).hex(" "))
    try:
        header = zstandard.get_frame_parameters(data)
    except zstandard.ZstdError as error:
        raise MalformedStreamError(f"zstd frame header: {error}") from None
    if header.content_size != raw_size:
        raise MalformedStreamError("content size of the zstd frame", expected=raw_size, found=header.content_size)
    if header.dict_id:
        raise MalformedStreamError("the zstd frame needs a dictionary", found=header.dict_id)
    window = min(max(raw_size, MIN_WINDOW), MAX_WINDOW)
    if header.window_size > window:
        raise MalformedStreamError("window of the zstd frame", expected=f"at most {window}", found=header.window_size)
    # The library allocates the content size before it reads a block.
    if raw_size > LARGEST_RATIO * len(data):
        raise MalformedStreamError("zstd frame is too short for its content size", found=f"{len(data)} bytes")
    try:
        raw = _decompress(data, raw_size)
    except zstandard.ZstdError as error:
        raise MalformedStreamError(f"zstd frame: {error}") from None
    if len(raw) != raw_size:
        raise MalformedStreamError("zstd frame has another raw size", expected=raw_size, found=len(raw))
    return raw


def _decompress(data: bytes | memoryview, raw_size: int) -> bytes:
    decompressor = zstandard.ZstdDecompressor(max_window_size=MAX_WINDOW)
    if raw_size:
        raw: bytes = decompressor.decompress(data, max_output_size=raw_size, allow_extra_data=False)
        return raw
    # The one-shot call returns nothing for a content size of 0 before it has read the frame.
    stream = decompressor.decompressobj()
    rest: bytes = stream.decompress(data)
    if not stream.eof or stream.unused_data:
        raise MalformedStreamError("an empty zstd frame does not end at the last byte")
    return rest
