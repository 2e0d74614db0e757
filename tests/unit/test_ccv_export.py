"""Graphs as ccv convnets: what becomes of each layer, and which rule of ccv's refuses which node."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from onnx import ModelProto, NodeProto, helper

from mobilemodel.errors import LimitExceededError, MobileModelError, UnsupportedSourceError
from mobilemodel_converters.ccv.expression import express
from mobilemodel_converters.ccv.layers import Size
from mobilemodel_converters.ccv.rows import (
    AveragePool,
    Convolution,
    FullConnect,
    MaxPool,
    Normalisation,
    Pool,
)
from mobilemodel_converters.onnx import build
from tests.convnets import convnet
from tests.models import tensor, value

Change = Callable[[ModelProto], None]


def node(model: ModelProto, name: str) -> NodeProto:
    return next(item for item in model.graph.node if item.output[0] == name)


def put(model: ModelProto, name: str, **attributes: Any) -> None:
    """Set attributes of a node."""
    found = node(model, name)
    for key, new in attributes.items():
        for index, attribute in enumerate(found.attribute):
            if attribute.name == key:
                del found.attribute[index]
                break
        if new is not None:
            found.attribute.append(helper.make_attribute(key, new))


def put_both(model: ModelProto, **attributes: Any) -> None:
    """Set attributes of the normalisation of both parts."""
    for part in "ab":
        put(model, f"lrn.{part}", **attributes)


def weigh(model: ModelProto, name: str, *shape: int, dtype: Any = np.float32) -> None:
    """Give a weight another shape or type."""
    item = next(item for item in model.graph.initializer if item.name == name)
    item.CopyFrom(tensor(name, np.zeros(shape, dtype)))


def drop(model: ModelProto, name: str) -> None:
    """Take a node away; whoever took its value takes its input."""
    gone = node(model, name)
    for item in model.graph.node:
        item.input[:] = [gone.input[0] if taken == name else taken for taken in item.input]
    if model.graph.output[0].name == name:
        model.graph.output[0].name = gone.input[0]
    model.graph.node.remove(gone)


def insert(model: ModelProto, before: str, operator: str, *more: str, **attributes: Any) -> None:
    """Put a node in front of another."""
    follower = node(model, before)
    made = helper.make_node(operator, [follower.input[0], *more], ["new"], **attributes)
    follower.input[0] = "new"
    model.graph.node.insert(list(model.graph.node).index(follower), made)


def test_every_layer_becomes_a_row() -> None:
    found = express(convnet())
    kinds = [Convolution, Normalisation, MaxPool, Convolution, AveragePool, FullConnect, FullConnect]
    assert [type(layer) for layer in found.layers] == kinds
    assert found.input == Size(21, 21, 3)
    assert found.input_name == "x"
    sizes = [(item.input.rows, item.input.cols, item.input.channels) for item in found.layers]
    assert sizes == [(21, 21, 3), (10, 10, 8), (10, 10, 8), (6, 6, 8), (6, 6, 16), (3, 3, 16), (12, 1, 1)]
    conv1, norm1, pool1, conv2, pool2, fc1, fc2 = (layer.columns() for layer in found.layers)
    assert (conv1["output_rows"], conv1["output_cols"], conv1["output_channels"], conv1["output_count"]) == (5, 5, 3, 8)
    assert (conv1["output_strides"], conv1["output_border"]) == (2, 1)
    assert (norm1["output_size"], norm1["output_kappa"], norm1["output_beta"]) == (5, 2.0, 0.75)
    assert norm1["output_alpha"] == float(np.float32(0.1)), "ccv does not divide alpha by the window"
    assert (pool1["output_size"], pool1["output_strides"], pool1["output_border"]) == (2, 2, 1)
    assert (pool2["output_size"], pool2["output_strides"], pool2["output_border"]) == (4, 2, 1)
    assert conv2["input_matrix_partition"] == 2
    assert (fc1["input_node_count"], fc1["output_count"], fc1["output_relu"]) == (144, 12, 1)
    assert (fc2["input_node_count"], fc2["output_count"], fc2["output_relu"]) == (12, 5, 0)


def _without_relu(model: ModelProto) -> None:
    drop(model, "relu1")


def _branch(model: ModelProto) -> None:
    model.graph.node.append(helper.make_node("Relu", ["pool1"], ["side"]))


def _fc_after_picture(model: ModelProto) -> None:
    drop(model, "flat")


def _lrn_unequal(model: ModelProto) -> None:
    put(model, "lrn.b", alpha=0.25)


def _parts_swapped(model: ModelProto) -> None:
    node(model, "norm1").input[:] = ["lrn.b", "lrn.a"]


def _split_for_pool(model: ModelProto) -> None:
    node(model, "lrn.b").CopyFrom(helper.make_node("Relu", ["b"], ["lrn.b"]))


def _unequal_parts(model: ModelProto) -> None:
    node(model, "a").input.append("sizes")
    model.graph.initializer.append(tensor("sizes", np.array([3, 5])))


def _unknown_parts(model: ModelProto) -> None:
    node(model, "a").input.append("conv1.weight")


def _cut_end(model: ModelProto) -> None:
    model.graph.output[0].name = "pool2"


def _weight_is_computed(model: ModelProto) -> None:
    model.graph.node.insert(0, helper.make_node("Neg", ["conv1.weight"], ["negative"]))
    node(model, "conv1").input[1] = "negative"


def _data_right(model: ModelProto) -> None:
    node(model, "fc2").input[:] = ["fc2.weight", "drop"]


def _reshape_to_one(model: ModelProto) -> None:
    model.graph.initializer.append(tensor("shape", np.array([1, 1, 144])))
    node(model, "flat").CopyFrom(helper.make_node("Reshape", ["pool2", "shape"], ["flat"]))


def _training(model: ModelProto) -> None:
    model.graph.initializer.extend([tensor("ratio", np.array(0.5, np.float32)), tensor("yes", np.array(True))])
    node(model, "drop").input.extend(["ratio", "yes"])


# The rules of ccv's engine, each broken once: what is changed, what the refusal names, and why.
BROKEN: dict[str, tuple[Change, str]] = {
    "a ReLU behind each convolution": (_without_relu, r"'conv1' \(Conv\).*Relu behind every conv.*'a' \(Split\)"),
    "odd kernels": (lambda m: weigh(m, "conv1.weight", 8, 3, 4, 4), r"'conv1'.*odd kernels"),
    "equal strides": (lambda m: put(m, "conv1", strides=[2, 1]), r"'conv1'.*strides.*2 x 1"),
    "one border": (lambda m: put(m, "conv1", pads=[1, 1, 2, 2]), r"'conv1'.*padding"),
    "no dilation": (lambda m: put(m, "conv2", dilations=[2, 2]), r"'conv2'.*dilations"),
    "steps that end at the edge": (lambda m: put(m, "conv1", strides=[4, 4]), r"'conv1'.*21 \+ 2 x 1 - 5"),
    "4 filters a group": (lambda m: weigh(m, "conv2.weight", 12, 4, 3, 3), r"'conv2'.*multiple of 4.*12 in 2 groups"),
    "channels of the groups": (lambda m: weigh(m, "conv2.weight", 16, 3, 3, 3), r"'conv2'.*2 groups of 3"),
    "no negative group": (lambda m: put(m, "conv2", group=-2), r"'conv2'.*groups"),
    "a kernel_shape that is true": (lambda m: put(m, "conv2", kernel_shape=[5, 5]), r"'conv2'.*kernel_shape"),
    "a constant weight": (_weight_is_computed, r"'conv1'.*constant as input 1.*negative"),
    "float weights": (lambda m: weigh(m, "conv1.weight", 8, 3, 5, 5, dtype=np.float64), r"'conv1'.*float64"),
    "a bias for each filter": (lambda m: weigh(m, "conv1.bias", 4), r"'conv1'.*bias"),
    "odd windows of a norm": (lambda m: put_both(m, size=4), r"LRN\).*odd window"),
    "one norm for all parts": (_lrn_unequal, r"'a' \(Split\).*same normalisation"),
    "parts in order": (_parts_swapped, r"'norm1' \(Concat\).*order"),
    "a norm in all parts": (_split_for_pool, r"'a' \(Split\).*LRN"),
    "equal parts": (_unequal_parts, r"'a' \(Split\).*equal parts"),
    "parts that are known": (_unknown_parts, r"'a' \(Split\).*equal parts"),
    "parts of channels": (lambda m: put(m, "a", axis=2), r"'a' \(Split\).*equal parts"),
    "square windows": (lambda m: put(m, "pool1", kernel_shape=[2, 4]), r"'pool1'.*kernel_shape.*2 x 4"),
    "exact pools": (lambda m: put(m, "pool1", kernel_shape=[3, 3], ceil_mode=1), r"'pool1'.*10 \+ 2 x 1 - 3"),
    "windows that see something": (lambda m: put(m, "pool1", pads=[2] * 4), r"'pool1'.*larger than its border"),
    "averages of real pixels": (lambda m: put(m, "pool2", count_include_pad=1), r"'pool2'.*without the padding"),
    "layers that ccv has": (lambda m: insert(m, "pool1", "Sigmoid"), r"'new' \(Sigmoid\).*no such layer"),
    "operators of ONNX": (lambda m: insert(m, "pool1", "Relu", domain="com.x"), r"'new' \(Relu\).*no such layer"),
    "ReLU behind a weight": (lambda m: insert(m, "conv2", "Relu"), r"'new' \(Relu\).*nowhere else"),
    "a row of layers": (_branch, r"'conv2' \(Conv\).*a row.*'side' \(Relu\)"),
    "flattening before an FC layer": (_fc_after_picture, r"'fc1' \(Gemm\).*flattened"),
    "flattening to a row each": (lambda m: put(m, "flat", axis=2), r"'flat' \(Flatten\).*axis 1"),
    "reshaping to a row each": (_reshape_to_one, r"'flat' \(Reshape\).*\[1, 1, 144\]"),
    "pictures before flattening": (lambda m: insert(m, "fc1", "GlobalMaxPool"), r"'new' \(GlobalMaxPool\).*before"),
    "alpha 1": (lambda m: put(m, "fc1", alpha=0.5), r"'fc1'.*alpha"),
    "beta 1": (lambda m: put(m, "fc1", beta=2.0), r"'fc1'.*beta"),
    "data that are not transposed": (lambda m: put(m, "fc1", transA=1), r"'fc1'.*data on the left"),
    "data on the left": (_data_right, r"'fc2'.*data on the left"),
    "an FC weight that fits": (lambda m: weigh(m, "fc1.weight", 12, 143), r"'fc1'.*143"),
    "one bias": (lambda m: insert(m, "relu3", "Add", "fc1.bias"), r"'new' \(Add\).*once"),
    "Softmax over classes": (lambda m: put(m, "y", axis=0), r"'y' \(Softmax\).*axis 1"),
    "Softmax last": (lambda m: insert(m, "y", "Softmax"), r"'y' \(Softmax\).*the end"),
    "no ReLU at the end": (lambda m: insert(m, "y", "Relu"), r"'y' \(Softmax\).*without Relu"),
    "an FC layer at the end": (_cut_end, r"'pool2' \(AveragePool\).*full connect"),
    "Dropout that does nothing": (_training, r"'drop' \(Dropout\).*training_mode"),
    "finite numbers": (lambda m: put_both(m, beta=float("nan")), r"LRN\).*finite"),
}  # fmt: skip


@pytest.mark.parametrize("rule", BROKEN)
def test_a_rule_that_is_broken_names_the_node(rule: str) -> None:
    change, message = BROKEN[rule]
    model = convnet()
    change(model)
    with pytest.raises(UnsupportedSourceError, match=message):
        express(model)


def _input(model: ModelProto, shape: list[Any]) -> None:
    model.graph.input[0].CopyFrom(value("x", shape))


@pytest.mark.parametrize("shape", [["N", 3, "h", 21], ["N", 1323], None])
def test_the_size_of_the_input_must_be_known(shape: list[Any] | None) -> None:
    model = convnet()
    model.graph.input[0].CopyFrom(value("x", shape))
    with pytest.raises(UnsupportedSourceError, match="size of the input 'x'"):
        express(model)


@pytest.mark.parametrize("what", ["input", "output"])
def test_one_input_and_one_output(what: str) -> None:
    model = convnet()
    getattr(model.graph, what).append(value("fc1" if what == "output" else "z", [1]))
    with pytest.raises(UnsupportedSourceError, match=f"exactly one {what}"):
        express(model)


def test_sizes_that_no_memory_holds() -> None:
    model = convnet()
    _input(model, ["N", 3, 2**40 + 1, 2**40 + 1])
    with pytest.raises(LimitExceededError, match="values of an activation"):
        express(model)


def test_padding_may_be_given_by_name() -> None:
    """auto_pad: SAME_UPPER of a 3x3 kernel with stride 1 is a border of 1; VALID is none."""
    model = convnet()
    put(model, "conv2", pads=None, auto_pad="SAME_UPPER")
    assert [layer.border for layer in express(model).layers if isinstance(layer, Convolution)] == [1, 1]
    put(model, "pool2", pads=None, auto_pad="VALID", kernel_shape=[2, 2], count_include_pad=1)
    pools = [layer for layer in express(model).layers if isinstance(layer, Pool)]
    assert (pools[1].border, pools[1].size) == (0, 2)


def test_an_even_same_padding_is_refused() -> None:
    model = convnet()
    put(model, "pool2", pads=None, auto_pad="SAME_UPPER", kernel_shape=[3, 3])
    with pytest.raises(UnsupportedSourceError, match=r"'pool2'.*\[0, 0, 1, 1\]"):
        express(model)


def test_a_global_pool_is_a_pool_over_all() -> None:
    model = convnet()
    node(model, "pool2").CopyFrom(helper.make_node("GlobalAveragePool", ["relu2"], ["pool2"]))
    weigh(model, "fc1.weight", 12, 16)
    pool = express(model).layers[4]
    assert isinstance(pool, AveragePool)
    assert (pool.size, pool.strides, pool.border) == (6, 1, 0)


def test_a_norm_that_is_not_split_has_one_partition() -> None:
    model = convnet()
    for name in ("norm1", "lrn.b", "a"):
        model.graph.node.remove(node(model, name))
    node(model, "lrn.a").input[0] = "relu1"
    node(model, "pool1").input[0] = "lrn.a"
    norm = express(model).layers[1]
    assert isinstance(norm, Normalisation)
    assert norm.partition == 1


@pytest.mark.parametrize("shape", [[0, 144], [0, -1], [-1, 144], [1, -1]])
def test_reshapes_that_flatten(shape: list[int]) -> None:
    model = convnet()
    model.graph.initializer.append(tensor("shape", np.array(shape)))
    node(model, "flat").CopyFrom(helper.make_node("Reshape", ["pool2", "shape"], ["flat"]))
    assert len(express(model).layers) == 7


def test_matrices_may_be_transposed_twice() -> None:
    """Gemm's transB and a Transpose in front of it; the codes of either lie in the same order in the end."""
    model = convnet()
    weigh(model, "fc1.weight", 144, 12)
    model.graph.node.insert(0, helper.make_node("Transpose", ["fc1.weight"], ["t"], perm=[1, 0]))
    node(model, "fc1").input[1] = "t"
    transposed = express(model).layers[5]
    put(model, "fc1", transB=0)
    node(model, "fc1").input[1] = "fc1.weight"
    plain = express(model).layers[5]
    assert isinstance(transposed, FullConnect)
    assert isinstance(plain, FullConnect)
    values = np.arange(144 * 12).reshape(144, 12)
    assert np.array_equal(transposed.in_order(values), plain.in_order(values))
    rows = plain.in_order(values).reshape(12, -1)
    # Column (row, column, channel) of ccv is channel x 9 + row x 3 + column of the graph.
    assert rows[7, (2 * 3 + 1) * 16 + 5] == values[5 * 9 + 2 * 3 + 1, 7]


def test_a_constant_node_is_a_weight_too() -> None:
    model = convnet()
    item = next(item for item in model.graph.initializer if item.name == "fc2.bias")
    model.graph.initializer.remove(item)
    model.graph.node.insert(0, helper.make_node("Constant", [], ["fc2.bias"], value=item))
    last = express(model).layers[-1]
    assert isinstance(last, FullConnect)
    assert last.bias is not None
    assert last.bias.dims == (5,)


RAW = convnet().SerializeToString()


@given(st.lists(st.tuples(st.integers(0, len(RAW) - 1), st.integers(0, 255)), min_size=1, max_size=4))
def test_a_damaged_graph_is_refused_or_understood(changes: list[tuple[int, int]]) -> None:
    damaged = bytearray(RAW)
    for at, byte in changes:
        damaged[at] = byte
    with suppress(MobileModelError):
        express(build.parse_graph(bytes(damaged)))


NUMBERS = [-(2**63), -1, 0, 1, 2, 3, 2**31, 2**63 - 1]


@given(st.data())
def test_hostile_attributes_and_names(data: st.DataObject) -> None:
    """No number and no order of names ends in anything but an error of ours."""
    model = convnet()
    for _ in range(2):
        changed = model.graph.node[data.draw(st.integers(0, len(model.graph.node) - 1))]
        for attribute in changed.attribute:
            attribute.i = data.draw(st.sampled_from(NUMBERS))
            attribute.f = data.draw(st.sampled_from([0.0, float("inf"), float("nan")]))
            attribute.ints[:] = data.draw(st.lists(st.sampled_from(NUMBERS), max_size=4))
        names = ["", "x", *(output for item in model.graph.node for output in item.output)]
        changed.input[:] = data.draw(st.lists(st.sampled_from(names), max_size=3))
        changed.op_type = data.draw(st.sampled_from([item.op_type for item in model.graph.node]))
    with suppress(MobileModelError):
        express(build.parse_graph(model.SerializeToString()))
