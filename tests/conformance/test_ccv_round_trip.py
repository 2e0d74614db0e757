"""To ccv and back: the same values bit for bit, the same codes and tables, the same outputs.

The files of the zoo were written by ccv's own code: what comes back has to be what it wrote.
"""

from __future__ import annotations

import os
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
from onnx import ModelProto
from PIL import Image

import mobilemodel as mm
from mobilemodel.encodings.matrix import from_matrix
from mobilemodel.layout import tensor_layout
from tests.ccv_databases import Convnet
from tests.convnets import classifier, convnet

Array = np.ndarray[Any, np.dtype[Any]]


def convert(source: Path, out: Path, scheme: str = "lossless") -> Path:
    mm.convert(source, out, scheme=scheme)
    return out


def tables(path: Path) -> dict[str, list[tuple[Any, ...]]]:
    """Every row of every table, and the statements that made them."""
    with closing(sqlite3.connect(path)) as connection:
        made = connection.execute("SELECT name, sql FROM sqlite_master ORDER BY name").fetchall()
        return {name: [(sql,), *connection.execute(f"SELECT * FROM {name}").fetchall()] for name, sql in made}


@pytest.mark.parametrize("name", ["f32", "f16"])
def test_a_database_of_ccv_comes_back_row_by_row(zoo: Path, tmp_path: Path, name: str) -> None:
    """Parameters, NULLs, partitions, weights, biases, half flags and the mean."""
    source = zoo / "ccv" / f"{name}.sqlite3"
    said: list[str] = []
    mm.export(convert(source, tmp_path / "out.mm"), tmp_path / "back.sqlite3", say=said.append)
    assert tables(tmp_path / "back.sqlite3") == tables(source)
    assert said == []


@pytest.mark.parametrize("name", ["f32", "f16"])
def test_a_bundle_comes_back_from_ccv(zoo: Path, tmp_path: Path, name: str) -> None:
    first = convert(zoo / "ccv" / f"{name}.sqlite3", tmp_path / "first.mm")
    mm.export(first, tmp_path / "back.sqlite3")
    second = convert(tmp_path / "back.sqlite3", tmp_path / "second.mm")
    with mm.open(first) as before, mm.open(second) as after:
        assert before.graph() == after.graph()
        assert list(before) == list(after)
        for tensor in before.values():
            assert bytes(tensor.raw()) == bytes(after[tensor.name].raw())
        steps = before.manifest.preprocessing, after.manifest.preprocessing
        assert steps[0] == steps[1]
        assert np.array_equal(before.mean_picture(steps[0][0]), after.mean_picture(steps[1][0]))


def lying(bundle: mm.Bundle, name: str) -> Array:
    """A palette's codes where the graph has the weight's values."""
    tensor = bundle[name]
    layout = tensor_layout(tensor.message).codes
    assert layout is not None
    return from_matrix(tensor.indices(), layout.view, layout.perm, tensor.shape)


def outputs(path: Path, pictures: Array) -> Array:
    """What ONNX Runtime makes of a bundle."""
    with mm.open(path) as bundle:
        mm.export(bundle, path.with_suffix(".onnx"), force=True)
    return outputs_of(path.with_suffix(".onnx"), pictures)


def outputs_of(model: Path, pictures: Array) -> Array:
    session = onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"])
    found: Array = session.run(None, {session.get_inputs()[0].name: pictures})[0]
    return found


def saved(made: ModelProto, path: Path) -> Path:
    path.write_bytes(made.SerializeToString())
    return path


def test_an_onnx_network_computes_the_same_after_the_trip(tmp_path: Path) -> None:
    """Gemm and MatMul, flattening with channels last, partitions: all of them come back another way."""
    source = saved(convnet(), tmp_path / "in.onnx")
    mm.export(convert(source, tmp_path / "first.mm"), tmp_path / "back.sqlite3")
    convert(tmp_path / "back.sqlite3", tmp_path / "second.mm")
    pictures = np.random.default_rng(5).normal(0, 1, (4, 3, 21, 21)).astype(np.float32)
    before, after = outputs_of(source, pictures), outputs(tmp_path / "second.mm", pictures)
    assert np.ptp(before) > 0.05, "the network says something"
    np.testing.assert_allclose(after, before, rtol=1e-6, atol=1e-7)


@pytest.fixture(scope="module")
def trip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder: a classifier of real sizes as ``in.onnx``, quantized in ``first.mm``, in Klaus's layout and back."""
    folder = tmp_path_factory.mktemp("klaus")
    convert(saved(classifier(), folder / "in.onnx"), folder / "first.mm", "mixed-4-8")
    mm.export(folder / "first.mm", folder / "out.sqlite3", klaus=True)
    convert(folder / "out.sqlite3", folder / "second.mm", "mixed-4-8")
    return folder


def test_klaus_has_a_picture_of_each_full_connect(trip: Path) -> None:
    pictures = sorted(name for name in os.listdir(trip) if name.endswith(".png"))
    assert pictures == ["layer-2-4bit.png", "layer-3.png"]
    for name, size in zip(pictures, [(9216, 512), (512, 200)], strict=True):
        with Image.open(trip / name) as picture:
            assert (picture.size, picture.mode) == (size, "L")


def test_codes_and_tables_come_back(trip: Path) -> None:
    """Without requantizing: the same indices, the same table."""
    with mm.open(trip / "first.mm") as first, mm.open(trip / "second.mm") as second:
        for before, after in (("fc1.weight", "layer-2.weight"), ("fc2.weight", "layer-3.weight")):
            there = lying(first, before)
            back = lying(second, after)
            # MatMul has its weight as inputs x outputs, ccv and Gemm as outputs x inputs.
            assert np.array_equal(there if there.shape == back.shape else there.T, back)
            assert first[before].tables().astype("<f2").tobytes() == second[after].tables().tobytes()


def test_a_quantized_network_computes_the_same_after_the_trip(trip: Path) -> None:
    pictures = np.random.default_rng(6).normal(0, 1, (2, 3, 25, 25)).astype(np.float32)
    before = outputs(trip / "first.mm", pictures)
    np.testing.assert_allclose(outputs(trip / "second.mm", pictures), before, rtol=1e-5, atol=1e-7)


def test_the_second_trip_changes_nothing(trip: Path, tmp_path: Path) -> None:
    """A bundle made from Klaus's layout gives the same files again, and the same bundle."""
    paths = mm.export(trip / "second.mm", tmp_path / "out.sqlite3", klaus=True)
    for path in map(Path, paths):
        assert path.read_bytes() == (trip / path.name).read_bytes()
    convert(tmp_path / "out.sqlite3", tmp_path / "third.mm", "mixed-4-8")
    assert (tmp_path / "third.mm").read_bytes() == (trip / "second.mm").read_bytes()


def test_the_real_picture_goes_out_as_it_came(zoo: Path, tmp_path: Path) -> None:
    """A 2048 x 2048 full connect of Klaus's ImageNet model: the samples of its PNG, 255 of 256 indices in use."""
    with Image.open(zoo / "ccv" / "klaus-layer-11.png") as picture:
        samples = np.asarray(picture)
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "layer-0.png").write_bytes((zoo / "ccv" / "klaus-layer-11.png").read_bytes())
    table = np.sort(np.random.default_rng(7).normal(0, 0.02, 256)).astype("<f2")
    net = Convnet((2048, 1, 1)).full(2048)
    net.rows[0].weight = None
    net.write(tmp_path / "in" / "model.sqlite3", codebooks={0: table})
    convert(tmp_path / "in" / "model.sqlite3", tmp_path / "out.mm", "mixed-4-8")
    paths = mm.export(tmp_path / "out.mm", tmp_path / "model.sqlite3", klaus=True)
    assert [os.path.basename(path) for path in paths] == ["model.sqlite3", "layer-0.png"]
    with Image.open(paths[1]) as picture:
        assert np.array_equal(np.asarray(picture), samples)
    assert tables(Path(paths[0]))["layer_quant"][1] == (0, table.tobytes())
