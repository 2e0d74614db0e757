"""A BatchNorm layer and the Scale layer behind it as one layer: ONNX has one operator for both."""

from __future__ import annotations

from dataclasses import dataclass, replace

from mobilemodel_converters.caffe.net import Layer, Net


@dataclass(frozen=True, kw_only=True)
class ScaledBatchNorm(Layer):
    """A BatchNorm layer whose tops are those of the Scale layer behind it."""

    scale: Layer


def fold_scales(net: Net) -> Net:
    """The network with each Scale folded into the BatchNorm right before it, where nothing else sees between them.

    The Scale has to be one value for each channel: learned, over axis 1 alone.
    """
    layers: list[Layer] = []
    last_takers = _last_takers(net)
    for place, layer in enumerate(net.layers):
        before = layers[-1] if layers else None
        if before is not None and place in last_takers and _scales(before, layer):
            layers[-1] = ScaledBatchNorm(before.name, before.type, before.bottoms, layer.tops, before.message,
                                         before.blobs, scale=layer)  # fmt: skip
        else:
            layers.append(layer)
    return replace(net, layers=tuple(layers))


def _scales(norm: Layer, layer: Layer) -> bool:
    """Whether ``layer`` does nothing but scale the channels of what ``norm`` makes."""
    if norm.type != "BatchNorm" or isinstance(norm, ScaledBatchNorm) or layer.type != "Scale":
        return False
    parameters = layer.message.scale_param
    one_value_each = parameters.axis == 1 and parameters.num_axes == 1
    return one_value_each and len(norm.tops) == len(layer.tops) == 1 and layer.bottoms == norm.tops


def _last_takers(net: Net) -> set[int]:
    """Places of the layers whose bottoms, as they are before them, nothing sees afterwards."""
    wanted, places = set(net.outputs), set()
    for place, layer in reversed(list(enumerate(net.layers))):
        wanted.difference_update(layer.tops)
        if wanted.isdisjoint(layer.bottoms):
            places.add(place)
        wanted.update(layer.bottoms)
    return places
