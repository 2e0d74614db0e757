"""The shape of the C reader: which header may be included where, how long a file and a function may be."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

READER = Path(__file__).resolve().parents[2] / "readers" / "c"
FILES = sorted(path for path in READER.rglob("*") if path.suffix in (".c", ".h"))
named = pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(READER)))

LIBRARY = READER / "src"
# Rooms from the ground up. A file may include headers of its own room and of those before it, never of a later one.
ROOMS = (
    {"bytes", "arena", "utf8", "wire", "mobilemodel"},
    {"kernels", "plain", "vector", "members", "neon", "dot_rows"},  # arithmetic
    {"message", "schema", "grammar", "status", "binding"},  # the manifest's language
    {"framing", "payload", "codec_png", "codec_zlib", "codec_zstd"},  # stored bytes to raw bytes
    {"manifest", "matrix", "tensor", "tensors", "uses", "check", "open", "content"},  # what a bundle says
    {"codes", "parameters", "lookup", "values", "place", "dense", "decode"},  # raw bytes to values
    {"fc"},  # layers: fc.c and fc_*.c
)
OURS = re.compile(r'^#\s*include "([^"]+)"', re.MULTILINE)
HEAP = re.compile(r"\b(malloc|calloc|realloc|free|alloca|printf|fprintf|fopen|getenv|abort|exit|assert)\s*\(")
COMMENT = re.compile(r"/\*.*?\*/|//[^\n]*|\"(?:\\.|[^\"\\])*\"", re.DOTALL)


def code_of(path: Path) -> str:
    """The file without comments and strings, its lines kept."""
    return COMMENT.sub(lambda found: "\n" * found.group().count("\n"), path.read_text("utf-8"))


def functions(text: str) -> list[tuple[str, int]]:
    """First line and number of lines of each function: from a line that begins at the margin to its closing brace."""
    found, start, lines = [], 0, text.splitlines()
    for number, line in enumerate(lines):
        if line[:1].strip() and line.rstrip().endswith(("{", "(", ",")) and not line.startswith(("#", "}")):
            start = number
        if line.startswith("}") and not line.startswith("} "):
            found.append((lines[start].strip(), number - start + 1))
    return found


@named
def test_files_stay_below_400_lines(path: Path) -> None:
    assert len(path.read_text("utf-8").splitlines()) <= 400


@named
def test_lines_stay_below_120_characters(path: Path) -> None:
    long = [number for number, line in enumerate(path.read_text("utf-8").splitlines(), 1) if len(line) > 120]
    assert not long


@named
def test_functions_fit_a_screen(path: Path) -> None:
    for name, length in functions(code_of(path)):
        assert length <= 60, f"{path.name}: {name} has {length} lines"


def test_the_walk_finds_functions() -> None:
    assert functions("static int f(int a,\n             int b) {\n    return a;\n}\n") == [("static int f(int a,", 4)]


@pytest.mark.parametrize("path", [path for path in FILES if LIBRARY in path.parents], ids=lambda path: path.name)
def test_the_library_takes_nothing_from_the_heap_and_prints_nothing(path: Path) -> None:
    """ "It allocates nothing: every buffer is the caller's" (mobilemodel.h)."""
    assert not HEAP.findall(code_of(path))


def room_of(stem: str) -> int:
    name = "fc" if stem.startswith("fc_") else stem
    found = [number for number, room in enumerate(ROOMS) if name in room]
    assert len(found) == 1, f"{stem} has no room, or two"
    return found[0]


@pytest.mark.parametrize("path", sorted(LIBRARY.glob("*.[ch]")), ids=lambda path: path.name)
def test_includes_run_one_way(path: Path) -> None:
    for header in OURS.findall(path.read_text("utf-8")):
        assert room_of(Path(header).stem) <= room_of(path.stem), f"{path.name} includes {header}"


@pytest.mark.parametrize("path", sorted(LIBRARY.glob("kernels/*.[ch]")), ids=lambda path: path.name)
def test_kernels_know_nothing_of_bundles(path: Path) -> None:
    """Kernels see each other and bytes; the public header is for the name of the set alone."""
    known = ROOMS[1] | {"bytes"} | ({"mobilemodel"} if path.name == "choose.c" else set())
    assert {Path(header).stem for header in OURS.findall(path.read_text("utf-8"))} <= known
