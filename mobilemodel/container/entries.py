"""A manifest's payload entries and who uses them: indices, codecs and raw sizes (spec/container.md §3, §6)."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from mobilemodel.errors import LimitExceededError, MalformedManifestError
from mobilemodel.layout import PayloadRun
from mobilemodel.limits import Limits
from mobilemodel.v1 import bundle_pb2 as pb

KNOWN_CODECS: frozenset[int] = frozenset((pb.CODEC_STORED, pb.CODEC_ZLIB, pb.CODEC_PNG, pb.CODEC_ZSTD))
MATRIX_CODECS: frozenset[int] = frozenset((pb.CODEC_STORED, pb.CODEC_PNG, pb.CODEC_ZSTD))
BYTES_CODECS: frozenset[int] = frozenset((pb.CODEC_STORED, pb.CODEC_ZLIB, pb.CODEC_ZSTD))
_IMPOSSIBLE = "cannot have this raw_size with its codec and stored_size"


class PayloadEntries:
    """The entries as columns, and a mark at each one that something uses.

    Each of 65,535 tensors may name all of 65,535 payloads: runs are compared as columns, so that opening stays quick.
    """

    def __init__(self, entries: Sequence[pb.Payload]) -> None:
        self._entries = entries
        self.used = np.zeros(len(entries), np.bool_)
        stored = np.array([entry.stored_size for entry in entries], np.int64)
        self._raw = np.array([entry.raw_size for entry in entries], np.int64)
        codec = np.array([entry.codec for entry in entries], np.int64)
        unknown = ~np.isin(codec, list(KNOWN_CODECS))
        self._for_bytes = unknown | np.isin(codec, list(BYTES_CODECS))
        self._for_matrices = unknown | np.isin(codec, list(MATRIX_CODECS))
        # Deflate's longest match is 258 bytes in 2 bits: 1032 to 1 (spec/codecs.md §2).
        deflated = np.isin(codec, (pb.CODEC_ZLIB, pb.CODEC_PNG)) & (self._raw > 1032 * stored + 1024)
        copied = codec == pb.CODEC_STORED
        # What has no raw bytes has no stored ones: nothing can hide in an empty stream.
        self._impossible = deflated | (copied & (self._raw != stored)) | (~unknown & ~copied & (self._raw == 0))

    def take(self, index: int, what: str, limit: int, exact: int | None = None) -> int:
        """Mark payload ``index``, which holds bytes for ``what``, and return its raw size.

        Raises MalformedManifestError for an index, codec or size that cannot be, LimitExceededError above ``limit``.
        """
        self._check_index(index)
        self.used[index] = True
        raw_size = int(self._raw[index])
        if raw_size > limit:
            raise LimitExceededError(f"{what}: payload {index}", expected=f"at most {limit} bytes", found=raw_size)
        if exact is not None and raw_size != exact:
            raise MalformedManifestError(f"{what}: raw_size of payload {index}", expected=exact, found=raw_size)
        span = slice(index, index + 1)
        self._refuse(span, ~self._for_bytes[span], "has a codec that its use forbids")
        self._refuse(span, self._impossible[span], _IMPOSSIBLE)
        return raw_size

    def take_run(self, run: PayloadRun, limits: Limits) -> None:
        """Mark the payloads of a run; their codecs and raw sizes MUST be what the run asks for. Errors as ``take``."""
        last = run.first + (run.count - 1) * run.step
        self._check_index(run.first)
        self._check_index(last)
        span = slice(run.first, last + 1, run.step)
        self.used[span] = True
        suited = self._for_matrices if run.matrix else self._for_bytes
        self._refuse(span, ~suited[span], "has a codec that its use forbids")
        raw = self._raw[span]
        asked = np.full(run.count, run.raw_size, np.int64)
        asked[-1] = run.last_raw_size
        wrong = raw != asked if run.exact else raw > asked
        size = f"{'' if run.exact else 'at most '}{run.raw_size}, in the last one {run.last_raw_size}"
        self._refuse(span, wrong, "has a raw_size that its use forbids", size)
        if int(raw.max()) > limits.block:
            raise LimitExceededError("a block", expected=f"at most {limits.block} bytes", found=int(raw.max()))
        self._refuse(span, self._impossible[span], _IMPOSSIBLE)

    def check_sizes(self) -> None:
        """Check the sizes of all entries, also of those that only a tensor of a later version can use."""
        self._refuse(slice(0, len(self._entries)), self._impossible, _IMPOSSIBLE)

    def _check_index(self, index: int) -> None:
        if index >= len(self._entries):
            raise MalformedManifestError(
                "a payload index is out of range", expected=f"below {len(self._entries)}", found=index
            )

    def _refuse(self, span: slice, wrong: npt.NDArray[np.bool_], why: str, expected: str | None = None) -> None:
        """Raise for the first payload of ``span`` that is ``wrong``."""
        if not wrong.any():
            return
        index = span.start + int(wrong.argmax()) * (span.step or 1)
        entry = self._entries[index]
        found = f"codec {entry.codec}, raw_size {entry.raw_size}, stored_size {entry.stored_size}"
        raise MalformedManifestError(f"payload {index} {why}", expected=expected, found=found)
