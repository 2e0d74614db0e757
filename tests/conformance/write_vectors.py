"""Writes spec/vectors: ``python tests/conformance/write_vectors.py [--check] [--force ID ...]``.

Vectors are written once: a file or a row of the manifest that is there already is never changed, unless its id is
named by --force. Compressed bytes that another library version makes differently are therefore no reason to rewrite.
--check writes nothing: it compares the committed files with the manifest, their expected values and dumps.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
if __name__ == "__main__":
    sys.path.insert(0, str(ROOT))

import mobilemodel  # noqa: E402
from mobilemodel.dump import dump_json  # noqa: E402
from mobilemodel.errors import MobileModelError  # noqa: E402
from tests.conformance import (  # noqa: E402
    vectors_codes,
    vectors_dense,
    vectors_edges,
    vectors_encodings,
    vectors_files,
    vectors_invalid,
    vectors_manifest,
    vectors_streams,
    vectors_verify,
    vectors_wire,
)
from tests.conformance.annotate import annotate  # noqa: E402
from tests.conformance.rows import Row  # noqa: E402

VECTORS = ROOT / "spec" / "vectors"
MANIFEST = VECTORS / "manifest.json"
FOLDERS = {"ok": "valid", "error": "invalid", "either": "either"}
ANNOTATED = ("dense-small", "palette-split-4", "palette-vector", "palette-blocks", "pools", "unknown-fields")
Entry = dict[str, Any]


def rows() -> list[Row]:
    """All vectors that the code makes, valid ones first."""
    valid = (vectors_files, vectors_dense, vectors_codes, vectors_edges)
    invalid = (vectors_invalid, vectors_wire, vectors_manifest, vectors_encodings, vectors_streams, vectors_verify)
    out = [row for module in (*valid, *invalid) for row in module.ROWS] + vectors_streams.EITHER
    assert len({row.id for row in out}) == len(out), "an id stands twice"
    return out


def committed() -> list[Entry]:
    """The rows of the committed manifest."""
    found: list[Entry] = json.loads(MANIFEST.read_text("utf-8"))["vectors"] if MANIFEST.exists() else []
    return found


def has_values(row: Entry | Row) -> bool:
    """Whether a vector opens, so that it has expected values."""
    expect, scope = (row.expect, row.scope) if isinstance(row, Row) else (row["expect"], row["scope"])
    return expect != "error" or scope != "file"


def entry_of(row: Row, data: bytes) -> Entry:
    """A row of the manifest."""
    file = f"{FOLDERS[row.expect]}/{row.id}.mm"
    out = {
        "id": row.id, "file": file, "since": "1.0", "profile": row.profile, "expect": row.expect,
        "status": row.status, "scope": row.scope, "runtime": row.runtime, "covers": list(row.covers),
        "about": row.about, "sha256": hashlib.sha256(data).hexdigest(),
    }  # fmt: skip
    if has_values(row):
        out["values"] = file.removesuffix(".mm") + ".json"
    return out


class Writer:
    """Writes what is new, and remembers what it may not change."""

    def __init__(self, forced: frozenset[str]) -> None:
        self.forced = forced
        self.refused: list[str] = []
        self.written = 0

    def put(self, identity: str, path: Path, content: bytes) -> bytes:
        """Write a file unless it is there; return what is there afterwards."""
        if path.exists() and identity not in self.forced:
            found = path.read_bytes()
            if found != content:
                self.refused.append(
                    f"{path.relative_to(ROOT)} is kept: the code makes other bytes (--force {identity})"
                )
            return found
        if not path.exists() or path.read_bytes() != content:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)
            self.written += 1
        return content


def write(forced: frozenset[str]) -> int:
    """Write what is missing, or forced; return the exit code."""
    writer = Writer(forced)
    before = {entry["id"]: entry for entry in committed()}
    entries = []
    for row in rows():
        data = writer.put(row.id, VECTORS / FOLDERS[row.expect] / f"{row.id}.mm", row.make())
        entry = entry_of(row, data)
        if has_values(row):
            with mobilemodel.open(data) as bundle:
                writer.put(row.id, VECTORS / entry["values"], dump_json(bundle).encode())
        if row.id in ANNOTATED:
            writer.put(row.id, VECTORS / "annotated" / f"{row.id}.txt", annotate(data).encode())
        old = before.pop(row.id, entry)
        if old != entry and row.id not in forced:
            writer.refused.append(f"the manifest's row {row.id} is kept (--force {row.id})")
            entry = old
        entries.append(entry)
    for name, entry in before.items():
        if name not in forced:
            writer.refused.append(f"the manifest's row {name} is kept, though no code makes it (--force {name})")
            entries.append(entry)
    MANIFEST.write_text(json.dumps({"format": "1.0", "vectors": entries}, indent=1) + "\n", "utf-8")
    print(f"{len(entries)} vectors, {writer.written} files written", *writer.refused, sep="\n")
    return 1 if writer.refused else 0


def statuses(values: Any) -> set[str]:
    """All statuses in a dump."""
    if isinstance(values, dict):
        own = {values["status"]} if set(values) == {"status"} else set()
        return own.union(*map(statuses, values.values())) if own == set() else own
    return set().union(*map(statuses, values)) if isinstance(values, list) else set()


def problems(entry: Entry) -> list[str]:
    """What is wrong with a committed vector, in words; nothing for a good one."""
    data = (VECTORS / entry["file"]).read_bytes()
    out = []
    if hashlib.sha256(data).hexdigest() != entry["sha256"]:
        out.append("the file's SHA-256 is another")
    try:
        with mobilemodel.open(data) as bundle:
            found, values = "OK", dump_json(bundle)
    except MobileModelError as error:
        found, values = error.status, ""
    expected = entry["status"] if entry["scope"] == "file" and entry["expect"] == "error" else "OK"
    if found != expected:
        out.append(f"status {found} instead of {expected}")
    elif "values" in entry and entry["expect"] != "either" and values != (VECTORS / entry["values"]).read_text("utf-8"):
        out.append(f"other values than {entry['values']}")
    elif (
        entry["scope"] == "tensor" and entry["expect"] == "error" and statuses(json.loads(values)) != {entry["status"]}
    ):
        out.append(f"no tensor has status {entry['status']}")
    dump = VECTORS / "annotated" / f"{entry['id']}.txt"
    if dump.exists() and dump.read_text("utf-8") != annotate(data):
        out.append("another annotated dump")
    return out


def check() -> int:
    """Check all committed vectors; return the exit code."""
    entries = committed()
    wrong = [f"{entry['id']}: {problem}" for entry in entries for problem in problems(entry)]
    named = {entry[kind] for entry in entries for kind in ("file", "values") if kind in entry}
    present = {f"{folder}/{path.name}" for folder in FOLDERS.values() for path in (VECTORS / folder).iterdir()}
    wrong += [f"{name}: not in the manifest" for name in sorted(present - named)]
    print(f"{len(entries)} vectors checked", *wrong, sep="\n")
    return 1 if wrong else 0


def main() -> int:
    parser = argparse.ArgumentParser(description="Write or check the test vectors of the specification.")
    parser.add_argument("--check", action="store_true", help="only compare the committed vectors")
    parser.add_argument("--force", action="append", default=[], metavar="ID", help="write this vector anew")
    arguments = parser.parse_args()
    return check() if arguments.check else write(frozenset(arguments.force))


if __name__ == "__main__":
    sys.exit(main())
