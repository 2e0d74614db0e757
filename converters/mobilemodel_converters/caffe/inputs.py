"""What comes into a network: declared inputs, Input layers, and the data layers of training files."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from mobilemodel.errors import LimitExceededError, MalformedSourceError, UsageError, escape
from mobilemodel.limits import FORMAT_LIMITS
from mobilemodel.model import SourceOptions
from mobilemodel_converters.caffe.net import Input, Layer, Net, Shape, StoredNet
from mobilemodel_converters.caffe.phases import by_phase

DATA_LAYERS = frozenset((
    "Data", "ImageData", "HDF5Data", "MemoryData", "DummyData", "WindowData", "AnnotatedData", "VideoData",
))  # fmt: skip
"""types that read pictures, labels or numbers from outside in training"""
_LARGEST = 2**31 - 1


def is_feed(layer: Layer) -> bool:
    """Whether the layer takes nothing and brings in blobs from outside."""
    return layer.type == "Input" or layer.type in DATA_LAYERS


def feeds(stored: StoredNet) -> dict[str, Input]:
    """All blobs from outside by name: the declared ones, then those of the layers; the first of a name counts.

    Layers of phase TEST come first, but a snapshot of training has data layers of phase TRAIN alone: they still name
    what comes in. Raises MalformedSourceError where the numbers of inputs and shapes do not fit.
    """
    found = {item.name: item for item in _declared(stored.parameter)}
    there, absent = by_phase(stored)
    for layer in (*there, *absent):
        if is_feed(layer):
            for item in _made_by(layer):
                found.setdefault(item.name, item)
    return found


def _declared(parameter: Any) -> list[Input]:
    """``input`` with an ``input_shape`` each, or four ``input_dim`` each; saved files may have neither."""
    names = list(parameter.input)
    shapes: list[Shape | None] = [tuple(shape.dim) for shape in parameter.input_shape]
    if len(parameter.input_dim):
        if shapes:
            raise MalformedSourceError("the network has both input_dim and input_shape")
        dims = tuple(parameter.input_dim)
        if len(dims) != 4 * len(names):
            raise MalformedSourceError("input_dim", expected=f"4 sizes for each of {len(names)} inputs",
                                       found=f"{len(dims)} sizes")  # fmt: skip
        shapes = [dims[at : at + 4] for at in range(0, len(dims), 4)]
    shapes = shapes or [None] * len(names)
    if len(shapes) != len(names):
        raise MalformedSourceError("input_shape", expected=f"{len(names)}, one for each input", found=len(shapes))
    return [Input(name, shape) for name, shape in zip(names, shapes, strict=True)]


def _made_by(layer: Layer) -> list[Input]:
    """A shape for each top, or one for all; None where the layer says none."""
    if layer.bottoms:
        raise MalformedSourceError(f"a layer of type {layer.type} takes no bottoms", layer=layer.name,
                                   found=len(layer.bottoms))  # fmt: skip
    shapes: list[Shape | None] = [*_said(layer)] or [None]
    if len(shapes) == 1:
        shapes *= len(layer.tops)
    if len(shapes) != len(layer.tops):
        raise MalformedSourceError("shapes", layer=layer.name, expected=f"1, or {len(layer.tops)}: one for each top",
                                   found=len(shapes))  # fmt: skip
    return [Input(top, shape, layer) for top, shape in zip(layer.tops, shapes, strict=True)]


def _said(layer: Layer) -> Sequence[Shape]:
    """The shapes that a layer's own parameters give."""
    message = layer.message
    if layer.type == "Input":
        return [tuple(shape.dim) for shape in message.input_param.shape]
    if layer.type == "DummyData":
        return _dummy_shapes(layer)
    if layer.type == "MemoryData" and message.HasField("memory_data_param"):
        data = message.memory_data_param
        return [(1, data.channels, data.height, data.width), (1,)][: len(layer.tops)]
    return []


def _dummy_shapes(layer: Layer) -> Sequence[Shape]:
    dummy = layer.message.dummy_data_param
    if len(dummy.shape):
        return [tuple(shape.dim) for shape in dummy.shape]
    sizes = (dummy.num, dummy.channels, dummy.height, dummy.width)
    if len({len(size) for size in sizes}) > 1:
        raise MalformedSourceError("num, channels, height and width", layer=layer.name, expected="as many of each",
                                   found=tuple(len(size) for size in sizes))  # fmt: skip
    return list(zip(*sizes, strict=True))


def resolve(net: Net, options: SourceOptions) -> Net:
    """The network with its inputs' shapes: what the user says, else what the file says or lets infer.

    Raises UsageError where a shape is needed from the user, or what is given does not fit; MalformedSourceError and
    LimitExceededError for sizes that no input has.
    """
    given = options.input_shape
    if given and len(net.inputs) != 1:
        names = ", ".join(escape(item.name) for item in net.inputs)
        raise UsageError("--input-shape is for networks of one input", found=names)
    resolved = (replace(item, shape=_checked(item, given or _inferred(item, net.layers), bool(given)))
                for item in net.inputs)  # fmt: skip
    return replace(net, inputs=tuple(resolved))


def _checked(item: Input, shape: Shape, given: bool) -> Shape:
    if given and item.shape is not None and len(shape) != len(item.shape):
        raise UsageError("--input-shape does not fit the input", tensor=item.name,
                         expected=f"{len(item.shape)} sizes, as in {item.shape}", found=shape)  # fmt: skip
    if len(shape) > FORMAT_LIMITS.rank:
        raise LimitExceededError("axes of an input", tensor=item.name, expected=f"at most {FORMAT_LIMITS.rank}",
                                 found=len(shape))  # fmt: skip
    if any(size is not None and not 1 <= size <= _LARGEST for size in shape):
        kind = UsageError if given else MalformedSourceError
        raise kind("the shape of an input", tensor=item.name, expected=f"sizes of 1 to {_LARGEST}", found=shape)
    return shape


def _inferred(item: Input, layers: Sequence[Layer]) -> Shape:
    """The shape that the file says, or that a data layer's crop and the first convolution's weights make."""
    if item.shape is not None:
        return item.shape
    crop = item.transformation.crop_size if item.transformation is not None else 0
    channels = _channels(item, layers)
    if crop and channels:
        return 1, channels, crop, crop
    maker = f" of layer '{escape(item.layer.name)}' ({escape(item.layer.type)})" if item.layer is not None else ""
    sizes = f"--input-shape, 1x{channels or 3}x224x224,"
    raise UsageError(f"the files do not say the shape of the input '{escape(item.name)}'{maker}",
                     advice=f"Give its sizes by {sizes} or name the deploy prototxt too.")  # fmt: skip


def _channels(item: Input, layers: Sequence[Layer]) -> int:
    """Channels that the first convolution takes, by its weights, or that the transformation says; 0: not known."""
    same = {item.name}
    for layer in layers:
        if layer.type == "Split" and same.intersection(layer.bottoms):
            same.update(layer.tops)
        elif layer.type == "Convolution" and same.intersection(layer.bottoms) and layer.blobs:
            shape = layer.blobs[0].shape
            return shape[1] * layer.message.convolution_param.group if len(shape) == 4 else 0
    step = item.transformation
    if step is None:
        return 0
    if step.force_gray:
        return 1
    return 3 if step.force_color or len(step.mean_value) == 3 else 0
