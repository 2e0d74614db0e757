"""A scheme's name or a plan's file -> rules, and what the plan says of data and transforms beside them."""

from __future__ import annotations

import os
from dataclasses import dataclass, replace

from mobilemodel.quantize import rules
from mobilemodel.quantize.plan import Plan, is_plan_file, load_plan, parse_plan, read_plan_file
from mobilemodel.search.candidate import Candidate
from mobilemodel.search.recipe import Recipe, priced_rules, read_recipe

CALIBRATED_PRICE = 0.0025
"""nats of divergence that a bit for each weight of the network is worth, where nothing else is said"""


@dataclass(frozen=True)
class Scheme:
    """What is to be done to a model."""

    plan: Plan
    recipe: Recipe
    file: str = ""
    """the plan's file; empty for a scheme's name"""

    @property
    def calibrated(self) -> Scheme:
        """The same with prices for calibrated layers where the scheme gives its own, which is for weights alone."""
        if self.plan.scheme is not rules.SCHEMES["auto"]:
            return self
        return replace(self, plan=replace(self.plan, scheme=rules.auto(CALIBRATED_PRICE)))

    def priced(self, candidate: Candidate) -> Scheme:
        """The same at a candidate's prices."""
        content = priced_rules(candidate, self.recipe.rules)
        plan = replace(parse_plan(content, self.file or "auto"), name=self.plan.name)
        return replace(self, plan=plan, recipe=replace(self.recipe, rules=content))


def read_scheme(scheme: str | os.PathLike[str]) -> Scheme:
    """Read a scheme. A plan that a search made is called after the scheme that it started from, so that it gives the
    same bytes; any other after its file. Raises PlanError.
    """
    if not is_plan_file(scheme):
        return Scheme(load_plan(scheme), Recipe({"scheme": os.fspath(scheme)}))
    recipe = read_recipe(read_plan_file(scheme))
    name = "" if recipe.searched is None else str(recipe.rules.get("scheme", ""))
    return scheme_of(recipe, name, os.fspath(scheme))


def scheme_of(recipe: Recipe, name: str, file: str) -> Scheme:
    """The scheme of a recipe; ``name`` is what bundles say, empty for the file's. Raises PlanError."""
    plan = parse_plan(dict(recipe.rules), file or name)
    return Scheme(replace(plan, name=name or plan.name), recipe, file)
