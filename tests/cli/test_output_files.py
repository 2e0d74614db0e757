"""Where convert and export write: new files, existing ones, and places that cannot be an output."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from .conftest import DIGITS, Command, listing

MODEL = DIGITS / "model.onnx"


@pytest.mark.parametrize("scheme", ["lossless", "mixed-4-8"])
def test_dry_run_writes_nothing_and_reports_the_size_of_a_real_run(scheme: str, tmp_path: Path, call: Command) -> None:
    dry = call("convert", MODEL, tmp_path / "out.mm", "--scheme", scheme, "--dry-run", "--json")
    assert dry.code == 0
    assert listing(tmp_path) == []
    assert "nothing was written" in dry.err
    real = call("convert", MODEL, tmp_path / "out.mm", "--scheme", scheme, "--json")
    before, after = json.loads(dry.out), json.loads(real.out)
    assert before.pop("written") is False
    assert after.pop("written") is True
    assert before == after
    assert after["file_bytes"] == (tmp_path / "out.mm").stat().st_size


def test_dry_run_over_an_existing_output_leaves_it(tmp_path: Path, call: Command) -> None:
    out = tmp_path / "out.mm"
    out.write_bytes(b"mine")
    assert call("convert", MODEL, out, "--dry-run").code == 0
    assert out.read_bytes() == b"mine"


def test_an_existing_output_is_replaced_only_with_force(tmp_path: Path, call: Command, digits_bundle: Path) -> None:
    for command, name in ((("convert", MODEL), "a.mm"), (("export", digits_bundle), "a.npz")):
        out = tmp_path / name
        out.write_bytes(b"mine")
        refused = call(*command, out)
        assert refused.code == 2
        assert "OUTPUT_EXISTS" in refused.err
        assert "--force" in refused.err
        assert out.read_bytes() == b"mine"
        assert call(*command, out, "--force").code == 0
        assert out.read_bytes() != b"mine"


def test_the_output_may_not_be_the_source(tmp_path: Path, call: Command, digits_bundle: Path) -> None:
    source = tmp_path / "model.onnx"
    source.write_bytes(MODEL.read_bytes())
    (tmp_path / "link.onnx").hardlink_to(source)
    (tmp_path / "soft.onnx").symlink_to(source)
    for out in ("model.onnx", "link.onnx", "soft.onnx", "../" + tmp_path.name + "/model.onnx"):
        assert call("convert", source, tmp_path / out, "--force").code == 2
    assert source.read_bytes() == MODEL.read_bytes()
    bundle = tmp_path / "bundle.npz"
    bundle.write_bytes(digits_bundle.read_bytes())
    assert call("export", bundle, bundle, "--force").code == 2
    assert bundle.read_bytes() == digits_bundle.read_bytes()


def test_places_that_cannot_be_an_output(tmp_path: Path, call: Command, digits_bundle: Path) -> None:
    (tmp_path / "folder.npz").mkdir()
    (tmp_path / "dangling.npz").symlink_to(tmp_path / "nowhere")
    os.mkfifo(tmp_path / "pipe.npz")
    places = {
        "folder.npz": "a folder", "dangling.npz": "a symbolic link", "pipe.npz": "a pipe",
        "none/out.npz": "no such folder", "folder.npz/../missing/out.npz": "no such folder",
        "x" * 300 + ".npz": "cannot be an output",
    }  # fmt: skip
    for place, reason in places.items():
        for command in (("convert", MODEL), ("export", digits_bundle)):
            found = call(*command, tmp_path / place, "--force")
            assert found.code == 2, place
            assert reason in found.err
    for name in ("", ".", "..", f"{tmp_path}/"):
        assert call("convert", MODEL, name).code == 2
    assert listing(tmp_path) == ["dangling.npz", "folder.npz", "pipe.npz"]


@pytest.mark.skipif(not Path("/proc/self").is_dir(), reason="needs a folder that refuses files even to root: Linux")
def test_a_folder_that_takes_no_files(call: Command, digits_bundle: Path) -> None:
    for command in (("convert", MODEL, "/proc/out.mm"), ("export", digits_bundle, "/proc/out.npz")):
        found = call(*command)
        assert found.code == 1
        assert "OUTPUT_FAILED" in found.err


def test_an_output_in_the_current_folder_by_a_bare_name(
    tmp_path: Path, call: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert call("convert", MODEL, "out.mm").code == 0
    assert call("export", "out.mm", "out.onnx").code == 0
    assert listing(tmp_path) == ["out.mm", "out.onnx"]


def test_the_permissions_follow_the_umask(tmp_path: Path, call: Command) -> None:
    before = os.umask(0o027)
    try:
        assert call("convert", MODEL, tmp_path / "out.mm").code == 0
    finally:
        os.umask(before)
    assert (tmp_path / "out.mm").stat().st_mode & 0o777 == 0o640
