"""convert() and verify(): what they promise to a caller."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

import mobilemodel as mm
from mobilemodel.bundle import Bundle
from mobilemodel.errors import (
    CheckFailedError,
    LimitExceededError,
    MalformedContentError,
    OutputExistsError,
    UsageError,
)
from mobilemodel.pipeline import convert as convert_function
from mobilemodel.pipeline import oversize as oversize_module
from mobilemodel.pipeline import source_formats, verify
from mobilemodel.quantize.apply import Outcome, encode_tensor
from mobilemodel.v1 import bundle_pb2 as pb

# The functions hide the modules of the same names.
convert_module = sys.modules["mobilemodel.pipeline.convert"]
conversion_module = sys.modules["mobilemodel.pipeline.conversion"]
verify_module = sys.modules["mobilemodel.pipeline.verify"]
ROOT = Path(__file__).resolve().parents[2]
DIGITS = ROOT / "examples" / "digits" / "model.onnx"
BundleMaker = Callable[..., bytes]


def gemm_model(path: Path, weights: dict[str, np.ndarray[Any, Any]], nodes: list[onnx.NodeProto] | None = None) -> Path:
    """x (N x 64) times ``w`` (64 x 32), or other nodes."""
    nodes = nodes or [helper.make_node("MatMul", ["x", "w"], ["y"])]
    graph = helper.make_graph(
        nodes, "g", [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", 64])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
        [numpy_helper.from_array(value, name) for name, value in weights.items()],
    )  # fmt: skip
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    path.write_bytes(model.SerializeToString())
    return path


@pytest.fixture
def weights() -> dict[str, np.ndarray[Any, Any]]:
    return {"w": np.random.default_rng(1).normal(0, 1, (64, 32)).astype(np.float32)}


def test_the_face_of_the_package_is_the_pipeline(tmp_path: Path) -> None:
    assert mm.convert is convert_function
    assert mm.verify is verify
    report = mm.convert(str(DIGITS), tmp_path / "out.mm", scheme="fp16")
    assert report.file_bytes == (tmp_path / "out.mm").stat().st_size
    assert report.written
    with pytest.raises(AttributeError):
        _ = mm.no_such_name


def test_sources_may_be_one_path_or_several(tmp_path: Path) -> None:
    mm.convert([DIGITS], tmp_path / "a.mm", scheme="fp16")
    with pytest.raises(UsageError, match="no source"):
        mm.convert([], tmp_path / "b.mm")
    with pytest.raises(UsageError):
        mm.convert([DIGITS, DIGITS], tmp_path / "b.mm")
    with pytest.raises(OutputExistsError):
        mm.convert(DIGITS, tmp_path / "a.mm")


def test_the_report_adds_up(tmp_path: Path) -> None:
    report = mm.convert(DIGITS, tmp_path / "out.mm")
    with mm.open(tmp_path / "out.mm") as bundle:
        assert {row.name for row in report.tensors} == set(bundle)
        assert bundle.report() is not None
        for row in report.tensors:
            assert row.stored_bytes == bundle[row.name].stored_bytes
        assert bundle.manifest.scheme == report.scheme == "auto"
        payloads = sum(entry.stored_size for entry in bundle.manifest.payloads)
    assert report.manifest_bytes == report.file_bytes - payloads
    order = [row.name for row in report.tensors if row.role != "other"]
    assert order == ["conv1.weight", "conv2.weight", "fc6.weight", "fc7.weight", "fc8.weight"]


def test_no_folder_time_or_user_gets_into_a_bundle(tmp_path: Path) -> None:
    folder = tmp_path / "secret-folder"
    folder.mkdir()
    (folder / "net.onnx").write_bytes(DIGITS.read_bytes())
    mm.convert(folder / "net.onnx", tmp_path / "a.mm", scheme="fp16")
    content = (tmp_path / "a.mm").read_bytes()
    assert b"secret-folder" not in content
    assert b"net.onnx" in content


def test_an_encoder_that_errs_is_found_before_the_output_appears(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """convert reads its own output back: a decoded tensor must be what the encoder meant."""

    def err(*arguments: Any) -> Outcome:
        return replace(encode_tensor(*arguments), crc32=1)

    monkeypatch.setattr(conversion_module, "encode_tensor", err)
    with pytest.raises(CheckFailedError, match=r"conv1\.bias.*differs"):
        mm.convert(DIGITS, tmp_path / "out.mm")
    assert os.listdir(tmp_path) == []


def test_the_hint_names_a_scheme_and_its_size(tmp_path: Path) -> None:
    report = mm.convert(DIGITS, tmp_path / "half.mm", scheme="fp16")
    assert report.hint is not None
    after = mm.convert(DIGITS, tmp_path / "palette.mm", scheme=report.hint.scheme)
    assert report.hint.predicted_bytes == pytest.approx(after.file_bytes, rel=0.1)
    assert mm.convert(DIGITS, tmp_path / "mixed.mm").hint is None
    assert mm.convert(DIGITS, tmp_path / "lossless.mm", scheme="lossless").hint is not None


def test_what_does_not_fit_is_refused_before_writing_with_the_predicted_size(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    smaller = replace(mm.Limits(), file=100_000)
    monkeypatch.setattr(oversize_module, "FORMAT_LIMITS", smaller)
    monkeypatch.setattr(convert_module, "BundleWriter", _writes_nothing(convert_module.BundleWriter))
    with pytest.raises(LimitExceededError, match=r"too large.*at most 100,000 bytes, found about 2\d\d,\d\d\d"):
        mm.convert(DIGITS, tmp_path / "out.mm", scheme="lossless")
    assert os.listdir(tmp_path) == []


def _writes_nothing(kind: Any) -> Any:
    class Writer(kind):  # type: ignore[misc]
        def add(self, raw: bytes | memoryview) -> int:
            raise AssertionError("a payload was written")

    return Writer


def test_what_is_predicted_to_fit_is_tried(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(oversize_module, "FORMAT_LIMITS", replace(mm.Limits(), file=100_000))
    assert mm.convert(DIGITS, tmp_path / "out.mm", scheme="palette-4").file_bytes < 100_000


def test_options_that_contradict_each_other() -> None:
    for codec, profile in (("gzip", "full"), ("auto", "thin"), ("zstd", "baseline")):
        with pytest.raises(UsageError):
            _ = mm.ConvertOptions(codec=codec, profile=profile).baseline
    assert mm.ConvertOptions(codec="png").baseline
    assert not mm.ConvertOptions(codec="zstd").baseline


def test_progress_goes_from_reading_to_comparing(tmp_path: Path) -> None:
    seen: list[tuple[str, int, int]] = []
    options = mm.ConvertOptions(progress=lambda *step: seen.append(step))
    mm.convert(DIGITS, tmp_path / "out.mm", options=options)
    kinds = list(dict.fromkeys(what.split()[0] for what, _, _ in seen))
    assert kinds == ["reading", "encoding", "writing", "comparing"]
    assert all(0 <= done <= total for _, done, total in seen)
    encoding = [done for what, done, _ in seen if what.startswith("encoding")]
    assert encoding == sorted(encoding)


def test_labels_of_an_api_caller_come_back(tmp_path: Path) -> None:
    labels = ("zero", "größe", "")
    mm.convert(DIGITS, tmp_path / "out.mm", options=mm.ConvertOptions(labels=labels))
    with mm.open(tmp_path / "out.mm") as bundle:
        assert bundle.labels() == labels
    with pytest.raises(UsageError, match="label 0"):
        mm.convert(DIGITS, tmp_path / "b.mm", options=mm.ConvertOptions(labels=("two\nlines",)))


def test_the_plan_says_what_matched_nothing(tmp_path: Path) -> None:
    plan = tmp_path / "plan.toml"
    plan.write_text('scheme = "fp16"\n[operator.LSTM]\nencoding = "lossless"\n')
    report = mm.convert(DIGITS, tmp_path / "out.mm", scheme=plan)
    assert any("operator.LSTM matches no tensor" in note for note in report.notes)


# verify


def converted(source: Path, folder: Path, scheme: str) -> Bundle:
    out = folder / f"{scheme}.mm"
    mm.convert(source, out, scheme=scheme)
    return mm.open(out)


@pytest.mark.parametrize("scheme", ["lossless", "fp16", "int8", "palette-4"])
def test_verify_against_the_source(scheme: str, tmp_path: Path, weights: dict[str, np.ndarray[Any, Any]]) -> None:
    source = gemm_model(tmp_path / "a.onnx", weights)
    with converted(source, tmp_path, scheme) as bundle:
        found = verify(bundle, [source])
        assert found.lossless is (scheme == "lossless")
        assert [check.name for check in found.checks] == ["w"]
        assert found.outputs_skipped == ""
        assert found.outputs[0].identical is (scheme == "lossless")
        alone = verify(bundle)
        assert (alone.lossless, alone.checks, alone.outputs) == (None, (), ())
        assert len(alone.made) == 3


def alter_encoded(monkeypatch: pytest.MonkeyPatch, change: Callable[[pb.Tensor], None]) -> None:
    """What a convert that lies would write: each tensor is changed after it was encoded."""

    def encode(writer: Any, out: pb.Tensor, *rest: Any) -> Outcome:
        outcome = encode_tensor(writer, out, *rest)
        change(out)
        return outcome

    monkeypatch.setattr(conversion_module, "encode_tensor", encode)


def test_verify_finds_a_loss_that_is_not_the_one_recorded(
    tmp_path: Path, weights: dict[str, np.ndarray[Any, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    source = gemm_model(tmp_path / "a.onnx", weights)

    def boast(out: pb.Tensor) -> None:
        out.loss.sqnr_millidb += 20

    alter_encoded(monkeypatch, boast)
    with converted(source, tmp_path, "palette-4") as bundle, pytest.raises(CheckFailedError, match="recorded loss"):
        verify(bundle, [source])


def test_verify_finds_a_loss_that_is_not_recorded(
    tmp_path: Path, weights: dict[str, np.ndarray[Any, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    source = gemm_model(tmp_path / "a.onnx", weights)

    def conceal(out: pb.Tensor) -> None:
        out.ClearField("loss")

    alter_encoded(monkeypatch, conceal)
    with converted(source, tmp_path, "fp16") as bundle, pytest.raises(CheckFailedError, match="not bit-identical"):
        verify(bundle, [source])


def test_verify_notices_tensors_on_one_side_alone(tmp_path: Path, weights: dict[str, np.ndarray[Any, Any]]) -> None:
    one = gemm_model(tmp_path / "one.onnx", weights)
    nodes = [helper.make_node("MatMul", ["x", "w"], ["h"]), helper.make_node("Add", ["h", "b"], ["y"])]
    two = gemm_model(tmp_path / "two.onnx", weights | {"b": np.ones(32, np.float32)}, nodes)
    with converted(one, tmp_path, "fp16") as bundle, pytest.raises(CheckFailedError, match=r"'b'.*bundle lacks"):
        verify(bundle, [two])
    with converted(two, tmp_path, "int8") as bundle, pytest.raises(CheckFailedError, match=r"'b'.*source lacks"):
        verify(bundle, [one])


def test_verify_notices_another_graph_around_the_same_tensors(
    tmp_path: Path, weights: dict[str, np.ndarray[Any, Any]]
) -> None:
    plain = gemm_model(tmp_path / "plain.onnx", weights)
    nodes = [helper.make_node("MatMul", ["x", "w"], ["h"]), helper.make_node("Neg", ["h"], ["y"])]
    negated = gemm_model(tmp_path / "negated.onnx", weights, nodes)
    with converted(plain, tmp_path, "lossless") as bundle, pytest.raises(CheckFailedError, match="is another one"):
        verify(bundle, [negated])


def test_verify_says_why_outputs_were_not_compared(tmp_path: Path, weights: dict[str, np.ndarray[Any, Any]]) -> None:
    nodes = [helper.make_node("MatMul", ["x", "w"], ["h"]), helper.make_node("Mystery", ["h"], ["y"], domain="my.own")]
    source = gemm_model(tmp_path / "custom.onnx", weights, nodes)
    model = onnx.load(source)
    model.opset_import.add(domain="my.own", version=1)
    onnx.save(model, source)
    with converted(source, tmp_path, "fp16") as bundle:
        found = verify(bundle, [source])
        assert "Mystery" in found.outputs_skipped
        assert found.outputs == ()
        assert len(found.checks) == 1
        with pytest.raises(CheckFailedError, match="could not be compared"):
            verify(bundle, [source], tolerance=0.1)


def test_verify_does_not_blame_a_model_that_rolls_dice(
    tmp_path: Path, weights: dict[str, np.ndarray[Any, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    source = gemm_model(tmp_path / "dice.onnx", weights)
    dice = np.random.default_rng()
    monkeypatch.setattr(verify_module, "run", lambda *_: {"y": dice.normal(size=3)})
    with converted(source, tmp_path, "lossless") as bundle:
        assert "other outputs each time" in verify(bundle, [source]).outputs_skipped


def test_verify_wants_a_source_for_a_tolerance(tmp_path: Path, weights: dict[str, np.ndarray[Any, Any]]) -> None:
    source = gemm_model(tmp_path / "a.onnx", weights)
    with converted(source, tmp_path, "fp16") as bundle, pytest.raises(UsageError, match="--against"):
        verify(bundle, tolerance=0.1)


def test_verify_checks_dims_of_the_graphs_references(make_bundle: BundleMaker) -> None:
    graph = helper.make_graph(
        [helper.make_node("MatMul", ["x", "w"], ["y"])], "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 4])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, 4])],
        [numpy_helper.from_array(np.eye(4, dtype=np.float32), "w")],
    )  # fmt: skip
    opset = [helper.make_opsetid("", 17)]

    def transpose(manifest: pb.Manifest) -> None:
        manifest.tensors[0].dims[:] = [2, 8]

    good = make_bundle(helper.make_model(graph, opset_imports=opset), ["w"])
    verify(mm.open(good))
    bad = make_bundle(helper.make_model(graph, opset_imports=opset), ["w"], transpose)
    with pytest.raises(MalformedContentError, match="disagree on a tensor"):
        verify(mm.open(bad))


def test_a_converter_that_cannot_be_loaded_is_listed_with_the_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    import mobilemodel_converters as converters

    broken = converters.Registration("broken", "no_such_module:Reader", "someone")
    known = converters.registrations()
    monkeypatch.setattr(converters, "registrations", lambda: [*known, broken])
    found = {item.name: item for item in source_formats()}
    assert found["onnx"].status == "ready"
    assert "no_such_module" in found["broken"].status
