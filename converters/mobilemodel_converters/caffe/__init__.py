"""Caffe models in: prototxt and caffemodel, V1 and V2.

``binary`` and ``text`` read what a file says, ``upgrade`` puts it in the terms of V2: a StoredNet. ``importer`` makes
of it a Net, step by step: ``phases`` and ``prune`` leave what inference needs, ``weights`` gives the layers their
values, ``inputs`` the inputs their shapes; ``fold``, ``translate`` and ``layers`` turn it into ONNX. ``schema`` is
Caffe's schema in a descriptor pool of its own.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from mobilemodel.errors import UsageError
from mobilemodel.model import NO_OPTIONS, Model, SourceOptions


class CaffeConverter:
    """The converter ``caffe``: a caffemodel, alone or with the prototxt that describes the network to use it in."""

    name = "caffe"
    description = "Caffe: prototxt and caffemodel, V1 and V2"
    suffixes: tuple[str, ...] = (".prototxt", ".caffemodel")
    options: tuple[str, ...] = ("input_shape",)

    def sniff(self, paths: Sequence[Path]) -> bool:
        """Whether each of the one or two files is a prototxt or a caffemodel."""
        from mobilemodel_converters.caffe.sniff import is_caffe

        return 1 <= len(paths) <= 2 and all(is_caffe(path) for path in paths)

    def load(self, paths: Sequence[Path], options: SourceOptions = NO_OPTIONS) -> Model:
        """Read a model; its values stay in the files until they are asked for.

        Raises MalformedSourceError for what breaks the format, UnsupportedSourceError for V0 and for layers that
        cannot be expressed, LimitExceededError, and UsageError where weights or the input's shape are missing.
        """
        from mobilemodel_converters.caffe.importer import load_model

        if not 1 <= len(paths) <= 2:
            raise UsageError("a Caffe model is a caffemodel, or a prototxt and a caffemodel", file=str(paths[0]),
                             found=f"{len(paths)} files")  # fmt: skip
        return load_model(paths, options)
