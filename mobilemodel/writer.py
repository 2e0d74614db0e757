"""A bundle under construction: payloads wait on disk until the manifest that comes before them is known."""

from __future__ import annotations

import os
from typing import BinaryIO

from mobilemodel.container import Spool, write_container
from mobilemodel.encodings.payloads import Effort, Family, PayloadWriter
from mobilemodel.files import Closing
from mobilemodel.v1 import bundle_pb2 as pb


class BundleWriter(Closing):
    """Takes payloads in any order, then writes the whole file (spec/container.md §8).

    ``folder`` holds the temporary file, which has no name; ``baseline`` packs for readers without zstd.

    Raises OutputError when the disk is full, LimitExceededError for more than the format holds.
    """

    def __init__(self, folder: str | os.PathLike[str] | None = None, *, baseline: bool = False) -> None:
        self._spool = Spool(folder)
        self.payloads = PayloadWriter(self._spool, Family.BASELINE if baseline else Family.FULL)
        """what encodings write to"""

    def add(self, raw: bytes | memoryview) -> int:
        """Add graph, labels, report or a mean picture; return the payload's index for the manifest."""
        return self.payloads.add_bytes(raw, Effort.THOROUGH)

    def write(self, out: BinaryIO, manifest: pb.Manifest) -> int:
        """Fill in the manifest's payload entries and write the file; return its bytes."""
        self.payloads.flush()
        return write_container(out, manifest, self._spool)

    def close(self) -> None:
        """Give the disk space back."""
        self._spool.close()
