"""An ONNX file read without its weights: large values stay on disk, the rest becomes a small ModelProto.

The file is walked as protobuf wire format. Of each large tensor the value is left out and a placeholder put in, so
that a model of any size costs little more memory than its graph.
"""

from __future__ import annotations

import mmap
import os
import secrets
import stat
from dataclasses import dataclass, field
from hashlib import sha256
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING

from mobilemodel.dtypes import DType
from mobilemodel.errors import MalformedSourceError, MalformedWireError, UsageError
from mobilemodel.wire import BYTES, Buffer, Field, fields, varint

if TYPE_CHECKING:
    import onnx

LARGE = 64 * 1024
"""bytes from which a value stays in the file"""
_NESTING = 100
_MOST_FIELDS = 256
"""fields of a tensor that is looked into"""
# Where tensors can stand: message -> field number -> message.
_CHILDREN = {
    "Model": {7: "Graph", 25: "Function"},
    "Graph": {1: "Node", 5: "Tensor"},
    "Function": {7: "Node"},
    "Node": {5: "Attribute"},
    "Attribute": {5: "Tensor", 6: "Graph", 10: "Tensor", 11: "Graph"},
}
_RAW_DATA, _DATA_TYPE, _FLOAT_DATA, _DOUBLE_DATA, _DATA_LOCATION, _EXTERNAL_DATA = 9, 2, 4, 10, 14, 13
_DATA_FIELDS = frozenset((_FLOAT_DATA, 5, 6, 7, _RAW_DATA, _DOUBLE_DATA, 11))


@dataclass(frozen=True)
class Span:
    """Bytes of a value within the model's file."""

    offset: int
    size: int


@dataclass
class ModelFile:
    """An open ONNX file: its ModelProto without large values, and where those lie."""

    path: Path
    model: onnx.ModelProto
    descriptor: int
    token: str
    spans: list[Span] = field(default_factory=list)

    def span(self, tensor: onnx.TensorProto) -> Span | None:
        """Where the value of a placeholder lies; None for a tensor that holds its own value."""
        for entry in tensor.external_data:
            if entry.key == self.token:
                return self.spans[int(entry.value)]
        return None

    def read(self, span: Span) -> bytes:
        """Read a value from the file."""
        return read_at(self.descriptor, span.offset, span.size, self.path)

    def close(self) -> None:
        """Close the file; reading values afterwards fails."""
        if self.descriptor >= 0:
            os.close(self.descriptor)
            self.descriptor = -1


def read_at(descriptor: int, offset: int, size: int, path: Path) -> bytes:
    """Read exactly ``size`` bytes at ``offset``; raises MalformedSourceError where the file ends before."""
    if size == 0:
        return b""
    pieces = []
    while size:
        piece = os.pread(descriptor, min(size, 1 << 30), offset)
        if not piece:
            raise MalformedSourceError("the file ends within a tensor", file=str(path), offset=offset)
        pieces.append(piece)
        offset += len(piece)
        size -= len(piece)
    return pieces[0] if len(pieces) == 1 else b"".join(pieces)


def file_sha256(descriptor: int) -> bytes:
    """SHA-256 of a whole file, read in pieces."""
    digest = sha256()
    offset = 0
    while piece := os.pread(descriptor, 1 << 20, offset):
        digest.update(piece)
        offset += len(piece)
    return digest.digest()


def open_model(path: Path) -> ModelFile:
    """Walk an ONNX file and parse it without its large values.

    Raises UsageError when it cannot be read, MalformedSourceError when it is no ModelProto.
    """
    import onnx
    from google.protobuf.message import DecodeError

    try:
        descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0))
    except (OSError, ValueError) as error:
        why = error.strerror if isinstance(error, OSError) else error
        raise UsageError(f"cannot open: {why}", file=str(path)) from None
    try:
        token = f"mobilemodel-{secrets.token_hex(8)}"
        spans: list[Span] = []
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode):
            raise UsageError("not a regular file", file=str(path))
        size = status.st_size
        if size == 0:
            raise MalformedSourceError("the file is empty")
        with mmap.mmap(descriptor, 0, access=mmap.ACCESS_READ) as mapped, memoryview(mapped) as data:
            skeleton = _Stripper(data, token, spans).message("Model", 0, size, _NESTING)
        model = onnx.ModelProto.FromString(skeleton)
    except (MalformedWireError, DecodeError) as error:
        os.close(descriptor)
        place = getattr(error, "offset", None)
        raise MalformedSourceError("not an ONNX model: its protobuf is broken", offset=place) from None
    except BaseException:
        os.close(descriptor)
        raise
    return ModelFile(path, model, descriptor, token, spans)


class _Stripper:
    """Copies a message without its large values."""

    def __init__(self, data: Buffer, token: str, spans: list[Span]) -> None:
        self._data = data
        self._token = token
        self._spans = spans

    def message(self, kind: str, start: int, end: int, nesting: int) -> bytes:
        if nesting < 0:
            raise MalformedSourceError("messages are nested too deep", offset=start)
        out: list[bytes] = []
        copied = start
        for piece in fields(self._data, start, end, shortest=False):
            child = _CHILDREN[kind].get(piece.number) if piece.wire_type == BYTES else None
            # A message without room for a large value is copied as it is.
            if child is None or piece.end - piece.start < LARGE:
                continue
            out.append(bytes(self._data[copied : piece.tag]))
            copied = piece.end
            if child == "Tensor":
                content = self._tensor(piece.start, piece.end)
            else:
                content = self.message(child, piece.start, piece.end, nesting - 1)
            out.append(_bytes_field(piece.number, content))
        return b"".join([*out, bytes(self._data[copied:end])])

    def _tensor(self, start: int, end: int) -> bytes:
        # A tensor of more fields holds its values one by one: it is parsed as it is.
        parts = list(islice(fields(self._data, start, end, shortest=False), _MOST_FIELDS + 1))
        value = _single_value(parts) if len(parts) <= _MOST_FIELDS else None
        if value is None:
            return bytes(self._data[start:end])
        kept = [bytes(self._data[p.tag : p.end]) for p in parts if p is not value and p.number != _DATA_LOCATION]
        entry = _bytes_field(1, self._token.encode()) + _bytes_field(2, str(len(self._spans)).encode())
        self._spans.append(Span(value.start, value.end - value.start))
        location = varint(_DATA_LOCATION << 3) + varint(1)
        return b"".join([*kept, _bytes_field(_EXTERNAL_DATA, entry), location])


def _single_value(parts: list[Field]) -> Field | None:
    """The one field that is the tensor's little-endian value as it stands; None where there is no such field."""
    data = [part for part in parts if part.number in _DATA_FIELDS]
    if len(data) != 1 or data[0].wire_type != BYTES or any(part.number == _EXTERNAL_DATA for part in parts):
        return None
    types = [part.value for part in parts if part.number == _DATA_TYPE]
    same = {_RAW_DATA: None, _FLOAT_DATA: DType.FLOAT, _DOUBLE_DATA: DType.DOUBLE}
    number = data[0].number
    if number not in same or data[0].end - data[0].start < LARGE:
        return None
    return data[0] if same[number] is None or types[-1:] == [same[number]] else None


def _bytes_field(number: int, content: bytes) -> bytes:
    return varint(number << 3 | BYTES) + varint(len(content)) + content
