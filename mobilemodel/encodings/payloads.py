"""What an encoding reads payloads from and writes them to, and pools of small pieces (spec/codecs.md §6)."""

from __future__ import annotations

from typing import Protocol

from mobilemodel import codecs
from mobilemodel.codecs import Effort, Family
from mobilemodel.errors import MalformedStreamError
from mobilemodel.layout import MatrixShape, ceil_div
from mobilemodel.limits import FORMAT_LIMITS
from mobilemodel.v1 import bundle_pb2 as pb

__all__ = [
    "Effort", "Family", "PayloadSink", "PayloadSource", "PayloadWriter", "read_bytes", "read_matrix", "read_slice",
]  # fmt: skip


class PayloadSource(Protocol):
    """Where payloads come from; a container is one."""

    def entry(self, index: int) -> pb.Payload: ...

    def stored(self, index: int) -> memoryview: ...


class PayloadSink(Protocol):
    """Where payloads go to; a spool is one."""

    def add(self, stored: bytes, codec: int, raw_size: int) -> int: ...


def read_bytes(source: PayloadSource, index: int) -> bytes | memoryview:
    """Decode a payload that is no matrix."""
    entry = source.entry(index)
    return codecs.decode_bytes(entry.codec, source.stored(index), entry.raw_size)


def read_matrix(source: PayloadSource, index: int, shape: MatrixShape) -> bytes | memoryview:
    """Decode the packed matrix of ``shape`` in a payload."""
    entry = source.entry(index)
    if entry.raw_size != shape.raw_size:
        raise MalformedStreamError(f"raw_size of payload {index}", expected=shape.raw_size, found=entry.raw_size)
    return codecs.decode_matrix(entry.codec, source.stored(index), shape)


def read_slice(source: PayloadSource, piece: pb.Slice) -> memoryview:
    """Decode the payload that a slice lies in and cut it out; a ``PoolCache`` decodes a pool once for its slices."""
    pool = source.read_pool(piece.payload) if isinstance(source, PoolCache) else read_bytes(source, piece.payload)
    return memoryview(pool)[piece.offset : piece.offset + piece.size]


class PoolCache:
    """A source that keeps the pool decoded last: the pieces of neighbouring tensors lie in the same one.

    Memory grows by one pool, 64 KiB at most. Threads may share a cache; at worst they decode a pool twice.
    """

    def __init__(self, source: PayloadSource) -> None:
        self._source = source
        self._last: tuple[int, bytes] = (-1, b"")

    def entry(self, index: int) -> pb.Payload:
        return self._source.entry(index)

    def stored(self, index: int) -> memoryview:
        return self._source.stored(index)

    def read_pool(self, index: int) -> bytes | memoryview:
        """Decode a payload that slices lie in, or return it as it was decoded before."""
        known, pool = self._last
        if known == index:
            self._source.stored(index)  # raises where the source was closed
            return pool
        decoded = read_bytes(self._source, index)
        # Stored pools are views of the file: they cost nothing to read, and keeping one would keep the file open.
        if isinstance(decoded, bytes) and len(decoded) <= FORMAT_LIMITS.pool:
            self._last = (index, decoded)
        return decoded


class PayloadWriter:
    """Encodes payloads with one codec family, and gathers small pieces in pools."""

    def __init__(self, sink: PayloadSink, family: Family) -> None:
        self.sink = sink
        self.family = family
        self._pool = bytearray()
        self._waiting: list[pb.Slice] = []

    def encode_bytes(self, raw: bytes | memoryview, effort: Effort = Effort.QUICK, part: int = 0) -> tuple[int, bytes]:
        """Encode without adding: codec and stored bytes; ``part`` as for ``codecs.encode_bytes``."""
        return codecs.encode_bytes(raw, self.family, effort, part)

    def encode_matrix(
        self, raw: bytes | memoryview, shape: MatrixShape, effort: Effort, part: int = 0
    ) -> tuple[int, bytes]:
        """Encode a packed matrix without adding: codec and stored bytes; ``part`` as for ``codecs.encode_bytes``."""
        return codecs.encode_matrix(raw, shape, self.family, effort, part)

    def add_bytes(self, raw: bytes | memoryview, effort: Effort = Effort.QUICK, part: int = 0) -> int:
        """Add a payload that is no matrix; return its index."""
        codec, stored = self.encode_bytes(raw, effort, part)
        return self.sink.add(stored, codec, len(raw))

    def add_piece(self, raw: bytes, piece: pb.Slice) -> None:
        """Add a table, scales or a small tensor and fill in ``piece``, its payload not before ``flush``."""
        piece.size = len(raw)
        if len(raw) > FORMAT_LIMITS.pool:
            piece.payload = self.add_bytes(raw, Effort.THOROUGH)
            return
        start = 16 * ceil_div(len(self._pool), 16)
        if start + len(raw) > FORMAT_LIMITS.pool:
            self.flush()
            start = 0
        self._pool.extend(bytes(start - len(self._pool)) + raw)
        piece.offset = start
        self._waiting.append(piece)

    def flush(self) -> None:
        """Write the open pool and tell its slices where they are."""
        if not self._waiting:
            return
        index = self.add_bytes(bytes(self._pool), Effort.THOROUGH)
        for piece in self._waiting:
            piece.payload = index
        self._pool.clear()
        self._waiting.clear()
