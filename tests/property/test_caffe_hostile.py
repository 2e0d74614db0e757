"""Parameters that no Caffe ever wrote: each is refused, or gives a valid graph, within bounded memory."""

from __future__ import annotations

import tracemalloc
from functools import partial
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mobilemodel.errors import MobileModelError
from mobilemodel_converters.caffe.layers import RULES
from mobilemodel_converters.caffe.net import Blob, Float32, Input, Net, Shape
from mobilemodel_converters.caffe.schema import message_class
from mobilemodel_converters.caffe.translate import translate
from tests.caffe_layers import make_layer, restored

PARAMETERS = {
    "ArgMax": "argmax_param", "BatchNorm": "batch_norm_param", "Bias": "bias_param", "Clip": "clip_param",
    "Concat": "concat_param", "Convolution": "convolution_param", "ConvolutionDepthwise": "convolution_param",
    "Crop": "crop_param", "Deconvolution": "convolution_param", "DepthwiseConvolution": "convolution_param",
    "DetectionOutput": "detection_output_param", "ELU": "elu_param", "Eltwise": "eltwise_param",
    "Embed": "embed_param", "Exp": "exp_param", "Flatten": "flatten_param", "InnerProduct": "inner_product_param",
    "Interp": "interp_param", "LRN": "lrn_param", "Log": "log_param", "MVN": "mvn_param", "Normalize": "norm_param",
    "PReLU": "prelu_param", "Parameter": "parameter_param", "Permute": "permute_param", "Pooling": "pooling_param",
    "Power": "power_param", "PriorBox": "prior_box_param", "ReLU": "relu_param", "Reduction": "reduction_param",
    "Reshape": "reshape_param", "SPP": "spp_param", "Scale": "scale_param",
    "ShuffleChannel": "shuffle_channel_param", "Slice": "slice_param", "Softmax": "softmax_param",
    "Swish": "swish_param", "Threshold": "threshold_param", "Tile": "tile_param",
}  # fmt: skip
PLAIN = {"AbsVal", "BN", "BNLL", "Dropout", "ReLU6", "Sigmoid", "Silence", "Split", "TanH"}
"""layers without parameters"""
SMALL = [0, 1, 2, 3, 4]
MOST_BYTES = 64 * 2**20
INTEGERS = {
    "uint32": [*SMALL, 2**31 - 1, 2**31, 2**32 - 1],
    "int32": [*SMALL, -1, -2, -5, 2**31 - 1, -(2**31)],
    "int64": [*SMALL, -1, -2, 2**31, 2**62, 2**63 - 1, -(2**63)],
}
FLOATS = [0.0, -0.0, 1.0, 0.5, 30.0, -1.0, 1e-45, 3e38, float("nan"), float("inf"), float("-inf")]
KINDS = {2: "float", 3: "int64", 5: "int32", 8: "bool", 9: "string", 11: "message", 13: "uint32", 14: "enum"}


@st.composite
def messages(draw: st.DrawFn, kind: Any) -> dict[str, Any]:
    """Values for some of the fields of a message, by its descriptor."""
    chosen: dict[str, Any] = {}
    for field in kind.fields:
        if not draw(st.booleans()):
            continue
        what = KINDS[field.type]
        if what == "message":
            values: st.SearchStrategy[Any] = messages(field.message_type)
        elif what == "enum":
            values = st.sampled_from([value.number for value in field.enum_type.values])
        elif what == "bool":
            values = st.booleans()
        elif what == "string":
            values = st.sampled_from(["", "constant", "bilinear", "\0"])
        elif what == "float":
            values = st.sampled_from(FLOATS)
        else:
            values = st.sampled_from(INTEGERS[what])
        chosen[field.name] = draw(st.lists(values, max_size=5) if field.is_repeated else values)
    return chosen


SIZES = st.sampled_from([1, 2, 3, 4, 8, 12, None, 2**16, 2**31 - 1])
SHAPES = st.lists(SIZES, max_size=5).map(tuple)


def zeros(count: int) -> Float32:
    """A blob's values."""
    return np.zeros(count, np.float32)


@st.composite
def nets(draw: st.DrawFn, kind: str) -> Net:
    """One layer of hostile parameters, between inputs of hostile shapes and any number of tops."""
    parameters = {}
    if kind not in PLAIN:
        field = message_class("LayerParameter").DESCRIPTOR.fields_by_name[PARAMETERS[kind]]
        parameters = {field.name: draw(messages(field.message_type))}
    shapes: list[Shape] = draw(st.lists(SHAPES, max_size=3))
    alike = draw(st.sampled_from([True, False]))
    if shapes and alike:
        shapes = [shapes[0]] * len(shapes)
    counts = draw(st.lists(st.sampled_from([0, 1, 4, 12, 2**40]), max_size=2))
    blobs = [Blob((count,), partial(zeros, count)) for count in counts]
    layer = make_layer(kind, blobs, bottoms=len(shapes), tops=draw(st.integers(0, 4)), **parameters)
    inputs = tuple(Input(f"x{index}", shape) for index, shape in enumerate(shapes))
    return Net("hostile", inputs, (layer,), layer.tops)


@pytest.mark.parametrize("kind", sorted(RULES))
@given(st.data())
def test_hostile_parameters_raise_our_errors_or_none(kind: str, data: st.DataObject) -> None:
    net = data.draw(nets(kind))
    tracemalloc.start()
    try:
        model = translate(net, sources=())
    except MobileModelError as error:
        text = str(error)
    else:
        text = "output"
        restored(model)  # ONNX's checker infers all types and shapes
    finally:
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
    assert any(place in text for place in ("layer", "input", "output", "graph"))
    assert peak < MOST_BYTES
