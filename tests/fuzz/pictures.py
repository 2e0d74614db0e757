"""PNG files changed chunk by chunk; lengths and CRCs stay right, so that a reader goes on to what was changed."""

from __future__ import annotations

import struct
import zlib
from random import Random
from typing import NamedTuple

from tests.ccv_databases import png_chunk

_SIGNATURE = bytes.fromhex("89504E470D0A1A0A")
_NUMBERS = (0, 1, 2, 3, 4, 5, 8, 16, 255)
_KINDS = (b"PLTE", b"tRNS", b"IDAT", b"IEND", b"ABCD", b"abCd", b"\0\0\0\0")
_SIDES = (0, 1, 7, 46_341, 2**16, 2**31 - 1, 2**32 - 1)


class Chunk(NamedTuple):
    """One chunk of a PNG."""

    kind: bytes
    content: bytes


def mutate_picture(content: bytes, random: Random) -> bytes:
    """One chunk changed, removed, doubled or moved."""
    found = chunks(content)
    if not found:
        return content[: random.randint(0, len(content))]
    at = random.randrange(len(found))
    action = random.randrange(6)
    if action == 0:
        del found[at]
    elif action == 1:
        found.insert(random.randint(0, len(found)), found[at])
    elif action == 2:
        found.insert(at, Chunk(random.choice(_KINDS), bytes(5)))
    elif action == 3:
        found[at] = found[at]._replace(content=_inside(found[at].content, random))
    else:
        found[at] = _knowing(found[at], random)
    return picture(found)


def chunks(content: bytes) -> list[Chunk]:
    """The chunks of a picture, as far as they are whole."""
    found, offset = [], len(_SIGNATURE)
    while offset + 12 <= len(content):
        length, kind = struct.unpack_from(">I4s", content, offset)
        if offset + 12 + length > len(content):
            break
        found.append(Chunk(kind, content[offset + 8 : offset + 8 + length]))
        offset += 12 + length
    return found


def picture(parts: list[Chunk]) -> bytes:
    """A PNG of these chunks."""
    return _SIGNATURE + b"".join(png_chunk(*part) for part in parts)


def _knowing(chunk: Chunk, random: Random) -> Chunk:
    """Another header, or other rows in the stream."""
    if chunk.kind == b"IHDR" and len(chunk.content) == 13:
        fields = list(struct.unpack(">IIBBBBB", chunk.content))
        at = random.randrange(len(fields))
        fields[at] = random.choice(_SIDES if at < 2 else _NUMBERS)
        return chunk._replace(content=struct.pack(">IIBBBBB", *fields))
    if chunk.kind == b"IDAT":
        try:
            rows = zlib.decompress(chunk.content)
        except zlib.error:
            return chunk._replace(content=_inside(chunk.content, random))
        bomb = bytes(1 << 22)
        rows = random.choice((_inside(rows, random), rows + b"\0", rows[:-1], rows * 2, bomb))
        return chunk._replace(content=zlib.compress(rows, random.choice((0, 9))))
    return chunk._replace(content=_inside(chunk.content, random))


def _inside(content: bytes, random: Random) -> bytes:
    at = random.randint(0, len(content))
    return content[:at] + bytes([random.choice(_NUMBERS)]) + content[at + random.randrange(3) :]
