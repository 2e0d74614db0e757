"""What an export to ccv writes: rows, BLOBs, pictures, what it says, and which files it leaves alone."""

from __future__ import annotations

import io
import os
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from onnx import ModelProto, helper
from PIL import Image

import mobilemodel as mm
from mobilemodel.cli import main
from mobilemodel.codecs import Family
from mobilemodel.container.writer import Spool, write_container
from mobilemodel.encodings import palette
from mobilemodel.encodings.payloads import PayloadWriter
from mobilemodel.errors import (
    MalformedContentError,
    OutputError,
    OutputExistsError,
    UnsupportedSourceError,
    UsageError,
)
from mobilemodel.v1 import bundle_pb2 as pb
from mobilemodel_converters.ccv import schema, writer
from mobilemodel_converters.onnx import build
from tests import conversions
from tests.convnets import convnet

BundleMaker = Callable[..., bytes]
WEIGHTS = ("conv1.weight", "conv1.bias", "conv2.weight", "conv2.bias", "fc1.weight", "fc1.bias", "fc2.weight",
           "fc2.bias")  # fmt: skip
UNSAID = "no preprocessing in the bundle: ccv will resize pictures to 21 pixels and subtract nothing"


@pytest.fixture
def bundle(make_bundle: BundleMaker) -> mm.Bundle:
    return mm.open(make_bundle(convnet(), WEIGHTS))


@pytest.fixture(scope="module")
def quantized(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same with codes: fc1 has 16 values, fc2 has 7; the convolutions are floats."""
    made = convnet()
    values = np.random.default_rng(3)
    for name, levels in (("fc1.weight", 16), ("fc2.weight", 7)):
        item = next(item for item in made.graph.initializer if item.name == name)
        table = values.permutation(np.arange(1, levels + 1)).astype(np.float32) / 8
        item.raw_data = table[values.integers(0, levels, tuple(item.dims))].tobytes()
    folder = tmp_path_factory.mktemp("quantized")
    conversions.report_of(made, folder, "kmeans-4")
    return folder / "out.mm"


def rows(path: Path, query: str) -> list[tuple[Any, ...]]:
    with closing(sqlite3.connect(path)) as connection:
        return connection.execute(query).fetchall()


def test_the_schema_is_that_of_the_current_generation(bundle: mm.Bundle, tmp_path: Path) -> None:
    assert mm.export(bundle, tmp_path / "out.sqlite3") == [str(tmp_path / "out.sqlite3")]
    statements = [sql for (sql,) in rows(tmp_path / "out.sqlite3", "SELECT sql FROM sqlite_master")]
    assert statements == [schema.CREATE_LAYER_PARAMS, schema.CREATE_CONVNET_PARAMS, schema.CREATE_LAYER_DATA]
    assert rows(tmp_path / "out.sqlite3", "PRAGMA integrity_check") == [("ok",)]


def test_columns_of_other_layer_types_are_null(bundle: mm.Bundle, tmp_path: Path) -> None:
    mm.export(bundle, tmp_path / "out.sqlite3")
    columns = "type, output_rows, output_count, output_strides, output_size, output_kappa, output_relu"
    found = rows(tmp_path / "out.sqlite3", f"SELECT {columns} FROM layer_params ORDER BY layer")
    assert found == [
        (1, 5, 8, 2, None, None, None), (5, None, None, None, 5, 2.0, None), (3, None, None, 2, 2, None, None),
        (1, 3, 16, 1, None, None, None), (4, None, None, 2, 4, None, None), (2, None, 12, None, None, None, 1),
        (2, None, 5, None, None, None, 0),
    ]  # fmt: skip
    assert [p for (p,) in rows(tmp_path / "out.sqlite3", "SELECT output_partition FROM layer_params")] == [
        2, None, None, 2, None, None, None,
    ]  # fmt: skip


def test_weights_lie_as_ccv_wants_them(bundle: mm.Bundle, tmp_path: Path) -> None:
    """Filter, row, column, channel within the group; output, then row, column, channel of what was flattened."""
    mm.export(bundle, tmp_path / "out.sqlite3")
    found = dict(rows(tmp_path / "out.sqlite3", "SELECT layer, weight FROM layer_data"))
    conv = np.frombuffer(found[3], "<f4").reshape(16, 3, 3, 4)
    graph = bundle["conv2.weight"].numpy()
    assert conv[9, 0, 2, 3] == graph[9, 3, 0, 2]
    full = np.frombuffer(found[5], "<f4").reshape(12, 3, 3, 16)
    assert full[7, 1, 2, 5] == bundle["fc1.weight"].numpy()[7, 5 * 9 + 1 * 3 + 2]
    assert np.array_equal(np.frombuffer(found[6], "<f4").reshape(5, 12), bundle["fc2.weight"].numpy().T)


def test_a_layer_is_half_where_all_its_values_are(make_bundle: BundleMaker, tmp_path: Path) -> None:
    made = convnet()
    for item in made.graph.initializer:
        if item.name in ("conv1.weight", "conv1.bias", "conv2.weight"):
            values = np.frombuffer(item.raw_data, "<f4").astype("<f2")
            item.raw_data = values.astype("<f4").tobytes()
    bundle = mm.open(make_bundle(made, WEIGHTS))
    mm.export(bundle, tmp_path / "out.sqlite3")
    found = rows(tmp_path / "out.sqlite3", "SELECT half_precision, length(weight), length(bias) FROM layer_data")
    assert found == [(1, 2 * 600, 2 * 8), (0, 4 * 576, 4 * 16), (0, 4 * 1728, 4 * 12), (0, 4 * 60, 4 * 5)]


def test_a_bias_that_is_not_there_is_zeros(make_bundle: BundleMaker, tmp_path: Path) -> None:
    made = convnet()
    conv = next(node for node in made.graph.node if node.output[0] == "conv1")
    del conv.input[2]
    mm.export(mm.open(make_bundle(made, WEIGHTS)), tmp_path / "out.sqlite3")
    assert rows(tmp_path / "out.sqlite3", "SELECT bias FROM layer_data WHERE layer = 0") == [(bytes(4 * 8),)]


def test_weights_that_stayed_in_the_graph(make_bundle: BundleMaker, tmp_path: Path) -> None:
    mm.export(mm.open(make_bundle(convnet(), WEIGHTS)), tmp_path / "all.sqlite3")
    mm.export(mm.open(make_bundle(convnet(), WEIGHTS[:3])), tmp_path / "few.sqlite3")
    assert (tmp_path / "all.sqlite3").read_bytes() == (tmp_path / "few.sqlite3").read_bytes()


@pytest.mark.parametrize("broken", [b"", b"\0" * 5])
def test_a_weight_in_the_graph_that_is_not_whole(make_bundle: BundleMaker, tmp_path: Path, broken: bytes) -> None:
    made = convnet()
    made.graph.initializer[-1].raw_data = broken
    with pytest.raises(MalformedContentError, match=r"tensor 'fc2\.bias'"):
        mm.export(mm.open(make_bundle(made, WEIGHTS[:3])), tmp_path / "out.sqlite3")
    assert os.listdir(tmp_path) == []


def test_a_reference_to_what_the_bundle_lacks(make_bundle: BundleMaker, tmp_path: Path) -> None:
    def rename(manifest: pb.Manifest) -> None:
        manifest.tensors[0].name = "a"

    with pytest.raises(MalformedContentError, match=r"tensor 'conv1\.bias'"):
        mm.export(mm.open(make_bundle(convnet(), WEIGHTS, rename)), tmp_path / "out.sqlite3")
    assert os.listdir(tmp_path) == []


def test_a_bundle_without_a_graph(make_bundle: BundleMaker, tmp_path: Path) -> None:
    def take_away(manifest: pb.Manifest) -> None:
        manifest.report = manifest.graph
        manifest.ClearField("graph")

    with pytest.raises(UnsupportedSourceError, match="no graph"):
        mm.export(mm.open(make_bundle(convnet(), WEIGHTS, take_away)), tmp_path / "out.sqlite3")


def _prepared(make_bundle: BundleMaker, **fields: Any) -> mm.Bundle:
    def prepare(manifest: pb.Manifest) -> None:
        manifest.preprocessing.add(input="x", layout=pb.LAYOUT_NCHW, **fields)

    return mm.open(make_bundle(convnet(), WEIGHTS, prepare))


SHORT = pb.Resize(mode=pb.Resize.MODE_SHORT, height=23, width=23, kernel=pb.Resize.KERNEL_AREA)


def test_without_preprocessing_there_is_no_mean(bundle: mm.Bundle, tmp_path: Path) -> None:
    """The network's input stands for the picture's size: that nobody said so is said."""
    said: list[str] = []
    mm.export(bundle, tmp_path / "out.sqlite3", say=said.append)
    assert said == [UNSAID]
    assert rows(tmp_path / "out.sqlite3", "SELECT * FROM convnet_params") == [(0, 21, 21, None)]


def test_a_mean_of_channels_becomes_a_picture(make_bundle: BundleMaker, tmp_path: Path) -> None:
    bundle = _prepared(make_bundle, resize=SHORT, mean=[104.0, 117.0, 123.0])
    said: list[str] = []
    mm.export(bundle, tmp_path / "out.sqlite3", say=said.append)
    assert said == []
    (found,) = rows(tmp_path / "out.sqlite3", "SELECT input_height, input_width, mean_activity FROM convnet_params")
    assert found[:2] == (23, 23)
    assert np.array_equal(np.frombuffer(found[2], "<f4").reshape(23, 23, 3)[11, 7], [104, 117, 123])


def test_what_ccv_has_no_place_for_is_said(make_bundle: BundleMaker, tmp_path: Path) -> None:
    bundle = _prepared(make_bundle, scale=[0.017], colour_order=pb.COLOUR_ORDER_BGR)
    said: list[str] = []
    mm.export(bundle, tmp_path / "out.sqlite3", say=said.append)
    assert ["0.017" in said[0], "blue" in said[1], "shorter side to 21" in said[2]] == [True] * 3


def codes(path: Path, name: str) -> np.ndarray[Any, Any]:
    with mm.open(path) as bundle:
        return bundle[name].indices()


def test_klaus_pictures_hold_the_codes(quantized: Path, tmp_path: Path) -> None:
    said: list[str] = []
    paths = mm.export(quantized, tmp_path / "out.sqlite3", klaus=True, say=said.append)
    assert [os.path.basename(path) for path in paths] == ["out.sqlite3", "layer-5-4bit.png", "layer-6-4bit.png"]
    assert said == [UNSAID]
    with Image.open(paths[1]) as first, Image.open(paths[2]) as second:
        assert (first.mode, first.size) == ("L", (144, 12))
        expected = codes(quantized, "fc1.weight").reshape(12, 16, 3, 3).transpose(0, 2, 3, 1).reshape(12, 144)
        assert np.array_equal(np.asarray(first), expected)
        # A palette's rows are outputs, however the graph's MatMul has its weight.
        assert np.array_equal(np.asarray(second), codes(quantized, "fc2.weight"))
    with mm.open(quantized) as bundle:
        tables = {5: bundle["fc1.weight"].tables(), 6: bundle["fc2.weight"].tables()}
    stored = rows(tmp_path / "out.sqlite3", "SELECT layer, quant FROM layer_quant")
    assert stored == [(layer, table.astype("<f2").tobytes()) for layer, table in tables.items()]
    assert [len(quant) for _, quant in stored] == [32, 14]
    data = rows(tmp_path / "out.sqlite3", "SELECT layer, weight IS NULL, length(bias) FROM layer_data")
    assert data == [(0, 0, 32), (3, 0, 64), (5, 1, 48), (6, 1, 20)]


def test_full_connects_that_stay_floats_are_named(bundle: mm.Bundle, tmp_path: Path) -> None:
    said: list[str] = []
    paths = mm.export(bundle, tmp_path / "out.sqlite3", klaus=True, say=said.append)
    assert len(paths) == 1
    assert said[:2] == [
        "layer 5 (node 'fc1' (Gemm)) stays in the database as floats: its weight is dense, no palette",
        "layer 6 (node 'fc2' (MatMul)) stays in the database as floats: its weight is dense, no palette",
    ]
    mm.export(bundle, tmp_path / "plain.sqlite3")
    assert (tmp_path / "out.sqlite3").read_bytes() == (tmp_path / "plain.sqlite3").read_bytes()


def palette_bundle(codes: np.ndarray[Any, Any], table: np.ndarray[Any, Any], **fields: Any) -> mm.Bundle:
    """``convnet`` with a palette for the weight of fc1, everything else inside the graph."""
    made = convnet()
    item = next(item for item in made.graph.initializer if item.name == "fc1.weight")
    item.CopyFrom(build.external_reference("fc1.weight", 1, (12, 144)))
    manifest = pb.Manifest(spec_major=1, spec_minor=0, inputs=[pb.ValueInfo(name="x")])
    tensor = manifest.tensors.add(name="fc1.weight", dtype=1, dims=(12, 144))
    tensor.palette.codes.row_axes = 1
    tensor.palette.tables_by.row_group = fields.get("row_group", 0)
    with closing(Spool()) as spool, io.BytesIO() as out:
        payloads = PayloadWriter(spool, Family.BASELINE)
        palette.encode(payloads, tensor.palette, codes, table, scales=fields.get("scales"))
        payloads.flush()
        # Fewer entries than codes name: writers do not do it, a damaged file may.
        tensor.palette.entries = fields.get("entries", table.shape[1])
        tensor.palette.tables.size = tensor.palette.entries * table[:, :1].nbytes
        manifest.graph = payloads.add_bytes(made.SerializeToString())
        write_container(out, manifest, spool)
        return mm.open(out.getvalue())


CODES = np.random.default_rng(8).integers(0, 16, (12, 144), dtype=np.uint8)
HALVES = np.arange(16, dtype=np.float16).reshape(1, 16, 1)
# What Klaus's layout cannot hold: codes, tables, how they are shared, and the reason that is given.
OBSTACLES: dict[str, tuple[Any, Any, dict[str, Any], str]] = {
    "a table of float32": (CODES, HALVES.astype(np.float32) + np.float32(1e-7), {}, "values that binary16 does not"),
    "scales": (CODES, HALVES, {"scales": np.array([2], np.float16)}, "scales"),
    "vectors": (CODES[:, ::2], np.zeros((1, 16, 2), np.float16), {}, "vectors of 2"),
    "tables": (CODES, HALVES.repeat(3, 0), {"row_group": 4}, "3 tables"),
    "entries": (CODES.astype(np.uint16), np.zeros((1, 300, 1), np.float16), {}, "300 entries"),
    "codes": (CODES, HALVES, {"entries": 13}, "a code names no entry"),
}


@pytest.mark.parametrize("what", OBSTACLES)
def test_what_klaus_cannot_hold_stays_floats(tmp_path: Path, what: str) -> None:
    codes, table, fields, why = OBSTACLES[what]
    bundle = palette_bundle(codes, table, **fields)
    said: list[str] = []
    paths = mm.export(bundle, tmp_path / "out.sqlite3", klaus=True, say=said.append)
    assert [why in line for line in said if line.startswith("layer 5")] == [True]
    assert os.listdir(tmp_path) == ["out.sqlite3"] == [os.path.basename(path) for path in paths]
    (found,) = rows(tmp_path / "out.sqlite3", "SELECT weight, half_precision FROM layer_data WHERE layer = 5")
    values = np.frombuffer(found[0], "<f2" if found[1] else "<f4").reshape(12, 3, 3, 16).transpose(0, 3, 1, 2)
    assert np.array_equal(values.reshape(12, 144), bundle["fc1.weight"].numpy())


def test_a_table_of_float32_that_is_halves_goes(tmp_path: Path) -> None:
    bundle = palette_bundle(CODES, HALVES.astype(np.float32))
    assert len(mm.export(bundle, tmp_path / "out.sqlite3", klaus=True)) == 2


def test_the_same_bytes_each_time(quantized: Path, tmp_path: Path) -> None:
    contents = []
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        paths = mm.export(quantized, tmp_path / name / "out.sqlite3", klaus=True)
        contents.append([Path(path).read_bytes() for path in paths])
    assert contents[0] == contents[1]


@pytest.mark.parametrize("there", ["out.sqlite3", "layer-5-4bit.png", "layer-6-4bit.png"])
def test_of_all_outputs_none_is_written_where_one_exists(quantized: Path, tmp_path: Path, there: str) -> None:
    (tmp_path / there).write_bytes(b"mine")
    with pytest.raises(OutputExistsError):
        mm.export(quantized, tmp_path / "out.sqlite3", klaus=True)
    assert os.listdir(tmp_path) == [there]
    assert (tmp_path / there).read_bytes() == b"mine"
    mm.export(quantized, tmp_path / "out.sqlite3", klaus=True, force=True)
    assert sorted(os.listdir(tmp_path)) == ["layer-5-4bit.png", "layer-6-4bit.png", "out.sqlite3"]


def test_another_picture_of_a_layer_is_in_the_way(quantized: Path, tmp_path: Path) -> None:
    """A reader that finds two pictures of one layer cannot tell which one counts."""
    (tmp_path / "layer-5.png").write_bytes(b"older")
    with pytest.raises(OutputExistsError, match="another picture"):
        mm.export(quantized, tmp_path / "out.sqlite3", klaus=True, force=True)
    assert os.listdir(tmp_path) == ["layer-5.png"]


def test_the_bundle_is_not_overwritten(quantized: Path, tmp_path: Path) -> None:
    for name in ("layer-5-4bit.png", "out.sqlite3"):
        copy = tmp_path / name
        copy.write_bytes(quantized.read_bytes())
        with pytest.raises(UsageError, match="the bundle itself"):
            mm.export(copy, tmp_path / "out.sqlite3", klaus=True, force=True)
        assert copy.read_bytes() == quantized.read_bytes()
        copy.unlink()


def test_klaus_is_a_layout_of_ccv(quantized: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"\.sqlite3"):
        mm.export(quantized, tmp_path / "out.onnx", klaus=True)


def test_a_full_disk(bundle: mm.Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(writer, "_SETTINGS", ("page_size = 4096", "max_page_count = 3"))
    with pytest.raises(OutputError, match="database or disk is full"):
        mm.export(bundle, tmp_path / "out.sqlite3")
    assert os.listdir(tmp_path) == []


def test_the_command(quantized: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["export", str(quantized), str(tmp_path / "out.sqlite3"), "--klaus"]) == 0
    out, err = capsys.readouterr()
    assert [os.path.basename(line) for line in out.splitlines()] == ["out.sqlite3", "layer-5-4bit.png",
                                                                    "layer-6-4bit.png"]  # fmt: skip
    assert err == f"{UNSAID}\n"


def _with_sigmoid() -> ModelProto:
    made = convnet()
    relu = next(node for node in made.graph.node if node.output[0] == "relu3")
    relu.CopyFrom(helper.make_node("Sigmoid", ["fc1"], ["relu3"], name="squash"))
    return made


def test_the_command_refuses_with_4(
    make_bundle: BundleMaker, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "in.mm").write_bytes(make_bundle(_with_sigmoid(), WEIGHTS))
    assert main(["export", str(tmp_path / "in.mm"), str(tmp_path / "out.sqlite3")]) == 4
    out, err = capsys.readouterr()
    assert out == ""
    assert "in.mm: node 'squash' (Sigmoid): ccv has no such layer" in err
    assert os.listdir(tmp_path) == ["in.mm"]
