"""A network as its files hold it: layers in the terms of V2, their blobs beside them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from mobilemodel.errors import MalformedSourceError
from mobilemodel.limits import FORMAT_LIMITS
from mobilemodel_converters.caffe.net import Blob, Layer

ROUNDED = "values of double precision were rounded to float32"


@dataclass(frozen=True)
class StoredNet:
    """What one file says, of all phases."""

    parameter: Any
    """NetParameter without layers: the name, ``input`` and its shapes, ``state``"""
    layers: tuple[Layer, ...]
    notes: tuple[str, ...] = ()

    @property
    def has_blobs(self) -> bool:
        """Whether the file holds learned values."""
        return any(layer.blobs for layer in self.layers)


def layer_of(message: Any, blobs: tuple[Blob, ...] = ()) -> Layer:
    """The layer of a LayerParameter that has no blobs.

    Raises MalformedSourceError for a name that is too long.
    """
    names = (message.name, *message.bottom, *message.top)
    if any(len(name.encode("utf-8", "surrogatepass")) > FORMAT_LIMITS.name for name in names):
        raise MalformedSourceError("a name is too long", layer=message.name[:80],
                                   expected=f"at most {FORMAT_LIMITS.name} bytes")  # fmt: skip
    return Layer(message.name, message.type, tuple(message.bottom), tuple(message.top), message, blobs)
