"""Hostile ONNX: whatever the file holds, the answer is a model or one clear error of ours, in bounded memory."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from onnx import ModelProto, NodeProto, TensorProto, helper

import mobilemodel as mm
from mobilemodel.errors import MalformedSourceError, MobileModelError, UnsupportedSourceError, UsageError
from mobilemodel.wire import fields, varint
from mobilemodel_converters.onnx import OnnxConverter
from tests import models
from tests.conversions import attempt, outside, plain
from tests.models import ROWS, W, in_function, in_if, model, tensor, value

Change = Callable[[ModelProto], None]


def small() -> bytes:
    """Subgraphs, a function, a sparse tensor and external-looking entries in less than 3 KB."""
    made = in_if()
    for proto in (made.graph.initializer[0], *(a.g.initializer[0] for a in made.graph.node[0].attribute)):
        if len(proto.dims) == 2:
            proto.CopyFrom(tensor(proto.name, W[:, :3]))
    made.graph.input[0].CopyFrom(value("x", ["n", 3]))
    made.functions.extend(in_function(False).functions)
    made.opset_import.append(helper.make_opsetid("tests", 1))
    made.graph.node.append(helper.make_node("Multiply", ["x", "v"], ["z"], domain="tests"))
    made.graph.initializer.append(tensor("v", W[:3, :4]))
    made.graph.sparse_initializer.append(
        helper.make_sparse_tensor(TensorProto(name="s", data_type=1, dims=[1], float_data=[1]),
                                  TensorProto(data_type=7, dims=[1], int64_data=[2]), [4]))  # fmt: skip
    return made.SerializeToString()


def test_the_small_model_is_valid(tmp_path: Path) -> None:
    assert attempt(small(), tmp_path) is None
    assert len(small()) < 3000


def test_truncated_at_every_length(tmp_path: Path) -> None:
    """Only where a cut falls between two fields of the model, after its graph and operator set, is the rest a model."""
    raw = small()
    whole = [length for length in range(len(raw)) if attempt(raw[:length], tmp_path) is None]
    parts = list(fields(raw, 0, len(raw)))
    opset = next(part.end for part in parts if part.number == 8)
    assert set(whole) == {part.end for part in parts if opset <= part.end < len(raw)}


@pytest.mark.parametrize("flip", [0x01, 0x80], ids=hex)
def test_every_byte_changed(flip: int, tmp_path: Path) -> None:
    """A model or an error of ours; never another exception."""
    raw = small()
    errors = 0
    for position in range(len(raw)):
        changed = bytearray(raw)
        changed[position] ^= flip
        errors += attempt(bytes(changed), tmp_path) is not None
    assert errors > len(raw) // 10


# --- graphs ---


def _nodes(*nodes: tuple[str, list[str], list[str]]) -> Change:
    def change(made: ModelProto) -> None:
        made.graph.node.extend(helper.make_node(*node) for node in nodes)

    return change


def _twice(made: ModelProto) -> None:
    made.graph.initializer.append(made.graph.initializer[0])


def _weight_is_an_output(made: ModelProto) -> None:
    made.graph.node[0].output[0] = "w"


def _two_inputs(made: ModelProto) -> None:
    made.graph.input.append(made.graph.input[0])


def _two_outputs(made: ModelProto) -> None:
    made.graph.output.append(made.graph.output[0])


def _lost_output(made: ModelProto) -> None:
    made.graph.output.append(value("nothing"))


def _no_graph(made: ModelProto) -> None:
    made.ClearField("graph")


def _no_opset(made: ModelProto) -> None:
    del made.opset_import[:]


def _dims(*dims: int) -> Change:
    def change(made: ModelProto) -> None:
        made.graph.initializer[0].dims[:] = dims

    return change


def _segment(made: ModelProto) -> None:
    made.graph.initializer[0].segment.begin = 1


def _negative_type(made: ModelProto) -> None:
    made.graph.input[0].type.tensor_type.elem_type = -3


def _strings_outside(made: ModelProto) -> None:
    proto = TensorProto(name="s", data_type=8, dims=[0], data_location=TensorProto.EXTERNAL)
    made.graph.initializer.append(proto)


def _unknown_type_outside(made: ModelProto) -> None:
    made.graph.initializer.append(TensorProto(name="s", data_type=99, dims=[4], data_location=TensorProto.EXTERNAL))


def _function_uses_nothing(made: ModelProto) -> None:
    made.functions.extend(in_function(False).functions)
    made.functions[0].node[0].input[0] = "nothing"


def _long_input(made: ModelProto) -> None:
    made.graph.input.append(value("i" * 1025))


@pytest.mark.parametrize(
    ("change", "kind", "message"),
    [
        (_nodes(("Add", ["b", "x"], ["a"]), ("Add", ["a", "x"], ["b"])), MalformedSourceError, "the graph has a cycle"),
        (_nodes(("Add", ["a", "a"], ["a"])), MalformedSourceError, "the graph has a cycle"),
        (_nodes(("Add", ["nothing", "x"], ["a"])), MalformedSourceError, "uses a value that nothing defines"),
        (_nodes(("Relu", ["x"], ["y"])), MalformedSourceError, "two definitions of a value"),
        (_twice, MalformedSourceError, "two initializers have the same name"),
        (_weight_is_an_output, MalformedSourceError, "two definitions of a value"),
        (_two_inputs, MalformedSourceError, "two inputs of a graph have the same name"),
        (_two_outputs, MalformedSourceError, "two outputs of a graph have the same name"),
        (_lost_output, MalformedSourceError, "an output of the graph is defined by nothing"),
        (_no_graph, MalformedSourceError, "the model has no graph"),
        (_no_opset, MalformedSourceError, "the model imports no operator set"),
        (_function_uses_nothing, MalformedSourceError, "uses a value that nothing defines"),
        (_dims(-1, 12), MalformedSourceError, "a tensor has a negative dim"),
        (_dims(-(2**63), 2**63 - 1), MalformedSourceError, "a tensor has a negative dim"),
        (_dims(2**62, 4), MalformedSourceError, "a tensor is larger than any file"),
        (_dims(2**32, 2**32), MalformedSourceError, "a tensor is larger than any file"),
        (_dims(2**40), MalformedSourceError, "another size than its dims"),
        (_dims(21, 12), MalformedSourceError, "another size than its dims"),
        (_dims(0, 12), MalformedSourceError, "another size than its dims"),
        (_dims(), MalformedSourceError, "another size than its dims"),
        (_segment, UnsupportedSourceError, "a segmented tensor"),
        (_negative_type, MalformedSourceError, "element type of an input"),
        (_strings_outside, UnsupportedSourceError, "external data of a type without a size"),
        (_unknown_type_outside, UnsupportedSourceError, "external data of a type without a size"),
        (_long_input, UnsupportedSourceError, "the name of an input or output does not fit"),
    ],
)  # fmt: skip
def test_broken_graphs(change: Change, kind: type[MobileModelError], message: str, tmp_path: Path) -> None:
    made = plain()
    change(made)
    error = attempt(made.SerializeToString(), tmp_path)
    assert isinstance(error, kind), error
    assert message in str(error)
    assert not list(tmp_path.glob("*.mm*"))


def nested(depth: int) -> bytes:
    """If in If in If, written as bytes: protobuf's own libraries refuse to nest so deep."""
    graph = ModelProto.FromString(in_if().SerializeToString()).graph
    leaf = graph.node[0].attribute[0].g.SerializeToString()
    for _ in range(depth):
        attribute = b"\x0a\x0bthen_branch" + b"\x32" + varint(len(leaf)) + leaf + b"\xa0\x01\x05"
        node = b"\x0a\x03yes" + b"\x12\x01a" + b"\x22\x02If" + b"\x2a" + varint(len(attribute)) + attribute
        leaf = b"\x0a" + varint(len(node)) + node + b"\x12\x01g" + b"\x62\x03\x0a\x01a"
    outer = ModelProto(ir_version=8)
    outer.opset_import.add(version=17)
    return outer.SerializeToString() + b"\x3a" + varint(len(leaf)) + leaf


@pytest.mark.parametrize("depth", [100, 500, 5000])
@pytest.mark.parametrize("padding", [0, 100_000], ids=["small", "left in the file"])
def test_subgraphs_nested_by_the_hundreds(depth: int, padding: int, tmp_path: Path) -> None:
    raw = nested(depth)
    if padding:
        raw = raw.replace(b"then_branch", b"then_branch" + b"\x1a\x00", 1)
        inner = TensorProto(name="big", data_type=2, dims=[padding], raw_data=bytes(padding)).SerializeToString()
        raw = nested_with(depth, inner)
    error = attempt(raw, tmp_path)
    assert isinstance(error, MalformedSourceError)


def nested_with(depth: int, initializer: bytes) -> bytes:
    """As ``nested``, each graph large because the innermost holds a large initializer."""
    leaf = b"\x2a" + varint(len(initializer)) + initializer
    for _ in range(depth):
        attribute = b"\x32" + varint(len(leaf)) + leaf
        node = b"\x2a" + varint(len(attribute)) + attribute
        leaf = b"\x0a" + varint(len(node)) + node
    return b"\x08\x08\x3a" + varint(len(leaf)) + leaf


def test_recursive_functions_end(tmp_path: Path) -> None:
    made = in_function(False)
    body = made.functions[0]
    body.opset_import.append(helper.make_opsetid("tests", 1))
    del body.node[:]
    body.node.append(helper.make_node("Multiply", ["a", "b"], ["c"], domain="tests"))
    assert attempt(made.SerializeToString(), tmp_path) is None
    with mm.open(tmp_path / "out.mm") as bundle:
        assert list(bundle) == []


def test_a_shape_that_lies_about_a_reshape_is_no_error(tmp_path: Path) -> None:
    for shape in ([7, -1], [-1, -1], [0, 0, 0], [2**62, 4, -1], [-5]):
        way = models._behind("Reshape", W, ["w", "shape"], models._shape(*shape))
        assert attempt(way.model.SerializeToString(), tmp_path) is None


def test_axes_outside_of_a_small_constant_are_not_followed(tmp_path: Path) -> None:
    """What decides a role may be claimed to lie in a file, or to be gigantic: nothing of it is opened or read."""
    outside = TensorProto(name="axes", data_type=7, dims=[2], data_location=TensorProto.EXTERNAL)
    outside.external_data.add(key="location", value="axes.bin")
    (tmp_path / "axes.bin").write_bytes(bytes(16))
    for proto in (outside, tensor("axes", W), TensorProto(name="axes", data_type=7, dims=[0])):
        nodes: list[NodeProto] = [helper.make_node("ReduceMean", ["x", "axes"], ["p"])]
        way = models._pooled(nodes, [proto], 18)
        assert attempt(way.model.SerializeToString(), tmp_path) is None


# --- names ---


@pytest.mark.parametrize(
    "name",
    ["\x1b[2J\x1b]0;owned\x07", "a\nb\rc", "\u202e\u2066txt", "n" * 1_000_000, "a\0b", "/etc/passwd", "..",
     "\U0010ffff"],
    ids=["ANSI", "lines", "bidirectional", "1 MB", "NUL", "path", "dots", "last"],
)  # fmt: skip
def test_hostile_names(name: str, tmp_path: Path) -> None:
    """As the name of a weight they are a name like any other; in an error they are escaped and cut."""
    made = model([helper.make_node("MatMul", ["x", name], ["y"], name=name)], [ROWS], [tensor(name, W.T)])
    assert attempt(made.SerializeToString(), tmp_path) is None
    made.graph.node[0].input[0] = name + "?"
    error = attempt(made.SerializeToString(), tmp_path)
    assert isinstance(error, MalformedSourceError)
    made = model([helper.make_node("MatMul", ["x", name], ["y"])], [ROWS], [tensor(name, W.T)])
    made.graph.initializer[0].dims[0] += 1
    assert isinstance(attempt(made.SerializeToString(), tmp_path), MalformedSourceError)


@pytest.mark.parametrize(
    "raw", [b"\xed\xa0\x80w", b"\xff\xfe w", b"\xc0\xaf w"], ids=["surrogate", "no UTF-8", "overlong"]
)
def test_names_that_are_not_utf_8(raw: bytes, tmp_path: Path) -> None:
    made = model([helper.make_node("MatMul", ["x", "NAME"], ["y"])], [ROWS], [tensor("NAME", W.T)]).SerializeToString()
    error = attempt(made.replace(b"NAME", raw), tmp_path)
    assert isinstance(error, MalformedSourceError)


# --- what is no model ---


@pytest.mark.parametrize(
    "raw",
    [b"", bytes(100), b"\x89PNG\r\n\x1a\n" + bytes(100), b"# a text\n" * 50, b"{}", b"PK\x03\x04" + bytes(60),
     b"\xff" * 99, b"\x08\x08", b"\x3a\x00", b"\x3a\x02\x12\x00", b"\x0b\x0c",
     b"\x3a\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01"],
)  # fmt: skip
def test_what_is_no_model(raw: bytes, tmp_path: Path) -> None:
    error = attempt(raw, tmp_path)
    assert isinstance(error, MalformedSourceError)
    source = tmp_path / "hostile.onnx"
    with pytest.raises(MobileModelError, match=re.escape(str(source))):
        mm.convert(source, tmp_path / "out.mm")


def test_a_bundle_is_no_model(tmp_path: Path) -> None:
    assert attempt(plain().SerializeToString(), tmp_path) is None
    raw = (tmp_path / "out.mm").read_bytes()
    (tmp_path / "out.mm").unlink()
    assert isinstance(attempt(raw, tmp_path), MalformedSourceError)
    with pytest.raises(UsageError, match="no converter knows this file"):
        mm.convert(tmp_path / "hostile.onnx", tmp_path / "out.mm")


def test_what_is_no_file(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "hostile.onnx")
    for path in (tmp_path, tmp_path / "hostile.onnx", Path("/dev/zero"), tmp_path / "missing", tmp_path / "a\0b"):
        with pytest.raises(UsageError):
            OnnxConverter().load([path])


def test_one_file_at_a_time(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="one file"):
        OnnxConverter().load([tmp_path / "a", tmp_path / "b"])


# --- memory ---

BOUNDED = """
import resource, sys
from pathlib import Path
import onnx, mobilemodel as mm
import mobilemodel_converters.onnx.importer
resource.setrlimit(resource.RLIMIT_AS, (2**30, 2**30))
for path in sorted(Path(sys.argv[1]).glob("*.onnx")):
    try:
        mm.convert(path, path.with_suffix(".mm"), options=mm.ConvertOptions(converter="onnx"))
    except mm.MobileModelError as error:
        print(path.stem, error.status)
    else:
        print(path.stem, "fine")
"""


def test_claims_cost_no_memory(tmp_path: Path) -> None:
    """Sizes that are only claimed, and sparse files: with 1 GiB of address space every one ends in an error of ours."""
    claim = TensorProto(name="w", data_type=1, dims=[2**19, 2**19]).SerializeToString()
    for name, length in (("gigantic", 2**40), ("negative", 2**64 - 1), ("past", 1000)):
        proto = claim + b"\x4a" + varint(length)
        graph = b"\x2a" + varint(len(proto)) + proto
        (tmp_path / f"{name}.onnx").write_bytes(b"\x08\x08\x3a" + varint(len(graph)) + graph)
    (tmp_path / "dims.onnx").write_bytes(claim_of(dims=[2**30, 2**9]))
    (tmp_path / "outside.onnx").write_bytes(outside("hole.bin", length=str(2**41), dims=(2**20, 2**19)))
    with (tmp_path / "hole.bin").open("wb") as hole:
        hole.truncate(2**41)
    with (tmp_path / "zeros.onnx").open("wb") as zeros:
        zeros.truncate(2**29)
    found = subprocess.run(
        [sys.executable, "-c", BOUNDED, tmp_path], capture_output=True, text=True, timeout=60, check=False,
        env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path), "OPENBLAS_NUM_THREADS": "1"},
    )  # fmt: skip
    assert found.stderr == ""
    assert dict(line.split() for line in found.stdout.splitlines()) == {
        "gigantic": "MALFORMED_SOURCE", "negative": "MALFORMED_SOURCE", "past": "MALFORMED_SOURCE",
        "dims": "MALFORMED_SOURCE", "outside": "LIMIT_EXCEEDED", "zeros": "MALFORMED_SOURCE",
    }  # fmt: skip


def claim_of(dims: list[int]) -> bytes:
    made = plain()
    made.graph.initializer[0].dims[:] = dims
    return made.SerializeToString()
