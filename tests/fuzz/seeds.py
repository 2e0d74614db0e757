"""Small whole sources of every format: what mutations start from."""

from __future__ import annotations

import struct
import zlib
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
from google.protobuf import text_format

from mobilemodel.model import NO_OPTIONS
from mobilemodel_converters.caffe.importer import read_topology
from mobilemodel_converters.caffe.schema import message_class
from mobilemodel_converters.caffe.translate import blob_dims
from mobilemodel_converters.ccv.schema import LayerType
from tests import ccv_databases, deep_compression_files, qcnn_files
from tests.convnets import convnet
from tests.fuzz.mutations import Files
from tests.models import Net as OnnxNet
from tests.models import value

CLASSIFIER = """
name: "classifier"
layer { name: "data" type: "Input" top: "data" input_param { shape { dim: 1 dim: 3 dim: 12 dim: 12 } } }
layer { name: "c1" type: "Convolution" bottom: "data" top: "c1"
  convolution_param { num_output: 6 kernel_size: 3 pad: 1 stride: 2 group: 3 } }
layer { name: "bn1" type: "BatchNorm" bottom: "c1" top: "c1" }
layer { name: "s1" type: "Scale" bottom: "c1" top: "c1" scale_param { bias_term: true } }
layer { name: "r1" type: "ReLU" bottom: "c1" top: "c1" relu_param { negative_slope: 0.1 } }
layer { name: "n1" type: "LRN" bottom: "c1" top: "n1" lrn_param { local_size: 3 norm_region: WITHIN_CHANNEL } }
layer { name: "p1" type: "Pooling" bottom: "n1" top: "p1" pooling_param { pool: AVE kernel_size: 3 stride: 2 pad: 1 } }
layer { name: "pr" type: "PReLU" bottom: "p1" top: "p1" }
layer { name: "f2" type: "InnerProduct" bottom: "p1" top: "f2" inner_product_param { num_output: 7 } }
layer { name: "drop" type: "Dropout" bottom: "f2" top: "f2" }
layer { name: "f3" type: "InnerProduct" bottom: "f2" top: "f3" inner_product_param { num_output: 4 transpose: true } }
layer { name: "prob" type: "Softmax" bottom: "f3" top: "prob" }
"""
MOVER = """
name: "mover"
input: "data" input_shape { dim: 2 dim: 4 dim: 6 dim: 6 } input: "y" input_shape { dim: 2 dim: 4 dim: 6 dim: 6 }
layer { name: "x" type: "Scale" bottom: "data" top: "x" }
layer { name: "sum" type: "Eltwise" bottom: "x" bottom: "y" top: "sum" eltwise_param { coeff: 2 coeff: -1 } }
layer { name: "sl" type: "Slice" bottom: "sum" top: "a" top: "b" slice_param { slice_point: 1 } }
layer { name: "up" type: "Deconvolution" bottom: "b" top: "up" convolution_param {
  num_output: 3 group: 3 kernel_size: 4 stride: 2 pad: 1 bias_term: false weight_filler { type: "bilinear" } } }
layer { name: "cut" type: "Crop" bottom: "up" bottom: "x" top: "cut" crop_param { axis: 2 offset: 1 } }
layer { name: "cat" type: "Concat" bottom: "a" bottom: "cut" top: "cat" }
layer { name: "perm" type: "Permute" bottom: "cat" top: "perm" permute_param { order: 0 order: 2 order: 3 order: 1 } }
layer { name: "shape" type: "Reshape" bottom: "perm" top: "shape" reshape_param { shape { dim: 0 dim: -1 dim: 4 } } }
layer { name: "flat" type: "Flatten" bottom: "shape" top: "flat" }
layer { name: "pow" type: "Power" bottom: "flat" top: "pow" power_param { power: 2 scale: 0.5 shift: 1 } }
layer { name: "red" type: "Reduction" bottom: "cat" top: "red" reduction_param { axis: 1 operation: ASUM } }
layer { name: "arg" type: "ArgMax" bottom: "cat" top: "arg" argmax_param { axis: 1 top_k: 2 } }
layer { name: "tile" type: "Tile" bottom: "cat" top: "tile" tile_param { tiles: 2 } }
layer { name: "shuffle" type: "ShuffleChannel" bottom: "tile" top: "shuffle" shuffle_channel_param { group: 2 } }
layer { name: "interp" type: "Interp" bottom: "shuffle" top: "interp" interp_param { height: 9 width: 7 } }
layer { name: "spp" type: "SPP" bottom: "interp" top: "spp" spp_param { pyramid_height: 2 } }
layer { name: "mvn" type: "MVN" bottom: "interp" top: "mvn" }
layer { name: "embed" type: "Bias" bottom: "mvn" top: "out" bias_param { axis: 2 num_axes: 1 } }
"""
DETECTOR = """
name: "detector"
input: "x" input_shape { dim: 1 dim: 3 dim: 8 dim: 8 }
layer { name: "c" type: "Convolution" bottom: "x" top: "c" convolution_param { num_output: 4 kernel_size: 3 pad: 1 } }
layer { name: "norm" type: "Normalize" bottom: "c" top: "norm" norm_param { channel_shared: false } }
layer { name: "loc" type: "Convolution" bottom: "norm" top: "loc" convolution_param { num_output: 8 kernel_size: 1 } }
layer { name: "conf" type: "Convolution" bottom: "norm" top: "conf" convolution_param { num_output: 6 kernel_size: 1 } }
layer { name: "locp" type: "Permute" bottom: "loc" top: "locp" permute_param { order: 0 order: 2 order: 3 order: 1 } }
layer { name: "locf" type: "Flatten" bottom: "locp" top: "locf" }
layer { name: "confp" type: "Permute" bottom: "conf" top: "confp" permute_param { order: [0, 2, 3, 1] } }
layer { name: "confr" type: "Reshape" bottom: "confp" top: "confr" reshape_param { shape { dim: 0 dim: -1 dim: 3 } } }
layer { name: "soft" type: "Softmax" bottom: "confr" top: "soft" softmax_param { axis: 2 } }
layer { name: "conff" type: "Flatten" bottom: "soft" top: "conff" }
layer { name: "priors" type: "PriorBox" bottom: "c" bottom: "x" top: "priors" prior_box_param {
  min_size: 3 max_size: 5 variance: [0.1, 0.1, 0.2, 0.2] } }
layer { name: "out" type: "DetectionOutput" bottom: "locf" bottom: "conff" bottom: "priors" top: "out"
  detection_output_param { num_classes: 3 code_type: CENTER_SIZE nms_param { nms_threshold: 0.4 top_k: 20 }
    keep_top_k: 9 confidence_threshold: 0.1 } }
"""
TRAINING = """
name: "training"
layers { name: "mnist" type: DATA top: "data" top: "label" data_param { batch_size: 2 }
  transform_param { scale: 0.004 mean_value: 104 mean_value: 117 mean_value: 123 crop_size: 8
    mean_file: "a/mean.binaryproto" }
  include { phase: TRAIN } }
layers { name: "conv" type: CONVOLUTION bottom: "data" top: "conv" param: "w" param: "b"
  convolution_param { num_output: 4 kernel_h: 3 kernel_w: 1 } }
layers { name: "split" type: SPLIT bottom: "conv" top: "conv_0" top: "conv_1" }
layers { name: "ip" type: INNER_PRODUCT bottom: "conv_0" top: "ip" inner_product_param { num_output: 3 } }
layers { name: "ip2" type: INNER_PRODUCT bottom: "conv_1" top: "ip2" inner_product_param { num_output: 3 } }
layers { name: "add" type: ELTWISE bottom: "ip" bottom: "ip2" top: "add" }
layers { name: "accuracy" type: ACCURACY bottom: "add" bottom: "label" top: "accuracy" include { phase: TEST } }
layers { name: "loss" type: SOFTMAX_LOSS bottom: "add" bottom: "label" top: "loss" }
"""


def caffemodels() -> list[Files]:
    """Networks with their values, in files of their own."""
    return [{"net.caffemodel": _filled(text).SerializeToString()} for text in (CLASSIFIER, MOVER, DETECTOR, TRAINING)]


def caffe_pairs() -> list[Files]:
    """Prototxts beside files of weights."""
    return [
        {"net.prototxt": text.encode(), "net.caffemodel": _filled(text).SerializeToString()}
        for text in (CLASSIFIER, DETECTOR)
    ]


def caffe_texts() -> list[Files]:
    """A network with its values in text."""
    return [{"net.prototxt": text_format.MessageToString(_filled(text)).encode()} for text in (CLASSIFIER, TRAINING)]


def means() -> list[Files]:
    """Mean pictures with old and new shapes, in single and double precision."""
    blob = message_class("BlobProto")
    return [
        {"mean.binaryproto": message.SerializeToString()}
        for message in (
            blob(num=1, channels=3, height=4, width=5, data=range(60)),
            blob(shape={"dim": [3, 2, 2]}, double_data=range(12)),
        )
    ]


def _filled(text: str) -> Any:
    """The NetParameter of a prototxt, its layers with the values that they ask for."""
    message = text_format.Parse(text, message_class("NetParameter")())
    random = np.random.default_rng(len(text))
    with TemporaryDirectory() as folder:
        path = Path(folder, "net.prototxt")
        path.write_text(text)
        net = read_topology(path, NO_OPTIONS)
    asked = {layer.name: dims for layer, dims in zip(net.layers, blob_dims(net), strict=True)}
    for layer in (*message.layer, *message.layers):
        for _, dims in sorted(asked.get(layer.name, {}).items()):
            values = random.standard_normal(dims, np.float32)
            layer.blobs.add(data=values.reshape(-1).tolist()).shape.dim.extend(dims)
    return message


def convnets() -> list[Files]:
    """ccv's convnets: of the first generation, with all kinds of layers, with partitions and half precision."""
    old = ccv_databases.Convnet((8, 8, 3)).conv(4).pool(LayerType.MAX_POOL).full(5, relu=True).full(3)
    whole = ccv_databases.Convnet((9, 9, 3)).conv(4, strides=2).norm(3, partition=2).conv(6, partition=2)
    whole.pool(LayerType.AVERAGE_POOL, 3, 1, 1).full(6, relu=True).full(4)
    mean = np.arange(11 * 11 * 3, dtype="<f4").tobytes()
    return [
        {"net.sqlite3": _database(old, generation=ccv_databases.GENERATIONS[0])},
        {"net.sqlite3": _database(whole, half=(0, 5), picture=(11, 11), mean=mean)},
    ]


def pictures() -> list[Files]:
    """Klaus's layout: two full connects whose codes lie in pictures, of 4 and of 8 bits."""
    net = ccv_databases.Convnet((5, 5, 2)).conv(3).full(8, relu=True).full(6)
    net.rows[1].weight = net.rows[2].weight = None
    random = np.random.default_rng(3)
    codebooks = {1: random.standard_normal(16), 2: random.standard_normal(200)}
    png = ccv_databases.grey_png
    return [{
        "net.sqlite3": _database(net, codebooks=codebooks),
        "layer-1-4bit.png": png(random.integers(0, 16, (8, 75)), 4, filters=(0, 1, 2, 3, 4), pieces=2, ancillary=True),
        "layer-2.png": png(random.integers(0, 200, (6, 8)), colour=3),
    }]  # fmt: skip


def stores() -> list[Files]:
    """A tensor store beside the ONNX model that has its graph: raw, zip, and palettes in both ways."""
    net = OnnxNet(1)
    net.gemm("a", "x", 8, 6, "a")
    net.gemm("b", "a", 4, 8, "b")
    net.node("Relu", "b", name="y")
    made = net.done(value("x", ["N", 6])).SerializeToString()
    random = np.random.default_rng(5)
    book = random.standard_normal(16).astype("<f2").tobytes()
    blocks = struct.pack("<I", 4) + random.standard_normal(16).astype("<f4").tobytes() + b"\x12\x34"
    rows = {
        "a.weight": (0, 0x4000, 0, (8, 6), random.standard_normal(48).astype("<f4").tobytes()),
        "a.bias": (0x217, 0x20000, 0, (8,), zlib.compress(random.standard_normal(8).astype("<f2").tobytes())),
        "__model__[b.weight]": (0, 0x40420, 16, (4, 8), (book + bytes(range(8))) * 2),
        "b.bias": (0x8A1E4B, 0x4000, 0, (4,), blocks),
    }
    with TemporaryDirectory() as folder:
        store = ccv_databases.write_store(Path(folder, "store.sqlite3"), rows).read_bytes()
    return [{"model.onnx": made, "store.sqlite3": store}]


def _database(net: ccv_databases.Convnet, **facts: Any) -> bytes:
    with TemporaryDirectory() as folder:
        return net.write(Path(folder, "net.sqlite3"), **facts).read_bytes()


def folders() -> list[Files]:
    """Q-CNN's files, of the small network of the tests."""
    return [qcnn_files.small_files()]


def nets() -> list[Files]:
    """Deep Compression's files."""
    layers = list(deep_compression_files.small_layers().values())
    content = deep_compression_files.net_bytes(layers)
    return [{"net.net": content, "net.prototxt": deep_compression_files.PROTOTXT.encode()}]


def onnx_models() -> list[Files]:
    """An ONNX model of convolutions and FC layers."""
    return [{"model.onnx": convnet().SerializeToString()}]


REAL = {
    "caffe": (("mtcnn/det1.prototxt", "mtcnn/det1.caffemodel"),),
    "caffe-mean": (("caffe/mean.binaryproto",),),
    "ccv": (("ccv/f32.sqlite3",), ("ccv/f16.sqlite3",), ("ccv/face-cascade.sqlite3",)),
    "deep-compression": (("squeezenet-dc/SqueezeNet_deploy.prototxt", "squeezenet-dc/compressed_SqueezeNet.net"),),
}
"""target -> sources among the real models, none above 1 MB"""


def real_sources(zoo: Path, target: str) -> list[Files]:
    """The real sources of a target."""
    return [{Path(name).name: Path(zoo, name).read_bytes() for name in names} for names in REAL[target]]
