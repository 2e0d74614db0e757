"""The client of readers/c/tests/serve.c: one process, on this machine or under an emulator, decodes many bundles."""

from __future__ import annotations

import struct
import subprocess
import tempfile
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from enum import IntEnum
from typing import Any

import numpy as np
import numpy.typing as npt

from mobilemodel import errors
from mobilemodel.files import Closing

Array = npt.NDArray[Any]
FLOAT, FLOAT16 = 1, 10
LIMITS = (
    "file", "manifest", "tensors", "payloads", "elements", "block", "table", "graph", "labels", "report",
    "mean_picture", "uses", "values",
)  # fmt: skip
"""the fields of mm_limits, in their order"""
OK, USAGE = "OK", "USAGE"


def _statuses() -> dict[int, str]:
    """Name of each number that a reader may return: those of the Python errors, and OK."""
    found = {0: OK}
    waiting: list[type[errors.MobileModelError]] = [errors.MobileModelError]
    while waiting:
        kind = waiting.pop()
        found[kind.code] = kind.status
        waiting.extend(kind.__subclasses__())
    return found


STATUSES = _statuses()


class What(IntEnum):
    """What of a tensor is decoded."""

    VALUES = 0
    ROWS = 1
    CODES = 2
    TABLES = 3
    SCALES = 4
    ZEROS = 5


@dataclass(frozen=True)
class Facts:
    """What the library says of a tensor without reading a payload."""

    encoding: int
    status: int
    dtype: int
    rank: int
    elements: int
    slices: int
    decode_scratch: int
    fc_scratch: int
    packed_size: int


class ReaderDiedError(AssertionError):
    """The process ended within a request: a fault of memory, an illegal instruction, or a guard that was touched."""


class Served(Closing):
    """A running reader. It is started anew after it died, so that one fault is one failure."""

    def __init__(self, command: Sequence[str]) -> None:
        self.command = list(command)
        self.emulated = len(self.command) > 1
        self._process: subprocess.Popen[bytes] | None = None
        self._errors = tempfile.TemporaryFile()  # noqa: SIM115 - lives as long as the process

    def close(self) -> None:
        process, self._process = self._process, None
        if process is not None:
            self._hang_up(process)
        self._errors.close()

    @staticmethod
    def _hang_up(process: subprocess.Popen[bytes]) -> None:
        assert process.stdin is not None
        assert process.stdout is not None
        with suppress(BrokenPipeError):
            process.stdin.close()
        process.stdout.close()
        process.wait(20)

    def ask(self, operation: str, content: bytes = b"") -> tuple[str, bytes]:
        """Status and content of the answer."""
        if self._process is None:
            self._errors.truncate(0)
            pipe = subprocess.PIPE
            self._process = subprocess.Popen(self.command, stdin=pipe, stdout=pipe, stderr=self._errors)
        stdin, stdout = self._process.stdin, self._process.stdout
        assert stdin is not None
        assert stdout is not None
        try:
            stdin.write(struct.pack("<I", len(content) + 1) + operation.encode() + content)
            stdin.flush()
            head = stdout.read(8)
            size, status = struct.unpack("<Ii", head)
            answer = stdout.read(size - 4)
        except (BrokenPipeError, struct.error):
            raise self._death(operation) from None
        return STATUSES[status], answer

    def _death(self, operation: str) -> ReaderDiedError:
        process, self._process = self._process, None
        assert process is not None
        self._hang_up(process)
        code = process.returncode
        self._errors.seek(0)
        said = self._errors.read().decode(errors="replace")
        return ReaderDiedError(f"{self.command[-1]} left with {code} within '{operation}': {said}")

    def kernels(self) -> str:
        """The name of the kernels that the processor runs."""
        return self.ask("k")[1].decode()

    def open(self, data: bytes, limits: Mapping[str, int] | None = None) -> str:
        """Open a bundle, which stays open until the next one; the status."""
        given = limits or {}
        fields = [given.get(name, 2**32 - 1) for name in LIMITS]
        return self.ask("o", struct.pack(f"<{len(fields)}I", *fields) + data)[0]

    def dump(self) -> str:
        """The open bundle as typed JSON."""
        status, text = self.ask("j")
        assert status == OK
        return text.decode("ascii")

    def find(self, name: str) -> str:
        """The status of looking for a tensor."""
        return self.ask("f", name.encode() + b"\0")[0]

    def walk(self, names: Sequence[str]) -> list[tuple[int, int, int]]:
        """Where each tensor stands: by its predecessor, by its number, by its name."""
        status, found = self.ask("w", b"".join(name.encode() + b"\0" for name in names))
        assert status == OK
        return list(struct.iter_unpack("<3I", found))

    def facts(self, tensor: int) -> Facts:
        """What the library says of a tensor."""
        status, found = self.ask("t", struct.pack("<I", tensor))
        assert status == OK
        return Facts(*struct.unpack("<9Q", found))

    def decode(
        self, what: What, tensor: int, *, dtype: int = 0, first: int = 0, count: int = 0, out_cut: int = 0,
        scratch_cut: int = 0,
    ) -> tuple[str, bytes]:  # fmt: skip
        """Status and bytes; outputs and scratch are smaller than the library wants by the cuts."""
        return self.ask("d", struct.pack("<BIIQQQQ", what, tensor, dtype, first, count, out_cut, scratch_cut))

    def fc(
        self, tensor: int, x: Array, outputs: int, *, transposed: bool = False, packed: bool = False,
        bias: Array | None = None, scratch_cut: int = 0, packed_cut: int = 0,
    ) -> tuple[str, Array]:  # fmt: skip
        """Status and y = W x + bias; x and bias are float32."""
        flags = 1 * transposed | 2 * packed | 4 * (bias is not None)
        head = struct.pack("<IBQQII", tensor, flags, scratch_cut, packed_cut, x.size, outputs)
        given = b"" if bias is None else bias.astype("<f4").tobytes()
        status, found = self.ask("c", head + x.astype("<f4").tobytes() + given)
        return status, np.frombuffer(found, "<f4")
