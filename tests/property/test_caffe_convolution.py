"""Caffe's Convolution, Deconvolution and InnerProduct: ONNX Runtime against loops written from Caffe's formulas."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mobilemodel.errors import LimitExceededError, MalformedSourceError, UnsupportedSourceError
from mobilemodel.model import MatrixOrder, Role
from mobilemodel_converters.caffe.layers.convolution import bilinear
from tests.caffe_layers import (
    Array,
    assert_close,
    legacy,
    make_layer,
    roles_of,
    run_layer,
    tensor_of,
    translate_layer,
)

MISTAKES = (MalformedSourceError, UnsupportedSourceError, LimitExceededError)


@dataclass(frozen=True)
class Case:
    """Sizes of one convolution; pairs are (y, x)."""

    batch: int
    group: int
    inputs: int
    outputs: int
    size: tuple[int, int]
    kernel: tuple[int, int]
    stride: tuple[int, int]
    pad: tuple[int, int]
    dilation: tuple[int, int]
    seed: int

    def x(self) -> Array:
        return self.random().normal(size=(self.batch, self.group * self.inputs, *self.size)).astype(np.float32)

    def random(self) -> np.random.Generator:
        return np.random.default_rng(self.seed)

    def parameters(self) -> dict[str, Any]:
        return {
            "num_output": self.group * self.outputs, "group": self.group, "kernel_size": self.kernel,
            "stride": self.stride, "pad": self.pad, "dilation": self.dilation,
        }  # fmt: skip


def pairs(least: int, most: int) -> st.SearchStrategy[tuple[int, int]]:
    return st.tuples(st.integers(least, most), st.integers(least, most))


CASES = st.builds(
    Case, batch=st.integers(1, 2), group=st.integers(1, 3), inputs=st.integers(1, 2), outputs=st.integers(1, 2),
    size=pairs(1, 7), kernel=pairs(1, 4), stride=pairs(1, 3), pad=pairs(0, 3), dilation=pairs(1, 2),
    seed=st.integers(0, 99),
)  # fmt: skip


def convolve(x: Array, w: Array, case: Case) -> Array:
    """Out = floor((in + 2p - d(k-1) - 1)/s) + 1; each output is a sum over its group's channels and the window."""
    (kh, kw), (sh, sw), (ph, pw), (dh, dw) = case.kernel, case.stride, case.pad, case.dilation
    height = (case.size[0] + 2 * ph - dh * (kh - 1) - 1) // sh + 1
    width = (case.size[1] + 2 * pw - dw * (kw - 1) - 1) // sw + 1
    padded = np.pad(x.astype(np.float64), ((0, 0), (0, 0), (ph, ph), (pw, pw)))
    y = np.zeros((len(x), len(w), height, width))
    for o in range(len(w)):
        first = o // case.outputs * case.inputs
        for i, a, b in np.ndindex(case.inputs, kh, kw):
            seen = padded[:, first + i, a * dh :, b * dw :]
            y[:, o] += w[o, i, a, b] * seen[:, : (height - 1) * sh + 1 : sh, : (width - 1) * sw + 1 : sw]
    return y


def scatter(x: Array, w: Array, case: Case) -> Array:
    """Out = s(in-1) + d(k-1) + 1 - 2p: each input adds its window of weights (C_in, C_out/g, kh, kw), to the output."""
    (kh, kw), (sh, sw), (ph, pw), (dh, dw) = case.kernel, case.stride, case.pad, case.dilation
    height, width = sh * (case.size[0] - 1) + dh * (kh - 1) + 1, sw * (case.size[1] - 1) + dw * (kw - 1) + 1
    y = np.zeros((len(x), case.group * case.outputs, height, width))
    for i, o, a, b in np.ndindex(len(w), case.outputs, kh, kw):
        target = y[:, i // case.inputs * case.outputs + o]
        target[:, a * dh : a * dh + (case.size[0] - 1) * sh + 1 : sh,
               b * dw : b * dw + (case.size[1] - 1) * sw + 1 : sw] += w[i, o, a, b] * x[:, i]  # fmt: skip
    return y[:, :, ph : height - ph, pw : width - pw]


@given(CASES, st.booleans(), st.booleans(), st.booleans())
def test_convolution_rounds_its_size_down_and_pads_all_sides_alike(
    case: Case, bias_term: bool, old: bool, free: bool
) -> None:
    x, random = case.x(), case.random()
    w = random.normal(size=(case.group * case.outputs, case.inputs, *case.kernel)).astype(np.float32)
    b = random.normal(size=case.group * case.outputs).astype(np.float32)
    layer = make_layer("Convolution", [legacy(item) if old else item for item in ([w, b] if bias_term else [w])],
                       convolution_param={**case.parameters(), "bias_term": bias_term})  # fmt: skip
    if min(case.size[i] + 2 * case.pad[i] - case.dilation[i] * (case.kernel[i] - 1) for i in (0, 1)) < 1:
        with pytest.raises(MalformedSourceError, match=r"'layer'.*larger than the padded input"):
            run_layer(layer, [x])
        return
    assert_close(run_layer(layer, [x], free=free)[0], convolve(x, w, case) + bias_term * b[:, None, None])


@given(CASES, st.booleans(), st.booleans())
def test_deconvolution_scatters_each_input(case: Case, bias_term: bool, free: bool) -> None:
    x, random = case.x(), case.random()
    w = random.normal(size=(case.group * case.inputs, case.outputs, *case.kernel)).astype(np.float32)
    b = random.normal(size=case.group * case.outputs).astype(np.float32)
    layer = make_layer("Deconvolution", [w, b] if bias_term else [w],
                       convolution_param={**case.parameters(), "bias_term": bias_term})  # fmt: skip
    expected = scatter(x, w, case)
    if min(expected.shape) < 1:
        with pytest.raises(MalformedSourceError, match="larger than the padded input"):
            run_layer(layer, [x])
        return
    assert_close(run_layer(layer, [x], free=free)[0], expected + bias_term * b[:, None, None])


@given(st.integers(1, 7), st.integers(1, 3), st.booleans(), st.sampled_from([0.0, 0.5]))
def test_a_deconvolution_without_blobs_is_filled_as_its_filler_says(
    side: int, channels: int, bias_term: bool, bias: float
) -> None:
    """f = ceil(k/2), c = (k-1)/(2f), w(y,x) = (1-|x/f-c|)(1-|y/f-c|)."""
    half, x = math.ceil(side / 2), np.ones((1, channels, 4, 4), np.float32)
    centre = (side - 1) / (2 * half)
    w = np.array([[(1 - abs(a / half - centre)) * (1 - abs(b / half - centre)) for b in range(side)]
                  for a in range(side)])  # fmt: skip
    assert_close(bilinear(side), w, absolute=1e-7)
    parameters = {"num_output": channels, "group": channels, "kernel_size": [side], "stride": [half], "bias_term":
                  bias_term, "weight_filler": {"type": "bilinear"}, "bias_filler": {"value": bias}}  # fmt: skip
    layer = make_layer("Deconvolution", convolution_param=parameters)
    case = Case(1, channels, 1, 1, (4, 4), (side, side), (half, half), (0, 0), (1, 1), 0)
    expected = scatter(x, np.broadcast_to(w, (channels, 1, side, side)), case) + bias_term * bias
    assert_close(run_layer(layer, [x])[0], expected)
    assert "bilinear" in translate_layer(layer, [x.shape]).notes[0]


def test_a_weight_in_no_file_is_filled_in_by_no_other_filler() -> None:
    parameters = {"num_output": 4, "kernel_size": [3], "weight_filler": {"type": "xavier"}}
    with pytest.raises(MalformedSourceError, match=r"'layer'.*blob 0 is missing: expected 72 values"):
        translate_layer(make_layer("Deconvolution", convolution_param=parameters), [(1, 2, 5, 5)])
    parameters["weight_filler"] = {"type": "bilinear"}
    with pytest.raises(MalformedSourceError, match="blob 0 is missing"):
        translate_layer(make_layer("Convolution", convolution_param=parameters), [(1, 2, 5, 5)])
    parameters["bias_filler"] = {"type": "gaussian"}
    with pytest.raises(UnsupportedSourceError, match="its filler is 'gaussian'"):
        translate_layer(make_layer("Deconvolution", convolution_param=parameters), [(1, 2, 5, 5)])


@pytest.mark.parametrize(
    ("sides", "equal"),
    [
        ({"kernel_h": 2, "kernel_w": 3}, {"kernel_size": [2, 3]}),
        ({"kernel_size": [3], "stride_h": 2, "stride_w": 1}, {"kernel_size": [3, 3], "stride": [2, 1]}),
        ({"kernel_size": [3], "pad_w": 2}, {"kernel_size": [3], "pad": [0, 2]}),
    ],
)
def test_fields_for_height_and_width_stand_for_a_pair(sides: dict[str, Any], equal: dict[str, Any]) -> None:
    x = np.random.default_rng(0).normal(size=(1, 2, 6, 7)).astype(np.float32)
    kernel = (sides.get("kernel_h", 3), 3)
    w = np.random.default_rng(1).normal(size=(2, 2, *kernel)).astype(np.float32)
    found, expected = (
        run_layer(make_layer("Convolution", [w], convolution_param={"num_output": 2, "bias_term": False, **given}), [x])
        for given in (sides, equal)
    )
    assert_close(found[0], expected[0])


@pytest.mark.parametrize("kind", ["ConvolutionDepthwise", "DepthwiseConvolution"])
def test_depthwise_types_have_a_group_for_each_output(kind: str) -> None:
    case = Case(2, 4, 1, 1, (5, 6), (3, 3), (2, 1), (1, 0), (1, 1), 3)
    w = case.random().normal(size=(4, 1, 3, 3)).astype(np.float32)
    parameters = {**case.parameters(), "bias_term": False}
    del parameters["group"]
    assert_close(run_layer(make_layer(kind, [w], convolution_param=parameters), [case.x()])[0],
                 convolve(case.x(), w, case))  # fmt: skip


def test_several_bottoms_share_one_weight() -> None:
    case = Case(1, 1, 2, 3, (5, 5), (3, 3), (1, 1), (0, 0), (1, 1), 4)
    w = case.random().normal(size=(3, 2, 3, 3)).astype(np.float32)
    layer = make_layer("Convolution", [w], bottoms=2, tops=2,
                       convolution_param={**case.parameters(), "bias_term": False})  # fmt: skip
    xs = [case.x(), case.x() + 1]
    for y, x in zip(run_layer(layer, xs), xs, strict=True):
        assert_close(y, convolve(x, w, case))
    model = translate_layer(layer, [x.shape for x in xs])
    assert [tensor.name for tensor in model.tensors] == ["layer.weight"]


GOOD: dict[str, Any] = {"num_output": 4, "kernel_size": [3], "bias_term": False}
HUGE = 2**32 - 1


@pytest.mark.parametrize(
    "change",
    [
        {"group": 3}, {"group": 0}, {"group": HUGE}, {"num_output": 0}, {"num_output": HUGE}, {"num_output": 5},
        {"kernel_size": []}, {"kernel_size": [0]}, {"kernel_size": [3, 3, 3]}, {"kernel_size": [HUGE]},
        {"kernel_h": 3, "kernel_w": 3}, {"kernel_size": [], "kernel_h": 3}, {"stride": [0]}, {"stride_h": 1},
        {"stride": [2], "stride_h": 1, "stride_w": 1}, {"stride": [HUGE]}, {"pad": [HUGE]}, {"pad": [1], "pad_h": 1},
        {"dilation": [0]}, {"dilation": [HUGE, 1]}, {"dilation": [3]}, {"axis": 2}, {"axis": -5}, {"axis": 2**31 - 1},
        {"kernel_size": [9]},
    ],
)  # fmt: skip
@pytest.mark.parametrize("kind", ["Convolution", "Deconvolution"])
def test_sizes_that_cannot_be_are_refused_before_anything_is_made(kind: str, change: dict[str, Any]) -> None:
    dims = (2, 4, 3, 3) if kind == "Deconvolution" else (4, 2, 3, 3)
    weight = np.zeros(dims, np.float32)
    translate_layer(make_layer(kind, [weight], convolution_param=GOOD), [(1, 2, 6, 6)])
    if kind == "Deconvolution" and change == {"dilation": [3]}:
        return
    with pytest.raises(MISTAKES, match="layer"):
        translate_layer(make_layer(kind, [weight], convolution_param={**GOOD, **change}), [(1, 2, 6, 6)])


@pytest.mark.parametrize("shape", [(1, 2), (1, 2, 6), (1, 2, 6, 6, 6), (1, 3, 6, 6)])
def test_inputs_that_do_not_fit_are_refused(shape: tuple[int, ...]) -> None:
    layer = make_layer("Convolution", [np.zeros((4, 2, 3, 3), np.float32)], convolution_param=GOOD)
    with pytest.raises(MISTAKES, match="layer"):
        translate_layer(layer, [shape])


@pytest.mark.parametrize(("bottoms", "tops"), [(0, 0), (0, 1), (1, 0), (2, 1), (1, 2)])
def test_bottoms_and_tops_come_in_pairs(bottoms: int, tops: int) -> None:
    layer = make_layer("Convolution", [np.zeros((4, 2, 3, 3), np.float32)], bottoms=bottoms, tops=tops,
                       convolution_param=GOOD)  # fmt: skip
    with pytest.raises(MalformedSourceError, match=r"'layer'.*as many bottoms as tops"):
        translate_layer(layer, [(1, 2, 6, 6)] * bottoms)


def test_blobs_that_the_layer_does_not_use_are_an_error() -> None:
    """Caffe refuses to load a layer of another number of blobs."""
    layer = make_layer("Convolution", [np.zeros((4, 2, 3, 3), np.float32), np.zeros(4)], convolution_param=GOOD)
    with pytest.raises(MalformedSourceError, match=r"'layer'.*blobs: expected 1, found 2"):
        translate_layer(layer, [(1, 2, 6, 6)])


SHAPES = st.lists(st.integers(1, 4), min_size=1, max_size=5)


@given(SHAPES, st.data(), st.integers(1, 5), st.booleans(), st.booleans(), st.booleans())
def test_inner_product_keeps_the_axes_before_its_own(
    shape: list[int], data: st.DataObject, outputs: int, transpose: bool, bias_term: bool, old: bool
) -> None:
    """y = x W^T + b over the axes from ``axis`` on, flattened in their order; transposed, y = x W."""
    axis = data.draw(st.integers(-len(shape), len(shape) - 1))
    first = axis % len(shape)
    inputs, random = math.prod(shape[first:]), np.random.default_rng(5)
    x, w = random.normal(size=shape).astype(np.float32), random.normal(size=(outputs, inputs)).astype(np.float32)
    b = random.normal(size=outputs).astype(np.float32)
    stored = np.ascontiguousarray(w.T) if transpose else w
    blobs = [legacy(item) if old else item for item in ([stored, b] if bias_term else [stored])]
    layer = make_layer("InnerProduct", blobs, inner_product_param={
        "num_output": outputs, "axis": axis, "transpose": transpose, "bias_term": bias_term,
    })  # fmt: skip
    expected = x.reshape(*shape[:first], inputs) @ w.T + bias_term * b
    assert_close(run_layer(layer, [x])[0], expected)
    model = translate_layer(layer, [x.shape])
    weight = tensor_of(model, "layer.weight")
    assert (weight.role, weight.dims) == (Role.FC, stored.shape)
    assert weight.order == MatrixOrder((), (1, 0) if transpose else (), 1), "a row for each output"
    batch = model.inputs[0].shape.dimensions[0]
    assert batch.HasField("size") if first == 0 else batch.symbol == "N"


@pytest.mark.parametrize(
    "change", [{"num_output": 0}, {"num_output": HUGE}, {"axis": 3}, {"axis": -4}, {"axis": 2}, {"bias_term": True}]
)
def test_inner_products_that_do_not_fit_are_refused(change: dict[str, Any]) -> None:
    parameters = {"num_output": 2, "bias_term": False}
    weight = np.zeros((2, 12), np.float32)
    translate_layer(make_layer("InnerProduct", [weight], inner_product_param=parameters), [(1, 3, 4)])
    with pytest.raises(MISTAKES, match="layer"):
        translate_layer(make_layer("InnerProduct", [weight], inner_product_param={**parameters, **change}), [(1, 3, 4)])


def test_weights_are_what_a_scheme_may_quantize() -> None:
    layer = make_layer("Deconvolution", [np.zeros((4, 2, 3, 3)), np.zeros(4)],
                       convolution_param={"num_output": 4, "kernel_size": [3], "group": 2})  # fmt: skip
    model = translate_layer(layer, [(1, 4, 6, 6)])
    assert roles_of(model) == {"layer.weight": Role.CONV, "layer.bias": Role.OTHER}
    assert tensor_of(model, "layer.weight").order.view == (2, 2, 2, 3, 3)


def test_an_input_of_unknown_size_is_asked_for_where_it_decides_the_weight() -> None:
    layer = make_layer("InnerProduct", [np.zeros((2, 12))], inner_product_param={"num_output": 2, "bias_term": False})
    with pytest.raises(UnsupportedSourceError, match=r"'layer' .*--input-shape"):
        translate_layer(layer, [(1, 3, 2, 2)], free=True)
