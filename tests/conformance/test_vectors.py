"""All test vectors of the specification, through each way in: mapped, from bytes, and by the protobuf runtime."""

from __future__ import annotations

import hashlib
import json
import re
import struct
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

import mobilemodel
from mobilemodel import errors
from mobilemodel.bundle import Bundle, parse_bundle
from mobilemodel.dump import dump_json, main
from mobilemodel.errors import MobileModelError
from tests.conformance import reference, write_vectors
from tests.conformance.write_vectors import VECTORS, Entry, committed, problems, rows, statuses

ENTRIES = committed()
OPENED = [entry for entry in ENTRIES if "values" in entry]
WAYS: dict[str, Callable[[Path], Bundle]] = {
    "mapped": lambda path: mobilemodel.open(path),
    "bytes": lambda path: mobilemodel.open(path.read_bytes()),
    "runtime": lambda path: parse_bundle(path.read_bytes()),
}
named = pytest.mark.parametrize("entry", ENTRIES, ids=lambda entry: entry["id"])
opened = pytest.mark.parametrize("entry", OPENED, ids=lambda entry: entry["id"])
each_way = pytest.mark.parametrize("way", WAYS)


def answer(way: str, entry: Entry) -> tuple[str, str]:
    """Status of opening, and the dump where it opened."""
    try:
        with WAYS[way](VECTORS / entry["file"]) as bundle:
            return "OK", dump_json(bundle)
    except MobileModelError as error:
        return error.status, ""


@named
@each_way
def test_status_and_values_are_those_of_the_manifest(entry: Entry, way: str) -> None:
    """ "A reader conforms if it gives the expected values, the expected status, or one of both" (README §2)."""
    status, values = answer(way, entry)
    expected = (VECTORS / entry["values"]).read_text("utf-8") if "values" in entry else ""
    if entry["expect"] == "either":
        assert status in ("OK", entry["status"])
        assert status != "OK" or values == expected or statuses(json.loads(values)) == {entry["status"]}
    elif entry["expect"] == "ok" or entry["scope"] == "verify":
        assert (status, values) == ("OK", expected)
    elif entry["scope"] == "file":
        assert status == entry["status"]
    elif way == "runtime" and status != "OK":
        # "It MAY check every CRC-32 at once; a damaged payload is then a failure of the file" (container.md §7).
        assert status == entry["status"] or entry["runtime"] == "status"
    else:
        assert (status, values) == ("OK", expected)
        assert statuses(json.loads(values)) == {entry["status"]}


@opened
def test_verifier_accepts_the_valid_and_reports_the_others(entry: Entry) -> None:
    """ "A Verifier MUST report a file that breaks them as MALFORMED_CONTENT" (tensors.md §7)."""
    with mobilemodel.open(VECTORS / entry["file"]) as bundle:
        missing = statuses(json.loads((VECTORS / entry["values"]).read_text("utf-8")))
        if entry["expect"] == "ok" and not missing:
            bundle.verify()
        elif entry["expect"] != "either":
            with pytest.raises(MobileModelError) as caught:
                bundle.verify()
            # A Verifier may find every damaged payload before it decodes a tensor, as a runtime does.
            assert caught.value.status in {entry["status"]} - {"OK"} | missing or entry["runtime"] == "status"


@named
def test_committed_bytes_are_those_of_the_manifest(entry: Entry) -> None:
    assert hashlib.sha256((VECTORS / entry["file"]).read_bytes()).hexdigest() == entry["sha256"]
    assert problems(entry) == []


@opened
def test_every_cut_of_a_bundle_is_refused(entry: Entry) -> None:
    """ "The size of the file [...] MUST be what §2 makes it" (container.md §3): no prefix of a bundle is one."""
    data = (VECTORS / entry["file"]).read_bytes()
    for size in {*range(0, len(data), max(1, len(data) // 50)), len(data) - 1}:
        with pytest.raises(MobileModelError) as caught:
            mobilemodel.open(data[:size])
        assert caught.value.status == "TRUNCATED"


@pytest.mark.parametrize("identity", ["dense-small", "palette-split-4", "described-model", "pools", "empty"])
def test_no_byte_of_a_bundle_goes_unread(identity: str) -> None:
    """ "There is no room for anything else between, before or behind" (container.md §2): any changed byte is found."""
    data = (VECTORS / "valid" / f"{identity}.mm").read_bytes()
    for position in range(len(data)):
        damaged = data[:position] + bytes([data[position] ^ 1 << position % 8]) + data[position + 1 :]
        for way in (mobilemodel.open, parse_bundle):
            with pytest.raises(MobileModelError):
                way(damaged).verify()


def test_manifest_lists_what_is_there() -> None:
    assert write_vectors.check() == 0
    assert [row.id for row in rows()] == [entry["id"] for entry in ENTRIES]
    assert sum(entry["expect"] == "ok" for entry in ENTRIES) >= 25
    assert sum(entry["expect"] == "error" for entry in ENTRIES) >= 35


def test_sections_that_vectors_cover_exist() -> None:
    for covered in {covered for entry in ENTRIES for covered in entry["covers"]}:
        document, section = covered.split(" §")
        text = (VECTORS.parent / document).read_text("utf-8")
        assert re.search(rf"^#+ {re.escape(section)}\.? ", text, re.MULTILINE), covered


def error_table() -> list[tuple[int, str, int, str]]:
    """Code, status, exit code and vector of each row in spec/errors.md."""
    text = (VECTORS.parent / "errors.md").read_text("utf-8")
    lines = re.findall(r"^\| (\d+) \| `(\w+)` \| (\d+) \|(.*)\|$", text, re.MULTILINE)
    return [(int(code), name, int(leave), rest.split("|")[-1].strip(" `")) for code, name, leave, rest in lines]


def test_errors_are_those_of_the_specification() -> None:
    classes: list[type[MobileModelError]] = [errors.MobileModelError]
    for kind in classes:
        classes.extend(kind.__subclasses__())
    ours = {(kind.code, kind.status, kind.exit_code) for kind in classes if kind.__module__ == errors.__name__}
    assert ours == {row[:3] for row in error_table() if row[1] != "OK"}


def test_every_status_of_bundles_has_a_vector() -> None:
    by_file = {entry["file"]: entry for entry in ENTRIES}
    for code, status, _, file in error_table():
        if 10 <= code <= 34:
            entry = by_file[file]
            values = json.loads((VECTORS / entry["values"]).read_text("utf-8")) if "values" in entry else {}
            assert status == entry["status"] or status in statuses(values)


def test_writer_changes_nothing_that_is_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Vectors are write-once: another content is refused and kept, unless it is forced."""
    monkeypatch.setattr(write_vectors, "ROOT", tmp_path)
    file = tmp_path / "v.mm"
    assert write_vectors.Writer(frozenset()).put("v", file, b"old") == b"old"
    careful = write_vectors.Writer(frozenset())
    assert careful.put("v", file, b"new") == b"old"
    assert careful.refused
    assert write_vectors.Writer(frozenset(["v"])).put("v", file, b"new") == b"new"
    assert file.read_bytes() == b"new"


@pytest.mark.parametrize("identity", ["dense-small", "unknown-codec", "magic", "manifest-crc", "major-2"])
def test_runner_prints_json_or_a_status(identity: str, capsys: pytest.CaptureFixture[str]) -> None:
    """The runner's contract of spec/vectors/README.md."""
    entry = next(entry for entry in ENTRIES if entry["id"] == identity)
    code = main([str(VECTORS / entry["file"])])
    out, err = capsys.readouterr()
    if entry["expect"] == "ok":
        assert (code, out, err) == (0, (VECTORS / entry["values"]).read_text("utf-8"), "")
    else:
        exits = {status: leave for _, status, leave, _ in error_table()}
        assert (code, out, err) == (exits[entry["status"]], "", entry["status"] + "\n")


def test_runner_reads_stdin(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    with (VECTORS / "valid" / "empty.mm").open("rb") as file:
        monkeypatch.setattr(sys, "stdin", type("Stdin", (), {"buffer": file}))
        assert main([]) == 0
    assert json.loads(capsys.readouterr().out)["tensors"] == []


@opened
def test_a_second_reader_decodes_the_same_bits(entry: Entry) -> None:
    """ "Two readers that decode the same tensor MUST produce the same bits" (tensors.md §8), but for converted NaNs."""
    data = (VECTORS / entry["file"]).read_bytes()
    second = reference.Reader(data)
    with mobilemodel.open(data) as bundle:
        for tensor, shown in zip(bundle.values(), json.loads(dump_json(bundle))["tensors"], strict=True):
            if "status" in shown["values"] or entry["expect"] == "either":
                continue
            ours, theirs = bytes(tensor.raw()), second.values(tensor.message)
            if tensor.dtype.kind == "f" and ours != theirs:
                kind = f"<u{tensor.dtype.itemsize}"
                both_nan = np.isnan(np.frombuffer(ours, tensor.dtype)) & np.isnan(np.frombuffer(theirs, tensor.dtype))
                assert (both_nan | (np.frombuffer(ours, kind) == np.frombuffer(theirs, kind))).all()
            else:
                assert ours == theirs
            if "codes" in shown:
                rows = second.codes(reference.Matrix(getattr(tensor.message, tensor.encoding).codes, tensor.shape))
                raw = b"".join(struct.pack(f"<{len(row)}I", *row) for row in rows)
                assert hashlib.sha256(raw).hexdigest() == shown["codes"]["sha256"]
