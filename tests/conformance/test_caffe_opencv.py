"""OpenCV's own Caffe importer against ours: real topologies with random weights, and small nets of single layers."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType

import cv2
import numpy as np
import numpy.typing as npt
import onnxruntime
import pytest

from mobilemodel.layout import elements_of
from mobilemodel.model import NO_OPTIONS
from mobilemodel.wire import BYTES, varint
from mobilemodel_converters.caffe import CaffeConverter
from mobilemodel_converters.caffe.importer import read_topology
from mobilemodel_converters.caffe.net import Layer
from mobilemodel_converters.caffe.schema import message_class
from mobilemodel_converters.caffe.translate import blob_dims
from mobilemodel_converters.onnx.build import restore

Array = npt.NDArray[np.float32]
TOLERANCE = 1e-4
_V1, _V1_BLOBS, _V2, _V2_BLOBS, _SHAPE, _DATA = 2, 6, 100, 7, 7, 5


def learned(layer: Layer, dims: Sequence[tuple[int, ...]], generator: np.random.Generator) -> Iterator[Array]:
    """Random values of a layer's blobs that keep what runs through the net at its scale."""
    if layer.type == "BatchNorm":
        channels, factor = dims[0][0], 2.5  # the statistics are stored as sums of so many
        for statistic in (generator.normal(0, 0.3, channels), generator.uniform(0.5, 2, channels), np.ones(1)):
            yield (statistic * factor).astype(np.float32)
        return
    for index, shape in enumerate(dims):
        values: Array = generator.standard_normal(shape, dtype=np.float32)
        if layer.type in ("Scale", "PReLU", "Normalize"):
            shift = 0.3 if index or layer.type == "PReLU" else 0.8
            yield values.reshape(-1) * np.float32(0.1) + np.float32(shift)
        else:
            yield values * np.float32(0.1 if len(shape) == 1 else (2 / elements_of(shape[1:])) ** 0.5)


def piece(number: int, size: int) -> bytes:
    """What stands before ``size`` bytes of a field."""
    return varint(number << 3 | BYTES) + varint(size)


def write_weights(
    path: Path, prototxt: Path, *, old: bool = False, seed: int = 1, gains: Mapping[str, float] = MappingProxyType({})
) -> None:
    """A caffemodel with random weights for all layers of a prototxt, as V2 or as V1 with legacy shapes.

    ``gains`` multiply the weights of the layers that they name.

    The values go to the file as they are: 61 million in a message would take their size several times over.
    """
    net = read_topology(prototxt, NO_OPTIONS)
    generator = np.random.default_rng(seed)
    with path.open("wb") as file:
        for layer, asked in zip(net.layers, blob_dims(net), strict=True):
            if not asked:
                continue
            gain = np.float32(gains.get(layer.name, 1))
            blobs = [gain * blob for blob in learned(layer, [asked[index] for index in sorted(asked)], generator)]
            parts = [(blob_head(blob, old), blob) for blob in blobs]
            if old:
                head = message_class("V1LayerParameter")(name=layer.name).SerializeToString()
            else:
                head = message_class("LayerParameter")(name=layer.name, type=layer.type).SerializeToString()
            starts = [piece(_V1_BLOBS if old else _V2_BLOBS, len(before) + blob.nbytes) for before, blob in parts]
            size = len(head) + sum(len(start) + len(before) + blob.nbytes
                                   for start, (before, blob) in zip(starts, parts, strict=True))  # fmt: skip
            file.write(piece(_V1 if old else _V2, size) + head)
            for start, (before, blob) in zip(starts, parts, strict=True):
                file.write(start + before)
                file.write(np.ascontiguousarray(blob).data)


def blob_head(values: Array, old: bool) -> bytes:
    """A BlobProto up to its values; files of old have four axes, right-aligned."""
    if old:
        num, channels, height, width = (1,) * (4 - values.ndim) + values.shape
        shape = message_class("BlobProto")(num=num, channels=channels, height=height, width=width)
    else:
        shape = message_class("BlobProto")(shape={"dim": values.shape})
    return bytes(shape.SerializeToString()) + piece(_DATA, values.nbytes)


def ours(prototxt: Path, weights: Path, wanted: Sequence[str], inputs: dict[str, Array]) -> list[Array]:
    """The blobs ``wanted`` as our converter's graph computes them, be they outputs of the net or not."""
    model = CaffeConverter().load([prototxt, weights])
    values = {tensor.name: tensor.read for tensor in model.tensors}
    graph = restore(model.build_graph(frozenset()), lambda name: values[name]())
    model.close()
    known = {value.name for value in graph.graph.output}
    for name in wanted:
        if name not in known:
            graph.graph.output.add(name=name)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(graph.SerializeToString(), options)
    return [np.asarray(value) for value in session.run(list(wanted), inputs)]


def theirs(prototxt: Path, weights: Path, wanted: Sequence[str], inputs: dict[str, Array]) -> list[Array]:
    """The blobs of the layers ``wanted`` by OpenCV; none named: the net's outputs."""
    net = cv2.dnn.readNetFromCaffe(str(prototxt), str(weights))
    net.setPreferableBackend(cv2.dnn.DNN_BACKEND_OPENCV)
    # Winograd's transforms round more coarsely than the tolerance.
    net.enableWinograd(False)
    for name, values in inputs.items():
        net.setInput(values, name)
    return [np.asarray(value) for value in net.forward(list(wanted or net.getUnconnectedOutLayersNames()))]


def assert_agree(found: Array, expected: Array) -> None:
    """Within 1e-4, for values of about 1; OpenCV may keep sizes of 1 that we do not have."""
    assert found.size == expected.size, (found.shape, expected.shape)
    np.testing.assert_allclose(found.reshape(-1), expected.reshape(-1), rtol=0, atol=TOLERANCE)
    assert found.std() > 1e-3


@pytest.mark.parametrize(
    ("name", "last", "gain", "size"),
    [
        ("bvlc_alexnet", "fc8", 0.025, 227),
        ("bvlc_googlenet", "loss3/classifier", 0.02, 224),
        ("age_net_v1", "fc8", 0.03, 227),
        ("mobilenet_v2", "fc7", 0.4, 224),
    ],
)
def test_real_topologies_with_random_weights(
    zoo: Path, tmp_path: Path, name: str, last: str, gain: float, size: int
) -> None:
    """The softmax of a thousand classes hides differences: what goes into it is compared too, for a batch of two."""
    prototxt, weights = zoo / "caffe" / f"{name}_deploy.prototxt", tmp_path / "random.caffemodel"
    write_weights(weights, prototxt, old=name.endswith("v1"), gains={last: gain})
    x = np.random.default_rng(2).normal(0, 20, (2, 3, size, size)).astype(np.float32)
    wanted = [last, "prob"]
    for found, expected in zip(ours(prototxt, weights, wanted, {"data": x}),
                               theirs(prototxt, weights, wanted, {"data": x}), strict=True):  # fmt: skip
        assert found.shape[:2] == expected.shape[:2]
        assert_agree(found, expected)


# Some layers of the nets below have no weights of their own, and a model without any is none.
HEAD = """
    name: "small" input: "data" input_shape { dim: 2 dim: 3 dim: 9 dim: 11 }
    layer { name: "first" type: "Convolution" bottom: "data" top: "x"
            convolution_param { num_output: 6 kernel_size: 1 } }"""
SMALL: dict[str, tuple[str, ...]] = {
    "deconvolution": (
        'name: "d" type: "Deconvolution" convolution_param { num_output: 6 kernel_size: 4 stride: 2 pad: 1 }',
        'name: "e" type: "Deconvolution" convolution_param { num_output: 4 kernel_size: 3 stride: 3 group: 2 }',
    ),
    "grouped and dilated": (
        'name: "d" type: "Convolution" convolution_param { num_output: 8 kernel_size: 3 pad: 2 dilation: 2 group: 2 }',
        'name: "e" type: "Convolution" convolution_param { num_output: 5 kernel_h: 1 kernel_w: 3 stride: 2 }',
    ),
    "permute": (
        'name: "p" type: "Permute" permute_param { order: 0 order: 2 order: 3 order: 1 }',
        'name: "f" type: "Flatten"',
    ),
    "normalize per pixel": ('name: "n" type: "Normalize" norm_param { across_spatial: false channel_shared: false }',),
    "normalize all": ('name: "n" type: "Normalize" norm_param { across_spatial: true channel_shared: true }',),
    "prelu": (
        'name: "p" type: "PReLU"',
        'name: "q" type: "PReLU" prelu_param { channel_shared: true }',
    ),
    "power": ('name: "p" type: "Power" power_param { power: 2 scale: 0.5 shift: 3 }',),
    "activations": (
        'name: "a" type: "ELU" elu_param { alpha: 0.7 }',
        'name: "b" type: "ReLU" relu_param { negative_slope: 0.1 }',
        'name: "c" type: "AbsVal"',
        'name: "d" type: "BNLL"',
        'name: "e" type: "TanH"',
        'name: "f" type: "Sigmoid"',
    ),
    "ceil pooling": (
        'name: "p" type: "Pooling" pooling_param { pool: MAX kernel_size: 3 stride: 2 }',
        'name: "q" type: "Pooling" pooling_param { pool: AVE kernel_size: 2 stride: 2 pad: 1 }',
    ),
    "lrn": (
        'name: "a" type: "LRN" lrn_param { local_size: 3 alpha: 2 beta: 0.6 }',  # OpenCV does not read k
        'name: "w" type: "LRN" lrn_param { local_size: 3 alpha: 0.5 norm_region: WITHIN_CHANNEL }',
    ),
    "batch norm and scale": (
        'name: "b" type: "BatchNorm" batch_norm_param { eps: 0.01 }',
        'name: "s" type: "Scale" scale_param { bias_term: true }',
    ),
    "reshape and softmax": (
        'name: "r" type: "Reshape" reshape_param { shape { dim: 0 dim: 3 dim: -1 } }',
        'name: "s" type: "Softmax" softmax_param { axis: 2 }',
    ),
    # OpenCV adds eps under the root, Caffe behind it: only a small one is comparable.
    "mvn": ('name: "m" type: "MVN"',),
    "mvn over channels": ('name: "m" type: "MVN" mvn_param { across_channels: true normalize_variance: false }',),
    "inner product": ('name: "i" type: "InnerProduct" inner_product_param { num_output: 7 }',),
}


def chain(layers: Sequence[str]) -> str:
    """A net of layers one behind the other; the last one's top is ``y``."""
    text = HEAD
    for index, layer in enumerate(layers):
        bottom, top = (f"v{index}" if index else "x"), (f"v{index + 1}" if index + 1 < len(layers) else "y")
        text += f'\nlayer {{ {layer} bottom: "{bottom}" top: "{top}" }}'
    return text


BRANCHES = {
    "eltwise with coefficients": """
        layer { name: "a" type: "Power" bottom: "x" top: "a" power_param { scale: 0.5 shift: 1 } }
        layer { name: "b" type: "TanH" bottom: "x" top: "b" }
        layer { name: "y" type: "Eltwise" bottom: "a" bottom: "b" bottom: "x" top: "y"
                eltwise_param { coeff: 1 coeff: -1 coeff: 0.25 } }""",
    "eltwise product and maximum": """
        layer { name: "a" type: "Power" bottom: "x" top: "a" power_param { scale: 0.5 shift: 1 } }
        layer { name: "p" type: "Eltwise" bottom: "a" bottom: "x" top: "p" eltwise_param { operation: PROD } }
        layer { name: "y" type: "Eltwise" bottom: "p" bottom: "a" top: "y" eltwise_param { operation: MAX } }""",
    "slice and concat": """
        layer { name: "s" type: "Slice" bottom: "x" top: "a" top: "b" top: "c"
                slice_param { slice_point: 1 slice_point: 4 } }
        layer { name: "n" type: "Power" bottom: "b" top: "n" power_param { scale: -1 } }
        layer { name: "y" type: "Concat" bottom: "c" bottom: "n" bottom: "a" top: "y" }""",
    "equal slices over the height": """
        layer { name: "s" type: "Slice" bottom: "x" top: "a" top: "b" top: "c" slice_param { axis: 2 } }
        layer { name: "y" type: "Concat" bottom: "b" bottom: "c" bottom: "a" top: "y" concat_param { axis: 3 } }""",
    "crop": """
        layer { name: "d" type: "Pooling" bottom: "x" top: "d" pooling_param { kernel_size: 3 stride: 2 } }
        layer { name: "y" type: "Crop" bottom: "x" bottom: "d" top: "y" crop_param { axis: 2 offset: 1 offset: 3 } }""",
    "in place": """
        layer { name: "a" type: "Power" bottom: "x" top: "a" power_param { shift: -0.5 } }
        layer { name: "b" type: "ReLU" bottom: "a" top: "a" }
        layer { name: "c" type: "Split" bottom: "a" top: "s" top: "t" }
        layer { name: "y" type: "Eltwise" bottom: "s" bottom: "t" top: "y" }""",
    "scale by a second bottom": """
        layer { name: "g" type: "Pooling" bottom: "x" top: "g" pooling_param { pool: AVE global_pooling: true } }
        layer { name: "f" type: "Flatten" bottom: "g" top: "f" }
        layer { name: "y" type: "Scale" bottom: "x" bottom: "f" top: "y" scale_param { axis: 0 } }""",
}


def compare(text: str, tmp_path: Path) -> None:
    """Both importers on one prototxt with random weights; the output is ``y``."""
    prototxt, weights = tmp_path / "net.prototxt", tmp_path / "net.caffemodel"
    prototxt.write_text(text)
    write_weights(weights, prototxt)
    inputs = {"data": np.random.default_rng(3).standard_normal((2, 3, 9, 11)).astype(np.float32)}
    (found,), (expected,) = ours(prototxt, weights, ["y"], inputs), theirs(prototxt, weights, (), inputs)
    assert_agree(found, expected)


@pytest.mark.parametrize("name", SMALL)
def test_chains_of_layers(name: str, tmp_path: Path) -> None:
    compare(chain(SMALL[name]), tmp_path)


@pytest.mark.parametrize("name", BRANCHES)
def test_branches(name: str, tmp_path: Path) -> None:
    compare(HEAD + BRANCHES[name], tmp_path)
