"""How close packed codes come to their entropy (format 1.0 §3 and §4): independent, identically distributed codes."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest

from mobilemodel.codecs import Family
from mobilemodel.container import Spool
from mobilemodel.encodings import matrix
from mobilemodel.encodings.payloads import PayloadWriter
from mobilemodel.v1 import bundle_pb2 as pb

Probabilities = npt.NDArray[np.float64]


def laplace(bits: float, levels: int) -> Probabilities:
    """Probabilities that fall off alike on both sides of the middle level, with an entropy of ``bits``."""
    distance = np.abs(np.arange(levels) - levels // 2)
    low, high = 0.0, 1.0
    for _ in range(60):
        middle = (low + high) / 2
        weights = middle**distance
        p = np.asarray(weights / weights.sum())
        low, high = (middle, high) if entropy(p) < bits else (low, middle)
    return p


def gaussian(levels: int, reach: float) -> Probabilities:
    """A normal distribution on even levels out to ``reach`` standard deviations."""
    weights = np.exp(-(np.linspace(-reach, reach, levels) ** 2) / 2)
    return np.asarray(weights / weights.sum())


def entropy(p: Probabilities) -> float:
    return float(-(p[p > 0] * np.log2(p[p > 0])).sum())


def written(p: Probabilities, family: Family) -> tuple[float, pb.Codes]:
    """Stored bits over the entropy of a million codes, and how they were written."""
    codes = np.random.default_rng(7).choice(len(p), (512, 2048), p=p).astype(np.uint8)
    out = pb.Codes()
    with Spool() as spool:
        matrix.write_codes(PayloadWriter(spool, family), out, codes, len(p))
        stored = spool.stored_bytes
    counts = np.bincount(codes.reshape(-1), minlength=len(p))
    return 8 * stored / (codes.size * entropy(counts / codes.size)), out


@pytest.mark.parametrize(
    ("bits", "family", "most"),
    [
        (0.4, Family.FULL, 1.05), (0.8, Family.FULL, 1.04), (1.4, Family.FULL, 1.04),
        (0.4, Family.BASELINE, 1.08), (0.8, Family.BASELINE, 1.04), (1.4, Family.BASELINE, 1.04),
    ],
)  # fmt: skip
def test_low_rates_need_split_streams(bits: float, family: Family, most: float) -> None:
    """'Split streams (1-bit plane + other codes) keep low rates within a few per cent of the entropy.'"""
    ratio, out = written(laplace(bits, 17), family)
    assert out.split
    assert 1 <= ratio < most


@pytest.mark.parametrize("family", Family)
@pytest.mark.parametrize(("levels", "depth"), [(16, 4), (256, 8)])
def test_higher_rates_are_plain(levels: int, depth: int, family: Family) -> None:
    """'Above 2 bits plain is smaller', and within 1 % of the entropy."""
    ratio, out = written(gaussian(levels, 2.5), family)
    assert (out.split, out.depth) == (False, depth)
    assert 1 <= ratio < 1.01


@pytest.mark.parametrize("family", Family)
def test_a_byte_a_code_needs_codes_of_whole_bits_and_no_matches(family: Family) -> None:
    """Some 3 bits on more than 17 levels: within 2 %, where match searching cost 5 %."""
    assert 1 <= written(laplace(3.0, 49), family)[0] < 1.02


def test_a_png_in_a_full_bundle_where_it_saves_more_than_a_hundredth() -> None:
    """zstd's Huffman codes end at 11 bits, deflate's at 15: that matters where many codes are rare."""

    class Codecs(list[int]):
        def add(self, stored: bytes, codec: int, raw_size: int) -> int:
            self.append(codec)
            return len(self) - 1

    rare = (1.0 + np.abs(np.arange(257) - 128)) ** -2
    found = []
    for p in (rare / rare.sum(), laplace(3.6, 16)):
        codes = np.random.default_rng(7).choice(len(p), (512, 2048), p=p).astype(np.uint16)
        codecs = Codecs()
        matrix.write_codes(PayloadWriter(codecs, Family.FULL), pb.Codes(), codes, len(p))
        found.append(set(codecs))
    assert pb.CODEC_PNG in found[0]
    assert found[1] == {pb.CODEC_ZSTD}
