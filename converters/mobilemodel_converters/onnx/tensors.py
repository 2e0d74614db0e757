"""Values of TensorProtos: their own, those left in the model's file, and external data within the model's folder."""

from __future__ import annotations

import os
import stat
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import TYPE_CHECKING

import numpy as np

from mobilemodel import dtypes
from mobilemodel.errors import MalformedSourceError, UnsupportedSourceError, escape
from mobilemodel.layout import ceil_div, elements_of
from mobilemodel.wire import fields
from mobilemodel_converters.onnx.file import ModelFile
from mobilemodel_converters.sources import read_at

if TYPE_CHECKING:
    import onnx

STRING = 8
EXTERNAL = 1


@dataclass
class ExternalFiles:
    """The external data files of one model, each opened once and only within the model's folder."""

    folder: Path
    descriptors: dict[str, int] = field(default_factory=dict)

    def open(self, location: str) -> int:
        """Open a file by the location that a tensor names.

        Raises UnsupportedSourceError for a location outside of the folder, also by a symbolic link;
        MalformedSourceError for one that is no regular file.
        """
        if location in self.descriptors:
            return self.descriptors[location]
        shown = escape(location)
        rooted = PurePosixPath(location).is_absolute() or PureWindowsPath(location).anchor
        if not location or "\0" in location or rooted:
            raise UnsupportedSourceError("external data with an absolute or empty location", found=shown)
        folder = Path(os.path.realpath(self.folder))
        target = Path(os.path.realpath(folder / location))
        if not target.is_relative_to(folder):
            raise UnsupportedSourceError(
                "external data outside of the model's folder", expected="a file beside or below the model", found=shown,
                advice="Copy the file into the model's folder and correct the location.",
            )  # fmt: skip
        try:
            descriptor = os.open(target, os.O_RDONLY | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0))
        except OSError as error:
            raise MalformedSourceError(f"external data: {error.strerror}", found=shown) from None
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            os.close(descriptor)
            raise MalformedSourceError("external data is not a regular file", found=shown)
        self.descriptors[location] = descriptor
        return descriptor

    def close(self) -> None:
        """Close all files."""
        for descriptor in self.descriptors.values():
            os.close(descriptor)
        self.descriptors.clear()


@dataclass(frozen=True)
class ExternalSpan:
    """Bytes of a value in an external data file."""

    location: str
    offset: int
    size: int


def raw_bytes(tensor: onnx.TensorProto) -> int:
    """Bytes of the tensor's value as ``raw_data``; 0 for strings and unknown types."""
    return dtypes.raw_size(tensor.data_type, elements_of(tensor.dims)) if dtypes.is_known(tensor.data_type) else 0


def external_span(tensor: onnx.TensorProto, files: ExternalFiles) -> ExternalSpan:
    """Check where a tensor's external data lie.

    Raises MalformedSourceError for an offset or length that is no number, or is not within the file.
    """
    entries = {entry.key: entry.value for entry in tensor.external_data}
    if not dtypes.is_known(tensor.data_type):
        raise UnsupportedSourceError(
            "external data of a type without a size", tensor=tensor.name,
            found="strings" if tensor.data_type == STRING else f"type {tensor.data_type}",
        )  # fmt: skip
    location = entries.get("location", "")
    expected = raw_bytes(tensor)
    offset = _number(entries.get("offset", "0"), tensor.name)
    length = _number(entries.get("length", str(expected)), tensor.name)
    size = os.fstat(files.open(location)).st_size
    if length != expected or offset + length > size:
        raise MalformedSourceError(
            "external data do not fit", tensor=tensor.name, expected=f"{expected} bytes within {size}",
            found=f"{length} bytes at {offset}",
        )  # fmt: skip
    return ExternalSpan(location, offset, length)


def _number(text: str, name: str) -> int:
    if not (text.isascii() and text.isdigit() and len(text) < 20):
        raise MalformedSourceError(
            "external data: offset or length", tensor=name, expected="a number of bytes", found=escape(text)
        )
    return int(text)


def check_value(tensor: onnx.TensorProto, source: ModelFile, files: ExternalFiles) -> None:
    """Check that a tensor's value has the size that its dims and type ask for, without reading it.

    Raises MalformedSourceError, UnsupportedSourceError for a segment or an external string.
    """
    if any(dim < 0 for dim in tensor.dims):
        raise MalformedSourceError("a tensor has a negative dim", tensor=tensor.name, found=list(tensor.dims))
    if tensor.HasField("segment"):
        raise UnsupportedSourceError("a segmented tensor", tensor=tensor.name)
    elements = elements_of(tensor.dims)
    if elements > 2**40:
        raise MalformedSourceError("a tensor is larger than any file", tensor=tensor.name, found=list(tensor.dims))
    span = source.span(tensor)
    found: int | None = None
    expected = raw_bytes(tensor)
    if span is not None:
        found = span.size
    elif tensor.data_location == EXTERNAL:
        external_span(tensor, files)
    elif tensor.data_type == STRING:
        expected, found = elements, len(tensor.string_data)
    elif tensor.HasField("raw_data"):
        found = len(tensor.raw_data)
    elif dtypes.is_known(tensor.data_type):
        expected, found = _typed_length(tensor, elements)
    sized = dtypes.is_known(tensor.data_type) or tensor.data_type == STRING
    if sized and found is not None and found != expected:
        raise MalformedSourceError("a tensor's value has another size than its dims", tensor=tensor.name,
                                   expected=expected, found=found)  # fmt: skip


def _typed_length(tensor: onnx.TensorProto, elements: int) -> tuple[int, int]:
    kind = dtypes.DType(tensor.data_type)
    if kind in (dtypes.DType.FLOAT, dtypes.DType.COMPLEX64):
        return elements * (2 if kind is dtypes.DType.COMPLEX64 else 1), len(tensor.float_data)
    if kind in (dtypes.DType.DOUBLE, dtypes.DType.COMPLEX128):
        return elements * (2 if kind is dtypes.DType.COMPLEX128 else 1), len(tensor.double_data)
    if kind is dtypes.DType.INT64:
        return elements, len(tensor.int64_data)
    if kind in (dtypes.DType.UINT64, dtypes.DType.UINT32):
        return elements, len(tensor.uint64_data)
    width = dtypes.bits(kind)
    return (elements if width >= 8 else ceil_div(elements * width, 8)), len(tensor.int32_data)


def read_value(tensor: onnx.TensorProto, source: ModelFile, files: ExternalFiles) -> bytes:
    """The tensor's value as ``raw_data``; its size was checked by ``check_value``."""
    span = source.span(tensor)
    if span is not None:
        return source.read(span)
    if tensor.data_location == EXTERNAL:
        place = external_span(tensor, files)
        return read_at(files.open(place.location), place.offset, place.size, files.folder / place.location)
    if tensor.HasField("raw_data"):
        return tensor.raw_data
    return _typed_value(tensor)


def _typed_value(tensor: onnx.TensorProto) -> bytes:
    """The value of a tensor in a typed field, bit for bit."""
    kind = dtypes.DType(tensor.data_type)
    if kind in (dtypes.DType.FLOAT, dtypes.DType.COMPLEX64):
        return _packed_field(tensor, "float_data", 4)
    if kind in (dtypes.DType.DOUBLE, dtypes.DType.COMPLEX128):
        return _packed_field(tensor, "double_data", 10)
    if kind is dtypes.DType.INT64:
        return np.array(tensor.int64_data, "<i8").tobytes()
    if kind in (dtypes.DType.UINT64, dtypes.DType.UINT32):
        return np.array(tensor.uint64_data, "<u8").astype(dtypes.numpy_dtype(kind)).tobytes()
    # Halves stand here as their bits, and values of less than a byte packed as raw_data packs them.
    width = max(1, dtypes.bits(kind) // 8)
    return np.array(tensor.int32_data, "<i4").astype(f"<i{width}").tobytes()


def _packed_field(tensor: onnx.TensorProto, name: str, number: int) -> bytes:
    """The bytes of a packed field as protobuf writes them: Python's floats would quiet signalling NaNs."""
    alone = type(tensor)()
    alone.CopyFrom(tensor)
    for other, _ in alone.ListFields():
        if other.name != name:
            alone.ClearField(other.name)
    content = alone.SerializeToString()
    return b"".join(content[f.start : f.end] for f in fields(content, 0, len(content)) if f.number == number)


def small_integers(tensor: onnx.TensorProto) -> tuple[int, ...] | None:
    """The values of a short int64 tensor, such as axes or a shape; None for any other tensor."""
    if tensor.data_type != dtypes.DType.INT64 or tensor.data_location == EXTERNAL or not 0 < len(tensor.dims) < 2:
        return None
    if not 0 <= tensor.dims[0] <= 64:
        return None
    raw = tensor.raw_data if tensor.HasField("raw_data") else np.array(tensor.int64_data, "<i8").tobytes()
    return tuple(int(value) for value in np.frombuffer(raw, "<i8")) if len(raw) == 8 * tensor.dims[0] else None
