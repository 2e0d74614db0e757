"""Source files: opened once, read by position, and recorded by name and SHA-256."""

from __future__ import annotations

import os
import stat
from hashlib import sha256
from pathlib import Path

from mobilemodel.errors import MalformedSourceError, UsageError
from mobilemodel.files import Closing
from mobilemodel.model import SourceFile


class OpenedFile(Closing):
    """A source file open for reading; what it holds is read by position, so that several readers do not disturb
    each other.

    Raises UsageError where it cannot be opened or is no regular file.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.descriptor = open_source(path)
        self.size = os.fstat(self.descriptor).st_size

    def read(self, offset: int, size: int) -> bytes:
        """Exactly ``size`` bytes at ``offset``; raises MalformedSourceError where the file ends before."""
        return read_at(self.descriptor, offset, size, self.path)

    def record(self, format_name: str) -> SourceFile:
        """The file as a bundle records it: its name without folder, and its SHA-256."""
        return SourceFile(format_name, plain_name(self.path.name), file_sha256(self.descriptor), self.path)

    def close(self) -> None:
        """Close the file; reading it afterwards fails."""
        if self.descriptor >= 0:
            os.close(self.descriptor)
            self.descriptor = -1


def open_source(path: Path) -> int:
    """Open a file for reading and return its descriptor.

    Raises UsageError where it cannot be opened, and for folders, pipes and devices.
    """
    try:
        # Without O_NONBLOCK, opening a named pipe waits for its writer before it can be refused.
        flags = os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0)
        descriptor = os.open(path, flags)
    except (OSError, ValueError) as error:
        why = error.strerror if isinstance(error, OSError) else error
        raise UsageError(f"cannot open: {why}", file=str(path)) from None
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise UsageError("not a regular file", file=str(path))
    return descriptor


def read_at(descriptor: int, offset: int, size: int, path: Path) -> bytes:
    """Read exactly ``size`` bytes at ``offset``; raises MalformedSourceError where the file ends before."""
    if size == 0:
        return b""
    pieces = []
    while size:
        piece = os.pread(descriptor, min(size, 1 << 30), offset)
        if not piece:
            raise MalformedSourceError("the file ends within a tensor", file=str(path), offset=offset)
        pieces.append(piece)
        offset += len(piece)
        size -= len(piece)
    return pieces[0] if len(pieces) == 1 else b"".join(pieces)


def file_sha256(descriptor: int) -> bytes:
    """SHA-256 of a whole file, read in pieces."""
    digest = sha256()
    offset = 0
    while piece := os.pread(descriptor, 1 << 20, offset):
        digest.update(piece)
        offset += len(piece)
    return digest.digest()


def plain_name(name: str) -> str:
    """A file name as the format takes it: UTF-8, and nothing that another system reads as a folder or drive."""
    text = name.encode("utf-8", "replace").decode().replace("\\", "_").replace("\0", "_")
    return f"{text[0]}_{text[2:]}" if text[1:2] == ":" else text
