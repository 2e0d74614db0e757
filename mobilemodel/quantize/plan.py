"""Plans: a scheme, and TOML files that override it: global < operator type < name pattern (docs/schemes.md).

scheme = "mixed-4-8"

[operator.Conv]
encoding = "palette"
bits = 8

[name."fc8.*"]
encoding = "lossless"
"""

from __future__ import annotations

import math
import os
import tomllib
from dataclasses import dataclass, field, replace
from difflib import get_close_matches
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

from mobilemodel.errors import PlanError
from mobilemodel.limits import MIB
from mobilemodel.model import WEIGHT_ROLES, Role, SourceTensor
from mobilemodel.quantize import rules
from mobilemodel.quantize.network import Network, measured_network
from mobilemodel.quantize.rules import AFFINE, DEFAULT_SCHEME, ENCODINGS, PALETTE, RATE_DISTORTION, Rule, Scheme

_RULE_KEYS = ("encoding", "bits", "entries", "vector", "price", "sqnr")
_KEYS = ("scheme", *_RULE_KEYS, "operator", "name")
_WHOLE = ("bits", "entries", "vector")
_LARGEST_FILE = MIB


@dataclass(frozen=True)
class Plan:
    """A scheme by name, and the rules that go before it."""

    name: str
    scheme: Scheme
    everywhere: Rule | None = None
    operators: dict[str, Rule] = field(default_factory=dict)
    names: dict[str, Rule] = field(default_factory=dict)

    def rule(self, tensor: SourceTensor, fc_weights: int, network: Network | None = None) -> Rule:
        """The rule for a tensor of a network with so many FC tensors; its prices are relative to ``network``.

        Of several name patterns that match, the last in the file decides.
        """
        rule = self._rule(tensor, fc_weights)
        if not rule.price or network is None or not network.weights or not tensor.elements:
            return rule
        typical = math.sqrt(network.energy / tensor.elements)
        return replace(rule, share=min(tensor.elements / network.weights, 1.0), typical_rms=typical)

    def network(self, tensors: tuple[SourceTensor, ...]) -> Network | None:
        """Measure what the plan's prices are relative to; None where it has none for these tensors."""
        count = fc_weight_count(tensors)
        return measured_network(tensors) if any(self._rule(tensor, count).price for tensor in tensors) else None

    def _rule(self, tensor: SourceTensor, fc_weights: int) -> Rule:
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
    if not is_plan_file(scheme):
        return Plan(os.fspath(scheme), rules.scheme_named(os.fspath(scheme)))
    return parse_plan(read_plan_file(scheme), scheme)


def is_plan_file(scheme: str | os.PathLike[str]) -> bool:
    """Whether a scheme is a plan's file and not a name."""
    return os.fspath(scheme).endswith(".toml")


def read_plan_file(path: str | os.PathLike[str]) -> dict[str, Any]:
    """The content of a plan's TOML file; raises PlanError where it cannot be read, or is no TOML."""
    text, place = os.fspath(path), Path(path)
    try:
        if place.exists() and not place.is_file():
            raise PlanError("cannot read the plan: not a regular file", file=text)
        if place.stat().st_size > _LARGEST_FILE:
            raise PlanError("the plan is too large", file=text, expected=f"at most {_LARGEST_FILE} bytes")
        return tomllib.loads(place.read_text("utf-8"))
    except OSError as error:
        raise PlanError(f"cannot read the plan: {error.strerror}", file=text) from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise PlanError(f"not TOML: {error}", file=text) from None
    except RecursionError:
        raise PlanError("not TOML: nested too deep", file=text) from None


def parse_plan(content: dict[str, Any], path: str | os.PathLike[str]) -> Plan:
    """The plan that a file's content describes; it is named after the file. Raises PlanError."""
    try:
        return _parse(content, Path(path).stem)
    except PlanError as error:
        error.within(file=os.fspath(path))
        raise


def _parse(content: dict[str, Any], name: str) -> Plan:
    _check_keys(content, _KEYS, "")
    scheme = content.get("scheme", DEFAULT_SCHEME)
    if not isinstance(scheme, str):
        raise PlanError("scheme", expected="a scheme's name", found=scheme)
    everywhere = None
    given = {key: content[key] for key in _RULE_KEYS if key in content}
    if given:
        everywhere = _rule(given, "the global rule")
    groups: dict[str, dict[str, Rule]] = {"operator": {}, "name": {}}
    for kind, group in groups.items():
        table = content.get(kind, {})
        if not isinstance(table, dict):
            raise PlanError(kind, expected="a table of tables", found=table)
        for key, values in table.items():
            if not isinstance(values, dict):
                raise PlanError(f"{kind}.{key}", expected="a table", found=values)
            _check_keys(values, _RULE_KEYS, f"{kind}.{key}.")
            group[key] = _rule(values, f"{kind}.{key}")
    return Plan(name, rules.scheme_named(scheme), everywhere, groups["operator"], groups["name"])


def _check_keys(table: dict[str, Any], known: tuple[str, ...], where: str) -> None:
    for key in table:
        if key not in known:
            near = get_close_matches(key, known, 1)
            advice = f"Did you mean '{near[0]}'?" if near else None
            raise PlanError(f"unknown key '{where}{key}'", expected=", ".join(known), advice=advice)


def _rule(values: dict[str, Any], where: str) -> Rule:
    priced = "price" in values or "sqnr" in values
    encoding = values.get("encoding", RATE_DISTORTION if priced else None)
    if encoding not in ENCODINGS:
        raise PlanError(f"encoding of {where}", expected=", ".join(ENCODINGS), found=encoding)
    numbers = {key: value for key, value in values.items() if key != "encoding"}
    for key, value in numbers.items():
        _check_number(key, value, where)
    if encoding == RATE_DISTORTION:
        return _priced_rule(numbers, where)
    if priced:
        raise PlanError(f"{encoding} of {where} takes neither price nor sqnr", found=numbers)
    if encoding == rules.PRODUCT:
        return _product_rule(numbers, where)
    if "vector" in numbers:
        raise PlanError(f"{encoding} of {where} takes no vector", found=numbers)
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


def _product_rule(numbers: dict[str, Any], where: str) -> Rule:
    """Product codebooks: both numbers, or neither for the scheme's choice by the tensor's shape."""
    vector, entries = numbers.get("vector", 0), numbers.get("entries", 0)
    given = set(numbers) == {"vector", "entries"} and 1 <= vector <= 256 and 2 <= entries <= 256
    if numbers and not given:
        raise PlanError(f"product codebooks of {where}", expected="vector 1 to 256 and entries 2 to 256", found=numbers)
    return Rule(rules.PRODUCT, entries=entries, vector=vector)


def _check_number(key: str, value: Any, where: str) -> None:
    whole = key in _WHOLE
    if isinstance(value, bool) or not isinstance(value, int if whole else (int, float)):
        raise PlanError(f"{key} of {where}", expected="a whole number" if whole else "a number", found=value)


def _priced_rule(numbers: dict[str, Any], where: str) -> Rule:
    """A rate-distortion rule: a price, or the SQNR that is to be kept, or the default price."""
    if any(key in numbers for key in _WHOLE) or len(numbers) > 1:
        raise PlanError(f"rate-distortion of {where}", expected="price or sqnr", found=numbers)
    if "sqnr" in numbers:
        if not 1 <= numbers["sqnr"] <= rules.LARGEST_SQNR:
            expected = f"1 to {rules.LARGEST_SQNR:g} dB"
            raise PlanError(f"sqnr of {where}", expected=expected, found=numbers["sqnr"],
                            advice="Above, float16 is no larger.")  # fmt: skip
        return Rule(RATE_DISTORTION, sqnr=float(numbers["sqnr"]))
    price = numbers.get("price", rules.DEFAULT_PRICE)
    if not rules.SMALLEST_PRICE <= price <= rules.LARGEST_PRICE:
        expected = f"{rules.SMALLEST_PRICE:g} to {rules.LARGEST_PRICE:g}"
        raise PlanError(f"price of {where}", expected=expected, found=price)
    return Rule(RATE_DISTORTION, price=float(price))
