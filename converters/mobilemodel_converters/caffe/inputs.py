"""What comes into a network: declared inputs, Input layers, and the data layers of training files."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from mobilemodel.errors import LimitExceededError, MalformedSourceError, UsageError, escape
from mobilemodel.limits import FORMAT_LIMITS
from mobilemodel.model import SourceOptions
from mobilemodel_converters.caffe.net import Input, Layer, Shape

DATA_LAYERS = frozenset((
    "Data", "ImageData", "HDF5Data", "MemoryData", "DummyData", "WindowData", "AnnotatedData", "VideoData",
))  # fmt: skip
"""types that read pictures, labels or numbers from outside in training"""
_LARGEST = 2**31 - 1
_HOW = "Give its sizes by --input-shape, 1x3x224x224, or name the deploy prototxt too."


@dataclass(frozen=True)
class Feed:
    """A blob that comes from outside of the network."""

    name: str
    dims: tuple[int, ...] | None
    """None: the file does not say"""
    layer: Layer | None = None
    """the layer that makes it; None for a declared input"""

    @property
    def transformation(self) -> Any:
        """The transform_param of its data layer; None where it says nothing."""
        if self.layer is None or not self.layer.message.HasField("transform_param"):
            return None
        return self.layer.message.transform_param


def is_feed(layer: Layer) -> bool:
    """Whether the layer takes nothing and brings in blobs from outside."""
    return layer.type == "Input" or layer.type in DATA_LAYERS


def feeds(parameter: Any, layers: Sequence[Layer]) -> dict[str, Feed]:
    """All blobs from outside by name: the declared ones, then those of the layers; the first of a name counts.

    Raises MalformedSourceError where the numbers of inputs and shapes do not fit.
    """
    found = {feed.name: feed for feed in _declared(parameter)}
    for layer in layers:
        if is_feed(layer):
            for feed in _made_by(layer):
                found.setdefault(feed.name, feed)
    return found


def _declared(parameter: Any) -> list[Feed]:
    """``input`` with an ``input_shape`` each, or four ``input_dim`` each; saved files may have neither."""
    names = list(parameter.input)
    shapes: list[tuple[int, ...]] = [tuple(shape.dim) for shape in parameter.input_shape]
    if len(parameter.input_dim):
        if shapes:
            raise MalformedSourceError("the network has both input_dim and input_shape")
        dims = tuple(parameter.input_dim)
        if len(dims) != 4 * len(names):
            raise MalformedSourceError("input_dim", expected=f"4 sizes for each of {len(names)} inputs",
                                       found=f"{len(dims)} sizes")  # fmt: skip
        shapes = [dims[at : at + 4] for at in range(0, len(dims), 4)]
    if shapes and len(shapes) != len(names):
        raise MalformedSourceError("input_shape", expected=f"{len(names)}, one for each input", found=len(shapes))
    if not shapes:
        return [Feed(name, None) for name in names]
    return [Feed(name, shape) for name, shape in zip(names, shapes, strict=True)]


def _made_by(layer: Layer) -> list[Feed]:
    if layer.bottoms:
        raise MalformedSourceError(f"a layer of type {layer.type} takes no bottoms", layer=layer.name,
                                   found=len(layer.bottoms))  # fmt: skip
    message = layer.message
    if layer.type == "Input":
        shapes = [tuple(shape.dim) for shape in message.input_param.shape]
    elif layer.type == "DummyData":
        shapes = _dummy_shapes(layer)
    elif layer.type == "MemoryData" and message.HasField("memory_data_param"):
        data = message.memory_data_param
        shapes = [(1, data.channels, data.height, data.width), (1,)]
    else:
        shapes = []
    if not shapes or layer.type == "MemoryData":
        dims = [*shapes, *[None] * len(layer.tops)]
        return [Feed(top, shape, layer) for top, shape in zip(layer.tops, dims, strict=False)]
    if len(shapes) == 1:
        shapes *= len(layer.tops)
    if len(shapes) != len(layer.tops):
        raise MalformedSourceError("shapes", layer=layer.name, expected=f"1, or {len(layer.tops)}: one for each top",
                                   found=len(shapes))  # fmt: skip
    return [Feed(top, shape, layer) for top, shape in zip(layer.tops, shapes, strict=True)]


def _dummy_shapes(layer: Layer) -> list[tuple[int, ...]]:
    dummy = layer.message.dummy_data_param
    if len(dummy.shape):
        return [tuple(shape.dim) for shape in dummy.shape]
    sizes = (dummy.num, dummy.channels, dummy.height, dummy.width)
    if len({len(size) for size in sizes}) > 1:
        raise MalformedSourceError("num, channels, height and width", layer=layer.name, expected="as many of each",
                                   found=tuple(len(size) for size in sizes))  # fmt: skip
    return list(zip(*sizes, strict=True))


def resolve(used: Sequence[Feed], layers: Sequence[Layer], options: SourceOptions) -> tuple[Input, ...]:
    """The network's inputs with their shapes: what the user says, else what the file says or lets infer.

    Raises UsageError where a shape is needed from the user, or what is given does not fit; MalformedSourceError and
    LimitExceededError for sizes that no input has.
    """
    given = options.input_shape
    if given and len(used) != 1:
        raise UsageError("--input-shape is for networks of one input", found=", ".join(escape(f.name) for f in used))
    return tuple(Input(feed.name, _checked(feed, given or _inferred(feed, layers), bool(given))) for feed in used)


def _checked(feed: Feed, shape: Shape, given: bool) -> Shape:
    if given and feed.dims is not None and len(shape) != len(feed.dims):
        raise UsageError("--input-shape does not fit the input", tensor=feed.name,
                         expected=f"{len(feed.dims)} sizes, as in {feed.dims}", found=shape)  # fmt: skip
    if len(shape) > FORMAT_LIMITS.rank:
        raise LimitExceededError("axes of an input", tensor=feed.name, expected=f"at most {FORMAT_LIMITS.rank}",
                                 found=len(shape))  # fmt: skip
    if any(size is not None and not 1 <= size <= _LARGEST for size in shape):
        kind = UsageError if given else MalformedSourceError
        raise kind("the shape of an input", tensor=feed.name, expected=f"sizes of 1 to {_LARGEST}", found=shape)
    return shape


def _inferred(feed: Feed, layers: Sequence[Layer]) -> Shape:
    """The shape that the file says, or that a data layer's crop and the first convolution's weights make."""
    if feed.dims is not None:
        return feed.dims
    crop = feed.transformation.crop_size if feed.transformation is not None else 0
    channels = _channels(feed, layers)
    if crop and channels:
        return 1, channels, crop, crop
    maker = f" of layer '{escape(feed.layer.name)}' ({escape(feed.layer.type)})" if feed.layer is not None else ""
    like = f"1x{channels}x224x224" if channels else "1x3x224x224"
    raise UsageError(f"the files do not say the shape of the input '{escape(feed.name)}'{maker}",
                     advice=_HOW.replace("1x3x224x224", like))  # fmt: skip


def _channels(feed: Feed, layers: Sequence[Layer]) -> int:
    """Channels that the first convolution takes, by its weights, or that the transformation says; 0: not known."""
    same = {feed.name}
    for layer in layers:
        if layer.type == "Split" and same.intersection(layer.bottoms):
            same.update(layer.tops)
        elif layer.type == "Convolution" and same.intersection(layer.bottoms) and layer.blobs:
            shape = layer.blobs[0].shape
            return shape[1] * layer.message.convolution_param.group if len(shape) == 4 else 0
    step = feed.transformation
    if step is None:
        return 0
    if step.force_gray:
        return 1
    return 3 if step.force_color or len(step.mean_value) == 3 else 0
