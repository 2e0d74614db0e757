"""A tensor of any encoding: its values, codes and tables, and whether its content keeps the writer's rules."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from mobilemodel import dtypes
from mobilemodel.encodings import affine, dense, matrix, palette
from mobilemodel.encodings.payloads import PayloadSource
from mobilemodel.errors import MalformedContentError
from mobilemodel.layout import CodesLayout, tensor_layout
from mobilemodel.v1 import bundle_pb2 as pb

SMALLEST_NORMAL = 2.0**-126


def decode_raw(source: PayloadSource, tensor: pb.Tensor) -> bytes | bytearray | memoryview:
    """The tensor's values as ONNX ``raw_data`` of its type."""
    if tensor.WhichOneof("encoding") == "dense":
        return dense.decode(source, tensor.dense, tensor.dtype, tensor.dims)
    values = np.ascontiguousarray(decode(source, tensor))  # without elements too: its tables may be damaged
    return values.data.cast("B") if values.size else b""


def decode(source: PayloadSource, tensor: pb.Tensor) -> npt.NDArray[Any]:
    """The tensor's values as an array of its dims and type.

    Raises MalformedStreamError or PayloadChecksumError where its payloads are damaged, and the errors of
    ``layout.tensor_layout``.
    """
    codes = tensor_layout(tensor).codes
    if codes is None:
        raw = dense.decode(source, tensor.dense, tensor.dtype, tensor.dims)
        return dtypes.from_raw(raw, tensor.dtype, tuple(tensor.dims))
    out = np.empty((codes.rows, codes.columns), dtypes.numpy_dtype(tensor.dtype))
    for first_row, values in decode_blocks(source, tensor, codes):
        with np.errstate(all="ignore"):
            out[first_row : first_row + len(values)] = values
    return matrix.from_matrix(out, codes.view, codes.perm, tensor.dims)


def decode_blocks(source: PayloadSource, tensor: pb.Tensor, codes: CodesLayout) -> Iterator[tuple[int, Any]]:
    """Blocks of rows of a palette or affine tensor, in float32 and in the order of its matrix."""
    if tensor.WhichOneof("encoding") == "palette":
        return palette.decode_blocks(source, tensor.palette, codes)
    return affine.decode_blocks(source, tensor.affine, codes)


@dataclass(frozen=True)
class Parameters:
    """What the codes of a palette or affine tensor name, in its stored type."""

    tables: npt.NDArray[Any] | None
    """palette: tables x entries x vector"""
    scales: npt.NDArray[Any] | None
    zeros: npt.NDArray[Any] | None


def read_parameters(source: PayloadSource, tensor: pb.Tensor, codes: CodesLayout) -> Parameters:
    """Tables, scales and zero points of a palette or affine tensor."""
    if tensor.WhichOneof("encoding") == "affine":
        zeros = affine.read_zeros(source, tensor.affine, codes)
        return Parameters(None, affine.read_scales(source, tensor.affine), zeros)
    scales = palette.read_scales(source, tensor.palette)
    return Parameters(palette.read_tables(source, tensor.palette, codes), scales, None)


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
    for first_row, block in matrix.read_blocks(source, codes, strict=True):
        if int(block.max()) >= entries:
            raise MalformedContentError(
                f"a code from row {first_row} on names no entry", expected=f"below {entries}", found=int(block.max())
            )
        if parameters.tables is not None and parameters.scales is not None:
            _verify_products(tensor.palette, codes, parameters, first_row, len(block))


def _verify_parameters(parameters: Parameters) -> None:
    if parameters.tables is not None and not np.isfinite(parameters.tables).all():
        raise MalformedContentError("a table holds a value that is not finite")
    if parameters.scales is not None:
        scales = parameters.scales.astype(np.float64)
        if not (np.isfinite(scales).all() and (scales >= SMALLEST_NORMAL).all()):
            raise MalformedContentError("a scale is not finite, positive and normal")


def _verify_products(
    message: pb.Palette, codes: CodesLayout, parameters: Parameters, first_row: int, rows: int
) -> None:
    """Each table's smallest value but 0, times each scale that meets it: float64 holds the product exactly."""
    assert parameters.tables is not None
    assert parameters.scales is not None
    sizes = np.abs(parameters.tables.astype(np.float64)).reshape(len(parameters.tables), -1)
    smallest = np.where(sizes > 0, sizes, np.inf).min(axis=1)
    scales = parameters.scales.astype(np.float64)
    table_of = matrix.group_index(codes, message.tables_by, first_row, rows)
    scale_of = matrix.group_index(codes, message.scales_by, first_row, rows)
    if (smallest[table_of] * scales[scale_of] < SMALLEST_NORMAL).any():
        raise MalformedContentError("an entry times its scale is smaller than 2^-126")
