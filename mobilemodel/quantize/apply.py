"""One tensor: apply its rule, write it, and say what was done and what it cost.

A rule that cannot be applied, or that gains nothing, is declined: the tensor is then kept bit for bit.
"""

from __future__ import annotations

import zlib
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from mobilemodel import dtypes
from mobilemodel.dtypes import DType
from mobilemodel.encodings import affine, dense, matrix, palette
from mobilemodel.encodings.payloads import PayloadWriter
from mobilemodel.errors import MalformedSourceError
from mobilemodel.layout import codes_shape, elements_of
from mobilemodel.limits import FORMAT_LIMITS
from mobilemodel.model import Buffer, QuantizedValue, SourceTensor
from mobilemodel.quantize import rules
from mobilemodel.quantize.codebook import Codebook, exact_codebook, optimal_codebook, priced_codebook
from mobilemodel.quantize.loss import Loss, measure
from mobilemodel.quantize.pieces import pieces
from mobilemodel.quantize.products import plain_response, product_value, product_words, tensor_product
from mobilemodel.quantize.rules import Rule
from mobilemodel.quantize.steps import SMALLEST_SCALE, symmetric_steps
from mobilemodel.v1 import bundle_pb2 as pb

QUANTIZED, KEPT, DECLINED = "quantized", "kept", "declined"
EXACT_ENTRIES = 256
"""a float tensor of at most so many distinct values becomes an exact palette"""
_HALF_FLOOR_DB = 60.0
_PALETTE_BYTES = 128
"""what a palette takes in the manifest and by its payloads' alignment"""


@dataclass(frozen=True)
class Outcome:
    """What became of a tensor."""

    decision: str
    """``QUANTIZED``, ``KEPT`` or ``DECLINED``"""
    reason: str
    """how it was encoded, or why its rule was declined; empty where nothing was asked and nothing done"""
    crc32: int
    """of the raw bytes that a reader has to decode"""
    loss: Loss | None
    """None: the source's values, bit for bit"""


@dataclass(frozen=True)
class Chosen:
    """A value that was found from data, to be stored instead of the source's."""

    decoded: npt.NDArray[np.float32]
    """in the tensor's dims, as every reader will decode it"""
    how: str
    """in words, for the report"""
    quantized: QuantizedValue | None = None
    """None: ``decoded`` is stored as it is, in float16 where that holds every value"""
    response_db: float | None = None
    """signal to error of the layer's response on the data"""


class _Declined(Exception):  # noqa: N818 - not an error: the rule does not fit, and why
    pass


def encode_tensor(writer: PayloadWriter, out: pb.Tensor, tensor: SourceTensor, rule: Rule) -> Outcome:
    """Encode a tensor by its rule into ``out`` (name, dtype and dims are set here) and report the outcome.

    Raises MalformedSourceError when the source's value has another size than its dims.
    """
    out.name, out.dtype = tensor.name, tensor.dtype
    out.dims.extend(tensor.dims)
    if tensor.quantized is not None:
        return _encode_finished(writer, out, tensor)
    raw = tensor.read()
    if len(raw) != tensor.raw_bytes:
        raise MalformedSourceError("a tensor's value has another size than its dims", tensor=tensor.name)
    reason = ""
    if rule.encoding != rules.LOSSLESS and tensor.elements:
        try:
            return _encode_by_rule(writer, out, tensor, rule, raw)
        except _Declined as declined:
            reason = str(declined)
            out.ClearField("encoding")
    exact = _encode_as_it_is(writer, out, tensor, raw)
    return Outcome(DECLINED if reason else KEPT, reason or exact, zlib.crc32(raw), None)


def encode_chosen(writer: PayloadWriter, out: pb.Tensor, tensor: SourceTensor, chosen: Chosen) -> Outcome:
    """Encode a value that was found from data; its loss is measured against the source's value."""
    out.name, out.dtype = tensor.name, tensor.dtype
    out.dims.extend(tensor.dims)
    weights = dtypes.from_raw(tensor.read(), tensor.dtype, tensor.dims)
    loss = measure(weights, pieces(chosen.decoded.astype(weights.dtype, copy=False)))
    if chosen.quantized is not None:
        _write_quantized(writer, out, chosen.quantized)
    else:
        stored, dtype = dense.narrow(chosen.decoded.astype("<f4").tobytes(), DType.FLOAT)
        dense.encode(writer, out.dense, stored, dtype, tensor.elements)
    return _outcome(out, loss, chosen.how)


def _encode_as_it_is(writer: PayloadWriter, out: pb.Tensor, tensor: SourceTensor, raw: Buffer) -> str:
    """Encode bit for bit, as halves or as a palette where that is smaller; returns how, or nothing for a dense tensor
    of its own type."""
    stored, stored_dtype = dense.narrow(raw, tensor.dtype)
    exact = _encode_exact(writer, out, tensor, raw, _dense_estimate(writer, stored))
    if exact:
        return exact
    dense.encode(writer, out.dense, stored, stored_dtype, tensor.elements)
    return "" if stored_dtype == tensor.dtype else f"its values are {dtypes.name(stored_dtype)}, without loss"


def _floats(tensor: SourceTensor, raw: Buffer) -> npt.NDArray[Any]:
    if tensor.dtype not in dtypes.QUANTIZABLE:
        raise _Declined(f"{dtypes.name(tensor.dtype)} values are kept as they are")
    weights = dtypes.from_raw(raw, tensor.dtype, tensor.dims)
    if not all(np.isfinite(piece).all() for piece in pieces(weights)):
        raise _Declined("it holds values that are not finite")
    return weights


def _encode_by_rule(writer: PayloadWriter, out: pb.Tensor, tensor: SourceTensor, rule: Rule, raw: Buffer) -> Outcome:
    weights = _floats(tensor, raw)
    if rule.encoding == rules.FLOAT16:
        return _encode_half(writer, out, tensor, weights, raw)
    if rule.encoding == rules.AFFINE:
        return _encode_steps(writer, out, tensor, weights, rule, raw)
    if rule.encoding == rules.RATE_DISTORTION:
        return _encode_priced(writer, out, tensor, weights, rule, raw)
    if rule.encoding == rules.PRODUCT:
        return _encode_product(writer, out, tensor, weights, rule, raw)
    return _encode_palette(writer, out, tensor, weights, rule, raw)


def _encode_product(
    writer: PayloadWriter, out: pb.Tensor, tensor: SourceTensor, weights: npt.NDArray[Any], rule: Rule, raw: Buffer
) -> Outcome:
    _check_rows(tensor, 8)
    rows = matrix.to_matrix(weights, tensor.order.view, tensor.order.perm, _row_axes(tensor))
    product = tensor_product(tensor, rule, plain_response(np.ascontiguousarray(rows, np.float32)), seed=0)
    if product.size + _PALETTE_BYTES >= _dense_estimate(writer, raw):
        raise _Declined("product codebooks would not be smaller")
    decoded = matrix.from_matrix(product.decoded, tensor.order.view, tensor.order.perm, tensor.dims)
    loss = measure(weights, pieces(decoded.astype(weights.dtype, copy=False)))
    _write_quantized(writer, out, product_value(product, tensor.order))
    return _outcome(out, loss, product_words(product))


def _encode_priced(
    writer: PayloadWriter, out: pb.Tensor, tensor: SourceTensor, weights: npt.NDArray[Any], rule: Rule, raw: Buffer
) -> Outcome:
    codebook = priced_codebook(weights.astype(np.float32, copy=False), rule)
    _check_rows(tensor, matrix.depth_for(codebook.table.size))
    if codebook.size + _PALETTE_BYTES >= _dense_estimate(writer, raw):
        raise _Declined("a palette would not be smaller")
    exact = exact_codebook(weights, codebook.table.size)
    if exact is not None:
        codebook = exact
    loss = measure(weights, codebook.decoded(weights.dtype))
    _write_codebook(writer, out, tensor, codebook)
    bits = 8 * codebook.size / tensor.elements
    what = "its own values" if exact is not None else str(codebook.table.size)
    aim = f"for {rule.sqnr:g} dB" if rule.sqnr else "by price"
    return _outcome(out, loss, f"palette of {what} {aim}, {bits:.2f} bits a weight at entropy")


def _encode_half(
    writer: PayloadWriter, out: pb.Tensor, tensor: SourceTensor, weights: npt.NDArray[Any], raw: Buffer
) -> Outcome:
    if tensor.dtype == DType.FLOAT16:
        exact = _encode_as_it_is(writer, out, tensor, raw)
        return Outcome(KEPT, exact or "it is float16 already", zlib.crc32(raw), None)
    with np.errstate(over="ignore"):
        half = weights.astype("<f2")
    if not np.isfinite(half).all():
        largest = float(np.abs(weights).max())
        raise _Declined(f"it does not fit float16: its largest magnitude is {largest:.6g}, float16 ends at 65504")
    loss = measure(weights, (piece.astype("<f4") for piece in pieces(half)))
    if loss.sqnr_db is not None and loss.sqnr_db < _HALF_FLOOR_DB:
        raise _Declined(f"float16 is too coarse for values this small: {loss.sqnr_db:.1f} dB")
    halves = half.reshape(-1).data.cast("B")
    exact = _encode_exact(writer, out, tensor, raw, _dense_estimate(writer, halves))
    if exact:
        return Outcome(KEPT, exact, zlib.crc32(raw), None)
    dense.encode(writer, out.dense, halves, DType.FLOAT16, tensor.elements)
    return _outcome(out, loss, "rounded to float16")


def _outcome(out: pb.Tensor, loss: Loss, how: str) -> Outcome:
    message = loss.message()
    if message is None:
        return Outcome(QUANTIZED, f"{how}, without loss", loss.crc32, loss)
    out.loss.CopyFrom(message)
    return Outcome(QUANTIZED, how, loss.crc32, loss)


def _encode_palette(
    writer: PayloadWriter, out: pb.Tensor, tensor: SourceTensor, weights: npt.NDArray[Any], rule: Rule, raw: Buffer
) -> Outcome:
    _check_rows(tensor, matrix.depth_for(rule.entries))
    # A table that is larger than what it saves: no entropy coder can make up for it.
    if tensor.elements * dtypes.bits(tensor.dtype) <= 16 * min(rule.entries, tensor.elements) + tensor.elements:
        raise _Declined("a palette would not be smaller")
    codebook = exact_codebook(weights, rule.entries)
    how = f"palette of {rule.entries}" if codebook is None else "palette of its own values"
    if codebook is None:
        codebook = optimal_codebook(weights.astype(np.float32, copy=False), rule.entries)
    if codebook.size >= _dense_estimate(writer, raw):
        raise _Declined("a palette would not be smaller")
    loss = measure(weights, codebook.decoded(weights.dtype))
    _write_codebook(writer, out, tensor, codebook)
    return _outcome(out, loss, how)


def _write_codebook(writer: PayloadWriter, out: pb.Tensor, tensor: SourceTensor, codebook: Codebook) -> None:
    _set_order(out.palette.codes, tensor)
    codes = matrix.to_matrix(codebook.codes, tensor.order.view, tensor.order.perm, _row_axes(tensor))
    palette.encode(writer, out.palette, codes, codebook.table.reshape(1, -1, 1))


def _set_order(codes: pb.Codes, tensor: SourceTensor) -> None:
    codes.view.extend(tensor.order.view)
    codes.perm.extend(tensor.order.perm)
    codes.row_axes = _row_axes(tensor)


def _row_axes(tensor: SourceTensor) -> int:
    return min(tensor.order.row_axes, len(tensor.order.view or tensor.dims))


def _check_rows(tensor: SourceTensor, depth: int) -> None:
    view = tensor.order.view or tensor.dims
    perm = tensor.order.perm or range(len(view))
    columns = elements_of([view[axis] for axis in perm][_row_axes(tensor) :])
    if codes_shape(1, columns, depth).raw_size > FORMAT_LIMITS.block:
        raise _Declined("a row of codes is longer than the format's 16 MiB")


def _encode_steps(
    writer: PayloadWriter, out: pb.Tensor, tensor: SourceTensor, weights: npt.NDArray[Any], rule: Rule, raw: Buffer
) -> Outcome:
    _check_rows(tensor, rule.bits)
    rows = matrix.to_matrix(weights, tensor.order.view, tensor.order.perm, _row_axes(tensor))
    if rows.shape[1] * dtypes.bits(tensor.dtype) <= 32 + rows.shape[1] * rule.bits:
        raise _Declined("affine codes with a scale for each row would not be smaller")
    steps = symmetric_steps(rows.astype(np.float32, copy=False), rule.bits)
    if (steps.scales <= SMALLEST_SCALE).any():
        raise _Declined("affine codes are too coarse for values this small")
    exact = _encode_exact(writer, out, tensor, raw, rule.bits * tensor.elements / 8)
    if exact:
        return Outcome(KEPT, exact, zlib.crc32(raw), None)
    decoded = np.empty(rows.shape, weights.dtype)
    first_row = 0
    for block in steps.decoded_rows():
        decoded[first_row : first_row + len(block)] = block
        first_row += len(block)
    loss = measure(weights, pieces(matrix.from_matrix(decoded, tensor.order.view, tensor.order.perm, tensor.dims)))
    _set_order(out.affine.codes, tensor)
    out.affine.by.row_group = 1
    affine.encode(writer, out.affine, steps.codes, rule.bits, steps.scales, None)
    return _outcome(out, loss, f"affine {rule.bits} bit, a scale for each row")


def _encode_exact(writer: PayloadWriter, out: pb.Tensor, tensor: SourceTensor, raw: Buffer, rival: float) -> str:
    """A palette that reproduces every bit, where the tensor has few distinct values and it takes less than ``rival``
    bytes, those of what would be stored instead; returns how, or nothing."""
    if tensor.dtype not in dtypes.QUANTIZABLE or tensor.elements < 64:
        return ""
    weights = dtypes.from_raw(raw, tensor.dtype, tensor.dims)
    codebook = exact_codebook(weights, EXACT_ENTRIES)
    if codebook is None or codebook.size + 64 >= rival:
        return ""
    try:
        _check_rows(tensor, matrix.depth_for(codebook.table.size))
    except _Declined:
        return ""
    _write_codebook(writer, out, tensor, codebook)
    return f"palette of its own {codebook.table.size} values, without loss"


def _dense_estimate(writer: PayloadWriter, raw: Buffer) -> float:
    """Bytes that ``raw`` will take as a dense tensor, from its first 64 KiB."""
    sample = memoryview(raw).cast("B")[: 1 << 16]
    return len(raw) * len(writer.encode_bytes(sample)[1]) / max(len(sample), 1)


def _encode_finished(writer: PayloadWriter, out: pb.Tensor, tensor: SourceTensor) -> Outcome:
    """A value that the source holds quantized already: the same codes and tables, not quantized again."""
    assert tensor.quantized is not None
    _write_quantized(writer, out, tensor.quantized)
    return Outcome(KEPT, "quantized in the source, codes and tables as they are", zlib.crc32(tensor.read()), None)


def _write_quantized(writer: PayloadWriter, out: pb.Tensor, value: QuantizedValue) -> None:
    if isinstance(value.encoding, pb.Affine):
        assert value.scales is not None
        out.affine.CopyFrom(value.encoding)
        depth = out.affine.codes.depth or 8
        affine.encode(writer, out.affine, value.codes, depth, value.scales, value.zeros)
    else:
        assert value.tables is not None
        out.palette.CopyFrom(value.encoding)
        palette.encode(writer, out.palette, value.codes, value.tables, scales=value.scales)
