"""The tables of spec/graph.md §2 are those of the ONNX converter: a difference in either is found here."""

from __future__ import annotations

import re
from pathlib import Path

from mobilemodel.dtypes import DType
from mobilemodel_converters.onnx.importer import EXTERNAL_DTYPES
from mobilemodel_converters.onnx.uses import ALL, DATA_INPUTS, PASS_THROUGH

TEXT = (Path(__file__).resolve().parents[2] / "spec" / "graph.md").read_text("utf-8")
SECTION = TEXT[TEXT.index("\n## 2. ") : TEXT.index("\n## 3. ")]


def positions(cell: str) -> frozenset[int]:
    """The inputs that a cell names: ``0``, ``0, 1``, ``0 to 4``, or ``all``."""
    if cell == "all":
        return ALL
    if " to " in cell:
        first, last = map(int, cell.split(" to "))
        return frozenset(range(first, last + 1))
    return frozenset(map(int, cell.split(", ")))


def table() -> dict[tuple[str, str], frozenset[int]]:
    """The data inputs of each operator, by domain and name, as the text lists them."""
    rows = re.findall(r"^\| (.+) \| (.+) \|$", SECTION, re.MULTILINE)
    assert rows[0] == ("operator", "data inputs")
    found: dict[tuple[str, str], frozenset[int]] = {}
    for operators, inputs in rows[1:]:
        domain, names = operators.split(": ") if ": " in operators else ("", operators)
        for name in names.split(", "):
            assert (domain, name) not in found, f"{name} stands twice"
            found[domain, name] = positions(inputs)
    return found


def test_data_inputs_are_those_of_the_text() -> None:
    """ "It is used, and every use is a data input of the table below" (graph.md §2)."""
    assert table() == DATA_INPUTS


def test_operators_that_pass_a_value_on_are_those_of_the_text() -> None:
    """ "Uses are followed [...] through the data inputs of Identity, Cast, ..." (graph.md §2)."""
    listed = re.search(r"through the data inputs of ([\w, ]+?) and (\w+),", SECTION)
    assert listed is not None
    assert {*listed[1].split(", "), listed[2]} == set(PASS_THROUGH)
    assert set(PASS_THROUGH.values()) == {frozenset((0,))}


def test_types_that_may_leave_are_those_of_the_text() -> None:
    """ "Its type is FLOAT, FLOAT16, [...] a FLOAT8 of numbers 17 to 20, INT8 or UINT8" (graph.md §2)."""
    line = r"^1\. Its type is ([\w, ]+), a FLOAT8 of numbers (\d+) to (\d+), (\w+) or (\w+)\."
    listed = re.search(line, SECTION, re.MULTILINE)
    assert listed is not None
    numbers = {DType[name] for name in (*listed[1].split(", "), listed[4], listed[5])}
    assert numbers | set(range(int(listed[2]), int(listed[3]) + 1)) == EXTERNAL_DTYPES
