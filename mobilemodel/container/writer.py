"""Writing a bundle: payloads wait in an unnamed temporary file, then follow the manifest (spec/container.md §8)."""

from __future__ import annotations

import os
import tempfile
import zlib
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from typing import IO, BinaryIO

from mobilemodel.container import framing
from mobilemodel.errors import LimitExceededError, OutputError
from mobilemodel.files import Closing
from mobilemodel.limits import FORMAT_LIMITS
from mobilemodel.v1 import bundle_pb2 as pb

_COPY = 1 << 20


@dataclass(frozen=True)
class SpooledPayload:
    """A payload's manifest entry but for its offset."""

    codec: int
    stored_size: int
    raw_size: int
    crc32: int


class Spool(Closing):
    """Encoded payloads in the order of the file; they wait on disk, not in memory.

    The temporary file has no name, so that nothing is left behind however the process ends.
    """

    def __init__(self, folder: str | os.PathLike[str] | None = None) -> None:
        try:
            self._file: IO[bytes] = tempfile.TemporaryFile(dir=folder)  # noqa: SIM115 - `close` closes it
        except OSError as error:
            place = None if folder is None else os.fspath(folder)
            raise OutputError(f"cannot make a temporary file: {error.strerror}", file=place) from None
        self.payloads: list[SpooledPayload] = []
        self.stored_bytes = 0

    def add(self, stored: bytes, codec: int, raw_size: int) -> int:
        """Append a payload; return its index.

        Raises OutputError when the disk is full, LimitExceededError past 65,535 payloads or 2^31 - 1 bytes.
        """
        self.stored_bytes += len(stored)
        if len(self.payloads) >= FORMAT_LIMITS.payloads:
            raise LimitExceededError("payloads", expected=f"at most {FORMAT_LIMITS.payloads}")
        if self.stored_bytes > FORMAT_LIMITS.file:
            raise LimitExceededError(
                "the bundle", expected=f"at most {FORMAT_LIMITS.file} bytes", found=self.stored_bytes
            )
        try:
            self._file.write(stored)
        except OSError as error:
            raise OutputError(f"cannot write the temporary file: {error.strerror}") from None
        self.payloads.append(SpooledPayload(codec, len(stored), raw_size, zlib.crc32(stored)))
        return len(self.payloads) - 1

    def chunks(self) -> Iterator[tuple[SpooledPayload, Iterator[bytes]]]:
        """The payloads in order, each as an iterator of pieces that must be consumed before the next."""
        self._file.seek(0)
        for payload in self.payloads:
            yield payload, self._pieces(payload.stored_size)

    def _pieces(self, size: int) -> Iterator[bytes]:
        while size:
            piece = self._file.read(min(size, _COPY))
            if not piece:
                raise OutputError("the temporary file ended early")
            size -= len(piece)
            yield piece

    def close(self) -> None:
        """Give the disk space back."""
        with suppress(OSError):  # a full disk was reported when it was met: its buffer can still not be written
            self._file.close()


def place_payloads(manifest: pb.Manifest, spool: Spool) -> bytes:
    """Fill in the manifest's payload entries and file size; return its bytes.

    Offsets and sizes have fixed widths, so the manifest's length is known before its content is.
    """
    del manifest.payloads[:]
    for payload in spool.payloads:
        manifest.payloads.add(offset=0, stored_size=payload.stored_size, raw_size=payload.raw_size,
                              crc32=payload.crc32, codec=payload.codec)  # fmt: skip
    manifest.file_size = 0
    size = manifest.ByteSize()
    placed = framing.frames(size, [payload.stored_size for payload in spool.payloads])
    for entry, place in zip(manifest.payloads, placed, strict=True):
        entry.offset = place.offset
    manifest.file_size = framing.end_of(size, placed)
    if size > FORMAT_LIMITS.manifest:
        raise LimitExceededError("the manifest", expected=f"at most {FORMAT_LIMITS.manifest} bytes", found=size)
    if manifest.file_size > FORMAT_LIMITS.file:
        raise LimitExceededError("the bundle", expected=f"at most {FORMAT_LIMITS.file} bytes", found=manifest.file_size)
    return manifest.SerializeToString(deterministic=True)


def write_container(out: BinaryIO, manifest: pb.Manifest, spool: Spool) -> int:
    """Write the whole file: head, manifest, frames and payloads; return its size in bytes.

    The manifest's tensors must already name payloads by their index in the spool.

    Raises OutputError when writing fails, LimitExceededError when the file would exceed the format.
    """
    raw = place_payloads(manifest, spool)
    try:
        out.write(framing.head(raw, zlib.crc32(raw)))
        out.write(raw)
        position = framing.head_size(len(raw))
        for payload, pieces in spool.chunks():
            place = framing.frame(position, payload.stored_size)
            out.write(place.content())
            for piece in pieces:
                out.write(piece)
            position = place.end
        out.flush()
    except OSError as error:
        raise OutputError(f"cannot write: {error.strerror}") from None
    return position
