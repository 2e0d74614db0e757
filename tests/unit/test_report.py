"""The conversion report as text and as JSON."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from mobilemodel.audit.report import (
    Hint,
    Report,
    TensorReport,
    preprocessing_text,
    report_json,
    report_text,
    size_text,
    stored_report,
    table,
)
from mobilemodel.v1 import bundle_pb2 as pb

ROW = TensorReport(
    name="fc.w", dims=(10, 20), dtype="float32", role="fc", operator="Gemm", encoding="palette", bits=4,
    bits_per_weight=3.9, stored_bytes=98, raw_bytes=800, sqnr_db=20.5, largest_error=0.25, decision="quantized",
    reason="palette of 16",
)  # fmt: skip
REPORT = Report(
    scheme="mixed-4-8", profile="full", source_bytes=800, file_bytes=400, graph_bytes=100, other_bytes=0,
    manifest_bytes=202,
    tensors=(ROW,),
)  # fmt: skip


def line_of(text: str, name: str) -> list[str]:
    (line,) = [line for line in text.splitlines() if line.startswith(f"{name} ")]
    return line.split()


def test_each_tensor_once_with_what_was_done() -> None:
    text = report_text(REPORT)
    assert " ".join(line_of(text, "fc.w")) == "fc.w 10x20 fc palette 4 3.900 98 20.50 0.25 quantized: palette of 16"
    assert "2.00 times smaller than 800 bytes" in text


def test_an_exact_tensor_says_so() -> None:
    exact = replace(ROW, sqnr_db=None, largest_error=None, decision="kept", reason="", encoding="dense", bits=32)
    assert line_of(report_text(replace(REPORT, tensors=(exact,))), "fc.w")[-3:] == ["exact", "0", "kept"]


def test_an_error_without_signal_has_no_ratio() -> None:
    assert line_of(report_text(replace(REPORT, tensors=(replace(ROW, sqnr_db=None),))), "fc.w")[7] == "-"


def test_a_bundle_that_grew_does_not_claim_to_be_smaller() -> None:
    text = report_text(replace(REPORT, file_bytes=801))
    assert "larger than 800 bytes" in text
    assert "smaller" not in text


def test_what_stayed_in_the_graph_is_summed_up_by_reason() -> None:
    inside = replace(ROW, encoding="graph", stored_bytes=0, raw_bytes=8, reason="int64 values stay in the graph")
    other = replace(inside, name="k", reason="used as a size")
    rows = (ROW, replace(inside, name="shape"), replace(inside, name="axes"), other)
    text = report_text(replace(REPORT, tensors=rows))
    assert "in the graph: 2 tensors, 16 bytes: int64 values stay in the graph (shape, axes)" in text
    assert "in the graph: 1 tensor, 8 bytes: used as a size (k)" in text


def test_remarks() -> None:
    text = report_text(replace(
        REPORT, baseline_bytes=410, hint=Hint("palette-8", 123), notes=("a note",), labels=10,
        preprocessing=("x: grey",),
    ))  # fmt: skip
    assert "--profile baseline (no zstd) about 410 bytes" in text
    assert "hint:" in text
    assert "--scheme palette-8 would make it about 123 bytes" in text
    assert "note: a note" in text
    assert "preprocessing of x: grey" in text
    assert "labels: 10" in text


def test_nothing_printed_moves_a_terminal() -> None:
    evil = "\x1b[2J\n\u202e"
    rows = (replace(ROW, name=evil, reason=evil), replace(ROW, name=evil + "2", encoding="graph", reason=evil))
    hint = Hint("fp16", 1)
    text = report_text(replace(REPORT, tensors=rows, notes=(evil,), scheme=evil, hint=hint, preprocessing=(evil,)))
    assert all(character.isprintable() or character == "\n" for character in text)


def test_json_is_whole_and_strict() -> None:
    content = json.loads(report_json(replace(REPORT, hint=Hint("fp16", 1))))
    assert content["schema"] == "mobilemodel.report/1"
    assert content["hint"] == {"scheme": "fp16", "predicted_bytes": 1}
    assert content["tensors"][0]["dims"] == [10, 20]
    assert report_json(REPORT).isascii()
    with pytest.raises(ValueError, match="JSON compliant"):
        report_json(replace(REPORT, tensors=(replace(ROW, largest_error=float("nan")),)))


def test_the_stored_report_is_the_same_bytes_every_time() -> None:
    rows = [("a", "fc", "kept", "")]
    assert stored_report("fp16", rows, ["n"]) == (
        b'{"notes":["n"],"schema":"mobilemodel.decisions/1","scheme":"fp16","tensors":'
        b'[{"decision":"kept","name":"a","reason":"","role":"fc"}]}'
    )


def test_a_long_name_has_a_line_of_its_own_and_the_columns_stay() -> None:
    long = "model.layers.0.self_attn.q_proj.weight_transposed_quantized"
    text = table(("name", "bytes"), [("short", "1"), (long, "22")], frozenset((0,)))
    assert text.splitlines() == ["name   bytes", "short      1", long, "          22"]


@pytest.mark.parametrize(
    ("size", "text"),
    [(0, "0 B"), (1023, "1023 B"), (1024, "1.00 KiB"), (2**20, "1.00 MiB"), (5 * 2**40, "5120.00 GiB")],
)
def test_sizes(size: int, text: str) -> None:
    assert size_text(size) == text


def test_preprocessing_in_words() -> None:
    step = pb.Preprocessing(crop_height=8, crop_width=9, colour_order=pb.COLOUR_ORDER_BGR, mean=[1, 2.5, 3])
    step.scale.append(0.5)
    step.resize.mode, step.resize.height, step.resize.width = pb.Resize.MODE_FIT, 10, 11
    step.resize.antialias = True
    expected = "resize fit 10x11 nearest antialias; crop 8x9; bgr; minus 1, 2.5, 3; times 0.5; NCHW"
    assert preprocessing_text(step) == expected


def test_preprocessing_of_a_later_version() -> None:
    """spec/preprocessing.md §8: a value that 1.0 does not name opens, and is shown as it is."""
    step = pb.Preprocessing.FromString(bytes([0x28, 77, 0x48, 78, 0x12, 4, 0x08, 79, 0x20, 80]))
    assert preprocessing_text(step) == "resize number 79 0x0 number 80; number 77; NUMBER 78"
