"""What leaves the graph and what stays, and that the rest of the model is as it was (spec/graph.md)."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from onnx import ModelProto, TensorProto, helper

import mobilemodel as mm
from mobilemodel.model import Model
from mobilemodel.runtime import run, session
from mobilemodel_converters import find_converter, registrations
from mobilemodel_converters.onnx import OnnxConverter
from tests import models
from tests.conversions import convert, exported, report_of
from tests.models import ROWS, W, model, tensor, value


def load(made: ModelProto | bytes, folder: Path) -> Model:
    source = folder / "model.onnx"
    source.write_bytes(made if isinstance(made, bytes) else made.SerializeToString())
    loaded = OnnxConverter().load([source])
    loaded.close()
    return loaded


Change = Callable[[ModelProto], None]


def _unused(made: ModelProto) -> None:
    made.graph.initializer.append(tensor("odd", W))


def _strings(made: ModelProto) -> None:
    proto = TensorProto(name="odd", data_type=TensorProto.STRING, dims=[2], string_data=[b"a", b"\xff\x00"])
    made.graph.initializer.append(proto)


def _sparse(made: ModelProto) -> None:
    values, indices = tensor("odd", np.array([1, 2], np.float32)), tensor("", np.array([3, 30]))
    made.graph.sparse_initializer.append(helper.make_sparse_tensor(values, indices, [12, 20]))


def _shape_input(made: ModelProto) -> None:
    made.graph.initializer.append(tensor("odd", np.array([-1], np.int64)))
    made.graph.node.append(helper.make_node("Reshape", ["y", "odd"], ["z"]))


def _output(made: ModelProto) -> None:
    made.graph.initializer.append(tensor("odd", W))
    made.graph.node.append(helper.make_node("Add", ["odd", "odd"], ["unused"]))
    made.graph.output.append(value("odd"))


def _resize_scales(made: ModelProto) -> None:
    made.graph.initializer.append(tensor("odd", np.array([1, 2], np.float32)))
    made.graph.node.append(helper.make_node("Resize", ["y", "", "odd"], ["z"]))


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (_unused, "no node uses it"), (_strings, "string values stay in the graph"),
        (_sparse, "a sparse initializer stays as it is"), (_shape_input, "int64 values stay in the graph"),
        (_output, "it is an output of a graph, or its uses cannot be followed"),
        (_resize_scales, "input 2 of Resize is no data input"),
    ],
)  # fmt: skip
def test_what_stays_in_the_graph_and_why(change: Change, reason: str, tmp_path: Path) -> None:
    made = models.fc_ways()["Gemm transB=1"].model
    change(made)
    rows = convert(made, tmp_path, "kmeans-4")
    assert set(rows) == {"w", "odd"}
    assert (rows["odd"].encoding, rows["odd"].decision, rows["odd"].reason) == ("graph", "kept", reason)
    back = exported(tmp_path)
    assert [item for item in back.graph.initializer if item.name == "odd"] == [
        item for item in made.graph.initializer if item.name == "odd"
    ]
    assert list(back.graph.sparse_initializer) == list(made.graph.sparse_initializer)


def test_initializers_that_are_inputs_are_no_inputs_of_the_bundle(tmp_path: Path) -> None:
    for ir_version in (3, 8):
        way = models.fc_ways()["input and initializer, IR 3"]
        way.model.ir_version = ir_version
        convert(way.model, tmp_path, "kmeans-4")
        with mm.open(tmp_path / "out.mm") as bundle:
            assert [item.name for item in bundle.manifest.inputs] == ["x"]
        assert exported(tmp_path).ir_version == ir_version


def test_a_constant_moves_only_where_a_scheme_wants_it(tmp_path: Path) -> None:
    made = models.fc_ways()["Constant node"].model
    row = convert(made, tmp_path)["w"]
    assert (row.encoding, row.reason) == ("graph", "a constant that the scheme does not touch")
    assert [node.op_type for node in exported(tmp_path).graph.node] == ["Constant", "MatMul"]
    assert convert(made, tmp_path, "kmeans-4")["w"].encoding == "palette"
    assert [node.op_type for node in exported(tmp_path).graph.node] == ["MatMul"]


def test_a_constant_of_an_old_model_is_declined_with_the_reason(tmp_path: Path) -> None:
    made = models.fc_ways()["Constant node"].model
    made.ir_version = 3
    row = convert(made, tmp_path, "kmeans-4")["w"]
    assert (row.encoding, row.reason) == ("graph", "ir_version below 4 makes every initializer an input")


def test_weights_of_the_same_name_in_two_branches_stay_and_each_is_named(tmp_path: Path) -> None:
    report = report_of(models.in_if("w", "w"), tmp_path, "kmeans-4")
    rows = [row for row in report.tensors if row.name == "w"]
    assert [(row.encoding, row.reason) for row in rows] == [("graph", "its name is defined more than once")] * 2


def test_both_branches_run_with_weights_that_moved(tmp_path: Path) -> None:
    rows = convert(models.in_if(), tmp_path, "kmeans-4")
    assert {rows[name].encoding for name in ("w", "other")} == {"palette"}
    x = {"x": np.eye(3, models.INPUTS, dtype=np.float32)}
    assert np.array_equal(run(session(tmp_path / "out.mm"), x)["y"], W.T[:3])


def test_names_that_the_format_does_not_take_stay_inside(tmp_path: Path) -> None:
    for name in ("n" * 1025, "n\0m"):
        made = model([helper.make_node("MatMul", ["x", name], ["y"])], [ROWS], [tensor(name, W.T)])
        assert convert(made, tmp_path, "kmeans-4")[name].reason == "its name does not fit the format"


@pytest.mark.parametrize("name", ["../../etc/passwd", "a\x1b[2Jb", "Ω≈ç√∫", "\u202egnp.w", "n" * 1024])
def test_odd_names_that_the_format_takes(name: str, tmp_path: Path) -> None:
    made = model([helper.make_node("MatMul", ["x", name], ["y"])], [ROWS], [tensor(name, W.T)])
    assert convert(made, tmp_path, "kmeans-4")[name].encoding == "palette"


# --- privacy ---


def test_nothing_private_goes_into_the_bundle(tmp_path: Path) -> None:
    """Doc strings and metadata of nodes, values and tensors, and the folder of the source."""
    secret = "/export/somebody/train.py"
    made = models.in_function(True)
    made.graph.initializer.append(tensor("w", W.T))
    made.graph.node.append(helper.make_node("MatMul", ["x", "w"], ["z"]))
    made.graph.value_info.append(value("z"))
    made.graph.sparse_initializer.append(
        helper.make_sparse_tensor(tensor("s", np.array([1], np.float32)), tensor("", np.array([1])), [4])
    )
    inner = made.functions[0]
    attribute = inner.node[0].attribute[0]
    documented: list[Any] = [
        made.graph, made.graph.node[1], made.graph.initializer[0], made.graph.input[0], made.graph.output[0],
        made.graph.value_info[0], made.graph.sparse_initializer[0].values, inner, inner.node[0], attribute.t,
    ]  # fmt: skip
    for item in documented:
        item.doc_string = secret
        item.metadata_props.add(key="stack", value=secret)
    attribute.doc_string = secret
    folder = tmp_path / "secret-folder"
    folder.mkdir()
    report = report_of(made, folder)
    raw = (folder / "out.mm").read_bytes()
    assert report.notes == (f"doc strings and node metadata were left out ({len(documented) + 1} of them)",)
    with mm.open(folder / "out.mm") as bundle:
        graph = bundle.graph()
        assert [source.file_name for source in bundle.manifest.sources] == ["model.onnx"]
    assert graph is not None
    for text in (secret, "somebody", "secret-folder", os.fspath(tmp_path)):
        assert text.encode() not in graph
        assert text.encode() not in raw


@pytest.mark.parametrize("name", ["a\\b.onnx", "c:d.onnx", "caf\udce9.onnx"])
def test_file_names_that_the_format_does_not_take_are_made_fit(name: str, tmp_path: Path) -> None:
    source = tmp_path / name
    try:
        source.write_bytes(models.fc_ways()["MatMul, left"].model.SerializeToString())
    except (OSError, UnicodeError):
        pytest.skip("the file system refuses the name")
    mm.convert(source, tmp_path / "out.mm", scheme="lossless")
    with mm.open(tmp_path / "out.mm") as bundle:
        assert bundle.manifest.sources[0].file_name in ("a_b.onnx", "c_d.onnx", "caf?.onnx")


# --- the model as it was ---


def test_everything_but_the_weights_is_as_it_was(tmp_path: Path) -> None:
    """Names, order, opsets, ir_version, attributes, inputs and outputs."""
    for make in models.NETWORKS.values():
        made = make()
        convert(made, tmp_path, "palette-4")
        back = exported(tmp_path)
        for proto in (*made.graph.initializer, *back.graph.initializer):
            proto.ClearField("raw_data")
        assert back == made


def test_inputs_and_outputs_are_described(tmp_path: Path) -> None:
    made = models.fc_ways()["MatMul, right"].model
    made.graph.input[0].CopyFrom(value("x", ["batch", models.INPUTS]))
    loaded = load(made, tmp_path)
    assert [(v.name, v.dtype, [(d.symbol, d.size) for d in v.shape.dimensions]) for v in loaded.inputs] == [
        ("x", 1, [("batch", 0), ("", models.INPUTS)])
    ]
    assert [(v.name, v.HasField("shape")) for v in loaded.outputs] == [("y", False)]


def test_a_sequence_input_is_no_tensor(tmp_path: Path) -> None:
    sequence = helper.make_tensor_sequence_value_info("x", 1, None)
    made = model([helper.make_node("SequenceLength", ["x"], ["y"])], [sequence], [])
    assert [(v.name, v.dtype) for v in load(made, tmp_path).inputs] == [("x", 0)]


def test_the_converter_is_found_by_content_and_by_name(tmp_path: Path) -> None:
    path = tmp_path / "model.png"
    for make in models.NETWORKS.values():
        path.write_bytes(make().SerializeToString())
        assert find_converter([path]).name == "onnx"
    assert find_converter([path], "onnx").name == "onnx"
    assert "onnx" in [registration.name for registration in registrations()]
