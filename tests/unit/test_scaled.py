"""Levels and steps become a palette that decodes to their products, bit for bit."""

from __future__ import annotations

import contextlib
import io
from typing import Any

import numpy as np
import pytest

from mobilemodel import dtypes
from mobilemodel.bundle import open_bundle
from mobilemodel.codecs import Family
from mobilemodel.container.writer import Spool, write_container
from mobilemodel.dtypes import DType
from mobilemodel.encodings.payloads import PayloadWriter
from mobilemodel.model import MatrixOrder, QuantizedValue, Role, SourceTensor
from mobilemodel.quantize.apply import QUANTIZED, Chosen, Outcome, encode_chosen
from mobilemodel.quantize.feedback import Rounded, priced_rounding
from mobilemodel.quantize.response import Response
from mobilemodel.quantize.scaled import scaled_palette
from mobilemodel.v1 import bundle_pb2 as pb
from tests.calibrating import quadratic

Array = np.ndarray[Any, np.dtype[np.float32]]
AS_IT_IS = MatrixOrder()


def stored(chosen: Chosen, order: MatrixOrder = AS_IT_IS, source: Array | None = None) -> tuple[Array, Outcome]:
    """What a reader decodes of a bundle that holds this value alone, and what its writer said."""
    weights = np.ascontiguousarray(chosen.decoded if source is None else source, "<f4")
    tensor = SourceTensor("w", DType.FLOAT, weights.shape, lambda: weights.tobytes(), Role.FC, "Gemm", order)
    manifest = pb.Manifest(spec_major=1, spec_minor=0)
    with contextlib.closing(Spool()) as spool, io.BytesIO() as out:
        writer = PayloadWriter(spool, Family.FULL)
        outcome = encode_chosen(writer, manifest.tensors.add(), tensor, chosen)
        writer.flush()
        write_container(out, manifest, spool)
        with open_bundle(out.getvalue()) as bundle:
            return dtypes.from_raw(bundle["w"].raw(), DType.FLOAT, weights.shape).copy(), outcome


def check_stored(rounded: Rounded) -> QuantizedValue:
    value = scaled_palette(rounded, MatrixOrder())
    found, outcome = stored(Chosen(rounded.weights, "so", value))
    np.testing.assert_array_equal(found.view(np.uint32) << 1, rounded.weights.view(np.uint32) << 1)  # -0.0 is 0.0
    assert outcome.decision == QUANTIZED
    return value


def made(levels: Any, steps: Any) -> Rounded:
    return Rounded(np.array(levels, np.int32), np.array(steps, np.float32))


@pytest.mark.parametrize("rounded", [
    made([[0, -1, 2], [3, 0, 0]], [0.5, 0.75]),
    made([[5]], [1.0]),
    made([[5, -7, 0, 1]], [0.125]),
    made([[5], [-7], [0]], [0.125, 1.0, 0.1875]),
    made(np.zeros((4, 6)), [1, 1, 1, 1]),
    made(np.arange(-700, 700).reshape(4, 350), [1.0, 1.25, 0.625, 3.0]),
    made(np.arange(-32767, -32767 + 66 * 990, 990).reshape(6, 11), np.linspace(1, 2, 6).astype(np.float16)),
], ids=["small", "one", "one row", "one column", "zeros", "more than 256 levels", "wide levels"])  # fmt: skip
@pytest.mark.parametrize("exponent", [-100, -20, 0, 20, 90])
def test_levels_and_steps_decode_bit_for_bit(rounded: Rounded, exponent: int) -> None:
    check_stored(Rounded(rounded.levels, np.ldexp(rounded.steps, exponent)))


def test_rows_with_very_different_steps_decode_too() -> None:
    value = check_stored(made([[1, -2], [3, 4], [5, 6]], [2.0**-60, 1.0, 2.0**40]))
    assert value.scales is not None
    assert value.scales.dtype == np.float32


def test_usual_values_are_kept_in_halves_and_only_used_levels_are_entries() -> None:
    value = check_stored(made([[40, -3], [0, 40]], [0.013671875, 0.01171875]))
    assert value.tables is not None
    assert value.scales is not None
    assert (value.tables.dtype.name, value.scales.dtype.name) == ("float16", "float16")
    assert value.tables.size == 3
    assert value.codes.tolist() == [[2, 0], [1, 2]]
    assert value.codes.dtype == np.uint8
    wide = scaled_palette(made([np.arange(300)], [1.0]), MatrixOrder())
    assert wide.codes.dtype == np.uint16


@pytest.mark.parametrize("scale", [-80, 0, 60])
@pytest.mark.parametrize("price", [1e-9, 1e-3, 1.0])
def test_what_rounding_gives_decodes_bit_for_bit(scale: int, price: float) -> None:
    usual = quadratic(np.random.default_rng(3), 12, 33, 2)
    usual.target[4] *= 1000
    response = Response(np.ldexp(usual.target, scale), usual.moments, np.ldexp(usual.row_weights, -2 * scale))
    check_stored(priced_rounding(response, price))


def test_the_order_of_the_matrix_is_the_tensors() -> None:
    """A convolution's matrix has its channels last."""
    generator = np.random.default_rng(4)
    order = MatrixOrder(perm=(0, 2, 3, 1))
    weights = generator.integers(-3, 4, (5, 2, 3, 3)).astype(np.float32) * np.float32(0.25)
    levels = (weights.transpose(0, 2, 3, 1).reshape(5, -1) * 4).astype(np.int32)
    value = scaled_palette(Rounded(levels, np.full(5, 0.25, np.float32)), order)
    found, _ = stored(Chosen(weights, "so", value), order)
    np.testing.assert_array_equal(found, weights)


def test_the_loss_is_measured_against_the_source() -> None:
    source = np.random.default_rng(5).standard_normal((4, 8)).astype(np.float32)
    levels = np.rint(source / 0.25).astype(np.int32)
    rounded = Rounded(levels, np.full(4, 0.25, np.float32))
    found, outcome = stored(Chosen(rounded.weights, "so", scaled_palette(rounded, MatrixOrder())), source=source)
    noise = np.square(source.astype(np.float64) - found).sum()
    assert outcome.loss is not None
    assert outcome.loss.sqnr_db == pytest.approx(
        10 * np.log10(np.square(source, dtype=np.float64).sum() / noise), abs=0.01
    )
    assert outcome.loss.largest_error == pytest.approx(np.abs(source - found).max())
    assert outcome.reason == "so"


def test_a_value_without_codes_is_stored_in_halves_where_they_hold_it() -> None:
    halves = np.array([0.5, -3.25, 0.0999755859375], np.float32)
    found, outcome = stored(Chosen(halves, "corrected"), source=np.array([0.4, -3, 0.1], np.float32))
    np.testing.assert_array_equal(found, halves)
    assert outcome.decision == QUANTIZED
    assert outcome.loss is not None
    huge = np.array([1e6 + 1, 0.1], np.float32)
    np.testing.assert_array_equal(stored(Chosen(huge, "corrected"))[0], huge)
