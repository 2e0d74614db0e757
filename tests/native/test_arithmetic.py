"""Exact arithmetic (tensors.md §8), where it is hard: every half, every tie, products at both ends of binary32."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

import mobilemodel
from mobilemodel.dtypes import DType
from tests.native.expected import Decoded, same
from tests.native.serving import FLOAT, FLOAT16, OK, Served, What
from tests.native.wild import ODD_FLOATS
from tests.strategies import AffineTensor, AnyTensor, DenseTensor, Geometry, PaletteTensor, write_bundle

Array = npt.NDArray[Any]
HALVES = np.arange(1 << 16, dtype=np.uint16).view(np.float16)
NO_GROUPS = (0, 0)


def ties() -> Array:
    """Halfway between each two neighbouring halves, and the floats on both sides of it."""
    positive = HALVES[:0x7C00].astype(np.float32)
    middle = (positive[:-1] + positive[1:]) / 2
    near = np.concatenate([middle, np.nextafter(middle, np.float32(0)), np.nextafter(middle, np.float32(np.inf))])
    edges = np.array([65504, 65519.996, 65520, 65536, 1e30], np.float32)
    odd = np.array(ODD_FLOATS, np.uint32).view(np.float32)
    return np.concatenate([near, -near, edges, -edges, odd])


def check(served: Served, tensor: AnyTensor) -> None:
    """All values of one tensor in both types, and in its rows' order."""
    data = write_bundle([tensor])
    assert served.open(data) == OK
    with mobilemodel.open(data) as bundle:
        (opened,) = bundle.values()
        for dtype in (FLOAT, FLOAT16):
            decoded = Decoded(opened, dtype)
            status, found = served.decode(What.VALUES, 0, dtype=dtype, count=opened.shape[0])
            assert status == OK
            assert same(found, decoded.raw(), decoded.made)


@pytest.mark.parametrize("dtype", [DType.FLOAT16, DType.BFLOAT16])
def test_every_half_is_widened(served: Served, dtype: DType) -> None:
    """ "Widening binary16 to binary32 is exact"; so is that of BFLOAT16, stored for FLOAT or on its own."""
    for own in (dtype, DType.FLOAT):
        check(served, DenseTensor("w", own, (HALVES.size,), dtype, HALVES.tobytes(), 1024))


def test_every_tie_is_rounded_to_even(served: Served) -> None:
    """ "rounded once more, to nearest, ties to even; beyond 65,519.99... it becomes infinite, below it becomes
    subnormal or zero with its sign"."""
    values = ties()
    check(served, DenseTensor("w", DType.FLOAT, (values.size,), DType.FLOAT, values.tobytes(), 131_072))


@pytest.mark.parametrize("entries", [16, 256, 40_000])
@pytest.mark.parametrize("dtype", [DType.FLOAT, DType.FLOAT16])
def test_tables_are_rounded_to_even(served: Served, entries: int, dtype: DType) -> None:
    """The same from tables, by look-ups of each depth."""
    values = np.random.default_rng(entries).permutation(ties())[: 4 * entries].reshape(4, entries, 1)
    codes = np.resize(np.arange(entries, dtype=np.uint16), (4, max(entries, 320)))
    check(served, PaletteTensor("w", dtype, Geometry(codes.shape), codes, values, (1, 0), None, NO_GROUPS, 4096, None))


def sizes(generator: np.random.Generator, count: int, center: float) -> Array:
    """Floats of both signs around 2 to this power."""
    powers = generator.uniform(center - 14, center + 14, count)
    return (generator.standard_normal(count) * np.exp2(powers)).astype(np.float32)


@pytest.mark.parametrize("center", [-126, -63, 0, 64])
@pytest.mark.parametrize("entries", [16, 256, 1000])
@pytest.mark.parametrize("kind", [np.float16, np.float32])
def test_products_are_rounded_once(served: Served, center: int, entries: int, kind: Any) -> None:
    """ "Multiplications are IEEE 754 binary32 [...]; products that are too large become infinite", and small ones
    subnormal, of a processor too whose vector unit flushes them to zero."""
    generator = np.random.default_rng(entries)
    with np.errstate(over="ignore"):
        tables = sizes(generator, 3 * entries, 0 if kind == np.float16 else center).astype(kind).reshape(3, entries, 1)
    scales = sizes(generator, 6, center)
    codes = generator.integers(0, entries, (6, 700), np.uint16)
    for dtype in (DType.FLOAT, DType.FLOAT16):
        geometry = Geometry(codes.shape)
        check(served, PaletteTensor("w", dtype, geometry, codes, tables, (2, 0), scales, (1, 0), 1024, None))


@pytest.mark.parametrize("depth", [4, 8, 16])
@pytest.mark.parametrize("center", [-135, 0, 110])
def test_differences_are_exact(served: Served, depth: int, center: int) -> None:
    """ "The difference is an integer between -65,535 and 65,535, exact in binary32; one multiplication"."""
    generator = np.random.default_rng(depth)
    codes = generator.integers(0, 1 << depth, (6, 700), np.uint16)
    zeros = generator.integers(0, 1 << max(depth, 8), 6, np.uint16).astype(np.uint16 if depth == 16 else np.uint8)
    scales = sizes(generator, 6, center)
    for dtype in (DType.FLOAT, DType.FLOAT16):
        check(served, AffineTensor("w", dtype, Geometry(codes.shape), codes, depth, scales, zeros, (1, 0), 1024))
