"""Whatever numbers a layer's parameters, inputs and blobs have, it is translated or refused by an error of ours."""

from __future__ import annotations

import contextlib
import tracemalloc
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mobilemodel.errors import MobileModelError
from mobilemodel.layout import elements_of
from mobilemodel_converters.caffe.layers import activation, convolution, inner_product, normalization, pooling
from mobilemodel_converters.caffe.net import Blob, Layer
from mobilemodel_converters.caffe.schema import message_class
from mobilemodel_converters.caffe.translate import blob_dims, translate
from tests.caffe_layers import net_of, restored

SIZES = st.sampled_from([0, 1, 2, 3, 4, 8, 255, 65_536, 2**31 - 1])
WILD_SHAPES = st.lists(st.one_of(st.integers(1, 8), SIZES, st.none()), max_size=6).map(tuple)
SHAPES = st.one_of(st.tuples(*[st.integers(2, 8)] * 4), WILD_SHAPES)
INPUTS = st.one_of(SHAPES.map(lambda shape: [shape]), st.lists(SHAPES, min_size=1, max_size=2))
TOPS = st.sampled_from([("y0",), ("y0",), (), ("y0", "y1")])
BLOB_SHAPES = st.lists(st.one_of(st.integers(1, 8), SIZES), max_size=4).map(tuple)
INTEGERS = [0, 1, 2, 3, 4, 7, 16_384, 2**31 - 1]
SIGNED = [*INTEGERS, -1, -2, -5, -(2**31)]
UNSIGNED = [*INTEGERS, 2**32 - 1]
PARAMETERS = {
    "ConvolutionDepthwise": "convolution_param", "DepthwiseConvolution": "convolution_param",
    "Deconvolution": "convolution_param", "Normalize": "norm_param",
}  # fmt: skip
MOST = 64 * 2**20
"""bytes that a net of one layer may take"""


def fields_of(kind: str) -> list[Any]:
    """The message fields that hold this layer type's parameters, found by name."""
    layer = message_class("LayerParameter").DESCRIPTOR.fields
    wanted = PARAMETERS.get(kind, f"{kind}Param").replace("_", "").lower()
    return [field for field in layer if field.name.replace("_", "").lower() == wanted]


def scalar(field: Any) -> st.SearchStrategy[Any]:
    kinds = {
        field.TYPE_UINT32: st.one_of(st.integers(1, 4), st.sampled_from(UNSIGNED)),
        field.TYPE_INT32: st.one_of(st.integers(-1, 2), st.sampled_from(SIGNED)),
        field.TYPE_FLOAT: st.floats(width=32),
        field.TYPE_BOOL: st.booleans(),
        field.TYPE_STRING: st.sampled_from(["", "bilinear", "constant"]),
    }
    if field.type == field.TYPE_ENUM:
        return st.sampled_from([value.number for value in field.enum_type.values])
    return kinds[field.type]


@st.composite
def message(draw: st.DrawFn, descriptor: Any) -> dict[str, Any]:
    """Some fields of a message, as a dict; not many: most pairs of them exclude each other."""
    values = {}
    for field in draw(st.lists(st.sampled_from(list(descriptor.fields)), max_size=5, unique_by=lambda one: one.name)):
        value = message(field.message_type) if field.type == field.TYPE_MESSAGE else scalar(field)
        values[field.name] = draw(few(value) if field.is_repeated else value)
    return values


def few(value: st.SearchStrategy[Any]) -> st.SearchStrategy[list[Any]]:
    """One value, or any number up to three."""
    return st.one_of(st.lists(value, min_size=1, max_size=1), st.lists(value, max_size=3))


KINDS = sorted({kind for module in (activation, convolution, inner_product, normalization, pooling)
                for kind in module.RULES})  # fmt: skip


@pytest.mark.parametrize("kind", KINDS)
@given(data=st.data())
def test_no_numbers_make_more_than_an_error_of_ours(kind: str, data: st.DataObject) -> None:
    """A layer with blobs of any shape; then, where it says what it asks for, with just these: the graph is valid."""
    shapes = data.draw(INPUTS)
    blobs = tuple(zeros(shape) for shape in data.draw(st.lists(BLOB_SHAPES, max_size=3)))
    parameters = {field.name: data.draw(message(field.message_type)) for field in fields_of(kind)}
    bottoms = tuple(f"x{i}" for i in range(len(shapes)))
    layer = Layer(
        "layer", kind, bottoms, data.draw(TOPS), message_class("LayerParameter")(type=kind, **parameters), blobs
    )
    inputs = dict(zip(bottoms, shapes, strict=True))
    with bounded_memory(), contextlib.suppress(MobileModelError):
        translate(net_of(layer, inputs=inputs), sources=())
    with bounded_memory(), contextlib.suppress(MobileModelError):
        asked = blob_dims(net_of(layer, inputs=inputs))[0]
        fitting = tuple(zeros(asked[index]) for index in sorted(asked))
        model = translate(net_of(replace(layer, blobs=fitting), inputs=inputs), sources=())
        if sum(tensor.raw_bytes for tensor in model.tensors) < MOST // 8:
            restored(model)


def zeros(shape: tuple[int, ...]) -> Blob:
    return Blob(shape, lambda: np.zeros(elements_of(shape), np.float32))


@contextlib.contextmanager
def bounded_memory() -> Any:
    """No number of the file decides how much is allocated."""
    tracemalloc.start()
    try:
        yield
        assert tracemalloc.get_traced_memory()[1] < MOST
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("kind", ["Convolution", "Pooling", "InnerProduct", "LRN", "BatchNorm", "Scale", "Bias", "MVN",
                                  "Normalize", "PReLU", "Clip", "Power", "Deconvolution"])  # fmt: skip
def test_the_parameters_of_these_types_are_drawn(kind: str) -> None:
    """Without them the test above would try nothing."""
    assert len(fields_of(kind)) == 1
    assert np.prod([len(field.message_type.fields) for field in fields_of(kind)]) >= 2
