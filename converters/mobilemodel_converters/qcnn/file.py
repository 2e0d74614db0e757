"""Q-CNN's files: a tensor (``.bin``), packed indices (``.cbn``), and the folder that holds those of a network.

A file begins with the number of its dimensions and their lengths, int32 each, and says no more of what it holds: its
name does. Everything is little-endian.
"""

from __future__ import annotations

import os
import re
from pathlib import Path

import numpy as np
import numpy.typing as npt

from mobilemodel.errors import MalformedSourceError, UnsupportedSourceError, UsageError, escape
from mobilemodel.files import Closing
from mobilemodel.layout import ceil_div, elements_of
from mobilemodel.model import SourceFile
from mobilemodel_converters.bits import unpack
from mobilemodel_converters.sources import OpenedFile

BIAS, TABLES, CODES, KERNELS, MATRIX = "biasVec", "ctrdLst", "asmtLst", "convKnl", "fcntWei"
"""kinds of files: bias, codebooks, assignments; weights that are not quantized, of a convolution and of an FC layer"""
CHUNK = 4096
"""bytes after which the bits of packed indices start anew"""
_NAME = re.compile(
    r"(?P<prefix>.+)\.(?:(?P<kind>biasVec|ctrdLst|convKnl|fcntWei)\.(?P<place>\d\d)\.bin"
    r"|asmtLst\.(?P<codes>\d\d)\.(?:bin|cbn))",
    re.ASCII | re.DOTALL,
)
Codes = npt.NDArray[np.uint8]


class Folder(Closing):
    """The files of one network, ``<prefix>.<kind>.<place>.<bin or cbn>``, found by name in one folder alone.

    Raises UsageError for what is no folder, or holds no such files; MalformedSourceError where they are of several
    networks.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.prefix = ""
        self._names: dict[tuple[str, int], str] = {}
        self._opened: dict[str, OpenedFile] = {}
        for name in file_names(path):
            self._add(name)
        if not self._names:
            raise UsageError("no folder of Q-CNN files", file=str(path), expected="files such as NET.ctrdLst.01.bin")

    def _add(self, name: str) -> None:
        found = _NAME.fullmatch(name)
        if found is None:
            return
        if found["prefix"] != self.prefix and self.prefix:
            raise MalformedSourceError("files of two networks", file=str(self.path), expected=self.prefix,
                                       found=found["prefix"], advice="Give each a folder of its own.")  # fmt: skip
        self.prefix = found["prefix"]
        key = found["kind"] or CODES, int(found["place"] or found["codes"])
        if self._names.setdefault(key, name) != name:
            raise MalformedSourceError("the same assignments are there twice", file=str(self.path),
                                       found=f"{escape(self._names[key])} and {escape(name)}",
                                       advice="Take one of them away.")  # fmt: skip

    def has(self, kind: str, place: int) -> bool:
        """Whether there is a file of this kind for the layer in row ``place``."""
        return (kind, place) in self._names

    def missing_name(self, kind: str, place: int) -> str:
        """What the file would be called; assignments are packed as a rule."""
        return f"{self.prefix}.{kind}.{place:02d}.{'cbn' if kind == CODES else 'bin'}"

    def places(self) -> dict[int, str]:
        """The rows that there are files for, each with the name of one."""
        return {place: name for (_, place), name in sorted(self._names.items(), reverse=True)}

    def open(self, kind: str, place: int) -> OpenedFile:
        """The file of this kind for the layer in row ``place``, open until the folder is closed."""
        return self.open_name(self._names[kind, place])

    def open_name(self, name: str) -> OpenedFile:
        """A file of the folder. Raises UnsupportedSourceError for a link out of it, UsageError for a pipe or folder."""
        if name not in self._opened:
            path = self.path / name
            target = os.path.realpath(path)
            if path.is_symlink() and os.path.dirname(target) != os.path.realpath(self.path):
                raise UnsupportedSourceError("a symbolic link that leads out of the folder is not followed",
                                             file=str(path))  # fmt: skip
            self._opened[name] = OpenedFile(path)
        return self._opened[name]

    def unread(self) -> list[str]:
        """The network's files that nobody opened."""
        return sorted(set(self._names.values()) - set(self._opened))

    def records(self) -> list[SourceFile]:
        """All files that were opened, as a bundle records them."""
        return [self._opened[name].record("qcnn") for name in sorted(self._opened)]

    def close(self) -> None:
        for file in self._opened.values():
            file.close()


def file_names(path: Path) -> list[str]:
    """The names in a folder, sorted. Raises UsageError where it cannot be read."""
    try:
        return sorted(os.listdir(path))
    except (OSError, ValueError) as error:
        why = error.strerror if isinstance(error, OSError) else error
        raise UsageError(f"cannot read the folder: {why}", file=str(path)) from None


def is_codebook(name: str) -> bool:
    """Whether a file's name is that of a layer's codebooks.

    >>> is_codebook("net.ctrdLst.01.bin"), is_codebook("net.biasVec.01.bin")
    (True, False)
    """
    found = _NAME.fullmatch(name)
    return found is not None and found["kind"] == TABLES


def read_dims(file: OpenedFile, rank: int) -> tuple[int, ...]:
    """The lengths that a file begins with, slowest first; raises MalformedSourceError for another rank."""
    count = int.from_bytes(file.read(0, 4), "little", signed=True)
    if count != rank:
        raise MalformedSourceError("number of dimensions", file=str(file.path), offset=0, expected=rank, found=count)
    dims = tuple(np.frombuffer(file.read(4, 4 * rank), "<i4").tolist())
    if min(dims) < 1:
        raise MalformedSourceError("dimensions", file=str(file.path), offset=4, expected="at least 1", found=dims)
    return dims


def read_floats(file: OpenedFile, dims: tuple[int, ...]) -> npt.NDArray[np.float32]:
    """The float32 values of a ``.bin`` file whose ``dims`` were read."""
    return np.frombuffer(_read_plain(file, dims, 4), "<f4").reshape(dims)


def read_codes(file: OpenedFile, dims: tuple[int, ...]) -> tuple[Codes, bool]:
    """The indices of a file of assignments, counted from 0, and whether the bits beside them are 0."""
    if file.path.suffix == ".cbn":
        return _read_packed(file, dims)
    # MATLAB counts from 1, and 256 became 0 in a byte.
    stored = np.frombuffer(_read_plain(file, dims, 1), np.uint8)
    return (stored - np.uint8(1)).reshape(dims), True


def check_size(file: OpenedFile, dims: tuple[int, ...], item: int = 4) -> None:
    """Check that a ``.bin`` file has the values that its ``dims`` say, ``item`` bytes each, and nothing else."""
    _check_size(file, dims, 4 + 4 * len(dims) + item * elements_of(dims))


def _read_plain(file: OpenedFile, dims: tuple[int, ...], item: int) -> bytes:
    check_size(file, dims, item)
    return file.read(4 + 4 * len(dims), item * elements_of(dims))


def _read_packed(file: OpenedFile, dims: tuple[int, ...]) -> tuple[Codes, bool]:
    start, count = 8 + 4 * len(dims), elements_of(dims)
    bits = int.from_bytes(file.read(start - 4, 4), "little", signed=True)
    if not 1 <= bits <= 8:
        raise MalformedSourceError("bits of an index", file=str(file.path), offset=start - 4, expected="1 to 8",
                                   found=bits)  # fmt: skip
    each = 8 * CHUNK // bits
    chunks = ceil_div(count, each)
    _check_size(file, dims, start + CHUNK * chunks)
    codes = np.empty(count, np.uint8)
    clean = True
    for chunk in range(chunks):
        raw = np.frombuffer(file.read(start + CHUNK * chunk, CHUNK), np.uint8)
        unpacked = unpack(raw, bits, each)
        wanted = codes[chunk * each : (chunk + 1) * each]
        wanted[:] = unpacked[: wanted.size]
        beside = int(raw[-1]) & ((1 << (8 * CHUNK - each * bits)) - 1)
        clean = clean and not beside and not unpacked[wanted.size :].any()
    return codes.reshape(dims), clean


def _check_size(file: OpenedFile, dims: tuple[int, ...], size: int) -> None:
    if file.size != size:
        raise MalformedSourceError(f"size of a file of dimensions {list(dims)}", file=str(file.path),
                                   expected=f"{size} bytes", found=f"{file.size} bytes")  # fmt: skip
