"""Fully connected layers from packed weights: y = W x + b against numpy in float64 on the decoded weights."""

from __future__ import annotations

import math
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import mobilemodel
from mobilemodel.bundle import Tensor
from mobilemodel.dtypes import DType
from tests.native.expected import FLOATS, positions, slices
from tests.native.serving import OK, USAGE, Served
from tests.native.wild import WildTensor, seeds, wild_affines, wild_bundles, wild_palettes, write_wild
from tests.strategies import DenseTensor, Geometry, write_bundle

Array = npt.NDArray[Any]
TOLERANCE = 1e-5
SMALLEST_NORMAL = 2.0**-126
"""what a vector unit that flushes subnormal numbers may lose of each product"""


@st.composite
def layers(draw: st.DrawFn, vectors: tuple[int, ...] = (1,)) -> Geometry:
    """Out x in as it is; in x out, transposed; a convolution or a first layer whose columns stand as H, W, C."""
    rows, columns = draw(st.integers(0, 60)), draw(st.integers(0, 9) | st.integers(0, 400))
    kind = draw(st.sampled_from(("plain", "plain", "transposed", "convolution", "first layer")))
    c, h, w = draw(st.integers(1, 40)), draw(st.integers(1, 4)), draw(st.integers(1, 4))
    if kind == "plain":
        geometry = Geometry((rows, columns))
    elif kind == "transposed":
        geometry = Geometry((columns, rows), perm=(1, 0))
    elif kind == "convolution":
        geometry = Geometry((rows, c, h, w), perm=(0, 2, 3, 1))
    else:
        geometry = Geometry((rows, c * h * w), (rows, c, h, w), (0, 2, 3, 1))
    cuts = [n for n in range(1, geometry.columns + 1) if geometry.columns % n == 0]
    return replace(geometry, vector=draw(st.sampled_from(vectors)), segment=draw(st.sampled_from([0, 0, 0, *cuts])))


def written(tensor: WildTensor, seed: int) -> bytes:
    return write_wild([tensor], seed)


@st.composite
def denses(draw: st.DrawFn) -> bytes:
    """Finite weights of each type of floats, in chunks that end within rows."""
    dtype = draw(st.sampled_from((DType.FLOAT, DType.FLOAT16, DType.BFLOAT16)))
    stored = draw(st.sampled_from((dtype, *((DType.FLOAT16, DType.BFLOAT16) if dtype is DType.FLOAT else ()))))
    dims = (draw(st.integers(0, 40)), *draw(st.lists(st.integers(0, 7) | st.integers(1, 90), max_size=2)))
    values = np.random.default_rng(draw(seeds)).standard_normal(math.prod(dims)).astype(np.float32)
    kept: Array = values if stored == DType.FLOAT else values.astype(np.float16)
    raw = (values.view(np.uint32) >> 16).astype(np.uint16).tobytes() if stored == DType.BFLOAT16 else kept.tobytes()
    return write_bundle([DenseTensor("w", dtype, dims, stored, raw, draw(st.sampled_from((64, 192, 131_072))))])


KINDS: dict[str, st.SearchStrategy[bytes]] = {
    "plain stream": st.builds(written, wild_palettes(layers(), wild=False, split=False), seeds),
    "split stream": st.builds(written, wild_palettes(layers(), wild=False, split=True), seeds),
    "sub-vectors": st.builds(written, wild_palettes(layers((2, 3, 4, 4, 8, 19)), wild=False, split=False), seeds),
    "affine": st.builds(written, wild_affines(layers(), wild=False), seeds),
    "dense": denses(),
}


def as_matrix(tensor: Tensor) -> Array:
    """W: the first axis by the product of the others, in float64."""
    with np.errstate(all="ignore"):
        values = tensor.numpy().astype(np.float64)
    return values.reshape(slices(tensor), math.prod(tensor.shape[1:]))


def agrees(found: Array, weights: Array, x: Array, bias: Array | None) -> bool:
    """|difference| <= 1e-5 sum |w x|, the bias being one more term, where that is a number."""
    wide, added = x.astype(np.float64), np.zeros(len(weights)) if bias is None else bias.astype(np.float64)
    with np.errstate(all="ignore"):
        wanted, terms = weights @ wide + added, np.abs(weights) @ np.abs(wide) + np.abs(added)
        allowed = TOLERANCE * terms + SMALLEST_NORMAL * (1 + np.abs(wide).sum())
        close = np.abs(found - wanted) <= allowed
    # Beyond binary32 a sum of floats is infinite, or what became of it.
    return bool((close | ~(terms < np.finfo(np.float32).max)).all())


def is_fc(tensor: Tensor) -> bool:
    """Whether the rows of the matrix of codes are rows of W, or its columns, each with its places in the same order."""
    if tensor.encoding == "dense":
        return True
    places, width = positions(tensor), math.prod(tensor.shape[1:])
    if places.shape == (slices(tensor), width):
        return bool((places - places[:1] == width * np.arange(len(places))[:, None]).all())
    return places.shape == (width, slices(tensor)) and bool((places - places[:1] == np.arange(width)[:, None]).all())


@settings(max_examples=3 * settings().max_examples)  # a kind is computed in more ways than one
@pytest.mark.parametrize("kind", KINDS)
@given(choice=st.data(), seed=seeds, with_bias=st.booleans())
def test_products_are_those_of_the_decoded_weights(
    served: Served, kind: str, choice: st.DataObject, seed: int, with_bias: bool
) -> None:
    """Streamed from the file and from packed codes, for W and for W transposed."""
    data = choice.draw(KINDS[kind])
    assert served.open(data) == OK
    with mobilemodel.open(data) as bundle:
        (tensor,) = bundle.values()
        weights, generator = as_matrix(tensor), np.random.default_rng(seed)
        for transposed in (False, True):
            for packed in (False, True) if tensor.encoding != "dense" else (False,):
                matrix = weights.T if transposed else weights
                x = generator.standard_normal((matrix.shape[1],)).astype(np.float32)
                x[generator.random(x.size) < generator.choice((0.0, 0.5))] = 0  # as behind a ReLU
                bias = generator.standard_normal(len(matrix)).astype(np.float32) if with_bias else None
                status, y = served.fc(0, x, len(matrix), transposed=transposed, packed=packed, bias=bias)
                assert status == OK or not is_fc(tensor), (tensor, transposed, packed)
                assert status in (OK, USAGE)
                assert status != OK or agrees(y, matrix, x, bias), (tensor, transposed, packed)


@given(data=wild_bundles(), seed=seeds)
def test_any_tensor_has_a_product_or_is_refused(served: Served, data: bytes, seed: int) -> None:
    """Of floats, whose rows or columns the codes hold; any values at all, as far as the sum is a number."""
    assert served.open(data) == OK
    with mobilemodel.open(data) as bundle:
        for index, tensor in enumerate(bundle.values()):
            outputs, inputs = slices(tensor), math.prod(tensor.shape[1:])
            x = np.random.default_rng(seed).standard_normal(inputs).astype(np.float32)
            for packed in (False, True):
                status, y = served.fc(index, x, outputs, packed=packed)
                if tensor.dtype_number not in FLOATS or (packed and tensor.encoding == "dense"):
                    assert status == USAGE
                    continue
                assert status in ((OK,) if is_fc(tensor) else (OK, USAGE)), (tensor, packed)
                assert status != OK or agrees(y, as_matrix(tensor), x, None), (tensor, packed)


@given(data=st.one_of(*KINDS.values()), choice=st.data())
def test_wrong_calls_are_refused(served: Served, data: bytes, choice: st.DataObject) -> None:
    """A count that is not W's, and scratch or packed codes that are too small."""
    assert served.open(data) == OK
    with mobilemodel.open(data) as bundle:
        (tensor,) = bundle.values()
        rows, columns = slices(tensor), math.prod(tensor.shape[1:])
        facts = served.facts(0)
        for transposed in (False, True):
            for packed in (False, True) if tensor.encoding != "dense" else (False,):
                inputs, outputs = (rows, columns) if transposed else (columns, rows)
                x = np.zeros(inputs, np.float32)
                ask = partial(served.fc, transposed=transposed, packed=packed)
                assert ask(0, np.zeros(inputs + 1, np.float32), outputs)[0] == USAGE
                assert ask(0, x, outputs + 1)[0] == USAGE
                if outputs:
                    assert ask(0, x, outputs - 1)[0] == USAGE
                cut = choice.draw(st.integers(1, facts.fc_scratch) | st.just(1))
                assert ask(0, x, outputs, scratch_cut=cut)[0] == USAGE
                if packed and facts.packed_size:
                    cut = choice.draw(st.integers(1, facts.packed_size) | st.just(1))
                    assert ask(0, x, outputs, packed_cut=cut)[0] == USAGE
