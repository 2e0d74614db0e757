"""A goal -> the plan that reaches it: candidates are converted, judged on held-out samples and thrown away."""

from __future__ import annotations

import math
import os
import secrets
import tempfile
from dataclasses import dataclass, replace
from pathlib import Path

from mobilemodel.audit.report import Report
from mobilemodel.bundle import Bundle
from mobilemodel.errors import UsageError
from mobilemodel.files import OutputFile
from mobilemodel.model import WEIGHT_ROLES
from mobilemodel.pipeline.convert import Paths, Prepared, convert_scheme, refuse_overwriting, source_paths
from mobilemodel.pipeline.judging import judged
from mobilemodel.pipeline.options import DEFAULT_OPTIONS, ConvertOptions, silent
from mobilemodel.pipeline.recipes import CALIBRATED_PRICE, Scheme, read_scheme, scheme_of
from mobilemodel.pipeline.transforming import merged
from mobilemodel.quantize.rules import DEFAULT_PRICE, DEFAULT_SCHEME, LARGEST_PRICE, SMALLEST_PRICE
from mobilemodel.search import Candidate, Evaluation, Found, Outcome, search_quality, search_size, search_thoroughly
from mobilemodel.search.executors import open_executor
from mobilemodel.search.recipe import Calibration, Recipe, Searched, Transforms, recipe_text

SEARCHED = "auto"
"""the scheme that has a price"""
MOST_FACTORS = 12
"""tensors that a thorough search tries a factor for"""


@dataclass(frozen=True)
class Goal:
    """What is asked of a search; exactly one of the three limits is given."""

    target_size: int | None = None
    """bytes of the file, reached within 1 % below"""
    largest_drop: float | None = None
    """points of top-1, on pictures that the search did not see"""
    largest_divergence: float | None = None
    """nats, mean KL(float || bundle) of the outputs"""
    executor: str = "serial"
    width: int = 1
    """candidates that are evaluated side by side; the result depends on it, not on the executor"""
    thorough: bool = False
    """also search a factor on the price of each tensor"""


@dataclass(frozen=True)
class Searching:
    """What a search gave: the report of the bundle, all that was tried, and the plan as TOML."""

    report: Report
    found: Found
    plan: str


@dataclass(frozen=True)
class Trial:
    """Makes and measures a candidate anywhere: it carries all that it needs, and files are found by their paths."""

    source: tuple[str, ...]
    recipe: Recipe
    file: str
    options: ConvertOptions

    def __call__(self, candidate: Candidate) -> Outcome:
        """Convert into a file that is thrown away; the outcome is that file's."""
        found: list[Outcome] = []

        def judge(prepared: Prepared, bundle: Bundle) -> None:
            found.append(judged(prepared, bundle))

        scheme = scheme_of(self.recipe, SEARCHED, self.file).priced(candidate)
        # Nothing appears there: the output of a dry run is never committed.
        out = Path(tempfile.gettempdir(), f"mobilemodel-{secrets.token_hex(8)}.mm")
        convert_scheme(self.source, out, scheme, self.options, judge)
        return found[0]


def convert_within(
    source: Paths, out: str | os.PathLike[str], goal: Goal, scheme: Scheme | str | os.PathLike[str] = DEFAULT_SCHEME,
    options: ConvertOptions = DEFAULT_OPTIONS, plan_file: str | os.PathLike[str] | None = None,
) -> Searching:  # fmt: skip
    """Search the prices that reach a goal, convert with them, and save the plan that gives the same bytes again.

    ``plan_file`` is where the plan goes; None: nowhere. With ``options.dry_run`` nothing is written.

    Raises UsageError for a goal that cannot be, or that wants what the data lack, and what ``convert`` raises.
    """
    scheme = scheme if isinstance(scheme, Scheme) else read_scheme(scheme)
    limits = (goal.target_size, goal.largest_drop, goal.largest_divergence)
    if sum(limit is not None for limit in limits) != 1:
        raise UsageError("the goal of a search", expected="a target size, a largest drop or a largest divergence")
    started_from = scheme.recipe.rules.get("scheme", SEARCHED)
    if started_from != SEARCHED:
        raise UsageError("only the scheme auto has a price to search", found=started_from,
                         advice="Use --scheme auto, or a plan that starts from it.")  # fmt: skip
    fitting = options.fitting
    if goal.target_size is None and fitting is None:
        raise UsageError("a largest drop or divergence needs calibration data", advice="Give --calibration DATA.")
    if goal.target_size is None and fitting is not None and not fitting.held_out:
        raise UsageError("a largest drop or divergence needs samples to judge on", advice="Give --held-out N.")
    if goal.largest_drop is not None and fitting is not None and fitting.data.classes is None:
        raise UsageError("a largest drop needs data with classes", file=fitting.data.file,
                         advice="Give --max-divergence instead: it does without.")  # fmt: skip
    paths = tuple(str(path) for path in source_paths(source))
    _check_outputs(source_paths(source), out, plan_file, options)
    quiet = replace(options, dry_run=True, force=False, progress=silent)
    # The name that the saved plan will give its bundle: the same bytes.
    trial = Trial(paths, scheme.recipe, scheme.file, quiet)
    found = _search(trial, goal, _first_price(trial, goal))
    if found.chosen is None:
        raise UsageError(f"the goal cannot be reached: {found.reason}")
    chosen = scheme_of(trial.recipe, SEARCHED, trial.file).priced(found.chosen.candidate)
    report = convert_scheme(source, out, chosen, options)
    text = recipe_text(_recipe(chosen, goal, found, options))
    if plan_file is not None and not options.dry_run:
        with OutputFile(plan_file, force=options.force) as output:
            output.file.write(text.encode())
            output.commit()
    return Searching(report, found, text)


def _check_outputs(
    sources: list[Path], out: str | os.PathLike[str], plan_file: str | os.PathLike[str] | None, options: ConvertOptions
) -> None:
    """What cannot be written is refused before hours of work."""
    refuse_overwriting(sources, Path(out))
    with OutputFile(out, force=options.force or options.dry_run):
        pass
    if plan_file is None or options.dry_run:
        return
    refuse_overwriting(sources, Path(plan_file))
    if os.path.abspath(plan_file) == os.path.abspath(out):
        raise UsageError("the plan and the bundle are to be one file", file=os.fspath(out))
    with OutputFile(plan_file, force=options.force):
        pass


def _search(trial: Trial, goal: Goal, first: float) -> Found:
    with open_executor(goal.executor) as executor:
        if goal.target_size is not None:
            target = goal.target_size
            found = search_size(trial, target, first_price=first, width=goal.width, executor=executor)
        else:
            found = search_quality(
                trial, largest_drop=goal.largest_drop, largest_divergence=goal.largest_divergence, first_price=first,
                width=goal.width, executor=executor,
            )  # fmt: skip
        if not goal.thorough or found.chosen is None:
            return found
        target = goal.target_size or found.chosen.size
        return search_thoroughly(trial, found.chosen, target, _heavy(found.chosen), executor=executor)


def _heavy(evaluation: Evaluation) -> list[str]:
    """The tensors that a factor on the price could do something for: those with a hundredth of the file and more."""
    sizes = evaluation.outcome.tensor_bytes
    heavy = [name for name, size in sizes.items() if 100 * size >= evaluation.size]
    return sorted(heavy, key=lambda name: (-sizes[name], name))[:MOST_FACTORS]


def _first_price(trial: Trial, goal: Goal) -> float:
    """A guess: what a network of usual redundancy needs for the target's bits for each weight.

    With data the bits at the usual price fall with the root of the number of weights, as the zoo's networks have it.
    """
    calibrated = trial.options.fitting is not None
    usual = CALIBRATED_PRICE if calibrated else DEFAULT_PRICE
    weights = _weights(trial) if goal.target_size is not None else 0
    if not weights:
        return usual
    bits, power = (1.75 * math.sqrt(1e6 / weights), 2.7) if calibrated else (1.4, 1.6)
    guess: float = usual * (bits * weights / (8 * max(goal.target_size or 0, 1))) ** power
    return min(max(guess, SMALLEST_PRICE), LARGEST_PRICE)


def _weights(trial: Trial) -> int:
    from mobilemodel_converters import load_model

    model = load_model([Path(path) for path in trial.source], trial.options.converter, trial.options.source)
    try:
        return sum(tensor.elements for tensor in model.tensors if tensor.role in WEIGHT_ROLES)
    finally:
        model.close()


def _recipe(scheme: Scheme, goal: Goal, found: Found, options: ConvertOptions) -> Recipe:
    assert found.chosen is not None
    outcome = found.chosen.outcome
    searched = Searched(
        goal.target_size, goal.largest_drop, goal.largest_divergence, len(found.evaluations), outcome.size,
        outcome.drop, outcome.drop_error, found.bound, outcome.divergence,
    )  # fmt: skip
    fitting = options.fitting
    calibration = None if fitting is None else Calibration(
        len(fitting.data) - fitting.held_out, fitting.held_out, fitting.mirror, fitting.damping, fitting.seed,
        fitting.sha256,
    )  # fmt: skip
    transforms: Transforms = merged(scheme.recipe.transforms, options.transforms)
    return replace(scheme.recipe, calibration=calibration, transforms=transforms, searched=searched)
