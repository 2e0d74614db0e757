"""Encodings against the formulas of format 1.0 §4, computed here by triple loops."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mobilemodel import dtypes
from mobilemodel.bundle import open_bundle
from mobilemodel.codecs import Family
from mobilemodel.container import Spool
from mobilemodel.dtypes import DType
from mobilemodel.encodings import matrix, packing
from mobilemodel.encodings import tensor as tensor_encodings
from mobilemodel.encodings.payloads import PayloadWriter
from mobilemodel.errors import LimitExceededError, MalformedContentError
from mobilemodel.layout import codes_shape
from mobilemodel.v1 import bundle_pb2 as pb
from tests.strategies import (
    AffineTensor,
    BuiltBundle,
    DenseTensor,
    Geometry,
    PaletteTensor,
    affine_tensors,
    bundles,
    ceil_div,
    dense_tensors,
    families,
    palette_tensors,
    write_bundle,
)

Array = npt.NDArray[Any]


def cells(geometry: Geometry) -> Iterator[tuple[int, int, int]]:
    """(row, column, position in the tensor's own order): the inverse permutation, element by element."""
    sizes = list(geometry.view or geometry.dims)
    perm = list(geometry.perm) or list(range(len(sizes)))
    strides = [math.prod(sizes[axis + 1 :]) for axis in range(len(sizes))]
    position_of_axis = {axis: position for position, axis in enumerate(perm)}
    permuted = [sizes[axis] for axis in perm]
    for row in range(geometry.rows):
        for column in range(geometry.columns):
            rest = row * geometry.columns + column
            index = [0] * len(perm)
            for axis in reversed(range(len(perm))):
                rest, index[axis] = divmod(rest, permuted[axis])
            yield row, column, sum(index[position_of_axis[axis]] * strides[axis] for axis in range(len(sizes)))


def table_index(geometry: Geometry, by: tuple[int, int], row: int, subvector: int) -> int:
    """t = (r div Gr) ceil(S / Gc) + s div Gc."""
    row_group, col_group = by[0] or geometry.rows, by[1] or geometry.subvectors
    return (row // row_group) * ceil_div(geometry.subvectors, col_group) + subvector // col_group


def decode_palette(built: PaletteTensor) -> Array:
    """M[r, c] = tables[t][code[r, n]][j], times its scale where there is one."""
    geometry = built.geometry
    out = np.zeros(math.prod(geometry.dims), np.float32)
    for row, column, position in cells(geometry):
        q, p = divmod(column, geometry.segment_size)
        s, j = divmod(p, geometry.vector)
        code = int(built.codes[row, q * geometry.subvectors + s])
        value = np.float32(built.tables[table_index(geometry, built.tables_by, row, s), code, j])
        if built.scales is not None:
            value = value * np.float32(built.scales[table_index(geometry, built.scales_by, row, s)])
        out[position] = value
    with np.errstate(over="ignore"):
        return out.reshape(geometry.dims).astype(dtypes.numpy_dtype(built.dtype))


def decode_affine(built: AffineTensor) -> Array:
    """float32(q - zero) x scale; an absent zero is 2^(depth - 1)."""
    geometry = built.geometry
    out = np.zeros(math.prod(geometry.dims), np.float32)
    for row, column, position in cells(geometry):
        group = table_index(geometry, built.by, row, column % geometry.segment_size)
        zero = 1 << (built.depth - 1) if built.zeros is None else int(built.zeros[group])
        step = int(built.codes[row, column]) - zero
        out[position] = np.float32(step) * built.scales[group]
    with np.errstate(over="ignore"):
        return out.reshape(geometry.dims).astype(dtypes.numpy_dtype(built.dtype))


def decode_dense(built: DenseTensor) -> bytes:
    """The raw bytes themselves, or halves widened by struct-like arithmetic on their bits."""
    if built.stored_dtype == built.dtype:
        return built.raw
    if built.stored_dtype == DType.BFLOAT16:
        return b"".join(b"\0\0" + built.raw[at : at + 2] for at in range(0, len(built.raw), 2))
    return np.array([float(half) for half in np.frombuffer(built.raw, "<f2")], np.float32).tobytes()


def decoded(data: bytes, name: str) -> Array:
    with open_bundle(data) as bundle:
        bundle.verify()
        return bundle[name].numpy()


def same_bits(a: Array, b: Array) -> bool:
    return a.shape == b.shape and a.dtype == b.dtype and a.tobytes() == b.tobytes()


@given(palette_tensors(), families)
def test_palette_rule(built: PaletteTensor, family: Family) -> None:
    """'M[r, c] = tables[t][code[r, n]][j], times its scale where there is one.'"""
    assert same_bits(decoded(write_bundle([built], family), built.name), decode_palette(built))


@given(affine_tensors(), families)
def test_affine_rule(built: AffineTensor, family: Family) -> None:
    """'Affine: float32(q - zero) x scale, one float32 multiplication; codes unsigned.'"""
    assert same_bits(decoded(write_bundle([built], family), built.name), decode_affine(built))


@given(dense_tensors(), families)
def test_dense_is_bit_copies(built: DenseTensor, family: Family) -> None:
    """'Dense without widening: bit copies, NaN payloads included.' Widened NaNs are compared as a class."""
    with open_bundle(write_bundle([built], family)) as bundle:
        tensor = bundle[built.name]
        tensor.verify()
        raw, array = bytes(tensor.raw()), tensor.numpy()
        assert array.shape == built.dims
        assert array.dtype == tensor.dtype
    expected = decode_dense(built)
    if built.stored_dtype == DType.FLOAT16 and built.dtype == DType.FLOAT:
        found, wanted = np.frombuffer(raw, "<u4").copy(), np.frombuffer(expected, "<u4").copy()
        found[np.isnan(found.view("<f4"))] = wanted[np.isnan(wanted.view("<f4"))] = 0x7FC00000
        assert np.array_equal(found, wanted)
    else:
        assert raw == expected


@given(palette_tensors() | affine_tensors(), families)
def test_codes_and_parameters_are_those_written(built: PaletteTensor | AffineTensor, family: Family) -> None:
    """A packed stream holds the codes themselves: they, the tables, scales and zero points come back as written."""
    with open_bundle(write_bundle([built], family)) as bundle:
        tensor = bundle[built.name]
        assert np.array_equal(tensor.indices(), built.codes)
        scales = tensor.scales()
        assert (scales is None) == (built.scales is None)
        if scales is not None and built.scales is not None:
            assert same_bits(scales, built.scales)
        if isinstance(built, PaletteTensor):
            assert same_bits(tensor.tables(), built.tables)
        elif built.zeros is not None:
            zeros = tensor.zeros()
            assert zeros is not None
            assert same_bits(zeros, built.zeros)


O, I, H, W, F = 6, 8, 3, 2, 4  # noqa: E741 - the letters of the table
SOURCES = {
    "FC out x in": Geometry((5, 7), row_axes=1),
    "Gemm transB=0": Geometry((7, 5), perm=(1, 0), row_axes=1),
    "MatMul B x K x N": Geometry((2, 3, 4), perm=(0, 2, 1), row_axes=2),
    "conv OIHW as O x HWI": Geometry((O, I, H, W), perm=(0, 2, 3, 1), row_axes=1),
    "grouped ConvTranspose": Geometry((4, 3, H, W), (2, 2, 3, H, W), (0, 2, 3, 4, 1), row_axes=2),
    "Klaus's first FC": Geometry((5, I * H * W), (5, I, H, W), (0, 2, 3, 1), row_axes=1),
    "Q-CNN conv": Geometry((O, I, H, W), perm=(0, 2, 3, 1), row_axes=1, vector=F, segment=I),
    "Q-CNN conv, short last sub-vector": Geometry((O, 6, H, W), perm=(0, 2, 3, 1), row_axes=1, vector=F, segment=6),
    "Q-CNN fc6, fc7": Geometry((5, 12), row_axes=1, vector=4),
    "Q-CNN fc8": Geometry((5, 12), row_axes=1),
    "blocks of 128 columns": Geometry((3, 300), row_axes=1),
}


@pytest.mark.parametrize("source", SOURCES)
def test_sources_of_the_table(source: str) -> None:
    """'This one rule ... covers' each source format of the table in format 1.0 §4."""
    geometry = SOURCES[source]
    by = (0, 1) if source.startswith("Q-CNN") else (0, 0)
    generator = np.random.default_rng(1)
    codes = generator.integers(0, 16, (geometry.rows, geometry.codes_per_row), np.uint8)
    tables = generator.standard_normal((geometry.groups(by), 16, geometry.vector)).astype(np.float32)
    scales_by = (1, 128) if source == "blocks of 128 columns" else (0, 0)
    scales = np.exp2(generator.uniform(-3, 3, geometry.groups(scales_by))).astype(np.float32)
    built = PaletteTensor("w", DType.FLOAT, geometry, codes, tables, by, scales, scales_by, 64, None)
    assert same_bits(decoded(write_bundle([built]), "w"), decode_palette(built))


def test_qcnn_conv_is_a_codebook_for_each_group_of_channels() -> None:
    """Q-CNN: each pixel's channels are cut into sub-vectors, each kind with a codebook of its own."""
    generator = np.random.default_rng(2)
    codes = generator.integers(0, 8, (O, H, W, I // F), np.uint8)
    books = generator.standard_normal((I // F, 8, F)).astype(np.float32)
    kernel = np.stack([books[m][codes[..., m]] for m in range(I // F)], axis=-2).reshape(O, H, W, I)
    geometry = SOURCES["Q-CNN conv"]
    built = PaletteTensor("w", DType.FLOAT, geometry, codes.reshape(O, -1), books, (0, 1), None, (0, 0), 64, None)
    assert same_bits(decoded(write_bundle([built]), "w"), np.ascontiguousarray(kernel.transpose(0, 3, 1, 2)))


@pytest.mark.parametrize(("depth", "entries", "background"), [(2, 3, None), (2, 3, 0), (8, 1, None), (16, 65_536, 9)])
def test_total_decoding(depth: int, entries: int, background: int | None) -> None:
    """'A table behaves as if padded with +0.0 to its index range; writers never emit such codes, `verify` reports.'"""
    largest = np.full((1, 80), (1 << depth) - 1, np.uint16)
    message = pb.Tensor(name="w", dtype=DType.FLOAT, dims=[2, 40])
    stream = message.palette.codes
    stream.row_axes, stream.vector, stream.depth, stream.rows_per_block = 1, 1, depth, 2
    message.palette.entries = entries
    message.palette.table_type = message.palette.scale_type = pb.FLOAT_TYPE_F32
    message.palette.scales_by.row_group = 0
    with Spool() as spool:
        if background is None:
            packed = packing.pack(largest.reshape(2, 40), depth)
            spool.add(packed.tobytes(), pb.CODEC_STORED, packed.size)
        else:
            stream.split, stream.background = True, background
            spool.add(b"\xff" * 10, pb.CODEC_STORED, 10)
            others = packing.pack(largest, depth)
            spool.add(others.tobytes(), pb.CODEC_STORED, others.size)
        writer = PayloadWriter(spool, Family.FULL)
        writer.add_piece(np.full(entries, -1.0, np.float32).tobytes(), message.palette.tables)
        writer.add_piece(np.full(1, 2.0, np.float32).tobytes(), message.palette.scales)
        writer.flush()
        source = SpoolSource(spool)
    values = tensor_encodings.decode(source, message)
    assert values.tobytes() == bytes(4 * 80)
    with pytest.raises(MalformedContentError, match="names no entry"):
        tensor_encodings.verify(source, message)


class SpoolSource:
    """The payloads of a spool, read back without a file around them."""

    def __init__(self, spool: Spool) -> None:
        stored = [b"".join(pieces) for _, pieces in spool.chunks()]
        self._stored = stored
        self._entries = [
            pb.Payload(stored_size=p.stored_size, raw_size=p.raw_size, crc32=p.crc32, codec=p.codec)
            for p in spool.payloads
        ]

    def entry(self, index: int) -> pb.Payload:
        return self._entries[index]

    def stored(self, index: int) -> memoryview:
        return memoryview(self._stored[index])


@given(
    st.sampled_from((1, 2, 4, 8, 16)), st.integers(1, 5), st.integers(1, 40), st.integers(0, 2**32 - 1)
)
def test_packing(depth: int, rows: int, columns: int, seed: int) -> None:
    """'First code in the high bits'; depth 16: 'n of high bytes, then n of low bytes'; spare bits: 'written 0 bits'."""
    codes = np.random.default_rng(seed).integers(0, 1 << depth, (rows, columns)).astype(np.uint16)
    packed = packing.pack(codes, depth)
    shape = codes_shape(rows, columns, depth)
    assert packed.shape == (shape.height, shape.row_bytes)
    if depth == 16:
        expected = np.concatenate([codes >> 8, codes & 255]).tolist()
    else:
        width = 8 * ceil_div(columns * depth, 8)
        text = ["".join(f"{c:0{depth}b}" for c in row).ljust(width, "0") for row in codes.tolist()]
        expected = [[int(row[at : at + 8], 2) for at in range(0, width, 8)] for row in text]
    assert packed.tolist() == expected
    assert np.array_equal(packing.unpack(packed.tobytes(), rows, columns, depth), codes)
    assert packing.spare_bits_are_zero(packed.tobytes(), shape)


def stored_palette(tables: Array, scales: Array, by: tuple[int, int], codes: Array | None = None) -> bytes:
    """A bundle with one palette tensor "w" of 2 rows, whose tables and scales may break the writer's rules."""
    codes = np.zeros((2, 4), np.uint8) if codes is None else codes
    built = PaletteTensor("w", DType.FLOAT, Geometry((2, 4)), codes, tables, by, scales, by, 64, None)
    return write_bundle([built])


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_tables_are_finite(value: float) -> None:
    """'Tables and scales are finite' (`verify` checks); reading stays without warnings and errors."""
    tables, scales = np.array([[[value]]], np.float32), np.ones(1, np.float32)
    for data in (stored_palette(tables, scales, (0, 0)), stored_palette(scales.reshape(1, 1, 1), tables[0, 0], (0, 0))):
        with open_bundle(data) as bundle:
            assert not np.isfinite(bundle["w"].numpy()).any()
            with pytest.raises(MalformedContentError, match="finite"):
                bundle.verify()


@pytest.mark.parametrize("value", [0.0, -1.0, 2.0**-127])
def test_scales_are_positive_and_normal(value: float) -> None:
    """'scales > 0 and normal'."""
    data = stored_palette(np.ones((1, 1, 1), np.float32), np.array([value], np.float32), (0, 0))
    with open_bundle(data) as bundle, pytest.raises(MalformedContentError, match="positive and normal"):
        bundle.verify()


def test_products_are_normal() -> None:
    """'Where a scale exists every non-zero product is at least 2^-126 in size': of those that meet, and no others."""
    tables = np.array([[[2.0**-100]], [[1.0]]], np.float32)
    scales = np.array([1.0, 2.0**-100], np.float32)
    with open_bundle(stored_palette(tables, scales, (1, 0))) as bundle:
        bundle.verify()
    crossed = stored_palette(tables, scales[::-1].copy(), (1, 0))
    with open_bundle(crossed) as bundle, pytest.raises(MalformedContentError, match=r"2\^-126"):
        bundle.verify()


def test_overflowing_products_are_infinite_without_warning() -> None:
    """'One float32 multiplication', also where it overflows; float16 output: 'that float32 rounded once more'."""
    data = stored_palette(np.full((1, 1, 1), 2.0**100, np.float32), np.full(1, 2.0**100, np.float32), (0, 0))
    with open_bundle(data) as bundle:
        assert np.isposinf(bundle["w"].numpy()).all()


def test_writer_refuses_codes_that_name_no_entry() -> None:
    """'Writers never emit such codes.'"""
    with pytest.raises(MalformedContentError, match="names no entry"):
        stored_palette(np.ones((1, 3, 1), np.float32), np.ones(1, np.float32), (0, 0), np.full((2, 4), 3, np.uint8))


def test_writer_refuses_rows_above_the_limit() -> None:
    """'raw block, dense chunk, one row of codes: 16 MiB'."""
    codes = np.zeros((1, (16 << 20) + 1), np.uint8)
    with Spool() as spool, pytest.raises(LimitExceededError, match="a row of codes"):
        matrix.write_codes(PayloadWriter(spool, Family.FULL), pb.Codes(), codes, 256)


def test_spare_bits_are_verified() -> None:
    """'Spare bits at a row's end ...: written 0 bits, ignored' by readers and reported by `verify`, in every stream."""
    message = pb.Tensor(name="w", dtype=DType.FLOAT, dims=[1, 5])
    stream = message.palette.codes
    stream.row_axes, stream.vector, stream.depth, stream.rows_per_block, stream.split = 1, 1, 2, 1, True
    message.palette.entries, message.palette.table_type = 3, pb.FLOAT_TYPE_F32
    for plane, others in ((0b11111_001, 0), (0b11111_000, 1)):
        with Spool() as spool:
            spool.add(bytes([plane]), pb.CODEC_STORED, 1)
            spool.add(bytes([0, others]), pb.CODEC_STORED, 2)
            writer = PayloadWriter(spool, Family.FULL)
            writer.add_piece(np.array([1, 2, 3], np.float32).tobytes(), message.palette.tables)
            writer.flush()
            source = SpoolSource(spool)
        assert np.array_equal(tensor_encodings.decode(source, message), [[2.0] * 5])
        with pytest.raises(MalformedContentError, match="spare bits"):
            tensor_encodings.verify(source, message)


@given(bundles())
def test_writing_is_deterministic(built: BuiltBundle) -> None:
    """'Same bytes for the same input, options, tool version ...'"""
    again = write_bundle(
        built.tensors, built.family, graph=built.graph, labels=built.labels, manifest=input_names(built.data)
    )
    assert again == built.data


def input_names(data: bytes) -> pb.Manifest:
    """The parts of a bundle's manifest that the test chose, without what the writer filled in."""
    manifest = pb.Manifest()
    with open_bundle(data) as bundle:
        manifest.CopyFrom(bundle.manifest)
    for field in ("tensors", "payloads", "graph", "labels", "file_size"):
        manifest.ClearField(field)
    return manifest


def test_small_pieces_share_pools() -> None:
    """'Shared pool payloads of at most 64 KiB raw, in tensor order, each at a multiple of 16, coded when smaller.'"""
    generator = np.random.default_rng(3)
    built = [
        DenseTensor(f"t{i:03}", DType.UINT8, (size,), DType.UINT8, bytes(size))
        for i, size in enumerate(generator.integers(1, 4097, 60).tolist())
    ]
    with open_bundle(write_bundle(built)) as bundle:
        slices = [bundle[name].message.dense.small for name in bundle]
        assert all(piece.offset % 16 == 0 for piece in slices)
        places = [(piece.payload, piece.offset) for piece in slices]
        assert places == sorted(places)
        assert len(bundle.manifest.payloads) == 2
        for entry in bundle.manifest.payloads:
            assert entry.raw_size <= 65_536
            assert entry.codec == pb.CODEC_ZSTD
