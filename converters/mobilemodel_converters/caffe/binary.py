"""Caffemodel files, read layer by layer: what describes a layer is parsed, its values stay in the file until asked for.

The file is walked as protobuf wire format, so that a model of any size costs little more memory than its description.
"""

from __future__ import annotations

import mmap
from collections.abc import Iterator
from functools import partial
from typing import Any, NamedTuple

import numpy as np

from mobilemodel.errors import (
    LimitExceededError,
    MalformedSourceError,
    MalformedWireError,
    MobileModelError,
    UnsupportedSourceError,
)
from mobilemodel.limits import FORMAT_LIMITS, MIB
from mobilemodel.wire import BYTES, FIXED32, FIXED64, VARINT, Field, fields
from mobilemodel_converters.caffe import upgrade
from mobilemodel_converters.caffe.blobs import Run, blob_shape, read_runs
from mobilemodel_converters.caffe.net import Blob, Layer, StoredNet, layer_of
from mobilemodel_converters.caffe.schema import message_class
from mobilemodel_converters.sources import OpenedFile

_MOST_FIELDS = 2**18
"""fields that are walked in one file; values that stand one by one behind each other count as one"""
_DESCRIPTION = MIB
"""bytes that describe all layers, without values"""
_SHAPE_FIELDS = frozenset((1, 2, 3, 4, 7))
_DATA, _DOUBLE_DATA, _RAW_DATA = 5, 8, 12


class _Kind(NamedTuple):
    """How a version of the format holds a layer."""

    message: str
    blobs: int
    """number of the field"""


_LAYERS = {100: _Kind("LayerParameter", 7), 2: _Kind("V1LayerParameter", 6)}
"""field of NetParameter -> what it holds"""


def read_binary(file: OpenedFile) -> StoredNet:
    """Read a NetParameter of V1 or V2.

    Raises MalformedSourceError for what is no such message, UnsupportedSourceError for V0 and for values of enums
    that are not known, LimitExceededError for a description that is too long.
    """
    with mmap.mmap(file.descriptor, 0, access=mmap.ACCESS_READ) as mapped, memoryview(mapped) as data:
        return _Walk(file, data).net()


class _Walk:
    """One walk over a file."""

    def __init__(self, file: OpenedFile, data: memoryview) -> None:
        self._file = file
        self._data = data
        self._fields = 0
        self._described = 0

    def net(self) -> StoredNet:
        layers: dict[int, list[Layer]] = {number: [] for number in _LAYERS}
        rest = []
        for field in self._counted(0, self._file.size):
            kind = _LAYERS.get(field.number) if field.wire_type == BYTES else None
            if kind is None:
                rest.append(self._described_by(field.tag, field.end))
            else:
                layers[field.number].append(self._layer(kind, field, len(layers[field.number])))
            if sum(map(len, layers.values())) > FORMAT_LIMITS.tensors:
                raise LimitExceededError("layers", expected=f"at most {FORMAT_LIMITS.tensors}")
        if all(layers.values()):
            upgrade.refuse_both()
        parameter = _parsed("NetParameter", b"".join(rest), 0)
        _check_values(parameter)
        return StoredNet(parameter, tuple(layer for part in layers.values() for layer in part))

    def _counted(self, start: int, end: int) -> Iterator[Field]:
        """The fields of a message; raises LimitExceededError where there are too many in the file."""
        try:
            for field in fields(self._data, start, end, shortest=False):
                self._fields += 1
                if self._fields > _MOST_FIELDS:
                    raise LimitExceededError("the file has too many fields", offset=field.tag,
                                             expected=f"at most {_MOST_FIELDS}")  # fmt: skip
                yield field
        except MalformedWireError as error:
            raise MalformedSourceError(f"not a caffemodel: {error.message}", offset=error.offset) from None

    def _described_by(self, start: int, end: int) -> bytes:
        self._described += end - start
        if self._described > _DESCRIPTION:
            raise LimitExceededError("the description of the layers", offset=start,
                                     expected=f"at most {_DESCRIPTION} bytes")  # fmt: skip
        return bytes(self._data[start:end])

    def _layer(self, kind: _Kind, place: Field, index: int) -> Layer:
        described, blobs = [], []
        for field in self._counted(place.start, place.end):
            if field.number == kind.blobs and field.wire_type == BYTES:
                blobs.append(field)
            else:
                described.append(self._described_by(field.tag, field.end))
        message = _parsed(kind.message, b"".join(described), place.tag)
        try:
            _check_values(message)
            named = upgrade.to_v2(message)
            return layer_of(named, tuple(self._blob(field, number) for number, field in enumerate(blobs)))
        except MobileModelError as error:
            name = message.name if isinstance(message.name, str) else ""
            raise error.within(layer=name or f"layer {index}", offset=place.tag) from None

    def _blob(self, place: Field, index: int) -> Blob:
        try:
            return self._read_blob(place)
        except MobileModelError as error:
            error.message = f"blob {index}: {error.message}"
            raise error.within(offset=place.tag) from None

    def _read_blob(self, place: Field) -> Blob:
        shape, raw = [], False
        runs: dict[int, list[Run]] = {_DATA: [], _DOUBLE_DATA: []}
        for field, count in self._pieces(place.start, place.end):
            if field.number in runs:
                width = 4 if field.number == _DATA else 8
                if field.wire_type == BYTES and (field.end - field.start) % width:
                    raise MalformedSourceError("packed values", offset=field.tag, expected=f"a multiple of {width}",
                                               found=f"{field.end - field.start} bytes")  # fmt: skip
                if field.wire_type == BYTES and field.end > field.start:
                    runs[field.number].append(Run(field.start, (field.end - field.start) // width))
                elif field.wire_type == (FIXED32 if width == 4 else FIXED64):
                    runs[field.number].append(Run(field.start, count, field.start - field.tag))
            elif field.number in _SHAPE_FIELDS:
                shape.append(self._described_by(field.tag, field.end))
            raw |= field.number == _RAW_DATA
        double = bool(runs[_DOUBLE_DATA])
        chosen = tuple(runs[_DOUBLE_DATA if double else _DATA])
        if raw and not chosen:
            raise UnsupportedSourceError("the values are raw_data, as NVIDIA's Caffe writes them",
                                         advice="Save the model with plain float data.")  # fmt: skip
        count = sum(run.count for run in chosen)
        read = partial(read_runs, self._file, chosen, double)
        shape_of = blob_shape(_parsed("BlobProto", b"".join(shape), place.tag), count)
        return Blob(shape_of, read, rounded=double)

    def _pieces(self, start: int, end: int) -> Iterator[tuple[Field, int]]:
        """The fields of a blob; values that stand one by one, each with its tag, come as the first and their number."""
        position = start
        while position < end:
            for field in self._counted(position, end):
                count = 1
                # Tags of one byte alone: no writer makes longer ones for these fields.
                if field.wire_type in (FIXED32, FIXED64) and field.start - field.tag == 1:
                    count = _repeats(self._data, field.tag, field.end - field.tag, end)
                position = field.tag + count * (field.end - field.tag)
                yield field, count
                if count > 1:
                    break


def _repeats(data: memoryview, start: int, step: int, end: int) -> int:
    """How many times the byte at ``start`` stands there and at each ``step`` after it, at least once."""
    most = (end - start) // step
    found, chunk = 1, 16
    while found < most:
        size = min(chunk, most - found)
        tags = np.frombuffer(data, np.uint8, size * step, start + found * step)[::step]
        others = np.flatnonzero(tags != data[start])
        if others.size:
            return found + int(others[0])
        found += size
        chunk = min(2 * chunk, MIB)
    return found


def _parsed(name: str, content: bytes, offset: int) -> Any:
    from google.protobuf.message import DecodeError

    try:
        return message_class(name).FromString(content)
    except DecodeError:
        raise MalformedSourceError(f"not a caffemodel: its {name} is broken", offset=offset) from None


def _check_values(message: Any) -> None:
    """Raise for values that protobuf passes over: text that is not UTF-8, and numbers that their enum does not name."""
    from google.protobuf.message import Message
    from google.protobuf.unknown_fields import UnknownFieldSet

    enums = {field.number: field for field in message.DESCRIPTOR.fields if field.enum_type is not None}
    if enums:
        unknown: Any = UnknownFieldSet(message)
        for entry in unknown:
            if entry.field_number in enums and entry.wire_type == VARINT:
                field = enums[entry.field_number]
                raise UnsupportedSourceError(f"{field.name} has a value that is not known",
                                             expected=f"0 to {max(field.enum_type.values_by_number)}",
                                             found=entry.data)  # fmt: skip
    for field, value in message.ListFields():
        if field.message_type is not None:
            for inner in (value,) if isinstance(value, Message) else value:
                _check_values(inner)
        elif field.cpp_type == field.CPPTYPE_STRING and not _is_text(value):
            raise MalformedSourceError(f"{field.name} is not UTF-8")


def _is_text(value: Any) -> bool:
    """Whether all of a string field is text: for what is not UTF-8, protobuf gives bytes."""
    return all(isinstance(text, str) for text in ((value,) if isinstance(value, (str, bytes)) else value))
