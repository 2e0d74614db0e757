"""The shape of the C reader: which header may be included where, how long a file and a function may be."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

READER = Path(__file__).resolve().parents[2] / "readers" / "c"
FILES = sorted(path for path in READER.rglob("*") if path.suffix in (".c", ".h"))
named = pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(READER)))

LIBRARY = READER / "src"
# Header -> the headers of ours that it, and the file that implements it, may include; lower ones always may.
SYSTEM = re.compile(r"^#\s*include <([^>]+)>", re.MULTILINE)
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


@pytest.mark.parametrize("path", sorted(LIBRARY.glob("kernels/*")), ids=lambda path: path.name)
def test_kernels_know_nothing_of_bundles(path: Path) -> None:
    assert not {"mobilemodel.h", "payload.h", "codes.h", "values.h"} & set(OURS.findall(path.read_text("utf-8")))
