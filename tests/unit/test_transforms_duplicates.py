"""remove_duplicates: what is equal becomes one."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt

from mobilemodel.model import QuantizedValue, Role
from mobilemodel.transforms import remove_duplicates
from mobilemodel.v1 import bundle_pb2 as pb
from tests import models
from tests.models import Net, in_if, model, value
from tests.transforming import check_descriptions, imported, largest_difference, plain

Array = npt.NDArray[Any]


def random(*shape: int) -> Array:
    return np.random.default_rng(sum(shape)).standard_normal(shape)


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
