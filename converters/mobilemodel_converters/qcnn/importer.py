"""Q-CNN folder -> Model: codebooks and assignments become vector palettes, index by index and value by value."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path

import numpy as np

from mobilemodel.errors import LimitExceededError, MalformedSourceError, MobileModelError, escape
from mobilemodel.layout import ceil_div, elements_of
from mobilemodel.limits import FORMAT_LIMITS
from mobilemodel.model import Model, QuantizedValue
from mobilemodel.v1 import bundle_pb2 as pb
from mobilemodel_converters.caffe.net import Blob, Float32, Layer
from mobilemodel_converters.caffe.translate import blob_dims, translate
from mobilemodel_converters.qcnn.file import (
    BIAS,
    CODES,
    KERNELS,
    MATRIX,
    TABLES,
    Codes,
    Folder,
    check_size,
    file_names,
    read_codes,
    read_dims,
    read_floats,
)
from mobilemodel_converters.qcnn.topologies import CONVOLUTION, INPUT, Row, Topology
from mobilemodel_converters.quantized import palette_value
from mobilemodel_converters.sources import OpenedFile

MEAN = "imagenet_mean.single.bin"
_MEAN_DIMS = (3, 256, 256)
"""blue, green and red, as the networks take them"""
_AT_ONCE = 1 << 20
"""codes that are looked up at a time"""
_WRONG_TABLE = "Is it the right --topology?"
Dims = tuple[int, ...]


def load_model(path: Path, topology: Topology) -> Model:
    """Read the network of a folder (see ``QcnnConverter.load``)."""
    folder = Folder(path)
    try:
        return _Import(folder, topology).load()
    except BaseException:
        folder.close()
        raise


@dataclass
class _Import:
    folder: Folder
    topology: Topology
    notes: list[str] = field(default_factory=list)

    def load(self) -> Model:
        net = self.topology.net()
        kinds = {p: self._weight_kinds(p, row) for p, row in enumerate(self.topology.rows, 1) if row.weighted}
        self._check_files(kinds)
        layers = [
            self._filled(layer, place, dims, kinds[place]) if place in kinds else layer
            for place, (layer, dims) in enumerate(zip(net.layers, blob_dims(net), strict=True), 1)
        ]
        for name in self.folder.unread():
            self.notes.append(f"{escape(name)} was not read: other files hold its layer's weight")
        steps, mean = self._preprocessing()
        return translate(
            replace(net, layers=tuple(layers)), sources=self.folder.records(), preprocessing=steps, mean_picture=mean,
            notes=self.notes, close=self.folder.close,
        )  # fmt: skip

    def _weight_kinds(self, place: int, row: Row) -> tuple[str, ...]:
        """The files of a weight: one where only that from before quantization is there, else codebooks and codes."""
        plain = KERNELS if row.type == CONVOLUTION else MATRIX
        is_plain = self.folder.has(plain, place) and not self.folder.has(TABLES, place)
        return (plain,) if is_plain else (TABLES, CODES)

    def _check_files(self, kinds: dict[int, tuple[str, ...]]) -> None:
        """All files that the layers need are there, and none of a layer that has no values."""
        wanted = [(kind, place) for place, weight in kinds.items() for kind in (*weight, BIAS)]
        missing = [self.folder.missing_name(*file) for file in wanted if not self.folder.has(*file)]
        if missing:
            raise MalformedSourceError(
                f"files of the network are missing: {', '.join(escape(name) for name in missing)}",
                file=str(self.folder.path), advice=_WRONG_TABLE,
            )  # fmt: skip
        for place, name in self.folder.places().items():
            if place not in kinds:
                raise MalformedSourceError(f"{self.topology.name} has no values in row {place}",
                                           file=str(self.folder.path / name), advice=_WRONG_TABLE)  # fmt: skip

    def _filled(self, layer: Layer, place: int, dims: dict[int, Dims], kinds: tuple[str, ...]) -> Layer:
        """The layer with its weight (blob 0) and bias (blob 1)."""
        try:
            quantized = TABLES in kinds
            weight = self._quantized(place, dims[0]) if quantized else self._plain(kinds[0], place, dims[0])
            return replace(layer, blobs=(weight, self._plain(BIAS, place, dims[1])))
        except MobileModelError as error:
            raise error.within(layer=layer.name) from None

    def _plain(self, kind: str, place: int, dims: Dims) -> Blob:
        """A value that is there as float32; it stays in the file."""
        file = self.folder.open(kind, place)
        _check_dims(file, dims)
        check_size(file, dims)
        return Blob(dims, lambda: read_floats(file, dims).reshape(-1))

    def _quantized(self, place: int, dims: Dims) -> Blob:
        """Codebooks (sub-spaces x entries x features) and assignments (outputs x places x sub-spaces) of a weight."""
        file = self.folder.open(TABLES, place)
        shape = read_dims(file, 3)
        subspaces, entries, features = shape
        if subspaces != ceil_div(dims[1], features):
            raise MalformedSourceError(
                "codebooks", file=str(file.path), expected=f"as many as cover {dims[1]} inputs, {features} each",
                found=subspaces, advice=_WRONG_TABLE,
            )  # fmt: skip
        _check_limits(file, shape)
        tables = read_floats(file, shape)
        if not np.isfinite(tables).all():
            raise MalformedSourceError("codebooks hold values that are not finite", file=str(file.path))
        codes = self._codes(place, (dims[0], *dims[2:], subspaces), entries)
        convolution = len(dims) == 4
        value = palette_value(codes, tables, dims, perm=(0, 2, 3, 1) if convolution else (),
                              segment=dims[1] if convolution else 0, tables_by=(0, 1))  # fmt: skip
        return Blob(dims, partial(rebuild, value, dims), value)

    def _codes(self, place: int, dims: Dims, entries: int) -> Codes:
        file = self.folder.open(CODES, place)
        _check_dims(file, dims)
        codes, clean = read_codes(file, dims)
        if int(codes.max()) >= entries:
            raise MalformedSourceError("an assignment names no entry of its codebook", file=str(file.path),
                                       expected=f"below {entries}", found=int(codes.max()))  # fmt: skip
        if not clean:
            self.notes.append(f"{escape(file.path.name)}: bits beside the indices are not zero; they were left out")
        return codes

    def _preprocessing(self) -> tuple[list[pb.Preprocessing], bytes]:
        """What Q-CNN does to a picture, where the folder has the mean picture that it needs."""
        if MEAN not in file_names(self.folder.path):
            self.notes.append(f"{MEAN} is not in the folder: no preprocessing is recorded")
            return [], b""
        file = self.folder.open_name(MEAN)
        _check_dims(file, _MEAN_DIMS)
        mean = read_floats(file, _MEAN_DIMS)
        if not np.isfinite(mean).all():
            raise MalformedSourceError("the mean picture holds values that are not finite", file=str(file.path))
        _, height, width = _MEAN_DIMS
        side = self.topology.side
        step = pb.Preprocessing(
            input=INPUT, layout=pb.LAYOUT_NCHW, colour_order=pb.COLOUR_ORDER_BGR, crop_height=side, crop_width=side,
            resize=pb.Resize(mode=pb.Resize.MODE_WARP, height=height, width=width,
                             kernel=pb.Resize.KERNEL_BILINEAR_CORNERS),
            mean_picture=pb.MeanPicture(height=height, width=width),
        )  # fmt: skip
        return [step], np.ascontiguousarray(mean.transpose(1, 2, 0)).tobytes()


def rebuild(value: QuantizedValue, dims: Dims) -> Float32:
    """The weight that codes and tables stand for, flat: w[o, s F + f, place] = tables[s, code[o, place, s], f].

    Features of the last sub-space beyond the inputs are left out.
    """
    tables = np.asarray(value.tables, np.float32)
    subspaces, _, features = tables.shape
    out = np.empty(dims, np.float32)
    rows = max(1, _AT_ONCE // value.codes.shape[1])
    for first in range(0, dims[0], rows):
        codes = value.codes[first : first + rows].reshape(-1, *dims[2:], subspaces)
        picked = tables[np.arange(subspaces), codes].reshape(*codes.shape[:-1], subspaces * features)
        out[first : first + rows] = np.moveaxis(picked[..., : dims[1]], -1, 1)
    return out.reshape(-1)


def _check_dims(file: OpenedFile, dims: Dims) -> None:
    found = read_dims(file, len(dims))
    if found != dims:
        raise MalformedSourceError("dimensions", file=str(file.path), expected=dims, found=found, advice=_WRONG_TABLE)


def _check_limits(file: OpenedFile, shape: Dims) -> None:
    _, entries, features = shape
    limits = FORMAT_LIMITS
    if features > limits.vector or entries > limits.entries or elements_of(shape) > limits.table_values:
        raise LimitExceededError(
            "codebooks", file=str(file.path), found=shape,
            expected=f"at most {limits.entries} entries of {limits.vector} values, {limits.table_values} values in all",
        )  # fmt: skip
