"""Deep Compression -> Model: the prototxt gives layers and shapes, the ``.net`` file codes and codebooks."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np

from mobilemodel.errors import MobileModelError, UnsupportedSourceError, UsageError, escape
from mobilemodel.layout import elements_of
from mobilemodel.model import Model, SourceOptions
from mobilemodel_converters.caffe.importer import read_topology
from mobilemodel_converters.caffe.net import Blob, Float32, Layer, Net
from mobilemodel_converters.caffe.sniff import is_text
from mobilemodel_converters.caffe.translate import blob_dims, translate
from mobilemodel_converters.deep_compression.file import Bytes, Place, Values, read_layers
from mobilemodel_converters.quantized import palette_value
from mobilemodel_converters.sources import OpenedFile

_PARTS = ("conv", "fc", "ip")
"""a layer's values are in the file when its name contains one of them"""
_WEIGHTED = ("Convolution", "Deconvolution", "InnerProduct")


def which_is_text(paths: Sequence[Path]) -> tuple[Path, Path]:
    """The prototxt and the ``.net`` file of two files in any order, told by their content; raises UsageError."""
    if len(paths) != 2:
        raise UsageError("a Deep Compression model is a prototxt and a .net file", found=f"{len(paths)} files")
    first, second = paths
    texts = [_begins_as_text(path) for path in paths]
    if texts[0] == texts[1]:
        raise UsageError("a prototxt and a .net file are needed", file=str(first),
                         found=f"two files that are {'' if texts[0] else 'not '}text")  # fmt: skip
    return (first, second) if texts[0] else (second, first)


def _begins_as_text(path: Path) -> bool:
    with OpenedFile(path) as file:
        return is_text(file)


def fits(topology: Path, values: Path, options: SourceOptions) -> bool:
    """Whether the values begin as a ``.net`` file of this prototxt does: not more entries than the file has bytes."""
    net = read_topology(topology, options)
    layers = sum(layer.type in _WEIGHTED and _is_kept(layer.name) for layer in net.layers)
    with OpenedFile(values) as file:
        entries: int = sum(np.frombuffer(file.read(0, 4 * layers), "<u4").tolist())
        return 1 <= entries <= file.size


def load_model(topology: Path, values: Path, options: SourceOptions) -> Model:
    """Read a model (see ``DeepCompressionConverter.load``)."""
    with OpenedFile(topology) as file:
        sources = [file.record("caffe")]
    try:
        net = read_topology(topology, options)
        places = _places(net)
    except MobileModelError as error:
        raise error.within(file=str(topology)) from None
    try:
        with OpenedFile(values) as file:
            layers = iter(read_layers(file, [place for place in places if place is not None]))
            sources.insert(0, file.record("deep-compression"))
    except MobileModelError as error:
        raise error.within(file=str(values)) from None
    filled: list[Layer] = []
    notes: list[str] = []
    for layer, place in zip(net.layers, places, strict=True):
        if place is None:
            filled.append(layer)
        else:
            found = next(layers)
            filled.append(replace(layer, blobs=_blobs(place, found)))
            notes += [escape(note) for note in found.notes]
    return translate(replace(net, layers=tuple(filled)), sources=sources, notes=notes)


def _places(net: Net) -> list[Place | None]:
    """For each layer its place in the file, None for those that have no values.

    Raises UnsupportedSourceError for a layer whose values a ``.net`` file cannot hold, and what translating raises.
    """
    return [_place(layer, dims) if dims else None for layer, dims in zip(net.layers, blob_dims(net), strict=True)]


def _is_kept(name: str) -> bool:
    return any(part in name for part in _PARTS)


def _place(layer: Layer, dims: dict[int, tuple[int, ...]]) -> Place:
    if not _is_kept(layer.name):
        raise UnsupportedSourceError(f"{layer.type} has values, but a .net file has none of it", layer=layer.name,
                                     expected=f"a name that contains one of {', '.join(_PARTS)}")  # fmt: skip
    if set(dims) != {0, 1}:
        raise UnsupportedSourceError(f"{layer.type}: a .net file holds a weight and a bias of each layer",
                                     layer=layer.name, found=f"{len(dims)} blobs")  # fmt: skip
    return Place(layer.name, dims[0], elements_of(dims[1]))


def _blobs(place: Place, found: Values) -> tuple[Blob, Blob]:
    value = palette_value(found.codes, found.codebook.reshape(1, -1, 1), place.dims)
    weight = Blob(place.dims, partial(_look_up, found.codebook, found.codes), value)
    return weight, Blob((place.outputs,), lambda: found.bias)


def _look_up(codebook: Float32, codes: Bytes) -> Float32:
    return np.take(codebook, codes)
