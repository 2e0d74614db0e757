"""What leaves the graph and what stays, and that every value comes back bit for bit (spec/graph.md)."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import ModelProto, TensorProto, helper, numpy_helper

import mobilemodel as mm
from mobilemodel import dtypes
from mobilemodel.audit.report import Report, TensorReport
from mobilemodel.errors import LimitExceededError
from mobilemodel.model import Model
from mobilemodel.runtime import run, session
from mobilemodel_converters import find_converter, registrations
from mobilemodel_converters.onnx import OnnxConverter, structure
from tests import models
from tests.models import ROWS, W, model, tensor, value

KNOWN = [number for number in range(1, 30) if dtypes.is_known(number)]
OUTSIDE = {1, 2, 3, 10, 11, 16, 17, 18, 19, 20}
"""spec/graph.md §2, rule 1"""


def convert(made: ModelProto, folder: Path, scheme: str = "lossless") -> dict[str, TensorReport]:
    return {row.name: row for row in report_of(made, folder, scheme).tensors}


def report_of(made: ModelProto, folder: Path, scheme: str = "lossless") -> Report:
    source = folder / "model.onnx"
    source.write_bytes(made.SerializeToString())
    return mm.convert(source, folder / "out.mm", scheme=scheme, options=mm.ConvertOptions(force=True))


def exported(folder: Path) -> ModelProto:
    with mm.open(folder / "out.mm") as bundle:
        mm.export(bundle, folder / "back.onnx", force=True)
    return ModelProto.FromString((folder / "back.onnx").read_bytes())


def load(made: ModelProto | bytes, folder: Path) -> Model:
    source = folder / "model.onnx"
    source.write_bytes(made if isinstance(made, bytes) else made.SerializeToString())
    loaded = OnnxConverter().load([source])
    loaded.close()
    return loaded


def raw_of(proto: TensorProto) -> bytes:
    return proto.raw_data or numpy_helper.to_array(proto).tobytes()


def every_pattern(dtype: int, dims: tuple[int, ...]) -> TensorProto:
    """A tensor of random bytes: NaN payloads, signalling ones too, subnormals, infinities."""
    size = dtypes.raw_size(dtype, int(np.prod(dims)))
    raw = np.random.default_rng(dtype).integers(0, 2 if dtype == 9 else 256, size, np.uint8).tobytes()
    return TensorProto(name="w", data_type=dtype, dims=dims, raw_data=raw)


def gather(proto: TensorProto) -> ModelProto:
    """Any type can be gathered from."""
    nodes = [helper.make_node("Gather", ["w", "ids"], ["y"])]
    return model(nodes, [value("ids", [2], TensorProto.INT64)], [proto], outputs=[value("y", None, proto.data_type)])


@pytest.mark.parametrize("dims", [(6, 40), (600, 50)], ids=["small", "left in the file"])
@pytest.mark.parametrize("dtype", KNOWN, ids=dtypes.name)
def test_every_type_comes_back_bit_for_bit(dtype: int, dims: tuple[int, ...], tmp_path: Path) -> None:
    proto = every_pattern(dtype, dims)
    row = convert(gather(proto), tmp_path)["w"]
    assert (row.encoding != "graph") == (dtype in OUTSIDE)
    assert raw_of(exported(tmp_path).graph.initializer[0]) == proto.raw_data
    if dtype in OUTSIDE:
        with mm.open(tmp_path / "out.mm") as bundle:
            assert bytes(bundle["w"].raw()) == proto.raw_data


@pytest.mark.parametrize("scheme", ["fp16", "int8", "kmeans-4", "mixed-4-8"])
@pytest.mark.parametrize("dtype", [number for number in KNOWN if number not in (1, 10)], ids=dtypes.name)
def test_types_that_no_scheme_quantizes_come_back_bit_for_bit(dtype: int, scheme: str, tmp_path: Path) -> None:
    proto = every_pattern(dtype, (6, 40))
    row = convert(gather(proto), tmp_path, scheme)["w"]
    assert row.reason
    assert raw_of(exported(tmp_path).graph.initializer[0]) == proto.raw_data


# What a TensorProto may hold outside of raw_data, as its own bytes: the float fields keep signalling NaNs.
SIGNALLING = [0x7F800001, 0xFFBFFFFF, 0x7FC12345, 0x00000001, 0x80000000, 0x3F800000] * 4


def test_signalling_nans_in_float_data_keep_their_payload(tmp_path: Path) -> None:
    raw = np.array(SIGNALLING, "<u4").tobytes()
    proto = TensorProto(name="w", data_type=1, dims=[4, 6])
    proto.MergeFromString(b"\x22" + bytes([len(raw)]) + raw)
    assert not proto.HasField("raw_data")
    convert(gather(proto), tmp_path)
    with mm.open(tmp_path / "out.mm") as bundle:
        assert bytes(bundle["w"].raw()) == raw


@pytest.mark.parametrize("dtype", [2, 3, 10, 11, 16, 17, 18, 19, 20], ids=dtypes.name)
def test_values_in_typed_fields(dtype: int, tmp_path: Path) -> None:
    """int32_data holds the bits of halves and bytes."""
    raw = every_pattern(dtype, (5, 8)).raw_data
    if dtype == 11:
        raw = np.random.default_rng(0).standard_normal((5, 8)).tobytes()
        proto = TensorProto(name="w", data_type=dtype, dims=[5, 8], double_data=np.frombuffer(raw, "<f8"))
    else:
        kind = {2: "u1", 3: "i1"}.get(dtype, "<u2" if dtype in (10, 16) else "u1")
        proto = TensorProto(name="w", data_type=dtype, dims=[5, 8], int32_data=np.frombuffer(raw, kind))
    convert(gather(proto), tmp_path)
    with mm.open(tmp_path / "out.mm") as bundle:
        assert bytes(bundle["w"].raw()) == raw


@pytest.mark.parametrize("large", [False, True], ids=["small", "left in the file"])
def test_unpacked_float_data(large: bool, tmp_path: Path) -> None:
    """Each value a field of its own, as old writers did: protobuf takes both forms."""
    values = np.random.default_rng(0).standard_normal((200, 100) if large else (4, 5)).astype("<f4")
    unpacked = b"".join(b"\x25" + item.tobytes() for item in values.reshape(-1))
    proto = TensorProto(name="w", data_type=1, dims=values.shape).SerializeToString() + unpacked
    frame = gather(tensor("w", values))
    del frame.graph.initializer[:]
    graph = frame.graph.SerializeToString() + b"\x2a" + _varint(len(proto)) + proto
    frame.ClearField("graph")
    source = tmp_path / "model.onnx"
    source.write_bytes(frame.SerializeToString() + b"\x3a" + _varint(len(graph)) + graph)
    mm.convert(source, tmp_path / "out.mm", scheme="lossless")
    with mm.open(tmp_path / "out.mm") as bundle:
        assert np.array_equal(bundle["w"].numpy(), values)


def _varint(number: int) -> bytes:
    from mobilemodel.wire import varint

    return varint(number)


def test_scalars_and_empty_tensors(tmp_path: Path) -> None:
    for dims in ((), (0, 4), (4, 0), (1,), (1, 1)):
        proto = tensor("w", np.ones(dims, np.float32))
        made = model([helper.make_node("Add", ["x", "w"], ["y"])], [value("x", list(dims))], [proto])
        for scheme in ("lossless", "fp16", "kmeans-4", "int8"):
            assert list(convert(made, tmp_path, scheme)) == ["w"]
            assert raw_of(exported(tmp_path).graph.initializer[0]) == raw_of(proto)


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


# --- external data ---


def external(folder: Path, location: str = "weights.bin", **changes: str) -> ModelProto:
    """The weight as external data, 64 bytes into a file."""
    made = models.fc_ways()["MatMul, right"].model
    proto = made.graph.initializer[0]
    raw = proto.raw_data
    proto.ClearField("raw_data")
    proto.data_location = TensorProto.EXTERNAL
    for key, text in ({"location": location, "offset": "64", "length": str(len(raw))} | changes).items():
        proto.external_data.add(key=key, value=text)
    target = folder / location
    target.parent.mkdir(exist_ok=True)
    target.write_bytes(bytes(64) + raw + b"more")
    return made


@pytest.mark.parametrize("location", ["weights.bin", "sub/weights.bin", "./weights.bin", "mobilemodel"])
@pytest.mark.parametrize("scheme", ["lossless", "kmeans-4"])
def test_external_data(location: str, scheme: str, tmp_path: Path) -> None:
    made = external(tmp_path, location)
    convert(made, tmp_path, scheme)
    with mm.open(tmp_path / "out.mm") as bundle:
        assert np.array_equal(bundle["w"].numpy(), W.T)
        assert [source.file_name for source in bundle.manifest.sources] == ["model.onnx", Path(location).name]
    assert exported(tmp_path).graph.initializer[0].raw_data == W.T.tobytes()


@pytest.mark.parametrize("location", ["weights.bin", "mobilemodel"])
def test_external_data_that_stay_in_the_graph_are_taken_in(location: str, tmp_path: Path) -> None:
    """Also where a source calls its file as a bundle's graph calls the bundle."""
    made = external(tmp_path, location)
    made.graph.node.append(helper.make_node("Identity", ["w"], ["z"]))
    made.graph.output.append(value("z"))
    assert convert(made, tmp_path, "kmeans-4")["w"].encoding == "graph"
    proto = exported(tmp_path).graph.initializer[0]
    assert (proto.raw_data, len(proto.external_data)) == (W.T.tobytes(), 0)


def test_external_data_in_attributes_and_sparse_tensors_are_taken_in(tmp_path: Path) -> None:
    made = external(tmp_path)
    outside = TensorProto()
    outside.CopyFrom(made.graph.initializer[0])
    made.graph.node.append(helper.make_node("Constant", [], ["c"], value=outside))
    values = TensorProto(name="s", data_type=1, dims=[2], data_location=TensorProto.EXTERNAL)
    values.external_data.add(key="location", value="weights.bin")
    made.graph.sparse_initializer.append(helper.make_sparse_tensor(values, tensor("", np.array([1, 2])), [8]))
    convert(made, tmp_path)
    assert not [item for item in structure.all_tensors(exported(tmp_path)) if item.data_location]


def test_models_saved_by_onnx_with_external_data(tmp_path: Path) -> None:
    made = models.alexnet()
    weights = {item.name: item.raw_data for item in made.graph.initializer}
    onnx.save_model(made, tmp_path / "model.onnx", save_as_external_data=True, size_threshold=0, location="all.data")
    mm.convert(tmp_path / "model.onnx", tmp_path / "out.mm", scheme="lossless")
    with mm.open(tmp_path / "out.mm") as bundle:
        assert {name: bytes(item.raw()) for name, item in bundle.items()} == weights


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


def test_values_too_large_for_a_graph_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from mobilemodel_converters.onnx import build

    made = external(tmp_path)
    made.graph.output.append(value("w"))
    monkeypatch.setattr(build, "FORMAT_LIMITS", mm.Limits(graph=100))
    with pytest.raises(LimitExceededError, match="values that stay in the graph"):
        convert(made, tmp_path)


def test_the_converter_is_found_by_content_and_by_name(tmp_path: Path) -> None:
    path = tmp_path / "model.png"
    for make in models.NETWORKS.values():
        path.write_bytes(make().SerializeToString())
        assert find_converter([path]).name == "onnx"
    assert find_converter([path], "onnx").name == "onnx"
    assert "onnx" in [registration.name for registration in registrations()]
