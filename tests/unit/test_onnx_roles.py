"""Which weight is what, and in which order: the rows of a matrix of codes are the layer's outputs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from onnx import ModelProto, TensorProto, helper

import mobilemodel as mm
from mobilemodel.audit.report import Report
from mobilemodel.model import SourceTensor
from mobilemodel.runtime import random_inputs, run, session
from mobilemodel_converters.onnx import OnnxConverter
from tests import models
from tests.models import INPUTS, OUTPUTS, Net, W, Way, model, tensor, value

WAYS = models.fc_ways()


def convert(made: ModelProto, folder: Path, scheme: str) -> Report:
    source = folder / "model.onnx"
    source.write_bytes(made.SerializeToString())
    return mm.convert(source, folder / "out.mm", scheme=scheme, options=mm.ConvertOptions(force=True))


def roles(made: ModelProto, folder: Path) -> dict[str, SourceTensor]:
    source = folder / "model.onnx"
    source.write_bytes(made.SerializeToString())
    loaded = OnnxConverter().load([source])
    loaded.close()
    return {item.name: item for item in loaded.tensors}


def data(way: Way) -> np.ndarray[Any, Any]:
    whole = np.random.default_rng(8).integers(-4, 5, (3, INPUTS)).astype(np.float32)
    if way.pictures:
        return np.broadcast_to(whole[:, :, None, None], (3, INPUTS, 4, 4)).copy()
    return whole.T.copy() if way.columns else whole


@pytest.mark.parametrize("name", WAYS)
def test_every_way_of_writing_an_fc_layer(name: str, tmp_path: Path) -> None:
    """The decoded matrix is outputs x inputs, and the layer still computes x W^T."""
    way = WAYS[name]
    x = data(way)
    report = convert(way.model, tmp_path, "kmeans-4")
    row = next(row for row in report.tensors if row.name == way.weight)
    assert (row.role, row.encoding, row.decision, row.sqnr_db) == ("fc", "palette", "quantized", None)
    with mm.open(tmp_path / "out.mm") as bundle:
        stored = bundle[way.weight]
        assert stored.indices().shape == (OUTPUTS, INPUTS)
        assert np.array_equal(stored.tables().reshape(-1).astype(np.float32)[stored.indices()], W)
        found = run(session(bundle), {"x": x})["y"]
    flat = x[:, :, 0, 0] if way.pictures else x.T if way.columns else x
    expected = flat @ W.T
    assert np.array_equal(found, expected.T if way.columns else expected)


def test_a_constant_within_a_function_stays_and_is_named(tmp_path: Path) -> None:
    wide = models.in_function(True)
    constant = wide.functions[0].node[0].attribute[0].t
    constant.CopyFrom(tensor("", np.tile(W.T, (1, 2))))
    report = convert(wide, tmp_path, "kmeans-4")
    assert [(row.name, row.encoding, row.reason) for row in report.tensors] == [
        ("Multiply/b", "graph", "a constant within a model function")
    ]


def test_an_int8_weight_is_fc_and_kept(tmp_path: Path) -> None:
    report = convert(models.quantized(), tmp_path, "kmeans-4")
    row = next(row for row in report.tensors if row.name == "w")
    assert (row.role, row.decision, row.reason) == ("fc", "declined", "int8 values are kept as they are")


@pytest.mark.parametrize("dtype", [TensorProto.DOUBLE, TensorProto.BFLOAT16], ids=["double", "bfloat16"])
def test_a_weight_of_another_float_type_is_fc_and_kept(dtype: int, tmp_path: Path) -> None:
    weight = helper.make_tensor("w", dtype, [INPUTS, OUTPUTS], W.T.reshape(-1).tolist())
    nodes = [helper.make_node("Cast", ["w"], ["v"], to=1), helper.make_node("MatMul", ["x", "v"], ["y"])]
    report = convert(model(nodes, [models.ROWS], [weight]), tmp_path, "kmeans-4")
    row = report.tensors[0]
    assert (row.name, row.role, row.decision) == ("w", "fc", "declined")
    assert "kept as they are" in row.reason


def test_a_tied_embedding_is_an_fc_weight_with_a_row_for_each_word(tmp_path: Path) -> None:
    found = roles(models.transformer(), tmp_path)["embedding"]
    assert (found.role.value, found.operator, found.order.perm) == ("fc", "MatMul", ())


def test_an_embedding_by_rows_and_by_columns(tmp_path: Path) -> None:
    for axis, perm in ((0, ()), (1, (1, 0)), (-1, (1, 0))):
        nodes = [helper.make_node("Gather", ["w", "ids"], ["y"], axis=axis)]
        made = model(nodes, [value("ids", [2], TensorProto.INT64)], [tensor("w", W)])
        found = roles(made, tmp_path)["w"]
        assert (found.role.value, found.order.perm) == ("embedding", perm)


def test_convolutions_are_output_by_position_by_channel(tmp_path: Path) -> None:
    """spec/tensors.md: O x HWI, a grouped ConvTranspose regrouped so that its rows are outputs."""
    net = Net(9)
    x = net.conv("grouped", "x", 6, 2, 3, group=2)
    up = net.weight("up", 6, 4, 3, 3)
    net.node("ConvTranspose", x, up, group=2, name="y")
    made = net.done(value("x", [1, 4, 5, 5]))
    found = roles(made, tmp_path)
    assert (found["grouped.weight"].order.perm, found["grouped.weight"].order.row_axes) == ((0, 2, 3, 1), 1)
    order = found["up"].order
    assert (order.view, order.perm, order.row_axes) == ((2, 3, 4, 3, 3), (0, 2, 3, 4, 1), 2)
    report = convert(made, tmp_path, "palette-4")
    with mm.open(tmp_path / "out.mm") as bundle:
        matrix = bundle["up"].tables().reshape(-1).astype(np.float32)[bundle["up"].indices()]
        decoded = bundle["up"].numpy()
    # Output channel 5 is the second group's channel 1: its inputs are channels 3 to 5.
    assert np.array_equal(matrix[5], decoded[3:6, 1].transpose(1, 2, 0).reshape(-1))
    assert {row.role for row in report.tensors if row.name in ("up", "grouped.weight")} == {"conv"}


def test_a_batched_matmul_has_a_row_for_each_output_of_each_matrix(tmp_path: Path) -> None:
    nodes = [helper.make_node("MatMul", ["x", "w"], ["y"])]
    made = model(nodes, [value("x", [2, 3, 20])], [tensor("w", np.stack([W.T, -W.T]))])
    convert(made, tmp_path, "kmeans-4")
    with mm.open(tmp_path / "out.mm") as bundle:
        stored = bundle["w"]
        matrix = stored.tables().reshape(-1).astype(np.float32)[stored.indices()]
    assert np.array_equal(matrix, np.concatenate([W, -W]))


def test_a_gate_that_multiplies_a_picture_is_no_single_position(tmp_path: Path) -> None:
    """Squeeze and excitation: 1x1 convolutions on the pooled vector are FC layers, the one after the product is not."""
    net = Net(10)
    pooled = net.node("GlobalAveragePool", "x")
    gate = net.node("Sigmoid", net.conv("up", net.node("Relu", net.conv("down", pooled, 4, 16, 1)), 16, 4, 1))
    net.conv("project", net.node("Mul", gate, "x"), 8, 16, 1)
    net.nodes[-1].output[0] = "y"
    found = roles(net.done(value("x", [1, 16, 6, 6])), tmp_path)
    assert {name: found[f"{name}.weight"].role.value for name in ("down", "up", "project")} == {
        "down": "fc", "up": "fc", "project": "conv",
    }  # fmt: skip


def test_recurrent_weights_have_a_row_for_each_gate(tmp_path: Path) -> None:
    found = roles(models.lstm(), tmp_path)
    assert {(found[name].role.value, found[name].order.row_axes) for name in ("w", "r")} == {("recurrent", 2)}
    assert found["b"].role.value == "other"


def test_ranks_follow_the_graph_and_not_the_order_of_initializers(tmp_path: Path) -> None:
    made = models.alexnet()
    reversed_order = list(reversed(made.graph.initializer))
    del made.graph.initializer[:]
    made.graph.initializer.extend(reversed_order)
    found = roles(made, tmp_path)
    assert [found[f"fc{n}.weight"].rank_in_role for n in (6, 7, 8)] == [0, 1, 2]
    assert [found[f"conv{n}.weight"].rank_in_role for n in (1, 2)] == [0, 1]


def test_functions_that_call_each_other_twice_end(tmp_path: Path) -> None:
    """Followed naively, 40 levels of two calls are a trillion uses."""
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid("tests", 1)]
    functions = [
        helper.make_function("tests", f"F{n}", ["a"], ["c"], [
            helper.make_node(f"F{n + 1}" if n < 40 else "Identity", ["a"], ["b"], domain="tests" if n < 40 else ""),
            helper.make_node(f"F{n + 1}" if n < 40 else "Identity", ["a"], ["d"], domain="tests" if n < 40 else ""),
            helper.make_node("Add", ["b", "d"], ["c"]),
        ], opsets)
        for n in range(41)
    ]  # fmt: skip
    nodes = [helper.make_node("F0", ["w"], ["v"], domain="tests"), helper.make_node("MatMul", ["x", "v"], ["y"])]
    loaded = roles(model(nodes, [models.ROWS], [tensor("w", W.T)], functions=functions), tmp_path)
    assert "w" not in loaded, "its uses cannot all be followed, so it stays in the graph"


def test_models_run(tmp_path: Path) -> None:
    """The networks of tests/models.py are valid: ONNX Runtime runs each."""
    for make in models.NETWORKS.values():
        raw = make().SerializeToString()
        assert all(np.isfinite(v).all() for v in run(session(raw), random_inputs(raw, 0)).values())
