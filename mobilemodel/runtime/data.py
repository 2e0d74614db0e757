"""Labelled data: a .npz file, a folder with labels.tsv, or a folder for each class."""

from __future__ import annotations

import os
import zipfile
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import IO, Any

import numpy as np
import numpy.typing as npt

from mobilemodel.errors import LimitExceededError, MalformedSourceError, MobileModelError, UsageError, escape
from mobilemodel.layout import elements_of
from mobilemodel.limits import FORMAT_LIMITS
from mobilemodel.runtime.picture import read_picture

Array = npt.NDArray[Any]
Classes = npt.NDArray[np.int64]
Prepare = Callable[[npt.NDArray[np.uint8]], Array]
"""pictures N x H x W x C, uint8 -> tensors with N as first axis"""

LARGEST_ARRAY = 2**32
"""bytes of an array in a .npz file"""
LABELS = "labels.tsv"
SUFFIXES = frozenset((".png", ".jpg", ".jpeg", ".bmp", ".ppm", ".pgm", ".gif", ".webp", ".tif", ".tiff"))
"""files of a folder that count as pictures"""


@dataclass(frozen=True, eq=False)
class Data:
    """Pictures or ready tensors, and the class of each where it is known.

    ``x`` is uint8 N x H x W x C (pictures), float32 N x ... (tensors as the network takes them), or the files of
    pictures of any size; ``classes`` is int64 N, or None for data without labels; ``names`` names the classes as far as
    the data do.
    """

    x: Array | tuple[Path, ...]
    classes: Classes | None = None
    names: tuple[str, ...] = ()
    file: str | None = None

    def __len__(self) -> int:
        return len(self.x)

    @property
    def ready(self) -> bool:
        """Whether ``x`` holds tensors as the network takes them: nothing is to be prepared."""
        return not isinstance(self.x, tuple) and self.x.dtype == np.float32

    def spread(self, limit: int | None) -> Data:
        """At most ``limit`` of the samples, evenly spread: data that are sorted by class keep all their classes.

        >>> Data(np.zeros((6, 1), np.float32), np.arange(6)).spread(3).classes.tolist()
        [0, 2, 4]
        """
        if limit is not None and limit < 1:
            raise UsageError("limit of the data", expected="at least 1", found=limit)
        if limit is None or limit >= len(self):
            return self
        return self._part(np.arange(limit) * len(self) // limit)

    def split(self, held_out: int) -> tuple[Data, Data | None]:
        """All samples but ``held_out`` that are evenly spread, and those; none are held out for 0.

        >>> [part.classes.tolist() for part in Data(np.zeros((4, 1), np.float32), np.arange(4)).split(2)]
        [[1, 3], [0, 2]]
        """
        if held_out == 0:
            return self, None
        if not 0 < held_out < len(self):
            raise UsageError("samples that are held out", file=self.file, found=held_out,
                             expected=f"fewer than the {len(self)} there are")  # fmt: skip
        chosen = np.zeros(len(self), np.bool_)
        chosen[np.arange(held_out) * len(self) // held_out] = True
        return self._part(np.flatnonzero(~chosen)), self._part(np.flatnonzero(chosen))

    def _part(self, chosen: npt.NDArray[np.int64]) -> Data:
        x = tuple(self.x[index] for index in chosen) if isinstance(self.x, tuple) else self.x[chosen]
        return replace(self, x=x, classes=None if self.classes is None else self.classes[chosen])

    def batches(self, size: int, prepare: Prepare) -> Iterator[Array]:
        """The tensors in order, ``size`` at a time and the rest at last; no more than one batch is in memory.

        Pictures of one array are prepared together, files one by one; ready tensors as they are.

        Raises UsageError for files whose prepared tensors differ in shape, and what reading and preparing raise.
        """
        if size < 1:
            raise UsageError("batch size", expected="at least 1", found=size)
        for start in range(0, len(self), size):
            if isinstance(self.x, tuple):
                yield _join([_prepare_file(path, prepare) for path in self.x[start : start + size]], self.file)
            else:
                chosen = self.x[start : start + size]
                yield chosen if self.ready else prepare(chosen)


def read_data(path: str | os.PathLike[str]) -> Data:
    """Open labelled data; pictures in folders are not read before they are asked for.

    - ``.npz``: ``x`` uint8 N x H x W x C or float32 N x ..., and ``y``, the classes (may be absent);
    - a folder with ``labels.tsv``: a line is ``file<TAB>class index<TAB>name`` (the name may be absent); the files lie
      in the folder or in its folder ``images``;
    - a folder that holds a folder of pictures for each class: class k is the k-th name in order;
    - a folder of pictures: without classes. Hidden files and files that are no pictures by their suffix do not count.

    Raises UsageError where there is nothing to read, MalformedSourceError and LimitExceededError for broken data.
    """
    place = Path(path)
    try:
        if not place.is_dir():
            return _read_npz(place)
        return _read_labels(place) if (place / LABELS).is_file() else _read_folders(place)
    except MobileModelError as error:
        raise error.within(file=os.fspath(path)) from None
    except OSError as error:
        raise UsageError(f"cannot open: {error.strerror}", file=os.fspath(path)) from None


def _read_npz(path: Path) -> Data:
    try:
        with zipfile.ZipFile(path) as archive:
            members = set(archive.namelist())
            if "x.npy" not in members:
                raise MalformedSourceError("the data have no array x", found=", ".join(sorted(members)[:8]))
            x = _read_array(archive, "x")
            y = _read_array(archive, "y") if "y.npy" in members else None
    except (zipfile.BadZipFile, EOFError, NotImplementedError, zlib.error) as error:
        raise MalformedSourceError("not a .npz file", found=error) from None
    pictures = x.dtype == np.uint8 and x.ndim == 4 and x.shape[-1] in (1, 3)
    if not (pictures or (x.dtype == np.float32 and x.ndim >= 1)):
        raise MalformedSourceError("array x", expected="uint8 N x H x W x C of 1 or 3 channels, or float32 N x ...",
                                   found=f"{x.dtype} {list(x.shape)}")  # fmt: skip
    if len(x) == 0:
        raise UsageError("the data are empty")
    return Data(x, None if y is None else _classes_of(y, len(x)), (), os.fspath(path))


def _read_array(archive: zipfile.ZipFile, name: str) -> Array:
    """Read one array, its header first: no more is allocated than the file says and holds, nothing is unpickled."""
    entry = archive.getinfo(f"{name}.npy")
    if entry.flag_bits & 1 or entry.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        raise MalformedSourceError(f"array {name} is packed in a way that numpy does not use")
    size = entry.file_size
    if size > LARGEST_ARRAY:
        raise LimitExceededError(f"array {name}", expected=f"at most {LARGEST_ARRAY} bytes", found=size)
    try:
        with archive.open(f"{name}.npy") as member:
            shape, dtype = _read_header(member, name)
            if dtype.hasobject or elements_of(shape) * dtype.itemsize != size - member.tell():
                raise MalformedSourceError(f"array {name} has another size than its header says",
                                           expected=f"{dtype} {list(shape)}", found=f"{size} bytes")  # fmt: skip
        with archive.open(f"{name}.npy") as member:
            return np.lib.format.read_array(member, allow_pickle=False)
    except ValueError as error:
        raise MalformedSourceError(f"array {name} is no .npy file", found=error) from None


def _read_header(member: IO[bytes], name: str) -> tuple[tuple[int, ...], np.dtype[Any]]:
    headers = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}
    try:
        shape, _, dtype = headers[np.lib.format.read_magic(member)](member)
    except Exception as error:
        # numpy's parser raises errors of many kinds on a damaged header, those of Python's tokenizer among them.
        raise MalformedSourceError(f"array {name} is no .npy file of version 1 or 2", found=error) from None
    return shape, dtype


def _classes_of(y: Array, count: int) -> Classes:
    if y.dtype.kind not in "iu" or y.shape != (count,):
        raise MalformedSourceError("array y", expected=f"{count} integers", found=f"{y.dtype} {list(y.shape)}")
    if count and (int(y.min()) < 0 or int(y.max()) >= 2**31):
        raise MalformedSourceError("a class is out of range", found=f"{int(y.min())} to {int(y.max())}")
    return y.astype(np.int64)


def _read_labels(folder: Path) -> Data:
    table = folder / LABELS
    size = table.stat().st_size
    if size > FORMAT_LIMITS.labels:
        raise LimitExceededError(LABELS, expected=f"at most {FORMAT_LIMITS.labels} bytes", found=size)
    try:
        lines = table.read_bytes().decode("utf-8-sig").splitlines()
    except UnicodeDecodeError as error:
        raise MalformedSourceError(f"{LABELS} is not UTF-8", offset=error.start) from None
    files, classes, names = [], [], dict[int, str]()
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        fields = line.split("\t")
        if len(fields) not in (2, 3) or not fields[1].isascii() or not fields[1].isdigit() or len(fields[1]) > 9:
            raise MalformedSourceError(f"{LABELS}, line {number}", expected="file<TAB>class index<TAB>name", found=line)
        files.append(_inside(folder, fields[0], number))
        classes.append(int(fields[1]))
        if len(fields) == 3:
            names[classes[-1]] = fields[2]
    if not files:
        raise UsageError(f"{LABELS} names no picture")
    # Where only some classes are named, a gap keeps its index as its name; a huge index names nothing.
    most = max(names, default=-1) + 1
    named = tuple(names.get(index, str(index)) for index in range(most)) if most <= FORMAT_LIMITS.tensors else ()
    return Data(tuple(files), np.array(classes, np.int64), named, str(folder))


def _inside(folder: Path, name: str, line: int) -> Path:
    """A file that labels.tsv names; nothing outside of its folder can be meant, on any system."""
    windows = PureWindowsPath(name)
    if not name or "\0" in name or windows.drive or windows.root or PurePosixPath(name).is_absolute():
        raise MalformedSourceError(f"{LABELS}, line {line}: not a name inside of the folder", found=name)
    if ".." in windows.parts:
        raise MalformedSourceError(f"{LABELS}, line {line}: the name leads out of the folder", found=name)
    for place in (folder / name, folder / "images" / name):
        if place.is_file():
            return place
    raise MalformedSourceError(f"{LABELS}, line {line}: no such picture", found=name)


def _read_folders(folder: Path) -> Data:
    names = sorted(entry.name for entry in folder.iterdir() if entry.is_dir() and not entry.name.startswith("."))
    files: list[Path] = []
    classes: list[int] = []
    for index, name in enumerate(names):
        found = _pictures_in(folder / name)
        files += found
        classes += [index] * len(found)
    if files:
        return Data(tuple(files), np.array(classes, np.int64), tuple(names), str(folder))
    alone = _pictures_in(folder)
    if not alone:
        raise UsageError("the folder holds no pictures", expected=f"{LABELS}, a folder for each class, or pictures")
    return Data(tuple(alone), None, (), str(folder))


def _pictures_in(folder: Path) -> list[Path]:
    found = (entry for entry in folder.iterdir() if not entry.name.startswith(".") and entry.is_file())
    return sorted(entry for entry in found if entry.suffix.lower() in SUFFIXES)


def _prepare_file(path: Path, prepare: Prepare) -> Array:
    try:
        return prepare(read_picture(path)[None])
    except MobileModelError as error:
        raise error.within(file=os.fspath(path)) from None


def _join(tensors: list[Array], file: str | None) -> Array:
    shapes = sorted({tensor.shape[1:] for tensor in tensors})
    if len(shapes) > 1:
        raise UsageError(
            "the pictures differ in size", file=file, found=escape(f"{list(shapes[0])} and {list(shapes[-1])}"),
            advice="Resize or crop them to one size.",
        )  # fmt: skip
    return np.concatenate(tensors)
