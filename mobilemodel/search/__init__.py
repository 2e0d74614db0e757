"""Searching prices: for a file of a given size, or for the smallest one that loses no more than it may.

A bit has a price: the error that saving it may cost. One price for all tensors is the best allocation in theory, so a
search has one number to find; factors for single tensors correct it by what was measured. What a candidate costs to
make and to measure is the caller's ``evaluate``; nothing here knows models, tensors or pictures.
"""

from mobilemodel.search.candidate import Candidate, Evaluate, Evaluation, Found, Outcome, paired_drop
from mobilemodel.search.curve import curve_rows, curve_text
from mobilemodel.search.digest import data_sha256
from mobilemodel.search.executors import open_executor
from mobilemodel.search.layer_weights import Effect, balance, search_thoroughly
from mobilemodel.search.quality import search_quality
from mobilemodel.search.recipe import Calibration, Recipe, Searched, Transforms, priced_rules, read_recipe, recipe_text
from mobilemodel.search.size import search_size

__all__ = [
    "Calibration", "Candidate", "Effect", "Evaluate", "Evaluation", "Found", "Outcome", "Recipe", "Searched",
    "Transforms", "balance", "curve_rows", "curve_text", "data_sha256", "open_executor", "paired_drop", "priced_rules",
    "read_recipe", "recipe_text", "search_quality", "search_size", "search_thoroughly",
]  # fmt: skip
