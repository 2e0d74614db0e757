"""remove_dead: units that make no difference, and what no output needs."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from onnx import ModelProto

from mobilemodel.model import Model
from mobilemodel.transforms import remove_dead
from tests.models import Net, model, value
from tests.transforming import check_descriptions, imported, largest_difference, operators, plain

Array = npt.NDArray[Any]


def values_of(found: Model) -> dict[str, Array]:
    """The tensors by name."""
    return {t.name: np.frombuffer(t.read(), np.float32).reshape(t.dims) for t in found.tensors if t.dtype == 1}


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
