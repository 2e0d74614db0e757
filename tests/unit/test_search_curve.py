"""The curve of a search as text and as JSON."""

from __future__ import annotations

import json
import math

from mobilemodel.search import (
    Candidate,
    Evaluation,
    Found,
    Outcome,
    curve_rows,
    curve_text,
)

SEEN = (
    Evaluation(Candidate(1e-4), Outcome(2_000_000, 0.1, 0.2, 0.004)),
    Evaluation(Candidate(1e-3), Outcome(1_000_000, 0.9, 0.3, 0.03)),
    Evaluation(Candidate(1e-2, {"fc6": 2.0}), Outcome(500_000, 4.0, 0.5, math.inf)),
)


def test_the_curve_as_text() -> None:
    lines = curve_text(Found(SEEN[1], True, SEEN)).splitlines()
    assert lines[:6] == [
        " price      bytes   points lost  KL nats",
        "0.0001  2,000,000  0.10 +- 0.20    0.004",
        " 0.001  1,000,000  0.90 +- 0.30     0.03    chosen",
        "  0.01    500,000  4.00 +- 0.50      inf  1 factor",
        "",
        "3 candidates were evaluated",
    ]
    assert lines[7] == "points of top-1 lost"
    assert lines[8] == "        4 |o"
    assert lines[19] == "      0.1 |" + 48 * " " + "o"
    assert "\n".join(lines).count("*") == 1
    assert lines[-1] == "           500,000" + "2,000,000 bytes".rjust(42)
    assert max(map(len, lines)) <= 60


def test_the_curve_without_labels_shows_the_divergence_and_without_data_nothing() -> None:
    divergences = tuple(Evaluation(e.candidate, Outcome(e.size, divergence=e.price)) for e in SEEN)
    assert "\nKL nats\n" in curve_text(Found(None, False, divergences))
    sizes = tuple(Evaluation(e.candidate, Outcome(e.size)) for e in SEEN)
    assert curve_text(Found(None, False, sizes)).splitlines()[-1] == "3 candidates were evaluated"
    assert "1 candidate was evaluated" in curve_text(Found(None, False, sizes[:1]))


def test_the_curve_as_json() -> None:
    rows = curve_rows(Found(SEEN[1], True, SEEN))
    json.dumps(rows, allow_nan=False)
    assert rows[2] == {
        "price": 0.01, "layer_weights": {"fc6": 2.0}, "file_bytes": 500_000, "drop_points": 4.0, "drop_error": 0.5,
        "divergence_nats": None, "chosen": False,
    }  # fmt: skip
    assert [row["chosen"] for row in rows] == [False, True, False]
