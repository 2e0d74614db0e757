"""Recipes: a plan as TOML that gives the same bytes again, and how it was found.

A recipe is a plan file (docs/schemes.md) with three tables more: ``calibration``, which data and how they are used;
``transforms``, what is done to the graph before; and ``search``, for people alone. The rules of the plan pass through
here as they are: what they mean is for ``quantize`` to say.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from mobilemodel.errors import LimitExceededError, PlanError, UsageError
from mobilemodel.limits import MIB
from mobilemodel.search.candidate import Candidate
from mobilemodel.search.recipe_keys import CALIBRATION, SEARCH, TRANSFORMS, checked

TABLES = ("calibration", "transforms", "search")
"""the keys of a plan file that are read here"""
_LARGEST_FILE = MIB
_HEADING = """\
# Made by a search. The same bytes again:
#     mobilemodel convert SRC OUT --scheme THIS_FILE{data}
"""


@dataclass(frozen=True)
class Calibration:
    """Which data a plan was made with, and how they were used."""

    samples: int
    """which layers are fitted to: all of the data that are not held out"""
    held_out: int = 0
    """which candidates are judged on, evenly spread over the data"""
    mirror: bool = False
    """each sample is also used mirrored"""
    damping: float = 0.01
    """added to the diagonal of a layer's second moments, relative to its mean"""
    seed: int = 0
    sha256: str = ""
    """of the data, hexadecimal; empty: any data will do"""

    def check_data(self, sha256: str, file: str) -> None:
        """Raise PlanError where other data are given than the plan was made with."""
        if self.sha256 and sha256 != self.sha256:
            raise PlanError("not the data that the plan was made with", file=file, expected=f"sha256 {self.sha256}",
                            found=sha256, advice="Give those, or take sha256 out of [calibration]: the bytes will "
                            "then be others.")  # fmt: skip


@dataclass(frozen=True)
class Transforms:
    """What is done to the graph before anything is quantized."""

    fold: bool = False
    """BatchNormalization and scales go into the weights before them"""
    remove_duplicates: bool = False
    """tensors with the same values become one"""
    remove_dead: bool = False
    """nodes, weights and units that no output needs go"""
    order_units: bool = False
    """units of hidden layers are put in the order of their weights' norms"""
    low_rank: Mapping[str, int | float] = field(default_factory=dict)
    """pattern of tensors' names -> rank, or a share of the energy below 1"""
    sparsity: Mapping[str, float] = field(default_factory=dict)
    """pattern of tensors' names -> share of the weights that become zero"""


@dataclass(frozen=True)
class Searched:
    """How a plan was found; nothing depends on it. None: was not asked for, or not measured."""

    target_size: int | None = None
    """bytes"""
    largest_drop: float | None = None
    """points of top-1"""
    largest_divergence: float | None = None
    """nats"""
    evaluations: int | None = None
    """candidates"""
    size: int | None = None
    """bytes that were reached"""
    drop: float | None = None
    drop_error: float | None = None
    bound: float | None = None
    """points lost at most on other pictures, with 95 % confidence"""
    divergence: float | None = None


@dataclass(frozen=True)
class Recipe:
    """A plan's rules as TOML values, and what goes with them."""

    rules: Mapping[str, Any]
    """``scheme``, ``price``, ``operator``, ``name``... as in a plan file"""
    calibration: Calibration | None = None
    transforms: Transforms = Transforms()
    searched: Searched | None = None


def priced_rules(candidate: Candidate, rules: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """The rules of a plan that takes a candidate's prices; ``rules`` of a plan that it started from stand before them.

    >>> priced_rules(Candidate(0.5, {"fc[6]": 2.0}))
    {'scheme': 'auto', 'price': 0.5, 'name': {'fc[[]6]': {'price': 1.0}}}
    """
    given = dict(rules or {})
    names = dict(given.pop("name", {}))
    for tensor in candidate.layer_weights:
        pattern = pattern_of(tensor)
        names.pop(pattern, None)  # of several patterns that match the last decides, so it moves to the end
        names[pattern] = {"price": candidate.price_of(tensor)}
    return {"scheme": "auto"} | given | {"price": candidate.price} | ({"name": names} if names else {})


def pattern_of(tensor: str) -> str:
    """The name pattern that matches this tensor alone.

    >>> pattern_of("fc6.weight"), pattern_of("a*[0]?")
    ('fc6.weight', 'a[*][[]0][?]')
    """
    return re.sub(r"([*?\[])", r"[\1]", tensor)


def recipe_text(recipe: Recipe) -> str:
    """Write a recipe as TOML; reading it gives the same values, every float to its last bit.

    Raises UsageError for values that TOML or UTF-8 cannot hold, LimitExceededError for a text that no plan may be.
    """
    import tomli_w

    content = dict(recipe.rules)
    for name, part in zip(TABLES, (recipe.calibration, recipe.transforms, recipe.searched), strict=True):
        values = {} if part is None else {key: value for key, value in asdict(part).items() if value not in (None, {})}
        if values and part != Transforms():
            content[name] = values
    try:
        text = tomli_w.dumps(content)
        same = tomllib.loads(text) == content
        size = len(text.encode("utf-8"))
    except (TypeError, ValueError) as error:
        raise UsageError(f"the plan cannot be written as TOML: {error}") from None
    if not same:
        raise UsageError("the plan cannot be written as TOML: a value is not a number, or changes")
    if size > _LARGEST_FILE - len(_HEADING):
        raise LimitExceededError("the plan is too large", expected=f"at most {_LARGEST_FILE} bytes", found=size,
                                 advice="Give fewer tensors a price of their own.")  # fmt: skip
    return _HEADING.format(data=" --calibration DATA" if recipe.calibration else "") + "\n" + text


def read_recipe(content: Mapping[str, Any]) -> Recipe:
    """Understand the content of a plan file, as ``tomllib`` gives it: ``rules`` is what is left for the plan to read.

    Raises PlanError for an unknown key of the three tables, naming the nearest known one, and for a value out of
    range.

    >>> read_recipe({"scheme": "auto", "transforms": {"fold": True}}).transforms.fold
    True
    """
    calibration = transforms = searched = None
    if "calibration" in content:
        values = checked("calibration", content["calibration"], CALIBRATION)
        if "samples" not in values:
            raise PlanError("calibration.samples is missing", expected="the number of samples to fit to")
        calibration = Calibration(**values)
    if "transforms" in content:
        transforms = Transforms(**checked("transforms", content["transforms"], TRANSFORMS))
    if "search" in content:
        searched = Searched(**checked("search", content["search"], SEARCH))
    rules = {key: value for key, value in content.items() if key not in TABLES}
    return Recipe(rules, calibration, transforms or Transforms(), searched)


def shares(rank: int | float) -> bool:
    """Whether an amount of ``low_rank`` is a share of the energy, not a rank.

    >>> shares(0.9), shares(64)
    (True, False)
    """
    return isinstance(rank, float) and 0 < rank < 1
