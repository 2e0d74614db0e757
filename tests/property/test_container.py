"""The container: framing, both ways of reading, hostile bytes (format 1.0 §1, §2, §7)."""

from __future__ import annotations

import gc
import io
import mmap
import os
import time
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mobilemodel.bundle import Bundle, open_bundle, parse_bundle
from mobilemodel.codecs import Family
from mobilemodel.container import Spool, framing, open_file, write_container
from mobilemodel.dtypes import DType
from mobilemodel.errors import (
    LimitExceededError,
    MalformedManifestError,
    MalformedStreamError,
    MalformedWireError,
    MisplacedPayloadError,
    MobileModelError,
    TrailingDataError,
    UsageError,
)
from mobilemodel.limits import Limits
from mobilemodel.v1 import bundle_pb2 as pb
from mobilemodel.wire import read_varint, varint
from tests.strategies import BuiltBundle, DenseTensor, Geometry, PaletteTensor, bundles, write_bundle

Opener = Callable[[bytes], Bundle]
both_readers = pytest.mark.parametrize("opener", [open_bundle, parse_bundle])


def small_bundle() -> bytes:
    """2 to 4 KB with every encoding, a split stream, a pool, a graph, labels and a report."""
    generator = np.random.default_rng(5)
    half = generator.standard_normal(700).astype(np.float16)
    codes = (generator.random((6, 40)) < 0.2).astype(np.uint8) * generator.integers(1, 4, (6, 40)).astype(np.uint8)
    tables = generator.standard_normal((1, 4, 1)).astype(np.float16)
    manifest = pb.Manifest(producer="test", licence="MIT", scheme="kmeans")
    manifest.inputs.add(name="x", dtype=1).shape.dimensions.add(size=3)
    manifest.preprocessing.add(input="x", mean=[1.0], crop_height=2, crop_width=2)
    manifest.sources.add(format="onnx", file_name="a.onnx", sha256=bytes(32))
    return write_bundle(
        [
            DenseTensor("half", DType.FLOAT, (700,), DType.FLOAT16, half.tobytes(), 64),
            DenseTensor("large", DType.UINT8, (4100,), DType.UINT8, bytes(4100), 4096),
            PaletteTensor("split", DType.FLOAT, Geometry((6, 40)), codes, tables, (0, 0), None, (0, 0), 8, 0),
            PaletteTensor("plain", DType.FLOAT16, Geometry((6, 40), vector=1), codes, tables, (0, 0),
                          np.ones(6, np.float32), (1, 0), 30, None),
        ],
        Family.BASELINE, graph=b"graph " * 9, labels=["cat", "dög"], manifest=manifest,
    )  # fmt: skip


def model_of(bundle: Bundle) -> tuple[Any, ...]:
    """Everything that a bundle says."""
    bundle.verify()
    values = [(name, tensor.shape, bytes(tensor.raw()), tensor.numpy().tobytes()) for name, tensor in bundle.items()]
    return bundle.manifest.SerializeToString(), values, bundle.graph(), bundle.labels(), bundle.report()


def read_by(opener: Opener, data: bytes) -> tuple[Any, ...] | None:
    """The model, or None where it was refused with an error of our tree; any other exception fails the test."""
    try:
        with opener(data) as bundle:
            return model_of(bundle)
    except MobileModelError as error:
        return None if all(line.isprintable() for line in str(error).splitlines()) else ("unprintable",)


def manifest_span(data: bytes) -> tuple[int, int]:
    length, start = read_varint(data, framing.HEAD_SIZE, len(data))
    return start, start + length


def sealed(data: bytes, manifest: bytes) -> bytes:
    """The same file with another manifest of the same length and the right CRC."""
    start, end = manifest_span(data)
    assert end - start == len(manifest)
    return framing.head(manifest, zlib.crc32(manifest)) + manifest + data[end:]


def framed(manifest: pb.Manifest, stored: list[bytes]) -> bytes:
    """A file around any manifest whatever, its payload entries as they are but for offsets and file size."""
    size = len(manifest.SerializeToString())
    places = framing.frames(size, [len(payload) for payload in stored])
    for entry, place in zip(manifest.payloads, places, strict=True):
        entry.offset = place.offset
    manifest.file_size = framing.file_size(size, [len(payload) for payload in stored])
    raw = manifest.SerializeToString(deterministic=True)
    assert len(raw) == size
    pieces = [framing.head(raw, zlib.crc32(raw)), raw]
    for place, payload in zip(places, stored, strict=True):
        pieces += [place.content(), payload]
    return b"".join(pieces)


def empty_manifest(payloads: list[bytes]) -> pb.Manifest:
    """A manifest of stored payloads that no tensor uses yet."""
    manifest = pb.Manifest(spec_major=1, spec_minor=0, file_size=0)
    for raw in payloads:
        manifest.payloads.add(offset=0, stored_size=len(raw), raw_size=len(raw), crc32=zlib.crc32(raw), codec=0)
    return manifest


@given(st.integers(0, 1 << 24), st.lists(st.integers(0, 300) | st.integers(0, 1 << 24), max_size=8))
def test_framing_is_a_function_of_the_sizes(manifest_size: int, sizes: list[int]) -> None:
    """'Each payload's first byte stands at a multiple of 64'; 'offsets and file size are computable'."""
    position = 11 + len(varint(manifest_size)) + manifest_size
    for place, size in zip(framing.frames(manifest_size, sizes), sizes, strict=True):
        header = 1 + len(varint(size))
        gap = -(position + header) % 64
        gap = 65 if gap == 1 else gap
        assert place.padding == gap != 1
        assert place.offset == position + gap + header
        assert place.offset % 64 == 0
        assert len(place.content()) == gap + header
        if gap:
            assert place.content()[:gap] == bytes([0x22, gap - 2]) + bytes(gap - 2)
        position = place.offset + size
    assert framing.file_size(manifest_size, sizes) == position


@given(bundles())
def test_mapped_reading_and_parsing_agree(built: BuiltBundle) -> None:
    """'Both ways give the same tensors'; the file is one protobuf message with every payload in its place."""
    with open_bundle(built.data) as mapped, parse_bundle(built.data) as parsed:
        assert model_of(mapped) == model_of(parsed)
        assert mapped.graph() == built.graph
        assert mapped.labels() == built.labels
        assert list(mapped) == [tensor.name for tensor in built.tensors]
        message = pb.Bundle.FromString(built.data)
        assert built.data[:5] == bytes.fromhex("0D4D4D4231")
        assert message.manifest == mapped.manifest
        assert not any(map(any, message.padding))
        for payload, entry in zip(message.payload, message.manifest.payloads, strict=True):
            assert built.data[entry.offset : entry.offset + entry.stored_size] == payload
            assert entry.offset % 64 == 0
        assert mapped.size == len(built.data) == message.manifest.file_size


@given(bundles(), st.integers(1, 3))
def test_no_buffer_need_be_aligned(built: BuiltBundle, shift: int) -> None:
    """'No reader may need the caller's buffer to be aligned.'"""
    buffer = bytearray(shift) + built.data
    with open_bundle(memoryview(buffer)[shift:]) as moved, open_bundle(built.data) as bundle:
        assert model_of(moved) == model_of(bundle)


@both_readers
def test_duplicate_manifest(opener: Opener) -> None:
    """'Singular fields once': a second manifest, which a protobuf runtime would merge, is refused."""
    data = small_bundle()
    start, end = manifest_span(data)
    again = b"\x1a" + varint(end - start) + data[start:end]
    for changed in (data + again, data[:end] + again + data[end:], data[:5] + again + data[5:]):
        with pytest.raises(MobileModelError):
            opener(changed)


@both_readers
def test_reserialised(opener: Opener) -> None:
    """'Stock re-serialisation keeps the length ... but moves every payload, and is refused as such.'"""
    data = small_bundle()
    again = pb.Bundle.FromString(data).SerializeToString()
    assert len(again) == len(data)
    with pytest.raises(MisplacedPayloadError):
        opener(again)


@both_readers
def test_reordered_fields(opener: Opener) -> None:
    """'Fixed field order': payloads in another order, or the magic after the CRC, are refused."""
    data = small_bundle()
    with open_bundle(data) as bundle:
        offsets = [entry.offset for entry in bundle.manifest.payloads]
        sizes = [entry.stored_size for entry in bundle.manifest.payloads]
    first = next(i for i in range(len(sizes) - 1) if sizes[i] == sizes[i + 1] and
                 data[offsets[i] :][: sizes[i]] != data[offsets[i + 1] :][: sizes[i]])  # fmt: skip
    a, b, size = offsets[first], offsets[first + 1], sizes[first]
    swapped = bytearray(data)
    swapped[a : a + size], swapped[b : b + size] = data[b : b + size], data[a : a + size]
    assert pb.Bundle.FromString(bytes(swapped)).manifest == pb.Bundle.FromString(data).manifest
    assert read_by(opener, bytes(swapped)) is None
    assert read_by(opener, data[5:10] + data[:5] + data[10:]) is None


@pytest.mark.parametrize("which", ["tag", "length", "padding tag", "padding length", "padding"])
def test_bytes_between_payloads(which: str) -> None:
    """'Bytes between payloads are checked by `verify` and by readers that parse the whole file', and at each access."""
    data = small_bundle()
    with open_bundle(data) as bundle:
        places = framing.frames(
            bundle.container.manifest_size, [entry.stored_size for entry in bundle.manifest.payloads]
        )
        place = places[bundle["split"].message.palette.codes.first_payload + 3]
    assert place.padding > 2
    at = {"tag": place.start + place.padding, "length": place.offset - 1, "padding tag": place.start,
          "padding length": place.start + 1, "padding": place.start + 2}[which]  # fmt: skip
    changed = bytearray(data)
    changed[at] ^= 4
    with open_bundle(bytes(changed)) as bundle:
        with pytest.raises(MisplacedPayloadError) as caught:
            bundle["split"].numpy()
        assert caught.value.offset == at
        with pytest.raises(MisplacedPayloadError):
            bundle.verify()
        assert bundle["plain"].numpy().shape == (6, 40)
    assert read_by(parse_bundle, bytes(changed)) is None


@both_readers
def test_trailing_data(opener: Opener) -> None:
    """'Nothing follows the last payload.'"""
    for tail in (b"\0", b"\x22\0", b"\x2a\0", b"PK\x05\x06"):
        with pytest.raises(TrailingDataError):
            opener(small_bundle() + tail)


@both_readers
def test_truncation_at_every_length(opener: Opener) -> None:
    """'File size (truncated / trailing data)': no prefix of a bundle is a bundle."""
    data = small_bundle()
    assert 2048 < len(data) < 6144
    for size in range(len(data)):
        assert read_by(opener, data[:size]) is None, size


@both_readers
@pytest.mark.parametrize("seed", [0, 1])
def test_every_byte_changed(opener: Opener, seed: int) -> None:
    """'Nothing lies': a changed byte is refused, or says the same."""
    data = small_bundle()
    with opener(data) as bundle:
        model = model_of(bundle)
    masks = np.random.default_rng(seed).integers(1, 256, len(data))
    for at, mask in enumerate(masks.tolist()):
        changed = bytearray(data)
        changed[at] ^= mask
        assert read_by(opener, bytes(changed)) in (None, model), at


@both_readers
def test_every_byte_of_the_manifest_changed_under_a_right_checksum(opener: Opener) -> None:
    """'CRC-32 is against damage, not attackers': a manifest that lies is refused, or decodes to something."""
    data = small_bundle()
    start, end = manifest_span(data)
    masks = np.random.default_rng(2).integers(1, 256, (2, end - start))
    refused = 0
    for row in masks:
        for at, mask in enumerate(row.tolist()):
            manifest = bytearray(data[start:end])
            manifest[at] ^= mask
            refused += read_by(opener, sealed(data, bytes(manifest))) is None
    assert refused > masks.size // 2


def test_every_byte_of_the_payloads_changed_under_right_checksums() -> None:
    """A stream that lies under a right CRC: an error of ours, or values of the same shape."""
    data = small_bundle()
    message = pb.Bundle.FromString(data)
    for index, payload in enumerate(message.payload):
        for at in range(0, len(payload), 3):
            stored = list(message.payload)
            stored[index] = payload[:at] + bytes([payload[at] ^ (1 << at % 8)]) + payload[at + 1 :]
            message.manifest.payloads[index].crc32 = zlib.crc32(stored[index])
            read_by(open_bundle, framed(message.manifest, stored))
        message.manifest.payloads[index].crc32 = zlib.crc32(payload)


@given(st.binary(max_size=200))
def test_any_manifest(manifest: bytes) -> None:
    """Any bytes as a manifest are refused with an error of our tree."""
    head = pb.Manifest(spec_major=1, spec_minor=0).SerializeToString()
    for raw in (manifest, head + manifest):
        assert read_by(open_bundle, framing.head(raw, zlib.crc32(raw)) + raw) is None


def palette_of(manifest: pb.Manifest, dims: list[int], name: str = "w", **codes: Any) -> pb.Tensor:
    """Add a 1-bit palette tensor whose codes start in payload 1 and whose table of two float16 is payload 0."""
    tensor = manifest.tensors.add(name=name, dtype=1, dims=dims)
    stream = {"row_axes": 1, "depth": 1, "vector": 1, "rows_per_block": 1, "first_payload": 1} | codes
    tensor.palette.codes.CopyFrom(pb.Codes(**stream))
    tensor.palette.entries, tensor.palette.table_type = 2, pb.FLOAT_TYPE_F16
    tensor.palette.tables.size = 4
    return tensor


HUGE = 1 << 63


@pytest.mark.parametrize(
    ("dims", "codes"),
    [
        ([8, 8], {"view": [HUGE, 2], "first_payload": 0}),
        ([0], {"view": [HUGE, HUGE, 0], "first_payload": 0}),
        ([0], {"view": [0, HUGE, HUGE], "first_payload": 0}),
        ([8, 8], {"row_axes": 3}),
        ([8, 8], {"row_axes": 2**32 - 1}),
        ([8, 8], {"rows_per_block": 0}),
        ([8, 8], {"first_payload": 2**32 - 1}),
        ([8, 8], {"segment": 2**32 - 1}),
        ([8, 8], {"vector": 257}),
        ([8, 8], {"perm": [0, 0]}),
        ([8, 8], {"perm": list(range(100_000))}),
        ([2**31 - 1, 1], {}),
        ([2**31 - 1, 1], {"split": True}),
        ([2**31, 1], {}),
        ([1, 2**31 - 1], {}),
        ([2**32, 2**32, 2**32, 2**32], {}),
    ],
)
def test_sizes_that_overflow(dims: list[int], codes: dict[str, Any]) -> None:
    """'Raw sizes follow from the encoding'; limits are checked before anything of their size is made."""
    table = b"\0\0\0\x3c"
    manifest = empty_manifest([table, b"\0" * 8])
    palette_of(manifest, dims, **codes)
    begin = time.perf_counter()
    with pytest.raises((MalformedManifestError, LimitExceededError)):
        open_bundle(framed(manifest, [table, b"\0" * 8]))
    assert time.perf_counter() - begin < 2


@pytest.mark.parametrize(
    ("field", "value"),
    [("entries", 2**32 - 1), ("entries", 0), ("entries", 3), ("tables_by", pb.Grouping(row_group=1))],
)
def test_tables_that_overflow(field: str, value: Any) -> None:
    """'entries / sub-vector / T x entries x d: 65,536 / 256 / 2^24'."""
    table = b"\0\0\0\x3c"
    manifest = empty_manifest([table, b"\0"])
    palette = palette_of(manifest, [2**24 + 1, 1], rows_per_block=2**32 - 1).palette
    if isinstance(value, int):
        setattr(palette, field, value)
    else:
        palette.tables_by.CopyFrom(value)
    with pytest.raises((MalformedManifestError, LimitExceededError)):
        open_bundle(framed(manifest, [table, b"\0"]))


@pytest.mark.parametrize("chunk", [0, 1, 63, 65, 2**64 - 64, 64])
def test_dense_chunks_that_overflow(chunk: int) -> None:
    """'Dense tensors are cut every chunk_elements (multiple of 64)', in at most 65,535 payloads of 16 MiB."""
    manifest = empty_manifest([b"\0"])
    tensor = manifest.tensors.add(name="w", dtype=DType.UINT8, dims=[2**31 - 1])
    tensor.dense.stored_dtype, tensor.dense.chunk_elements = DType.UINT8, chunk
    begin = time.perf_counter()
    with pytest.raises((MalformedManifestError, LimitExceededError)):
        open_bundle(framed(manifest, [b"\0"]))
    assert time.perf_counter() - begin < 1


@pytest.mark.parametrize("view", [[0, 2**31 - 1], [2**31 - 1, 0], [0] * 16, [3, 5, 0, 7]])
@pytest.mark.parametrize("row_axes", [0, 1, 2])
def test_empty_tensors_of_any_view(view: list[int], row_axes: int) -> None:
    """A product of 0 hides no other size: what opens also decodes, to nothing."""
    manifest = empty_manifest([b""])
    palette_of(manifest, [0, 3], view=view, row_axes=row_axes, first_payload=0).palette.tables.size = 0
    with open_bundle(framed(manifest, [b""])) as bundle:
        assert bundle["w"].numpy().shape == (0, 3)
        assert bundle["w"].raw() == b""
        bundle.verify()


def test_a_block_may_ask_for_more_rows_than_there_are() -> None:
    """'rows_per_block >= 1'; the last block is shorter, also where it is the first."""
    table, block = b"\0\0\0\x3c", b"\xff" * 8
    manifest = empty_manifest([table, block])
    palette_of(manifest, [8, 8], rows_per_block=2**32 - 1)
    with open_bundle(framed(manifest, [table, block])) as bundle:
        assert np.array_equal(bundle["w"].numpy(), np.ones((8, 8), np.float32))


def test_slices_may_overlap_but_not_leave_their_pool() -> None:
    """'Slice addresses decoded bytes'; 'several tensors may share one'; 'each at a multiple of 16'."""
    pool = bytes(range(48))

    def built(offset: int, size: int) -> bytes:
        manifest = empty_manifest([pool])
        for name, place, length in (("a", 0, 48), ("b", offset, size)):
            tensor = manifest.tensors.add(name=name, dtype=DType.UINT8, dims=[length])
            tensor.dense.stored_dtype = DType.UINT8
            tensor.dense.small.size, tensor.dense.small.offset = length, place
        return framed(manifest, [pool])

    with open_bundle(built(16, 32)) as bundle:
        bundle.verify()
        assert bytes(bundle["b"].raw()) == pool[16:]
    for offset, size in ((8, 8), (16, 33), (48, 1), (2**64 - 16, 16), (2**63, 1)):
        with pytest.raises(MalformedManifestError):
            open_bundle(built(offset, size))


def test_nothing_hides_in_a_pool() -> None:
    """'Framing is a function of the sizes, so nothing can hide': nor between the slices of a pool."""
    pool = bytes(16) + b"hidden" + bytes(10)
    manifest = empty_manifest([pool])
    tensor = manifest.tensors.add(name="a", dtype=DType.UINT8, dims=[16])
    tensor.dense.stored_dtype, tensor.dense.small.size = DType.UINT8, 16
    with open_bundle(framed(manifest, [pool])) as bundle:
        assert bytes(bundle["a"].raw()) == bytes(16)
        with pytest.raises(MobileModelError, match="belong to no tensor"):
            bundle.verify()


@pytest.mark.parametrize(
    ("codec", "stored"), [(2, b"anything"), (3, b"anything"), (3, bytes.fromhex("28B52FFD2000010000") + b"x")]
)
def test_nothing_hides_in_an_empty_stream(codec: int, stored: bytes) -> None:
    """'zstd: exactly one frame, ... nothing after', also where a split block has no other codes."""
    table, plane = b"\0\0\0\x3c", b"\0"
    manifest = empty_manifest([table, plane, b""])
    entry = manifest.payloads[2]
    entry.codec, entry.stored_size, entry.crc32 = codec, len(stored), zlib.crc32(stored)
    palette_of(manifest, [1, 8], split=True)
    with open_bundle(framed(manifest, [table, plane, stored])) as bundle, pytest.raises(MalformedStreamError):
        bundle["w"].numpy()


def shared_payloads(tensors: int, payloads: int) -> bytes:
    """Each of many tensors uses each of many payloads."""
    raw = [b"\1" * 64] * payloads
    manifest = empty_manifest(raw)
    for index in range(tensors):
        tensor = manifest.tensors.add(name=f"{index:06}", dtype=DType.UINT8, dims=[64 * payloads])
        tensor.dense.stored_dtype, tensor.dense.chunk_elements = DType.UINT8, 64
    return framed(manifest, raw)


def test_sharing_does_not_multiply_the_work_of_opening() -> None:
    """'tensors, payloads: 65,535 each': 4,000 tensors of 4,000 payloads take the time of 8,000, not of 16 million."""
    data = shared_payloads(4000, 4000)
    begin = time.perf_counter()
    with open_bundle(data) as bundle:
        assert len(bundle) == 4000
    assert time.perf_counter() - begin < 5


def test_errors_in_a_run_name_the_payload() -> None:
    """An error says what was expected and what was found, and where."""
    raw = [b"\1" * 64] * 5
    for index, field, value in ((2, "raw_size", 63), (4, "codec", 2), (3, "stored_size", 64)):
        manifest = empty_manifest(raw)
        tensor = manifest.tensors.add(name="w", dtype=DType.UINT8, dims=[64 * 5])
        tensor.dense.stored_dtype, tensor.dense.chunk_elements = DType.UINT8, 64
        setattr(manifest.payloads[index], field, value)
        if field == "stored_size":
            manifest.payloads[index].raw_size = 65
        with pytest.raises(MalformedManifestError, match=f"payload {index} ") as caught:
            open_bundle(framed(manifest, raw))
        assert caught.value.tensor == "w"


def test_limits_may_be_lowered_only() -> None:
    """'A reader may be stricter by argument.'"""
    data = small_bundle()
    for limits in (Limits(tensors=3), Limits(payloads=2), Limits(manifest=100), Limits(file=1000), Limits(name=3),
                   Limits(graph=10), Limits(labels=3), Limits(elements=4000), Limits(block=63), Limits(rank=1),
                   Limits(entries=3), Limits(nesting=0)):  # fmt: skip
        with pytest.raises(LimitExceededError):
            open_bundle(data, limits=limits)
        with pytest.raises(LimitExceededError):
            parse_bundle(data, limits=limits)
    for wrong in ({"tensors": 65_536}, {"block": -1}):
        with pytest.raises(UsageError):
            Limits(**wrong)


class SpyMap(mmap.mmap):
    """A mapping that tests can look at."""

    made: ClassVar[list[SpyMap]] = []

    def __new__(cls, *arguments: Any, **named: Any) -> SpyMap:
        mapping = super().__new__(cls, *arguments, **named)
        cls.made.append(mapping)
        return mapping


@pytest.fixture
def mappings(monkeypatch: pytest.MonkeyPatch) -> list[SpyMap]:
    monkeypatch.setattr(mmap, "mmap", SpyMap)
    monkeypatch.setattr(SpyMap, "made", [])
    return SpyMap.made


def test_a_refused_file_is_unmapped_at_once(tmp_path: Path, mappings: list[SpyMap]) -> None:
    """A file that was refused can be replaced while its error is still being handled."""
    path = tmp_path / "a.mm"
    data = small_bundle()
    moved = pb.Bundle.FromString(data).SerializeToString()
    for content in (data[:-1], data[:100], b"something else altogether", moved):
        path.write_bytes(content)
        with pytest.raises(MobileModelError) as caught:
            open_file(path)
        assert caught.value.file == str(path)
        assert mappings[-1].closed


def test_arrays_outlive_the_bundle(tmp_path: Path, mappings: list[SpyMap]) -> None:
    """'Close it ...; arrays that were decoded stay valid afterwards', of every kind."""
    path = tmp_path / "a.mm"
    path.write_bytes(small_bundle())
    with open_bundle(path) as bundle:
        tensor = bundle["plain"]
        scales = tensor.scales()
        assert scales is not None
        held = [tensor.numpy(), tensor.indices(), tensor.tables(), scales, bundle["half"].numpy()]
        copies = [np.array(array) for array in held]
    assert mappings[-1].closed
    assert all(np.array_equal(array, copy) for array, copy in zip(held, copies, strict=True))
    with pytest.raises(UsageError, match="closed"):
        tensor.numpy()


def test_closing_under_a_view_keeps_it_valid(tmp_path: Path) -> None:
    """A view of the file's bytes that is still held at closing neither fails nor dangles."""
    path = tmp_path / "a.mm"
    path.write_bytes(small_bundle())
    container = open_file(path)
    view = container.stored(0)
    array = np.frombuffer(container.data, np.uint8)
    container.close()
    container.close()
    assert array[:5].tobytes() == framing.MAGIC
    assert zlib.crc32(view) == container.entry(0).crc32
    del view, array
    gc.collect()


@pytest.mark.parametrize("kind", ["missing", "folder", "nul", "empty"] + ["pipe"] * hasattr(os, "mkfifo"))
def test_what_is_no_file(tmp_path: Path, kind: str) -> None:
    """What cannot be opened is a UsageError, and opening a pipe does not wait for its writer."""
    path = tmp_path / "a.mm"
    if kind == "folder":
        path.mkdir()
    elif kind == "pipe":
        os.mkfifo(path)
    elif kind == "empty":
        path.touch()
    name = str(path) + "\0" if kind == "nul" else path
    with pytest.raises(MobileModelError) as caught:
        open_bundle(name)
    assert caught.value.status == ("TRUNCATED" if kind == "empty" else "USAGE")


def test_a_manifest_of_many_tensors_opens_in_bounded_time() -> None:
    """'tensors, payloads: 65,535 each': time and memory grow with the manifest's size alone."""
    pool = bytes(64)
    manifest = empty_manifest([pool])
    for index in range(20_000):
        tensor = manifest.tensors.add(name=f"{index:06}", dtype=1, dims=[1])
        tensor.dense.stored_dtype, tensor.dense.small.size = 1, 4
    begin = time.perf_counter()
    with open_bundle(framed(manifest, [pool])) as bundle:
        assert sum(tensor.stored_bytes for tensor in bundle.values()) == 20_000 * 4
    assert time.perf_counter() - begin < 15


def test_writer_reports_what_it_wrote() -> None:
    """The writer returns the size that the manifest says."""
    with Spool() as spool:
        spool.add(b"abc", 0, 3)
        manifest = pb.Manifest(spec_major=1, spec_minor=0, labels=0)
        file = io.BytesIO()
        assert write_container(file, manifest, spool) == len(file.getvalue()) == manifest.file_size
    with open_bundle(file.getvalue()) as bundle:
        assert bundle.labels() == ("abc",)


@pytest.mark.parametrize("text", [b"[1]", b"{", b"\xff", b"[" * 100_000])
def test_reports_that_are_no_object(text: bytes) -> None:
    """The report is a JSON object."""
    manifest = empty_manifest([text])
    manifest.report = 0
    with open_bundle(framed(manifest, [text])) as bundle, pytest.raises(MobileModelError, match="report"):
        bundle.report()


def test_unset_fixed_fields_are_missed() -> None:
    """'Fixed-size fields have explicit presence and are always written': an entry without one is refused."""
    raw = small_bundle()
    manifest = pb.Bundle.FromString(raw).manifest
    manifest.payloads[0].ClearField("crc32")
    with pytest.raises(MalformedManifestError, match="payload entry 0"):
        open_bundle(framed(manifest, list(pb.Bundle.FromString(raw).payload)))


def test_a_repeated_magic_is_no_bundle() -> None:
    """'Minimal varints': the manifest's length in more bytes than it needs is refused."""
    data = small_bundle()
    start, end = manifest_span(data)
    length = varint(end - start)
    longer = length[:-1] + bytes([length[-1] | 0x80, 0])
    with pytest.raises(MalformedWireError):
        open_bundle(data[: framing.HEAD_SIZE] + longer + data[start:])
