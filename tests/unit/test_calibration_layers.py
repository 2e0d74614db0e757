"""Which layers data can speak about, and that the rows they are fitted to are what the layer computes."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from onnx import ModelProto, helper

from mobilemodel.calibration.calibrate import model_weights
from mobilemodel.calibration.layers import find_layers, layer_rows, own_bias
from mobilemodel.calibration.moments import POSITIONS, Places, layer_rows_of
from mobilemodel.calibration.segments import make_segment
from mobilemodel.model import MatrixOrder
from tests.calibrating import read, residual_net
from tests.models import Array, model, tensor, value

RANDOM = np.random.default_rng(5)


def numbers(*shape: int) -> Array:
    return RANDOM.standard_normal(shape).astype(np.float32)


def one_layer(operator: str, weight: Array, bias: Array | None = None, **attributes: Any) -> ModelProto:
    inputs = ["x", "w"] + ([] if bias is None else ["b"])
    held = [tensor("w", weight)] + ([] if bias is None else [tensor("b", bias)])
    return model([helper.make_node(operator, inputs, ["y"], **attributes)], [value("x")], held)


CONVOLUTIONS: dict[str, tuple[tuple[int, ...], tuple[int, ...], dict[str, Any]]] = {
    "plain": ((6, 3, 3, 3), (2, 3, 7, 6), {}),
    "padded on one side": ((4, 3, 3, 3), (2, 3, 7, 6), {"pads": [0, 2, 1, 0]}),
    "strides": ((4, 3, 3, 2), (2, 3, 9, 8), {"strides": [2, 3], "pads": [1, 1, 1, 1]}),
    "dilations": ((4, 2, 3, 2), (2, 2, 9, 8), {"dilations": [2, 3], "strides": [1, 2]}),
    "groups": ((6, 2, 3, 3), (2, 4, 6, 6), {"group": 2, "pads": [1, 1, 1, 1]}),
    "depthwise": ((10, 1, 3, 3), (2, 5, 6, 6), {"group": 5}),
    "one position": ((6, 4, 1, 1), (3, 4, 1, 1), {}),
    "many positions": ((3, 2, 3, 3), (2, 2, 14, 13), {}),
    "one axis": ((5, 3, 4), (2, 3, 11), {"strides": [2], "pads": [1, 2], "dilations": [2]}),
    "automatic, but without padding": ((4, 3, 3, 3), (2, 3, 7, 6), {"auto_pad": "VALID"}),
}


def check_rows(made: ModelProto, x: Array, *, biased: bool) -> None:
    """Inputs times the matrix of the weights, plus the bias, is the response."""
    found = read(made)
    assert found.refused == {}
    layer = found.layers["w"]
    weights = model_weights(found.model)
    response = make_segment(found.graph, weights, ["x"], [layer.response]).run({"x": x})[layer.response]
    rows, wanted = layer_rows_of(layer, x, response, Places(3), 0)
    matrix = layer.to_matrix(weights["w"]).reshape(layer.groups, -1, rows.shape[2])
    np.testing.assert_array_equal(layer.from_matrix(layer.to_matrix(weights["w"])), weights["w"])
    assert layer_rows(layer) == matrix.shape[0] * matrix.shape[1]
    computed = np.einsum("gnc,grc->gnr", rows.astype(np.float64), matrix)
    assert (layer.bias is not None) is biased
    if layer.bias is not None:
        computed += weights[layer.bias].reshape(layer.groups, 1, -1)
    assert computed.shape == wanted.shape
    np.testing.assert_allclose(computed, wanted, atol=1e-4)


@pytest.mark.parametrize("name", CONVOLUTIONS)
@pytest.mark.parametrize("biased", [False, True])
def test_the_rows_of_a_convolution_are_what_it_computes(name: str, *, biased: bool) -> None:
    shape, x, attributes = CONVOLUTIONS[name]
    bias = numbers(shape[0]) if biased else None
    check_rows(one_layer("Conv", numbers(*shape), bias, **attributes), numbers(*x), biased=biased)


@pytest.mark.parametrize("transposed", [0, 1])
@pytest.mark.parametrize("biased", [False, True])
def test_the_rows_of_a_gemm_are_what_it_computes(transposed: int, *, biased: bool) -> None:
    shape = (5, 7) if transposed else (7, 5)
    made = one_layer("Gemm", numbers(*shape), numbers(5) if biased else None, transB=transposed)
    check_rows(made, numbers(4, 7), biased=biased)


@pytest.mark.parametrize("shape", [(4, 7), (2, 3, 7)])
def test_the_rows_of_a_product_are_what_it_computes(shape: tuple[int, ...]) -> None:
    check_rows(one_layer("MatMul", numbers(7, 5)), numbers(*shape), biased=False)


@pytest.mark.parametrize("order", [["h", "b"], ["b", "h"]])
def test_the_bias_that_an_addition_gives_to_a_product_is_its_bias(order: list[str]) -> None:
    nodes = [helper.make_node("MatMul", ["x", "w"], ["h"]), helper.make_node("Add", order, ["y"])]
    made = model(nodes, [value("x")], [tensor("w", numbers(7, 5)), tensor("b", numbers(5))])
    check_rows(made, numbers(4, 7), biased=True)
    assert read(made).layers["w"].response == "y"


def test_an_addition_of_something_else_is_no_bias() -> None:
    for nodes, bias in (
        ([("MatMul", ["x", "w"], "h"), ("Add", ["h", "b"], "s"), ("Mul", ["s", "h"], "y")], numbers(5)),
        ([("MatMul", ["x", "w"], "h"), ("Add", ["h", "b"], "y")], numbers(1, 5)),
        ([("MatMul", ["x", "w"], "h"), ("Sub", ["h", "b"], "y")], numbers(5)),
        ([("MatMul", ["x", "w"], "h"), ("Add", ["h", "h"], "y")], numbers(5)),
    ):
        made = [helper.make_node(kind, inputs, [output]) for kind, inputs, output in nodes]
        layer = read(model(made, [value("x")], [tensor("w", numbers(7, 5)), tensor("b", bias)])).layers["w"]
        assert (layer.bias, layer.response) == (None, "h")


def test_few_positions_are_all_seen_and_of_many_some_of_every_sample() -> None:
    samples, positions = Places(0).choose(0, 3, 5)
    assert sorted(zip(samples, positions, strict=True)) == [(s, p) for s in range(3) for p in range(5)]
    samples, positions = Places(0).choose(0, 3, 1000)
    assert np.bincount(samples).tolist() == [POSITIONS] * 3
    assert len(set(positions)) > 100
    again = Places(0).choose(0, 3, 1000)[1]
    np.testing.assert_array_equal(positions, again)
    assert (positions != Places(0).choose(1, 3, 1000)[1]).any()
    assert (positions != Places(1).choose(0, 3, 1000)[1]).any()


def refused_with(nodes: list[Any], weights: dict[str, Array], inputs: list[Any] | None = None) -> str:
    made = model(nodes, inputs or [value("x")], [tensor(name, array) for name, array in weights.items()])
    return read(made).refused["w"]


NODE = helper.make_node
CONV = numbers(4, 2, 3, 3)
MATRIX = numbers(6, 6)
REFUSALS: dict[str, tuple[list[Any], dict[str, Array]]] = {
    "only float32": ([NODE("MatMul", ["x", "w"], ["y"])], {"w": MATRIX.astype(np.float64)}),
    "exactly one layer": ([NODE("MatMul", ["x", "w"], ["h"]), NODE("MatMul", ["h", "w"], ["y"])], {"w": MATRIX}),
    "a Conv, Gemm, MatMul": ([NODE("ConvTranspose", ["x", "w"], ["y"])], {"w": CONV}),
    "not the weight of": ([NODE("MatMul", ["w", "x"], ["y"])], {"w": MATRIX}),
    "no input from the data": (
        [NODE("MatMul", ["c", "w"], ["h"]), NODE("Add", ["h", "x"], ["y"])], {"w": MATRIX, "c": MATRIX[:2]},
    ),
    "no output of the network": ([NODE("MatMul", ["x", "w"], ["h"]), NODE("Neg", ["x"], ["y"])], {"w": MATRIX}),
    "automatic padding": ([NODE("Conv", ["x", "w"], ["y"], auto_pad="SAME_UPPER")], {"w": CONV}),
    "more than two spatial axes": ([NODE("Conv", ["x", "w"], ["y"])], {"w": numbers(2, 2, 2, 2, 2)}),
    "crops its input": ([NODE("Conv", ["x", "w"], ["y"], pads=[-1, 0, 0, 0])], {"w": CONV}),
    "only products with a matrix": ([NODE("MatMul", ["x", "w"], ["y"])], {"w": numbers(2, 6, 6)}),
    "scales or transposes": ([NODE("Gemm", ["x", "w"], ["y"], alpha=0.5)], {"w": MATRIX}),
    "scales or": ([NODE("Gemm", ["x", "w", "b"], ["y"], beta=2.0)], {"w": MATRIX, "b": MATRIX[0]}),
    "transposes its input": ([NODE("Gemm", ["x", "w"], ["y"], transA=1)], {"w": MATRIX}),
    "its bias is computed": (
        [NODE("Neg", ["b"], ["n"]), NODE("Gemm", ["x", "w", "n"], ["y"])], {"w": MATRIX, "b": MATRIX[0]},
    ),
}  # fmt: skip


@pytest.mark.parametrize("reason", REFUSALS)
def test_what_data_cannot_speak_about_is_refused_with_the_reason(reason: str) -> None:
    assert reason in refused_with(*REFUSALS[reason])


@pytest.mark.parametrize(("operator", "weight", "order"), [
    ("Conv", CONV, MatrixOrder()), ("Conv", CONV, MatrixOrder(perm=(0, 1, 3, 2))),
    ("Conv", CONV, MatrixOrder((4, 2, 9), (0, 2, 1))), ("Gemm", MATRIX, MatrixOrder()),
    ("MatMul", MATRIX, MatrixOrder((2, 3, 6), (2, 0, 1))),
])  # fmt: skip
def test_a_matrix_of_another_order_is_refused(operator: str, weight: Array, order: MatrixOrder) -> None:
    found = read(one_layer(operator, weight))
    tensors = tuple(replace(item, order=order) for item in found.model.tensors)
    layers, refused = find_layers(replace(found.model, tensors=tensors), found.graph)
    assert (layers, refused) == ([], {"w": "its matrix has an unusual order"})


def test_a_weight_that_a_graph_within_reads_is_refused() -> None:
    inner = helper.make_graph([NODE("MatMul", ["x", "w"], ["i"])], "inner", [], [value("i")])
    nodes = [NODE("If", ["c"], ["y"], then_branch=inner, else_branch=inner)]
    assert "a Conv, Gemm, MatMul" in refused_with(nodes, {"w": MATRIX, "c": np.array(True)})
    nodes = [NODE("MatMul", ["x", "w"], ["h"]), NODE("If", ["c"], ["i"], then_branch=inner, else_branch=inner)]
    nodes.append(NODE("Add", ["h", "i"], ["y"]))
    assert "exactly one layer" in refused_with(nodes, {"w": MATRIX, "c": np.array(True)})


def test_the_layers_of_a_network_come_in_the_order_of_its_nodes() -> None:
    found = read(residual_net())
    names = ["conv1.weight", "depthwise.weight", "project.weight", "fc1.weight", "fc2.weight"]
    assert list(found.layers) == names
    assert [found.layers[name].bias for name in names] == [name.replace("weight", "bias") for name in names]


def test_a_bias_that_others_use_too_or_of_another_shape_is_not_its_own() -> None:
    layer = read(one_layer("Gemm", numbers(7, 5), numbers(5))).layers["w"]
    assert own_bias(layer, 1, {"b": numbers(5)})
    assert not own_bias(layer, 2, {"b": numbers(5)})
    assert not own_bias(layer, 1, {"b": numbers(1)})
    assert not own_bias(layer, 1, {"b": numbers(5).astype(np.float64)})
    assert not own_bias(layer, 1, {})
    assert not own_bias(read(one_layer("MatMul", numbers(7, 5))).layers["w"], 1, {})
