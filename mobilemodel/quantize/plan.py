"""Plans: a scheme, and TOML files that override it: global < operator type < name pattern (docs/schemes.md).

scheme = "mixed-4-8"

[operator.Conv]
encoding = "palette"
bits = 8

[name."fc8.*"]
encoding = "lossless"
"""

from __future__ import annotations

import os
import tomllib
from dataclasses import dataclass, field
from difflib import get_close_matches
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

from mobilemodel.errors import PlanError
from mobilemodel.limits import MIB
from mobilemodel.model import WEIGHT_ROLES, Role, SourceTensor
from mobilemodel.quantize.rules import AFFINE, DEFAULT_SCHEME, ENCODINGS, PALETTE, Rule, Scheme, scheme_named

_KEYS = ("scheme", "encoding", "bits", "entries", "operator", "name")
_RULE_KEYS = ("encoding", "bits", "entries")
_LARGEST_FILE = MIB


@dataclass(frozen=True)
class Plan:
    """A scheme by name, and the rules that go before it."""

    name: str
    scheme: Scheme
    everywhere: Rule | None = None
    operators: dict[str, Rule] = field(default_factory=dict)
    names: dict[str, Rule] = field(default_factory=dict)

    def rule(self, tensor: SourceTensor, fc_weights: int) -> Rule:
        """The rule for a tensor; of several name patterns that match, the last in the file."""
        for pattern, rule in reversed(self.names.items()):
            if fnmatchcase(tensor.name, pattern):
                return rule
        if tensor.operator in self.operators:
            return self.operators[tensor.operator]
        if self.everywhere is not None and tensor.role in WEIGHT_ROLES:
            return self.everywhere
        return self.scheme(tensor, fc_weights)

    def unmatched(self, tensors: tuple[SourceTensor, ...]) -> list[str]:
        """Operators and patterns of the plan that no tensor answers to: likely slips of the pen."""
        operators = {tensor.operator for tensor in tensors}
        lost = [f"operator.{name}" for name in self.operators if name not in operators]
        return lost + [f"name.{p!r}" for p in self.names if not any(fnmatchcase(t.name, p) for t in tensors)]


def fc_weight_count(tensors: tuple[SourceTensor, ...]) -> int:
    """Number of FC weights, which some schemes ask for."""
    return sum(tensor.role is Role.FC for tensor in tensors)


def load_plan(scheme: str | os.PathLike[str]) -> Plan:
    """The plan of a scheme's name, or of a TOML file's path.

    Raises PlanError for an unknown scheme, key or value, naming the nearest known one.

    >>> load_plan("fp16").name
    'fp16'
    """
    text = os.fspath(scheme)
    if not text.endswith(".toml"):
        return Plan(text, scheme_named(text))
    path = Path(text)
    try:
        if path.exists() and not path.is_file():
            raise PlanError("cannot read the plan: not a regular file", file=text)
        if path.stat().st_size > _LARGEST_FILE:
            raise PlanError("the plan is too large", file=text, expected=f"at most {_LARGEST_FILE} bytes")
        content = tomllib.loads(path.read_text("utf-8"))
    except OSError as error:
        raise PlanError(f"cannot read the plan: {error.strerror}", file=text) from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise PlanError(f"not TOML: {error}", file=text) from None
    except RecursionError:
        raise PlanError("not TOML: nested too deep", file=text) from None
    try:
        return _parse(content, path.stem)
    except PlanError as error:
        error.within(file=text)
        raise


def _parse(content: dict[str, Any], name: str) -> Plan:
    _check_keys(content, _KEYS, "")
    scheme = content.get("scheme", DEFAULT_SCHEME)
    if not isinstance(scheme, str):
        raise PlanError("scheme", expected="a scheme's name", found=scheme)
    everywhere = None
    if any(key in content for key in _RULE_KEYS):
        everywhere = _rule({key: content[key] for key in _RULE_KEYS if key in content}, "the global rule")
    groups: dict[str, dict[str, Rule]] = {"operator": {}, "name": {}}
    for kind, rules in groups.items():
        table = content.get(kind, {})
        if not isinstance(table, dict):
            raise PlanError(kind, expected="a table of tables", found=table)
        for key, values in table.items():
            if not isinstance(values, dict):
                raise PlanError(f"{kind}.{key}", expected="a table", found=values)
            _check_keys(values, _RULE_KEYS, f"{kind}.{key}.")
            rules[key] = _rule(values, f"{kind}.{key}")
    return Plan(name, scheme_named(scheme), everywhere, groups["operator"], groups["name"])


def _check_keys(table: dict[str, Any], known: tuple[str, ...], where: str) -> None:
    for key in table:
        if key not in known:
            near = get_close_matches(key, known, 1)
            advice = f"Did you mean '{near[0]}'?" if near else None
            raise PlanError(f"unknown key '{where}{key}'", expected=", ".join(known), advice=advice)


def _rule(values: dict[str, Any], where: str) -> Rule:
    encoding = values.get("encoding")
    if encoding not in ENCODINGS:
        raise PlanError(f"encoding of {where}", expected=", ".join(ENCODINGS), found=encoding)
    numbers = {key: values[key] for key in ("bits", "entries") if key in values}
    for key, value in numbers.items():
        if not isinstance(value, int) or isinstance(value, bool):
            raise PlanError(f"{key} of {where}", expected="a whole number", found=value)
    if encoding == PALETTE:
        entries = numbers.get("entries", 1 << min(max(numbers.get("bits", 8), 0), 20))
        if len(numbers) == 2 or not 2 <= entries <= 65_536:
            raise PlanError(f"palette of {where}", expected="bits 1 to 16, or entries 2 to 65536", found=numbers)
        return Rule(PALETTE, entries=entries)
    if encoding == AFFINE:
        if "entries" in numbers or numbers.get("bits", 8) not in (4, 8, 16):
            raise PlanError(f"affine codes of {where}", expected="bits 4, 8 or 16", found=numbers)
        return Rule(AFFINE, bits=numbers.get("bits", 8))
    if numbers:
        raise PlanError(f"{encoding} of {where} takes neither bits nor entries", found=numbers)
    return Rule(encoding)
