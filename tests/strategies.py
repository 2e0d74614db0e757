"""Hypothesis strategies for whole bundles, built through our writer, with the values that they must decode to.

    @given(bundles())
    def test_something(built: BuiltBundle) -> None:
        with open_bundle(built.data) as bundle: ...

Every encoding, codec family, depth, stream, grouping and element type occurs, at odd shapes and small block sizes.
``damaged`` is for files of any kind.
"""

from __future__ import annotations

import io
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from hypothesis import strategies as st

from mobilemodel import dtypes
from mobilemodel.codecs import Effort, Family
from mobilemodel.container import Spool, write_container
from mobilemodel.dtypes import DType
from mobilemodel.encodings import affine, dense, matrix, packing, palette
from mobilemodel.encodings.payloads import PayloadWriter
from mobilemodel.layout import MatrixShape, codes_shape
from mobilemodel.v1 import bundle_pb2 as pb

Array = npt.NDArray[Any]
DEPTHS = (1, 2, 4, 8, 16)
LARGEST_ENTRIES = {1: 2, 2: 4, 4: 16, 8: 256, 16: 400}


def ceil_div(a: int, b: int) -> int:
    return -(-a // b)


@dataclass(frozen=True)
class Geometry:
    """How dims become a matrix of codes, computed here from spec/tensors.md §3 and not from mobilemodel.layout."""

    dims: tuple[int, ...]
    view: tuple[int, ...] = ()
    perm: tuple[int, ...] = ()
    row_axes: int = 1
    vector: int = 1
    segment: int = 0

    @property
    def permuted(self) -> list[int]:
        sizes = self.view or self.dims
        return [sizes[axis] for axis in self.perm] if self.perm else list(sizes)

    @property
    def rows(self) -> int:
        return math.prod(self.permuted[: self.row_axes])

    @property
    def columns(self) -> int:
        return math.prod(self.permuted[self.row_axes :])

    @property
    def segment_size(self) -> int:
        return self.segment or self.columns

    @property
    def subvectors(self) -> int:
        return ceil_div(self.segment_size, self.vector)

    @property
    def codes_per_row(self) -> int:
        return self.columns // self.segment_size * self.subvectors if self.segment_size else 0

    def groups(self, by: tuple[int, int]) -> int:
        """Number of tables (or scales) of a grouping (row_group, col_group)."""
        down = ceil_div(self.rows, by[0] or max(self.rows, 1))
        return down * ceil_div(self.subvectors, by[1] or max(self.subvectors, 1))

    def fill(self, codes: pb.Codes) -> None:
        codes.view.extend(self.view)
        codes.perm.extend(self.perm)
        codes.row_axes, codes.segment = self.row_axes, self.segment


@dataclass(frozen=True)
class DenseTensor:
    """``raw`` holds the values in ``stored_dtype``."""

    name: str
    dtype: int
    dims: tuple[int, ...]
    stored_dtype: int
    raw: bytes
    chunk_elements: int = 64

    def write(self, writer: PayloadWriter, out: pb.Tensor) -> None:
        out.dense.SetInParent()
        elements = math.prod(self.dims)
        dense.encode(writer, out.dense, self.raw, self.stored_dtype, elements, chunk_elements=self.chunk_elements)


@dataclass(frozen=True)
class PaletteTensor:
    """``background`` forces a split stream around that code, which may be any; None leaves the choice to the writer."""

    name: str
    dtype: int
    geometry: Geometry
    codes: Array
    tables: Array
    tables_by: tuple[int, int]
    scales: Array | None
    scales_by: tuple[int, int]
    block_bytes: int
    background: int | None

    @property
    def dims(self) -> tuple[int, ...]:
        return self.geometry.dims

    def write(self, writer: PayloadWriter, out: pb.Tensor) -> None:
        message = out.palette
        self.geometry.fill(message.codes)
        message.tables_by.row_group, message.tables_by.col_group = self.tables_by
        if self.scales is not None:
            message.scales_by.row_group, message.scales_by.col_group = self.scales_by
        if self.background is None or not self.codes.size:
            palette.encode(
                writer, message, self.codes, self.tables, scales=self.scales, block_bytes=self.block_bytes
            )
            return
        message.entries, message.codes.vector = self.tables.shape[1:]
        write_split(writer, message.codes, self.codes, message.entries, self.background, self.block_bytes)
        message.table_type = float_type(self.tables)
        writer.add_piece(self.tables.tobytes(), message.tables)
        if self.scales is not None:
            message.scale_type = float_type(self.scales)
            writer.add_piece(self.scales.tobytes(), message.scales)


@dataclass(frozen=True)
class AffineTensor:
    name: str
    dtype: int
    geometry: Geometry
    codes: Array
    depth: int
    scales: Array
    zeros: Array | None
    by: tuple[int, int]
    block_bytes: int

    @property
    def dims(self) -> tuple[int, ...]:
        return self.geometry.dims

    def write(self, writer: PayloadWriter, out: pb.Tensor) -> None:
        message = out.affine
        self.geometry.fill(message.codes)
        message.by.row_group, message.by.col_group = self.by
        affine.encode(
            writer, message, self.codes, self.depth, self.scales, self.zeros, block_bytes=self.block_bytes
        )


AnyTensor = DenseTensor | PaletteTensor | AffineTensor


@dataclass(frozen=True)
class BuiltBundle:
    """A bundle's bytes and what was written into it."""

    data: bytes
    tensors: tuple[AnyTensor, ...]
    family: Family
    graph: bytes | None = None
    labels: tuple[str, ...] = ()


def float_type(values: Array) -> pb.FloatType:
    return pb.FLOAT_TYPE_F16 if values.dtype == np.float16 else pb.FLOAT_TYPE_F32


def write_split(
    writer: PayloadWriter, out: pb.Codes, codes: Array, entries: int, background: int, block_bytes: int
) -> None:
    """Write a split stream whatever its size; the library's writer takes one only where it is the smaller."""
    depth = matrix.depth_for(max(entries - 1, 1))
    out.depth, out.split, out.background = depth, True, background
    out.rows_per_block = max(1, min(len(codes), block_bytes // ceil_div(codes.shape[1] * depth, 8)))
    indices = []
    for start in range(0, len(codes), out.rows_per_block):
        block = codes[start : start + out.rows_per_block]
        plane = block != background
        shape = codes_shape(len(block), codes.shape[1], 1)
        raw = packing.pack(plane.astype(np.uint8), 1).tobytes()
        indices.append(add_matrix(writer, raw, shape))
        others = block[plane]
        others = (others - (others > background)).reshape(1, -1)
        raw = packing.pack(others, depth).tobytes() if others.size else b""
        indices.append(add_matrix(writer, raw, codes_shape(1, others.size, depth)))
    out.first_payload = indices[0]


def add_matrix(writer: PayloadWriter, raw: bytes, shape: MatrixShape) -> int:
    """Encode a packed matrix and add it."""
    if not raw:
        return writer.sink.add(b"", pb.CODEC_STORED, 0)
    codec, stored = writer.encode_matrix(raw, shape, Effort.QUICK)
    return writer.sink.add(stored, codec, len(raw))


def write_bundle(
    tensors: Sequence[AnyTensor],
    family: Family = Family.FULL,
    *,
    graph: bytes | None = None,
    labels: Sequence[str] = (),
    manifest: pb.Manifest | None = None,
) -> bytes:
    """A whole bundle in memory; ``manifest`` may bring inputs, sources and the like."""
    out = pb.Manifest() if manifest is None else manifest
    out.spec_major, out.spec_minor = 1, 0
    with Spool() as spool:
        writer = PayloadWriter(spool, family)
        if graph is not None:
            out.graph = writer.add_bytes(graph)
        if labels:
            out.labels = writer.add_bytes("".join(f"{label}\n" for label in labels).encode())
        for tensor in sorted(tensors, key=lambda tensor: tensor.name.encode()):
            message = out.tensors.add(name=tensor.name, dtype=tensor.dtype, dims=tensor.dims)
            tensor.write(writer, message)
        writer.flush()
        file = io.BytesIO()
        write_container(file, out, spool)
    return file.getvalue()


def random_codes(draw: st.DrawFn, shape: tuple[int, int], entries: int) -> Array:
    """Codes below ``entries``: evenly spread, mostly one value, or all the same."""
    generator = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    kind = np.uint8 if entries <= 256 else np.uint16
    spread = generator.integers(0, entries, shape)
    rare = generator.random(shape) < draw(st.sampled_from((1.0, 0.1, 0.0)))
    return np.where(rare, spread, draw(st.integers(0, entries - 1))).astype(kind)


unicode_text = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), min_size=1, max_size=24)
odd_names = ("conv1/weights:0", "Ä", "A\u0308", "\U0001f9e0", "\u202egnp.exe", "\x1b[2J", " ", "\n", "n" * 1024)
names = unicode_text | st.sampled_from(odd_names)
"""tensor names of 1 to 1,024 bytes: composed and decomposed, astral, control and bidirectional characters"""

shapes = st.one_of(
    st.lists(st.integers(1, 6), max_size=4),
    st.lists(st.integers(0, 3), max_size=5),
    st.just([1] * 16),
    st.lists(st.integers(1, 70), min_size=1, max_size=2),
).map(tuple)
"""dims: scalars, empty ones, up to 16 axes, long rows"""

half_floats = st.sampled_from((DType.FLOAT16, DType.BFLOAT16))


@st.composite
def dense_tensors(draw: st.DrawFn) -> DenseTensor:
    """Any element type, stored as it is or as halves; one chunk, several, or in a pool."""
    dtype = draw(st.sampled_from(DType))
    stored = draw(half_floats) if dtype is DType.FLOAT and draw(st.booleans()) else dtype
    dims = draw(shapes | st.sampled_from(((2600,), (131, 33), (3, 5, 313))))
    elements = math.prod(dims)
    generator = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    raw = bytearray(generator.integers(0, draw(st.sampled_from((2, 256))), dtypes.raw_size(stored, elements), np.uint8))
    if dtype is DType.BOOL:
        raw = bytearray(value & 1 for value in raw)
    spare = 8 * len(raw) - elements * dtypes.bits(stored)
    if spare:
        raw[-1] &= 0xFF >> spare
    return DenseTensor(draw(names), dtype, dims, stored, bytes(raw), draw(st.sampled_from((64, 192, 1024, 131072))))


@st.composite
def geometries(draw: st.DrawFn, vectors: bool = True) -> Geometry:
    """A matrix order for drawn dims: views of other ranks, permutations, any number of row axes, segments."""
    dims = draw(shapes)
    elements = math.prod(dims)
    view: tuple[int, ...] = ()
    if draw(st.booleans()):
        first = draw(st.sampled_from([n for n in range(1, min(elements, 40) + 1) if elements % n == 0] or [3]))
        view = (first, elements // first, 1)[: draw(st.integers(2, 3))]
    rank = len(view or dims)
    perm = tuple(draw(st.permutations(range(rank)))) if rank and draw(st.booleans()) else ()
    row_axes = draw(st.integers(0, rank))
    plain = Geometry(dims, view, perm, row_axes)
    segment = 0
    if draw(st.booleans()) and plain.columns:
        segment = draw(st.sampled_from([n for n in range(1, plain.columns + 1) if plain.columns % n == 0]))
    vector = draw(st.integers(1, 9)) if vectors and draw(st.booleans()) else 1
    return Geometry(dims, view, perm, row_axes, vector, segment)


def groupings(geometry: Geometry) -> st.SearchStrategy[tuple[int, int]]:
    """(row_group, col_group): all, each, some, more than there are; never more than 64 groups."""
    rows = st.integers(0, geometry.rows + 1)
    columns = st.integers(0, geometry.subvectors + 1)
    return st.tuples(rows, columns).map(lambda by: by if geometry.groups(by) <= 64 else (0, 0))


block_sizes = st.sampled_from((1, 7, 64, 1024, 256 * 1024))


@st.composite
def palette_tensors(draw: st.DrawFn) -> PaletteTensor:
    """Every depth, plain and split, product codebooks, grouped tables and scales of both float types."""
    geometry = draw(geometries())
    depth = draw(st.sampled_from(DEPTHS))
    most = LARGEST_ENTRIES[depth]
    entries = draw(st.integers(1, most) | st.just(most) | st.just(most + 1))
    shape = (geometry.rows, geometry.codes_per_row)
    tables_by = draw(groupings(geometry)) if entries * geometry.vector < 500 else (0, 0)
    generator = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    kind = draw(st.sampled_from((np.float16, np.float32)))
    tables = generator.standard_normal((geometry.groups(tables_by), entries, geometry.vector)).astype(kind)
    tables[generator.random(tables.shape) < 0.1] = draw(st.sampled_from((0.0, -0.0)))
    scales, scales_by = None, (0, 0)
    if draw(st.booleans()):
        scales_by = draw(groupings(geometry))
        scale_kind = draw(st.sampled_from((np.float16, np.float32)))
        scales = np.exp2(generator.uniform(-9, 9, geometry.groups(scales_by))).astype(scale_kind)
    background = draw(st.integers(0, entries - 1)) if entries > 1 and draw(st.booleans()) else None
    dtype = draw(st.sampled_from((DType.FLOAT, DType.FLOAT16)))
    codes = random_codes(draw, shape, entries)
    return PaletteTensor(
        draw(names), dtype, geometry, codes, tables, tables_by, scales, scales_by, draw(block_sizes), background
    )


@st.composite
def affine_tensors(draw: st.DrawFn) -> AffineTensor:
    """Depths 4, 8 and 16, with zero points and without, grouped in any way."""
    geometry = draw(geometries(vectors=False))
    depth = draw(st.sampled_from((4, 8, 16)))
    by = draw(groupings(geometry))
    generator = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    groups = geometry.groups(by)
    scales = np.exp2(generator.uniform(-20, 9, groups)).astype(np.float32)
    zeros = generator.integers(0, 1 << depth, groups).astype(np.uint16 if depth == 16 else np.uint8)
    codes = random_codes(draw, (geometry.rows, geometry.codes_per_row), 1 << depth)
    dtype = draw(st.sampled_from((DType.FLOAT, DType.FLOAT16)))
    given_zeros = zeros if draw(st.booleans()) else None
    return AffineTensor(draw(names), dtype, geometry, codes, depth, scales, given_zeros, by, draw(block_sizes))


tensors = st.one_of(dense_tensors(), palette_tensors(), affine_tensors())
families = st.sampled_from(Family)


@st.composite
def bundles(draw: st.DrawFn, max_tensors: int = 4) -> BuiltBundle:
    """A whole bundle: tensors of any kind, sometimes a graph, labels and inputs."""
    drawn = draw(st.lists(tensors, max_size=max_tensors, unique_by=lambda tensor: tensor.name))
    graph = draw(st.none() | st.binary(max_size=300))
    labels = tuple(draw(st.lists(st.text(st.characters(exclude_categories=["Cs", "Cc"]), max_size=8), max_size=3)))
    manifest = pb.Manifest(producer="mobilemodel tests", licence="Apache-2.0")
    for name in draw(st.lists(names, max_size=2, unique=True)):
        value = manifest.inputs.add(name=name, dtype=1)
        value.shape.dimensions.add(size=1)
        value.shape.dimensions.add(symbol="N")
    family = draw(families)
    data = write_bundle(drawn, family, graph=graph, labels=labels, manifest=manifest)
    ordered = tuple(sorted(drawn, key=lambda tensor: tensor.name.encode()))
    return BuiltBundle(data, ordered, family, graph, labels)


@st.composite
def damaged(draw: st.DrawFn, raw: bytes) -> bytes:
    """The bytes of any file cut short, or with one bit flipped."""
    position = draw(st.integers(0, len(raw) - 1))
    if draw(st.booleans()):
        return raw[:position]
    return raw[:position] + bytes([raw[position] ^ 1 << draw(st.integers(0, 7))]) + raw[position + 1 :]
