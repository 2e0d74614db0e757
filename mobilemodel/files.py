"""Files in and out: outputs that are never half there, and small inputs that are read within a limit."""

from __future__ import annotations

import errno
import os
import secrets
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from types import TracebackType
from typing import BinaryIO, Self

from mobilemodel.errors import LimitExceededError, OutputError, OutputExistsError, UsageError

_KINDS = {
    stat.S_IFDIR: "a folder", stat.S_IFLNK: "a symbolic link", stat.S_IFIFO: "a pipe", stat.S_IFSOCK: "a socket",
    stat.S_IFCHR: "a device", stat.S_IFBLK: "a device",
}  # fmt: skip
# What link() answers on file systems that know no second name of a file.
_NO_LINKS = frozenset((errno.EPERM, errno.EOPNOTSUPP, errno.ENOSYS))


class Closing:
    """What is closed at the end of its ``with`` block, however that ends."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Let go of what is held; closing twice does no harm."""
        raise NotImplementedError


class OutputFile(Closing):
    """A file on its way to ``path``; it appears there by ``commit`` alone, whole.

    On Linux the file has no name until then, so that nothing is left behind however the process ends; elsewhere a
    hidden temporary file stands beside it. An existing file is replaced only with ``force``, and stays untouched
    when anything fails.

    Raises UsageError for a path that cannot be an output, OutputExistsError, OutputError when writing fails.

        with OutputFile("out.mm") as output:
            output.file.write(content)
            output.commit()
    """

    def __init__(self, path: str | os.PathLike[str], *, force: bool = False) -> None:
        self.path = os.fspath(path)
        self.force = force
        self.folder = os.path.dirname(self.path) or os.curdir
        """where the output and all that is temporary lie"""
        self._temporary: str | None = None
        self._check()
        self.file: BinaryIO = self._open()

    def _check(self) -> None:
        if os.path.basename(self.path) in ("", os.curdir, os.pardir):
            raise UsageError("the output is no file's name", file=self.path, advice="Name a file, such as out.mm.")
        try:
            if not os.path.isdir(self.folder):
                raise UsageError("no such folder", file=self.folder, advice="Make it first.")
            mode = os.lstat(self.path).st_mode
        except FileNotFoundError:
            return
        except (OSError, ValueError) as error:
            raise UsageError(f"cannot be an output: {getattr(error, 'strerror', error)}", file=self.path) from None
        if not stat.S_ISREG(mode):
            raise UsageError("the output exists and is no regular file", file=self.path, found=_kind(mode))
        if not self.force:
            raise OutputExistsError("the output exists", file=self.path, advice="--force replaces it.")

    def _open(self) -> BinaryIO:
        # Without /proc an unnamed file cannot be given its name.
        if hasattr(os, "O_TMPFILE") and os.path.isdir("/proc/self/fd"):
            with suppress(OSError):  # not every file system has unnamed files
                return os.fdopen(os.open(self.folder, os.O_TMPFILE | os.O_RDWR, 0o666), "w+b")
        self._temporary = self._spare_name()
        try:
            flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | getattr(os, "O_BINARY", 0)
            return os.fdopen(os.open(self._temporary, flags, 0o666), "w+b")
        except BaseException as error:
            self._remove_temporary()
            if not isinstance(error, OSError):
                raise
            raise OutputError(f"cannot write beside the output: {error.strerror}", file=self.path) from None

    def commit(self) -> None:
        """Bring the file to its place: on disk first, then by one atomic step."""
        try:
            self.file.flush()
            os.fsync(self.file.fileno())
            if self.force:
                self._replace()
            elif self._temporary is None:
                self._name_file(self.path)
            else:
                self._rename_to_new()
        except FileExistsError:
            raise OutputExistsError("the output exists", file=self.path, advice="--force replaces it.") from None
        except OSError as error:
            raise OutputError(f"cannot write: {error.strerror}", file=self.path) from None
        finally:
            self.close()

    def _replace(self) -> None:
        if self._temporary is None:
            # Remembered first: an interruption in between must not leave the name behind.
            self._temporary = self._spare_name()
            self._name_file(self._temporary)
        os.replace(self._temporary, self.path)
        self._temporary = None

    def _rename_to_new(self) -> None:
        """Let the named temporary file appear at a path where nothing may be."""
        assert self._temporary is not None
        try:
            os.link(self._temporary, self.path)
        except OSError as error:
            if error.errno not in _NO_LINKS:
                raise
            if os.path.lexists(self.path):
                raise FileExistsError from None
            self._replace()

    def _name_file(self, name: str) -> None:
        """Name the unnamed file. Only with a folder's descriptor does Python follow the link in /proc."""
        folder = os.open(self.folder, os.O_RDONLY)
        try:
            source = f"/proc/self/fd/{self.file.fileno()}"
            os.link(source, os.path.basename(name), dst_dir_fd=folder, follow_symlinks=True)
        finally:
            os.close(folder)

    def _spare_name(self) -> str:
        return os.path.join(self.folder, f".mobilemodel-{secrets.token_hex(8)}.tmp")

    def _remove_temporary(self) -> None:
        if self._temporary is not None:
            with suppress(OSError):
                os.unlink(self._temporary)
            self._temporary = None

    def close(self) -> None:
        """Forget the file unless it was committed."""
        with suppress(OSError):  # a full disk was reported when it was met
            self.file.close()
        self._remove_temporary()


@contextmanager
def writing(path: str | os.PathLike[str]) -> Iterator[None]:
    """Whatever fails to be written within becomes, or is, an OutputError that names the output ``path``."""
    try:
        yield
    except OSError as error:
        raise OutputError(f"cannot write: {error.strerror}", file=os.fspath(path)) from None
    except OutputError as error:
        raise error.within(file=os.fspath(path)) from None


def same_file(first: str | os.PathLike[str], second: str | os.PathLike[str]) -> bool:
    """Whether two paths lead to one file, by whatever links."""
    try:
        return os.path.samefile(first, second)
    except (OSError, ValueError):
        return False  # one of them is not there: what is wrong with it is said when it is opened


def read_small_file(path: str | os.PathLike[str], limit: int, what: str) -> bytes:
    """Read all of a regular file of at most ``limit`` bytes; ``what`` names it in errors: ``--labels``.

    Raises UsageError for what cannot be read, pipes and devices among them, LimitExceededError for a larger file.
    """
    name = os.fspath(path)
    try:
        # Without O_NONBLOCK, opening a named pipe waits for its writer before it can be refused.
        descriptor = os.open(name, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0))
        with os.fdopen(descriptor, "rb") as file:
            mode = os.fstat(descriptor).st_mode
            if not stat.S_ISREG(mode):
                raise UsageError(f"{what} is no regular file", file=name, found=_kind(mode))
            content = file.read(limit + 1)
    except (OSError, ValueError) as error:
        raise UsageError(f"{what}: {getattr(error, 'strerror', None) or error}", file=name) from None
    if len(content) > limit:
        raise LimitExceededError(what, file=name, expected=f"at most {limit} bytes")
    return content


def _kind(mode: int) -> str:
    return _KINDS.get(stat.S_IFMT(mode), "something else")
