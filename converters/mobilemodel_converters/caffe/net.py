"""A Caffe network: as a file holds it, and as its layers are translated, for inference and without training's parts."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from mobilemodel.errors import MalformedSourceError
from mobilemodel.layout import elements_of
from mobilemodel.limits import FORMAT_LIMITS
from mobilemodel.model import QuantizedValue
from mobilemodel_converters.caffe.schema import message_class

Float32 = npt.NDArray[np.float32]
Shape = tuple[int | None, ...]
"""sizes of a value's axes; None: may vary"""
_LISTED = 20
"""names that a message lists"""


@dataclass(frozen=True)
class Blob:
    """A learned value of a layer."""

    shape: tuple[int, ...]
    """as stored: files of old have four axes, right-aligned"""
    read: Callable[[], Float32]
    """all values, flat; may be called more than once"""
    quantized: QuantizedValue | None = None
    """codes and tables of the value, for dims that are the layer's own"""
    rounded: bool = False
    """the file has it in double precision"""

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
class StoredNet:
    """What one file says, of all phases, in the terms of V2."""

    parameter: Any
    """NetParameter without layers: the name, ``input`` and its shapes, ``state``"""
    layers: tuple[Layer, ...]

    @property
    def has_blobs(self) -> bool:
        """Whether the file holds learned values."""
        return any(layer.blobs for layer in self.layers)

    @property
    def notes(self) -> tuple[str, ...]:
        """What is lost in reading it."""
        rounded = any(blob.rounded for layer in self.layers for blob in layer.blobs)
        return ("values of double precision were rounded to float32",) if rounded else ()


@dataclass(frozen=True)
class Input:
    """A blob that comes from outside of the network."""

    name: str
    shape: Shape | None
    """None: the file does not say"""
    layer: Layer | None = None
    """the layer that makes it; None for a declared input"""

    @property
    def transformation(self) -> Any:
        """The transform_param of its data layer; None where it says nothing."""
        if self.layer is None or not self.layer.message.HasField("transform_param"):
            return None
        return self.layer.message.transform_param


@dataclass(frozen=True)
class Net:
    """A network for inference."""

    name: str
    inputs: tuple[Input, ...]
    layers: tuple[Layer, ...]
    outputs: tuple[str, ...] = ()
    """blobs that are wanted; empty: every blob that no layer takes"""
    notes: tuple[str, ...] = ()


def layer_of(message: Any, blobs: tuple[Blob, ...] = ()) -> Layer:
    """The layer of a LayerParameter that has no blobs.

    Raises MalformedSourceError for a name that is too long.
    """
    names = (message.name, *message.bottom, *message.top)
    if any(len(name.encode("utf-8", "surrogatepass")) > FORMAT_LIMITS.name for name in names):
        raise MalformedSourceError("a name is too long", layer=message.name[:80],
                                   expected=f"at most {FORMAT_LIMITS.name} bytes")  # fmt: skip
    return Layer(message.name, message.type, tuple(message.bottom), tuple(message.top), message, blobs)


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


def listed(names: Sequence[str]) -> str:
    """The names as a message shows them, the first ones where there are many.

    >>> listed(["conv1", "conv2"]), listed(["relu"] * 21)[-15:]
    ('conv1, conv2', 'relu and 1 more')
    """
    more = f" and {len(names) - _LISTED} more" if len(names) > _LISTED else ""
    return ", ".join(names[:_LISTED]) + more
