"""A tensor of any encoding: its values, codes and tables, and whether its content keeps the writer's rules."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from mobilemodel import dtypes
from mobilemodel.encodings import affine, dense, matrix, packing, palette
from mobilemodel.encodings.packing import Codes
from mobilemodel.encodings.payloads import PayloadSource, read_matrix
from mobilemodel.errors import MalformedContentError
from mobilemodel.layout import CodesLayout, elements_of, tensor_layout
from mobilemodel.v1 import bundle_pb2 as pb

SMALLEST_NORMAL = 2.0**-126


def decode_raw(source: PayloadSource, tensor: pb.Tensor) -> bytes | bytearray | memoryview:
    """The tensor's values as ONNX ``raw_data`` of its type."""
    if tensor.WhichOneof("encoding") == "dense":
        return dense.decode(source, tensor.dense, tensor.dtype, tensor.dims)
    return memoryview(np.ascontiguousarray(decode(source, tensor))).cast("B") if elements_of(tensor.dims) else b""


def decode(source: PayloadSource, tensor: pb.Tensor) -> npt.NDArray[Any]:
    """The tensor's values as an array of its dims and type.

    Raises MalformedStreamError or PayloadChecksumError where its payloads are damaged, and the errors of
    ``layout.tensor_layout``.
    """
    codes = tensor_layout(tensor).codes
    if codes is None:
        raw = dense.decode(source, tensor.dense, tensor.dtype, tensor.dims)
        return dtypes.from_raw(raw, tensor.dtype, tuple(tensor.dims))
    kind = np.dtype("<f2" if tensor.dtype == dtypes.DType.FLOAT16 else "<f4")
    out = np.empty((codes.rows, codes.columns), kind)
    for first_row, values in decode_blocks(source, tensor, codes):
        with np.errstate(over="ignore"):
            out[first_row : first_row + len(values)] = values
    return matrix.from_matrix(out, codes, tensor.dims)


def decode_blocks(source: PayloadSource, tensor: pb.Tensor, codes: CodesLayout) -> Iterator[tuple[int, Any]]:
    """Blocks of rows of a palette or affine tensor, in float32 and in the order of its matrix."""
    if tensor.WhichOneof("encoding") == "palette":
        return palette.decode_blocks(source, tensor.palette, codes)
    return affine.decode_blocks(source, tensor.affine, codes)


@dataclass(frozen=True)
class Quantized:
    """A palette or affine tensor without its arithmetic: codes (rows x codes_per_row) and what they name."""

    codes: Codes
    tables: npt.NDArray[Any] | None
    """palette: tables x entries x vector, in their stored type"""
    scales: npt.NDArray[Any] | None
    zeros: npt.NDArray[Any] | None


def read_parameters(source: PayloadSource, tensor: pb.Tensor, codes: CodesLayout) -> Quantized:
    """Tables, scales and zero points of a palette or affine tensor; its codes are left out (empty)."""
    none = np.empty((0, 0), np.uint8)
    if tensor.WhichOneof("encoding") == "affine":
        zeros = affine.read_zeros(source, tensor.affine, codes)
        return Quantized(none, None, affine.read_scales(source, tensor.affine), zeros)
    scales = None
    if tensor.palette.HasField("scales"):
        scales = palette.read_floats(source, tensor.palette.scales, tensor.palette.scale_type)
    return Quantized(none, palette.read_tables(source, tensor.palette, codes), scales, None)


def verify(source: PayloadSource, tensor: pb.Tensor) -> None:
    """Decode a tensor block by block and check the rules that writers keep (spec/tensors.md §7).

    Memory stays within a few blocks. Raises MalformedContentError for a table or scale that is not finite, a scale
    that is not positive and normal, a product below 2^-126, a code that names no entry, spare bits that are not 0;
    the errors of decoding besides.
    """
    codes = tensor_layout(tensor).codes
    if codes is None:
        for _ in dense.decode_chunks(source, tensor.dense, tensor.dims):
            pass
        return
    parameters = read_parameters(source, tensor, codes)
    _verify_parameters(parameters)
    entries = tensor.palette.entries if parameters.tables is not None else codes.index_range
    for first_row, block in matrix.read_blocks(source, codes):
        if block.size and int(block.max()) >= entries:
            raise MalformedContentError(
                f"a code from row {first_row} on names no entry", expected=f"below {entries}", found=int(block.max())
            )
    for index in range(codes.blocks):
        shape = codes.plane_shape(index) if codes.split else codes.plain_shape(index)
        payload = codes.first_payload + index * (2 if codes.split else 1)
        if not packing.spare_bits_are_zero(read_matrix(source, payload, shape), shape):
            raise MalformedContentError(f"spare bits of payload {payload} are not 0")


def _verify_parameters(parameters: Quantized) -> None:
    tables, scales = parameters.tables, parameters.scales
    if tables is not None and not np.isfinite(tables).all():
        raise MalformedContentError("a table holds a value that is not finite")
    if scales is None:
        return
    wide = scales.astype(np.float64)
    if not (np.isfinite(wide).all() and (wide >= SMALLEST_NORMAL).all()):
        raise MalformedContentError("a scale is not finite, positive and normal")
    if tables is not None and tables.size and wide.size:
        sizes = np.abs(tables.astype(np.float64))
        smallest = sizes[sizes > 0]
        if smallest.size and smallest.min() * wide.min() < SMALLEST_NORMAL:
            raise MalformedContentError("an entry times a scale may be smaller than 2^-126")
