"""Whatever ends a command early: an existing output stays as it was, and nothing is left behind."""

from __future__ import annotations

import resource
import signal
from pathlib import Path

import pytest

import mobilemodel as mm

from .conftest import DIGITS, Outcome, listing, run_process

MODEL = DIGITS / "model.onnx"
STAGES = ("reading", "encoding", "writing", "comparing", "syncing", "naming")
CODES = {"SIGINT": 130, "SIGTERM": 143, "SIGHUP": 129, "SIGKILL": -9}
OLDER = b"an older bundle"


@pytest.fixture
def older(tmp_path: Path) -> Path:
    """An output that was there before the command."""
    out = tmp_path / "out.mm"
    out.write_bytes(OLDER)
    return out


def strike(stage: str, number: str, way: str, *arguments: object) -> Outcome:
    return run_process(stage, number, way, *arguments, command=("-m", "tests.cli.striking"))


@pytest.mark.parametrize("stage", STAGES)
@pytest.mark.parametrize("number", ["SIGINT", "SIGTERM", "SIGKILL"])
def test_convert_leaves_nothing_behind(number: str, stage: str, older: Path) -> None:
    found = strike(stage, number, "unnamed", "convert", MODEL, older, "--force")
    assert found.code == CODES[number]
    assert older.read_bytes() == OLDER
    assert listing(older.parent) == [older.name]
    if number == "SIGINT":
        assert found.err == "mobilemodel: interrupted\n"


@pytest.mark.parametrize("number", ["SIGINT", "SIGHUP", "SIGKILL"])
def test_a_new_output_does_not_appear(number: str, tmp_path: Path) -> None:
    for stage in ("comparing", "naming"):
        assert strike(stage, number, "unnamed", "convert", MODEL, tmp_path / "out.mm").code == CODES[number]
        assert listing(tmp_path) == []


@pytest.mark.parametrize("stage", ["writing", "syncing", "naming"])
@pytest.mark.parametrize("number", ["SIGINT", "SIGTERM"])
def test_a_named_temporary_file_is_taken_away(number: str, stage: str, older: Path) -> None:
    assert strike(stage, number, "named", "convert", MODEL, older, "--force").code == CODES[number]
    assert older.read_bytes() == OLDER
    assert listing(older.parent) == [older.name]


def test_killed_with_a_named_temporary_file_only_that_is_left(older: Path) -> None:
    assert strike("writing", "SIGKILL", "named", "convert", MODEL, older, "--force").code == -signal.SIGKILL
    assert older.read_bytes() == OLDER
    left = [name for name in listing(older.parent) if name != older.name]
    assert len(left) == 1
    assert left[0].startswith(".mobilemodel-")
    assert left[0].endswith(".tmp")


@pytest.mark.parametrize("number", ["SIGINT", "SIGTERM"])
def test_between_naming_and_replacing(number: str, older: Path) -> None:
    assert strike("replacing", number, "unnamed", "convert", MODEL, older, "--force").code == CODES[number]
    assert older.read_bytes() == OLDER
    assert listing(older.parent) == [older.name]


def test_killed_between_naming_and_replacing_what_is_left_is_hidden_and_whole(older: Path) -> None:
    assert strike("replacing", "SIGKILL", "unnamed", "convert", MODEL, older, "--force").code == -signal.SIGKILL
    assert older.read_bytes() == OLDER
    (left,) = [name for name in listing(older.parent) if name != older.name]
    with mm.open(older.with_name(left)) as bundle:
        bundle.verify()


def test_after_the_output_is_in_place_it_is_whole(tmp_path: Path) -> None:
    out = tmp_path / "out.mm"
    assert strike("closing", "SIGINT", "unnamed", "convert", MODEL, out).code == 130
    assert listing(tmp_path) == ["out.mm"]
    with mm.open(out) as bundle:
        bundle.verify()


@pytest.mark.parametrize(("number", "way"), [
    ("SIGINT", "unnamed"), ("SIGTERM", "unnamed"), ("SIGKILL", "unnamed"), ("SIGINT", "named"), ("SIGTERM", "named"),
])  # fmt: skip
def test_a_search_leaves_nothing_behind(number: str, way: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    temporary = tmp_path / "temporary"
    temporary.mkdir()
    monkeypatch.setenv("TMPDIR", str(temporary))
    out = tmp_path / "out.mm"
    found = strike("judging", number, way, "convert", MODEL, out, "--target-size", "4kB")
    assert found.code == CODES[number]
    assert listing(tmp_path) == ["temporary"]
    assert listing(temporary) == []


@pytest.mark.parametrize("suffix", ["onnx", "npz", "safetensors"])
@pytest.mark.parametrize("number", ["SIGINT", "SIGKILL"])
def test_export_leaves_nothing_behind(number: str, suffix: str, tmp_path: Path, digits_bundle: Path) -> None:
    out = tmp_path / f"out.{suffix}"
    out.write_bytes(b"an older file")
    assert strike("syncing", number, "unnamed", "export", digits_bundle, out, "--force").code == CODES[number]
    assert out.read_bytes() == b"an older file"
    assert listing(tmp_path) == [out.name]


@pytest.mark.parametrize("share", [0.0, 0.1, 0.6, 0.985, 0.9999])
def test_convert_out_of_disk(share: float, tmp_path: Path, digits_bundle: Path) -> None:
    out = tmp_path / "out.mm"
    out.write_bytes(b"old")
    prepared = ["--mean", "120", "--scale", "0.015625", "--channels", "grey", "--labels", DIGITS / "labels.txt"]
    arguments = ["--scheme", "mixed-4-8", *prepared]
    size = int(share * digits_bundle.stat().st_size)
    limits = {resource.RLIMIT_FSIZE: size}
    found = run_process("convert", MODEL, out, "--force", *arguments, limits=limits)
    assert found.code == 1
    assert "[OUTPUT_FAILED]" in found.err
    assert str(out) in found.err
    assert found.out == ""
    assert out.read_bytes() == b"old"
    assert listing(tmp_path) == ["out.mm"]


@pytest.mark.parametrize("suffix", ["onnx", "npz", "safetensors"])
@pytest.mark.parametrize("size", [0, 5_000, 200_000])
def test_export_out_of_disk(suffix: str, size: int, tmp_path: Path, digits_bundle: Path) -> None:
    out = tmp_path / f"out.{suffix}"
    out.write_bytes(b"old")
    found = run_process("export", digits_bundle, out, "--force", limits={resource.RLIMIT_FSIZE: size})
    assert found.code == 1
    assert "[OUTPUT_FAILED]" in found.err
    assert len(found.err.splitlines()) == 1
    assert out.read_bytes() == b"old"
    assert listing(tmp_path) == [out.name]


def test_enough_disk_is_enough(tmp_path: Path, digits_bundle: Path) -> None:
    limits = {resource.RLIMIT_FSIZE: digits_bundle.stat().st_size}
    assert run_process("convert", MODEL, tmp_path / "out.mm", limits=limits).code == 0
