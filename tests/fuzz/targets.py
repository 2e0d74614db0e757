"""What is fuzzed: each parser from a source's files to the last byte of the last tensor, and a whole conversion."""

from __future__ import annotations

import os
import struct
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from tempfile import TemporaryDirectory
from unittest.mock import patch

import mobilemodel as mm
from mobilemodel.errors import MobileModelError
from mobilemodel.model import NO_OPTIONS, Model, SourceOptions
from mobilemodel.pipeline.mean import read_mean_picture
from mobilemodel_converters import find_converter
from mobilemodel_converters.qcnn.topologies import TOPOLOGIES
from tests.caffe_layers import restored
from tests.fuzz import seeds
from tests.fuzz.mutations import Files
from tests.qcnn_files import PREFIX, SMALL

SHORT = 5000
"""characters of an error's text, and of a note"""
_ABSENT = 2**32 - 1


@dataclass(frozen=True)
class Target:
    """A parser and sources that it takes; ``run`` gives it the files of a folder, and raises what it raises."""

    name: str
    make_seeds: tuple[Callable[[], list[Files]], ...]
    run: Callable[[Path, str], None]
    converter: str = ""

    @cached_property
    def seeds(self) -> list[Files]:
        """Whole sources."""
        return [seed for make in self.make_seeds for seed in make()]


def _read(folder: Path, converter: str) -> None:
    """Load with the converter, build the graph, and read every tensor; a graph of our own making is valid ONNX.

    ``restored`` asks ONNX's own checker.
    """
    paths, options = source(folder)
    if not paths:
        return
    model = find_converter(paths, converter).load(paths, options)
    try:
        check_model(model)
        if not any(path.suffix == ".onnx" for path in paths):
            restored(model)
    finally:
        model.close()


def source(folder: Path) -> tuple[list[Path], SourceOptions]:
    """The paths that a user would name, and the options: pictures are found by themselves, Q-CNN takes the folder."""
    paths = sorted(folder.iterdir())
    if any(path.name.startswith(PREFIX) for path in paths):
        return [folder], SourceOptions(topology=SMALL.name)
    return [path for path in paths if path.suffix != ".png"] or paths, NO_OPTIONS


def check_model(model: Model) -> None:
    """What is said of a model holds: each tensor has its bytes, the notes can be printed."""
    for tensor in model.tensors:
        assert memoryview(tensor.read()).nbytes == tensor.raw_bytes, tensor.name
        if tensor.quantized is not None:
            assert tensor.quantized.codes.ndim == 2, tensor.name
    for note in model.notes:
        assert note.isprintable(), repr(note)
        assert len(note) < SHORT, note


def _read_mean(folder: Path, _: str) -> None:
    for path in folder.iterdir():
        for channels in (1, 3):
            picture = read_mean_picture(str(path), channels)
            assert picture.shape[2] == channels


def _convert(folder: Path, _: str) -> None:
    """Tell the format by content, then convert with tables for FC layers; nothing is written."""
    paths, options = source(folder)
    mm.convert(paths, folder / "out.mm", scheme="kmeans-4", options=mm.ConvertOptions(dry_run=True, source=options))


_CAFFE = (seeds.caffemodels, seeds.caffe_pairs, seeds.caffe_texts)
_CCV = (seeds.convnets, seeds.pictures)
TARGETS = {
    target.name: target
    for target in (
        Target("caffe", _CAFFE, _read, "caffe"),
        Target("caffe-mean", (seeds.means,), _read_mean),
        Target("ccv", _CCV, _read, "ccv"),
        Target("ccv-store", (seeds.stores,), _read, "ccv"),
        Target("qcnn", (seeds.folders,), _read, "qcnn"),
        Target("deep-compression", (seeds.nets,), _read, "deep-compression"),
        Target("onnx", (seeds.onnx_models,), _read, "onnx"),
        Target("convert", (*_CAFFE, *_CCV, seeds.stores, seeds.folders, seeds.nets), _convert),
    )
}


def survives(target: Target, files: Files) -> MobileModelError | None:
    """Give a source to its parser: None where it is taken, else the error that refuses it.

    Anything else that is raised, or left open, is a finding.
    """
    with TemporaryDirectory() as folder, patch.dict(TOPOLOGIES, {SMALL.name: SMALL}):
        for name, content in files.items():
            Path(folder, name).write_bytes(content)
        refusal = None
        try:
            target.run(Path(folder), target.converter)
        except MobileModelError as error:
            check_error(error)
            refusal = error
        opened = [path for path in _opened() if path.startswith(os.path.realpath(folder))]
        assert not opened, opened
    return refusal


def check_error(error: MobileModelError) -> None:
    """An error has an exit code of its kind, and is short and printable."""
    text = str(error)
    assert error.exit_code in (1, 2, 3, 4), text
    assert len(text) < SHORT, text[:SHORT]
    assert all(character.isprintable() or character == "\n" for character in text), repr(text)


def _opened() -> list[str]:
    """The files that this process has open, where the system tells."""
    found = []
    for entry in Path("/proc/self/fd").glob("*"):
        with suppress(OSError):  # the folder's own descriptor is closed by now
            found.append(os.readlink(entry))
    return found


def pack(target: Target, files: Files) -> bytes:
    """All files as one string, for a fuzzer that knows bytes alone: the length and content of each."""
    packed = b""
    for name in names(target):
        content = files.get(name)
        packed += struct.pack("<I", _ABSENT) if content is None else struct.pack("<I", len(content)) + content
    return packed


def unpack(target: Target, packed: bytes) -> Files:
    """The files of ``pack``; of any other string, as many as it has."""
    files, offset = {}, 0
    for name in names(target):
        length = int.from_bytes(packed[offset : offset + 4], "little")
        offset += 4
        if length != _ABSENT:
            files[name] = packed[offset : offset + length]
            offset += len(files[name])
    return files


def names(target: Target) -> list[str]:
    """The files that a source of this target may have."""
    return sorted({name for seed in target.seeds for name in seed})
