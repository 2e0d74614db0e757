"""Q-CNN: a folder of codebooks and assignments.

``file`` reads the files, ``topologies`` holds the tables of the networks that they belong to, ``importer`` brings
both together.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from mobilemodel.errors import MobileModelError, UsageError
from mobilemodel.model import NO_OPTIONS, Model, SourceOptions


class QcnnConverter:
    """The converter ``qcnn``: one folder, and the name of its network."""

    name = "qcnn"
    description = "Q-CNN: a folder of codebooks and assignments; --topology says which network"
    suffixes: tuple[str, ...] = ()
    options: tuple[str, ...] = ("topology",)

    def sniff(self, paths: Sequence[Path]) -> bool:
        """Whether it is one folder with a file of codebooks, by its name."""
        from mobilemodel_converters.qcnn.file import file_names, is_codebook

        if len(paths) != 1 or not paths[0].is_dir():
            return False
        try:
            return any(is_codebook(name) for name in file_names(paths[0]))
        except UsageError:
            return False

    def load(self, paths: Sequence[Path], options: SourceOptions = NO_OPTIONS) -> Model:
        """Read a network; its codebooks and indices are kept as they are.

        Raises UsageError without a known topology, MalformedSourceError for files that are missing, broken or do not
        fit the topology, UnsupportedSourceError for links out of the folder, LimitExceededError.
        """
        from mobilemodel_converters.qcnn.importer import load_model
        from mobilemodel_converters.qcnn.topologies import find_topology

        topology = find_topology(options.topology)
        if len(paths) != 1:
            raise UsageError("a Q-CNN model is one folder", found=f"{len(paths)} paths")
        try:
            return load_model(paths[0], topology)
        except MobileModelError as error:
            raise error.within(file=str(paths[0])) from None
