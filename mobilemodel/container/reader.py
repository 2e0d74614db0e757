"""Opening a bundle: mapped, from bytes, or through a protobuf runtime; payloads stay where they are."""

from __future__ import annotations

import mmap
import os
import stat
import zlib
from contextlib import suppress

from mobilemodel.container import framing, validate
from mobilemodel.errors import (
    MalformedWireError,
    MisplacedPayloadError,
    MobileModelError,
    PayloadChecksumError,
    UsageError,
)
from mobilemodel.files import Closing
from mobilemodel.limits import FORMAT_LIMITS, Limits
from mobilemodel.v1 import bundle_pb2 as pb

# Without O_NONBLOCK, opening a named pipe waits for its writer before it can be refused.
_OPEN_FLAGS = os.O_RDONLY | getattr(os, "O_BINARY", 0) | getattr(os, "O_NONBLOCK", 0)


class Container(Closing):
    """A validated manifest and the bytes of its payloads.

    ``stored(k)`` hands out payload k only after its frame and CRC-32 were checked, once. Views that are still held
    at closing stay valid: the file is then let go with the last of them.
    """

    def __init__(
        self, data: memoryview, manifest: pb.Manifest, manifest_size: int, mapping: mmap.mmap | None = None
    ) -> None:
        self.manifest = manifest
        self.manifest_size = manifest_size
        """bytes of the manifest"""
        self._data: memoryview | None = data
        self._mapping = mapping
        self._frames = framing.frames(manifest_size, [entry.stored_size for entry in manifest.payloads])
        self._checked = bytearray(len(self._frames))

    def close(self) -> None:
        """Let go of the file; reading afterwards raises UsageError."""
        data, self._data = self._data, None
        mapping, self._mapping = self._mapping, None
        with suppress(BufferError):
            if data is not None:
                data.release()
            if mapping is not None:
                mapping.close()

    @property
    def data(self) -> memoryview:
        """All bytes of the file."""
        if self._data is None:
            raise UsageError("the bundle is closed", advice="Read what you need within the `with` block.")
        return self._data

    @property
    def size(self) -> int:
        """Bytes of the whole file."""
        return int(self.manifest.file_size)

    def entry(self, index: int) -> pb.Payload:
        """The manifest's entry of payload ``index``."""
        return self.manifest.payloads[index]

    def stored(self, index: int) -> memoryview:
        """The stored bytes of payload ``index``.

        Raises MisplacedPayloadError when the bytes before it are not its frame, PayloadChecksumError when it is
        damaged.
        """
        place = self._frames[index]
        view = self.data[place.offset : place.end]
        if not self._checked[index]:
            self.check_frame(index)
            found = zlib.crc32(view)
            if found != self.entry(index).crc32:
                raise PayloadChecksumError(
                    f"payload {index} is damaged", offset=place.offset,
                    expected=f"CRC {self.entry(index).crc32:08x}", found=f"{found:08x}",
                )  # fmt: skip
            self._checked[index] = 1
        return view

    def check_frame(self, index: int) -> None:
        """Check the padding, tag and length in front of payload ``index`` (spec/container.md §2)."""
        place = self._frames[index]
        expected = place.content()
        found = bytes(self.data[place.start : place.offset])
        if found != expected:
            at = next(i for i, (a, b) in enumerate(zip(expected, found, strict=True)) if a != b)
            raise MisplacedPayloadError(
                f"the bytes before payload {index} are not its frame", offset=place.start + at,
                expected=f"{expected[at]:02x}", found=f"{found[at]:02x}",
                advice="The file was re-serialised, merged or edited; write it anew from its source.",
            )  # fmt: skip

    def release(self) -> None:
        """Let go of the mapped pages that were read: they return from the file when they are read again.

        Without it a whole bundle that is read once counts as this process's memory.
        """
        if self._mapping is not None:
            _advise(self._mapping, "MADV_DONTNEED")

    def check_all(self) -> None:
        """Check every frame and every CRC-32: no byte of the file goes unread."""
        for index in range(len(self._frames)):
            self.stored(index)


def _advise(mapping: mmap.mmap, advice: str) -> None:
    """Tell the kernel how the mapping is used, where the platform has a word for it."""
    if hasattr(mmap, advice):
        mapping.madvise(getattr(mmap, advice))


def open_bytes(data: bytes | bytearray | memoryview, limits: Limits = FORMAT_LIMITS) -> Container:
    """Open a bundle that lies in memory; the buffer must not change while it is used.

    Raises a MalformedError, CorruptError or UnsupportedError (spec/container.md §6).
    """
    return _open(memoryview(data).cast("B"), limits, None)


def open_file(path: str | os.PathLike[str] | int, limits: Limits = FORMAT_LIMITS) -> Container:
    """Map a bundle's file, given by path or file descriptor; only the head and the manifest are read.

    Raises UsageError for what cannot be opened, else as ``open_bytes``.
    """
    name = None if isinstance(path, int) else os.fspath(path)
    try:
        descriptor = os.dup(path) if isinstance(path, int) else os.open(path, _OPEN_FLAGS)
    except (OSError, ValueError) as error:
        raise UsageError(f"cannot open: {getattr(error, 'strerror', error)}", file=name) from None
    try:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode):
            raise UsageError("not a regular file", file=name)
        if status.st_size == 0:
            validate.locate_manifest(b"", 0, limits)
        mapping = mmap.mmap(descriptor, 0, access=mmap.ACCESS_READ)
    except OSError as error:
        raise UsageError(f"cannot map: {error.strerror}", file=name) from None
    except MobileModelError as error:
        raise error.within(file=name) from None
    finally:
        os.close(descriptor)
    data = memoryview(mapping)
    try:
        # Read-ahead, which may be megabytes, would bring in payloads that nobody has asked for.
        _advise(mapping, "MADV_RANDOM")
        container = _open(data, limits, mapping)
        _advise(mapping, "MADV_NORMAL")
        return container
    except BaseException as error:
        data.release()
        mapping.close()
        if isinstance(error, MobileModelError):
            error.within(file=name)
        raise


def _open(data: memoryview, limits: Limits, mapping: mmap.mmap | None) -> Container:
    start, end = validate.locate_manifest(data, len(data), limits)
    crc32 = int.from_bytes(data[6:10], "little")
    manifest = _within_file(bytes(data[start:end]), start, crc32, len(data), limits)
    container = Container(data, manifest, end - start, mapping)
    if manifest.payloads:
        # A stock protobuf runtime that re-serialises the file always moves the first payload's frame (§2).
        container.check_frame(0)
    return container


def _within_file(raw: bytes, start: int, crc32: int, size: int, limits: Limits) -> pb.Manifest:
    try:
        return validate.check_manifest(raw, crc32, size, limits)
    except MalformedWireError as error:
        if error.offset is not None:
            error.offset += start
        raise


def parse_message(data: bytes, limits: Limits = FORMAT_LIMITS) -> Container:
    """Open a bundle as a protobuf message, as a reader without mapping would, and check all of it.

    After the checks of ``open_bytes``, the manifest and the payloads that a protobuf runtime parses MUST be those that
    their places hold: a duplicate, moved or unknown field is refused (spec/container.md §7).
    """
    from google.protobuf.message import DecodeError

    container = open_bytes(data, limits)
    container.check_all()
    start = framing.head_size(container.manifest_size) - container.manifest_size
    try:
        envelope = pb.BundleEnvelope.FromString(data)
    except DecodeError as error:
        raise MalformedWireError(f"not a protobuf message: {error}") from None
    if envelope.manifest != container.data[start : start + container.manifest_size]:
        raise MalformedWireError("the manifest stands twice, or not in its place", offset=start)
    if len(envelope.payload) != len(container.manifest.payloads):
        found = len(envelope.payload)
        raise MisplacedPayloadError("payloads", expected=len(container.manifest.payloads), found=found)
    for index, payload in enumerate(envelope.payload):
        if payload != container.stored(index):
            raise MisplacedPayloadError(f"payload {index} is not where its size puts it")
    return container
