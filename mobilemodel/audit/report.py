"""The conversion report: each tensor once, with what was done to it and what it cost; as text and as JSON."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from mobilemodel.errors import escape
from mobilemodel.v1 import bundle_pb2 as pb

if TYPE_CHECKING:
    from google.protobuf.internal.enum_type_wrapper import EnumTypeWrapper

SCHEMA = "mobilemodel.report/1"
STORED_SCHEMA = "mobilemodel.decisions/1"
_LONGEST_NAME = 40
"""columns that a table gives to names; a longer one stands on a line of its own"""


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
    response_db: float | None = None
    """SQNR of the layer's response on calibration data; None: not calibrated, or no error"""


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
    other_bytes: int
    """stored bytes of labels, mean pictures and the report that the bundle keeps"""
    manifest_bytes: int
    """the manifest and the framing: everything that is neither tensor nor graph, labels, mean or report"""
    tensors: tuple[TensorReport, ...]
    baseline_bytes: int | None = None
    """predicted size under --profile baseline; None when this is it"""
    hint: Hint | None = None
    notes: tuple[str, ...] = ()
    preprocessing: tuple[str, ...] = ()
    """what the bundle keeps of each input's preprocessing, in words"""
    labels: int = 0
    """number of class names in the bundle"""
    written: bool = True
    """False after a dry run"""

    def to_json(self) -> dict[str, Any]:
        """The report as JSON values; keys are those of the dataclasses, sizes are integers."""
        return {"schema": SCHEMA, **asdict(self)}


def report_json(report: Report) -> str:
    """The report as JSON text, keys sorted."""
    return json.dumps(report.to_json(), sort_keys=True, indent=2, ensure_ascii=True, allow_nan=False)


def stored_report(scheme: str, rows: Sequence[tuple[str, str, str, str]], notes: Sequence[str]) -> bytes:
    """The part of a report that a bundle keeps: name, role, decision and reason of each tensor."""
    tensors = [{"name": n, "role": r, "decision": d, "reason": why} for n, r, d, why in rows]
    content = {"schema": STORED_SCHEMA, "scheme": scheme, "tensors": tensors, "notes": list(notes)}
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
    """Align columns; those in ``left`` to the left, all others to the right.

    A long name in the first column stands on a line of its own, so that it is complete and the rest stays aligned.
    """
    lines: list[list[str]] = [list(header)]
    alone: dict[int, str] = {}
    for name, *cells in rows:
        if len(name) > _LONGEST_NAME:
            alone[len(lines)], name = name, ""
        lines.append([name, *cells])
    widths = [max(len(line[column]) for line in lines) for column in range(len(header))]
    text = []
    for index, line in enumerate(lines):
        cells = [
            cell.ljust(width) if column in left else cell.rjust(width)
            for column, (cell, width) in enumerate(zip(line, widths, strict=True))
        ]
        text += [alone[index]] if index in alone else []
        text.append("  ".join(cells).rstrip())
    return "\n".join(text)


def report_text(report: Report) -> str:
    """The report as a table for people, then totals, notes and the hint."""
    stored = [t for t in report.tensors if t.encoding != "graph"]
    rows = []
    for t in stored:
        sqnr = "exact" if t.largest_error is None else "-" if t.sqnr_db is None else f"{t.sqnr_db:.2f}"
        error = "0" if t.largest_error is None else f"{t.largest_error:.3g}"
        dims = "x".join(map(str, t.dims)) or "scalar"
        rows.append([
            escape(t.name, 1024), dims, t.role, f"{t.encoding} {t.bits}", f"{t.bits_per_weight:.3f}",
            f"{t.stored_bytes:,}", sqnr, error, f"{t.decision}: {escape(t.reason)}" if t.reason else t.decision,
        ])  # fmt: skip
    header = ["tensor", "dims", "role", "encoding", "bits/w", "bytes", "SQNR dB", "max error", "decision"]
    text = table(header, rows, frozenset((0, 1, 2, 3, 8)))
    ratio = report.source_bytes / report.file_bytes
    text += (
        f"\n\ntensors {sum(t.stored_bytes for t in stored):,}, graph {report.graph_bytes:,}, labels, mean and report "
        f"{report.other_bytes:,}, manifest and framing {report.manifest_bytes:,} bytes\n"
        f"total {report.file_bytes:,} bytes ({size_text(report.file_bytes)}), "
        f"{_ratio_text(ratio)} {report.source_bytes:,} bytes of tensors"
    )
    if report.baseline_bytes is not None:
        text += f"\nwith --profile baseline (no zstd) about {report.baseline_bytes:,} bytes"
    return text + "".join(f"\n{line}" for line in _remarks(report))


def _ratio_text(ratio: float) -> str:
    return f"{ratio:.2f} times smaller than" if ratio >= 1 else "larger than"


def preprocessing_text(step: pb.Preprocessing) -> str:
    """A preprocessing step in one line, in the order in which it happens; numbers that this version does not know
    stay numbers."""
    parts = []
    if step.HasField("resize"):
        mode = _enum_name(pb.Resize.Mode, step.resize.mode, "MODE_")
        kernel = _enum_name(pb.Resize.Kernel, step.resize.kernel, "KERNEL_")
        antialias = " antialias" if step.resize.antialias else ""
        parts.append(f"resize {mode} {step.resize.height}x{step.resize.width} {kernel}{antialias}")
    if step.crop_height:
        parts.append(f"crop {step.crop_height}x{step.crop_width}")
    if step.colour_order:
        parts.append(_enum_name(pb.ColourOrder, step.colour_order, "COLOUR_ORDER_"))
    if step.mean:
        parts.append("minus " + ", ".join(f"{value:g}" for value in step.mean))
    if step.HasField("mean_picture"):
        parts.append(f"minus a picture of {step.mean_picture.height}x{step.mean_picture.width}")
    if step.scale:
        parts.append("times " + ", ".join(f"{value:g}" for value in step.scale))
    parts.append(_enum_name(pb.Layout, step.layout or pb.LAYOUT_NCHW, "LAYOUT_").upper())
    return "; ".join(parts)


def _enum_name(kind: EnumTypeWrapper, number: int, prefix: str) -> str:
    known = kind.DESCRIPTOR.values_by_number.get(number)
    return known.name.removeprefix(prefix).lower() if known is not None else f"number {number}"


def _remarks(report: Report) -> list[str]:
    lines = [f"preprocessing of {escape(text, 400)}" for text in report.preprocessing]
    if report.labels:
        lines.append(f"labels: {report.labels}")
    inside = [t for t in report.tensors if t.encoding == "graph"]
    for reason, count in sorted(Counter(t.reason for t in inside).items()):
        size = sum(t.raw_bytes for t in inside if t.reason == reason)
        names = ", ".join(escape(t.name, 40) for t in inside if t.reason == reason)
        shown = names if len(names) <= 100 else names[:100] + "…"
        what = "1 tensor" if count == 1 else f"{count} tensors"
        lines.append(f"in the graph: {what}, {size:,} bytes: {escape(reason)} ({shown})")
    lines += [f"note: {escape(note, 400)}" for note in report.notes]
    if report.hint is not None:
        lines.append(
            f"hint: more than half of this file is weights that '{escape(report.scheme)}' left at 16 bits or more; "
            f"--scheme {report.hint.scheme} would make it about {report.hint.predicted_bytes:,} bytes "
            f"({size_text(report.hint.predicted_bytes)})"
        )
    return lines
