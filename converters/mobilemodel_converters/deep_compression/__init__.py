"""Deep Compression: a ``.net`` file of codes and sparse positions, and the prototxt of its network."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from mobilemodel.errors import MobileModelError
from mobilemodel.model import NO_OPTIONS, Model, SourceOptions


class DeepCompressionConverter:
    """The converter ``deep-compression``: a prototxt and a ``.net`` file, in any order."""

    name = "deep-compression"
    description = "Deep Compression: a .net file and its prototxt"
    suffixes: tuple[str, ...] = (".net",)
    options: tuple[str, ...] = ("input_shape",)

    def sniff(self, paths: Sequence[Path]) -> bool:
        """Whether one of two files is a prototxt, and the other begins with the counts of entries of its layers."""
        from mobilemodel_converters.deep_compression.importer import fits, which_is_text

        try:
            return fits(*which_is_text(paths), NO_OPTIONS)
        except MobileModelError:
            return False

    def load(self, paths: Sequence[Path], options: SourceOptions = NO_OPTIONS) -> Model:
        """Read a model; its codes and codebooks are kept as they are.

        Raises MalformedSourceError for a file that is broken or does not fit its prototxt, UnsupportedSourceError for
        layers that cannot be expressed, LimitExceededError, UsageError for other than two files.
        """
        from mobilemodel_converters.deep_compression.importer import load_model, which_is_text

        return load_model(*which_is_text(paths), options)
