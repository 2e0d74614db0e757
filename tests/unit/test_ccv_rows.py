"""What a ccv row holds beside the graph's words: partitions, alpha for each value, halves."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from onnx import TensorProto

from mobilemodel_converters.ccv.expression import express
from mobilemodel_converters.ccv.graph import Constant
from mobilemodel_converters.ccv.layers import Size
from mobilemodel_converters.ccv.rows import (
    Convolution,
    MaxPool,
    Normalisation,
    Pool,
    Weighted,
    alpha_for_each,
    with_partitions,
)
from mobilemodel_converters.ccv.writer import is_half
from tests.convnets import convnet

_SIZE = Size(9, 9, 64)
_NONE = Constant(TensorProto())


@given(st.lists(st.tuples(st.sampled_from("cnp"), st.sampled_from([1, 2, 4, 8])), min_size=1, max_size=8))
def test_partitions(kinds: list[tuple[str, int]]) -> None:
    """output_partition "has to be a multiple of the input partition"; groups and norms keep what the graph says."""
    made = [
        Convolution("c", _SIZE, p, 64, _NONE, None, (1, 1), 1, 0) if kind == "c"
        else Normalisation("n", _SIZE, p, 5, 2.0, 0.5, 0.75) if kind == "n"
        else MaxPool("p", _SIZE, 1, 1, 1, 0)
        for kind, p in kinds
    ]  # fmt: skip
    found = with_partitions(made)
    for before, after in zip(made, found, strict=True):
        if isinstance(after, Convolution):
            assert after.output_partition % after.partition == 0
        assert isinstance(after, Pool) or before.partition == after.partition
    wanted = [(a, b) for a, b in pairwise(found) if isinstance(a, Convolution)]
    for conv, following in wanted:
        if isinstance(following, Pool) or following.partition % conv.partition == 0:
            assert following.partition == conv.output_partition


@given(st.floats(2**-30, 2**30, width=32), st.integers(0, 20).map(lambda half: 2 * half + 1))
def test_alpha_comes_back(alpha: float, size: int) -> None:
    """ "ONNX LRN alpha = alpha * size": what the reader computes is the graph's number again, bit for bit."""
    assert np.float32(alpha_for_each(alpha, size) * size) == np.float32(alpha)


@given(st.floats(-(2**10), 2**10, width=32), st.integers(1, 31))
def test_alphas_of_ccv_are_kept(alpha: float, half: int) -> None:
    """A number as ccv stores it, a float32, is written as the same number where it can be told from the product."""
    size = 2 * half + 1
    product = float(np.float32(alpha * size))
    found = alpha_for_each(product, size)
    assert np.float32(found * size) == np.float32(product)
    assert abs(np.float32(found) - np.float32(alpha)) <= np.spacing(np.abs(np.float32(alpha)))


def test_halves_are_told_bit_by_bit() -> None:
    every = np.arange(1 << 16, dtype=np.uint16).view(np.float16)
    numbers = every[~np.isnan(every)].astype(np.float32)
    assert is_half(numbers)
    assert not is_half(np.array([np.nan], np.float32))
    assert not is_half(np.nextafter(numbers[np.isfinite(numbers)], np.float32(np.inf))[:1])
    assert not is_half(np.array([-1e-30], np.float32)), "it would become -0"


def test_only_weighted_layers_have_data() -> None:
    assert [isinstance(layer, Weighted) for layer in express(convnet()).layers] == [
        True, False, False, True, False, True, True,
    ]  # fmt: skip
