"""Which layers have learned values, and where a network takes them from: by the layer's name, or a shared one."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace

from mobilemodel.errors import MalformedSourceError, escape
from mobilemodel_converters.caffe.net import Blob, Layer, Net, listed

_LEARNED = frozenset((
    "Convolution", "ConvolutionDepthwise", "DepthwiseConvolution", "Deconvolution", "InnerProduct", "Embed", "PReLU",
    "BatchNorm", "BN", "Normalize", "Parameter",
))  # fmt: skip


def needs_blobs(layer: Layer) -> bool:
    """Whether a layer has learned values; Scale and Bias may get them as a second bottom instead."""
    if layer.type in ("Scale", "Bias"):
        return len(layer.bottoms) == 1 or (layer.type == "Scale" and layer.message.scale_param.bias_term)
    return layer.type in _LEARNED


def attach(net: Net, donors: Sequence[Layer]) -> Net:
    """The network with its layers' blobs: their own, else those of the first donor of the same name that has any.

    A layer that no donor has takes the blobs whose names in ``param`` it shares with a layer before it. A bilinear
    Deconvolution may have none: its filler makes them.

    Raises MalformedSourceError for a layer whose values are nowhere.
    """
    by_name: dict[str, tuple[Blob, ...]] = {}
    for donor in donors:
        if donor.blobs:
            by_name.setdefault(donor.name, donor.blobs)
    shared: dict[str, Blob] = {}
    attached = []
    for layer in net.layers:
        names = [parameter.name for parameter in layer.message.param]
        blobs = layer.blobs
        if not blobs and (layer.name or needs_blobs(layer)):  # others without a name would take theirs
            blobs = by_name.get(layer.name, ())
        if not blobs and names and all(name in shared for name in names):
            blobs = tuple(shared[name] for name in names)
        if needs_blobs(layer) and not blobs and not _fills_itself(layer):
            raise MalformedSourceError(f"the file has no weights for this layer ({layer.type})", layer=layer.name,
                                       expected="a layer of this name with blobs")  # fmt: skip
        for name, blob in zip(names, blobs, strict=False):
            if name:
                shared.setdefault(name, blob)
        attached.append(replace(layer, blobs=blobs))
    return replace(net, layers=tuple(attached))


def _fills_itself(layer: Layer) -> bool:
    return layer.type == "Deconvolution" and layer.message.convolution_param.weight_filler.type == "bilinear"


def repeated_note(layers: Sequence[Layer]) -> tuple[str, ...]:
    """A sentence that names the layers without values of their own whose name several have; none where it is unique.

    Caffe would fill the first of them alone.
    """
    names = Counter(escape(layer.name) for layer in layers if needs_blobs(layer) and not layer.blobs)
    repeated = [name for name, count in names.items() if count > 1]
    return (f"several layers have the same name, and so the same weights: {listed(repeated)}",) if repeated else ()


def unused_note(layers: Sequence[Layer], donors: Sequence[Layer]) -> tuple[str, ...]:
    """A sentence that names the donors whose values no layer takes; none where there are none."""
    names = {layer.name for layer in layers}
    unused = list(dict.fromkeys(escape(donor.name) for donor in donors if donor.blobs and donor.name not in names))
    return (f"the topology does not use these layers of the weights' file: {listed(unused)}",) if unused else ()
