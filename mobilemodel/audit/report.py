"""The conversion report: each tensor once, with what was done to it and what it cost; as text and as JSON."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from mobilemodel.errors import escape

SCHEMA = "mobilemodel.report/1"


@dataclass(frozen=True)
class TensorReport:
    """One tensor of the source and what became of it."""

    name: str
    dims: tuple[int, ...]
    dtype: str
    role: str
    operator: str
    encoding: str
    """``dense``, ``palette``, ``affine``, or ``graph`` for a tensor that stayed inside the graph"""
    bits: int
    """bits of a code or of a stored value"""
    bits_per_weight: float
    """of the stored bytes"""
    stored_bytes: int
    raw_bytes: int
    sqnr_db: float | None
    """None: no error"""
    largest_error: float | None
    """largest |w - w'|; None: bit-identical"""
    decision: str
    """``quantized``, ``kept`` or ``declined``"""
    reason: str


@dataclass(frozen=True)
class Hint:
    """A scheme that would shrink what this one left alone."""

    scheme: str
    predicted_bytes: int


@dataclass(frozen=True)
class Report:
    """What a conversion did. Sizes are bytes."""

    scheme: str
    profile: str
    source_bytes: int
    """raw bytes of all tensors in the source's types"""
    file_bytes: int
    graph_bytes: int
    """stored bytes of the graph"""
    manifest_bytes: int
    """the manifest and the framing: everything that is neither tensor nor graph, labels, mean or report"""
    tensors: tuple[TensorReport, ...]
    baseline_bytes: int | None = None
    """predicted size under --profile baseline; None when this is it"""
    hint: Hint | None = None
    notes: tuple[str, ...] = ()
    written: bool = True
    """False after a dry run"""

    def to_json(self) -> dict[str, Any]:
        """The report as JSON values; keys are those of the dataclasses, sizes are integers."""
        return {"schema": SCHEMA, **asdict(self)}


def report_json(report: Report) -> str:
    """The report as JSON text, keys sorted."""
    return json.dumps(report.to_json(), sort_keys=True, indent=2, ensure_ascii=True)


def stored_report(scheme: str, rows: Sequence[tuple[str, str, str, str]], notes: Sequence[str]) -> bytes:
    """The part of a report that a bundle keeps: name, role, decision and reason of each tensor."""
    tensors = [{"name": n, "role": r, "decision": d, "reason": why} for n, r, d, why in rows]
    content = {"schema": SCHEMA, "scheme": scheme, "tensors": tensors, "notes": list(notes)}
    return json.dumps(content, sort_keys=True, separators=(",", ":"), ensure_ascii=True).encode()


def size_text(size: int) -> str:
    """Bytes for people, in binary units.

    >>> size_text(1536), size_text(12)
    ('1.50 KiB', '12 B')
    """
    value = float(size)
    for unit in ("B", "KiB", "MiB", "GiB"):
        if value < 1024 or unit == "GiB":
            return f"{size} B" if unit == "B" else f"{value:.2f} {unit}"
        value /= 1024
    raise AssertionError


def table(header: Sequence[str], rows: Sequence[Sequence[str]], left: frozenset[int]) -> str:
    """Align columns; those in ``left`` to the left, all others to the right."""
    lines = [list(header), *[list(row) for row in rows]]
    widths = [max(len(line[column]) for line in lines) for column in range(len(header))]
    text = []
    for line in lines:
        cells = [
            cell.ljust(width) if column in left else cell.rjust(width)
            for column, (cell, width) in enumerate(zip(line, widths, strict=True))
        ]
        text.append("  ".join(cells).rstrip())
    return "\n".join(text)


def report_text(report: Report) -> str:
    """The report as a table for people, then totals, notes and the hint."""
    weights = [t for t in report.tensors if t.encoding != "graph"]
    rows = []
    for t in weights:
        sqnr = "exact" if t.largest_error is None else "-" if t.sqnr_db is None else f"{t.sqnr_db:.2f}"
        error = "0" if t.largest_error is None else f"{t.largest_error:.3g}"
        dims = "x".join(map(str, t.dims)) or "scalar"
        rows.append([
            escape(t.name, 60), dims, t.role, f"{t.encoding} {t.bits}", f"{t.bits_per_weight:.3f}",
            f"{t.stored_bytes:,}", sqnr, error, f"{t.decision}: {escape(t.reason)}" if t.reason else t.decision,
        ])  # fmt: skip
    header = ["tensor", "dims", "role", "encoding", "bits/w", "bytes", "SQNR dB", "max error", "decision"]
    text = table(header, rows, frozenset((0, 1, 2, 3, 8)))
    ratio = report.source_bytes / report.file_bytes if report.file_bytes else 0.0
    text += (
        f"\n\ntensors {sum(t.stored_bytes for t in weights):,}, graph {report.graph_bytes:,}, manifest and framing "
        f"{report.manifest_bytes:,} bytes\ntotal {report.file_bytes:,} bytes ({size_text(report.file_bytes)}), "
        f"{ratio:.2f} times smaller than {report.source_bytes:,} bytes of tensors"
    )
    if report.baseline_bytes is not None:
        text += f"\nwith --profile baseline (no zstd) about {report.baseline_bytes:,} bytes"
    return text + "".join(f"\n{line}" for line in _remarks(report))


def _remarks(report: Report) -> list[str]:
    lines = []
    inside = [t for t in report.tensors if t.encoding == "graph"]
    for reason, count in sorted(Counter(t.reason for t in inside).items()):
        size = sum(t.raw_bytes for t in inside if t.reason == reason)
        names = ", ".join(escape(t.name, 40) for t in inside if t.reason == reason)
        shown = names if len(names) <= 100 else names[:100] + "…"
        lines.append(f"in the graph: {count} tensors, {size:,} bytes: {escape(reason)} ({shown})")
    lines += [f"note: {escape(note, 400)}" for note in report.notes]
    if report.hint is not None:
        lines.append(
            f"hint: more than half of this file is weights that '{escape(report.scheme)}' left at 16 bits or more; "
            f"--scheme {report.hint.scheme} would make it about {report.hint.predicted_bytes:,} bytes "
            f"({size_text(report.hint.predicted_bytes)})"
        )
    return lines
