"""Sensitivities of a network's output: derivatives one by one, paths, distributions, whole networks."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from onnx import ModelProto, TensorProto, helper, numpy_helper

from mobilemodel.errors import CheckFailedError, MalformedSourceError, UnsupportedSourceError, UsageError
from mobilemodel.gradients import backward
from mobilemodel.gradients.derivatives import DERIVATIVES
from mobilemodel.gradients.likelihood import Kind, Target, random_signs, start
from mobilemodel.gradients.sensitivity import Sensitivity, output_sensitivity
from mobilemodel.runtime.session import random_inputs
from tests.convnets import convnet
from tests.differences import apart, check_operator, exactly, gradients, numbers
from tests.models import Array, Net, model, value

POSITIVE = np.abs(numbers(1, 2, 3, 4)) + np.float32(0.5)
PICTURES = numbers(2, 2, 3, 4, 5)
CHANNELS = [numbers(seed, 3) for seed in (3, 4, 5)]
IN_FLOAT32: dict[str, Any] = {"step": 1e-2, "tolerance": 1e-3}
"""where the reference evaluator computes in float32 too"""
UNARY: dict[str, dict[str, Any]] = {
    "Abs": {}, "Cast": {"to": TensorProto.FLOAT, "step": 1}, "Clip": {}, "Elu": {"alpha": 1.5}, "Erf": IN_FLOAT32,
    "Exp": {}, "Flatten": {"axis": 2}, "Gelu": {"opset": 20, **IN_FLOAT32}, "GlobalAveragePool": {},
    "GlobalMaxPool": {}, "HardSigmoid": {}, "HardSwish": {}, "Identity": {}, "LeakyRelu": {"alpha": 0.3},
    "LogSoftmax": {"axis": -2}, "Neg": {}, "Relu": {}, "Selu": {}, "Sigmoid": {}, "Softmax": {"axis": 1},
    "Softplus": {}, "Softsign": {}, "Tanh": {}, "Transpose": {"perm": [2, 0, 3, 1]},
}  # fmt: skip
OTHERS: list[tuple[str, list[Array | None], dict[str, Any]]] = [
    ("Gelu", [PICTURES], {"opset": 20, "approximate": "tanh"}),
    ("Clip", [PICTURES, np.array(-0.5, np.float32), np.array(0.4, np.float32)], {}),
    ("Clip", [PICTURES], {"opset": 6, "min": -0.5, "max": 0.4}),
    ("Log", [POSITIVE], {}), ("Sqrt", [POSITIVE], {}), ("Reciprocal", [POSITIVE], {}),
    ("PRelu", [PICTURES, CHANNELS[0].reshape(3, 1, 1)], {}),
    ("Dropout", [PICTURES], {"seed": 1}),
    ("Dropout", [PICTURES, np.array(0.5, np.float32), np.array(False)], {}),
    ("Reshape", [PICTURES, np.array([0, -1], np.int64)], {}),
    ("Squeeze", [PICTURES[:, :1], np.array([1], np.int64)], {}),
    ("Unsqueeze", [PICTURES, np.array([0, -1], np.int64)], {}),
    ("Unsqueeze", [PICTURES], {"axes": [1], "opset": 11}),
    ("Expand", [PICTURES[:, :1], np.array([2, 2, 3, 4, 5], np.int64)], {}),
    ("Gather", [PICTURES, np.array([[1, -1], [1, 0]], np.int64)], {"axis": 1}),
    ("Transpose", [PICTURES], {}),
    ("Split", [PICTURES], {"axis": 2, "outputs": 2}),
    ("Softmax", [PICTURES], {"opset": 11, "axis": 2, "step": 1e-2, "tolerance": 2e-3}),
    ("ReduceMean", [PICTURES], {"axes": [1, -1], "keepdims": 0}),
    ("BatchNormalization", [PICTURES, *CHANNELS, np.abs(CHANNELS[1]) + np.float32(0.1)], {"epsilon": 1e-3}),
    ("InstanceNormalization", [PICTURES, *CHANNELS[:2]], {"epsilon": 1e-3}),
    ("LayerNormalization", [PICTURES, numbers(6, 4, 5), numbers(7, 4, 5)], {"axis": -2, "epsilon": 1e-3}),
    ("LayerNormalization", [PICTURES, numbers(6, 5)], {}),
    ("Resize", [PICTURES, None, np.array([1, 1, 2, 3], np.float32)], {"mode": "nearest", "step": 1}),
    ("Resize", [PICTURES, None, np.array([1, 1, 0.6, 1.7], np.float32)], {"mode": "nearest", "step": 1}),
    ("Resize", [PICTURES, None, None, np.array([2, 3, 7, 3], np.int64)], {"nearest_mode": "floor", "step": 1}),
    ("Upsample", [PICTURES, np.array([1, 1, 2, 2], np.float32)], {"opset": 9, "step": 1}),
]  # fmt: skip
ELSEWHERE = frozenset((
    "Add", "AveragePool", "Concat", "Conv", "ConvTranspose", "Div", "Gemm", "LRN", "MatMul", "Max", "MaxPool", "Mean",
    "Min", "Mul", "Pad", "Pow", "ReduceSum", "Slice", "Sub", "Sum", "Where",
))  # fmt: skip
"""tests/property/test_gradients.py"""


@pytest.mark.parametrize("operator", UNARY)
def test_operators_of_one_value(operator: str) -> None:
    check_operator(operator, [PICTURES], **UNARY[operator])


@pytest.mark.parametrize(("operator", "inputs", "attributes"), OTHERS)
def test_operators_with_further_inputs(operator: str, inputs: list[Array | None], attributes: dict[str, Any]) -> None:
    check_operator(operator, inputs, **attributes)


def test_each_derivative_is_tested() -> None:
    assert {*UNARY, *(operator for operator, _, _ in OTHERS), *ELSEWHERE} == set(DERIVATIVES)


def test_the_first_of_equals_takes_a_maximum_s_gradient() -> None:
    node = helper.make_node("MaxPool", ["x"], ["y"], kernel_shape=[2, 2], strides=[1, 2])
    made = model([node], [value("x", [None] * 4)], [])
    x, ones = np.zeros((1, 1, 3, 4), np.float32), np.ones((1, 1, 2, 2), np.float32)
    assert gradients(made, {"x": x}, ["x"], {"y": ones})["x"].tolist() == [[[[1, 0, 1, 0], [1, 0, 1, 0], [0] * 4]]]


@pytest.mark.parametrize("kind", Kind)
def test_starts_are_square_roots_of_the_fisher_information(kind: Kind) -> None:
    """Over all signs the mean of g g^T is F: diag(p) - p p^T, diag(p (1 - p)) or 1 / deviation^2."""
    logits = np.array([0.3, -1.2, 2.0])
    p = np.exp(logits) / np.exp(logits).sum()
    told = {Kind.SOFTMAX: p, Kind.LOG_SOFTMAX: np.log(p), Kind.SIGMOID: p}.get(kind, logits)
    found = np.zeros((3, 3))
    for signs in itertools.product((-1.0, 1.0), repeat=3):
        start_of_one = start(Target("x", "y", kind), told[None], np.array(signs)[None], deviation=0.5)[0]
        found += np.outer(start_of_one, start_of_one) / 8
    expected = {Kind.SIGMOID: np.diag(p * (1 - p)), Kind.VALUES: np.eye(3) * 4}.get(kind, np.diag(p) - np.outer(p, p))
    np.testing.assert_allclose(found, expected, atol=1e-7)


def test_signs_belong_to_samples() -> None:
    whole = random_signs([3, 2], range(10), seed=7, draw=1)
    parts = [random_signs([3, 2], range(first, first + 5), seed=7, draw=1) for first in (0, 5)]
    for number, together in enumerate(whole):
        assert set(together.reshape(-1).tolist()) == {-1.0, 1.0}
        assert np.array_equal(together, np.concatenate([part[number] for part in parts]))
    assert not np.array_equal(whole[0], random_signs([3, 2], range(10), seed=7, draw=2)[0])
    assert not np.array_equal(whole[0], random_signs([3, 2], range(10), seed=8, draw=1)[0])


def residual() -> ModelProto:
    """Two paths to the output, three classes; ``moved`` is added to ``conv``, so that it can be disturbed."""
    net = Net(5)
    net.node("Conv", "x", net.weight("w1", 4, 2, 3, 3), name="conv", pads=[1] * 4)
    net.node("Add", "conv", "moved", name="sum")
    net.node("Tanh", "sum", name="bent")
    net.node("Conv", "bent", net.weight("w2", 4, 1, 3, 3), name="depthwise", pads=[1] * 4, group=4)
    net.node("Mul", "depthwise", "bent", name="product")
    net.node("Concat", "product", "sum", name="joined", axis=1)
    net.node("AveragePool", "joined", name="pooled", kernel_shape=[2, 2], strides=[2, 2])
    net.node("Flatten", "pooled", name="flat")
    net.node("MatMul", "flat", net.weight("w3", 32, 3, spread=0.6), name="logits")
    net.node("Softmax", "logits", name="y")
    return net.done(value("x", ["N", 2, 4, 4]), value("moved", None))


def all_signs(sizes: Sequence[int], samples: range, *, seed: int, draw: int) -> list[Array]:
    """Instead of random ones: draw by draw each combination of three signs."""
    combination = list(itertools.product((-1, 1), repeat=3))[draw]
    return [np.tile(np.array(combination, np.float32), (len(samples), 1))]


def test_a_disturbed_layer_diverges_by_half_its_fisher_information(monkeypatch: pytest.MonkeyPatch) -> None:
    """KL(p || p of y + d) = d^T F d / 2 + O(d^3), for each d along one value of the layer."""
    made, x = residual(), numbers(8, 3, 2, 4, 4)
    evaluate, step, still = exactly(made), 1e-4, np.zeros((1, 4, 4, 4))
    p = evaluate({"x": x, "moved": still})["y"]
    expected = np.zeros(4)
    for index in np.ndindex(4, 4, 4):
        moved = still.copy()
        moved[(0, *index)] = step
        q = evaluate({"x": x, "moved": moved})["y"]
        expected[index[0]] += 2 * (p * np.log(p / q)).sum(axis=1).mean() / step**2
    monkeypatch.setattr(backward, "random_signs", all_signs)
    batch = {"x": x, "moved": still.astype(np.float32)}
    found = output_sensitivity(made.SerializeToString(), ["conv"], [batch], seed=0, draws=8)
    np.testing.assert_allclose(found.weights["conv"], expected, rtol=1e-3)
    assert found.traces == {"conv": pytest.approx(expected.sum(), rel=1e-3)}


def test_random_signs_come_near_all_signs(monkeypatch: pytest.MonkeyPatch) -> None:
    data = residual().SerializeToString()
    batch = {"x": np.tile(numbers(8, 3, 2, 4, 4), (40, 1, 1, 1)), "moved": np.zeros((1, 1, 1, 1), np.float32)}
    drawn = output_sensitivity(data, ["sum", "logits"], [batch], seed=3, draws=4)
    monkeypatch.setattr(backward, "random_signs", all_signs)
    exact = output_sensitivity(data, ["sum", "logits"], [batch], seed=3, draws=8)
    for name, weights in exact.weights.items():
        np.testing.assert_allclose(drawn.weights[name], weights, rtol=0.2)


def split(x: Array, size: int) -> Iterator[dict[str, Array]]:
    for first in range(0, len(x), size):
        yield {"x": x[first : first + size]}


def measured(made: ModelProto, names: Sequence[str] | Mapping[str, int], x: Array, **options: Any) -> Sensitivity:
    return output_sensitivity(made.SerializeToString(), names, [{"x": x}], **{"seed": 1, **options})


def test_batches_and_threads_change_nothing() -> None:
    data, x = convnet().SerializeToString(), numbers(9, 64, 3, 21, 21)
    names = ["conv1", "conv2", "fc1", "fc2", "sum2"]
    whole = output_sensitivity(data, names, split(x, 64), seed=4, draws=2)
    assert (whole.samples, whole.unreached, list(whole.weights)) == (64, {}, names)
    assert all(weights.dtype == np.float64 and (weights > 0).any() for weights in whole.weights.values())
    for size in (1, 7):
        found = output_sensitivity(data, names, split(x, size), seed=4, draws=2)
        for name, weights in whole.weights.items():
            np.testing.assert_allclose(found.weights[name], weights, rtol=1e-6, atol=1e-6 * weights.max())
    threaded = output_sensitivity(data, names, split(x, 7), seed=4, draws=2, threads=3)
    assert all(np.array_equal(threaded.weights[name], found.weights[name]) for name in names)
    # What is added to a layer changes nothing of its gradient.
    np.testing.assert_array_equal(whole.weights["fc2"], whole.weights["sum2"])


def test_weights_may_lie_beside_the_graph() -> None:
    made, x = convnet(), numbers(9, 8, 3, 21, 21)
    names = ["conv1", "conv2", "fc1", "fc2"]
    inside = measured(made, names, x)
    weights = {item.name: numpy_helper.to_array(item).copy() for item in made.graph.initializer}
    for item in made.graph.initializer:
        item.ClearField("raw_data")
        item.data_location = item.EXTERNAL
        item.external_data.add(key="location", value="mobilemodel")
    beside = measured(made, names, x, weights=weights)
    for name in names:
        np.testing.assert_allclose(beside.weights[name], inside.weights[name], rtol=1e-6)


def forked(*nodes: tuple[Any, ...], output: str = "y", kind: int = TensorProto.FLOAT) -> ModelProto:
    made = [
        helper.make_node(node[0], list(node[1]), list(node[2]), **(node[3] if len(node) > 3 else {})) for node in nodes
    ]
    return model(made, [value("x", ["N", 4])], [], outputs=[value(output, None, kind)])


def test_one_path_without_a_derivative_makes_a_value_unreached() -> None:
    made = forked(("Relu", "x", "a"), ("Tanh", "a", "b"), ("Sin", "a", "c"), ("Add", "bc", "d"), ("Softmax", "d", "y"))
    found = measured(made, ["a", "b", "c", "d"], numbers(1, 5, 4))
    assert list(found.weights) == ["b", "c", "d"]
    assert found.unreached == {"a": "no derivative of Sin 'c'"}


@pytest.mark.parametrize(("node", "why"), [
    (("Mod", ("a", "one"), "b", {"fmod": 1}), "no derivative of Mod 'b'"),
    (("Pow", ("one", "a"), "b"), "no derivative of Pow 'b' by its input 1"),
    (("Cast", "a", "b", {"to": TensorProto.INT32}), "no derivative of Cast 'b': a cast to integers has no derivative"),
    (("Relu", "x", "b"), "no path leads from it to an output"),
    (("Shape", "a", "b"), "no path leads from it to an output"),
])  # fmt: skip
def test_the_obstacle_is_named(node: tuple[Any, ...], why: str) -> None:
    made = forked(("Exp", "x", ["one"]), ("Relu", "x", "a"), node, ("Cast", "b", "c", {"to": 1}), ("Exp", "c", "y"))
    assert measured(made, ["a"], numbers(1, 5, 4)) == Sensitivity({}, 0, {"a": why})


def test_subgraphs_are_obstacles() -> None:
    """A branch may take values from around it without naming them as inputs."""
    branch = helper.make_graph([helper.make_node("Relu", ["a"], ["r"])], "g", [], [value("r")])
    condition = helper.make_node("Constant", [], ["yes"], value=helper.make_tensor("t", TensorProto.BOOL, [], [True]))
    made = forked(("Exp", "x", "a"), ("If", ["yes"], "y", {"then_branch": branch, "else_branch": branch}))
    made.graph.node.insert(0, condition)
    assert measured(made, ["a"], numbers(1, 5, 4)).unreached == {"a": "no derivative of If 'y'"}


def test_shapes_carry_no_gradient() -> None:
    """Exporters write Reshape's shape as a chain of operators behind Shape: nothing flows there."""
    made = forked(("Relu", "x", "a"), ("Shape", "a", "s"), ("Reshape", "as", "b"), ("Softmax", "b", "y"))
    assert measured(made, ["a"], numbers(1, 5, 4)).unreached == {}


def test_gradients_start_behind_operators_that_keep_values() -> None:
    direct = forked(("Relu", "x", "a"), ("Softmax", "a", "y"))
    shaped = forked(("Relu", "x", "a"), ("Softmax", "a", "p"), ("Identity", "p", "q"), ("Flatten", "q", "y"))
    x = numbers(1, 5, 4)
    np.testing.assert_array_equal(measured(direct, "a", x).weights["a"], measured(shaped, "a", x).weights["a"])
    logits = forked(("Relu", "x", "y"))
    found = measured(logits, "y", x, logits=["y"]).weights["y"]
    np.testing.assert_allclose(found, measured(direct, "a", x).weights["a"], rtol=1e-5)


def test_outputs_that_are_no_probabilities_count_by_their_deviation() -> None:
    """With y = 3 a, |dL/da| = 3 / deviation of y, whatever the sign."""
    made = forked(("Relu", "x", "a"), ("Sum", "aaa", "y"))
    x = numbers(1, 50, 4)
    deviation = (3 * np.maximum(x, 0)).std()
    np.testing.assert_allclose(measured(made, "a", x).weights["a"], np.full(4, (3 / deviation) ** 2), rtol=1e-5)
    with pytest.raises(CheckFailedError, match=r"layer 'y': the standard deviation .* found 0.0"):
        measured(made, "a", np.zeros((5, 4), np.float32))


def test_several_outputs_are_independent() -> None:
    made = forked(("Exp", "x", "a"), ("Softmax", "a", "y"), ("Sigmoid", "a", "z"))
    x = numbers(1, 400, 4)
    alone = measured(made, "a", x).weights["a"]
    made.graph.output.append(value("z"))
    both = measured(made, "a", x, draws=4).weights["a"]
    p = 1 / (1 + np.exp(-np.exp(x)))
    np.testing.assert_allclose(both, alone + (p * (1 - p)).mean(axis=0), rtol=0.1)


@pytest.mark.parametrize(("axis", "channels"), [(None, 2), (-1, 4), (0, 5), (2, 3)])
def test_the_channel_axis(axis: int | None, channels: int) -> None:
    made = model(
        [helper.make_node("Exp", ["x"], ["a"]), helper.make_node("Softmax", ["a"], ["y"])], [value("x", [None] * 4)], []
    )
    found = measured(made, ["a"] if axis is None else {"a": axis}, numbers(1, 5, 2, 3, 4))
    assert found.weights["a"].shape == (channels,)


def test_wrong_calls() -> None:
    made, x = forked(("Exp", "x", "a"), ("Softmax", "a", "y")), numbers(1, 5, 4)
    with pytest.raises(UsageError, match="tensor 'nowhere': the graph has no such value"):
        measured(made, ["a", "nowhere"], x)
    with pytest.raises(UsageError, match=r"layer 'a': .* expected an axis of 2, found 2"):
        measured(made, {"a": 2}, x)
    for option, least in (("seed", 0), ("draws", 1), ("threads", 1)):
        with pytest.raises(UsageError, match=f"{option}: expected at least {least}"):
            measured(made, ["a"], x, **{option: least - 1})
    with pytest.raises(UsageError, match="no samples"):
        output_sensitivity(made.SerializeToString(), ["a"], [], seed=1)
    nothing: list[dict[str, Array]] = [{}, {"x": x[:0]}, {"x": np.array(1, np.float32)}]
    for broken in nothing:
        with pytest.raises(UsageError, match="a batch without samples"):
            output_sensitivity(made.SerializeToString(), ["a"], [broken], seed=1)
    with pytest.raises(CheckFailedError, match="ONNX Runtime could not run"):
        measured(made, ["a"], x.astype(np.float64))
    with pytest.raises(MalformedSourceError):
        output_sensitivity(b"no model", ["a"], [{"x": x}], seed=1)


def test_what_is_not_finite_is_named() -> None:
    made = forked(("Exp", "x", "a"), ("Sqrt", "a", "b"), ("Softmax", "b", "y"))
    with pytest.raises(CheckFailedError, match="layer 'y': an output is not finite"):
        measured(made, ["a"], np.full((5, 4), np.nan, np.float32))
    made = forked(("Relu", "x", "a"), ("Sqrt", "a", "b"), ("Softmax", "b", "y"))
    with pytest.raises(CheckFailedError, match="layer 'a': a gradient is not finite"):
        measured(made, ["a"], numbers(1, 5, 4))


def test_an_output_for_all_samples_together() -> None:
    made = forked(("Exp", "x", "a"), ("ReduceMean", "a", "y", {"axes": [0], "keepdims": 0}))
    with pytest.raises(UnsupportedSourceError, match="layer 'y': an output cannot be divided among the samples"):
        measured(made, ["a"], numbers(1, 5, 4))


def test_dropout_that_trains_is_refused() -> None:
    made = forked(("Exp", "x", "a"), ("Dropout", ("a", "half", "yes"), "b"), ("Softmax", "b", "y"))
    made.graph.initializer.append(helper.make_tensor("half", TensorProto.FLOAT, [], [0.5]))
    made.graph.initializer.append(helper.make_tensor("yes", TensorProto.BOOL, [], [True]))
    with pytest.raises(UnsupportedSourceError, match="Dropout in training mode"):
        measured(made, ["a"], numbers(1, 5, 4))


@pytest.mark.parametrize("path", [
    "cifar-alexnet/model.onnx", "cifar-resnet/model.onnx", "squeezenet-dc/squeezenet.onnx",
    "ultraface/version-RFB-320.onnx", "ultraface/version-slim-320_simplified.onnx",
])  # fmt: skip
def test_real_networks_are_reached_everywhere(zoo: Path, path: str) -> None:
    import onnx

    data = (zoo / path).read_bytes()
    nodes = onnx.load_model_from_string(data).graph.node
    names = [node.output[0] for node in nodes if node.op_type in ("Conv", "Gemm", "MatMul")]
    found = output_sensitivity(data, names, [random_inputs(data, 1, batch=1)], seed=1)
    assert found.unreached == {}
    assert all((found.weights[name] >= 0).all() and found.weights[name].any() for name in names)


def test_apart_is_apart() -> None:
    assert np.diff(np.sort(apart(1, 3, 4).reshape(-1))).min() > 0.09
