"""A Caffe network as its layers are translated: for inference, in the order of the file, without training's parts."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from mobilemodel.layout import elements_of
from mobilemodel.model import QuantizedValue
from mobilemodel_converters.caffe.schema import message_class

Float32 = npt.NDArray[np.float32]
Shape = tuple[int | None, ...]
"""sizes of a value's axes; None: may vary"""


@dataclass(frozen=True)
class Blob:
    """A learned value of a layer."""

    shape: tuple[int, ...]
    """as stored: files of old have four axes, right-aligned"""
    read: Callable[[], Float32]
    """all values, flat; may be called more than once"""
    quantized: QuantizedValue | None = None
    """codes and tables of the value, for dims that are the layer's own"""

    @property
    def count(self) -> int:
        """How many values it has."""
        return elements_of(self.shape)


@dataclass(frozen=True)
class Layer:
    """One layer; ``message`` is a LayerParameter of the schema without its blobs."""

    name: str
    type: str
    bottoms: tuple[str, ...]
    tops: tuple[str, ...]
    message: Any
    blobs: tuple[Blob, ...] = ()


@dataclass(frozen=True)
class Input:
    """A free input of the network."""

    name: str
    shape: Shape


@dataclass(frozen=True)
class Net:
    """A network for inference."""

    name: str
    inputs: tuple[Input, ...]
    layers: tuple[Layer, ...]
    outputs: tuple[str, ...] = ()
    """blobs that are wanted; empty: every blob that no layer takes"""
    notes: tuple[str, ...] = ()


def new_layer(
    name: str, kind: str, bottoms: tuple[str, ...], tops: tuple[str, ...], blobs: tuple[Blob, ...] = (), **params: Any
) -> Layer:
    """A layer from plain values; each parameter message is given as a dict of its fields.

    >>> layer = new_layer("pool1", "Pooling", ("data",), ("pool1",), pooling_param={"kernel_size": 3, "stride": 2})
    >>> layer.message.pooling_param.kernel_size
    3
    """
    message = message_class("LayerParameter")(name=name, type=kind, bottom=bottoms, top=tops, **params)
    return Layer(name, kind, bottoms, tops, message, blobs)
