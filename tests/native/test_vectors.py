"""All test vectors of the specification through the C reader: the dump, and the program mm-dump with its exit codes."""

from __future__ import annotations

import json
import re
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.conformance.write_vectors import VECTORS, Entry, committed, statuses
from tests.native import builds
from tests.native.builds import BASELINE, Build, Target
from tests.native.serving import OK, Served

ENTRIES = committed()
SAMPLE = {"dense-small", "palette-split-4", "unknown-codec", "magic", "manifest-crc", "major-2"}
"""what mm-dump is asked for where starting it takes an emulator"""
EXITS = {
    name: int(code)
    for name, code in re.findall(
        r"^\| \d+ \| `(\w+)` \| (\d+) \|", (VECTORS.parent / "errors.md").read_text("utf-8"), re.MULTILINE
    )
}


def check(entry: Entry, status: str, values: str) -> None:
    """ "A reader conforms if it gives the expected values, the expected status, or one of both" (README §2)."""
    expected = (VECTORS / entry["values"]).read_text("utf-8") if "values" in entry else ""
    if entry["expect"] == "either":
        assert status in (OK, entry["status"])
        assert status != OK or values == expected or statuses(json.loads(values)) == {entry["status"]}
    elif entry["expect"] == "ok" or entry["scope"] != "file":
        assert (status, values) == (OK, expected)
    else:
        assert (status, values) == (entry["status"], "")


def test_status_and_values_are_those_of_the_manifest(served: Served) -> None:
    for entry in ENTRIES:
        status = served.open((VECTORS / entry["file"]).read_bytes())
        check(entry, status, served.dump() if status == OK else "")
    assert len(ENTRIES) > 100


def test_kernels_are_those_of_the_processor(served: Served, target: Target) -> None:
    """Chosen at run time: a processor without arithmetic on halves, or without conversion of them, has its own."""
    assert served.kernels() in target.kernels


@pytest.mark.parametrize("way", ["path", "stdin"])
def test_runner(target: Target, built: Callable[[Build], Path], way: str) -> None:
    """The contract of a runner (vectors/README.md): values and 0, or a status on stderr and its exit code."""
    command = builds.command(target, built(target.build), "mm-dump")
    for entry in ENTRIES:
        if target.emulated and entry["id"] not in SAMPLE:
            continue
        path = VECTORS / entry["file"]
        with path.open("rb") as file:
            arguments = [*command, str(path)] if way == "path" else command
            done = subprocess.run(arguments, stdin=file, capture_output=True, text=True, check=False)
        status = OK if done.returncode == 0 else done.stderr.removesuffix("\n")
        check(entry, status, done.stdout)
        assert (done.returncode, done.stderr) == (EXITS[status], "" if status == OK else f"{status}\n")


def test_every_cut_of_a_bundle_is_refused(served: Served) -> None:
    """ "The size of the file [...] MUST be what §2 makes it" (container.md §3): no prefix of a bundle is one."""
    for entry in ENTRIES[:: 20 if served.emulated else 1]:
        if "values" in entry:
            data = (VECTORS / entry["file"]).read_bytes()
            for size in {*range(0, len(data), max(1, len(data) // 50)), len(data) - 1}:
                assert served.open(data[:size]) == "TRUNCATED"


def test_a_baseline_reader_says_what_it_lacks(built: Callable[[Build], Path]) -> None:
    """ "A baseline reader reports UNSUPPORTED_CODEC for tensors with zstd payloads; everything else in a full bundle
    works" (errors.md §1)."""
    command = builds.command(Target("baseline", BASELINE, ()), built(BASELINE), "mm-dump")
    lacking = 0
    for entry in ENTRIES:
        done = subprocess.run([*command, VECTORS / entry["file"]], capture_output=True, text=True, check=False)
        status = OK if done.returncode == 0 else done.stderr.removesuffix("\n")
        if entry["profile"] == "baseline":
            check(entry, status, done.stdout)
        elif status == OK:
            expected = (VECTORS / entry["values"]).read_text("utf-8")
            assert statuses(json.loads(done.stdout)) >= {"UNSUPPORTED_CODEC"} | statuses(json.loads(expected)) - STREAMS
            lacking += 1
        else:
            assert (entry["scope"], status) == ("file", entry["status"])
    assert lacking


STREAMS = {"MALFORMED_STREAM", "PAYLOAD_CHECKSUM", "MISPLACED_PAYLOAD"}
"""what comes after the codec is known: checks 14 and 15 (container.md §6)"""
