"""What ``eval`` shows: models side by side, as a table for people and as JSON values."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

from mobilemodel.audit.report import preprocessing_text, table
from mobilemodel.errors import escape
from mobilemodel.runtime.comparison import Beside, Comparison, ModelEvaluation

SCHEMA = "mobilemodel.evaluation/1"
_HEADER = (
    "model", "bytes", "smaller", "top-1 %", "top-5 %", "agree %", "points", "95 % interval", "p", "KL nats",
)  # fmt: skip
_NONE = "-"


def evaluation_text(found: Comparison) -> str:
    """A table with a row for each model; below it, what its columns say of a model beside the first."""
    first = found.models[0]
    rows = [_row(model, first) for model in found.models]
    views = "" if found.views == 1 else f", {found.views} views of each"
    pictures = "1 picture" if found.pictures == 1 else f"{found.pictures:,} pictures"
    lines = [f"{pictures}{views}, {found.classes:,} classes", "", table(_HEADER, rows, frozenset((0,)))]
    if len(found.models) > 1:
        points = "points of top-1 with their paired interval and McNemar's exact p, " if first.top1 is not None else ""
        lines += ["", f"beside the first model: agreement, {points}and KL(first || model)"]
    return "\n".join(lines)


def _row(model: ModelEvaluation, first: ModelEvaluation) -> list[str]:
    smaller = f"{first.stored_bytes / model.stored_bytes:.2f}x"
    shares = [_NONE if share is None else f"{share:.2f}" for share in (model.top1, model.top5)]
    start = [escape(model.name, 1024), f"{model.stored_bytes:,}", smaller, *shares]
    if model.beside is None:
        return start + [_NONE] * (len(_HEADER) - len(start))
    return [*start, f"{model.beside.agreement:.2f}", *_difference_cells(model.beside), _nats(model.beside.divergence)]


def _difference_cells(beside: Beside) -> list[str]:
    top1 = beside.top1
    if top1 is None:
        return [_NONE] * 3
    return [f"{top1.points:+.2f}", f"{top1.low:+.2f} to {top1.high:+.2f}", _probability(top1.p_value)]


def _probability(p_value: float) -> str:
    return f"{p_value:.2g}" if p_value else "<1e-300"


def _nats(divergence: float) -> str:
    return f"{divergence:.3g}" if math.isfinite(divergence) else _NONE


def remarks(found: Comparison) -> Iterator[str]:
    """What a reader of the numbers must know, a line for each."""
    for model in found.models:
        how, name = model.preparation, escape(model.name, 1024)
        if how is not None and how.bundle is not None and how.bundle != model.name:
            yield f"{name}: no preprocessing of its own, so that of {escape(how.bundle, 1024)} is used"
        if model.unusable:
            what = "1 picture's output holds" if model.unusable == 1 else f"{model.unusable:,} pictures' outputs hold"
            yield f"{name}: {what} NaN, or no probabilities as the first ones did: no KL"


def evaluation_json(found: Comparison) -> dict[str, Any]:
    """The comparison as JSON values; an infinite divergence is null."""
    return {
        "schema": SCHEMA,
        "pictures": found.pictures,
        "classes": found.classes,
        "views": found.views,
        "models": [_model_json(model) for model in found.models],
    }


def _model_json(model: ModelEvaluation) -> dict[str, Any]:
    how = model.preparation
    return {
        "model": model.name,
        "file_bytes": model.stored_bytes,
        "top1": model.top1,
        "top5": model.top5,
        "softmaxed": model.softmaxed,
        "unusable": model.unusable,
        "preprocessing": None if how is None else preprocessing_text(how.step),
        "preprocessing_from": None if how is None else how.bundle,
        "beside_first": None if model.beside is None else _beside_json(model.beside),
    }


def _beside_json(beside: Beside) -> dict[str, Any]:
    top1 = beside.top1
    return {
        "agreement": beside.agreement,
        "divergence_nats": beside.divergence if math.isfinite(beside.divergence) else None,
        "top1": None if top1 is None else {
            "points": top1.points, "low": top1.low, "high": top1.high, "p_value": top1.p_value, "lost": top1.lost,
            "gained": top1.gained,
        },
    }  # fmt: skip
