"""The container: framing, both ways of reading, hostile bytes (format 1.0 §1, §2, §7)."""

from __future__ import annotations

import gc
import io
import mmap
import os
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mobilemodel.bundle import Bundle, open_bundle, parse_bundle
from mobilemodel.container import Spool, framing, open_file, write_container
from mobilemodel.dtypes import DType
from mobilemodel.errors import (
    MalformedWireError,
    MisplacedPayloadError,
    MobileModelError,
    TrailingDataError,
    UsageError,
)
from mobilemodel.v1 import bundle_pb2 as pb
from mobilemodel.wire import varint
from tests.handmade import framed, manifest_span, small_bundle
from tests.strategies import BuiltBundle, DenseTensor, bundles, write_bundle

Opener = Callable[[bytes], Bundle]
both_readers = pytest.mark.parametrize("opener", [open_bundle, parse_bundle])


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


def sealed(data: bytes, manifest: bytes) -> bytes:
    """The same file with another manifest of the same length and the right CRC."""
    start, end = manifest_span(data)
    assert end - start == len(manifest)
    return framing.head(manifest, zlib.crc32(manifest)) + manifest + data[end:]


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


def test_a_closed_bundle_reads_nothing() -> None:
    """'Reading afterwards raises UsageError', also of a pool that was decoded before."""
    built = [DenseTensor(name, DType.UINT8, (999,), DType.UINT8, bytes(999)) for name in ("a", "b")]
    with open_bundle(write_bundle(built)) as bundle:
        tensors = list(bundle.values())
        assert all(bytes(tensor.raw()) == bytes(999) for tensor in tensors)
    for tensor in tensors:
        with pytest.raises(UsageError, match="closed"):
            tensor.raw()


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


def test_writer_reports_what_it_wrote() -> None:
    """The writer returns the size that the manifest says."""
    with Spool() as spool:
        spool.add(b"abc", 0, 3)
        manifest = pb.Manifest(spec_major=1, spec_minor=0, labels=0)
        file = io.BytesIO()
        assert write_container(file, manifest, spool) == len(file.getvalue()) == manifest.file_size
    with open_bundle(file.getvalue()) as bundle:
        assert bundle.labels() == ("abc",)


def test_a_repeated_magic_is_no_bundle() -> None:
    """'Minimal varints': the manifest's length in more bytes than it needs is refused."""
    data = small_bundle()
    start, end = manifest_span(data)
    length = varint(end - start)
    longer = length[:-1] + bytes([length[-1] | 0x80, 0])
    with pytest.raises(MalformedWireError):
        open_bundle(data[: framing.HEAD_SIZE] + longer + data[start:])
