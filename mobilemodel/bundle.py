"""The lazy handle a user holds: a Mapping of tensor names over an open bundle."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import cached_property
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt

from mobilemodel import dtypes, layout, native
from mobilemodel.container import Container, open_bytes, open_file, parse_message
from mobilemodel.container.entries import KNOWN_CODECS
from mobilemodel.container.validate import KNOWN_FEATURES, is_foreign
from mobilemodel.encodings import affine, matrix, palette, payloads
from mobilemodel.encodings import tensor as tensors
from mobilemodel.errors import (
    MalformedContentError,
    MobileModelError,
    TensorNotFoundError,
    UnsupportedCodecError,
    UnsupportedEncodingError,
    UnsupportedFeatureError,
)
from mobilemodel.files import Closing
from mobilemodel.limits import FORMAT_LIMITS, Limits
from mobilemodel.v1 import bundle_pb2 as pb

Array = npt.NDArray[Any]
T = TypeVar("T")


class Tensor:
    """One tensor of a bundle. Everything but the decoding methods is known without reading a payload."""

    def __init__(
        self, source: payloads.PayloadSource, message: pb.Tensor, file: str | None, decoder: native.Decoder
    ) -> None:
        self._source = source
        self._message = message
        self._file = file
        self._decoder = decoder

    def __repr__(self) -> str:
        return f"<Tensor {self.name!r} {list(self.shape)} {dtypes.name(self._message.dtype)} {self.encoding}>"

    @property
    def name(self) -> str:
        return self._message.name

    @property
    def message(self) -> pb.Tensor:
        """The manifest's entry; not to be changed."""
        return self._message

    @property
    def shape(self) -> tuple[int, ...]:
        return tuple(self._message.dims)

    @property
    def elements(self) -> int:
        return layout.elements_of(self.shape)

    @property
    def dtype(self) -> np.dtype[Any]:
        """numpy type of the decoded values; bfloat16, float8 and sub-byte types come from ml_dtypes."""
        return dtypes.numpy_dtype(self._message.dtype)

    @property
    def dtype_number(self) -> int:
        """onnx.TensorProto.DataType of the decoded values."""
        return self._message.dtype

    @property
    def encoding(self) -> str:
        """``dense``, ``palette``, ``affine``, or ``unknown`` for one of a later version."""
        return self._message.WhichOneof("encoding") or "unknown"

    @property
    def decoded_bytes(self) -> int:
        """Bytes of ``raw()``."""
        return dtypes.raw_size(self._message.dtype, self.elements)

    @property
    def loss(self) -> pb.Loss | None:
        """The loss measured at conversion; None where the values are bit-identical to the source."""
        return self._message.loss if self._message.HasField("loss") else None

    @cached_property
    def stored_bytes(self) -> int:
        """Bytes in the file: whole payloads, and of shared pools the tensor's share by raw size, rounded up."""
        plan = self._plan
        total = sum(self._source.entry(use.payload).stored_size for use in plan.uses)
        for piece in plan.slices:
            entry = self._source.entry(piece.payload)
            total += layout.ceil_div(entry.stored_size * piece.size, entry.raw_size) if entry.raw_size else 0
        return total

    @property
    def bits_per_weight(self) -> float:
        """Stored bits for each element; 0 for a tensor without elements."""
        return 8 * self.stored_bytes / self.elements if self.elements else 0.0

    @property
    def bits(self) -> int:
        """Bits that name one code, or of one stored value of a dense tensor."""
        plan = self._plan
        if plan.codes is None:
            return dtypes.bits(self._message.dense.stored_dtype)
        return plan.codes.depth

    @property
    def codecs(self) -> tuple[int, ...]:
        """The codec numbers of the tensor's payloads, ascending, each once."""
        plan = self._plan
        indices = [use.payload for use in plan.uses] + [piece.payload for piece in plan.slices]
        return tuple(sorted({self._source.entry(index).codec for index in indices}))

    def numpy(self) -> Array:
        """Decode the values: an array of ``shape`` and ``dtype``.

        Raises a MobileModelError naming file and tensor where a payload is damaged or not supported.
        """
        return self._decoding(self._decode)

    def raw(self) -> bytes | bytearray | memoryview:
        """Decode the values to ONNX ``raw_data``."""
        return self._decoding(lambda: tensors.decode_raw(self._source, self._message))

    def indices(self) -> Array:
        """The codes of a palette or affine tensor: R x N, the smallest unsigned type for them (spec/tensors.md §3).

        Raises UnsupportedEncodingError for a dense tensor, else as ``numpy``; so do ``scales`` and ``zeros``.
        """
        codes = self._codes()
        blocks = [use.payload for use in self._plan.uses]
        return self._decoding(lambda: matrix.read_codes(self._source, codes), blocks)

    def tables(self) -> Array:
        """The tables of a palette: tables x entries x vector, float16 or float32 as they are stored.

        Raises UnsupportedEncodingError for another encoding, else as ``numpy``.
        """
        codes, message = self._codes(), self._message.palette
        if self.encoding != "palette":
            raise UnsupportedEncodingError("the tensor has no tables", tensor=self.name, found=self.encoding)
        return self._decoding(lambda: palette.read_tables(self._source, message, codes), [message.tables.payload])

    def scales(self) -> Array | None:
        """The scale of each group of a palette or affine tensor: flat, float16 or float32 as they are stored.

        None where a palette has none.
        """
        self._codes()
        if self.encoding == "affine":
            message = self._message.affine
            return self._decoding(lambda: affine.read_scales(self._source, message), [message.scales.payload])
        stored = self._message.palette
        used = [stored.scales.payload] if stored.HasField("scales") else []
        return self._decoding(lambda: palette.read_scales(self._source, stored), used)

    def zeros(self) -> Array | None:
        """The zero point of each group of an affine tensor, flat, uint8 or at depth 16 uint16; None for a palette."""
        codes, message = self._codes(), self._message.affine
        if self.encoding == "palette":
            return None
        used = [message.zeros.payload] if message.HasField("zeros") else []
        return self._decoding(lambda: affine.read_zeros(self._source, message, codes), used)

    def verify(self) -> None:
        """Check every payload and the rules of spec/tensors.md §7, block by block; raise the first failure."""
        self._decoding(lambda: tensors.verify(self._source, self._message))

    def _decode(self) -> Array:
        raw = self._decoder.decode(self.name, self.dtype_number) if self.elements else None
        if raw is None:  # no C library, or one that leaves the error to us
            return tensors.decode(self._source, self._message)
        return dtypes.from_raw(raw.data, self.dtype_number, self.shape)

    def _codes(self) -> layout.CodesLayout:
        codes = self._plan.codes
        if codes is None:
            raise UnsupportedEncodingError("the tensor has no codes", tensor=self.name, found=self.encoding)
        return codes

    @cached_property
    def _plan(self) -> layout.TensorLayout:
        try:
            for feature in self._message.required_features:
                if feature not in KNOWN_FEATURES:
                    raise UnsupportedFeatureError("the tensor requires an unknown feature", found=feature)
            return layout.tensor_layout(self._message)
        except MobileModelError as error:
            raise error.within(file=self._file, tensor=self.name) from None

    def _decoding(self, work: Callable[[], T], used: Iterable[int] | None = None) -> T:
        """Do ``work``, which reads the payloads ``used`` (None: all of the tensor), once their codecs are known."""
        plan = self._plan
        if used is None:
            used = [use.payload for use in plan.uses] + [piece.payload for piece in plan.slices]
        try:
            for index in used:
                codec = self._source.entry(index).codec
                if codec not in KNOWN_CODECS:
                    raise UnsupportedCodecError(f"payload {index} has an unknown codec", found=codec)
            return work()
        except MobileModelError as error:
            raise error.within(file=self._file, tensor=self.name) from None


class Bundle(Closing, Mapping[str, Tensor]):
    """An open bundle: tensors by name, in ascending order of their names, and what surrounds them.

    Close it, or use it as a context manager; arrays that were decoded stay valid afterwards.
    """

    def __init__(self, container: Container, file: str | None = None) -> None:
        self.container = container
        self.file = file
        self._source = payloads.PoolCache(container)
        self._decoder = native.Decoder(container)
        self._index = {message.name: message for message in container.manifest.tensors}
        self._tensors: dict[str, Tensor] = {}

    def __getitem__(self, name: str) -> Tensor:
        if name not in self._index:
            raise TensorNotFoundError("no such tensor", file=self.file, tensor=name)
        if name not in self._tensors:
            self._tensors[name] = Tensor(self._source, self._index[name], self.file, self._decoder)
        return self._tensors[name]

    def __eq__(self, other: object) -> bool:
        """A bundle is equal to itself alone: comparing values would decode them."""
        return self is other

    __hash__ = object.__hash__

    def __contains__(self, name: object) -> bool:
        return name in self._index

    def __iter__(self) -> Iterator[str]:
        return iter(self._index)

    def __len__(self) -> int:
        return len(self._index)

    def __repr__(self) -> str:
        return f"<Bundle {self.file or 'in memory'!r}: {len(self)} tensors, {self.size} bytes>"

    def close(self) -> None:
        """Let go of the file."""
        self.container.close()

    @property
    def manifest(self) -> pb.Manifest:
        """The parsed manifest; not to be changed."""
        return self.container.manifest

    @property
    def size(self) -> int:
        """Bytes of the file."""
        return self.container.size

    @property
    def profile(self) -> str:
        """``full`` where a payload needs zstd, else ``baseline``."""
        return "full" if any(entry.codec == pb.CODEC_ZSTD for entry in self.manifest.payloads) else "baseline"

    def graph(self) -> bytes | None:
        """The serialised onnx.ModelProto, its weights external by name; None where the bundle has no graph.

        Raises PayloadChecksumError, MalformedStreamError or UnsupportedCodecError for a payload that cannot be read; so
        do ``labels``, ``report`` and ``mean_picture``, the first two also MalformedContentError.
        """
        return self._payload("graph") if self.manifest.HasField("graph") else None

    def labels(self) -> tuple[str, ...]:
        """The name of each class; empty where the bundle has none."""
        if not self.manifest.HasField("labels"):
            return ()
        try:
            text = self._payload("labels").decode("utf-8")
        except UnicodeDecodeError:
            raise MalformedContentError("labels are not UTF-8", file=self.file) from None
        return tuple(text.removesuffix("\n").split("\n"))

    def report(self) -> dict[str, Any] | None:
        """The conversion report as it was stored; None where the bundle has none."""
        if not self.manifest.HasField("report"):
            return None
        try:
            found = json.loads(self._payload("report"))
        except (ValueError, RecursionError):
            raise MalformedContentError("the report is not JSON", file=self.file) from None
        if not isinstance(found, dict):
            raise MalformedContentError("the report is not a JSON object", file=self.file)
        return found

    def mean_picture(self, step: pb.Preprocessing) -> npt.NDArray[np.float32]:
        """The mean picture of a preprocessing step: height x width x channels, float32."""
        picture = step.mean_picture
        raw = self._read(picture.payload)
        return np.frombuffer(raw, "<f4").reshape(picture.height, picture.width, -1).copy()

    def verify(self) -> None:
        """Read every byte: frames, checksums, all tensors, graph, labels, report. Raises the first failure."""
        try:
            self.container.check_all()
            check_pools(self.container)
        except MobileModelError as error:
            raise error.within(file=self.file) from None
        for tensor in self.values():
            tensor.verify()
        self.graph()
        self.labels()
        self.report()
        for step in self.manifest.preprocessing:
            if step.HasField("mean_picture") and not np.isfinite(self.mean_picture(step)).all():
                raise MalformedContentError("the mean picture holds a value that is not finite", file=self.file)

    def _payload(self, field: str) -> bytes:
        return bytes(self._read(getattr(self.manifest, field)))

    def _read(self, index: int) -> bytes | memoryview:
        try:
            return payloads.read_bytes(self.container, index)
        except MobileModelError as error:
            raise error.within(file=self.file) from None


def check_pools(container: Container) -> None:
    """Bytes of pools that no slice covers must be 0: nothing hides between tables."""
    pieces: dict[int, list[tuple[int, int]]] = {}
    for message in container.manifest.tensors:
        if is_foreign(message):
            return
        for piece in layout.tensor_layout(message).slices:
            pieces.setdefault(piece.payload, []).append((piece.offset, piece.offset + piece.size))
    for index, spans in sorted(pieces.items()):
        if container.entry(index).codec not in KNOWN_CODECS:
            continue
        rest = bytearray(payloads.read_bytes(container, index))
        for start, end in spans:
            rest[start:end] = bytes(end - start)
        if any(rest):
            raise MalformedContentError(f"bytes of pool payload {index} belong to no tensor and are not 0")


def open_bundle(
    source: str | os.PathLike[str] | int | bytes | bytearray | memoryview, *, limits: Limits = FORMAT_LIMITS
) -> Bundle:
    """Open a bundle from a path (mapped; only its head is read), a file descriptor, or bytes in memory.

    All of the manifest is checked before anything is handed out; payloads are checked when they are read.

    Raises MalformedError, CorruptError, UnsupportedError (spec/errors.md), or UsageError for an unreadable path.
    """
    if isinstance(source, (bytes, bytearray, memoryview)):
        return Bundle(open_bytes(source, limits))
    name = None if isinstance(source, int) else os.fspath(source)
    return Bundle(open_file(source, limits), name)


def parse_bundle(data: bytes, *, limits: Limits = FORMAT_LIMITS) -> Bundle:
    """Open a bundle through the protobuf runtime, checking every byte: the same tensors as ``open_bundle``."""
    return Bundle(parse_message(data, limits))
