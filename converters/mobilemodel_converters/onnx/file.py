"""An ONNX file read without its weights: large values stay on disk, the rest becomes a small ModelProto.

The file is walked as protobuf wire format. Of each large tensor the value is left out and a placeholder put in, so
that a model of any size costs little more memory than its graph.
"""

from __future__ import annotations

import mmap
import os
import secrets
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING

from mobilemodel.dtypes import DType
from mobilemodel.errors import MalformedSourceError, MalformedWireError
from mobilemodel.wire import BYTES, Buffer, Field, fields, varint
from mobilemodel_converters.sources import open_source, read_at

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


def open_model(path: Path) -> ModelFile:
    """Walk an ONNX file and parse it without its large values.

    Raises UsageError when it cannot be read, MalformedSourceError when it is no ModelProto.
    """
    import onnx
    from google.protobuf.message import DecodeError

    descriptor = open_source(path)
    try:
        token = f"mobilemodel-{secrets.token_hex(8)}"
        spans: list[Span] = []
        size = os.fstat(descriptor).st_size
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
