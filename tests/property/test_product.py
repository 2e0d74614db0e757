"""Product codebooks: error that never rises, exactness, and the values that readers decode (spec/tensors.md §5)."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mobilemodel.encodings import palette
from mobilemodel.encodings.payloads import Family, PayloadWriter
from mobilemodel.layout import codes_layout
from mobilemodel.quantize.product import Product, quantize_product
from mobilemodel.quantize.product_parts import cut, shape_of
from mobilemodel.quantize.product_passes import Progress, in_turn, refit, sweep, upper_factor
from mobilemodel.quantize.response import Response, response_error, response_signal
from mobilemodel.v1 import bundle_pb2 as pb

Floats = npt.NDArray[np.float32]


@st.composite
def shapes(draw: st.DrawFn) -> tuple[int, int, int, int, int]:
    """rows, columns, groups, vector and segment; a segment of 0 is the whole row, and d need not divide L."""
    groups = draw(st.sampled_from([1, 1, 2, 3]))
    rows = groups * draw(st.integers(1, 12))
    length = draw(st.integers(1, 11))
    segments = draw(st.integers(1, 4))
    segment = 0 if segments == 1 and draw(st.booleans()) else length
    return rows, length * segments, groups, draw(st.integers(1, 5)), segment


def layer(rows: int, columns: int, groups: int, seed: int) -> Response:
    generator = np.random.default_rng(seed)
    mixed = generator.normal(size=(groups, columns, columns + 2))
    moments = mixed @ mixed.transpose(0, 2, 1) / columns + 0.02 * np.eye(columns)
    target = generator.normal(0, 0.1, (rows, columns)).astype(np.float32)
    return Response(target, moments.astype(np.float32), generator.uniform(0.2, 3, rows))


class Memory:
    """Payloads in memory: what a writer adds, a reader finds."""

    def __init__(self) -> None:
        self.payloads: list[tuple[pb.Payload, bytes]] = []

    def add(self, stored: bytes, codec: int, raw_size: int) -> int:
        entry = pb.Payload(codec=pb.Codec.ValueType(codec), stored_size=len(stored), raw_size=raw_size)
        self.payloads.append((entry, stored))
        return len(self.payloads) - 1

    def entry(self, index: int) -> pb.Payload:
        return self.payloads[index][0]

    def stored(self, index: int) -> memoryview:
        return memoryview(self.payloads[index][1])


def read_back(product: Product) -> Floats:
    """What a reader decodes of codes and tables that were written."""
    memory, out = Memory(), pb.Palette()
    out.codes.row_axes, out.codes.segment = 1, product.segment
    out.tables_by.CopyFrom(product.tables_by)
    writer = PayloadWriter(memory, Family.FULL)
    palette.encode(writer, out, product.codes, product.tables)
    writer.flush()
    layout = codes_layout(out.codes, product.decoded.shape)
    assert len(product.tables) == layout.tables(out.tables_by)
    return np.concatenate([block for _, block in palette.decode_blocks(memory, out, layout)])


@given(shapes(), st.integers(1, 20), st.booleans(), st.sampled_from([0.0, 1e-4, 1e-2]), st.integers(0, 99))
def test_readers_decode_what_the_product_says(
    sizes: tuple[int, int, int, int, int], entries: int, shared: bool, price: float, seed: int
) -> None:
    """Decoded values, error and counts are those of the stored codes and tables, bit for bit; with and without a price
    the objective falls from each step to the next."""
    rows, columns, groups, vector, segment = sizes
    response = layer(rows, columns, groups, seed)
    made = quantize_product(
        response, vector=vector, entries=entries, segment=segment, seed=seed, price=price, shared=shared
    )
    np.testing.assert_array_equal(read_back(made).view(np.uint32), made.decoded.view(np.uint32))
    error, signal = response_error(response, made.decoded).sum(), response_signal(response).sum()
    assert made.error == pytest.approx(error, rel=1e-3, abs=1e-6 * signal)
    np.testing.assert_array_equal(made.counts, np.bincount(made.codes.reshape(-1)))
    assert made.tables.shape[1] == made.counts.size <= entries
    assert all(later < earlier for earlier, later in zip(made.history, made.history[1:], strict=False))
    if not price:
        assert made.history[-1] == pytest.approx(error, rel=5e-3, abs=1e-6 * signal)


def measured(response: Response, parts: Any, progress: Progress) -> float:
    """The response error of tables and codes, from the weights on."""
    return float(
        parts.unit * parts.error(parts.target(response.target) - parts.decoded(progress.tables, progress.codes))
    )


@given(shapes(), st.integers(1, 20), st.booleans(), st.integers(0, 99))
def test_no_sweep_and_no_refit_raises_the_error(
    sizes: tuple[int, int, int, int, int], entries: int, shared: bool, seed: int
) -> None:
    """A sub-vector's best code and a table's best entries given all else: the error falls or stays."""
    rows, columns, groups, vector, segment = sizes
    response = layer(rows, columns, groups, seed)
    parts = cut(response, shape_of(rows, columns, vector, entries, segment, shared))
    generator = np.random.default_rng(seed)
    tables = generator.normal(size=(parts.shape.tables, parts.shape.entries, parts.shape.vector)).astype(np.float32)
    progress = in_turn(parts, parts.target(response.target), upper_factor(parts.moments), tables)
    slack = 1e-5 * parts.error(parts.target(response.target)) + 1e-5 * progress.error
    for step in (sweep, refit, sweep, sweep, refit):
        before = progress.error
        step(parts, progress)
        assert progress.error <= before + slack
        assert parts.unit * progress.error == pytest.approx(
            measured(response, parts, progress), rel=1e-3, abs=parts.unit * slack
        )


@given(st.integers(1, 12), st.integers(1, 10), st.integers(1, 4), st.booleans(), st.integers(0, 99))
def test_enough_entries_are_exact(rows: int, columns: int, vector: int, shared: bool, seed: int) -> None:
    """With nothing known of the inputs, and entries for all distinct sub-vectors, the weights come back.

    Distinct values are a thousandth of their spread apart, or more: distances are computed in float32.
    """
    generator = np.random.default_rng(seed)
    distinct = ((generator.permutation(64)[:5] - 30) / 37).astype(np.float32)
    weights = distinct[generator.integers(0, 5, (rows, columns))]
    response = Response(weights, np.eye(columns, dtype=np.float32)[None], np.ones(rows))
    made = quantize_product(response, vector=vector, entries=256, segment=0, seed=0, shared=shared)
    np.testing.assert_array_equal(made.decoded, weights)
    assert made.error == 0


@given(shapes(), st.integers(2, 12), st.integers(0, 99))
def test_the_order_of_rows_does_not_matter(sizes: tuple[int, int, int, int, int], entries: int, seed: int) -> None:
    """Rows in another order get the same codes, in that order: no row is a seed of a table by its place."""
    rows, columns, _, vector, segment = sizes
    response = layer(rows, columns, 1, seed)
    order = np.random.default_rng(seed).permutation(rows)
    turned = Response(response.target[order], response.moments, response.row_weights[order])
    one, other = (
        quantize_product(given, vector=vector, entries=entries, segment=segment, seed=3) for given in (response, turned)
    )
    signal = float(response_signal(response).sum())
    assert other.error == pytest.approx(one.error, rel=0.01, abs=1e-5 * signal)


@given(shapes(), st.integers(0, 99))
def test_the_same_seed_gives_the_same_bytes(sizes: tuple[int, int, int, int, int], seed: int) -> None:
    rows, columns, groups, vector, segment = sizes
    response = layer(rows, columns, groups, seed)
    one, other = (
        quantize_product(response, vector=vector, entries=7, segment=segment, seed=seed, shared=True) for _ in range(2)
    )
    assert one.codes.tobytes() + one.tables.tobytes() == other.codes.tobytes() + other.tables.tobytes()
