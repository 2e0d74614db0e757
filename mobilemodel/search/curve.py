"""What a search saw, as a table with a simple chart for people and as JSON values."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

from mobilemodel.search.candidate import Evaluation, Found

_WIDTH, _HEIGHT = 60, 12
_LABEL = 9
"""columns for the numbers beside the chart"""
_HEADER = ("price", "bytes", "points lost", "KL nats", "")


def curve_rows(found: Found) -> list[dict[str, Any]]:
    """Each evaluation as JSON values, by rising price; what was not measured, or is infinite, is null."""
    return [
        {
            "price": e.price,
            "layer_weights": dict(sorted(e.candidate.layer_weights.items())),
            "file_bytes": e.size,
            "drop_points": e.outcome.drop,
            "drop_error": e.outcome.drop_error,
            "divergence_nats": _finite(e.outcome.divergence),
            "chosen": e == found.chosen,
        }
        for e in found.evaluations
    ]


def curve_text(found: Found) -> str:
    """A table with a row for each evaluation, the largest file first, and a chart of the loss over the size."""
    lines = [_HEADER, *(_cells(e, found) for e in sorted(found.evaluations, key=lambda e: (-e.size, e.price)))]
    widths = [max(len(line[column]) for line in lines) for column in range(len(_HEADER))]
    table = ["  ".join(cell.rjust(width) for cell, width in zip(line, widths, strict=True)).rstrip() for line in lines]
    count = len(found.evaluations)
    tried = "1 candidate was evaluated" if count == 1 else f"{count} candidates were evaluated"
    chart = _chart(found)
    return "\n".join([*table, "", tried, *([""] if chart else []), *chart])


def _cells(evaluation: Evaluation, found: Found) -> tuple[str, ...]:
    outcome = evaluation.outcome
    lost = "-" if outcome.drop is None else f"{outcome.drop:.2f}"
    lost += f" +- {outcome.drop_error:.2f}" if outcome.drop_error is not None else ""
    nats = "-" if outcome.divergence is None else f"{outcome.divergence:.3g}"
    factors = len(evaluation.candidate.layer_weights)
    notes = ["chosen"] if evaluation == found.chosen else []
    notes += [f"{factors} factor{'s' if factors > 1 else ''}"] if factors else []
    return (f"{evaluation.price:.4g}", f"{evaluation.size:,}", lost, nats, ", ".join(notes))


def _chart(found: Found) -> list[str]:
    """``o`` for each evaluation, ``*`` for the chosen one: the loss upwards, the log of the size to the right."""
    measures: list[tuple[str, Callable[[Evaluation], float | None]]] = [
        ("points of top-1 lost", lambda e: e.outcome.drop), ("KL nats", lambda e: _finite(e.outcome.divergence)),
    ]  # fmt: skip
    for title, measure in measures:
        points = [(e, value) for e in found.evaluations if (value := measure(e)) is not None]
        sizes = {e.size for e, _ in points}
        if len(sizes) > 1:
            return [title, *_plot(points, found.chosen)]
    return []


def _plot(points: Sequence[tuple[Evaluation, float]], chosen: Evaluation | None) -> list[str]:
    columns = _WIDTH - _LABEL - 2
    sizes, values = [math.log(e.size) for e, _ in points], [value for _, value in points]
    grid = [[" "] * columns for _ in range(_HEIGHT)]
    for evaluation, value in sorted(points, key=lambda point: point[0] == chosen):
        column = _place(math.log(evaluation.size), min(sizes), max(sizes), columns)
        row = _HEIGHT - 1 - _place(value, min(values), max(values), _HEIGHT)
        grid[row][column] = "*" if evaluation == chosen else "o"
    labels = {0: f"{max(values):.3g}", _HEIGHT - 1: f"{min(values):.3g}"}
    rows = [f"{labels.get(row, ''):>{_LABEL}} |{''.join(cells)}".rstrip() for row, cells in enumerate(grid)]
    low, high = f"{min(e.size for e, _ in points):,}", f"{max(e.size for e, _ in points):,} bytes"
    return [*rows, " " * _LABEL + " +" + "-" * columns, " " * (_LABEL + 2) + low + high.rjust(columns - len(low))]


def _place(value: float, low: float, high: float, cells: int) -> int:
    return round((value - low) / (high - low) * (cells - 1)) if high > low else 0


def _finite(value: float | None) -> float | None:
    return None if value is None or not math.isfinite(value) else value
