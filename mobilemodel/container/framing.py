"""Where each byte of a bundle stands: a function of the sizes of its manifest and payloads (spec/container.md §2)."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from mobilemodel.wire import varint, varint_size

MAGIC = bytes.fromhex("0D4D4D4231")
CRC_TAG = 0x15
MANIFEST_TAG = 0x1A
PADDING_TAG = 0x22
PAYLOAD_TAG = 0x2A
ALIGNMENT = 64
HEAD_SIZE = 11
"""bytes before the manifest's length: magic field, CRC field and the manifest's tag"""


@dataclass(frozen=True)
class Frame:
    """The bytes between the previous field and a payload's first byte."""

    start: int
    padding: int
    """bytes of the padding field, 0 or 2 to 65"""
    payload_size: int

    @property
    def offset(self) -> int:
        """Position of the payload's first byte, a multiple of 64."""
        return self.start + self.padding + 1 + varint_size(self.payload_size)

    @property
    def end(self) -> int:
        """Position after the payload's last byte."""
        return self.offset + self.payload_size

    def content(self) -> bytes:
        """The frame's bytes: padding field, payload tag, payload length."""
        zeros = bytes([PADDING_TAG, self.padding - 2]) + bytes(self.padding - 2) if self.padding else b""
        return zeros + bytes([PAYLOAD_TAG]) + varint(self.payload_size)


def frame(position: int, payload_size: int) -> Frame:
    """The frame of a payload of ``payload_size`` bytes when the fields so far end at ``position``.

    >>> frame(100, 1000).offset
    128
    """
    header = 1 + varint_size(payload_size)
    gap = -(position + header) % ALIGNMENT
    return Frame(position, ALIGNMENT + 1 if gap == 1 else gap, payload_size)


def head_size(manifest_size: int) -> int:
    """Position where the manifest's bytes end."""
    return HEAD_SIZE + varint_size(manifest_size) + manifest_size


def head(manifest: bytes, crc32: int) -> bytes:
    """The file's bytes before the manifest's."""
    return MAGIC + bytes([CRC_TAG]) + crc32.to_bytes(4, "little") + bytes([MANIFEST_TAG]) + varint(len(manifest))


def frames(manifest_size: int, payload_sizes: Iterable[int]) -> list[Frame]:
    """The frame of each payload; the file ends where the last payload does."""
    position = head_size(manifest_size)
    out = []
    for size in payload_sizes:
        out.append(frame(position, size))
        position = out[-1].end
    return out


def file_size(manifest_size: int, payload_sizes: Iterable[int]) -> int:
    """Bytes of the whole file.

    >>> file_size(100, [10])
    138
    """
    return end_of(manifest_size, frames(manifest_size, payload_sizes))


def end_of(manifest_size: int, placed: Sequence[Frame]) -> int:
    """Position where the last payload ends, or the manifest where there is none: ``file_size`` of known frames."""
    return placed[-1].end if placed else head_size(manifest_size)
