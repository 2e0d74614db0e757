"""Codec 1, zlib: one RFC 1950 stream that ends at the last byte (spec/codecs.md §3)."""

from __future__ import annotations

import zlib

from mobilemodel.errors import MalformedStreamError

# Strategy, level, memory level: with memory level 7 a block has 8 Ki symbols instead of 32 Ki, which is the smaller
# stream where rows of a matrix differ in scale.
_NOISE = ((zlib.Z_HUFFMAN_ONLY, 6, 9), (zlib.Z_HUFFMAN_ONLY, 6, 7))
_QUICK = ((zlib.Z_HUFFMAN_ONLY, 6, 9), (zlib.Z_DEFAULT_STRATEGY, 6, 9))
_THOROUGH = (*_NOISE, (zlib.Z_RLE, 6, 9), (zlib.Z_DEFAULT_STRATEGY, 9, 9))


def encode(raw: bytes | memoryview, thorough: bool, noise: bool = False) -> bytes:
    """Encode with each setting and return the smallest stream; on a tie the earlier setting, which decodes faster.

    ``noise`` says that matches are not worth searching, as in index matrices of 2 bits of entropy and more.
    """
    settings = _THOROUGH if thorough else _NOISE if noise else _QUICK
    return min((_compress(raw, *setting) for setting in settings), key=len)


def _compress(raw: bytes | memoryview, strategy: int, level: int, memory: int) -> bytes:
    compressor = zlib.compressobj(level, zlib.DEFLATED, 15, memory, strategy)
    return compressor.compress(raw) + compressor.flush()


def decode(data: bytes | memoryview, raw_size: int) -> bytes:
    """Decode exactly ``raw_size`` bytes; memory stays within them, whatever the stream says.

    Raises MalformedStreamError when the stream is broken, longer, shorter or followed by anything.
    """
    decompressor = zlib.decompressobj()
    try:
        raw = decompressor.decompress(data, raw_size + 1)
    except zlib.error as error:
        raise MalformedStreamError(f"zlib stream: {error}") from None
    if len(raw) != raw_size:
        found = f"more than {raw_size}" if len(raw) > raw_size else len(raw)
        raise MalformedStreamError("zlib stream has another raw size", expected=raw_size, found=found)
    if not decompressor.eof:
        raise MalformedStreamError("zlib stream does not end")
    if decompressor.unused_data:
        raise MalformedStreamError("bytes follow the zlib stream", found=f"{len(decompressor.unused_data)} bytes")
    return raw
