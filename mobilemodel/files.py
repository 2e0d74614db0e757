"""Writing files so that nothing is ever half there: an unnamed file, named only when it is complete."""

from __future__ import annotations

import os
import secrets
import stat
import tempfile
from types import TracebackType
from typing import BinaryIO, Self

from mobilemodel.errors import OutputError, OutputExistsError, UsageError


class OutputFile:
    """A file on its way to ``path``; it appears there by ``commit`` alone, whole.

    On Linux the file has no name until then, so that nothing is left behind however the process ends; elsewhere a
    hidden temporary file stands beside it. An existing file is replaced only with ``force``, and stays untouched
    when anything fails.

    Raises UsageError for a folder that does not exist, OutputExistsError, OutputError when writing fails.
    """

    def __init__(self, path: str | os.PathLike[str], *, force: bool = False) -> None:
        self.path = os.fspath(path)
        self.force = force
        self._folder = os.path.dirname(os.path.abspath(self.path))
        self._temporary: str | None = None
        self._check()
        self.file: BinaryIO = self._open()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    def _check(self) -> None:
        if not os.path.isdir(self._folder):
            raise UsageError("no such folder", file=self._folder)
        try:
            mode = os.lstat(self.path).st_mode
        except FileNotFoundError:
            return
        if not stat.S_ISREG(mode):
            raise UsageError("the output exists and is not a regular file", file=self.path)
        if not self.force:
            raise OutputExistsError("the output exists", file=self.path, advice="--force replaces it.")

    def _open(self) -> BinaryIO:
        unnamed = getattr(os, "O_TMPFILE", 0)
        if unnamed:
            try:
                return os.fdopen(os.open(self._folder, unnamed | os.O_RDWR, 0o666), "w+b")
            except OSError:
                pass  # this file system has no unnamed files
        try:
            descriptor, self._temporary = tempfile.mkstemp(prefix=".mobilemodel-", suffix=".tmp", dir=self._folder)
        except OSError as error:
            raise OutputError(f"cannot write beside the output: {error.strerror}", file=self.path) from None
        return os.fdopen(descriptor, "w+b")

    def commit(self) -> None:
        """Bring the file to its place: on disk first, then by one atomic step."""
        try:
            self.file.flush()
            os.fsync(self.file.fileno())
            if self._temporary is None:
                name = self._spare_name() if self.force else self.path
                self._name_file(name)
                if self.force:
                    self._temporary = name
                    os.replace(name, self.path)
                    self._temporary = None
            elif self.force:
                os.replace(self._temporary, self.path)
                self._temporary = None
            else:
                os.link(self._temporary, self.path)
        except FileExistsError:
            raise OutputExistsError("the output exists", file=self.path, advice="--force replaces it.") from None
        except OSError as error:
            raise OutputError(f"cannot write: {error.strerror}", file=self.path) from None
        finally:
            self.close()

    def _name_file(self, name: str) -> None:
        """Give the unnamed file its first name. Only with a folder's descriptor does Python follow the link in /proc."""
        folder = os.open(self._folder, os.O_RDONLY)
        try:
            source = f"/proc/self/fd/{self.file.fileno()}"
            os.link(source, os.path.basename(name), dst_dir_fd=folder, follow_symlinks=True)
        finally:
            os.close(folder)

    def _spare_name(self) -> str:
        return os.path.join(self._folder, f".mobilemodel-{secrets.token_hex(8)}.tmp")

    def close(self) -> None:
        """Forget the file unless it was committed."""
        try:
            self.file.close()
        except OSError:
            pass  # a full disk was reported when it was met
        if self._temporary is not None:
            try:
                os.unlink(self._temporary)
            except OSError:
                pass
            self._temporary = None
