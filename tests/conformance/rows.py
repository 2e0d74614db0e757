"""A row of the vectors' manifest, and how functions become rows."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True)
class Row:
    """One vector before it is written."""

    id: str
    make: Callable[[], bytes]
    covers: tuple[str, ...]
    about: str
    profile: str = "baseline"
    expect: str = "ok"
    status: str = "OK"
    scope: str = "file"
    runtime: str = "same"
    """what a reader on a protobuf runtime answers: the same, or either (spec/container.md §7)"""


def vector(
    rows: list[Row], *covers: str, profile: str = "baseline", expect: str = "ok", status: str = "OK",
    scope: str = "file", runtime: str = "same",
) -> Callable[[Callable[[], bytes]], Callable[[], bytes]]:  # fmt: skip
    """Register a function without arguments as a vector; its name is the id and its docstring says what it shows."""

    def register(make: Callable[[], bytes]) -> Callable[[], bytes]:
        name = make.__name__.rstrip("_").replace("_", "-")
        about = " ".join((make.__doc__ or "").split())
        rows.append(Row(name, make, covers, about, profile, expect, status, scope, runtime))
        return make

    return register
