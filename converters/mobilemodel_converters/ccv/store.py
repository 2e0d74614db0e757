"""The rows of an nnc tensor store: what each name is, and its values out of the codecs that it may lie in.

The store is a key-value table without a topology. Source: ccv's nnc tensor storage code, and the codecs of its Swift
binding s4nnc.
"""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from mobilemodel import dtypes
from mobilemodel.dtypes import DType
from mobilemodel.errors import LimitExceededError, MalformedSourceError, UnsupportedSourceError, escape
from mobilemodel.layout import ceil_div, elements_of
from mobilemodel.limits import FORMAT_LIMITS
from mobilemodel_converters.bits import unpack
from mobilemodel_converters.ccv import schema
from mobilemodel_converters.ccv.database import Blob, Database, Row

_COLUMNS = ("name", "type", "format", "datatype", "dim", "data")
_MOST_DIMS = 12
_NCHW = 1
_KINDS = {
    0x1000: DType.UINT8, 0x2000: DType.INT32, 0x4000: DType.FLOAT, 0x8000: DType.INT64, 0x10000: DType.DOUBLE,
    0x20000: DType.FLOAT16, 0x80000: DType.BFLOAT16,
}  # fmt: skip
_PALETTE = 0x40000
_ZIP = 0x217
_PALETTE_CODECS = {0x8A1E4B: 4, 0x8A1E5B: 5, 0x8A1E6B: 6, 0x8A1E7B: 7, 0x8A1E8B: 8}
"""bits of an index: q4p to q8p, the length of a block and then a palette tensor's data"""
_OTHER_CODECS = {0x511: "ezm7", 0xF7217: "fpzip", 0x8A1E9B: "i8x"}
_ELSEWHERE = 1 << 28
"""the data lie in a file of their own, and the BLOB says where"""
_DEFLATE_MOST = 1032


@dataclass(frozen=True)
class Palettes:
    """How a palette tensor is cut: each block of indices has a codebook of its own before it."""

    bits: int
    block: int
    """indices of a block; the last may be shorter"""
    dtype: DType
    """of a codebook's entries"""

    @property
    def entries(self) -> int:
        """Entries of each codebook."""
        return 1 << self.bits

    @property
    def codebook_bytes(self) -> int:
        """Bytes of one codebook."""
        return self.entries * dtypes.bits(self.dtype) // 8

    def blocks(self, count: int) -> int:
        """Blocks of a tensor of ``count`` values."""
        return ceil_div(count, self.block)

    def size(self, count: int) -> int:
        """Bytes of a tensor of ``count`` values."""
        return self.blocks(count) * self.codebook_bytes + ceil_div(count * self.bits, 8)


@dataclass(frozen=True)
class StoredTensor:
    """One row of the store, not read yet."""

    name: str
    dims: tuple[int, ...]
    ordered: bool
    """its axes are in ONNX's order: channels before rows and columns"""
    kind: int
    """``datatype`` without the block length"""
    block: int
    codec: int
    data: Blob

    @property
    def count(self) -> int:
        """Number of values."""
        return elements_of(self.dims)


def read_store(database: Database) -> dict[str, StoredTensor]:
    """All rows of the store by name. Raises MalformedSourceError, LimitExceededError."""
    database.columns(schema.TENSORS, _COLUMNS)
    found: dict[str, StoredTensor] = {}
    for row in database.rows(schema.TENSORS, _COLUMNS, FORMAT_LIMITS.tensors):
        name = row["name"]
        if not isinstance(name, str):
            raise MalformedSourceError("a tensor's name", found="none" if name is None else "long text, or no text",
                                       expected=f"text of at most {FORMAT_LIMITS.name} characters")  # fmt: skip
        if name in found:
            raise MalformedSourceError("two tensors of one name", tensor=name)
        found[name] = _stored(database, name, row)
    return found


def _stored(database: Database, name: str, row: Row) -> StoredTensor:
    numbers = {}
    for column in ("type", "format", "datatype"):
        value = row[column]
        if not isinstance(value, int):
            raise MalformedSourceError(f"column {column}", tensor=name, expected="a whole number",
                                       found="NULL" if value is None else "another type")  # fmt: skip
        numbers[column] = value & (2**64 - 1)
    data, dim = row["data"], row["dim"]
    if not isinstance(data, Blob) or not isinstance(dim, Blob):
        raise MalformedSourceError("dim and data are BLOBs", tensor=name)
    dims = _dims(database, name, dim)
    return StoredTensor(
        name, dims, numbers["format"] == _NCHW or len(dims) < 3, numbers["datatype"] & 0xFFFFFFFF,
        numbers["datatype"] >> 32, numbers["type"] >> 32, data,
    )  # fmt: skip


def _dims(database: Database, name: str, blob: Blob) -> tuple[int, ...]:
    """Axes up to the first 0; older files have room for fewer."""
    if blob.size % 4 or blob.size > 1024:
        raise MalformedSourceError("dim is a list of int32", tensor=name, found=f"{blob.size} bytes")
    values = np.frombuffer(database.read(blob), "<i4")[:_MOST_DIMS].tolist()
    dims = tuple(values[: values.index(0)] if 0 in values else values)
    if not dims or min(dims) < 0:
        raise MalformedSourceError("dims of a tensor", tensor=name, expected="at least one, above 0", found=dims)
    if elements_of(dims) > FORMAT_LIMITS.elements:
        raise LimitExceededError("values of a tensor", tensor=name, expected=f"at most {FORMAT_LIMITS.elements}",
                                 found=dims)  # fmt: skip
    return dims


def codec_name(codec: int) -> str:
    """A codec identifier for people.

    >>> codec_name(0x511), codec_name(0x8A1EAB), codec_name(3)
    ('ezm7', 'a K-quant codec (0x8a1eab)', 'codec 0x3')
    """
    if codec >> 8 == 0x8A1E and 0xAB <= codec & 0xFF <= 0xB4:
        return f"a K-quant codec ({codec:#x})"
    return _OTHER_CODECS.get(codec, f"codec {codec:#x}")


def raw_type(stored: StoredTensor) -> DType | None:
    """The type of a tensor that is stored value by value; None for palette tensors.

    Raises UnsupportedSourceError for a codec or type that is not read here.
    """
    if stored.codec & _ELSEWHERE:
        raise UnsupportedSourceError("the tensor's data lie in a file of their own", tensor=stored.name,
                                     advice="Write the store with its data inside.")  # fmt: skip
    if stored.codec in _PALETTE_CODECS:
        return None
    if stored.codec not in (0, _ZIP):
        raise UnsupportedSourceError(
            "a tensor in a codec that is not read here", tensor=stored.name, expected="raw data, zip or q4p to q8p",
            found=codec_name(stored.codec), advice="Write the store with one of these.",
        )  # fmt: skip
    if stored.kind & ~0xFFF == _PALETTE:
        return None
    if stored.kind not in _KINDS:
        raise UnsupportedSourceError("a tensor of an unknown type", tensor=stored.name, found=f"{stored.kind:#x}")
    return _KINDS[stored.kind]


def read_raw(database: Database, stored: StoredTensor, dtype: DType) -> bytes:
    """The values of a tensor that is stored value by value, little-endian.

    Raises MalformedSourceError where they are not as many bytes as the dims ask for.
    """
    return _content(database, stored, dtypes.raw_size(dtype, stored.count))


def check_raw(stored: StoredTensor, dtype: DType) -> None:
    """Check the length of raw data without reading them; that of zip shows when they are read."""
    if stored.codec != _ZIP:
        _check_size(stored, dtypes.raw_size(dtype, stored.count))


def _check_size(stored: StoredTensor, size: int) -> None:
    if stored.data.size != size:
        raise MalformedSourceError("the tensor's data are not whole", tensor=stored.name,
                                   expected=f"{size} bytes for dims {list(stored.dims)}",
                                   found=f"{stored.data.size} bytes")  # fmt: skip


def _content(database: Database, stored: StoredTensor, size: int) -> bytes:
    """``size`` bytes, out of zip where they are in it; memory stays within them."""
    if stored.codec != _ZIP:
        _check_size(stored, size)
        return database.read(stored.data)
    if size > _DEFLATE_MOST * stored.data.size + 1024:
        raise MalformedSourceError("the tensor's zip data are too short", tensor=stored.name,
                                   expected=f"what becomes {size} bytes",
                                   found=f"{stored.data.size} bytes")  # fmt: skip
    stream = zlib.decompressobj()
    try:
        raw = stream.decompress(database.read(stored.data), size + 1)
    except zlib.error as error:
        raise MalformedSourceError(f"the tensor's zip data: {error}", tensor=stored.name) from None
    if len(raw) != size or not stream.eof:
        raise MalformedSourceError("the tensor's zip data have another size", tensor=stored.name,
                                   expected=f"{size} bytes")  # fmt: skip
    return raw


def read_palettes(
    database: Database, stored: StoredTensor
) -> tuple[Palettes, npt.NDArray[np.uint8], npt.NDArray[np.generic]]:
    """A palette tensor: how it is cut, its indices in their order, and its codebooks, blocks x entries.

    Raises MalformedSourceError, UnsupportedSourceError.
    """
    if stored.codec in _PALETTE_CODECS:
        content = database.read(stored.data)
        if len(content) < 4:
            raise MalformedSourceError("a palette tensor without a block length", tensor=stored.name)
        palettes = _palettes(stored, _PALETTE_CODECS[stored.codec], int.from_bytes(content[:4], "little"), stored.kind)
        _check_size(stored, 4 + palettes.size(stored.count))
        content = content[4:]
    else:
        kind = (stored.kind & 0xFF) << 12
        palettes = _palettes(stored, (stored.kind >> 8) & 0xF, stored.block, kind)
        content = _content(database, stored, palettes.size(stored.count))
    indices, codebooks = _split(content, palettes, stored.count)
    return palettes, indices, codebooks


def _palettes(stored: StoredTensor, bits: int, block: int, kind: int) -> Palettes:
    if not 4 <= bits <= 8:
        raise MalformedSourceError("bits of a palette tensor", tensor=stored.name, expected="4 to 8", found=bits)
    if kind not in _KINDS or _KINDS[kind] not in (DType.FLOAT, DType.FLOAT16, DType.DOUBLE, DType.BFLOAT16):
        raise UnsupportedSourceError("the type of a codebook", tensor=stored.name, found=f"{kind:#x}",
                                     expected="a float type")  # fmt: skip
    if block < 1 or (block < stored.count and block * bits % 8):
        raise MalformedSourceError("the block length of a palette tensor", tensor=stored.name, found=block,
                                   expected="at least 1, its indices whole bytes")  # fmt: skip
    palettes = Palettes(bits, min(block, stored.count), _KINDS[kind])
    if palettes.blocks(stored.count) * palettes.entries > FORMAT_LIMITS.table_values:
        raise LimitExceededError("entries of all codebooks", tensor=stored.name,
                                 expected=f"at most {FORMAT_LIMITS.table_values}",
                                 found=palettes.blocks(stored.count) * palettes.entries)  # fmt: skip
    return palettes


def _split(content: bytes, palettes: Palettes, count: int) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.generic]]:
    """Take blocks apart: codebook, then indices, the first in the high bits."""
    indices = np.empty(count, np.uint8)
    dtype = dtypes.numpy_dtype(palettes.dtype)
    codebooks = np.empty((palettes.blocks(count), palettes.entries), dtype)
    stride = palettes.codebook_bytes + palettes.block * palettes.bits // 8
    for block in range(palettes.blocks(count)):
        start, first = block * stride, block * palettes.block
        codebooks[block] = np.frombuffer(content, dtype, palettes.entries, start)
        wanted = min(palettes.block, count - first)
        packed = np.frombuffer(content, np.uint8, ceil_div(wanted * palettes.bits, 8), start + palettes.codebook_bytes)
        indices[first : first + wanted] = unpack(packed, palettes.bits, wanted)
    return indices, codebooks


def listed(names: Sequence[str], most: int = 8) -> str:
    """Names for a sentence, not more than fit one.

    >>> listed(["a", "b", "c"], most=2)
    'a, b and 1 more'
    """
    shown = ", ".join(escape(name, 60) for name in names[:most])
    return shown if len(names) <= most else f"{shown} and {len(names) - most} more"
