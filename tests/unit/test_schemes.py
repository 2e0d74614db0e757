"""Every scheme on every kind of network: each weight named once, losses as measured, nothing else touched."""

from __future__ import annotations

import math
import re
from collections import Counter
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from onnx import ModelProto, helper, numpy_helper

import mobilemodel as mm
from mobilemodel.audit.report import Report, TensorReport
from mobilemodel.bundle import Bundle
from mobilemodel.quantize.rules import SCHEMES
from mobilemodel.runtime import random_inputs, run, session
from tests import models
from tests.models import model, tensor, value

Array = np.ndarray[Any, Any]

# The least SQNR of a tensor by what was done to it. An optimal codebook of 2^b entries gives 6 b - 4 dB for Gaussian
# weights and 2 to 3 dB less for tails as heavy as ours; small tensors gain. float16 rounds by 2^-11 at most: 66 dB in
# the worst case, 73 dB for a mixture of magnitudes. Affine 8 bit is uniform up to each row's peak, and the peak of a
# row of n heavy-tailed weights is 4 to 12 times its deviation: 29 dB at 12.
FLOORS = {("palette", 256): 39.0, ("palette", 64): 28.0, ("palette", 16): 17.0, ("palette", 4): 6.5,
          ("palette", 2): 2.5, ("dense", 0): 70.0, ("affine", 0): 29.0}  # fmt: skip
# By price the largest tensor of a network has the most noise: some 8 dB, more for small ones.
PRICED_FLOOR = 6.0
# Product codebooks have some 1.75 bits a weight: 10.5 dB is the most that they can keep of Gaussian weights.
PRODUCT_FLOOR = 7.0


@cache
def source(network: str) -> tuple[bytes, dict[str, Array], dict[str, Array]]:
    raw = models.NETWORKS[network]().SerializeToString()
    inputs = random_inputs(raw, 0)
    return raw, inputs, run(session(raw), inputs)


def convert(raw: bytes | ModelProto, folder: Path, scheme: str, out: str = "out.mm", **options: Any) -> Report:
    path = folder / "model.onnx"
    path.write_bytes(raw if isinstance(raw, bytes) else raw.SerializeToString())
    return mm.convert(path, folder / out, scheme=scheme, options=mm.ConvertOptions(force=True, **options))


def values(raw: bytes) -> dict[str, Array]:
    graph = ModelProto.FromString(raw).graph
    return {item.name: numpy_helper.to_array(item) for item in graph.initializer}


def same_bits(a: Array, b: Array) -> bool:
    return (a.dtype, a.shape, a.tobytes()) == (b.dtype, b.shape, b.tobytes())


def check_tensor(row: TensorReport, exact: Array, bundle: Bundle) -> None:
    stored = bundle[row.name]
    decoded = stored.numpy()
    assert row.stored_bytes == stored.stored_bytes
    if row.sqnr_db is None:  # a -0 that became +0 is no error, but it is no longer the same bits either
        assert np.array_equal(exact, decoded, equal_nan=True)
    if row.decision != "quantized":
        assert row.sqnr_db is None
        assert same_bits(exact, decoded)
        assert row.reason or row.decision == "kept"
        return
    error = exact.astype(np.float64) - decoded
    if row.sqnr_db is not None:
        measured = 10 * math.log10((exact.astype(np.float64) ** 2).sum() / (error**2).sum())
        assert row.sqnr_db == pytest.approx(measured, abs=0.01)
        assert row.largest_error == pytest.approx(np.abs(error).max(), rel=1e-5)
        entries = stored.tables().shape[1] if row.encoding == "palette" else 0
        told = {"at entropy": PRICED_FLOOR, "product codebooks": PRODUCT_FLOOR}
        floors = [floor for words, floor in told.items() if words in row.reason]
        assert row.sqnr_db >= (floors[0] if floors else FLOORS[row.encoding, entries]), row


def run_both(bundle: Bundle, folder: Path, inputs: dict[str, Array]) -> dict[str, Array]:
    """The outputs of the session on the bundle, which those of the exported model equal bit for bit."""
    mm.export(bundle, folder / "back.onnx", force=True)
    ours, exported = run(session(bundle), inputs), run(session(folder / "back.onnx"), inputs)
    assert ours.keys() == exported.keys()
    assert all(same_bits(ours[name], exported[name]) for name in ours)
    return ours


@pytest.mark.parametrize("scheme", SCHEMES)
@pytest.mark.parametrize("network", models.NETWORKS)
def test_a_scheme_on_a_network(network: str, scheme: str, tmp_path: Path) -> None:
    raw, inputs, expected = source(network)
    report = convert(raw, tmp_path, scheme)
    weights = values(raw)
    assert Counter(row.name for row in report.tensors) == Counter(list(weights)), "each weight is named once"
    with mm.open(tmp_path / "out.mm") as bundle:
        for row in report.tensors:
            if row.encoding == "graph":
                assert row.name not in bundle
                assert row.reason
            else:
                check_tensor(row, weights[row.name], bundle)
        outputs = run_both(bundle, tmp_path, inputs)
    assert all(np.isfinite(output).all() for output in outputs.values())
    back = values((tmp_path / "back.onnx").read_bytes())
    for row in report.tensors:
        assert row.sqnr_db is not None or same_bits(back[row.name], weights[row.name])
    if scheme == "lossless":
        assert all(same_bits(outputs[name], expected[name]) for name in expected)
    else:
        assert any(row.decision == "quantized" for row in report.tensors)


@pytest.mark.parametrize("scheme", ["fp16", "mixed-4-8", "lossless"])
@pytest.mark.parametrize("network", ["mobilenet", "resnet"])
def test_the_hint_on_networks_of_convolutions(network: str, scheme: str, tmp_path: Path) -> None:
    """More than half of the file was left alone: the scheme that helps, and its size within 5 %."""
    raw = source(network)[0]
    hint = convert(raw, tmp_path, scheme).hint
    assert hint is not None
    really = convert(raw, tmp_path, hint.scheme).file_bytes
    assert hint.predicted_bytes == pytest.approx(really, rel=0.05)


@pytest.mark.parametrize(("network", "scheme"), [("alexnet", "mixed-4-8"), ("resnet", "palette-8")])
def test_no_hint_where_nothing_is_left_to_gain(network: str, scheme: str, tmp_path: Path) -> None:
    assert convert(source(network)[0], tmp_path, scheme).hint is None


def test_mixed_is_4_bit_for_the_first_fc_weight_only(tmp_path: Path) -> None:
    rows = {row.name: row for row in convert(source("alexnet")[0], tmp_path, "mixed-4-8").tensors}
    assert [(rows[f"fc{n}.weight"].encoding, rows[f"fc{n}.weight"].bits) for n in (6, 7, 8)] == [
        ("palette", 4), ("palette", 8), ("palette", 8),
    ]  # fmt: skip
    assert [(rows[f"conv{n}.weight"].encoding, rows[f"conv{n}.weight"].bits) for n in (1, 2)] == [("dense", 16)] * 2


def test_mixed_is_never_4_bit_for_the_only_fc_weight(tmp_path: Path) -> None:
    rows = {row.name: row for row in convert(source("mobilenet")[0], tmp_path, "mixed-4-8").tensors}
    assert (rows["classifier.weight"].encoding, rows["classifier.weight"].bits) == ("palette", 8)


@pytest.mark.parametrize("scheme", [name for name in SCHEMES if name != "int8"])
@pytest.mark.parametrize("network", ["alexnet", "transformer"])
def test_converting_the_result_again_changes_nothing(network: str, scheme: str, tmp_path: Path) -> None:
    """A clustered tensor comes back exactly."""
    convert(source(network)[0], tmp_path, scheme)
    with mm.open(tmp_path / "out.mm") as bundle:
        mm.export(bundle, tmp_path / "back.onnx")
        first = {name: item.numpy() for name, item in bundle.items()}
    report = mm.convert(tmp_path / "back.onnx", tmp_path / "again.mm", scheme=scheme)
    assert all(row.sqnr_db is None for row in report.tensors)
    with mm.open(tmp_path / "again.mm") as bundle:
        assert all(same_bits(first[name], item.numpy()) for name, item in bundle.items())


def test_converting_twice_gives_the_same_bytes(tmp_path: Path) -> None:
    for out in ("a.mm", "b.mm"):
        convert(source("transformer")[0], tmp_path, "mixed-4-8", out)
    assert (tmp_path / "a.mm").read_bytes() == (tmp_path / "b.mm").read_bytes()


def one_weight(array: Array) -> ModelProto:
    """A network of one FC weight, inputs x outputs."""
    nodes = [helper.make_node("MatMul", ["x", "w"], ["y"])]
    if array.dtype != np.float32:
        nodes = [helper.make_node("Cast", ["w"], ["v"], to=1), helper.make_node("MatMul", ["x", "v"], ["y"])]
    return model(nodes, [value("x", [2, len(array)])], [tensor("w", array)])


def convert_weight(array: Array, folder: Path, scheme: str) -> tuple[TensorReport, Array]:
    report = convert(one_weight(array), folder, scheme)
    with mm.open(folder / "out.mm") as bundle:
        bundle.verify()
        check_tensor(report.tensors[0], array, bundle)
        return report.tensors[0], bundle["w"].numpy()


def heavy(shape: tuple[int, ...], seed: int = 0) -> Array:
    return np.random.default_rng(seed).standard_t(5, shape).astype(np.float32)


def test_float16_never_overflows_in_silence(tmp_path: Path) -> None:
    weights = heavy((40, 30))
    weights[3, 4] = 65_520
    row, decoded = convert_weight(weights, tmp_path, "fp16")
    assert (row.decision, row.encoding, row.bits) == ("declined", "dense", 32)
    assert "does not fit float16" in row.reason
    assert "65520" in row.reason
    assert same_bits(decoded, weights)
    weights[3, 4] = 65_519  # the largest whole number that rounds to 65,504
    assert convert_weight(weights, tmp_path, "fp16")[0].decision == "quantized"


@pytest.mark.parametrize("scheme", ["fp16", "int8", "kmeans-8", "kmeans-4", "palette-6", "auto"])
@pytest.mark.parametrize("power", [-149, -140, -126, -60, 60, 124])
def test_tiny_and_huge_weights(scheme: str, power: int, tmp_path: Path) -> None:
    """Scaled by 2^n, weights lose what they lose at 1, or they are left alone with a reason."""
    weights = np.ldexp(heavy((64, 60)), power).astype(np.float32)
    row, decoded = convert_weight(weights, tmp_path, scheme)
    assert np.isfinite(decoded).all()
    assert row.decision == "quantized" or row.reason


def test_the_largest_floats(tmp_path: Path) -> None:
    """Neither a histogram's bin nor a rounded scale may carry the largest weight past float32."""
    weights = heavy((64, 60))
    weights *= np.finfo(np.float32).max / np.abs(weights).max()
    weights.reshape(-1)[np.abs(weights).argmax()] = np.finfo(np.float32).max
    for scheme in ("int8", "kmeans-4", "palette-8", "auto"):
        assert convert_weight(weights, tmp_path, scheme)[0].decision == "quantized"


def test_affine_scales_too_small_for_a_normal_float_are_declined(tmp_path: Path) -> None:
    row, _ = convert_weight(np.ldexp(heavy((64, 60)), -130).astype(np.float32), tmp_path, "int8")
    assert (row.decision, row.reason) == ("declined", "affine codes are too coarse for values this small")


@pytest.mark.parametrize("scheme", [name for name in SCHEMES if name != "lossless"])
@pytest.mark.parametrize("stranger", [np.nan, np.inf, -np.inf])
def test_weights_that_are_not_finite_are_kept(scheme: str, stranger: float, tmp_path: Path) -> None:
    weights = heavy((40, 30))
    weights[7, 8] = stranger
    row, decoded = convert_weight(weights, tmp_path, scheme)
    assert (row.decision, row.reason) == ("declined", "it holds values that are not finite")
    assert same_bits(decoded, weights)


@pytest.mark.parametrize("scheme", SCHEMES)
@pytest.mark.parametrize("constant", [0.0, -0.0, 0.1, 3e-41])
def test_constant_tensors_are_exact_and_tiny(scheme: str, constant: float, tmp_path: Path) -> None:
    weights = np.full((64, 60), constant, np.float32)
    row, decoded = convert_weight(weights, tmp_path, scheme)
    if scheme not in ("fp16", "int8"):
        assert same_bits(decoded, weights)
        assert row.stored_bytes < 200
    else:
        assert np.allclose(decoded, weights, rtol=2**-11, atol=0)


@pytest.mark.parametrize("scheme", SCHEMES)
def test_float16_weights(scheme: str, tmp_path: Path) -> None:
    """Already float16: kept by fp16, quantized by the others, the decoded values float16 too."""
    weights = heavy((64, 60)).astype(np.float16)
    row, decoded = convert_weight(weights, tmp_path, scheme)
    assert decoded.dtype == np.float16
    assert row.decision == ("kept" if scheme in ("lossless", "fp16") else "quantized")


def test_lossless_makes_a_palette_of_few_values(tmp_path: Path) -> None:
    weights = np.random.default_rng(0).choice(heavy((200,)), (64, 60))
    row, decoded = convert_weight(weights, tmp_path, "lossless")
    assert (row.encoding, row.decision) == ("palette", "kept")
    assert same_bits(decoded, weights)
    assert row.stored_bytes < weights.nbytes / 3


@pytest.mark.parametrize("scheme", ["kmeans-8", "auto"])
def test_a_table_that_costs_more_than_it_saves_is_declined(scheme: str, tmp_path: Path) -> None:
    row, _ = convert_weight(heavy((5, 6)), tmp_path, scheme)
    assert (row.decision, row.reason) == ("declined", "a palette would not be smaller")


def test_auto_is_smaller_than_any_palette_scheme_of_its_quality(tmp_path: Path) -> None:
    """Optimal tables of 16 and of 4 entries are larger than the levels by price at the same SQNR."""
    weights = np.random.default_rng(0).laplace(size=(256, 500)).astype(np.float32)
    for scheme in ("kmeans-4", "kmeans-2"):
        palette, _ = convert_weight(weights, tmp_path, scheme)
        (tmp_path / "plan.toml").write_text(f"sqnr = {palette.sqnr_db}\n", "utf-8")
        priced, _ = convert_weight(weights, tmp_path, str(tmp_path / "plan.toml"))
        assert palette.sqnr_db is not None
        assert priced.sqnr_db is not None
        assert priced.sqnr_db >= palette.sqnr_db
        assert priced.stored_bytes < 0.93 * palette.stored_bytes


def test_auto_says_how_many_levels_and_bits(tmp_path: Path) -> None:
    row, _ = convert_weight(heavy((256, 500)), tmp_path, "auto")
    assert re.fullmatch(r"palette of \d+ by price, \d\.\d\d bits a weight at entropy", row.reason), row.reason


def test_calls_of_one_weight_are_one_tensor(tmp_path: Path) -> None:
    report = convert(models.fc_ways()["used twice"].model, tmp_path, "kmeans-4")
    assert [row.name for row in report.tensors] == ["w"]


def test_the_report_in_the_bundle_names_the_same_decisions(tmp_path: Path) -> None:
    report = convert(source("alexnet")[0], tmp_path, "mixed-4-8")
    with mm.open(tmp_path / "out.mm") as bundle:
        stored = bundle.report()
    assert stored is not None
    assert {(row["name"], row["decision"], row["reason"]) for row in stored["tensors"]} == {
        (row.name, row.decision, row.reason) for row in report.tensors
    }


@pytest.mark.parametrize("codec", ["auto", "zstd", "png"])
@pytest.mark.parametrize("profile", ["full", "baseline"])
def test_codec_and_profile_change_no_value(codec: str, profile: str, tmp_path: Path) -> None:
    raw = source("lstm")[0]
    convert(raw, tmp_path, "mixed-4-8", "plain.mm")
    if (codec, profile) == ("zstd", "baseline"):
        with pytest.raises(mm.MobileModelError, match="baseline readers do not know zstd"):
            convert(raw, tmp_path, "mixed-4-8", codec=codec, profile=profile)
        return
    report = convert(raw, tmp_path, "mixed-4-8", codec=codec, profile=profile)
    assert report.profile == ("baseline" if profile == "baseline" or codec == "png" else "full")
    with mm.open(tmp_path / "plain.mm") as plain, mm.open(tmp_path / "out.mm") as bundle:
        assert all(same_bits(plain[name].numpy(), bundle[name].numpy()) for name in plain)




@pytest.mark.parametrize("kind", ["float16", "bfloat16"])
@pytest.mark.parametrize("scheme", ["lossless", "int8"])
def test_float32_values_that_are_halves_are_stored_as_halves(kind: str, scheme: str, tmp_path: Path) -> None:
    """A tensor kept as it is, as a source of half precision gives it: 16 bits a value, and the same float32 bits."""
    rng = np.random.default_rng(3)
    if kind == "float16":
        halves = rng.standard_normal(4096).astype(np.float16)
        halves[:6] = [0.0, -0.0, np.inf, -np.inf, 6e-8, 65504]
        weights = halves.astype(np.float32)
    else:
        bits = rng.standard_normal(4096).astype(np.float32).view(np.uint32) & 0xFFFF0000
        bits[:3] = [0x7F810000, 0xFF800000, 0x00010000]  # a NaN with a payload, -inf, a subnormal
        weights = bits.view(np.float32)
    row, decoded = convert_weight(weights.reshape(64, 64), tmp_path, scheme)
    assert row.encoding == "dense"
    assert row.bits == 16
    assert same_bits(decoded, weights.reshape(64, 64))
    assert kind in row.reason or row.decision == "declined"


def test_one_value_that_is_no_half_keeps_float32(tmp_path: Path) -> None:
    weights = np.random.default_rng(4).standard_normal((64, 64)).astype(np.float16).astype(np.float32)
    weights[-1, -1] = np.float32(1 / 3)
    row, decoded = convert_weight(weights, tmp_path, "lossless")
    assert row.bits == 32
    assert same_bits(decoded, weights)
