"""convert with calibration data and goals, as users call it."""

from __future__ import annotations

import argparse
import json
import tomllib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from mobilemodel.converting import size_of
from tests.calibrating import labelled, pictures, residual_net, saved

from .conftest import DIGITS, Outcome, listing

Command = Callable[..., Outcome]


@pytest.fixture(scope="module")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    made = residual_net()
    return saved(tmp_path_factory.mktemp("inputs"), made, labelled(made, 300))


@pytest.fixture
def convert(call: Command, inputs: tuple[Path, Path], tmp_path: Path) -> Command:
    """``convert SRC OUT`` with these options, and calibration data unless others are given."""

    def run(*options: object, out: str = "out.mm", data: Path | None = inputs[1]) -> Outcome:
        given = () if data is None else ("--calibration", data)
        scheme = () if "--scheme" in options else ("--scheme", "auto")
        return call("convert", inputs[0], tmp_path / out, *scheme, *given, *options)

    return run


def test_each_layers_response_is_reported(convert: Command, tmp_path: Path) -> None:
    found = convert()
    assert found.code == 0, found.err
    assert found.out.count("levels by price, a step for each row; response ") == 5
    assert found.out.count("corrected from data") == 5
    assert listing(tmp_path) == ["out.mm"]


def test_the_report_as_json_holds_the_search_and_is_documented(convert: Command, tmp_path: Path) -> None:
    found = convert("--target-size", "6kB", "--json")
    assert found.code == 0, found.err
    content = json.loads(found.out)
    assert set(content["search"]) == {"met", "reason", "bound", "curve", "plan"}
    assert content["search"]["met"] is True
    assert [row["chosen"] for row in content["search"]["curve"]].count(True) == 1
    assert content["search"]["plan"] == (tmp_path / "out.mm.toml").read_text()
    assert {row["name"] for row in content["tensors"] if row["response_db"] is not None} == {
        "conv1.weight", "depthwise.weight", "project.weight", "fc1.weight", "fc2.weight",
    }  # fmt: skip
    section = (Path(__file__).resolve().parents[2] / "docs" / "json.md").read_text().split("\n## ")[1]
    for key in ("response_db", *content["search"], *content["search"]["curve"][0]):
        assert f"`{key}`" in section


def test_the_saved_plan_gives_the_bytes_again_with_the_same_data_alone(
    convert: Command, inputs: tuple[Path, Path], tmp_path: Path
) -> None:
    assert convert("--target-size", "6000").code == 0
    plan = tmp_path / "out.mm.toml"
    assert "held_out = 18\n" in plan.read_text(), "a sixteenth of 300"
    assert convert("--scheme", plan, out="again.mm").code == 0
    assert (tmp_path / "again.mm").read_bytes() == (tmp_path / "out.mm").read_bytes()
    other = saved(tmp_path, residual_net(), labelled(residual_net(), 300, seed=5))[1]
    refused = convert("--scheme", plan, out="other.mm", data=other)
    assert refused.code == 2
    assert "not the data that the plan was made with" in refused.err
    assert "sha256" in refused.err
    missing = convert("--scheme", plan, out="other.mm", data=None)
    assert missing.code == 2
    assert "Give them with --calibration" in missing.err
    assert "other.mm" not in listing(tmp_path)


def test_a_dry_run_prints_the_curve_and_writes_nothing(convert: Command, tmp_path: Path) -> None:
    found = convert("--max-divergence", "0.01", "--dry-run")
    assert found.code == 0, found.err
    assert "KL nats" in found.out
    assert "chosen" in found.out
    assert "candidates were evaluated" in found.out
    assert "nothing was written" in found.err
    assert listing(tmp_path) == []


def test_a_loss_is_judged_on_a_quarter(convert: Command, tmp_path: Path) -> None:
    assert convert("--max-divergence", "0.01").code == 0
    assert "held_out = 75\n" in (tmp_path / "out.mm.toml").read_text()


def test_a_goal_that_was_not_met_is_told_by_the_exit_code(convert: Command, tmp_path: Path) -> None:
    found = convert("--target-size", "100kB")
    assert found.code == 1
    assert "the goal was not met: " in found.out
    assert listing(tmp_path) == ["out.mm", "out.mm.toml"]


@pytest.mark.parametrize(("options", "said"), [
    (("--held-out", "5"), "Give --calibration DATA."),
    (("--no-mirror",), "Give --calibration DATA."),
    (("--max-drop", "1"), "Give --calibration DATA."),
    (("--max-divergence", "1"), "Give --calibration DATA."),
    (("--save-plan", "a.toml"), "--target-size or --max-drop"),
    (("--target-size", "6000", "--max-drop", "1"), "the goal of a search"),
    (("--target-size", "6000", "--save-plan", "plan.txt"), ".toml"),
    (("--target-size", "6 parsecs"), "4MiB"),
    (("--low-rank", "fc1"), "PATTERN=RANK"),
    (("--low-rank", "fc1=0"), "PATTERN=RANK"),
    (("--low-rank", "fc1=1.5"), "PATTERN=RANK"),
    (("--sparsity", "fc1=2"), "PATTERN=SHARE"),
    (("--low-rank", "nothing=4"), "low rank of a layer that is not there"),
    (("--sparsity", "nothing=.5"), "sparsity of a weight that is not there"),
    (("--calibration", "nowhere.npz"), "nowhere.npz"),
])  # fmt: skip
def test_options_that_do_not_fit_are_refused_with_advice(
    convert: Command, tmp_path: Path, options: tuple[str, ...], said: str
) -> None:
    found = convert(*options, data=None)
    assert found.code == 2
    assert said in found.err
    assert listing(tmp_path) == []


def test_a_drop_on_data_without_labels_is_refused_with_advice(convert: Command, tmp_path: Path) -> None:
    np.savez(tmp_path / "data.npz", x=pictures(50))
    found = convert("--max-drop", "1", data=tmp_path / "data.npz")
    assert found.code == 2
    assert "--max-divergence" in found.err
    assert listing(tmp_path) == ["data.npz"]


def test_an_existing_plan_is_kept_unless_forced(convert: Command, tmp_path: Path) -> None:
    (tmp_path / "out.mm.toml").write_text("mine")
    found = convert("--target-size", "6000")
    assert found.code == 2
    assert "--force" in found.err
    assert listing(tmp_path) == ["out.mm.toml"]
    assert convert("--target-size", "6000", "--save-plan", tmp_path / "other.toml", "--force").code == 0
    assert (tmp_path / "out.mm.toml").read_text() == "mine"
    assert tomllib.loads((tmp_path / "other.toml").read_text())["search"]["target_size"] == 6000
    assert convert("--target-size", "6000", "--force").code == 0
    assert (tmp_path / "out.mm.toml").read_text() == (tmp_path / "other.toml").read_text()


def test_fold_and_low_rank_are_done_before_calibration(convert: Command) -> None:
    found = convert("--fold", "--remove-duplicates", "--low-rank", "fc1.weight=16", "--json")
    assert found.code == 0, found.err
    content = json.loads(found.out)
    assert [note for note in content["notes"] if "rank 16 of 48" in note]
    assert sum(row["response_db"] is not None for row in content["tensors"]) == 6


def test_drawn_pictures_serve_where_there_are_no_others(call: Command, tmp_path: Path) -> None:
    drawn, out = tmp_path / "drawn.npz", tmp_path / "out.mm"
    assert call("draw", drawn, "--size", "8x8", "--count", "64") == Outcome(0, "", "")
    found = call("convert", DIGITS / "model.onnx", out, "--calibration", drawn, "--channels", "grey", "--scale", "0.02")
    assert found.code == 0, found.err
    assert "response " in found.out
    again = call("draw", drawn, "--size", "8x8")
    assert (again.code, "OUTPUT_EXISTS" in again.err) == (2, True)
    assert listing(tmp_path) == ["drawn.npz", "out.mm"]


@pytest.mark.parametrize("size", ["8", "8x", "0x8", "8x8x8", "-8x8", "8x9999999", "٨x8"])
def test_sizes_of_pictures_that_cannot_be_drawn(size: str, call: Command, tmp_path: Path) -> None:
    found = call("draw", tmp_path / "drawn.npz", f"--size={size}")
    assert (found.code, found.out) == (2, "")
    assert listing(tmp_path) == []


@pytest.mark.parametrize(("text", "size"), [
    ("1", 1), ("4MiB", 4 << 20), ("4mib", 4 << 20), ("1.5 MB", 1_500_000), ("10KB", 10_000), ("2GiB", 2 << 30),
    ("0.5KiB", 512), ("7b", 7),
])  # fmt: skip
def test_sizes_are_read_as_users_write_them(text: str, size: int) -> None:
    assert size_of(text) == size


@pytest.mark.parametrize("text", ["", "0", "-1", "MB", "1e6", "4 Mi", "4  MB", "0.1", "１", "nan", "9" * 13])
def test_other_sizes_are_refused(text: str) -> None:
    with pytest.raises(argparse.ArgumentTypeError, match="a size such as 4MiB"):
        size_of(text)
