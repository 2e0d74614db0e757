"""Where output goes: stdout, stderr, terminals, pipes that close, locales without UTF-8."""

from __future__ import annotations

import os
import pty
import subprocess
import sys
from pathlib import Path

import pytest

from .conftest import DIGITS, environment, listing, run_process

MODEL = DIGITS / "model.onnx"
IMPATIENT = """\
import sys
from mobilemodel import cli
cli.Progress.quiet_seconds = cli.Progress.interval_seconds = 0
sys.exit(cli.main())
"""


def _on_a_terminal(*arguments: object) -> tuple[int, bytes, str]:
    """Run a command whose stderr is a terminal: its exit code, what the terminal got, and stdout."""
    leader, follower = pty.openpty()
    command = [sys.executable, "-c", IMPATIENT, *map(str, arguments)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=follower, env=environment(), text=True)
    os.close(follower)
    assert process.stdout is not None
    out = process.stdout.read()
    seen = b""
    try:
        while piece := os.read(leader, 4096):
            seen += piece
    except OSError:
        pass  # a terminal without a writer answers EIO
    os.close(leader)
    process.stdout.close()
    return process.wait(60), seen, out


def test_progress_on_a_terminal_ends_with_an_empty_line(tmp_path: Path) -> None:
    code, seen, out = _on_a_terminal("convert", MODEL, tmp_path / "out.mm")
    assert code == 0
    for word in (b"reading", b"encoding fc6.weight", b"writing", b"comparing fc6.weight"):
        assert word in seen
    assert seen.endswith(b"\r\x1b[K")
    assert b"\n" not in seen
    assert "\x1b" not in out


def test_verify_shows_progress_too(digits_bundle: Path) -> None:
    code, seen, _ = _on_a_terminal("verify", digits_bundle, "--against", MODEL)
    assert code == 0
    assert b"comparing fc6.weight" in seen


def test_no_progress_off_a_terminal(tmp_path: Path) -> None:
    found = run_process("convert", MODEL, tmp_path / "out.mm", command=("-c", IMPATIENT))
    assert found.code == 0
    assert found.err == ""


@pytest.mark.parametrize("variables", [{"NO_COLOR": "1"}, {"TERM": "dumb"}, {"FORCE_COLOR": "1", "COLUMNS": "20"}])
def test_no_environment_changes_what_is_printed(variables: dict[str, str], digits_bundle: Path) -> None:
    plain = run_process("inspect", digits_bundle)
    assert run_process("inspect", digits_bundle, variables=variables) == plain
    assert "\x1b" not in plain.out


def test_a_locale_without_utf8(tmp_path: Path) -> None:
    folder = tmp_path / "größe"
    folder.mkdir()
    variables = {"LANG": "C", "LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
    description = "Zürich ≈ 東京"
    assert run_process("convert", MODEL, folder / "out.mm", "--description", description).code == 0
    found = run_process("inspect", folder / "out.mm", variables=variables)
    assert found.code == 0
    assert "about: Z\\xfcrich \\u2248 \\u6771\\u4eac" in found.out
    missing = run_process("inspect", folder / "missing.mm", variables=variables)
    assert missing.code == 2
    assert missing.err.isascii()


@pytest.mark.parametrize("variables", [{}, {"PYTHONUNBUFFERED": "1"}])
def test_a_reader_that_leaves(variables: dict[str, str], digits_bundle: Path) -> None:
    reader, writer = os.pipe()
    os.close(reader)
    command = [sys.executable, "-m", "mobilemodel", "inspect", str(digits_bundle)]
    found = subprocess.run(command, stdout=writer, stderr=subprocess.PIPE, env=environment(**variables), check=False)
    os.close(writer)
    assert found.returncode == 1
    assert found.stderr == b""


@pytest.mark.parametrize("arguments", [("converters",), ("--help",), ("inspect", "BUNDLE", "--json")])
@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full: Linux")
def test_a_full_disk_behind_stdout(arguments: tuple[str, ...], digits_bundle: Path) -> None:
    named = [str(digits_bundle) if argument == "BUNDLE" else argument for argument in arguments]
    with open("/dev/full", "w") as full:
        command = [sys.executable, "-m", "mobilemodel", *named]
        found = subprocess.run(command, stdout=full, stderr=subprocess.PIPE, env=environment(), check=False)
    assert found.returncode == 1
    assert found.stderr == b"mobilemodel: No space left on device\n"


def _closed(number: int, *arguments: object) -> tuple[int, str, str]:
    """Run a command with a standard stream closed."""
    command = [sys.executable, "-m", "mobilemodel", *map(str, arguments)]
    found = subprocess.run(command, capture_output=True, text=True, env=environment(), check=False,
                           preexec_fn=lambda: os.close(number))  # fmt: skip
    return found.returncode, found.stdout, found.stderr


def test_closed_stdout_is_said_before_any_work(tmp_path: Path) -> None:
    code, _, err = _closed(1, "convert", MODEL, tmp_path / "out.mm")
    assert code == 1
    assert err.startswith("mobilemodel: standard output is closed\n")
    assert listing(tmp_path) == []


def test_closed_stderr_does_not_move_messages_to_stdout(tmp_path: Path, digits_bundle: Path) -> None:
    assert _closed(2, "inspect", tmp_path / "missing.mm") == (2, "", "")
    assert _closed(2, "convert", MODEL, tmp_path / "out.mm", "--dry-run")[0] == 0


def test_data_to_stdout_talk_to_stderr(tmp_path: Path, digits_bundle: Path) -> None:
    good = run_process("verify", digits_bundle)
    assert good.code == 0
    assert good.out != ""
    assert good.err == ""
    bad = run_process("verify", tmp_path / "missing.mm")
    assert bad.code == 2
    assert bad.out == ""
    assert bad.err.startswith("mobilemodel: ")
