"""Manifests that contradict themselves, overflow, hide or multiply (format 1.0 §2 to §4, §7)."""

from __future__ import annotations

import time
import zlib
from typing import Any

import numpy as np
import pytest

from mobilemodel.bundle import open_bundle, parse_bundle
from mobilemodel.dtypes import DType
from mobilemodel.errors import (
    LimitExceededError,
    MalformedManifestError,
    MobileModelError,
    UsageError,
)
from mobilemodel.limits import Limits
from mobilemodel.v1 import bundle_pb2 as pb
from tests.handmade import empty_manifest, framed, small_bundle


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


@pytest.mark.parametrize("view", [[2**63, 2**63, 0], [0, 2**31], [2**16, 2**16, 0]])
def test_views_of_empty_tensors_are_limited(view: list[int]) -> None:
    """'elements (product of non-zero dims): 2^31 - 1', of a view as of dims: no array has axes of 2^63."""
    manifest = empty_manifest([b""])
    palette_of(manifest, [0, 3], view=view, first_payload=0).palette.tables.size = 0
    with pytest.raises(LimitExceededError, match="elements of the view"):
        open_bundle(framed(manifest, [b""]))


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
    ("codec", "stored"),
    [(0, b"anything"), (2, b"anything"), (3, b"anything"), (3, bytes.fromhex("28B52FFD2000010000"))],
)
def test_nothing_hides_in_an_empty_stream(codec: int, stored: bytes) -> None:
    """'What has no bytes is stored, and has none in the file either' (codecs.md §2): a split block without codes."""
    table, plane = b"\0\0\0\x3c", b"\0"
    manifest = empty_manifest([table, plane, b""])
    entry = manifest.payloads[2]
    entry.codec, entry.stored_size, entry.crc32 = codec, len(stored), zlib.crc32(stored)
    palette_of(manifest, [1, 8], split=True)
    with pytest.raises(MalformedManifestError, match="payload 2 cannot have this raw_size"):
        open_bundle(framed(manifest, [table, plane, stored]))


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


@pytest.mark.parametrize("size", [63, 65])
@pytest.mark.parametrize("index", [0, 2, 4])
def test_raw_sizes_follow_from_the_encoding(index: int, size: int) -> None:
    """'A recorded size that differs is malformed before any allocation', in each payload of a run."""
    raw = [b"\1" * 64] * 5
    raw[index] = b"\1" * size
    manifest = empty_manifest(raw)
    tensor = manifest.tensors.add(name="w", dtype=DType.UINT8, dims=[64 * 5])
    tensor.dense.stored_dtype, tensor.dense.chunk_elements = DType.UINT8, 64
    with pytest.raises(MalformedManifestError, match=f"payload {index} has a raw_size"):
        open_bundle(framed(manifest, raw))


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
