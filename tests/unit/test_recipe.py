"""Recipes: what is written is read back to the last bit, whatever tensors are called; what is not known is refused."""

from __future__ import annotations

import tomllib
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mobilemodel.errors import LimitExceededError, PlanError, UsageError
from mobilemodel.model import Role, SourceTensor
from mobilemodel.quantize.plan import load_plan
from mobilemodel.quantize.rules import Rule
from mobilemodel.search import (
    Calibration,
    Candidate,
    Recipe,
    Searched,
    Transforms,
    data_sha256,
    priced_rules,
    read_recipe,
    recipe_text,
)
from mobilemodel.search.recipe import pattern_of

FULL = Recipe(
    {"scheme": "auto", "price": 1.234567e-9, "operator": {"Conv": {"encoding": "float16"}}},
    Calibration(6144, 2048, True, 0.01, 7, "0f" * 32),
    Transforms(True, True, False, False, {"fc6.weight": 256, "*": 0.9}, {"fc?.weight": 0.5}),
    Searched(4_194_304, 0.5, None, 5, 4_180_000, 0.2, 0.3, 0.45, 0.011),
)
# Every character that UTF-8 can hold: quotes, line ends, control and format characters among them.
NAMES = st.text(st.characters(codec="utf-8"), max_size=30)


def again(recipe: Recipe) -> Recipe:
    return read_recipe(tomllib.loads(recipe_text(recipe)))


def test_a_recipe_as_text() -> None:
    expected = """\
# Made by a search. The same bytes again:
#     mobilemodel convert SRC OUT --scheme THIS_FILE --calibration DATA

scheme = "auto"
price = 1.234567e-09

[operator.Conv]
encoding = "float16"

[calibration]
samples = 6144
held_out = 2048
mirror = true
damping = 0.01
seed = 7
sha256 = "0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f"

[transforms]
fold = true
remove_duplicates = true
remove_dead = false
order_units = false

[transforms.low_rank]
"fc6.weight" = 256
"*" = 0.9

[transforms.sparsity]
"fc?.weight" = 0.5

[search]
target_size = 4194304
largest_drop = 0.5
evaluations = 5
size = 4180000
drop = 0.2
drop_error = 0.3
bound = 0.45
divergence = 0.011
"""
    assert recipe_text(FULL) == expected
    assert again(FULL) == FULL


def test_what_was_not_used_is_not_written() -> None:
    plain = Recipe({"scheme": "auto", "price": 0.1})
    assert recipe_text(plain).splitlines()[1:] == [
        "#     mobilemodel convert SRC OUT --scheme THIS_FILE", "", 'scheme = "auto"', "price = 0.1",
    ]  # fmt: skip
    assert again(plain) == plain


@given(st.dictionaries(NAMES, st.floats(1e-6, 1e6), max_size=5), st.floats(1e-15, 1e3))
def test_prices_come_back_to_the_last_bit(factors: dict[str, float], price: float) -> None:
    candidate = Candidate(price, factors)
    rules = again(Recipe(priced_rules(candidate))).rules
    assert rules["price"] == price
    for tensor in factors:
        assert rules["name"][pattern_of(tensor)]["price"] == candidate.price_of(tensor)


@given(NAMES, NAMES)
def test_a_pattern_matches_its_own_name_alone(tensor: str, other: str) -> None:
    assert fnmatchcase(tensor, pattern_of(tensor))
    assert fnmatchcase(other, pattern_of(tensor)) == (other == tensor)


@given(st.builds(Calibration, st.integers(1, 2**31), st.integers(0, 2**31), st.booleans(),
                 st.floats(0, 1e9), st.integers(0, 2**63 - 1), st.sampled_from(["", "ab" * 32])),
       st.builds(Transforms, st.booleans(), st.booleans(), st.booleans(), st.booleans(),
                 st.dictionaries(NAMES, st.integers(1, 2**40) | st.floats(0.001, 0.999), max_size=3),
                 st.dictionaries(NAMES, st.floats(0.001, 0.999), max_size=3)))  # fmt: skip
def test_any_tables_come_back(calibration: Calibration, transforms: Transforms) -> None:
    recipe = Recipe({"scheme": "auto"}, calibration, transforms)
    assert again(recipe) == recipe


def test_prices_of_tensors_go_before_the_rules_of_the_plan_they_came_from() -> None:
    rules = {"scheme": "fp16", "name": {"fc6": {"encoding": "lossless"}, "fc*": {"encoding": "float16"}}}
    priced = priced_rules(Candidate(0.5, {"fc6": 2.0}), rules)
    assert priced["scheme"] == "fp16"
    assert list(priced["name"].items()) == [("fc*", {"encoding": "float16"}), ("fc6", {"price": 1.0})]
    assert rules["name"] == {"fc6": {"encoding": "lossless"}, "fc*": {"encoding": "float16"}}, "the given ones stay"


def test_the_plan_reads_the_rules(tmp_path: Path) -> None:
    """The rules of a recipe are a plan as ``quantize`` reads it, every price exact."""
    candidate = Candidate(1 / 3, {'say "fc[6]"\n': 0.7})
    (tmp_path / "plan.toml").write_text(recipe_text(Recipe(priced_rules(candidate))), "utf-8")
    plan = load_plan(tmp_path / "plan.toml")
    for name, price in (('say "fc[6]"\n', 1 / 3 * 0.7), ("fc7", 1 / 3)):
        tensor = SourceTensor(name, 1, (4, 4), lambda: b"", Role.FC, "Gemm")
        assert plan.rule(tensor, 2) == Rule("rate-distortion", price=price)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"calibration": 3}, "calibration: expected a table, found 3"),
        ({"calibration": {}}, "calibration.samples is missing"),
        ({"calibration": {"sample": 3}}, "'calibration.sample': expected samples.*\n.*Did you mean 'samples'"),
        ({"calibration": {"samples": 0}}, "calibration.samples: expected a whole number from 1 on, found 0"),
        ({"calibration": {"samples": 1.0}}, "a whole number"),
        ({"calibration": {"samples": True}}, "a whole number"),
        ({"calibration": {"samples": 2**63}}, "a whole number"),
        ({"calibration": {"samples": 1, "mirror": 1}}, "calibration.mirror: expected true or false"),
        ({"calibration": {"samples": 1, "damping": float("nan")}}, "calibration.damping: expected a number from 0 on"),
        ({"calibration": {"samples": 1, "damping": -1}}, "a number from 0 on"),
        ({"calibration": {"samples": 1, "sha256": "0F" * 32}}, "64 hexadecimal digits"),
        ({"calibration": {"samples": 1, "sha256": "0f" * 31}}, "64 hexadecimal digits"),
        ({"calibration": {"samples": 1, "sha256": "0f" * 32 + "\n"}}, "64 hexadecimal digits"),
        ({"transforms": {"fold": "yes"}}, "true or false"),
        ({"transforms": {"low_rank": 3}}, "transforms.low_rank: expected for each name pattern a rank"),
        ({"transforms": {"low_rank": {"a": 0}}}, "a rank, or a share of the energy below 1"),
        ({"transforms": {"low_rank": {"a": 1.0}}}, "a rank, or a share"),
        ({"transforms": {"low_rank": {"a": "b"}}}, "a rank, or a share"),
        ({"transforms": {"sparsity": {"a": 1}}}, "a share of the weights below 1"),
        ({"transforms": {"sparsity": {"a": float("nan")}}}, "a share of the weights"),
        ({"transforms": {"x\x1b[2J": 1}}, r"unknown key 'transforms.x\\x1b\[2J'"),
        ({"search": {"target_size": "4MiB"}}, "search.target_size: expected a whole number"),
        ({"search": {"drop": float("inf")}}, "search.drop: expected a finite number"),
        ({"search": []}, "search: expected a table"),
    ],
)  # fmt: skip
def test_what_is_not_understood_is_refused(content: dict[str, Any], message: str) -> None:
    with pytest.raises(PlanError, match=message):
        read_recipe(content)


def test_keys_of_the_plan_are_left_to_the_plan() -> None:
    assert read_recipe({"whatever": 3}).rules == {"whatever": 3}


@pytest.mark.parametrize("value", [float("nan"), None, object(), "\udc80"])
def test_what_toml_cannot_hold_is_refused(value: object) -> None:
    with pytest.raises(UsageError, match="cannot be written as TOML"):
        recipe_text(Recipe({"scheme": value}))


def test_a_plan_that_is_too_large_to_be_read_is_not_written() -> None:
    names = {f"{'x' * 1000}{index}": 2.0 for index in range(1100)}
    with pytest.raises(LimitExceededError, match="the plan is too large"):
        recipe_text(Recipe(priced_rules(Candidate(1.0, names))))


def test_other_data_are_refused_with_advice() -> None:
    calibration = Calibration(1, sha256="0f" * 32)
    calibration.check_data("0f" * 32, "data.npz")
    Calibration(1).check_data("any", "data.npz")
    with pytest.raises(PlanError, match=r"data.npz: not the data.*\n.*take sha256 out of \[calibration\]"):
        calibration.check_data("1f" * 32, "data.npz")


def test_the_checksum_of_a_file_is_that_of_its_bytes(tmp_path: Path) -> None:
    (tmp_path / "abc").write_bytes(b"abc")
    assert data_sha256(tmp_path / "abc") == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"


def test_the_checksum_of_a_folder_is_that_of_its_files_and_their_names(tmp_path: Path) -> None:
    def checksum(files: dict[str, bytes]) -> str:
        folder = tmp_path / str(len(list(tmp_path.iterdir())))
        for name, content in files.items():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).write_bytes(content)
        return data_sha256(folder)

    first = checksum({"cat/1.png": b"a", "dog/2.png": b"b"})
    assert checksum({"dog/2.png": b"b", "cat/1.png": b"a"}) == first
    others = [{"cat/1.png": b"b", "dog/2.png": b"a"}, {"dog/1.png": b"a", "dog/2.png": b"b"}, {"cat/1.png": b"a"}]
    assert len({first, *map(checksum, others)}) == 4


def test_data_that_cannot_be_read(tmp_path: Path) -> None:
    for path in (tmp_path / "missing", "\0"):
        with pytest.raises(UsageError, match="cannot read the data"):
            data_sha256(path)
