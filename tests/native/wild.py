"""Hypothesis strategies for bundles that our writer never makes and that every reader has to read.

Codes that name no entry, values that are not finite, zero points out of range, bits that no value uses, any codec for
any payload, PNG rows with any filter, blocks and chunks far larger than their tensor, payloads that tensors share.
"""

from __future__ import annotations

import io
import math
import zlib
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt
import zstandard
from hypothesis import strategies as st

from mobilemodel import dtypes
from mobilemodel.codecs import Effort, Family
from mobilemodel.container import Spool, write_container
from mobilemodel.dtypes import DType
from mobilemodel.encodings import dense, packing
from mobilemodel.encodings.payloads import PayloadSink, PayloadWriter
from mobilemodel.layout import MatrixShape, codes_shape
from mobilemodel.v1 import bundle_pb2 as pb
from tests.conformance.builder import png_file
from tests.strategies import DEPTHS, Geometry, ceil_div, float_type, geometries, groupings, names, shapes

Array = npt.NDArray[Any]
Generator = np.random.Generator
ODD_FLOATS = (
    0x00000000, 0x80000000, 0x00000001, 0x807FFFFF, 0x00800000, 0x7F800000, 0xFF800000, 0x7FC00000, 0xFFC12345,
    0x7F812345, 0x7F7FFFFF, 0x3F801000, 0x3F803000, 0x477FEFFF, 0x477FF000, 0x33000000, 0x33000001, 0x33C00000,
    0xB2800000, 0x387FC000, 0x387FE000, 0x38800000, 0x3F801001,
)  # fmt: skip
"""zeros, subnormal numbers, infinities, NaNs of both kinds, ties and edges of binary16 (spec/tensors.md §8)"""


MOST_BLOCKS, MOST_VALUES = 24, 65_536
"""of a tensor, and of its tables: more of them would only take time"""


def any_floats(generator: Generator, kind: Any, count: int, wild: bool) -> Array:
    """Numbers of many sizes; with ``wild`` any bits at all, and those of ``ODD_FLOATS`` often."""
    if kind == np.float16:
        if wild:
            return generator.integers(0, 1 << 16, count, np.uint16).view(np.float16)
        return generator.standard_normal(count).astype(np.float16)
    sizes = np.exp2(generator.uniform(-20, 14, count))
    values = (generator.standard_normal(count) * sizes).astype(np.float32)
    if wild:
        bits = values.view(np.uint32)
        odd = generator.choice(np.array(ODD_FLOATS, np.uint32), count)
        any_bits = generator.integers(0, 1 << 32, count, np.uint32)
        bits[:] = np.choose(generator.integers(0, 3, count), (bits, odd, any_bits))
    return values


class AnyCodecs(PayloadWriter):
    """Draws a codec for each payload among those that its use allows, whether or not it makes it smaller."""

    def __init__(self, sink: PayloadSink, generator: Generator) -> None:
        super().__init__(sink, Family.FULL)
        self.generator = generator

    def encode_bytes(self, raw: bytes | memoryview, effort: Effort = Effort.QUICK, part: int = 0) -> tuple[int, bytes]:
        codec = self.generator.integers(0, 3) if len(raw) else 0
        if codec == 1:
            return pb.CODEC_ZLIB, self._zlib(raw)
        return (pb.CODEC_ZSTD, self._zstd(raw)) if codec == 2 else (pb.CODEC_STORED, bytes(raw))

    def encode_matrix(
        self, raw: bytes | memoryview, shape: MatrixShape, effort: Effort, part: int = 0
    ) -> tuple[int, bytes]:
        codec = self.generator.integers(0, 3) if shape.raw_size else 0
        if codec == 1:
            rows = np.frombuffer(raw, np.uint8).reshape(shape.height, shape.row_bytes)
            return pb.CODEC_PNG, png_file(shape, self._filtered(rows))
        return (pb.CODEC_ZSTD, self._zstd(raw)) if codec == 2 else (pb.CODEC_STORED, bytes(raw))

    def _zlib(self, raw: bytes | memoryview) -> bytes:
        strategy = int(self.generator.integers(0, 5))
        encoder = zlib.compressobj(int(self.generator.integers(0, 10)), zlib.DEFLATED, 15, 8, strategy)
        return encoder.compress(raw) + encoder.flush()

    def _zstd(self, raw: bytes | memoryview) -> bytes:
        level, checksum = int(self.generator.choice((-5, 1, 3, 13))), bool(self.generator.integers(0, 2))
        encoder = zstandard.ZstdCompressor(level=level, write_content_size=True, write_checksum=checksum)
        return encoder.compress(raw)

    def _filtered(self, rows: Array) -> list[bytes]:
        """PNG's filters, any of them in any row, as the table of codecs.md §4 has them."""
        above = np.zeros(rows.shape[1], np.int16)
        out = []
        for row in rows.astype(np.int16):
            left, corner = np.append(0, row[:-1]), np.append(0, above[:-1])
            far = np.abs([above - corner, left - corner, left + above - 2 * corner])
            paeth = np.choose(far.argmin(axis=0), (left, above, corner))  # argmin: the first of them on a tie
            kind = int(self.generator.integers(0, 5))
            guess = (0, left, above, (left + above) // 2, paeth)[kind]
            out.append(bytes([kind]) + ((row - guess) & 255).astype(np.uint8).tobytes())
            above = row
        return out


@dataclass(frozen=True)
class WildTensor:
    """A tensor that writes itself."""

    name: str
    dtype: int
    dims: tuple[int, ...]
    fill: Callable[[AnyCodecs, pb.Tensor], None]


def packed(generator: Generator, codes: Array, depth: int) -> bytes:
    """A packed matrix whose spare bits are anything."""
    out = packing.pack(codes.astype(np.uint16), depth)
    spare = out.shape[-1] * 8 - codes.shape[1] * depth if depth < 8 and codes.size else 0
    if spare:
        out[:, -1] |= generator.integers(0, 1 << spare, len(out), np.uint8)
    return np.ascontiguousarray(out).tobytes()


def write_stream(writer: AnyCodecs, out: pb.Codes, codes: Array, background: int | None) -> None:
    """Write the blocks of ``out``'s depth and rows_per_block, split around ``background`` where there is one."""
    generator, depth = writer.generator, out.depth

    def add(block: Array, bits: int) -> int:
        rows, width = block.shape
        raw = packed(generator, block, bits) if block.size else b""
        codec, stored = writer.encode_matrix(raw, codes_shape(rows, width, bits), Effort.QUICK) if raw else (0, b"")
        return writer.sink.add(stored, codec, len(raw))

    indices = []
    out.split, out.background = background is not None, background or 0
    for start in range(0, len(codes) if codes.size else 0, out.rows_per_block):
        block = codes[start : start + out.rows_per_block]
        if background is None:
            indices.append(add(block, depth))
            continue
        plane = block != background
        indices.append(add(plane, 1))
        others = block[plane]
        add((others - (others > background)).reshape(1, -1), depth)
    out.first_payload = indices[0] if indices else 0


@dataclass(frozen=True)
class Stream:
    """How the codes of a geometry lie in payloads."""

    geometry: Geometry
    depth: int
    background: int | None
    rows_per_block: int
    seed: int

    def write(self, writer: AnyCodecs, out: pb.Codes) -> None:
        self.geometry.fill(out)
        out.depth, out.vector, out.rows_per_block = self.depth, self.geometry.vector, self.rows_per_block
        most = (1 << self.depth) + (self.background is not None)
        shape = (self.geometry.rows, self.geometry.codes_per_row)
        generator = np.random.default_rng(self.seed)
        codes = generator.integers(0, most, shape)
        if self.background is not None:
            codes[generator.random(shape) < generator.choice((0.0, 0.5, 0.9, 1.0))] = self.background
        write_stream(writer, out, codes, self.background)


seeds = st.integers(0, 2**32 - 1)


WIDE = ((3, 700), (40, 90), (257, 9), (5, 33, 17), (2, 3, 4, 65), (1, 2000), (2000,), (35, 8, 8))


@st.composite
def wide_geometries(draw: st.DrawFn, vectors: bool) -> Geometry:
    """Rows and columns that are more than a reader works on at a time, in any order of their axes."""
    dims = draw(st.sampled_from(WIDE))
    perm = tuple(draw(st.permutations(range(len(dims))))) if draw(st.booleans()) else ()
    plain = Geometry(dims, perm=perm, row_axes=draw(st.integers(0, len(dims))))
    cuts = [n for n in range(1, plain.columns + 1) if plain.columns % n == 0]
    segment = draw(st.sampled_from((0, 0, *cuts)))
    return replace(plain, segment=segment, vector=draw(st.sampled_from((1, 1, 2, 3, 4, 7))) if vectors else 1)


PLAIN_GEOMETRIES = geometries(vectors=False) | wide_geometries(vectors=False)
GEOMETRIES = st.one_of(
    geometries(),
    st.builds(lambda geometry, vector: replace(geometry, vector=vector), geometries(), st.integers(1, 256)),
    wide_geometries(vectors=True),
)
"""also sub-vectors of up to 256 values"""


@st.composite
def streams(
    draw: st.DrawFn, shapes: st.SearchStrategy[Geometry], depths: tuple[int, ...] = DEPTHS, split: bool | None = None
) -> Stream:
    """Any depth and background; blocks of a row, of some, of far more than there are. ``split`` None: either."""
    geometry = draw(shapes)
    depth = draw(st.sampled_from(depths))
    likely = st.integers(0, min(1 << depth, 255)) | st.just(min(1 << depth, 65_535 // geometry.vector))
    background = draw(likely) if (draw(st.booleans()) if split is None else split) else None
    fewest = ceil_div(max(geometry.rows, 1), MOST_BLOCKS)
    rows_per_block = draw(st.integers(fewest, max(geometry.rows, 1)) | st.sampled_from((fewest, 2**32 - 1)))
    return Stream(geometry, depth, background, rows_per_block, draw(seeds))


def likely_groupings(geometry: Geometry) -> st.SearchStrategy[tuple[int, int]]:
    """Those that sources have, as often as any."""
    common = st.sampled_from(((0, 0), (0, 0), (1, 0), (3, 0), (0, 1), (0, 8), (1, 32), (2, 128)))
    return groupings(geometry) | common.map(lambda by: by if geometry.groups(by) <= 64 else (0, 0))


half_or_single = st.sampled_from((np.float16, np.float32))
float_dtypes = st.sampled_from((DType.FLOAT, DType.FLOAT16))


@st.composite
def wild_palettes(
    draw: st.DrawFn, shapes: st.SearchStrategy[Geometry] = GEOMETRIES, wild: bool | None = None,
    split: bool | None = None,
) -> WildTensor:  # fmt: skip
    """Tables shorter than their codes reach, they and scales of any bits; with ``wild`` False, of finite numbers."""
    stream = draw(streams(shapes, split=split))
    geometry = stream.geometry
    fewest = (stream.background or 0) + 1
    most = max(fewest, min((1 << stream.depth) + (stream.background is not None), MOST_VALUES // geometry.vector))
    entries = draw(st.integers(fewest, max(fewest, min(most, 600))) | st.just(most))
    tables_by, scales_by = draw(likely_groupings(geometry)), draw(st.none() | likely_groupings(geometry))
    if entries * geometry.vector * geometry.groups(tables_by) > MOST_VALUES:
        tables_by = (0, 0)
    kinds = draw(half_or_single), draw(half_or_single)
    seed, odd = draw(seeds), draw(st.booleans()) if wild is None else wild
    pruned = stream.background is not None and draw(st.booleans())

    def fill(writer: AnyCodecs, out: pb.Tensor) -> None:
        message, generator = out.palette, np.random.default_rng(seed)
        stream.write(writer, message.codes)
        message.entries = entries
        message.tables_by.row_group, message.tables_by.col_group = tables_by
        tables = any_floats(generator, kinds[0], geometry.groups(tables_by) * entries * geometry.vector, odd)
        if pruned:
            tables.reshape(-1, entries, geometry.vector)[:, stream.background] = -0.0 if seed % 2 else 0.0
        message.table_type = float_type(tables)
        writer.add_piece(tables.tobytes(), message.tables)
        if scales_by is not None:
            message.scales_by.row_group, message.scales_by.col_group = scales_by
            scales = any_floats(generator, kinds[1], geometry.groups(scales_by), odd)
            message.scale_type = float_type(scales)
            writer.add_piece(scales.tobytes(), message.scales)

    return WildTensor(draw(names), draw(float_dtypes), geometry.dims, fill)


@st.composite
def wild_affines(
    draw: st.DrawFn, shapes: st.SearchStrategy[Geometry] = PLAIN_GEOMETRIES, wild: bool | None = None
) -> WildTensor:
    """Zero points out of the range of codes, scales of any bits; with ``wild`` False, of finite numbers."""
    stream = draw(streams(shapes, (4, 8, 16), split=False))
    geometry, by = stream.geometry, draw(likely_groupings(stream.geometry))
    seed, odd, with_zeros = draw(seeds), draw(st.booleans()) if wild is None else wild, draw(st.booleans())

    def fill(writer: AnyCodecs, out: pb.Tensor) -> None:
        message, generator = out.affine, np.random.default_rng(seed)
        stream.write(writer, message.codes)
        message.by.row_group, message.by.col_group = by
        groups = geometry.groups(by)
        writer.add_piece(any_floats(generator, np.float32, groups, odd).tobytes(), message.scales)
        if with_zeros:
            kind = np.uint16 if stream.depth == 16 else np.uint8
            writer.add_piece(generator.integers(0, np.iinfo(kind).max, groups, kind, True).tobytes(), message.zeros)

    return WildTensor(draw(names), draw(float_dtypes), geometry.dims, fill)


@st.composite
def wild_denses(draw: st.DrawFn) -> WildTensor:
    """Any bits of any type, small or in chunks of any size, with byte planes where elements have more than one."""
    dtype = draw(st.sampled_from(DType))
    halves = st.sampled_from((DType.FLOAT16, DType.BFLOAT16))
    stored = draw(halves) if dtype is DType.FLOAT and draw(st.booleans()) else dtype
    dims = draw(shapes | st.sampled_from(((2600,), (131, 33), (3, 5, 313))))
    elements = math.prod(dims)
    size = dtypes.raw_size(stored, elements)
    raw = np.random.default_rng(draw(seeds)).integers(0, 256, size, np.uint8).tobytes()
    small = size <= 4096 and draw(st.booleans())
    chunk = draw(st.sampled_from((64, 192, 1024, 131_072, 2**64 - 64)))
    planes = dtypes.bits(stored) // 8 if draw(st.booleans()) else 0

    def fill(writer: AnyCodecs, out: pb.Tensor) -> None:
        message = out.dense
        message.stored_dtype = stored
        if small:
            writer.add_piece(raw, message.small)
            return
        if not elements:
            return
        step = dtypes.raw_size(stored, min(chunk, ceil_div(elements, 64) * 64))
        pieces = [raw[at : at + step] for at in range(0, size, step)]
        added = [writer.add_bytes(dense.to_planes(piece, planes) if planes > 1 else piece) for piece in pieces]
        message.chunk_elements, message.first_payload, message.byte_planes = chunk, added[0], planes > 1

    return WildTensor(draw(names), dtype, dims, fill)


wild_tensors = st.one_of(wild_palettes(), wild_palettes(), wild_affines(), wild_denses())


def write_wild(tensors: list[WildTensor], seed: int, twin: str | None = None) -> bytes:
    """A whole bundle; ``twin`` names one more tensor, whose payloads are those of the first."""
    out = pb.Manifest(spec_major=1, spec_minor=0)
    with Spool() as spool:
        writer = AnyCodecs(spool, np.random.default_rng(seed))
        for tensor in tensors:
            message = out.tensors.add(name=tensor.name, dtype=tensor.dtype, dims=tensor.dims)
            tensor.fill(writer, message)
            if message.WhichOneof("encoding") is None:
                message.dense.SetInParent()
        writer.flush()
        if twin is not None and tensors and twin not in {tensor.name for tensor in tensors}:
            again = out.tensors.add()
            again.CopyFrom(out.tensors[0])
            again.name = twin
        ordered = sorted(out.tensors, key=lambda message: message.name.encode())
        del out.tensors[:]
        out.tensors.extend(ordered)
        file = io.BytesIO()
        write_container(file, out, spool)
    return file.getvalue()


@st.composite
def wild_bundles(draw: st.DrawFn, max_tensors: int = 3) -> bytes:
    """A whole bundle of wild tensors."""
    drawn = draw(st.lists(wild_tensors, max_size=max_tensors, unique_by=lambda tensor: tensor.name))
    return write_wild(drawn, draw(seeds), draw(st.none() | st.just("twin")))
