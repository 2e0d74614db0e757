"""The convert command: its options, what they mean together, and what is printed."""

from __future__ import annotations

import argparse
import re
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from mobilemodel.arguments import source_options
from mobilemodel.errors import UsageError

if TYPE_CHECKING:
    from mobilemodel.audit.report import Report
    from mobilemodel.pipeline import ConvertOptions, FittingOptions, Searching
    from mobilemodel.pipeline.options import Progress
    from mobilemodel.pipeline.recipes import Scheme
    from mobilemodel.search import Transforms

_UNITS = {"": 1, "b": 1, "kb": 10**3, "mb": 10**6, "gb": 10**9, "kib": 2**10, "mib": 2**20, "gib": 2**30}
_HELD_OUT, _HELD_OUT_FOR_SIZE = 4, 16
"""one in so many samples judges the candidates of a search; for a size they only tell, and a fit wants many"""


def size_of(text: str) -> int:
    """Bytes of a size as users write it.

    >>> size_of("4MiB"), size_of("1.5 MB"), size_of("900000")
    (4194304, 1500000, 900000)

    Raises argparse.ArgumentTypeError for anything else.
    """
    found = re.fullmatch(r"([0-9]{1,12}(?:\.[0-9]{1,6})?) ?([A-Za-z]{0,3})", text)
    size = int(float(found[1]) * _UNITS.get(found[2].lower(), 0)) if found else 0
    if size < 1:
        raise argparse.ArgumentTypeError(f"expected a size such as 4MiB, 1.5MB or 900000, found {text!r}")
    return size


def convert_command(options: argparse.Namespace, progress: Progress) -> tuple[Report, Searching | None]:
    """Run a conversion, or a search where the options name a goal."""
    from mobilemodel.pipeline import Goal, convert_scheme, convert_within
    from mobilemodel.pipeline.recipes import read_scheme

    limits = (options.target_size, options.max_drop, options.max_divergence)
    searching = any(limit is not None for limit in limits)
    scheme = read_scheme(options.scheme)
    made = _options(options, scheme, searching, progress)
    if not searching:
        if options.save_plan is not None:
            raise UsageError("--save-plan without a search", advice="Give --target-size or --max-drop.")
        return convert_scheme(options.sources, options.out, scheme, made), None
    goal = Goal(*limits, executor=options.executor, width=options.width, thorough=options.search == "thorough")
    plan_file = options.save_plan if options.save_plan is not None else f"{options.out}.toml"
    if not plan_file.endswith(".toml"):
        raise UsageError("--save-plan", file=plan_file, expected="a name that ends in .toml")
    found = convert_within(options.sources, options.out, goal, scheme, made, plan_file)
    return found.report, found


def _options(options: argparse.Namespace, scheme: Scheme, searching: bool, progress: Progress) -> ConvertOptions:
    from mobilemodel.pipeline import ConvertOptions, PreprocessingOptions
    from mobilemodel.pipeline.labels import read_labels

    wanted = PreprocessingOptions(options.mean, options.scale, options.channels, options.resize, options.crop)
    step, mean_picture = wanted.message() if wanted.given else (None, b"")
    return ConvertOptions(
        codec=options.codec, profile=options.profile, force=options.force, dry_run=options.dry_run,
        converter=options.converter, source=source_options(options), preprocessing=step, mean_picture=mean_picture,
        labels=read_labels(options.labels) if options.labels is not None else (), licence=options.licence,
        description=options.description, fitting=_fitting(options, scheme, searching), transforms=_transforms(options),
        progress=progress,
    )  # fmt: skip


def _fitting(options: argparse.Namespace, scheme: Scheme, searching: bool) -> FittingOptions | None:
    """Calibration as a plan's table says, else as the options say."""
    from mobilemodel.pipeline import FittingOptions
    from mobilemodel.runtime.data import read_data
    from mobilemodel.search import data_sha256

    planned = scheme.recipe.calibration
    if options.calibration is None:
        if options.held_out is not None or options.no_mirror:
            raise UsageError("--held-out and --no-mirror are for calibration", advice="Give --calibration DATA.")
        return None
    data, sha256 = read_data(options.calibration), data_sha256(options.calibration)
    if planned is not None:
        planned.check_data(sha256, options.calibration)
        return FittingOptions(data, sha256, planned.held_out, planned.mirror, planned.damping, planned.seed,
                              options.threads)  # fmt: skip
    judged = _HELD_OUT if options.target_size is None or options.search == "thorough" else _HELD_OUT_FOR_SIZE
    held_out = options.held_out if options.held_out is not None else len(data) // judged if searching else 0
    return FittingOptions(data, sha256, held_out, not options.no_mirror, seed=options.seed, threads=options.threads)


def _transforms(options: argparse.Namespace) -> Transforms:
    from mobilemodel.search import Transforms

    low_rank = dict(_amount(text, "--low-rank") for text in options.low_rank)
    sparsity = {name: float(share) for name, share in (_amount(text, "--sparsity") for text in options.sparsity)}
    return Transforms(options.fold, options.remove_duplicates, options.remove_dead, options.order_units,
                      low_rank, sparsity)  # fmt: skip


def _amount(text: str, option: str) -> tuple[str, int | float]:
    pattern, equals, amount = text.rpartition("=")
    if equals and pattern and re.fullmatch(r"[0-9]{1,9}", amount) and int(amount) > 0 and option == "--low-rank":
        return pattern, int(amount)
    if equals and pattern and re.fullmatch(r"0?\.[0-9]{1,9}", amount) and float(amount) > 0:
        return pattern, float(amount)
    expected = "PATTERN=RANK, or PATTERN=SHARE below 1" if option == "--low-rank" else "PATTERN=SHARE below 1"
    raise UsageError(option, expected=expected, found=text)


def report_lines(report: Report, searching: Searching | None) -> str:
    """What is printed for people."""
    from mobilemodel.audit.report import report_text
    from mobilemodel.search import curve_text

    text = report_text(report)
    if searching is None:
        return text
    reached = "" if searching.found.met else f"\nthe goal was not met: {searching.found.reason}"
    bound = searching.found.bound
    lost = "" if bound is None else f"\non other pictures at most {bound:.2f} points are lost, with 95 % confidence"
    return f"{text}\n\n{curve_text(searching.found)}{lost}{reached}"


def report_json(report: Report, searching: Searching | None) -> dict[str, Any]:
    """What is printed as JSON (docs/json.md)."""
    from mobilemodel.search import curve_rows

    content = report.to_json()
    if searching is not None:
        found = searching.found
        content["search"] = {"met": found.met, "reason": found.reason, "bound": found.bound, "curve": curve_rows(found),
                             "plan": searching.plan}  # fmt: skip
    return content


__all__: Sequence[str] = ("convert_command", "report_json", "report_lines", "size_of")
