"""Bundles from parts, byte by byte where a test needs it: the tool that vectors are made with.

A ``Draft`` holds a manifest and payloads; ``Draft.build`` frames them as spec/container.md §2 says, after ``edit`` has
had the manifest's bytes in hand. Sizes, offsets and the CRC-32 are right unless the fault is in them.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np
import zstandard

from mobilemodel.codecs import png as png_codec
from mobilemodel.container import framing
from mobilemodel.encodings.packing import pack
from mobilemodel.layout import MatrixShape, codes_shape
from mobilemodel.v1 import bundle_pb2 as pb
from mobilemodel.wire import varint

STORED, ZLIB, PNG, ZSTD = 0, 1, 2, 3
FLOAT, UINT8, INT8, FLOAT16, BFLOAT16 = 1, 2, 3, 10, 16
F16, F32 = pb.FLOAT_TYPE_F16, pb.FLOAT_TYPE_F32
Edit = Callable[[bytes], bytes]


def same(raw: bytes) -> bytes:
    return raw


@dataclass
class Part:
    """A payload: its stored bytes and what its entry says of it."""

    codec: int
    stored: bytes
    raw_size: int
    crc32: int | None = None
    """what the entry records instead of the right one"""


@dataclass
class Draft:
    """A bundle before it is bytes."""

    manifest: pb.Manifest = field(default_factory=lambda: pb.Manifest(spec_major=1, spec_minor=0))
    parts: list[Part] = field(default_factory=list)

    def add(self, raw: bytes, codec: int = STORED) -> int:
        """Add a payload of bytes; return its index."""
        stored = zlib.compress(raw, 9) if codec == ZLIB else zstd_frame(raw) if codec == ZSTD else raw
        return self.stored(codec, stored, len(raw))

    def stored(self, codec: int, stored: bytes, raw_size: int, crc32: int | None = None) -> int:
        """Add a payload by its stored bytes."""
        self.parts.append(Part(codec, stored, raw_size, crc32))
        return len(self.parts) - 1

    def matrix(self, codes: Sequence[Sequence[int]], depth: int, codec: int = STORED) -> int:
        """Add the packed matrix of rows of codes."""
        rows = np.array(codes, np.uint16).reshape(len(codes), -1)
        raw = np.ascontiguousarray(pack(rows, depth)).tobytes()
        shape = codes_shape(len(rows), rows.shape[1], depth)
        stored = png_codec.encode(raw, shape, True) if codec == PNG else zstd_frame(raw) if codec == ZSTD else raw
        return self.stored(codec, stored, len(raw))

    def tensor(self, name: str, dims: Sequence[int], dtype: int = FLOAT) -> pb.Tensor:
        """Add a tensor without an encoding."""
        return self.manifest.tensors.add(name=name, dtype=dtype, dims=dims)

    def small(self, name: str, raw: bytes, dims: Sequence[int], dtype: int = FLOAT) -> pb.Tensor:
        """Add a small dense tensor with a stored payload of its own."""
        out = self.tensor(name, dims, dtype)
        out.dense.stored_dtype = dtype
        out.dense.small.payload = self.add(raw)
        out.dense.small.size = len(raw)
        return out

    def build(self, edit: Edit = same) -> bytes:
        """The file's bytes. ``edit`` changes the manifest's and must give the same length for equal lengths."""
        manifest = pb.Manifest()
        manifest.CopyFrom(self.manifest)
        manifest.file_size = manifest.file_size or 0
        for part in self.parts:
            crc32 = zlib.crc32(part.stored) if part.crc32 is None else part.crc32
            manifest.payloads.add(
                offset=0, stored_size=len(part.stored), raw_size=part.raw_size, crc32=crc32, codec=part.codec
            )
        size = len(edit(manifest.SerializeToString(deterministic=True)))
        placed = framing.frames(size, [len(part.stored) for part in self.parts])
        for entry, place in zip(manifest.payloads, placed, strict=True):
            entry.offset = place.offset
        manifest.file_size = framing.file_size(size, [len(part.stored) for part in self.parts])
        raw = edit(manifest.SerializeToString(deterministic=True))
        assert len(raw) == size
        body = b"".join(place.content() + part.stored for place, part in zip(placed, self.parts, strict=True))
        return framing.head(raw, zlib.crc32(raw)) + raw + body


def manifest_span(data: bytes) -> tuple[int, int]:
    """Where the manifest of a well-formed file starts and ends."""
    size, shift, position = 0, 0, framing.HEAD_SIZE
    while True:
        byte = data[position]
        size |= (byte & 0x7F) << shift
        position, shift = position + 1, shift + 7
        if byte < 0x80:
            return position, position + size


def replaced(old: bytes, new: bytes) -> Edit:
    """An edit that replaces the only occurrence of ``old``."""

    def edit(raw: bytes) -> bytes:
        assert raw.count(old) == 1, raw.count(old)
        return raw.replace(old, new)

    return edit


def key(number: int, wire_type: int) -> bytes:
    return varint(number << 3 | wire_type)


def number_field(number: int, value: int) -> bytes:
    return key(number, 0) + varint(value)


def bytes_field(number: int, content: bytes) -> bytes:
    return key(number, 2) + varint(len(content)) + content


def floats(*values: float) -> bytes:
    return struct.pack(f"<{len(values)}f", *values)


def halves(*values: float) -> bytes:
    return struct.pack(f"<{len(values)}e", *values)


def zstd_frame(raw: bytes, write_checksum: bool = False) -> bytes:
    """One frame with its content size."""
    compressor = zstandard.ZstdCompressor(level=19, write_content_size=True, write_checksum=write_checksum)
    return compressor.compress(raw)


def zstd_raw_frame(raw: bytes, descriptor: int, rest: bytes) -> bytes:
    """A frame of one raw block under any header: descriptor byte, then window, dictionary id and content size."""
    return b"\x28\xb5\x2f\xfd" + bytes([descriptor]) + rest + (1 | len(raw) << 3).to_bytes(3, "little") + raw


def png_chunk(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


def png_file(
    shape: MatrixShape, rows: Sequence[bytes], *, extra: bytes = b"", idats: int = 1, header: bytes | None = None
) -> bytes:
    """A PNG of filtered rows (filter type first), with ``extra`` chunks before IDAT and IDAT cut in pieces."""
    ihdr = header or struct.pack(">IIBBBBB", shape.width, shape.height, shape.depth, 0, 0, 0, 0)
    stream = zlib.compress(b"".join(rows), 9)
    cut = -(-len(stream) // idats)
    data = b"".join(png_chunk(b"IDAT", stream[at : at + cut]) for at in range(0, len(stream), cut))
    return png_codec.SIGNATURE + png_chunk(b"IHDR", ihdr) + extra + data + png_chunk(b"IEND", b"")


def forge_crc(raw: bytes, target: int) -> bytes:
    """Four bytes that, appended to ``raw``, give it the CRC-32 ``target``: CRC-32 is linear, so 32 bits solve it."""
    base = zlib.crc32(raw + bytes(4))
    basis: list[tuple[int, int]] = []
    for bit in range(32):
        effect, cause = zlib.crc32(raw + (1 << bit).to_bytes(4, "little")) ^ base, 1 << bit
        for other, other_cause in basis:
            if effect ^ other < effect:
                effect, cause = effect ^ other, cause ^ other_cause
        basis = sorted([*basis, (effect, cause)], reverse=True)
    wanted, value = target ^ base, 0
    for effect, cause in basis:
        if wanted ^ effect < wanted:
            wanted, value = wanted ^ effect, value ^ cause
    assert wanted == 0
    return value.to_bytes(4, "little")
