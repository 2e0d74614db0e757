"""remove_dead, remove_duplicates, low_rank and prune: what they do, what they refuse, and what they say of it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from onnx import ModelProto, helper

import mobilemodel as mm
from mobilemodel.errors import UnsupportedSourceError, UsageError
from mobilemodel.model import Model, QuantizedValue, Role
from mobilemodel.runtime.session import random_inputs, run
from mobilemodel.transforms import fold, low_rank, low_rank_layers, prune, remove_dead, remove_duplicates
from mobilemodel.transforms.moments import response_error
from mobilemodel.transforms.saliency import surgeon
from mobilemodel.v1 import bundle_pb2 as pb
from mobilemodel_converters import load_model
from tests import models
from tests.models import NETWORKS, Net, in_if, model, tensor, value
from tests.transforming import check_descriptions, imported, largest_difference, operators, outputs, plain

Array = npt.NDArray[Any]


def values_of(found: Model) -> dict[str, Array]:
    """The tensors by name."""
    return {t.name: np.frombuffer(t.read(), np.float32).reshape(t.dims) for t in found.tensors if t.dtype == 1}


def test_a_transformed_model_becomes_a_bundle(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Fold, split and prune a network, then convert it: the bundle computes what the new model does."""
    made = NETWORKS["resnet"]()
    (tmp_path / "model.onnx").write_bytes(made.SerializeToString())
    new = low_rank(fold(imported(made)).model, "b0.conv1.weight", rank=8).model
    new = remove_duplicates(remove_dead(prune(new, 0.3).model).model).model
    monkeypatch.setattr("mobilemodel_converters.load_model", lambda *_: new)
    report = mm.convert(tmp_path / "model.onnx", tmp_path / "out.mm", scheme="lossless")
    assert {row.name for row in report.tensors} == {item.name for item in new.tensors}
    inputs = random_inputs(made.SerializeToString(), 0)
    with mm.open(tmp_path / "out.mm") as bundle:
        found = list(run(mm.session(bundle), inputs).values())
    np.testing.assert_array_equal(found[0], outputs(plain(new), inputs)[0])


# Dead weights


def two_layers(
    first: Array, second: Array, activation: str = "Relu", between: tuple[str, ...] = (), **attributes: Any
) -> ModelProto:
    """conv -> activation -> ... -> conv or Gemm."""
    net = Net(0)
    bias = net.constant("b1", np.linspace(-1, 2, len(first), dtype=np.float32))
    x = net.node("Conv", "x", net.constant("w1", first.astype(np.float32)), bias, name="c1")
    x = net.node(activation, x)
    for operator in between:
        x = net.node(operator, x)
    weight = net.constant("w2", second.astype(np.float32))
    if second.ndim == 2:
        net.node("Gemm", x, weight, name="y", transB=1)
    else:
        net.node("Conv", x, weight, name="y", **attributes)
    rank = second.ndim
    return model(net.nodes, [value("x", ["N", first.shape[1], 5, 5])], net.initializers,
                 outputs=[value("y", [None] * rank)])  # fmt: skip


def random(*shape: int) -> Array:
    return np.random.default_rng(sum(shape)).standard_normal(shape)


def test_units_that_nothing_uses_go() -> None:
    second = random(3, 4, 1, 1)
    second[:, [1, 2]] = 0
    made = two_layers(random(4, 2, 3, 3), second, "Sigmoid")
    transformed = remove_dead(imported(made))
    (change,) = transformed.changes
    assert change.what == "2 of 4 units removed: 2 that nothing uses, 0 of one value each"
    found = values_of(transformed.model)
    assert found["w1"].shape == (2, 2, 3, 3)
    assert found["w2"].shape == (3, 2, 1, 1)
    assert found["b1"].tolist() == [-1, 2]
    assert largest_difference(made, plain(transformed.model)) < 1e-6
    assert change.before is not None
    assert change.after is not None
    assert change.before.parameters - change.after.parameters == 2 * (2 * 9 + 1) + 3 * 2
    check_descriptions(transformed.model)


@pytest.mark.parametrize("activation", ["Relu", "Sigmoid", "Elu"])
def test_a_unit_of_one_value_goes_into_the_next_bias(activation: str) -> None:
    first = random(4, 2, 3, 3)
    first[[0, 3]] = 0
    made = two_layers(first, random(3, 36), activation, ("Flatten",))
    transformed = remove_dead(imported(made))
    assert [change.what for change in transformed.changes] == [
        "2 of 4 units removed: 0 that nothing uses, 2 of one value each"
    ]
    found = values_of(transformed.model)
    assert found["w2"].shape == (3, 18)
    assert largest_difference(made, plain(transformed.model)) < 1e-6
    # relu(-1) = 0 adds nothing, the other unit's value does.
    assert np.any(next(array for name, array in found.items() if name not in ("w1", "w2", "b1")))


def test_a_value_that_padding_cuts_off_stays_unless_it_is_zero() -> None:
    """relu(-1) = 0 is like padding; relu(2) is not."""
    first = random(4, 2, 3, 3)
    first[[0, 3]] = 0
    made = two_layers(first, random(3, 4, 3, 3), pads=[1, 1, 1, 1])
    transformed = remove_dead(imported(made))
    assert [change.what for change in transformed.changes] == [
        "1 of 4 units removed: 0 that nothing uses, 1 of one value each"
    ]
    (kept,) = transformed.kept
    assert kept.layer == "c1"
    assert kept.reason.startswith("1 units have no weights but zeros: ")
    assert largest_difference(made, plain(transformed.model)) < 1e-6


def test_one_unit_is_left_of_a_layer_that_is_all_zero() -> None:
    made = two_layers(np.zeros((4, 2, 3, 3)), random(3, 36), "Relu", ("Flatten",))
    transformed = remove_dead(imported(made))
    assert values_of(transformed.model)["w1"].shape == (1, 2, 3, 3)
    assert largest_difference(made, plain(transformed.model)) < 1e-6


def test_what_mixes_units_keeps_them() -> None:
    first = random(4, 2, 3, 3)
    first[0] = 0
    made = two_layers(first, random(3, 4, 1, 1), "Softmax")
    transformed = remove_dead(imported(made))
    assert not transformed.changes
    assert [item.reason for item in transformed.kept] == ["1 units have no weights but zeros: Softmax takes them"]


def test_nodes_and_values_that_no_output_needs_go() -> None:
    net = Net(1)
    net.gemm("fc", "x", 4, 3, "y")
    net.node("Relu", net.gemm("other", "y", 5, 4))
    net.constant("alone", np.ones(7, np.float32))
    made = model(net.nodes, [value("x", ["N", 3])], net.initializers, outputs=[value("y", [None, 4])])
    old = imported(made)
    transformed = remove_dead(old)
    assert operators(transformed.model) == ["Gemm"]
    assert {item.name for item in plain(transformed.model).graph.initializer} == {"fc.weight", "fc.bias"}
    assert {name for change in transformed.changes for name in change.removed} >= {"other.weight", "alone"}
    assert "alone" in {item.name for item in old.inline}
    assert "alone" not in {item.name for item in transformed.model.inline}
    check_descriptions(transformed.model)


# Duplicates


def test_equal_tensors_become_one_that_is_described_as_the_first_fc_weight() -> None:
    net = Net(2)
    same = random(8, 8).astype(np.float32)
    x = net.node("Gather", net.constant("table", same), "ids")
    x = net.node("MatMul", x, net.constant("w1", same.copy()))
    net.node("Gemm", x, net.constant("w2", same.copy()), name="y")
    made = model(net.nodes, [value("ids", [3], 7)], net.initializers, outputs=[value("y", [3, 8])])
    transformed = remove_duplicates(imported(made))
    (left,) = transformed.model.tensors
    assert (left.name, left.role, left.operator) == ("w1", Role.FC, "MatMul")
    assert {change.layer for change in transformed.changes} == {"table", "w2"}
    assert largest_difference(made, plain(transformed.model)) == 0
    check_descriptions(transformed.model)


def test_equal_bytes_of_other_types_or_dims_are_no_duplicates() -> None:
    net = Net(3)
    x = net.node("MatMul", "x", net.constant("a", np.zeros((4, 4), np.float32)))
    x = net.node("Add", x, net.constant("b", np.zeros(16, np.float32).reshape(1, 16)[:, :4]))
    net.node("Add", x, net.constant("c", np.zeros(4, np.float32)), name="y")
    made = model(net.nodes, [value("x", ["N", 4])], net.initializers, outputs=[value("y", [None, 4])])
    assert not remove_duplicates(imported(made)).changes


def test_equal_weights_in_branches_become_one() -> None:
    made = in_if()
    then, other = (a.g for a in made.graph.node[0].attribute)
    other.initializer[0].raw_data = then.initializer[0].raw_data
    made.graph.output[0].CopyFrom(value("y", [3, models.OUTPUTS]))
    old = imported(made)
    transformed = remove_duplicates(old)
    assert len(old.tensors) == 2
    assert [item.hoisted for item in transformed.model.tensors] == [True]
    assert largest_difference(made, plain(transformed.model)) == 0
    assert largest_difference(made, plain(transformed.model, frozenset((transformed.model.tensors[0].name,)))) == 0


def test_defaults_of_inputs_and_quantized_tensors_are_no_duplicates() -> None:
    net = Net(4)
    same = random(4, 4).astype(np.float32)
    x = net.node("MatMul", "x", net.constant("w1", same))
    net.node("MatMul", x, net.constant("w2", same.copy()), name="y")
    made = model(net.nodes, [value("x", ["N", 4]), value("w2", [4, 4])], net.initializers,
                 outputs=[value("y", [None, 4])])  # fmt: skip
    assert not remove_duplicates(imported(made)).changes
    del made.graph.input[1]
    old = imported(made)
    finished = QuantizedValue(pb.Palette(), np.zeros((4, 4), np.uint8))
    tensors = tuple(replace(t, quantized=finished) if t.name == "w2" else t for t in old.tensors)
    transformed = remove_duplicates(replace(old, tensors=tensors))
    assert not transformed.changes
    assert [item.layer for item in transformed.kept] == ["w2"]


@pytest.mark.parametrize("name", NETWORKS)
def test_nothing_is_lost_in_networks_without_dead_or_double_weights(name: str) -> None:
    made = NETWORKS[name]()
    made.graph.output[0].type.tensor_type.shape.SetInParent()
    old = imported(made)
    for transform in (remove_dead, remove_duplicates):
        transformed = transform(old)
        assert {item.name for item in transformed.model.tensors} == {item.name for item in old.tensors}
        assert all(not item.reason.startswith("0") for item in transformed.kept)


# Low rank


def test_what_saves_nothing_is_refused_with_the_numbers() -> None:
    old = imported(NETWORKS["alexnet"]())
    assert low_rank_layers(old) == ("conv1.weight", "conv2.weight", "fc6.weight", "fc7.weight", "fc8.weight")
    with pytest.raises(UsageError, match=r"(?s)rank 39 saves nothing.*fewer than the 6144 weights.*6240.*up to 38"):
        low_rank(old, "fc7.weight", rank=39)
    low_rank(old, "fc7.weight", rank=38)
    with pytest.raises(UsageError, match=r"which an energy of 0.99999 takes"):
        low_rank(old, "fc7.weight", energy=0.99999)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"layer": "fc9", "rank": 2}, "there is no such layer"),
        ({"layer": "fc7.weight"}, "either a rank or an energy"),
        ({"layer": "fc7.weight", "rank": 2, "energy": 0.5}, "either a rank or an energy"),
        ({"layer": "fc7.weight", "rank": 0}, "at least 1"),
        ({"layer": "fc7.weight", "energy": 1.5}, "at most 1"),
        ({"layer": "fc7.weight", "rank": 2, "moments": np.eye(3)}, "96 x 96"),
        ({"layer": "fc7.weight", "rank": 2, "moments": np.full((96, 96), np.nan)}, "not finite"),
        ({"layer": "fc7.weight", "rank": 2, "moments": np.triu(np.ones((96, 96)))}, "symmetric"),
    ],
)
def test_wrong_calls_are_usage_errors(arguments: dict[str, Any], said: str) -> None:
    with pytest.raises(UsageError, match=said):
        low_rank(imported(NETWORKS["alexnet"]()), **arguments)


def test_a_shared_weight_is_not_split() -> None:
    net = Net(5)
    net.weight("w", 20, 20)
    net.node("MatMul", net.node("MatMul", "x", "w"), "w", name="y")
    old = imported(model(net.nodes, [value("x", ["N", 20])], net.initializers, outputs=[value("y", [None, 20])]))
    assert low_rank_layers(old) == ()
    with pytest.raises(UnsupportedSourceError, match="used elsewhere too"):
        low_rank(old, "y", rank=2)


def test_both_layers_take_the_place_of_the_one() -> None:
    """Ranks within a role and everything else are as an importer tells them; Klaus's mix knows the first FC by it."""
    made = NETWORKS["alexnet"]()
    transformed = low_rank(imported(made), "fc6.weight", rank=8)
    found = {item.name: item.rank_in_role for item in transformed.model.tensors if item.role is Role.FC}
    assert found == {"fc6.first.weight": 0, "fc6.second.weight": 1, "fc7.weight": 2, "fc8.weight": 3}
    check_descriptions(transformed.model)
    (change,) = transformed.changes
    assert not change.exact
    assert change.loss is not None
    assert 0 < change.loss < 1


def test_a_pooled_convolution_stays_two_fc_layers() -> None:
    made = models.fc_ways()["1x1 conv after a global pool"].model
    transformed = low_rank(imported(made), "w", rank=2)
    assert [item.role for item in transformed.model.tensors] == [Role.FC, Role.FC]
    assert [item.operator for item in transformed.model.tensors] == ["Conv", "Conv"]


def test_moments_make_the_response_better_and_the_weights_worse(zoo: Path) -> None:
    """On inputs that the moments did not see: fc8 of cifar-alexnet, and the network's own activations."""
    folder = zoo / "cifar-alexnet"
    old = load_model([folder / "model.onnx"])
    with np.load(folder / "calibration.npz") as data:
        pictures = data["x"][:384].transpose(0, 3, 1, 2)
    mean = np.array((125.268845, 122.93302, 113.86284), np.float32)[:, None, None]
    tapped = plain(old)
    tapped.graph.output.append(helper.make_tensor_value_info("fc7_relu", 1, ["N", 2048]))
    inputs = {"data": ((pictures - mean) / 64).astype(np.float32)}
    seen = outputs(tapped, inputs)[1].astype(np.float64)
    fit, judge = seen[:256], seen[256:]
    wanted = values_of(old)["fc8.weight"].astype(np.float64)
    errors = []
    for moments in (None, fit.T @ fit / len(fit)):
        made = low_rank(old, "fc8", rank=5, moments=moments)
        found = values_of(made.model)
        response = judge @ (found["fc8.second.weight"].astype(np.float64) @ found["fc8.first.weight"]).T
        errors.append(float(np.linalg.norm(response - judge @ wanted.T) / np.linalg.norm(judge @ wanted.T)))
    assert errors[1] < 0.9 * errors[0]
    with pytest.raises(UsageError, match=r"(?s)rank 1366 saves nothing.*8388608.*8392704.*up to 1365 save"):
        low_rank(old, "fc6", rank=1366)
    old.close()


# Pruning


def test_the_smallest_weights_of_each_tensor_become_zero() -> None:
    made = NETWORKS["alexnet"]()
    old = imported(made)
    transformed = prune(old, 0.75)
    before, after = values_of(old), values_of(transformed.model)
    assert {change.layer for change in transformed.changes} == {
        "conv1.weight", "conv2.weight", "fc6.weight", "fc7.weight", "fc8.weight",
    }  # fmt: skip
    for change in transformed.changes:
        name = change.layer
        zero = after[name] == 0
        assert np.count_nonzero(zero) == round(0.75 * zero.size)
        assert np.abs(before[name][zero]).max() <= np.abs(before[name][~zero]).min()
        np.testing.assert_array_equal(after[name][~zero], before[name][~zero])
        error = np.linalg.norm(after[name] - before[name]) / np.linalg.norm(before[name])
        assert change.loss == pytest.approx(float(error), rel=1e-5)
    np.testing.assert_array_equal(before["fc6.bias"], after["fc6.bias"])
    again = prune(transformed.model, 0.5)
    assert not again.changes
    assert {item.reason for item in again.kept} == {"that many of its weights are zero already"}


def test_across_layers_one_threshold_holds() -> None:
    old = imported(NETWORKS["alexnet"]())
    after = values_of(prune(old, 0.6, across=True).model)
    before = values_of(old)
    names = [item.name for item in old.tensors if item.role in (Role.FC, Role.CONV)]
    gone = np.concatenate([np.abs(before[name][after[name] == 0]) for name in names])
    left = np.concatenate([np.abs(before[name][after[name] != 0]) for name in names])
    assert gone.max() <= left.min()
    assert gone.size == round(0.6 * (gone.size + left.size))


@pytest.mark.parametrize(("network", "name", "groups"), [("alexnet", "fc7.weight", 1), ("alexnet", "conv2.weight", 2)])
def test_saliency_beats_magnitude_where_inputs_go_together(network: str, name: str, groups: int) -> None:
    """Moments are in the order of the tensor's matrix: rows of outputs, and for a convolution positions x channels."""
    old = imported(NETWORKS[network]())
    weight = values_of(old)[name]
    rows = weight.transpose(0, 2, 3, 1).reshape(len(weight), -1) if weight.ndim == 4 else weight
    columns = rows.shape[1]
    generator = np.random.default_rng(0)
    x = generator.standard_normal((groups, 4 * columns, 12)) @ generator.standard_normal((12, columns))
    x += 0.3 * generator.standard_normal(x.shape)
    moments = x.transpose(0, 2, 1) @ x
    errors = []
    for known in ({}, {name: moments}):
        transformed = prune(old, {name: 0.5}, moments=known)
        after = values_of(transformed.model)[name]
        found = after.transpose(0, 2, 3, 1).reshape(rows.shape) if weight.ndim == 4 else after
        difference = (found - rows).reshape(groups, -1, columns) @ x.transpose(0, 2, 1)
        wanted = rows.reshape(groups, -1, columns) @ x.transpose(0, 2, 1)
        errors.append(float(np.linalg.norm(difference) / np.linalg.norm(wanted)))
        assert np.count_nonzero(found == 0) >= round(0.5 * found.size)
    (change,) = transformed.changes
    assert change.loss == pytest.approx(errors[1], rel=1e-4)
    assert errors[1] < 0.7 * errors[0]
    check_descriptions(transformed.model)


def test_blocks_of_columns_make_up_for_each_other() -> None:
    """300 columns are three blocks: better than pruning each block for itself."""
    generator = np.random.default_rng(1)
    weight = generator.standard_normal((20, 300))
    x = generator.standard_normal((900, 20)) @ generator.standard_normal((20, 300))
    moments = (x + 0.2 * generator.standard_normal(x.shape)).T @ x
    moments = (moments + moments.T) / 2 + 10 * np.eye(300)
    together = surgeon(weight, moments, 0.5)
    alone = np.hstack([
        surgeon(weight[:, place : place + 128], moments[place : place + 128, place : place + 128], 0.5)
        for place in (0, 128, 256)
    ])  # fmt: skip
    errors = [response_error(found[None], weight[None], moments[None]) for found in (together, alone)]
    assert errors[0] < 0.7 * errors[1]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"sparsity": 1.5}, "0 to 1"),
        ({"sparsity": float("nan")}, "0 to 1"),
        ({"sparsity": {"fc9": 0.5}}, "the sparsity of no tensor"),
        ({"sparsity": 0.5, "moments": {"fc9": np.eye(2)}}, "second moments of no tensor"),
        ({"sparsity": 0.5, "moments": {"fc7.weight": np.eye(2)}}, "96 x 96"),
        ({"sparsity": 0.5, "moments": {"fc7.weight": 1 - 0.9 * np.eye(96)}}, "positive semidefinite"),
        ({"sparsity": 0.5, "moments": {"fc7.weight": np.eye(96)}, "across": True}, "one sparsity and no moments"),
    ],
)
def test_wrong_prunings_are_usage_errors(arguments: dict[str, Any], said: str) -> None:
    with pytest.raises(UsageError, match=said):
        prune(imported(NETWORKS["alexnet"]()), **arguments)


def test_values_that_are_not_finite_are_kept() -> None:
    made = NETWORKS["alexnet"]()
    weight = next(item for item in made.graph.initializer if item.name == "fc8.weight")
    weight.CopyFrom(tensor("fc8.weight", np.full((10, 64), np.inf, np.float32)))
    transformed = prune(imported(made), {"fc8.weight": 0.5})
    assert not transformed.changes
    assert [item.reason for item in transformed.kept] == ["it holds values that are not finite, or none"]


def test_pruned_constants_keep_their_zeros_inside_the_graph() -> None:
    made = in_if()
    made.graph.output[0].CopyFrom(value("y", [3, models.OUTPUTS]))
    transformed = prune(imported(made), {"w": 1.0})
    inside = {
        item.name: item for item in ModelProto.FromString(transformed.model.build_graph(frozenset())).graph.initializer
    }
    assert not any(inside["w"].raw_data)
