"""Levels by error + price x bits: the decision rule against a search of all levels, sizes against the coder."""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mobilemodel.container import Spool
from mobilemodel.encodings import matrix
from mobilemodel.encodings.payloads import Family, PayloadWriter
from mobilemodel.quantize import grid, rate
from mobilemodel.quantize.codebook import Codebook, bit_price, priced_codebook
from mobilemodel.quantize.histogram import histogram
from mobilemodel.quantize.kmeans import optimal_partition
from mobilemodel.quantize.rules import RATE_DISTORTION, Rule
from mobilemodel.v1 import bundle_pb2 as pb

Floats = npt.NDArray[np.float32]


def heavy(size: int, seed: int = 0) -> Floats:
    return np.random.default_rng(seed).standard_t(5, size).astype(np.float32)


def priced(weights: Floats, price: float = 0.0, sqnr: float = 0.0) -> Codebook:
    return priced_codebook(weights, Rule(RATE_DISTORTION, price=price, sqnr=sqnr))


def noise(weights: Floats, codebook: Codebook) -> float:
    decoded = codebook.table.astype(np.float64)[codebook.codes]
    return float(((weights - decoded) ** 2).sum())


def test_the_step_at_high_rates() -> None:
    """Where error s^2 / 12 and length -log2 s of a step s balance, their weighted sum is flat."""
    step = grid.high_rate_step(0.01)

    def cost(s: float) -> float:
        return s * s / 12 - 0.01 * math.log2(s)

    assert cost(step) < min(cost(step * 1.01), cost(step * 0.99))


@given(st.data())
def test_each_weight_goes_to_the_level_with_the_least_error_and_length(data: st.DataObject) -> None:
    """The decision rule of Chou et al., against all levels for all bins."""
    levels = sorted(data.draw(st.lists(st.integers(-50, 50), min_size=1, max_size=12, unique=True)))
    table = np.array(levels, np.float64)
    lengths = np.array(data.draw(st.lists(st.integers(0, 40), min_size=len(levels), max_size=len(levels))), np.float64)
    price = data.draw(st.sampled_from([0.0, 0.3, 4.0, 300.0]))
    values = np.arange(-60.0, 60.0) + 0.37  # never halfway
    starts = grid._decided(values, table, lengths, price)
    costs = (values[:, None] - table) ** 2 + price * lengths
    chosen = costs.argmin(axis=1)
    assert starts.tolist() == [0, *(1 + np.flatnonzero(np.diff(chosen))).tolist()]


@pytest.mark.parametrize("price", [0.3, 0.1, 0.01, 1e-3])
def test_no_optimal_palette_of_fewer_levels_is_cheaper(price: float) -> None:
    """'Once indices are entropy coded, capping the levels is what costs.'"""
    bins = histogram(heavy(200_000))
    unit = bit_price(bins, Rule(RATE_DISTORTION, price=price))
    found = grid.rate_distortion_levels(bins, unit)
    for entries in (2, 3, 4, 8, 16, 32, 64, 128, 256):
        partition = optimal_partition(bins.values, bins.weights, entries)
        counts = np.add.reduceat(bins.weights, partition.starts)
        bits = rate.coded_bits(counts) + grid.ENTRY_BITS * entries
        assert found.cost(unit) <= (partition.cost + unit * bits) * 1.0001, entries


def test_levels_say_what_they_are() -> None:
    half = heavy(25_000)
    bins = histogram(np.concatenate([half, -half]))
    found = grid.rate_distortion_levels(bins, 0.02)
    cells = np.split(bins.values, found.starts[1:])
    masses = np.split(bins.weights, found.starts[1:])
    assert found.counts.tolist() == [mass.sum() for mass in masses]
    error = sum(float((m * (v - t) ** 2).sum()) for v, m, t in zip(cells, masses, found.table, strict=True))
    assert found.error == pytest.approx(error, rel=1e-6)
    assert 0.0 in found.table, "zero is a level where that costs next to nothing"
    assert (np.diff(found.table) > 0).all()


@pytest.mark.parametrize("sqnr", [3.0, 12.0, 17.8, 35.0, 50.0, 58.0])
def test_a_signal_to_noise_ratio_is_kept_and_hardly_exceeded(sqnr: float) -> None:
    weights = heavy(100_000)
    found = priced(weights, sqnr=sqnr)
    measured = 10 * math.log10(float((weights.astype(np.float64) ** 2).sum()) / noise(weights, found))
    assert sqnr <= measured < sqnr + 0.1


def test_a_higher_price_takes_fewer_bits_and_leaves_more_error() -> None:
    weights = heavy(100_000)
    found = [priced(weights, price=price) for price in (1e-3, 0.01, 0.05, 0.2, 0.5, 2.0)]
    sizes, errors = [item.size for item in found], [noise(weights, item) for item in found]
    assert sizes == sorted(sizes, reverse=True)
    assert errors == sorted(errors)


@given(st.integers(-120, 100))
def test_a_price_does_not_depend_on_the_scale(power: int) -> None:
    weights = np.ldexp(heavy(3000), power).astype(np.float32)
    plain, scaled = priced(heavy(3000), price=0.05), priced(weights, price=0.05)
    assert np.array_equal(plain.codes, scaled.codes)


def test_the_networks_typical_scale_counts_half_and_within_bounds() -> None:
    bins = histogram(heavy(1000))
    own = bit_price(bins, Rule(RATE_DISTORTION, price=0.1))
    rms = math.sqrt(own / 0.1)
    doubled = Rule(RATE_DISTORTION, price=0.1, share=0.5, typical_rms=2 * rms)
    assert bit_price(bins, doubled) == pytest.approx(own)
    assert bit_price(bins, Rule(RATE_DISTORTION, price=0.1, typical_rms=1e9)) == pytest.approx(8 * own)
    assert bit_price(bins, Rule(RATE_DISTORTION, price=0.1, typical_rms=1e-9)) == pytest.approx(own / 8)


@pytest.mark.parametrize("price", [0.2, 0.02])
def test_few_values_are_kept(price: float) -> None:
    """What was quantized is not quantized again."""
    weights = heavy(50_000)
    first = priced(weights, price=price)
    decoded = first.table.astype(np.float32)[first.codes]
    assert noise(decoded, priced(decoded, price=price)) == 0.0


@pytest.mark.parametrize("constant", [0.0, 3.0, -1e-40])
def test_a_constant_is_one_level(constant: float) -> None:
    weights = np.full(100, constant, np.float32)
    assert priced(weights, price=0.1).table.size == 1
    assert priced(weights, sqnr=20).table.size == 1


@given(st.lists(st.integers(1, 10_000), min_size=1, max_size=300))
def test_lengths_are_those_of_codes_that_exist(counts: list[int]) -> None:
    """Kraft: the sum of 2^-length is 1 for ideal lengths, and at most 1 for the coder's, no shorter on average."""
    ideal, real = rate.code_lengths(counts), rate.coder_lengths(counts)
    assert np.exp2(-ideal).sum() == pytest.approx(1)
    assert np.exp2(-real).sum() <= 1 + 1e-9
    assert np.dot(counts, real) >= np.dot(counts, ideal) * (1 - 1e-9)


def test_a_table_entry_is_paid_by_its_occurrences() -> None:
    assert (rate.code_lengths([4, 2], 16.0) - rate.code_lengths([4, 2])).tolist() == [4.0, 8.0]
    assert rate.coded_bits([0]) == 0.0


def stored_bits(codes: npt.NDArray[np.uint16], levels: int, family: Family) -> float:
    out = pb.Codes()
    with Spool() as spool:
        matrix.write_codes(PayloadWriter(spool, family), out, codes, levels)
        return 8.0 * spool.stored_bytes


@pytest.mark.parametrize("family", Family)
@pytest.mark.parametrize("price", [0.4, 0.2, 0.1, 0.03, 0.01, 1e-3, 2e-5])
def test_the_predicted_size_is_the_coders(price: float, family: Family) -> None:
    """Within 4 %: real streams bring tables of their own, and zstd's codes end at 11 bits."""
    weights = heavy(400_000)
    found = priced(weights, price=price)
    codes = found.codes.reshape(200, 2000).astype(np.uint16)
    predicted = rate.coded_bits(found.counts)
    limits = (0.95, 1.08 if codes.max() > 256 else 1.04)
    assert limits[0] < stored_bits(codes, found.table.size, family) / predicted < limits[1]


def test_wide_codes_by_frequency_have_cheap_byte_planes() -> None:
    """50 dB take more than 256 levels; two byte planes then cost 3 % over the entropy, ascending ones twice that."""
    weights = heavy(200_000)
    found = priced(weights, sqnr=50)
    assert found.table.size > 257
    assert (np.diff(found.counts) <= 0).all()
    entropy = found.codes.size * matrix.entropy_bits(found.counts)
    codes = found.codes.reshape(100, -1).astype(np.uint16)
    by_frequency = stored_bits(codes, found.table.size, Family.FULL)
    ascending = np.argsort(np.argsort(found.table.astype(np.float64))).astype(np.uint16)[codes]
    assert by_frequency < 1.04 * entropy
    assert by_frequency < 0.97 * stored_bits(ascending, found.table.size, Family.FULL)
