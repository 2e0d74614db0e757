"""Damaged bundles and what is no file at all: a clear error and exit code, no traceback, no hang, no memory."""

from __future__ import annotations

import os
import resource
import zlib
from pathlib import Path

import pytest

import mobilemodel as mm
from mobilemodel.container import framing
from mobilemodel.errors import CorruptError, MalformedError, UnsupportedError
from mobilemodel.pipeline import verify
from mobilemodel.wire import varint

from .conftest import DIGITS, GIB, check_refused, listing, quiet, run_process

MODEL = DIGITS / "model.onnx"


# Damage to a whole bundle.


def test_the_small_bundle_is_what_these_tests_take_it_for(small_bundle: Path) -> None:
    assert 2000 <= small_bundle.stat().st_size <= 4096
    with mm.open(small_bundle) as bundle:
        assert {tensor.encoding for tensor in bundle.values()} == {"palette", "affine", "dense"}
    assert quiet("verify", small_bundle).code == 0


def test_truncated_at_every_length(small_bundle: Path, tmp_path: Path) -> None:
    whole = small_bundle.read_bytes()
    path = tmp_path / "cut.mm"
    for length in range(len(whole)):
        with pytest.raises(MalformedError):
            mm.open(whole[:length])
        if length % 16 == 0:
            path.write_bytes(whole[:length])
            check_refused(quiet("inspect", path), (3,))


def test_every_single_byte_changed(small_bundle: Path, tmp_path: Path) -> None:
    """Every byte of a bundle is covered by a checksum, a frame or the magic."""
    whole = small_bundle.read_bytes()
    path = tmp_path / "changed.mm"
    for position in range(len(whole)):
        changed = bytearray(whole)
        changed[position] ^= 1 << position % 8
        with pytest.raises((MalformedError, CorruptError, UnsupportedError)):
            verify(mm.open(changed))
        if position % 16 == 0:
            path.write_bytes(changed)
            check_refused(quiet("verify", path), (1, 3, 4))


def _resealed(whole: bytes, position: int, flipped: int) -> bytes:
    """The bundle with a byte of its manifest changed and the checksum made right again."""
    container = mm.parse_bundle(whole).container
    start = framing.head_size(container.manifest_size) - container.manifest_size
    manifest = bytearray(whole[start : start + container.manifest_size])
    manifest[position] ^= flipped
    crc = zlib.crc32(manifest).to_bytes(4, "little")
    return whole[:6] + crc + whole[10:start] + bytes(manifest) + whole[start + len(manifest) :]


def test_every_byte_of_the_manifest_changed_on_purpose(small_bundle: Path, tmp_path: Path) -> None:
    """An attacker makes the checksum right: every command still ends with an exit code, never a traceback."""
    whole = small_bundle.read_bytes()
    size = mm.parse_bundle(whole).container.manifest_size
    path = tmp_path / "forged.mm"
    codes = set()
    for position in range(size):
        path.write_bytes(_resealed(whole, position, (0x01, 0x80, 0x10, 0x7F, 0x04)[position % 5]))
        commands = [("inspect", path, "--json"), ("inspect", path, "fc1.w"), ("verify", path)]
        found = quiet(*commands[position % 3])
        assert found.code in (0, 1, 2, 3, 4)
        codes.add(found.code)
        if found.code == 0 and position % 3 != 2:
            quiet("inspect", path)
            quiet("export", path, tmp_path / f"out.{('onnx', 'npz', 'safetensors')[position % 3]}", "--force")
    assert {0, 3} <= codes


@pytest.mark.parametrize("position", [0, 7, 40, -1])
def test_damage_in_a_process_of_its_own(position: int, small_bundle: Path, tmp_path: Path) -> None:
    changed = bytearray(small_bundle.read_bytes())
    changed[position] ^= 0xFF
    path = tmp_path / "changed.mm"
    path.write_bytes(changed)
    found = run_process("verify", path)
    check_refused(found, (1, 3, 4))
    assert "changed.mm" in found.err
    assert found.out == ""


def test_a_damaged_payload_is_a_failed_check(small_bundle: Path, tmp_path: Path) -> None:
    changed = bytearray(small_bundle.read_bytes())
    changed[-1] ^= 1
    (tmp_path / "a.mm").write_bytes(changed)
    for command in (("verify", tmp_path / "a.mm"), ("export", tmp_path / "a.mm", tmp_path / "out.npz")):
        found = quiet(*command)
        if found.code:
            assert found.code == 1
            assert "PAYLOAD_CHECKSUM" in found.err
    assert quiet("verify", tmp_path / "a.mm").code == 1
    assert quiet("inspect", tmp_path / "a.mm").code == 0


# What is no bundle, and what is no file.


@pytest.fixture
def oddities(tmp_path: Path) -> dict[str, Path]:
    """Things that a path can lead to beside a regular file with content."""
    folder = tmp_path / "oddities"
    folder.mkdir()
    (folder / "folder.mm").mkdir()
    (folder / "empty.mm").touch()
    os.mkfifo(folder / "pipe.mm")
    (folder / "text.mm").write_text("a bundle, really\n" * 100)
    with (folder / "sparse.mm").open("wb") as file:
        file.truncate(3 * GIB)
    with (folder / "head.mm").open("wb") as file:
        file.write(framing.MAGIC + b"\x15" + bytes(4) + b"\x1a" + varint(2 * GIB))
        file.truncate(3 * GIB)
    paths = {path.stem: path for path in folder.iterdir()}
    return paths | {"missing": folder / "missing.mm", "zero": Path("/dev/zero"), "null": Path("/dev/null")}


BUNDLE_CODES = {
    "folder": 2, "missing": 2, "pipe": 2, "zero": 2, "null": 2, "empty": 3, "text": 3, "sparse": 3, "head": 4,
}  # fmt: skip


@pytest.mark.parametrize("kind", BUNDLE_CODES)
def test_no_bundle(kind: str, oddities: dict[str, Path], tmp_path: Path) -> None:
    path = oddities[kind]
    check_refused(quiet("inspect", path), (BUNDLE_CODES[kind],))
    check_refused(quiet("verify", path), (BUNDLE_CODES[kind],))
    check_refused(quiet("export", path, tmp_path / "out.onnx"), (BUNDLE_CODES[kind],))
    assert listing(tmp_path) == ["oddities"]


@pytest.mark.parametrize("kind", BUNDLE_CODES)
def test_no_model(kind: str, oddities: dict[str, Path], tmp_path: Path, small_bundle: Path) -> None:
    path = oddities[kind]
    check_refused(quiet("convert", path, tmp_path / "out.mm"), (2, 3))
    check_refused(quiet("convert", path, tmp_path / "out.mm", "--from", "onnx"), (2, 3, 4))
    check_refused(quiet("verify", small_bundle, "--against", path), (2, 3))
    assert listing(tmp_path) == ["oddities"]


@pytest.mark.parametrize("kind", [kind for kind in BUNDLE_CODES if kind != "text"])
@pytest.mark.parametrize("option", ["--labels", "--mean"])
def test_no_side_file(option: str, kind: str, oddities: dict[str, Path], tmp_path: Path) -> None:
    found = quiet("convert", MODEL, tmp_path / "out.mm", "--channels", "grey", option, oddities[kind])
    check_refused(found, (2, 4))
    assert option in found.err
    assert listing(tmp_path) == ["oddities"]


@pytest.mark.parametrize("kind", ["pipe", "sparse", "head"])
def test_quickly_and_within_memory(kind: str, oddities: dict[str, Path], tmp_path: Path) -> None:
    limits = {resource.RLIMIT_AS: GIB}
    check_refused(run_process("inspect", oddities[kind], limits=limits, timeout=20), (2, 3, 4))
    check_refused(run_process("convert", oddities[kind], tmp_path / "out.mm", limits=limits, timeout=20), (2, 3))
