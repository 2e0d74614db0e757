"""Write a full-size VGG-16 caffemodel of random weights: 553 MB, one layer's rows at a time.

vgg16.py OUT.caffemodel        prints the file's size, and that of its largest value, as JSON
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from mobilemodel.layout import elements_of
from mobilemodel.wire import BYTES, varint
from mobilemodel_converters.caffe.schema import message_class

_STAGES = ((1, 2, 64), (2, 2, 128), (3, 3, 256), (4, 3, 512), (5, 3, 512))
"""number, convolutions, channels"""
_FULLY_CONNECTED = (("fc6", 25088, 4096), ("fc7", 4096, 4096), ("fc8", 4096, 1000))
_LAYER, _BLOBS, _SHAPE, _DATA = 100, 7, 7, 5
_PIECE = 1 << 20


def layers() -> Iterator[tuple[Any, tuple[tuple[int, ...], ...]]]:
    """Each layer as a message without its values, and the shapes of those."""
    layer = message_class("LayerParameter")
    yield layer(name="data", type="Input", top=["data"], input_param={"shape": [{"dim": [1, 3, 224, 224]}]}), ()
    bottom, channels = "data", 3
    for stage, count, outputs in _STAGES:
        for index in range(1, count + 1):
            name = f"conv{stage}_{index}"
            yield (
                layer(name=name, type="Convolution", bottom=[bottom], top=[name],
                      convolution_param={"num_output": outputs, "kernel_size": [3], "pad": [1]}),
                ((outputs, channels, 3, 3), (outputs,)),
            )  # fmt: skip
            yield layer(name=f"relu{stage}_{index}", type="ReLU", bottom=[name], top=[name]), ()
            bottom, channels = name, outputs
        pooling = {"pool": "MAX", "kernel_size": 2, "stride": 2}
        yield (
            layer(name=f"pool{stage}", type="Pooling", bottom=[bottom], top=[f"pool{stage}"], pooling_param=pooling),
            (),
        )
        bottom = f"pool{stage}"
    for name, inputs, outputs in _FULLY_CONNECTED:
        yield (
            layer(name=name, type="InnerProduct", bottom=[bottom], top=[name],
                  inner_product_param={"num_output": outputs}),
            ((outputs, inputs), (outputs,)),
        )  # fmt: skip
        if name != "fc8":
            yield layer(name=f"relu{name[2:]}", type="ReLU", bottom=[name], top=[name]), ()
            yield layer(name=f"drop{name[2:]}", type="Dropout", bottom=[name], top=[name]), ()
        bottom = name
    yield layer(name="prob", type="Softmax", bottom=[bottom], top=["prob"]), ()


def _head(number: int, size: int) -> bytes:
    return varint(number << 3 | BYTES) + varint(size)


def _blob_frame(shape: tuple[int, ...]) -> bytes:
    """Everything of a blob but its values: shape, and the tag and length of the packed floats."""
    content = message_class("BlobShape")(dim=shape).SerializeToString()
    return b"".join([_head(_SHAPE, len(content)), content, _head(_DATA, 4 * elements_of(shape))])


def _write_layer(file: BinaryIO, message: Any, shapes: tuple[tuple[int, ...], ...], rng: np.random.Generator) -> None:
    content = message.SerializeToString()
    frames = [_blob_frame(shape) for shape in shapes]
    sizes = [len(frame) + 4 * elements_of(shape) for frame, shape in zip(frames, shapes, strict=True)]
    file.write(_head(_LAYER, len(content) + sum(size + len(_head(_BLOBS, size)) for size in sizes)) + content)
    for frame, size, shape in zip(frames, sizes, shapes, strict=True):
        file.write(_head(_BLOBS, size) + frame)
        count = elements_of(shape)
        scale = np.float32((2 / max(elements_of(shape[1:]), 1)) ** 0.5)
        for start in range(0, count, _PIECE):
            values = rng.standard_normal(min(_PIECE, count - start), np.float32)
            file.write((values * scale).astype("<f4").data)


def main() -> None:
    out, rng, largest = Path(sys.argv[1]), np.random.default_rng(16), 0
    with out.open("wb") as file:
        name = b"VGG_ILSVRC_16_layers"
        file.write(_head(1, len(name)) + name)
        for message, shapes in layers():
            _write_layer(file, message, shapes, rng)
            largest = max([largest, *[4 * elements_of(shape) for shape in shapes]])
    print(json.dumps({"bytes": out.stat().st_size, "largest": largest}))


if __name__ == "__main__":
    main()
