"""Dense tensors: the values themselves, in chunks, as they are or as byte planes (spec/tensors.md §4)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import chain

import numpy as np
import numpy.typing as npt

from mobilemodel import dtypes, layout
from mobilemodel.codecs import Effort
from mobilemodel.encodings.payloads import PayloadSource, PayloadWriter, read_bytes, read_slice
from mobilemodel.limits import KIB, SMALL_DENSE
from mobilemodel.v1 import bundle_pb2 as pb

CHUNK_ELEMENTS = 128 * KIB
"""a byte plane then fills one zstd block, and each plane gets a Huffman table of its own"""

_NARROWED = 64 * KIB
"""values that are tried at a time: most tensors show at once that they are no halves"""


def decode_chunks(source: PayloadSource, dense: pb.Dense, dims: Sequence[int]) -> Iterator[bytes | memoryview]:
    """The raw bytes of each chunk in the stored type."""
    if dense.HasField("small"):
        yield read_slice(source, dense.small)
        return
    for index, count in enumerate(layout.dense_chunks(dense, layout.elements_of(dims))):
        raw = read_bytes(source, dense.first_payload + index)
        yield from_planes(raw, count) if dense.byte_planes else raw


def decode(source: PayloadSource, dense: pb.Dense, dtype: int, dims: Sequence[int]) -> bytearray:
    """The tensor's raw bytes in its own type: copies, or halves widened exactly to float32."""
    elements = layout.elements_of(dims)
    out = bytearray(dtypes.raw_size(dtype, elements))
    view = memoryview(out)
    position = 0
    for raw in decode_chunks(source, dense, dims):
        piece = raw if dense.stored_dtype == dtype else widen(raw, dense.stored_dtype)
        view[position : position + len(piece)] = piece
        position += len(piece)
    return out


def widen(raw: bytes | memoryview, stored_dtype: int) -> bytes:
    """Widen float16 or bfloat16 bytes to float32; every value is exact."""
    if stored_dtype == dtypes.DType.FLOAT16:
        with np.errstate(invalid="ignore"):
            return np.frombuffer(raw, "<f2").astype("<f4").tobytes()
    return (np.frombuffer(raw, "<u2").astype("<u4") << 16).tobytes()


def narrow(raw: bytes | bytearray | memoryview, dtype: int) -> tuple[bytes | bytearray | memoryview, int]:
    """The inverse of ``widen`` where there is one: the values and their type, float16 or bfloat16 where every float32
    survives that bit for bit, else as they came.

    >>> stored, dtype = narrow(np.array([1.5, -0.0], "<f4").tobytes(), dtypes.DType.FLOAT)
    >>> bytes(stored).hex(), dtypes.name(dtype)
    ('003e0080', 'float16')
    """
    if dtype != dtypes.DType.FLOAT:
        return raw, dtype
    bits = np.frombuffer(raw, "<u4")
    for stored_dtype, halve in ((dtypes.DType.FLOAT16, _float16_bits), (dtypes.DType.BFLOAT16, _bfloat16_bits)):
        halves = np.empty(bits.size, "<u2")
        for start in range(0, bits.size, _NARROWED):
            piece = bits[start : start + _NARROWED]
            halves[start : start + _NARROWED] = halve(piece)
            again = widen(halves[start : start + _NARROWED].tobytes(), stored_dtype)
            if not np.array_equal(np.frombuffer(again, "<u4"), piece):
                break
        else:
            return halves.data.cast("B"), stored_dtype
    return raw, dtype


def _float16_bits(bits: npt.NDArray[np.uint32]) -> npt.NDArray[np.uint16]:
    with np.errstate(over="ignore", invalid="ignore"):
        return bits.view("<f4").astype("<f2").view("<u2")


def _bfloat16_bits(bits: npt.NDArray[np.uint32]) -> npt.NDArray[np.uint16]:
    return (bits >> 16).astype("<u2")


def to_planes(raw: bytes | memoryview, item_size: int) -> bytes:
    """Regroup elements into planes: byte 0 of each element, then byte 1 of each, and so on.

    >>> to_planes(bytes([1, 2, 3, 4]), 2).hex()
    '01030204'
    """
    return np.ascontiguousarray(np.frombuffer(raw, np.uint8).reshape(-1, item_size).T).tobytes()


def from_planes(raw: bytes | memoryview, elements: int) -> bytes:
    """The inverse of ``to_planes``."""
    return np.ascontiguousarray(np.frombuffer(raw, np.uint8).reshape(-1, elements).T).tobytes()


def encode(
    writer: PayloadWriter,
    out: pb.Dense,
    raw: bytes | bytearray | memoryview,
    stored_dtype: int,
    elements: int,
    *,
    chunk_elements: int = CHUNK_ELEMENTS,
) -> None:
    """Write the raw bytes of ``elements`` values of ``stored_dtype``, and fill in ``out``.

    Up to 4 KiB go into a pool; more is cut every ``chunk_elements``, a multiple of 64. Byte planes are used where
    they make the first chunk smaller.
    """
    out.stored_dtype = stored_dtype
    if elements == 0:
        return
    if len(raw) <= SMALL_DENSE:
        writer.add_piece(bytes(raw), out.small)
        return
    item = dtypes.bits(stored_dtype) // 8
    out.chunk_elements = chunk_elements
    size = dtypes.raw_size(stored_dtype, chunk_elements)
    view = memoryview(raw).cast("B")
    chunks = [view[start : start + size] for start in range(0, len(view), size)]
    planes = item if item >= 2 else 0
    first = _encode_chunk(writer, chunks[0], size, planes)
    if planes and len(first[1]) >= len(writer.encode_bytes(chunks[0], Effort.QUICK)[1]):
        planes = 0
        first = _encode_chunk(writer, chunks[0], size, planes)
    out.byte_planes = planes > 0
    encoded = chain((first,), (_encode_chunk(writer, chunk, size, planes) for chunk in chunks[1:]))
    indices = [
        writer.sink.add(stored, codec, len(chunk)) for chunk, (codec, stored) in zip(chunks, encoded, strict=True)
    ]
    out.first_payload = indices[0]


def _encode_chunk(writer: PayloadWriter, chunk: memoryview, whole: int, planes: int) -> tuple[int, bytes]:
    """Codec and stored bytes of a chunk, as so many byte planes (0: as it is); all encoder settings are tried on one
    that is shorter than ``whole`` bytes, of which a tensor has no more than one."""
    effort = Effort.QUICK if len(chunk) == whole else Effort.THOROUGH
    if planes:
        return writer.encode_bytes(to_planes(chunk, planes), effort, len(chunk) // planes)
    return writer.encode_bytes(chunk, effort)
