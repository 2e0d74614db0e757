"""Caffe's files as its tools write them, made with the own schema: caffemodels, prototxts, and odd forms of blobs.

    weights = caffemodel(layer("conv1", "Convolution", "data", "conv1", [kernel], convolution_param={"num_output": 2}))
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from mobilemodel.model import NO_OPTIONS, Model, SourceOptions
from mobilemodel.wire import BYTES, varint
from mobilemodel_converters.caffe import CaffeConverter
from mobilemodel_converters.caffe.schema import message_class

Array = npt.NDArray[Any]
GENERATOR = np.random.default_rng(7)
_BEGINNING = GENERATOR.bit_generator.state


def values(*shape: int) -> Array:
    """Random float32, other ones at each call."""
    return GENERATOR.standard_normal(shape).astype(np.float32)


def begin_again() -> None:
    """Let ``values`` give the same as in the beginning: a test must not depend on those that ran before it."""
    GENERATOR.bit_generator.state = _BEGINNING


def blob(array: Array, *, legacy: bool = False) -> Any:
    """A BlobProto; ``legacy`` has four axes, right-aligned."""
    message = message_class("BlobProto")(data=array.reshape(-1))
    if legacy:
        sizes = (1,) * (4 - array.ndim) + array.shape
        message.num, message.channels, message.height, message.width = sizes
    else:
        message.shape.dim.extend(array.shape)
    return message


def layer(
    name: str, kind: str, bottoms: str = "", tops: str = "", blobs: Sequence[Array] = (), **fields: Any
) -> Any:
    """A LayerParameter; bottoms and tops are names with spaces between."""
    return message_class("LayerParameter")(
        name=name, type=kind, bottom=bottoms.split(), top=tops.split(), blobs=[blob(array) for array in blobs], **fields
    )


def old_layer(
    name: str, kind: str, bottoms: str = "", tops: str = "", blobs: Sequence[Array] = (), **fields: Any
) -> Any:
    """A V1LayerParameter with legacy blobs; ``kind`` is the enum's name: ``INNER_PRODUCT``."""
    return message_class("V1LayerParameter")(
        name=name, type=kind, bottom=bottoms.split(), top=tops.split(),
        blobs=[blob(array, legacy=True) for array in blobs], **fields,
    )  # fmt: skip


def net(*layers: Any, name: str = "net", shape: Sequence[int] | None = None, **fields: Any) -> Any:
    """A NetParameter of V2 or V1 layers; with ``shape`` it has one input called ``data``."""
    message = message_class("NetParameter")(name=name, **fields)
    for item in layers:
        (message.layers if item.DESCRIPTOR.name == "V1LayerParameter" else message.layer).append(item)
    if shape is not None:
        message.input.append("data")
        message.input_shape.add(dim=shape)
    return message


def text(message: Any) -> bytes:
    """The message as a prototxt, without blobs."""
    from google.protobuf import text_format

    bare = type(message).FromString(message.SerializeToString())
    for item in (*bare.layer, *bare.layers):
        item.ClearField("blobs")
    written: str = text_format.MessageToString(bare)
    return written.encode()


def small() -> Any:
    """A deploy network of two learned layers, 2 x 3 inputs and 4 outputs."""
    return net(
        layer("ip1", "InnerProduct", "data", "ip1", [values(5, 6), values(5)], inner_product_param={"num_output": 5}),
        layer("relu1", "ReLU", "ip1", "ip1"),
        layer("ip2", "InnerProduct", "ip1", "ip2", [values(4, 5), values(4)], inner_product_param={"num_output": 4}),
        shape=(1, 6),
    )  # fmt: skip


def both_versions() -> tuple[Any, Any]:
    """The same network in V2 and V1."""
    kernel, bias, matrix = values(4, 3, 3, 3), values(4), values(5, 16)
    new = net(
        layer("conv", "Convolution", "data", "conv", [kernel, bias],
              convolution_param={"num_output": 4, "kernel_size": [3]}),
        layer("relu", "ReLU", "conv", "conv", relu_param={"negative_slope": 0.5}),
        layer("ip", "InnerProduct", "conv", "ip", [matrix], inner_product_param={"num_output": 5, "bias_term": False}),
        layer("prob", "Softmax", "ip", "prob"),
        shape=(1, 3, 4, 4),
    )  # fmt: skip
    old = net(
        old_layer("conv", "CONVOLUTION", "data", "conv", [kernel, bias],
                  convolution_param={"num_output": 4, "kernel_size": [3]}),
        old_layer("relu", "RELU", "conv", "conv", relu_param={"negative_slope": 0.5}),
        old_layer("ip", "INNER_PRODUCT", "conv", "ip", [matrix],
                  inner_product_param={"num_output": 5, "bias_term": False}),
        old_layer("prob", "SOFTMAX", "ip", "prob"),
        input=["data"], input_dim=(1, 3, 4, 4),
    )  # fmt: skip
    return new, old


def field(number: int, content: bytes) -> bytes:
    """A field of bytes on the wire."""
    return varint(number << 3 | BYTES) + varint(len(content)) + content


def around(blob_content: bytes) -> bytes:
    """A caffemodel of one InnerProduct layer, called ip, whose only blob is this."""
    head = layer("ip", "InnerProduct", "data", "ip", inner_product_param={"num_output": 2, "bias_term": False})
    declared = net(shape=(1, 3))
    return field(100, head.SerializeToString() + field(7, blob_content)) + bytes(declared.SerializeToString())


def write(folder: Path, name: str, content: Any) -> Path:
    """Write a message, or bytes as they are."""
    path = folder / name
    path.write_bytes(content if isinstance(content, bytes) else content.SerializeToString())
    return path


def pair(folder: Path, described: Any, weighted: Any) -> tuple[Path, Path]:
    """A prototxt and a caffemodel."""
    return write(folder, "net.prototxt", text(described)), write(folder, "net.caffemodel", weighted)


def load(*paths: Path, shape: tuple[int | None, ...] = ()) -> Model:
    """The files as a model."""
    return CaffeConverter().load(paths, SourceOptions(input_shape=shape) if shape else NO_OPTIONS)


def weights_of(model: Model) -> dict[str, Array]:
    """Each tensor's values; the model's files are closed after."""
    found = {tensor.name: np.frombuffer(tensor.read(), np.float32).reshape(tensor.dims) for tensor in model.tensors}
    model.close()
    return found
