"""Weights in places where exporters put them: each is found, or named as declined with the reason."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import NodeProto, TensorProto, helper, numpy_helper

import mobilemodel as mm
from mobilemodel.audit.report import Report, TensorReport
from mobilemodel.errors import CheckFailedError
from mobilemodel.model import Role, SourceTensor
from mobilemodel.quantize.plan import load_plan
from mobilemodel.quantize.sampling import predicted_bytes

SIDE = 64
RNG = np.random.default_rng(5)
WEIGHT = (RNG.standard_normal((SIDE, SIDE)) / 8).astype(np.float32)


def write(
    path: Path,
    nodes: list[NodeProto],
    values: Mapping[str, Any],
    shape: tuple[Any, ...] = ("N", "S", SIDE),
    ir_version: int = 8,
) -> Path:
    """A model from x to y, float32, with the named initializers."""
    inputs = [helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)]
    outputs = [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)]
    tensors = [numpy_helper.from_array(value, name) for name, value in values.items()]
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid("com.microsoft", 1)]
    model = helper.make_model(helper.make_graph(nodes, "g", inputs, outputs, tensors), opset_imports=opsets)
    model.ir_version = ir_version
    onnx.save(model, path)
    return path


def rows(report: Report) -> dict[str, TensorReport]:
    return {row.name: row for row in report.tensors}


def test_attention_and_einsum_weights_are_fc(tmp_path: Path) -> None:
    nodes = [
        helper.make_node("Attention", ["x", "qkv", "bias"], ["a"], domain="com.microsoft", num_heads=4),
        helper.make_node("Einsum", ["a", "e"], ["y"], equation="nsi,ij->nsj"),
    ]
    wide = np.concatenate([WEIGHT] * 3, axis=1)
    source = write(tmp_path / "a.onnx", nodes, {"qkv": wide, "bias": np.zeros(3 * SIDE, np.float32), "e": WEIGHT})
    found = rows(mm.convert(source, tmp_path / "a.mm", scheme="kmeans-8"))
    assert {found["qkv"].role, found["e"].role} == {"fc"}
    assert {found["qkv"].encoding, found["e"].encoding} == {"palette"}
    assert mm.verify(tmp_path / "a.mm", [source], tolerance=0.1).outputs


def test_a_weight_that_is_quantized_on_the_fly_is_a_weight(tmp_path: Path) -> None:
    nodes = [
        helper.make_node("QuantizeLinear", ["w", "scale", "zero"], ["q"]),
        helper.make_node("DequantizeLinear", ["q", "scale", "zero"], ["d"]),
        helper.make_node("MatMul", ["x", "d"], ["y"]),
    ]
    values = {"w": WEIGHT, "scale": np.float32(0.01).reshape(()), "zero": np.int8(0).reshape(())}
    source = write(tmp_path / "q.onnx", nodes, values)
    found = rows(mm.convert(source, tmp_path / "q.mm", scheme="kmeans-8"))
    assert (found["w"].role, found["w"].encoding) == ("fc", "palette")


def test_a_weight_that_has_to_stay_is_declined_with_its_role(tmp_path: Path) -> None:
    """'Weights [...] that a scheme wants are moved [...], else declined with that reason.'"""
    constant = helper.make_node("Constant", [], ["w"], value=numpy_helper.from_array(WEIGHT))
    nodes = [constant, helper.make_node("MatMul", ["x", "w"], ["y"])]
    source = write(tmp_path / "old.onnx", nodes, {}, ir_version=3)
    row = rows(mm.convert(source, tmp_path / "old.mm"))["w"]
    assert (row.role, row.decision, row.encoding) == ("fc", "declined", "graph")
    assert "ir_version" in row.reason
    assert rows(mm.convert(source, tmp_path / "exact.mm", scheme="lossless"))["w"].decision == "kept"


def test_constants_that_are_no_tensors_are_named(tmp_path: Path) -> None:
    flat = helper.make_node("Constant", [], ["flat"], value_floats=WEIGHT.ravel().tolist())
    shape = helper.make_node("Constant", [], ["shape"], value_ints=[SIDE, SIDE])
    reshape = helper.make_node("Reshape", ["flat", "shape"], ["w"])
    nodes = [flat, shape, reshape, helper.make_node("MatMul", ["x", "w"], ["y"])]
    report = mm.convert(write(tmp_path / "flat.onnx", nodes, {}), tmp_path / "flat.mm")
    assert rows(report)["flat"].raw_bytes == WEIGHT.nbytes
    assert report.source_bytes >= WEIGHT.nbytes


@pytest.mark.parametrize("scheme", ["int8", "fp16", "kmeans-4", "lossless"])
def test_a_clustered_tensor_comes_back_exactly(scheme: str, tmp_path: Path) -> None:
    clustered = RNG.choice(RNG.standard_normal(16).astype(np.float32), (256, 256))
    nodes = [helper.make_node("MatMul", ["x", "w"], ["y"])]
    source = write(tmp_path / "c.onnx", nodes, {"w": clustered}, ("N", 256))
    mm.convert(source, tmp_path / "c.mm", scheme=scheme)
    with mm.open(tmp_path / "c.mm") as bundle:
        assert bundle["w"].numpy().tobytes() == clustered.tobytes()


def test_verify_sees_values_that_stay_in_the_graph(tmp_path: Path) -> None:
    def clipped(path: Path, most: float) -> Path:
        nodes = [helper.make_node("MatMul", ["x", "w"], ["h"]), helper.make_node("Clip", ["h", "", "most"], ["y"])]
        return write(path, nodes, {"w": WEIGHT, "most": np.float32(most).reshape(())})

    source, other = clipped(tmp_path / "six.onnx", 6.0), clipped(tmp_path / "seven.onnx", 7.0)
    mm.convert(source, tmp_path / "six.mm")
    assert mm.verify(tmp_path / "six.mm", [source]).checks
    with pytest.raises(CheckFailedError, match="graph is another one"):
        mm.verify(tmp_path / "six.mm", [other])


def test_verify_finds_sizes_that_a_network_of_any_size_can_run(tmp_path: Path) -> None:
    kernel = (RNG.standard_normal((4, 3, 5, 5)) / 8).astype(np.float32)
    nodes = [helper.make_node("Conv", ["x", "k"], ["y"])]
    source = write(tmp_path / "any.onnx", nodes, {"k": kernel}, ("N", 3, "H", "W"))
    mm.convert(source, tmp_path / "any.mm", scheme="fp16")
    found = mm.verify(tmp_path / "any.mm", [source])
    assert (len(found.outputs), found.outputs_skipped) == (1, "")


def test_a_bundle_is_a_mapping_with_one_object_for_each_tensor(tmp_path: Path) -> None:
    source = write(tmp_path / "m.onnx", [helper.make_node("MatMul", ["x", "w"], ["y"])], {"w": WEIGHT})
    mm.convert(source, tmp_path / "m.mm")
    with mm.open(tmp_path / "m.mm") as bundle, mm.open(tmp_path / "m.mm") as again:
        assert bundle["w"] is bundle["w"]
        assert bundle["w"] in bundle.values()
        assert bundle == bundle
        assert bundle != again
        assert len({bundle, again}) == 2


def test_the_model_s_own_metadata_are_pointed_out(tmp_path: Path) -> None:
    source = write(tmp_path / "m.onnx", [helper.make_node("MatMul", ["x", "w"], ["y"])], {"w": WEIGHT})
    model = onnx.load(source)
    model.metadata_props.add(key="author", value="somebody")
    onnx.save(model, source)
    assert any("author" in note for note in mm.convert(source, tmp_path / "m.mm").notes)


def test_a_model_may_begin_with_a_long_producer_name(tmp_path: Path) -> None:
    source = write(tmp_path / "m.onnx", [helper.make_node("MatMul", ["x", "w"], ["y"])], {"w": WEIGHT})
    raw = source.read_bytes()
    source.write_bytes(b"\x12\xe8\x07" + b"p" * 1000 + raw)
    assert mm.convert(source, tmp_path / "m.mm").tensors


def test_export_says_what_stayed_in_the_graph(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from mobilemodel.cli import main

    nodes = [helper.make_node("MatMul", ["x", "w"], ["h"]), helper.make_node("Clip", ["h", "", "most"], ["y"])]
    source = write(tmp_path / "m.onnx", nodes, {"w": WEIGHT, "most": np.float32(6).reshape(())})
    mm.convert(source, tmp_path / "m.mm")
    assert main(["export", str(tmp_path / "m.mm"), str(tmp_path / "m.npz")]) == 0
    assert "1 tensors that stayed in the graph" in capsys.readouterr().err
    assert main(["export", str(tmp_path / "m.mm"), str(tmp_path / "back.onnx")]) == 0
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize(("scheme", "most"), [("lossless", 1.02), ("fp16", 1.02), ("kmeans-4", 1.05)])
def test_the_size_predicted_from_a_sample_is_the_size(scheme: str, most: float, tmp_path: Path) -> None:
    """'Refused before writing, with the predicted size': so the prediction has to be near."""
    wide = RNG.standard_normal((2048, 3000)).astype(np.float32)
    source = write(tmp_path / "w.onnx", [helper.make_node("MatMul", ["x", "w"], ["y"])], {"w": wide}, ("N", 2048))
    plan = load_plan(scheme)
    tensor = SourceTensor("w", 1, wide.shape, wide.tobytes, Role.FC, "MatMul", rank_in_role=0)
    predicted = predicted_bytes(tensor, plan.rule(tensor, 1))
    stored = rows(mm.convert(source, tmp_path / "w.mm", scheme=scheme))["w"].stored_bytes
    assert 1 / most <= predicted / stored <= most
