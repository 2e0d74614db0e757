"""Every command and option of the command line: what it prints, where, and its exit code."""

from __future__ import annotations

import hashlib
import json
import re
from pathlib import Path

import numpy as np
import pytest

import mobilemodel as mm
from mobilemodel import cli

from .conftest import DIGITS, ROOT, Command, listing, run_process

MODEL = DIGITS / "model.onnx"
SCHEMES = [
    "lossless", "fp16", "int8", "kmeans-8", "kmeans-4", "kmeans-2", "kmeans-1", "mixed-4-8", "palette-8", "palette-6",
    "palette-4",
]  # fmt: skip
WEIGHTS = ("conv1.weight", "conv2.weight", "fc6.weight", "fc7.weight", "fc8.weight")


@pytest.mark.parametrize("scheme", SCHEMES)
def test_each_scheme_converts_and_verifies(scheme: str, tmp_path: Path, call: Command) -> None:
    out = tmp_path / "out.mm"
    report = call("convert", MODEL, out, "--scheme", scheme)
    assert report.code == 0
    assert report.err == ""
    for name in WEIGHTS:
        assert len([line for line in report.out.splitlines() if line.startswith(f"{name} ")]) == 1
    assert f"total {out.stat().st_size:,} bytes" in report.out
    assert call("verify", out, "--against", MODEL).code == 0


def test_the_default_scheme_is_auto(tmp_path: Path, call: Command) -> None:
    report = json.loads(call("convert", MODEL, tmp_path / "out.mm", "--json").out)
    encodings = {row["name"]: (row["encoding"], row["bits"]) for row in report["tensors"]}
    assert report["scheme"] == "auto"
    assert {encodings[name][0] for name in WEIGHTS} == {"palette"}


def test_the_mix_of_schemes(tmp_path: Path, call: Command) -> None:
    report = json.loads(call("convert", MODEL, tmp_path / "out.mm", "--scheme", "mixed-4-8", "--json").out)
    encodings = {row["name"]: (row["encoding"], row["bits"]) for row in report["tensors"]}
    assert [encodings[name] for name in WEIGHTS] == [
        ("dense", 16), ("dense", 16), ("palette", 4), ("palette", 8), ("palette", 8),
    ]  # fmt: skip


@pytest.mark.parametrize("codec", ["auto", "zstd", "png"])
def test_codec(codec: str, tmp_path: Path, call: Command) -> None:
    assert call("convert", MODEL, tmp_path / "out.mm", "--codec", codec).code == 0
    with mm.open(tmp_path / "out.mm") as bundle:
        assert bundle.profile == ("baseline" if codec == "png" else "full")


def test_profile_baseline_needs_no_zstd_and_is_what_was_predicted(tmp_path: Path, call: Command) -> None:
    full = json.loads(call("convert", MODEL, tmp_path / "full.mm", "--json").out)
    baseline = json.loads(call("convert", MODEL, tmp_path / "base.mm", "--json", "--profile", "baseline").out)
    assert baseline["profile"] == "baseline"
    assert baseline["baseline_bytes"] is None
    assert full["baseline_bytes"] == pytest.approx(baseline["file_bytes"], rel=0.02)


def test_baseline_and_zstd_contradict(tmp_path: Path, call: Command) -> None:
    found = call("convert", MODEL, tmp_path / "out.mm", "--profile", "baseline", "--codec", "zstd")
    assert found.code == 2
    assert "--codec png" in found.err
    assert listing(tmp_path) == []


def test_preprocessing_and_labels_are_kept_and_printed(tmp_path: Path, call: Command) -> None:
    out = tmp_path / "out.mm"
    found = call("convert", MODEL, out, "--mean", "120", "--scale", "0.015625", "--channels", "grey", "--resize",
                 "short:9:area", "--crop", "8", "--labels", DIGITS / "labels.txt", "--licence", "CC-BY-4.0",
                 "--description", "ten digits")  # fmt: skip
    expected = "preprocessing of data: resize short 9x9 area; crop 8x8; grey; minus 120; times 0.015625; NCHW"
    assert expected in found.out
    assert "labels: 10" in found.out
    listed = call("inspect", out).out
    assert expected in listed
    assert "licence: CC-BY-4.0" in listed
    assert "about: ten digits" in listed
    with mm.open(out) as bundle:
        assert bundle.labels() == tuple((DIGITS / "labels.txt").read_text().split())
        step = bundle.manifest.preprocessing[0]
        assert (step.input, list(step.mean), list(step.scale), step.crop_height) == ("data", [120], [0.015625], 8)


def test_the_example_keeps_its_accuracy(digits_bundle: Path) -> None:
    data = mm.read_data(DIGITS / "test.npz")
    assert mm.evaluate(digits_bundle, data).top1 >= 95.0


def test_a_mean_picture(tmp_path: Path, call: Command) -> None:
    picture = np.arange(64, dtype=np.float64).reshape(8, 8, 1)
    np.save(tmp_path / "mean.npy", picture)
    found = call("convert", MODEL, tmp_path / "out.mm", "--mean", tmp_path / "mean.npy", "--channels", "grey")
    assert "minus a picture of 8x8" in found.out
    with mm.open(tmp_path / "out.mm") as bundle:
        assert np.array_equal(bundle.mean_picture(bundle.manifest.preprocessing[0]), picture)


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--mean", "1,2", "--channels", "grey"], "one finite number"),
        (["--mean", "1,2", "--channels", "rgb"], "1 or 3 finite numbers"),
        (["--mean", "nan", "--channels", "grey"], "found nan"),
        (["--mean", "120"], "grey is one channel"),
        (["--channels", "cmyk"], "invalid choice"),
        (["--scale", "fast", "--channels", "grey"], "--scale"),
        (["--resize", "long:256"], "short:256"),
        (["--crop", "0"], "227 or 224x192"),
        (["--crop", "9", "--resize", "8x8"], "--crop is larger"),
        (["--crop", "7", "--channels", "grey"], "do not make the size"),
        (["--labels", "missing.txt"], "--labels"),
        (["--mean", "missing.npy"], "--mean"),
        (["--scheme", "kmeans-3"], "kmeans"),
        (["--scheme", "missing.toml"], "missing.toml"),
        (["--from", "caffe2"], "no such converter"),
        (["--codec", "brotli"], "invalid choice"),
        (["--forse"], "unrecognized arguments"),
    ],
)
def test_wrong_usage_says_what_is_expected(arguments: list[str], says: str, tmp_path: Path, call: Command) -> None:
    found = call("convert", MODEL, tmp_path / "out.mm", *arguments)
    assert found.code == 2
    assert says in found.err
    assert found.out == ""
    assert listing(tmp_path) == []


def test_a_plan_file(tmp_path: Path, call: Command) -> None:
    plan = tmp_path / "mine.toml"
    rules = ['scheme = "fp16"', "[operator.Gemm]", 'encoding = "palette"', "bits = 6", '[name."fc8.*"]',
             'encoding = "lossless"']  # fmt: skip
    plan.write_text("\n".join(rules))
    report = json.loads(call("convert", MODEL, tmp_path / "out.mm", "--scheme", plan, "--json").out)
    rows = {row["name"]: row for row in report["tensors"]}
    assert report["scheme"] == "mine"
    assert rows["fc6.weight"]["encoding"] == "palette"
    assert rows["fc8.weight"]["largest_error"] is None
    assert rows["conv1.weight"]["bits"] == 16


def test_a_plan_with_an_unknown_key_is_refused(tmp_path: Path, call: Command) -> None:
    plan = tmp_path / "mine.toml"
    plan.write_text('shceme = "fp16"\n')
    found = call("convert", MODEL, tmp_path / "out.mm", "--scheme", plan)
    assert found.code == 2
    assert "Did you mean 'scheme'" in found.err


def test_inspect_one_tensor(digits_bundle: Path, call: Command) -> None:
    found = call("inspect", digits_bundle, "fc6.weight")
    assert found.code == 0
    assert "256, 128" in found.out
    assert "palette" in found.out
    missing = call("inspect", digits_bundle, "fc9.weight")
    assert missing.code == 2
    assert "TENSOR_NOT_FOUND" in missing.err


def test_verify_names_the_checks_it_made(digits_bundle: Path, call: Command) -> None:
    alone = call("verify", digits_bundle)
    assert "CRC-32" in alone.out
    assert "10 tensors decode" in alone.out
    assert "no cycles" in alone.out
    assert "against" not in alone.out
    both = call("verify", digits_bundle, "--against", MODEL)
    assert "10 tensors against the source" in both.out
    assert "outputs of ONNX Runtime" in both.out
    assert re.search(r"fc6\.weight: \d+\.\d\d dB", both.out)
    assert "conv1.bias: identical" in both.out


def test_verify_judges_the_tolerance(digits_bundle: Path, call: Command) -> None:
    assert call("verify", digits_bundle, "--against", MODEL, "--tolerance", "0.5").code == 0
    strict = call("verify", digits_bundle, "--against", MODEL, "--tolerance", "1e-6")
    assert strict.code == 1
    assert "too far" in strict.err
    assert strict.out == ""
    assert call("verify", digits_bundle, "--tolerance", "0.5").code == 2
    for value in ("-1", "nan", "inf", "much"):
        found = call("verify", digits_bundle, "--against", MODEL, "--tolerance", value)
        assert found.code == 2
        assert "expected a number" in found.err or "expected one argument" in found.err


def test_verify_against_another_model_says_no(digits_bundle: Path, small_model: Path, call: Command) -> None:
    found = call("verify", digits_bundle, "--against", small_model)
    assert found.code == 1
    assert "CHECK_FAILED" in found.err


def test_verify_against_a_retrained_model_says_no(tmp_path: Path, digits_bundle: Path, call: Command) -> None:
    import onnx
    from onnx import numpy_helper

    model = onnx.load(MODEL)
    weight = next(item for item in model.graph.initializer if item.name == "fc6.weight")
    weight.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(weight) * np.float32(1.01), "fc6.weight"))
    onnx.save(model, tmp_path / "other.onnx")
    found = call("verify", digits_bundle, "--against", tmp_path / "other.onnx")
    assert found.code == 1
    assert "fc6.weight" in found.err
    assert "recorded loss" in found.err


@pytest.mark.parametrize("suffix", ["onnx", "npz", "safetensors"])
def test_export(suffix: str, tmp_path: Path, digits_bundle: Path, call: Command) -> None:
    out = tmp_path / f"again.{suffix}"
    found = call("export", digits_bundle, out)
    assert (found.code, found.out, found.err) == (0, f"{out}\n", "")
    assert call("export", digits_bundle, tmp_path / f"twice.{suffix}").code == 0
    assert out.read_bytes() == (tmp_path / f"twice.{suffix}").read_bytes()


def test_export_of_another_suffix(tmp_path: Path, digits_bundle: Path, call: Command) -> None:
    for name in ("out.h5", "out", ".onnx"):
        found = call("export", digits_bundle, tmp_path / name)
        assert found.code == 2
        assert ".safetensors" in found.err


def test_converters(call: Command) -> None:
    assert "onnx" in call("converters").out
    content = json.loads(call("converters", "--json").out)
    assert content["converters"][0]["suffixes"] == [".onnx"]
    assert content["converters"][0]["status"] == "ready"


@pytest.mark.parametrize("command", [
    [], ["convert"], ["inspect"], ["verify"], ["eval"], ["draw"], ["export"], ["converters"],
])  # fmt: skip
def test_help_goes_to_stdout_and_wrong_usage_to_stderr(command: list[str], call: Command) -> None:
    shown = call(*command, "--help")
    assert shown.code == 0
    assert "exit codes" in shown.out
    assert shown.err == ""
    assert max(map(len, shown.out.splitlines())) <= 120
    wrong = call(*command, "--no-such-option")
    assert wrong.code == 2
    assert wrong.out == ""
    assert "usage:" in wrong.err


def test_version(call: Command) -> None:
    assert call("--version").out.startswith(f"mobilemodel {mm.__version__}, format 1.0, codecs")


def _keys(value: object) -> set[str]:
    if isinstance(value, dict):
        return set(value).union(*map(_keys, value.values()))
    return set().union(*map(_keys, value)) if isinstance(value, list) else set()


def test_json_output_is_documented(tmp_path: Path, digits_bundle: Path, call: Command) -> None:
    text = (ROOT / "docs" / "json.md").read_text("utf-8")
    sections = dict(re.findall(r"^## `(mobilemodel\.\w+/\d+)`$(.*?)(?=^## |\Z)", text, re.M | re.S))
    printed = {
        "convert": ("convert", MODEL, tmp_path / "fp16.mm", "--scheme", "fp16", "--json"),
        "inspect": ("inspect", digits_bundle, "--json"),
        "tensor": ("inspect", digits_bundle, "fc6.weight", "--json"),
        "verify": ("verify", digits_bundle, "--against", MODEL, "--json"),
        "eval": ("eval", MODEL, digits_bundle, "--data", DIGITS / "test.npz", "--json"),
        "converters": ("converters", "--json"),
    }
    contents = [json.loads(call(*arguments).out) for arguments in printed.values()]
    with mm.open(digits_bundle) as bundle:
        contents.append(bundle.report() or {})
    seen = set()
    for content in contents:
        section = sections[content["schema"]]
        seen.add(content["schema"])
        for step in content.get("preprocessing", []):
            if isinstance(step, dict):
                step["fields"] = {}  # the names of the format's own schema
        undocumented = {key for key in _keys(content) if f"`{key}`" not in section}
        assert not undocumented, content["schema"]
    assert seen == set(sections)


def test_json_of_an_infinite_difference_is_null() -> None:
    from mobilemodel.listing import verification_json
    from mobilemodel.pipeline import Verification
    from mobilemodel.runtime import Difference

    content = verification_json(Verification(1, outputs=(Difference("y", float("inf"), 0.5, False),)))
    assert content["outputs"][0]["largest_absolute"] is None
    json.dumps(content, allow_nan=False)


def test_the_same_bytes_twice_and_with_any_number_of_threads(tmp_path: Path) -> None:
    digests = set()
    for index, threads in enumerate(("1", "1", "2")):
        out = tmp_path / f"{index}.mm"
        variables = {"OPENBLAS_NUM_THREADS": threads, "PYTHONHASHSEED": str(index)}
        found = run_process("convert", MODEL, out, variables=variables)
        assert found.code == 0
        digests.add(hashlib.sha256(out.read_bytes()).hexdigest())
    assert len(digests) == 1


def test_signals_are_as_before_after_a_command(call: Command) -> None:
    import signal

    before = signal.getsignal(signal.SIGTERM)
    call("converters")
    assert signal.getsignal(signal.SIGTERM) == before


def test_a_command_runs_in_a_thread(tmp_path: Path) -> None:
    from concurrent.futures import ThreadPoolExecutor

    with ThreadPoolExecutor(1) as pool:
        assert pool.submit(cli.main, ["convert", str(MODEL), str(tmp_path / "out.mm")]).result() == 0
