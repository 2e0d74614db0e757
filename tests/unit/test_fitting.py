"""convert() with calibration data: what ends up in the bundle, and what is said about it."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from onnx import ModelProto, TensorProto, helper

import mobilemodel as mm
from mobilemodel.audit.report import Report
from mobilemodel.errors import CheckFailedError, MissingDependencyError, UnsupportedSourceError, UsageError
from mobilemodel.pipeline import ConvertOptions, FittingOptions, PreprocessingOptions
from mobilemodel.runtime.data import Data
from mobilemodel.runtime.session import run, session
from mobilemodel.search import Transforms
from tests.calibrating import labelled, pictures, residual_net, saved
from tests.models import Array, Net, model, tensor, value

ROOT = Path(__file__).resolve().parents[2]
NAMES = ("conv1", "depthwise", "project", "fc1", "fc2")


@pytest.fixture(scope="module")
def data() -> Data:
    return labelled(residual_net(), 300)


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("net") / "net.onnx"
    path.write_bytes(residual_net().SerializeToString())
    return path


def fitted(data: Data, **more: Any) -> ConvertOptions:
    return ConvertOptions(fitting=FittingOptions(data), force=True, **more)


def net(path: Path, made: ModelProto) -> Path:
    path.write_bytes(made.SerializeToString())
    return path


def rows(report: Report) -> dict[str, Any]:
    return {row.name: row for row in report.tensors}


def test_a_calibrated_bundle_runs_and_says_what_was_done(source: Path, data: Data, tmp_path: Path) -> None:
    out = tmp_path / "out.mm"
    report = mm.convert(source, out, scheme="auto", options=fitted(data))
    found = rows(report)
    with mm.open(out) as bundle:
        mm.verify(bundle, [source])
        for name in NAMES:
            weight, bias = found[f"{name}.weight"], found[f"{name}.bias"]
            assert weight.response_db > 10
            assert weight.sqnr_db < 60
            assert f"response {weight.response_db:.1f} dB" in weight.reason
            assert "levels by price" in weight.reason
            assert bias.reason == "corrected from data, rounded to float16"
            assert (bias.response_db, bias.encoding, bias.bits) == (None, "dense", 16)
            assert bundle[weight.name].encoding == "palette"
            assert bundle[weight.name].loss is not None
            assert bundle[bias.name].loss is not None
        x = pictures(200, 7)
        stored = run(session(bundle), {"x": x})["y"]
    exact = run(session(residual_net().SerializeToString()), {"x": x})["y"]
    assert (stored.argmax(1) == exact.argmax(1)).mean() > 0.9
    assert (stored != exact).any()


def test_the_response_is_given_as_json(source: Path, data: Data, tmp_path: Path) -> None:
    content = mm.convert(source, tmp_path / "o.mm", scheme="auto", options=fitted(data)).to_json()
    found = {row["name"]: row["response_db"] for row in content["tensors"]}
    assert found["fc1.weight"] > 10
    assert found["fc1.bias"] is None


def test_a_lower_price_reproduces_the_responses_better(source: Path, data: Data, tmp_path: Path) -> None:
    plan, sizes, decibels = tmp_path / "plan.toml", [], []
    for price in (1e-5, 1e-3, 1e-1):
        plan.write_text(f'scheme = "auto"\nprice = {price}\n')
        report = mm.convert(source, tmp_path / "o.mm", scheme=plan, options=fitted(data))
        sizes.append(report.file_bytes)
        decibels.append(rows(report)["fc2.weight"].response_db)
    assert sizes == sorted(sizes, reverse=True)
    assert decibels == sorted(decibels, reverse=True)


def test_product_codebooks_are_fitted_too(source: Path, data: Data, tmp_path: Path) -> None:
    found = rows(mm.convert(source, tmp_path / "o.mm", scheme="qcnn", options=fitted(data)))
    blind = rows(mm.convert(source, tmp_path / "o.mm", scheme="qcnn", options=ConvertOptions(force=True)))
    assert found["fc1.weight"].response_db > 3
    assert "product codebooks" in found["fc1.weight"].reason
    assert found["fc1.weight"].sqnr_db < blind["fc1.weight"].sqnr_db


def test_only_layers_with_a_price_are_fitted(source: Path, data: Data, tmp_path: Path) -> None:
    plan = tmp_path / "plan.toml"
    plan.write_text('scheme = "auto"\n[operator.Conv]\nencoding = "float16"\n[name."fc2*"]\nsqnr = 30\n')
    report = mm.convert(source, tmp_path / "o.mm", scheme=plan, options=fitted(data))
    found = rows(report)
    assert [name for name, row in found.items() if row.response_db is not None] == ["fc1.weight"]
    assert found["conv1.weight"].reason == "rounded to float16"
    assert found["fc2.weight"].sqnr_db == pytest.approx(30, abs=1)
    assert found["fc2.bias"].sqnr_db is None
    assert "fc2.weight is quantized without data: its rule is an SQNR of the weights" in report.notes
    assert not [note for note in report.notes if "conv1" in note]


def test_a_plan_without_a_price_for_any_layer_is_refused(source: Path, data: Data, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no layer that data can speak about") as caught:
        mm.convert(source, tmp_path / "o.mm", scheme="mixed-4-8", options=fitted(data))
    assert caught.value.advice == "Use --scheme auto."
    assert os.listdir(tmp_path) == []


def test_layers_that_data_cannot_speak_about_are_named_with_the_reason(tmp_path: Path) -> None:
    made = Net(1)
    x = made.node("Relu", made.gemm("first", "x", 16, 64))
    shared = made.weight("shared", 16, 16)
    x = made.node("MatMul", made.node("Relu", made.node("MatMul", x, shared)), shared)
    both = made.weight("both.bias", 16)
    x = made.node("Gemm", made.node("Gemm", x, made.weight("a", 16, 16), both), made.weight("b", 16, 16), both)
    made.gemm("last", x, 5, 16, "y")
    source = net(tmp_path / "net.onnx", made.done(value("x", ["N", 64])))
    report = mm.convert(source, tmp_path / "o.mm", scheme="auto", options=fitted(Data(pictures(200).reshape(200, 64))))
    told = [note for note in report.notes if "quantized without data" in note]
    assert told == [
        "a is quantized without data: its bias belongs to other layers too, or is no float32 vector",
        "b is quantized without data: its bias belongs to other layers too, or is no float32 vector",
        "shared is quantized without data: it is not the weight of exactly one layer of the main graph",
    ]
    found = rows(report)
    assert found["first.weight"].response_db is not None
    assert found["shared"].response_db is None


def test_pictures_are_prepared_and_mirrored_as_the_network_takes_them(tmp_path: Path, source: Path) -> None:
    generator = np.random.default_rng(1)
    x = generator.integers(0, 256, (150, 8, 8, 1), np.uint8)
    step, _ = PreprocessingOptions(mean="128", scale="0.02", channels="grey").message()
    ready = ((x.astype(np.float32) - 128) * np.float32(0.02)).transpose(0, 3, 1, 2)
    out = {}
    for name, given, mirror in (("pictures", x, False), ("ready", ready, False), ("mirrored", x, True)):
        options = ConvertOptions(fitting=FittingOptions(Data(given), mirror=mirror), preprocessing=step)
        mm.convert(source, tmp_path / name, scheme="auto", options=options)
        with mm.open(tmp_path / name) as bundle:
            out[name] = {key: bundle[key].raw() for key in bundle}
    assert out["pictures"] == out["ready"]
    assert out["pictures"] != out["mirrored"]


def test_pictures_need_preprocessing(source: Path, tmp_path: Path) -> None:
    x = Data(np.zeros((5, 8, 8, 1), np.uint8))
    with pytest.raises(UsageError, match="nothing says how pictures") as caught:
        mm.convert(source, tmp_path / "o.mm", scheme="auto", options=fitted(x))
    assert "--mean" in str(caught.value.advice)


@pytest.mark.parametrize("batch", [1, 32])
def test_networks_of_one_batch_size_are_calibrated_too(batch: int, data: Data, source: Path, tmp_path: Path) -> None:
    fixed = net(tmp_path / "fixed.onnx", residual_net(batch=batch))
    one, other = (rows(mm.convert(path, tmp_path / "o.mm", scheme="auto", options=fitted(data)))["fc2.weight"]
                  for path in (fixed, source))  # fmt: skip
    assert one.response_db == pytest.approx(other.response_db, abs=1.5)


def test_fewer_samples_than_the_only_batch_size_are_an_error(data: Data, tmp_path: Path) -> None:
    fixed = net(tmp_path / "fixed.onnx", residual_net(batch=32))
    with pytest.raises(UsageError, match="one size") as caught:
        mm.convert(fixed, tmp_path / "o.mm", scheme="auto", options=fitted(data.spread(31)))
    assert (caught.value.expected, caught.value.found) == (32, 31)


def test_a_model_of_two_inputs_is_not_calibrated(data: Data, tmp_path: Path) -> None:
    nodes = [helper.make_node("MatMul", ["x", "w"], ["h"]), helper.make_node("Add", ["h", "z"], ["y"])]
    made = model(nodes, [value("x", ["N", 4]), value("z", ["N", 4])], [tensor("w", np.eye(4, dtype=np.float32))])
    with pytest.raises(UnsupportedSourceError, match="number of inputs"):
        mm.convert(net(tmp_path / "two.onnx", made), tmp_path / "o.mm", scheme="auto", options=fitted(data))


@pytest.mark.parametrize("x", [
    pictures(20)[:, 0], np.zeros((20, 1, 9, 8), np.float32), np.full((20, 1, 8, 8), np.nan, np.float32),
], ids=["rank", "size", "NaN"])  # fmt: skip
def test_data_that_do_not_fit_are_an_error_of_ours(x: Array, source: Path, tmp_path: Path) -> None:
    with pytest.raises((CheckFailedError, UsageError)):
        mm.convert(source, tmp_path / "o.mm", scheme="auto", options=fitted(Data(x)))
    assert os.listdir(tmp_path) == []


def test_a_layer_with_inputs_of_zero_is_named(source: Path, tmp_path: Path) -> None:
    zeros = Data(np.zeros((50, 1, 8, 8), np.float32))
    with pytest.raises(CheckFailedError, match=r"layer 'conv1\.weight'.*zero on all"):
        mm.convert(source, tmp_path / "o.mm", scheme="auto", options=fitted(zeros))


def test_few_samples_are_told(source: Path, data: Data, tmp_path: Path) -> None:
    report = mm.convert(source, tmp_path / "o.mm", scheme="auto", options=fitted(data.spread(40)))
    assert [note for note in report.notes if "fc1.weight: 40 rows of calibration data for 128 columns" in note]
    with mm.open(tmp_path / "o.mm") as bundle:
        stored = bundle.report()
    assert stored is not None
    assert [note for note in stored["notes"] if "give more data" in note]


def test_without_the_extra_the_error_says_what_to_install(
    source: Path, data: Data, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "threadpoolctl", None)
    with pytest.raises(MissingDependencyError) as caught:
        mm.convert(source, tmp_path / "o.mm", scheme="auto", options=fitted(data))
    assert caught.value.advice == 'Install it with: pip install "mobilemodel[calibration]"'


def test_the_bytes_do_not_depend_on_threads_or_processes(tmp_path: Path) -> None:
    """«the same input gives the same bytes whatever the number of threads», those of matrix libraries too: at a low
    price the last bits of a layer of this width decide on levels."""
    made = residual_net(hidden=700)
    source, file = saved(tmp_path, made, labelled(made, 500))
    plan = tmp_path / "plan.toml"
    plan.write_text('scheme = "auto"\nprice = 1e-9\n')
    for threads in ("1", "2"):
        path = os.pathsep.join([str(ROOT), str(ROOT / "converters")])
        variables = os.environ | {"OPENBLAS_NUM_THREADS": threads, "PYTHONPATH": path}
        command = [sys.executable, "-m", "mobilemodel", "convert", source, tmp_path / f"{threads}.mm", "--scheme", plan,
                   "--calibration", file, "--threads", threads]  # fmt: skip
        subprocess.run(list(map(str, command)), check=True, env=variables, capture_output=True, timeout=60)
    assert (tmp_path / "1.mm").read_bytes() == (tmp_path / "2.mm").read_bytes()


def test_nothing_is_fitted_to_samples_that_are_held_out(source: Path, data: Data, tmp_path: Path) -> None:
    content = []
    for given, held_out in ((data, 100), (data.split(100)[0], 0), (data, 0)):
        options = ConvertOptions(fitting=FittingOptions(given, held_out=held_out), force=True)
        mm.convert(source, tmp_path / "o.mm", scheme="auto", options=options)
        content.append((tmp_path / "o.mm").read_bytes())
    assert content[0] == content[1]
    assert content[0] != content[2]


def test_other_seeds_look_at_other_places(source: Path, data: Data, tmp_path: Path) -> None:
    out = tmp_path / "o.mm"
    content = []
    for seed in (1, 1, 2):
        options = ConvertOptions(fitting=FittingOptions(data, seed=seed), force=True)
        mm.convert(source, out, scheme="auto", options=options)
        content.append(out.read_bytes())
    assert content[0] == content[1]
    assert content[0] != content[2]


def test_a_plan_that_was_made_with_data_wants_them(source: Path, tmp_path: Path) -> None:
    plan = tmp_path / "plan.toml"
    plan.write_text('scheme = "auto"\n[calibration]\nsamples = 100\n')
    with pytest.raises(UsageError, match="made with calibration data") as caught:
        mm.convert(source, tmp_path / "o.mm", scheme=plan)
    assert "--calibration" in str(caught.value.advice)


def batch_normalized() -> ModelProto:
    made = Net(2)
    x = made.node("Relu", made.norm("norm", made.conv("conv", "x", 8, 1, 3, bias=False), 8))
    made.gemm("fc", made.node("Flatten", x), 10, 8 * 64, "y")
    return made.done(value("x", ["N", 1, 8, 8]))


def test_fold_comes_before_calibration(data: Data, tmp_path: Path) -> None:
    source = net(tmp_path / "norm.onnx", batch_normalized())
    report = mm.convert(
        source, tmp_path / "o.mm", scheme="auto", options=fitted(data, transforms=Transforms(fold=True))
    )
    found = rows(report)
    assert not [name for name in found if name.startswith("norm.")]
    assert found["conv.weight"].response_db is not None
    assert [note for note in report.notes if note.startswith("fold of ")]


def test_low_rank_layers_are_calibrated_as_two(source: Path, data: Data, tmp_path: Path) -> None:
    options = fitted(data, transforms=Transforms(low_rank={"fc1*": 16}))
    report = mm.convert(source, tmp_path / "o.mm", scheme="auto", options=options)
    found = {name: row for name, row in rows(report).items() if name.startswith("fc1") and row.role == "fc"}
    assert sorted(16 in row.dims for row in found.values()) == [True, True]
    assert all(row.response_db is not None for row in found.values())
    assert [note for note in report.notes if note.startswith("low_rank of ") and "rank 16 of 48" in note]


def test_a_split_respects_what_the_inputs_are_like(source: Path, data: Data, tmp_path: Path) -> None:
    """With data another factorisation comes out: that of the response."""
    changes = Transforms(low_rank={"fc1.weight": 16})
    plan = tmp_path / "plan.toml"
    plan.write_text('scheme = "lossless"\n[name."fc2.weight"]\nprice = 0.01\n')
    x, answers = pictures(200, 3), []
    for options in (fitted(data, transforms=changes), ConvertOptions(force=True, transforms=changes)):
        mm.convert(source, tmp_path / "o.mm", scheme=plan, options=options)
        with mm.open(tmp_path / "o.mm") as bundle:
            answers.append(run(session(bundle), {"x": x})["y"])
    exact = run(session(residual_net().SerializeToString()), {"x": x})["y"]
    errors = [float(np.square(answer - exact).mean()) for answer in answers]
    assert errors[0] < errors[1]


def test_sparsity_is_done_and_told_with_data_and_without(source: Path, data: Data, tmp_path: Path) -> None:
    asked, x = Transforms(sparsity={"fc*": 0.5, "fc2.weight": 0.75}), pictures(200, 3)
    plan, answers = tmp_path / "plan.toml", []
    plan.write_text('scheme = "lossless"\n[name."conv1.weight"]\nprice = 1e-6\n')
    for options in (ConvertOptions(transforms=asked, force=True), fitted(data, transforms=asked)):
        report = mm.convert(source, tmp_path / "o.mm", scheme=plan, options=options)
        assert [note for note in report.notes if note.startswith("prune of fc1.weight")]
        with mm.open(tmp_path / "o.mm") as bundle:
            shares = [(np.frombuffer(bundle[f"{name}.weight"].raw(), "<f4") == 0).mean() for name in ("fc1", "fc2")]
            answers.append(run(session(bundle), {"x": x})["y"])
        np.testing.assert_allclose(shares, [0.5, 0.75], atol=0.01)
    exact = run(session(residual_net().SerializeToString()), {"x": x})["y"]
    errors = [float(np.square(answer - exact).mean()) for answer in answers]
    assert errors[1] < 0.7 * errors[0]  # the surgeon's choice, and what makes up for it


def test_dead_weights_are_removed_and_told(data: Data, tmp_path: Path) -> None:
    made = residual_net()
    made.graph.node.append(helper.make_node("Gemm", ["v8", "spare"], ["unused"]))
    made.graph.initializer.append(tensor("spare", np.ones((128, 3), np.float32)))
    source = net(tmp_path / "dead.onnx", made)
    kept = mm.convert(source, tmp_path / "o.mm", scheme="auto", options=fitted(data))
    assert "spare is quantized without data: no output of the network needs its layer" in kept.notes
    gone = mm.convert(
        source, tmp_path / "o.mm", scheme="auto", options=fitted(data, transforms=Transforms(remove_dead=True))
    )
    assert set(rows(kept)) - set(rows(gone)) == {"spare"}
    assert [note for note in gone.notes if "spare" in note]


@pytest.mark.parametrize("asked", [Transforms(low_rank={"nothing*": 4}), Transforms(sparsity={"nothing*": 0.5})])
def test_transforms_of_nothing_are_an_error(asked: Transforms, source: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="not there") as caught:
        mm.convert(source, tmp_path / "o.mm", scheme="auto", options=ConvertOptions(transforms=asked))
    assert caught.value.found == "nothing*"
    assert "fc1.weight" in str(caught.value.expected)


def test_a_plans_patterns_that_match_nothing_are_noted(source: Path, data: Data, tmp_path: Path) -> None:
    plan = tmp_path / "plan.toml"
    plan.write_text('scheme = "auto"\n[name."nothing"]\nprice = 0.1\n')
    report = mm.convert(source, tmp_path / "o.mm", scheme=plan, options=fitted(data))
    assert [note for note in report.notes if "nothing" in note and "matches no tensor" in note]


@pytest.mark.parametrize("ready", [True, False])
def test_split_keeps_every_sample_once_and_evenly_spread(ready: bool, tmp_path: Path) -> None:
    count = 103
    x: Any = np.arange(count, dtype=np.float32)[:, None] if ready else tuple(tmp_path / str(n) for n in range(count))
    data = Data(x, np.arange(count), ("a",), "file")
    for held_out in (1, 25, 51, 102):
        fit, held = data.split(held_out)
        assert held is not None
        assert (len(fit), len(held)) == (count - held_out, held_out)
        assert fit.classes is not None
        assert held.classes is not None
        assert sorted([*fit.classes, *held.classes]) == list(range(count))
        np.testing.assert_array_equal(held.classes, np.arange(held_out) * count // held_out)  # evenly spread
        assert (fit.names, fit.file) == (("a",), "file")
        if ready:
            np.testing.assert_array_equal(np.asarray(held.x)[:, 0], held.classes)
        else:
            assert [path.name for path in held.x] == [str(n) for n in held.classes]
    assert data.split(0) == (data, None)
    unlabelled = replace(data, classes=None).split(3)
    assert unlabelled[1] is not None
    assert unlabelled[1].classes is None
    for wrong in (-1, count, count + 1):
        with pytest.raises(UsageError, match="held out"):
            data.split(wrong)


def test_an_input_of_integers_takes_no_pictures(tmp_path: Path) -> None:
    nodes = [helper.make_node("Cast", ["x"], ["f"], to=1), helper.make_node("MatMul", ["f", "w"], ["y"])]
    made = model(nodes, [value("x", ["N", 1, 8, 8], TensorProto.INT64)], [tensor("w", np.eye(8, dtype=np.float32))])
    step, _ = PreprocessingOptions(channels="grey").message()
    options = fitted(Data(np.zeros((5, 8, 8, 1), np.uint8)), preprocessing=step)
    with pytest.raises((UnsupportedSourceError, UsageError)):
        mm.convert(net(tmp_path / "i.onnx", made), tmp_path / "o.mm", scheme="auto", options=options)
