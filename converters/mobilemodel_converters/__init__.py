"""Converters: one module or folder reads one source format and returns a ``mobilemodel.model.Model``.

Formats are found through the entry-point group ``mobilemodel.converters``; a built-in table stands behind it, so that
a checkout that is not installed works too. Nothing is imported before it is asked for.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from importlib import import_module
from importlib.metadata import entry_points
from pathlib import Path
from typing import Protocol

from mobilemodel.errors import UsageError
from mobilemodel.model import NO_OPTIONS, Model, SourceOptions

GROUP = "mobilemodel.converters"
BUILT_IN = {
    "onnx": "mobilemodel_converters.onnx:OnnxConverter",
    "caffe": "mobilemodel_converters.caffe:CaffeConverter",
    "ccv": "mobilemodel_converters.ccv:CcvConverter",
    "qcnn": "mobilemodel_converters.qcnn:QcnnConverter",
    "deep-compression": "mobilemodel_converters.deep_compression:DeepCompressionConverter",
}


class Converter(Protocol):
    """What a source format's class provides; it is made without arguments."""

    name: str
    """the format's name, as ``--from`` takes it"""
    description: str
    """one line for ``mobilemodel converters``"""
    suffixes: tuple[str, ...]
    """file name endings for people; content decides"""
    options: tuple[str, ...]
    """the fields of SourceOptions that it takes"""

    def sniff(self, paths: Sequence[Path]) -> bool:
        """Whether these files are of this format, by their content; never raises for a foreign file."""
        ...

    def load(self, paths: Sequence[Path], options: SourceOptions) -> Model:
        """Read the model. Raises MalformedSourceError, UnsupportedSourceError or LimitExceededError."""
        ...


@dataclass(frozen=True)
class Registration:
    """A format that is known by name, and who provides it."""

    name: str
    target: str
    provider: str

    def load(self) -> Converter:
        """Import the converter's module and make it. Raises UsageError where its package cannot be used."""
        module, _, attribute = self.target.partition(":")
        try:
            converter: Converter = getattr(import_module(module), attribute)()
        except (ImportError, AttributeError) as error:
            raise UsageError(
                f"the converter '{self.name}' of the package '{self.provider}' cannot be loaded", found=error,
                advice="Mend or remove the package; --from NAME goes straight to another converter.",
            ) from None  # fmt: skip
        return converter


def registrations() -> list[Registration]:
    """All known formats, the built-in ones first; a third party cannot take a name that exists.

    >>> registrations()[0].name
    'onnx'
    """
    known = {name: Registration(name, target, "mobilemodel") for name, target in BUILT_IN.items()}
    for point in entry_points(group=GROUP):
        provider = point.dist.name if point.dist is not None else "unknown"
        if known.setdefault(point.name, Registration(point.name, point.value, provider)).target != point.value:
            raise UsageError(
                f"two packages register the converter '{point.name}'",
                expected=known[point.name].target,
                found=point.value,
            )
    return list(known.values())


def find_converter(paths: Sequence[Path], name: str | None = None) -> Converter:
    """The converter called ``name``, else the first whose ``sniff`` knows the files.

    Raises UsageError where there is none, or a file cannot be read.
    """
    for path in paths:
        if not path.exists():
            raise UsageError("no such file", file=str(path))
    known = registrations()
    if name is not None:
        for registration in known:
            if registration.name == name:
                return registration.load()
        raise UsageError("no such converter", expected=", ".join(r.name for r in known), found=name)
    for registration in known:
        converter = registration.load()
        if converter.sniff(paths):
            return converter
    raise UsageError(
        f"no converter knows {'this file' if len(paths) == 1 else 'these files'} by content",
        file=" with ".join(map(str, paths)),
        advice="`mobilemodel converters` lists the formats; --from NAME names one.",
    )  # fmt: skip


_SPELLINGS = {"topology": "--topology", "pictures": "--png", "input_shape": "--input-shape"}


def load_model(paths: Sequence[Path], name: str | None = None, options: SourceOptions = NO_OPTIONS) -> Model:
    """Read a model by the converter called ``name``, else by the first that knows the files.

    Raises UsageError for an option that the format has no use for, and what ``find_converter`` and ``Converter.load``
    raise.
    """
    converter = find_converter(paths, name)
    for option in fields(options):
        if getattr(options, option.name) and option.name not in converter.options:
            spelling = _SPELLINGS[option.name]
            raise UsageError(f"{spelling} means nothing to the source format '{converter.name}'", file=str(paths[0]))
    return converter.load(paths, options)
