"""A bundle's content as plain files, read back by the tools that they are for."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper

import mobilemodel as mm
from mobilemodel import exporter
from mobilemodel.errors import MalformedContentError, OutputExistsError, UnsupportedSourceError, UsageError
from mobilemodel.v1 import bundle_pb2 as pb

BundleMaker = Callable[..., bytes]
VALUES: dict[str, np.ndarray[Any, Any]] = {
    "f4": np.array([[1.5, -0.0], [np.nan, np.inf]], np.float32),
    "f2": np.array([1, 2, 3], np.float16),
    "f8": np.array(2.5, np.float64),
    "i1": np.arange(-3, 3, dtype=np.int8).reshape(2, 3),
    "u1": np.zeros((0, 4), np.uint8),
    "bf16": np.array([1.0, -2.5, 3e38]).astype(ml_dtypes.bfloat16),
    "e4m3": np.array([1.0, -2.5]).astype(ml_dtypes.float8_e4m3fn),
    "e5m2": np.array([1.0, -2.5]).astype(ml_dtypes.float8_e5m2),
}


@pytest.fixture
def bundle(make_bundle: BundleMaker) -> mm.Bundle:
    """A bundle of many types; each is an output of its graph too."""
    weights = [numpy_helper.from_array(value, name) for name, value in VALUES.items()]
    nodes = [helper.make_node("Identity", [name], [f"{name}.out"]) for name in VALUES]
    outputs = [helper.make_tensor_value_info(f"{w.name}.out", w.data_type, w.dims) for w in weights]
    graph = helper.make_graph(nodes, "g", [], outputs, weights)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 19)], ir_version=9)
    return mm.open(make_bundle(model, list(VALUES)))


def test_onnx_holds_every_value_bit_for_bit(bundle: mm.Bundle, tmp_path: Path) -> None:
    assert mm.export(bundle, tmp_path / "out.onnx") == [str(tmp_path / "out.onnx")]
    model = onnx.load(tmp_path / "out.onnx")
    onnx.checker.check_model(model)
    for item in model.graph.initializer:
        assert item.data_location == TensorProto.DEFAULT
        assert item.raw_data == VALUES[item.name].tobytes()


def test_onnx_above_the_limit_of_a_message_has_its_weights_beside_it(
    bundle: mm.Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(exporter, "PROTOBUF_LIMIT", 100)
    paths = mm.export(bundle, tmp_path / "out.onnx")
    assert paths == [str(tmp_path / "out.onnx"), str(tmp_path / "out.onnx.data")]
    model = onnx.load(tmp_path / "out.onnx", load_external_data=False)
    for item in model.graph.initializer:
        if 0 in item.dims:
            assert item.data_location == TensorProto.DEFAULT  # ONNX Runtime cannot read nothing from a file
            continue
        place = {entry.key: entry.value for entry in item.external_data}
        assert place["location"] == "out.onnx.data"
        assert int(place["offset"]) % 4096 == 0
    for item in onnx.load(tmp_path / "out.onnx").graph.initializer:
        assert item.raw_data == VALUES[item.name].tobytes()
    kept = ["f4.out", "f2.out", "f8.out", "i1.out"]
    session = onnxruntime.InferenceSession(tmp_path / "out.onnx", providers=["CPUExecutionProvider"])
    for name, found in zip(kept, session.run(kept, {}), strict=True):
        assert found.tobytes() == VALUES[name.removesuffix(".out")].tobytes()


def test_of_two_files_none_is_written_where_one_exists(
    bundle: mm.Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(exporter, "PROTOBUF_LIMIT", 100)
    (tmp_path / "out.onnx.data").write_bytes(b"mine")
    with pytest.raises(OutputExistsError):
        mm.export(bundle, tmp_path / "out.onnx")
    assert os.listdir(tmp_path) == ["out.onnx.data"]


def test_npz(bundle: mm.Bundle, tmp_path: Path) -> None:
    mm.export(bundle, tmp_path / "out.npz")
    with np.load(tmp_path / "out.npz", allow_pickle=False) as found:
        assert set(found.files) == set(VALUES)
        for name, value in VALUES.items():
            assert found[name].shape == value.shape
            assert found[name].tobytes() == value.tobytes()
        assert found["f4"].dtype == np.float32
        assert found["bf16"].dtype == np.uint16
        assert found["e4m3"].dtype == np.uint8


def test_safetensors(bundle: mm.Bundle, tmp_path: Path) -> None:
    from safetensors import safe_open

    mm.export(bundle, tmp_path / "out.safetensors")
    kinds = {
        "f4": "F32", "f2": "F16", "f8": "F64", "i1": "I8", "u1": "U8", "bf16": "BF16", "e4m3": "F8_E4M3",
        "e5m2": "F8_E5M2",
    }  # fmt: skip
    with safe_open(tmp_path / "out.safetensors", framework="numpy") as found:
        assert set(found.keys()) == set(VALUES)
        for name, value in VALUES.items():
            piece = found.get_slice(name)
            assert (piece.get_dtype(), piece.get_shape()) == (kinds[name], list(value.shape))
            if name in ("f4", "f2", "f8", "i1", "u1"):
                assert found.get_tensor(name).tobytes() == value.tobytes()


def _single(make_bundle: BundleMaker, proto: TensorProto) -> mm.Bundle:
    return mm.open(make_bundle(helper.make_model(helper.make_graph([], "g", [], [], [proto])), [proto.name]))


def test_sub_byte_types(make_bundle: BundleMaker, tmp_path: Path) -> None:
    values = np.array([-8, 7, 3]).astype(ml_dtypes.int4)
    bundle = _single(make_bundle, helper.make_tensor("w", TensorProto.INT4, [3], bytes([0x78, 0x03]), raw=True))
    mm.export(bundle, tmp_path / "out.npz")
    with np.load(tmp_path / "out.npz") as found:
        assert np.array_equal(found["w"].view(ml_dtypes.int4), values)
    with pytest.raises(UnsupportedSourceError, match=r"tensor 'w'.*int4"):
        mm.export(bundle, tmp_path / "out.safetensors")
    assert not (tmp_path / "out.safetensors").exists()


def test_a_name_that_safetensors_keeps_for_itself(make_bundle: BundleMaker, tmp_path: Path) -> None:
    bundle = _single(make_bundle, numpy_helper.from_array(np.ones(2, np.float32), "__metadata__"))
    with pytest.raises(UnsupportedSourceError, match="__metadata__"):
        mm.export(bundle, tmp_path / "out.safetensors")


def test_a_bundle_without_a_graph(make_bundle: BundleMaker, tmp_path: Path) -> None:
    def drop(manifest: pb.Manifest) -> None:
        # The graph's payload becomes the report's: no payload may be without use.
        manifest.report = manifest.graph
        manifest.ClearField("graph")

    proto = numpy_helper.from_array(np.ones(2, np.float32), "w")
    model = helper.make_model(helper.make_graph([], "g", [], [], [proto]))
    with pytest.raises(UnsupportedSourceError, match="no graph"):
        mm.export(mm.open(make_bundle(model, ["w"], drop)), tmp_path / "out.onnx")


def test_a_graph_whose_reference_has_another_size(make_bundle: BundleMaker, tmp_path: Path) -> None:
    def shorten(manifest: pb.Manifest) -> None:
        manifest.tensors[0].name = "v"

    proto = numpy_helper.from_array(np.ones(2, np.float32), "w")
    output = helper.make_tensor_value_info("w", TensorProto.FLOAT, [2])
    model = helper.make_model(helper.make_graph([], "g", [], [output], [proto]))
    with pytest.raises(MalformedContentError, match="tensor 'w'"):
        mm.export(mm.open(make_bundle(model, ["w"], shorten)), tmp_path / "out.onnx")
    assert os.listdir(tmp_path) == []


def test_the_suffix_names_the_format_in_any_case(bundle: mm.Bundle, tmp_path: Path) -> None:
    mm.export(bundle, tmp_path / "out.NPZ")
    assert (tmp_path / "out.NPZ").exists()
    with pytest.raises(UsageError, match=r"\.onnx, \.npz, \.safetensors"):
        mm.export(bundle, tmp_path / "out.pt")
