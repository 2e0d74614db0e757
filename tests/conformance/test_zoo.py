"""Real networks: every ONNX model of the zoo under four schemes, and the accuracy of cifar-alexnet."""

from __future__ import annotations

import math
from collections import Counter
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from onnx import ModelProto, numpy_helper

import mobilemodel as mm
from mobilemodel.audit.report import Report
from mobilemodel.runtime import evaluate, random_inputs, read_data, run, session

Array = np.ndarray[Any, Any]
MODELS = [
    "cifar-alexnet/model.onnx", "cifar-resnet/model.onnx", "squeezenet-dc/squeezenet.onnx",
    "ultraface/version-RFB-320.onnx", "ultraface/version-slim-320.onnx", "ultraface/version-slim-320_simplified.onnx",
]  # fmt: skip
SCHEMES = ["lossless", "fp16", "mixed-4-8", "palette-6"]
# Optimal tables on trained weights: 8 bit 40 dB and more, 6 bit 28, 4 bit 17; float16 rounds by 2^-11, 70 dB and more.
FLOORS = {256: 38.0, 64: 27.0, 16: 16.0, 0: 65.0}
FLOAT_TOP1, DROP, LARGEST = 82.28, 0.3, 8_200_000


@cache
def source_run(path: Path) -> tuple[dict[str, Array], dict[str, Array]]:
    raw = path.read_bytes()
    inputs = random_inputs(raw, 0)
    return inputs, run(session(raw), inputs)


def convert(source: Path, folder: Path, scheme: str, **preprocessing: str) -> Report:
    options: dict[str, Any] = {}
    if preprocessing:
        step, _ = mm.PreprocessingOptions(**preprocessing).message()
        options["preprocessing"] = step
    return mm.convert(source, folder / "out.mm", scheme=scheme, options=mm.ConvertOptions(**options))


def test_all_onnx_models_of_the_zoo_are_listed(zoo: Path) -> None:
    assert sorted(path.relative_to(zoo).as_posix() for path in zoo.rglob("*.onnx")) == MODELS


@pytest.mark.parametrize("scheme", SCHEMES)
@pytest.mark.parametrize("name", MODELS)
def test_a_real_network(name: str, scheme: str, zoo: Path, tmp_path: Path) -> None:
    """Each weight named once, losses above the floor, all else bit-identical, session and export agree."""
    report = convert(zoo / name, tmp_path, scheme)
    graph = ModelProto.FromString((zoo / name).read_bytes()).graph
    weights = {item.name: numpy_helper.to_array(item) for item in graph.initializer}
    names = Counter(row.name for row in report.tensors)
    assert set(names) >= set(weights)
    assert max(names.values()) == 1
    inputs, expected = source_run(zoo / name)
    with mm.open(tmp_path / "out.mm") as bundle:
        for row in report.tensors:
            if row.encoding == "graph":
                assert row.reason
            elif row.sqnr_db is None:
                assert bytes(bundle[row.name].raw()) == weights[row.name].tobytes()
            else:
                stored = bundle[row.name]
                entries = stored.tables().shape[1] if row.encoding == "palette" else 0
                error = weights[row.name].astype(np.float64) - stored.numpy()
                signal = (weights[row.name].astype(np.float64) ** 2).sum()
                assert row.sqnr_db == pytest.approx(10 * math.log10(signal / (error**2).sum()), abs=0.01)
                assert row.sqnr_db >= FLOORS[entries], row
        mm.export(bundle, tmp_path / "back.onnx")
        outputs = run(session(bundle), inputs)
    exported = run(session(tmp_path / "back.onnx"), inputs)
    for output, found in outputs.items():
        assert np.isfinite(found).all()
        assert found.tobytes() == exported[output].tobytes()
        assert scheme != "lossless" or found.tobytes() == expected[output].tobytes()


def test_the_hint_on_a_real_network_of_convolutions(zoo: Path, tmp_path: Path) -> None:
    report = convert(zoo / "cifar-resnet/model.onnx", tmp_path, "mixed-4-8")
    assert report.hint is not None
    (tmp_path / "out.mm").unlink()
    assert report.hint.predicted_bytes == pytest.approx(
        convert(zoo / "cifar-resnet/model.onnx", tmp_path, report.hint.scheme).file_bytes, rel=0.05
    )


def test_a_clustered_network_keeps_its_own_values(zoo: Path, tmp_path: Path) -> None:
    """Deep Compression's SqueezeNet has at most 256 values a layer: but for the smallest layers, whose tables would
    weigh too much, exact palettes are smaller than halves."""
    report = convert(zoo / "squeezenet-dc/squeezenet.onnx", tmp_path, "fp16")
    weights = [row for row in report.tensors if row.role == "conv"]
    assert {row.encoding for row in weights if row.raw_bytes > 16384} == {"palette"}
    assert all(row.largest_error is None for row in weights if row.encoding == "palette")
    assert report.hint is None


def test_cifar_alexnet_keeps_its_accuracy(zoo: Path, tmp_path: Path) -> None:
    """``mixed-4-8``: at most 8.2 MB, and within 0.3 points of the float model, in the bundle and as exported ONNX."""
    folder = zoo / "cifar-alexnet"
    report = convert(
        folder / "model.onnx", tmp_path, "mixed-4-8", mean="125.268845,122.93302,113.86284", scale="0.015625"
    )
    assert report.file_bytes <= LARGEST
    assert (tmp_path / "out.mm").stat().st_size == report.file_bytes
    data = read_data(folder / "test.npz")
    with mm.open(tmp_path / "out.mm") as bundle:
        found = evaluate(bundle, data)
        step = bundle.manifest.preprocessing[0]
        mm.export(bundle, tmp_path / "back.onnx")
    assert found.pictures == 5000
    assert found.top1 == pytest.approx(FLOAT_TOP1, abs=DROP)
    exported = evaluate(tmp_path / "back.onnx", data.spread(500), preprocessing=step)
    assert exported == evaluate(tmp_path / "out.mm", data.spread(500))
