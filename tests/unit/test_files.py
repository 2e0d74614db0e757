"""Outputs that are never half there, on file systems with and without unnamed files and links."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from mobilemodel.errors import LimitExceededError, OutputError, OutputExistsError, UsageError
from mobilemodel.files import OutputFile, read_small_file, same_file


@pytest.fixture(params=["unnamed", "named", "no links"])
def file_system(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Three kinds of file systems: with unnamed files; with links alone; with neither."""
    kind: str = request.param
    if kind != "unnamed" and hasattr(os, "O_TMPFILE"):
        monkeypatch.delattr(os, "O_TMPFILE")
    if kind == "no links":

        def refuse(*_: object, **__: object) -> None:
            raise OSError(errno.EPERM, "Operation not permitted")

        monkeypatch.setattr(os, "link", refuse)
    return kind


def names(folder: Path) -> list[str]:
    return sorted(os.listdir(folder))


@pytest.mark.usefixtures("file_system")
def test_a_new_file_appears_whole_and_alone(tmp_path: Path) -> None:
    with OutputFile(tmp_path / "out") as output:
        output.file.write(b"content")
        assert "out" not in names(tmp_path)
        output.commit()
    assert names(tmp_path) == ["out"]
    assert (tmp_path / "out").read_bytes() == b"content"


@pytest.mark.usefixtures("file_system")
def test_without_commit_nothing_appears(tmp_path: Path) -> None:
    with OutputFile(tmp_path / "out") as output:
        output.file.write(b"content")
    assert names(tmp_path) == []


@pytest.mark.usefixtures("file_system")
def test_force_replaces_at_once(tmp_path: Path) -> None:
    (tmp_path / "out").write_bytes(b"old")
    with OutputFile(tmp_path / "out", force=True) as output:
        output.file.write(b"new")
        assert (tmp_path / "out").read_bytes() == b"old"
        output.commit()
    assert names(tmp_path) == ["out"]
    assert (tmp_path / "out").read_bytes() == b"new"


@pytest.mark.usefixtures("file_system")
def test_an_output_that_appears_meanwhile_is_not_overwritten(tmp_path: Path) -> None:
    with OutputFile(tmp_path / "out") as output:
        output.file.write(b"mine")
        (tmp_path / "out").write_bytes(b"theirs")
        with pytest.raises(OutputExistsError, match="--force"):
            output.commit()
    assert names(tmp_path) == ["out"]
    assert (tmp_path / "out").read_bytes() == b"theirs"


@pytest.mark.usefixtures("file_system")
def test_permissions_are_those_of_a_new_file(tmp_path: Path) -> None:
    before = os.umask(0o026)
    try:
        with OutputFile(tmp_path / "out") as output:
            output.commit()
    finally:
        os.umask(before)
    assert (tmp_path / "out").stat().st_mode & 0o777 == 0o640


@pytest.mark.usefixtures("file_system")
@pytest.mark.parametrize("force", [False, True])
def test_a_disk_that_fails_when_all_is_written(force: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(_: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    (tmp_path / "out").write_bytes(b"old") if force else None
    with OutputFile(tmp_path / "out", force=force) as output:
        output.file.write(b"new")
        monkeypatch.setattr(os, "fsync", fail)
        with pytest.raises(OutputError, match="No space left"):
            output.commit()
    assert names(tmp_path) == (["out"] if force else [])


@pytest.mark.usefixtures("file_system")
def test_an_interruption_while_it_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    (tmp_path / "out").write_bytes(b"old")
    monkeypatch.setattr(os, "replace", interrupt)
    with OutputFile(tmp_path / "out", force=True) as output, pytest.raises(KeyboardInterrupt):
        output.commit()
    assert names(tmp_path) == ["out"]


def test_a_folder_that_takes_no_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> int:
        raise OSError(errno.EROFS, "Read-only file system")

    monkeypatch.setattr(os, "open", refuse)
    with pytest.raises(OutputError, match="Read-only file system"):
        OutputFile(tmp_path / "out")


def test_paths_that_are_no_names(tmp_path: Path) -> None:
    for path in ("", ".", "..", f"{tmp_path}/", f"{tmp_path}/.", f"{tmp_path}/..", f"{tmp_path}/a\0b"):
        with pytest.raises(UsageError):
            OutputFile(path)


def test_a_link_is_not_followed(tmp_path: Path) -> None:
    (tmp_path / "aim").write_bytes(b"aim")
    (tmp_path / "link").symlink_to(tmp_path / "aim")
    with pytest.raises(UsageError, match="a symbolic link"):
        OutputFile(tmp_path / "link", force=True)
    assert (tmp_path / "aim").read_bytes() == b"aim"


def test_same_file(tmp_path: Path) -> None:
    (tmp_path / "a").touch()
    (tmp_path / "b").hardlink_to(tmp_path / "a")
    (tmp_path / "c").touch()
    assert same_file(tmp_path / "a", tmp_path / "b")
    assert not same_file(tmp_path / "a", tmp_path / "c")
    assert not same_file(tmp_path / "a", tmp_path / "none")
    assert not same_file("a\0b", tmp_path / "a")


def test_read_small_file(tmp_path: Path) -> None:
    path = tmp_path / "small"
    path.write_bytes(bytes(10))
    assert read_small_file(path, 10, "--labels") == bytes(10)
    with pytest.raises(LimitExceededError, match=r"--labels.*at most 9 bytes"):
        read_small_file(path, 9, "--labels")
    os.mkfifo(tmp_path / "pipe")
    pipe, none = str(tmp_path / "pipe"), str(tmp_path / "none")
    reasons = {str(tmp_path): "", pipe: "a pipe", none: "No such file", "a\0b": "null"}
    for place, reason in reasons.items():
        with pytest.raises(UsageError, match=f"--labels.*{reason}"):
            read_small_file(place, 10, "--labels")
