"""ONNX graph + nnc tensor store -> Model: the store's values take the place of the graph's by name.

What the store holds as palettes stays as it is: the same indices under the same codebooks (spec/tensors.md §5).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from functools import partial

import numpy as np
import numpy.typing as npt

from mobilemodel import dtypes
from mobilemodel.dtypes import DType
from mobilemodel.errors import MalformedSourceError, MobileModelError, UnsupportedSourceError
from mobilemodel.limits import FORMAT_LIMITS
from mobilemodel.model import Buffer, Model, QuantizedValue, SourceTensor
from mobilemodel_converters.ccv import store
from mobilemodel_converters.ccv.database import Database
from mobilemodel_converters.ccv.store import Palettes, StoredTensor, listed
from mobilemodel_converters.quantized import palette_value

SOURCE_FORMAT = "ccv nnc tensors"
_FLOATS = frozenset((DType.FLOAT, DType.FLOAT16, DType.DOUBLE, DType.BFLOAT16))
_PIECE = 1 << 16
_LONGEST_ROW = 1 << 18
"""codes: readers hold a row at least, and a few words for each of its codes"""
_SHORT_ROW = 64
"""codes of a row that is not worth what rows cost in a file"""


def with_store(model: Model, database: Database) -> Model:
    """The model with the values of the store, each under its own name or as ``__model__[name]``.

    Closing the model closes the store too. Raises UnsupportedSourceError where the store has none of the graph's
    names or a tensor that does not fit the graph, MalformedSourceError, LimitExceededError.
    """
    rows = store.read_store(database)
    if not rows:
        raise MalformedSourceError("the tensor store is empty")
    names = _matches(rows, [tensor.name for tensor in model.tensors])
    inside = _matches(rows, [tensor.name for tensor in model.inline])
    if not names and not inside:
        raise UnsupportedSourceError("the tensor store has no tensor of the graph's names",
                                     expected=listed([tensor.name for tensor in model.tensors]),
                                     found=listed(sorted(rows)))  # fmt: skip
    for inline in model.inline:
        if inline.name in inside:
            raise UnsupportedSourceError("the store names a value that stays inside the graph", tensor=inline.name,
                                         found=inline.reason)  # fmt: skip
    tensors = tuple(_taken(database, t, names[t.name]) if t.name in names else t for t in model.tensors)
    moved = frozenset(tensor.name for tensor in model.tensors if tensor.name in names and tensor.hoisted)
    build_graph = model.build_graph

    def close() -> None:
        model.close()
        database.close()

    return replace(
        model,
        # A constant that the store replaces leaves its node whatever the scheme: there it would keep its old value.
        build_graph=lambda hoisted: build_graph(hoisted | moved),
        tensors=tensors,
        sources=(*model.sources, database.file.record(SOURCE_FORMAT)),
        notes=(*model.notes, *_notes(rows, names, len(model.tensors))),
        close=close,
    )


def _matches(rows: dict[str, StoredTensor], names: list[str]) -> dict[str, StoredTensor]:
    """The store's tensor of each name. Raises UnsupportedSourceError where two rows mean one name."""
    found = {}
    for name in names:
        spellings = [spelling for spelling in (name, f"__model__[{name}]") if spelling in rows]
        if len(spellings) > 1:
            raise UnsupportedSourceError("the store has a tensor twice", tensor=name, found=" and ".join(spellings))
        if spellings:
            found[name] = rows[spellings[0]]
    return found


def _notes(rows: dict[str, StoredTensor], names: dict[str, StoredTensor], all_tensors: int) -> list[str]:
    notes = [f"{len(names)} of the graph's {all_tensors} tensors come from the tensor store"]
    unknown = sorted(set(rows) - {row.name for row in names.values()})
    if unknown:
        notes.append(f"the graph has no tensor for {len(unknown)} of the store's names: {listed(unknown)}")
    return notes


def _taken(database: Database, tensor: SourceTensor, stored: StoredTensor) -> SourceTensor:
    """The graph's tensor with the store's value."""
    try:
        if stored.dims != tensor.dims:
            raise UnsupportedSourceError("the store's tensor has other dims than the graph's", found=list(stored.dims),
                                         expected=list(tensor.dims))  # fmt: skip
        if not stored.ordered:
            raise UnsupportedSourceError("the store's tensor has its channels last", expected="format NCHW")
        raw = store.raw_type(stored)
        if raw is None:
            value, read = _quantized(tensor, *store.read_palettes(database, stored))
            return replace(tensor, read=read, quantized=value, hoisted=False)
        store.check_raw(stored, raw)
        if raw != tensor.dtype and not (raw in _FLOATS and tensor.dtype in _FLOATS):
            raise UnsupportedSourceError("the store's tensor has another type than the graph's",
                                         expected=dtypes.name(tensor.dtype), found=dtypes.name(raw))  # fmt: skip
        return replace(tensor, read=partial(_read, database, stored, raw, tensor.dtype), quantized=None, hoisted=False)
    except MobileModelError as error:
        # The row's name may have another spelling than the graph's.
        raise error.within(file=str(database.path), tensor=stored.name) from None


def _read(database: Database, stored: StoredTensor, raw: DType, dtype: int) -> Buffer:
    try:
        content = store.read_raw(database, stored, raw)
        if raw == dtype:
            return content
        return _exactly(np.frombuffer(content, dtypes.numpy_dtype(raw)), dtype).data.cast("B")
    except MobileModelError as error:
        raise error.within(file=str(database.path), tensor=stored.name) from None


def _exactly(values: npt.NDArray[np.generic], dtype: int) -> npt.NDArray[np.generic]:
    """Flat values in another float type; raises UnsupportedSourceError where one of them is not exact in it."""
    wanted = dtypes.numpy_dtype(dtype)
    out = np.empty(values.size, wanted)
    with np.errstate(all="ignore"):
        for first in range(0, values.size, _PIECE):
            piece = values[first : first + _PIECE]
            out[first : first + _PIECE] = piece.astype(wanted)
            wide = piece.astype(np.float64)
            lost = out[first : first + _PIECE].astype(np.float64) != wide
            lost &= ~np.isnan(wide)
            if lost.any():
                at = int(np.flatnonzero(lost)[0])
                raise UnsupportedSourceError(f"a value of the store is not exact in the graph's {dtypes.name(dtype)}",
                                             found=f"{float(wide[at])} at {first + at}")  # fmt: skip
    return out


def _quantized(
    tensor: SourceTensor, palettes: Palettes, indices: npt.NDArray[np.uint8], codebooks: npt.NDArray[np.generic]
) -> tuple[QuantizedValue, Callable[[], Buffer]]:
    """A palette tensor as a palette: one table for each of the store's blocks."""
    if tensor.dtype not in dtypes.QUANTIZABLE:
        raise UnsupportedSourceError("a palette for a tensor that is neither float32 nor float16",
                                     found=dtypes.name(tensor.dtype))  # fmt: skip
    if not np.isfinite(codebooks.astype(np.float64)).all():
        raise MalformedSourceError("a codebook holds a value that is not finite")
    # The table keeps its type where the format has it; what is read from it is exact in the graph's type.
    values = _exactly(codebooks.reshape(-1), tensor.dtype).reshape(codebooks.shape)
    kept = DType.FLOAT16 if palettes.dtype is DType.FLOAT16 else DType.FLOAT
    tables = _exactly(codebooks.reshape(-1), kept).reshape(len(codebooks), palettes.entries, 1)
    view, tables_by = _arranged(indices.size, palettes.block)

    def read() -> Buffer:
        out = np.empty(indices.size, values.dtype)
        for block in range(len(values)):
            span = slice(block * palettes.block, (block + 1) * palettes.block)
            out[span] = values[block][indices[span]]
        return out.data.cast("B")

    return palette_value(indices, tables, tensor.dims, view=view, tables_by=tables_by), read


def _arranged(count: int, block: int) -> tuple[tuple[int, int], tuple[int, int]]:
    """A view of ``count`` codes, and how many rows and codes of a row share a table, so that each block has its own.

    A block is some whole rows; where only very short rows divide all blocks, all codes are one row of whole blocks.

    >>> _arranged(4096 * 3072, 1280)
    ((49152, 256), (5, 0))
    >>> _arranged(999 * 777, 512)
    ((1, 776223), (0, 512))
    """
    row = math.gcd(count, block, _LONGEST_ROW)
    if row < _SHORT_ROW and count <= FORMAT_LIMITS.block:
        return (1, count), (0, block)
    return (count // row, row), (block // row, 0)
