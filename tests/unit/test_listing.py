"""What ``inspect`` shows."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from onnx import TensorProto, helper, numpy_helper

import mobilemodel as mm
from mobilemodel.listing import list_bundle, list_tensor, listing_json
from mobilemodel.v1 import bundle_pb2 as pb

BundleMaker = Callable[..., bytes]
LONG = "model/features/denseblock_4/denselayer_16/conv_2/Conv2D_bn_folded/ReadVariableOp:0"


@pytest.fixture
def described(make_bundle: BundleMaker) -> mm.Bundle:
    """A bundle with everything that a manifest can say."""
    weights = {LONG: (64, 128), "w": (128, 10)}
    nodes = [helper.make_node("MatMul", ["x", LONG], ["h"]), helper.make_node("MatMul", ["h", "w"], ["y"])]
    graph = helper.make_graph(
        nodes, "g", [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", 64])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["N", 10])],
        [numpy_helper.from_array(np.ones(shape, np.float32), name) for name, shape in weights.items()],
    )  # fmt: skip

    def describe(manifest: pb.Manifest) -> None:
        manifest.producer, manifest.scheme, manifest.licence, manifest.description = "me", "fp16", "MIT", "a test"
        manifest.sources.add(format="onnx", file_name="net.onnx", sha256=bytes(32))
        value = manifest.inputs[0]
        value.dtype = 1
        value.shape.dimensions.add(symbol="N")
        value.shape.dimensions.add(size=64)
        value.shape.dimensions.add()
        manifest.outputs.add(name="y", dtype=1)
        manifest.preprocessing.add(input="x", colour_order=pb.COLOUR_ORDER_GREY, mean=[120])
        manifest.tensors[1].loss.sqnr_millidb = 40_125

    return mm.open(make_bundle(helper.make_model(graph), list(weights), describe))


def test_the_head(described: mm.Bundle) -> None:
    lines = list_bundle(described).splitlines()
    assert lines[0].startswith(f"format 1.0, profile baseline, {described.size:,} bytes (")
    assert lines[1:9] == [
        "scheme: fp16", "licence: MIT", "about: a test", "source: net.onnx (onnx)", "  sha256 " + "00" * 32,
        "input: x float32 N x 64 x ?", "output: y float32 ?", "preprocessing of x: grey; minus 120; NCHW",
    ]  # fmt: skip


def test_long_names_are_whole_and_nothing_is_wider_than_100_columns(described: mm.Bundle) -> None:
    lines = list_bundle(described).splitlines()
    assert LONG in lines
    assert max(map(len, lines)) <= 100
    assert lines[lines.index(LONG) + 1].split()[0] == "64x128"
    assert next(line for line in lines if line.startswith("w ")).split()[-1] == "40.12"


def test_the_sum_at_the_end_is_the_file(described: mm.Bundle) -> None:
    found = listing_json(described)
    stored = sum(item["stored_bytes"] for item in found["tensors"])
    assert list_bundle(described).splitlines()[-1] == (
        f"2 tensors {stored:,} bytes, graph {found['graph_bytes']:,}, manifest {found['manifest_bytes']:,}"
    )
    assert 0 < stored + found["graph_bytes"] + found["manifest_bytes"] <= found["file_bytes"]


def test_json(described: mm.Bundle) -> None:
    found = listing_json(described)
    assert found["inputs"] == [{"name": "x", "dtype": "float32", "dims": ["N", 64, None]}]
    assert found["outputs"] == [{"name": "y", "dtype": "float32", "dims": None}]
    assert found["preprocessing"][0]["fields"] == {"input": "x", "colour_order": "COLOUR_ORDER_GREY", "mean": [120.0]}
    by_name = {item["name"]: item for item in found["tensors"]}
    assert by_name["w"]["sqnr_db"] == 40.125
    assert not by_name["w"]["identical"]
    assert by_name[LONG]["identical"]
    assert by_name[LONG]["status"] == "OK"


def test_one_tensor(described: mm.Bundle) -> None:
    text = list_tensor(described["w"])
    assert "dims             [128, 10]" in text
    assert "sqnr_millidb: 40125" in text
    assert listing_json(described, described["w"])["tensor"]["name"] == "w"


def test_a_tensor_of_a_later_version(make_bundle: BundleMaker) -> None:
    graph = helper.make_graph([], "g", [], [], [numpy_helper.from_array(np.ones(4, np.float32), "w")])

    def later(manifest: pb.Manifest) -> None:
        manifest.tensors[0].dtype = 99

    bundle = mm.open(make_bundle(helper.make_model(graph), ["w"], later))
    assert "dense: UNSUPPORTED_ENCODING" in list_bundle(bundle)
    assert "1 of them cannot be decoded" in list_bundle(bundle)
    found = listing_json(bundle, bundle["w"])["tensor"]
    assert found["status"] == "UNSUPPORTED_ENCODING"
    assert "bits" not in found
    assert "status" in list_tensor(bundle["w"])
