"""The keys of a recipe's own tables, and what their values may be."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Any

from mobilemodel.errors import PlanError, escape

_LARGEST_WHOLE = 2**63 - 1
"""of TOML"""


@dataclass(frozen=True)
class Kind:
    """What a value must be, in words, and whether it is."""

    expected: str
    fits: Callable[[Any], bool]


def _whole(low: int, high: int = _LARGEST_WHOLE) -> Kind:
    said = f"a whole number from {low} on" if high == _LARGEST_WHOLE else f"a whole number from {low} to {high}"
    return Kind(said, lambda value: type(value) is int and low <= value <= high)


def _number(low: float, high: float, said: str) -> Kind:
    return Kind(said, lambda value: type(value) in (int, float) and low <= value <= high)


def _amounts(said: str, fits: Callable[[Any], bool]) -> Kind:
    def all_fit(table: Any) -> bool:
        return isinstance(table, dict) and all(map(fits, table.values()))

    return Kind(f"for each name pattern {said}", all_fit)


def _is_rank(value: Any) -> bool:
    return (type(value) is int and 1 <= value <= _LARGEST_WHOLE) or _is_share(value)


def _is_share(value: Any) -> bool:
    return type(value) is float and 0 < value < 1


_FLAG = Kind("true or false", lambda value: type(value) is bool)
_FINITE = _number(-math.nextafter(math.inf, 0), math.nextafter(math.inf, 0), "a finite number")
_POSITIVE = _number(0, math.nextafter(math.inf, 0), "a number from 0 on")

CALIBRATION = {
    "samples": _whole(1),
    "held_out": _whole(0),
    "mirror": _FLAG,
    "damping": _POSITIVE,
    "seed": _whole(0),
    "sha256": Kind("64 hexadecimal digits, lower case",
                   lambda value: type(value) is str and re.fullmatch("[0-9a-f]{64}|", value) is not None),
}  # fmt: skip
TRANSFORMS = {
    "fold": _FLAG,
    "remove_duplicates": _FLAG,
    "remove_dead": _FLAG,
    "order_units": _FLAG,
    "low_rank": _amounts("a rank, or a share of the energy below 1", _is_rank),
    "sparsity": _amounts("a share of the weights below 1", _is_share),
}
SEARCH = {
    "target_size": _whole(1),
    "largest_drop": _POSITIVE,
    "largest_divergence": _POSITIVE,
    "evaluations": _whole(1),
    "size": _whole(1),
    "drop": _FINITE,
    "drop_error": _POSITIVE,
    "bound": _FINITE,
    "divergence": _POSITIVE,
}


def checked(name: str, table: Any, known: Mapping[str, Kind]) -> dict[str, Any]:
    """The table itself, once every key is known and every value fits. Raises PlanError."""
    if not isinstance(table, dict):
        raise PlanError(name, expected="a table", found=table)
    for key, value in table.items():
        if key not in known:
            near = get_close_matches(key, known, 1)
            advice = f"Did you mean '{near[0]}'?" if near else None
            raise PlanError(f"unknown key '{name}.{escape(key)}'", expected=", ".join(known), advice=advice)
        if not known[key].fits(value):
            raise PlanError(f"{name}.{key}", expected=known[key].expected, found=value)
    return table
