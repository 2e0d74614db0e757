"""``mobilemodel eval``: its table, its JSON, what it says beside them, and its refusals."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from onnx import helper

import mobilemodel as mm
from mobilemodel.runtime import evaluate_models

from .conftest import DIGITS, Command, check_refused, listing, model_of, run_process

DATA = DIGITS / "test.npz"
MODEL = DIGITS / "model.onnx"
GREY = ("--mean", "120", "--scale", "0.015625", "--channels", "grey")


def test_the_table(digits_bundle: Path, tmp_path: Path, call: Command) -> None:
    shutil.copy(MODEL, tmp_path / "digits.onnx")
    found = call("eval", tmp_path / "digits.onnx", digits_bundle, "--data", DATA)
    lines = found.out.splitlines()
    assert found.code == 0
    assert lines[0] == "599 pictures, 10 classes"
    assert lines[2].split("  ")[0] == "model"
    first, second = (line.split() for line in lines if "x " in line)
    sizes = MODEL.stat().st_size, digits_bundle.stat().st_size
    assert first[-9:] == [f"{sizes[0]:,}", "1.00x", "99.00", "100.00", *["-"] * 5]
    beside = evaluate_models([MODEL, digits_bundle], mm.read_data(DATA)).models[1].beside
    assert beside is not None
    assert beside.top1 is not None
    points, low, high = (f"{value:+.2f}" for value in (beside.top1.points, beside.top1.low, beside.top1.high))
    assert second[-11:-7] == [f"{sizes[1]:,}", f"{sizes[0] / sizes[1]:.2f}x", "98.83", "100.00"]
    assert second[-7:] == [f"{beside.agreement:.2f}", points, low, "to", high, "1", f"{beside.divergence:.3g}"]
    assert lines[-1].startswith("beside the first model: agreement, points of top-1")
    assert found.err == (
        f"{tmp_path / 'digits.onnx'}: no preprocessing of its own, so that of {digits_bundle} is used\n"
    )


def test_nothing_is_written_and_the_runtime_reports_to_nobody(
    digits_bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("CI", "GITHUB_ACTIONS", "ORT_DISABLE_TELEMETRY"):  # a runtime that sees CI is silent anyway
        monkeypatch.delenv(name, raising=False)
    for name in ("HOME", "XDG_CACHE_HOME", "TMPDIR"):
        monkeypatch.setenv(name, str(tmp_path))
    assert run_process("eval", digits_bundle, "--data", DATA).code == 0
    assert listing(tmp_path) == []


def test_json(digits_bundle: Path, call: Command) -> None:
    found = call("eval", MODEL, digits_bundle, "--data", DATA, "--limit", "100", "--threads", "2", "--json")
    content = json.loads(found.out)
    assert content["schema"] == "mobilemodel.evaluation/1"
    assert (content["pictures"], content["classes"], content["views"]) == (100, 10, 1)
    first, second = content["models"]
    assert (first["model"], first["file_bytes"], first["beside_first"]) == (str(MODEL), MODEL.stat().st_size, None)
    assert first["preprocessing"] == second["preprocessing"] == "grey; minus 120; times 0.015625; NCHW"
    assert first["preprocessing_from"] == second["preprocessing_from"] == str(digits_bundle)
    assert (second["softmaxed"], second["unusable"]) == (False, 0)
    assert second["top1"] == mm.evaluate(digits_bundle, mm.read_data(DATA), limit=100).top1
    top1 = second["beside_first"]["top1"]
    assert set(top1) == {"points", "low", "high", "p_value", "lost", "gained"}
    assert top1["points"] == pytest.approx(second["top1"] - first["top1"]) == top1["gained"] - top1["lost"]


def test_options_are_the_preprocessing_of_all(digits_bundle: Path, call: Command) -> None:
    found = call("eval", MODEL, digits_bundle, "--data", DATA, *GREY, "--json", "--limit", "50")
    assert found.err == ""
    assert [item["preprocessing_from"] for item in json.loads(found.out)["models"]] == [None, None]
    wrong = json.loads(call("eval", digits_bundle, "--data", DATA, "--channels", "grey", "--mean", "250", "--json").out)
    assert wrong["models"][0]["top1"] < 90


def test_a_mean_picture_among_the_options(tmp_path: Path, call: Command) -> None:
    np.save(tmp_path / "mean.npy", np.full((8, 8, 1), 120, np.float32))
    options = ("--mean", tmp_path / "mean.npy", *GREY[2:])
    by_picture, by_value = (
        json.loads(call("eval", MODEL, "--data", DATA, *how, "--json").out)["models"][0] for how in (options, GREY)
    )
    assert by_picture["preprocessing"] == "grey; minus a picture of 8x8; times 0.015625; NCHW"
    assert by_picture["top1"] == by_value["top1"]


def test_data_without_classes(digits_bundle: Path, tmp_path: Path, call: Command) -> None:
    with np.load(DATA) as data:
        np.savez(tmp_path / "plain.npz", x=data["x"][:40])
    found = call("eval", MODEL, digits_bundle, "--data", tmp_path / "plain.npz")
    second = [line for line in found.out.splitlines() if "x " in line][-1].split()
    assert second[-7:-1] == ["-", "-", "100.00", "-", "-", "-"]
    assert float(second[-1]) > 0
    assert found.out.splitlines()[-1] == "beside the first model: agreement, and KL(first || model)"
    content = json.loads(call("eval", MODEL, digits_bundle, "--data", tmp_path / "plain.npz", "--json").out)
    assert [(item["top1"], item["top5"]) for item in content["models"]] == [(None, None)] * 2
    assert content["models"][1]["beside_first"]["top1"] is None
    assert content["models"][1]["beside_first"]["agreement"] == 100


def test_ten_views(call: Command) -> None:
    options = ("--data", DATA, *GREY, "--resize", "10x10", "--crop", "8", "--views", "10")
    found = call("eval", MODEL, *options, "--limit", "100")
    assert found.out.startswith("100 pictures, 10 views of each, 10 classes\n")
    assert json.loads(call("eval", MODEL, *options, "--json").out)["views"] == 10


def test_what_no_number_tells_is_said(tmp_path: Path, call: Command) -> None:
    """A NaN among the outputs: null in JSON, a dash in the table, a line on stderr."""
    (tmp_path / "m.onnx").write_bytes(model_of([helper.make_node("Log", ["x"], ["y"])], {}).SerializeToString())
    x = np.array([[-1, 1, 1, 1], [1, 2, 3, 4], [5, 4, 3, 2]], np.float32)
    np.savez(tmp_path / "d.npz", x=x, y=np.array([1, 3, 0]))
    found = call("eval", tmp_path / "m.onnx", tmp_path / "m.onnx", "--data", tmp_path / "d.npz")
    assert found.code == 0
    assert found.out.splitlines()[-3].split()[-1] == "-"
    assert found.err.splitlines() == [
        f"{tmp_path / 'm.onnx'}: 1 picture's output holds NaN, or no probabilities as the first ones did: no KL"
    ] * 2  # fmt: skip
    second = json.loads(call("eval", *[tmp_path / "m.onnx"] * 2, "--data", tmp_path / "d.npz", "--json").out)
    assert second["models"][1]["unusable"] == 1
    assert second["models"][1]["beside_first"]["divergence_nats"] is None
    assert second["models"][1]["preprocessing"] is None
    refused = call("eval", tmp_path / "m.onnx", "--data", tmp_path / "d.npz", "--mean", "1")
    check_refused(refused, (2,))
    assert "float32 data go in as they are" in refused.err


@pytest.mark.parametrize(
    ("arguments", "code", "says"),
    [
        (["MODEL"], 2, "--data"),
        (["MODEL", "--data", "missing.npz"], 2, "missing.npz: cannot open"),
        (["MODEL", "--data", "DATA"], 2, "nothing says how pictures become the model's input"),
        (["BUNDLE", "missing.onnx", "--data", "DATA"], 2, "missing.onnx: cannot open"),
        (["BUNDLE", "DATA", "--data", "DATA"], 4, "test.npz: ONNX Runtime refuses the model"),
        (["BUNDLE", "--data", "DATA", "--limit", "0"], 2, "expected a number from 1 on, found '0'"),
        (["BUNDLE", "--data", "DATA", "--threads", "two"], 2, "expected a number from 1 on, found 'two'"),
        (["BUNDLE", "--data", "DATA", "--views", "5"], 2, "invalid choice"),
        (["BUNDLE", "--data", "DATA", "--views", "10"], 2, "ten views need a crop"),
        (["BUNDLE", "--data", "DATA", "--crop", "9"], 2, "a picture is smaller than its crop"),
        (["BUNDLE", "--data", "DATA", "--mean", "120"], 2, "do not fit the model's input"),
    ],
)
def test_refusals(arguments: list[str], code: int, says: str, digits_bundle: Path, call: Command) -> None:
    places = {"MODEL": MODEL, "BUNDLE": digits_bundle, "DATA": DATA}
    found = call("eval", *[places.get(argument, argument) for argument in arguments])
    assert (found.code, found.out) == (code, "")
    assert says in found.err
