"""Plans: global < operator type < name pattern; whatever is not understood is an error with advice."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import mobilemodel as mm
from mobilemodel.errors import PlanError
from mobilemodel.model import Role, SourceTensor
from mobilemodel.quantize.plan import Plan, fc_weight_count, load_plan
from mobilemodel.quantize.rules import DEFAULT_PRICE, SCHEMES, Rule, scheme_named
from tests import models


def plan(folder: Path, text: str) -> Plan:
    path = folder / "plan.toml"
    path.write_text(text, "utf-8")
    return load_plan(path)


def weight(
    name: str, role: Role = Role.FC, operator: str = "Gemm", dims: tuple[int, ...] = (4, 4), rank: int = 0
) -> SourceTensor:
    return SourceTensor(name, 1, dims, lambda: b"", role, operator, rank_in_role=rank)


def test_precedence_global_operator_name(tmp_path: Path) -> None:
    found = plan(tmp_path, """
        encoding = "affine"
        [operator.Conv]
        encoding = "float16"
        [name."conv1.*"]
        encoding = "lossless"
    """)
    assert found.rule(weight("fc.weight"), 1) == Rule("affine", bits=8)
    assert found.rule(weight("conv2.weight", Role.CONV, "Conv"), 1) == Rule("float16")
    assert found.rule(weight("conv1.weight", Role.CONV, "Conv"), 1) == Rule("lossless")


def test_the_scheme_stands_below_everything(tmp_path: Path) -> None:
    found = plan(tmp_path, 'scheme = "kmeans-2"\n[name."a*"]\nencoding = "palette"\nentries = 300')
    assert found.name == "plan"
    assert found.rule(weight("a"), 1) == Rule("palette", entries=300)
    assert found.rule(weight("b"), 1) == Rule("palette", entries=4)
    assert found.rule(weight("c", Role.CONV, "Conv"), 1) == Rule("float16")


def test_prices_and_signal_to_noise_ratios(tmp_path: Path) -> None:
    """A price or an SQNR says which encoding is meant."""
    found = plan(tmp_path, """
        price = 0.3
        [operator.Conv]
        sqnr = 50
        [name."fc8*"]
        encoding = "rate-distortion"
        [name."fc9*"]
        encoding = "rate-distortion"
        price = 1e-3
    """)
    assert found.rule(weight("fc"), 1) == Rule("rate-distortion", price=0.3)
    assert found.rule(weight("bias", Role.OTHER, "", (4,)), 1) == Rule("lossless")
    assert found.rule(weight("conv", Role.CONV, "Conv"), 1) == Rule("rate-distortion", sqnr=50.0)
    assert found.rule(weight("fc8"), 1) == Rule("rate-distortion", price=DEFAULT_PRICE)
    assert found.rule(weight("fc9"), 1) == Rule("rate-distortion", price=1e-3)
    assert load_plan("auto").rule(weight("fc"), 1) == Rule("rate-distortion", price=DEFAULT_PRICE)


def test_a_price_is_relative_to_the_network() -> None:
    """The share of the weights, and the geometric mean of the tensors' energies, by weights."""
    large, small = np.full((4, 6), 0.5, np.float32), np.full((2, 4), 8.0, np.float32)
    tensors = (
        SourceTensor("a", 1, large.shape, large.tobytes, Role.FC, "Gemm"),
        SourceTensor("b", 1, small.shape, small.tobytes, Role.CONV, "Conv"),
        SourceTensor("c", 1, (5,), np.ones(5, np.float32).tobytes, Role.OTHER),
        SourceTensor("d", 1, (5,), np.full(5, np.nan, np.float32).tobytes, Role.FC),
    )
    auto = load_plan("auto")
    network = auto.network(tensors)
    assert network is not None
    assert network.weights == 32
    assert network.energy == pytest.approx((24 * 0.25) ** 0.75 * (8 * 64) ** 0.25)
    rule = auto.rule(tensors[1], 1, network)
    assert rule.share == 0.25
    assert rule.typical_rms == pytest.approx((network.energy / 8) ** 0.5)
    assert load_plan("kmeans-4").network(tensors) is None, "nothing is read where nothing has a price"


def test_an_empty_plan_is_the_default_scheme(tmp_path: Path) -> None:
    found = plan(tmp_path, "")
    assert found.rule(weight("fc6"), 2) == Rule("rate-distortion", price=DEFAULT_PRICE)


def test_the_global_rule_is_for_weights_only(tmp_path: Path) -> None:
    found = plan(tmp_path, 'encoding = "palette"\nbits = 3')
    assert found.rule(weight("w"), 1) == Rule("palette", entries=8)
    assert found.rule(weight("bias", Role.OTHER, "", (4,)), 1) == Rule("lossless")


def test_of_several_patterns_the_last_decides(tmp_path: Path) -> None:
    found = plan(tmp_path, """
        [name."*"]
        encoding = "lossless"
        [name."fc?.w*"]
        encoding = "affine"
        bits = 16
        [name."fc[67].*"]
        encoding = "palette"
    """)
    assert found.rule(weight("conv"), 1) == Rule("lossless")
    assert found.rule(weight("fc8.weight"), 1) == Rule("affine", bits=16)
    assert found.rule(weight("fc7.weight"), 1) == Rule("palette", entries=256)


def test_patterns_tell_upper_from_lower_case(tmp_path: Path) -> None:
    found = plan(tmp_path, 'scheme = "fp16"\n[name."FC*"]\nencoding = "lossless"')
    assert found.rule(weight("fc"), 1) == Rule("float16")


def test_a_name_pattern_reaches_what_is_no_weight(tmp_path: Path) -> None:
    found = plan(tmp_path, '[name."bias"]\nencoding = "float16"')
    assert found.rule(weight("bias", Role.OTHER, "", (4,)), 1) == Rule("float16")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('shceme = "fp16"', "unknown key 'shceme': expected scheme.*\n.*Did you mean 'scheme'"),
        ('encodng = "palette"', "Did you mean 'encoding'"),
        ('[operators.Conv]\nencoding = "float16"', "Did you mean 'operator'"),
        ('[operator.Conv]\nencoding = "float16"\nbit = 3', "unknown key 'operator.Conv.bit'.*\n.*Did you mean 'bits'"),
        ("[name.a]\nzzz = 1", "unknown key 'name.a.zzz'"),
        ('scheme = "fp61"', "no such scheme: expected lossless, .*found fp61"),
        ("scheme = 8", "scheme: expected a scheme's name, found 8"),
        ('encoding = "palete"', "encoding of the global rule: expected .*found palete"),
        ("bits = 8", "encoding of the global rule"),
        ('encoding = "palette"\nbits = 0', "bits 1 to 16"),
        ('encoding = "palette"\nbits = 17', "bits 1 to 16"),
        ('encoding = "palette"\nbits = -1', "bits 1 to 16"),
        ('encoding = "palette"\nbits = 99999999999', "bits 1 to 16"),
        ('encoding = "palette"\nentries = 1', "entries 2 to 65536"),
        ('encoding = "palette"\nentries = 65537', "entries 2 to 65536"),
        ('encoding = "palette"\nbits = 4\nentries = 16', "bits 1 to 16, or entries"),
        ('encoding = "palette"\nbits = 4.0', "bits of the global rule: expected a whole number"),
        ('encoding = "palette"\nbits = true', "expected a whole number"),
        ('encoding = "palette"\nbits = "4"', "expected a whole number"),
        ('encoding = "affine"\nbits = 5', "bits 4, 8 or 16"),
        ('encoding = "affine"\nentries = 16', "bits 4, 8 or 16"),
        ('encoding = "float16"\nbits = 16', "takes neither bits nor entries"),
        ('encoding = "lossless"\nentries = 2', "takes neither bits nor entries"),
        ("price = 0", "price of the global rule: expected 1e-15 to 1000, found 0"),
        ("price = nan", "price of the global rule"),
        ('price = "high"', "price of the global rule: expected a number"),
        ("sqnr = 0.5", "sqnr of the global rule: expected 1 to 60 dB, found 0.5"),
        ("sqnr = inf", "Above, float16 is no larger"),
        ("sqnr = 20\nprice = 0.1", "rate-distortion of the global rule: expected price or sqnr"),
        ('encoding = "rate-distortion"\nbits = 4', "rate-distortion of the global rule: expected price or sqnr"),
        ('encoding = "palette"\nprice = 0.1', "palette of the global rule takes neither price nor sqnr"),
        ('encoding = "rate-distorsion"', "encoding of the global rule: expected .*rate-distortion"),
        ("operator = 3", "operator: expected a table of tables"),
        ("[operator]\nConv = 3", "operator.Conv: expected a table"),
        ("name = []", "name: expected a table of tables"),
        ("a = ", "not TOML"),
        ('encoding = "\ud800"', "not TOML"),
    ],
)  # fmt: skip
def test_what_is_not_understood_is_an_error_that_names_the_file(text: str, message: str, tmp_path: Path) -> None:
    path = tmp_path / "plan.toml"
    path.write_bytes(text.encode("utf-8", "surrogatepass"))
    with pytest.raises(PlanError, match=message) as caught:
        load_plan(path)
    assert str(path) in str(caught.value)
    assert caught.value.exit_code == 2


def test_plans_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(PlanError, match="cannot read the plan"):
        load_plan(tmp_path / "missing.toml")
    (tmp_path / "folder.toml").mkdir()
    with pytest.raises(PlanError, match="cannot read the plan"):
        load_plan(tmp_path / "folder.toml")
    (tmp_path / "large.toml").write_bytes(b"#" * (2**20 + 1))
    with pytest.raises(PlanError, match="too large"):
        load_plan(tmp_path / "large.toml")
    nested = tmp_path / "deep.toml"
    nested.write_text("a = " + "[" * 100_000, "utf-8")
    with pytest.raises(PlanError):
        load_plan(nested)


def test_every_scheme_has_a_name(tmp_path: Path) -> None:
    for name in SCHEMES:
        assert load_plan(name).scheme is scheme_named(name)
    with pytest.raises(PlanError, match="no such scheme"):
        load_plan("kmeans-3")


@pytest.mark.parametrize(
    ("scheme", "fc", "conv", "recurrent", "embedding", "bias", "table"),
    [
        ("lossless", "lossless", "lossless", "lossless", "lossless", "lossless", "lossless"),
        ("fp16", "float16", "float16", "float16", "float16", "lossless", "float16"),
        ("int8", "affine 8 bit", "affine 8 bit", "affine 8 bit", "affine 8 bit", "lossless", "lossless"),
        ("kmeans-2", "palette of 4", "float16", "palette of 4", "palette of 4", "lossless", "lossless"),
        ("mixed-4-8", "palette of 16", "float16", "palette of 256", "palette of 256", "lossless", "lossless"),
        ("auto", *["palette at price 0.2"] * 4, "lossless", "lossless"),
        ("palette-6", "palette of 64", "palette of 64", "palette of 64", "palette of 64", "lossless", "lossless"),
    ],
)  # fmt: skip
def test_schemes_by_role(
    scheme: str, fc: str, conv: str, recurrent: str, embedding: str, bias: str, table: str
) -> None:
    rule = scheme_named(scheme)
    tensors = [weight("w", role) for role in (Role.FC, Role.CONV, Role.RECURRENT, Role.EMBEDDING)]
    tensors += [weight("b", Role.OTHER, "", (4,)), weight("t", Role.OTHER, "", (4, 4))]
    assert [str(rule(item, 2)) for item in tensors] == [fc, conv, recurrent, embedding, bias, table]


def test_fc_weights_are_counted() -> None:
    assert fc_weight_count((weight("a"), weight("b"), weight("c", Role.CONV))) == 2


def test_a_plan_on_a_network(tmp_path: Path) -> None:
    """The report says what each tensor got, and which parts of the plan nothing answered to."""
    source = tmp_path / "model.onnx"
    source.write_bytes(models.alexnet().SerializeToString())
    (tmp_path / "mine.toml").write_text("""
        scheme = "kmeans-4"
        [operator.Conv]
        encoding = "palette"
        bits = 6
        [operator.LSTM]
        encoding = "float16"
        [name."fc8.*"]
        encoding = "lossless"
        [name."fc9.*"]
        encoding = "lossless"
    """, "utf-8")
    report = mm.convert(source, tmp_path / "out.mm", scheme=tmp_path / "mine.toml")
    rows = {row.name: row for row in report.tensors}
    assert (rows["conv1.weight"].encoding, rows["conv1.weight"].reason) == ("palette", "palette of 64")
    assert (rows["fc6.weight"].encoding, rows["fc6.weight"].bits) == ("palette", 4)
    assert (rows["fc8.weight"].encoding, rows["fc8.weight"].decision) == ("dense", "kept")
    assert report.scheme == "mine"
    assert report.notes == (
        "the plan's operator.LSTM matches no tensor", "the plan's name.'fc9.*' matches no tensor",
    )  # fmt: skip
