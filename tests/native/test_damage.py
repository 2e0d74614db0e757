"""Damaged bundles: the C reader says what the Python reader says, of the file and of each part, and survives."""

from __future__ import annotations

import json
import zlib
from collections.abc import Iterator, Sequence
from random import Random
from typing import Any

from google.protobuf.message import Message
from hypothesis import given
from hypothesis import strategies as st

import mobilemodel
from mobilemodel.container import framing
from mobilemodel.dump import dump_json
from mobilemodel.errors import MobileModelError
from mobilemodel.limits import Limits
from mobilemodel.v1 import bundle_pb2 as pb
from tests.conformance.builder import manifest_span
from tests.conformance.write_vectors import VECTORS, committed, statuses
from tests.fuzz.messages import change
from tests.native.serving import OK, Served
from tests.native.wild import wild_bundles
from tests.strategies import bundles, damaged

files = bundles().map(lambda built: built.data) | wild_bundles()
VALID = [(VECTORS / entry["file"]).read_bytes() for entry in committed() if entry["expect"] == "ok"]
vectors = st.sampled_from([data for data in VALID if len(data) < 20_000])
MOST = 1 << 22
"""elements of a tensor: a changed number may ask for gigabytes"""
CALLERS = {"elements": MOST, "graph": 2**31 - 1, "uses": 2**31, "values": 100_000}
"""limits with which both readers are equally strict"""
EITHER = {"LIMIT_EXCEEDED", "MALFORMED_MANIFEST"}
""" "Within checks 7 and 9, where a file has more than one fault, a reader MAY report any of them" (container.md §6)"""


def reference(data: bytes) -> tuple[str, str]:
    """The Python reader's status, and its dump where the file opens."""
    try:
        with mobilemodel.open(data, limits=Limits(elements=MOST)) as bundle:
            return OK, dump_json(bundle)
    except MobileModelError as error:
        return error.status, ""


def agrees(served: Served, data: bytes) -> bool:
    wanted, values = reference(data)
    found = served.open(data, CALLERS)
    return (found == wanted or {found, wanted} == EITHER) and (wanted != OK or served.dump() == values)


def sealed(data: bytes, raw: bytes) -> bytes:
    """The same payloads behind another manifest of the same length, with its CRC-32."""
    start, end = manifest_span(data)
    assert len(raw) == end - start
    return framing.head(raw, zlib.crc32(raw)) + raw + data[end:]


def parts(data: bytes) -> tuple[pb.Manifest, list[bytes]]:
    """Manifest and stored payloads, both to be changed."""
    manifest = pb.Manifest()
    with mobilemodel.open(data) as bundle:
        manifest.CopyFrom(bundle.manifest)
        return manifest, [bytes(bundle.container.stored(index)) for index in range(len(manifest.payloads))]


def reframed(manifest: pb.Manifest, stored: list[bytes]) -> bytes:
    """A file of these: the file's size and offsets are right where there are as many entries as payloads."""
    size = len(manifest.SerializeToString())
    places = framing.frames(size, [len(payload) for payload in stored])
    if len(manifest.payloads) == len(stored):
        for entry, place in zip(manifest.payloads, places, strict=True):
            entry.offset = place.offset
        manifest.file_size = framing.file_size(size, [len(payload) for payload in stored])
    raw = manifest.SerializeToString(deterministic=True)
    body = b"".join(place.content() + payload for place, payload in zip(places, stored, strict=True))
    return framing.head(raw, zlib.crc32(raw)) + raw + body


@given(data=files, choice=st.data())
def test_any_damage_is_found(served: Served, data: bytes, choice: st.DataObject) -> None:
    """A flipped bit anywhere, or a cut: "there is no room for anything else between, before or behind"."""
    broken = choice.draw(damaged(data))
    assert broken == data or reference(broken)[0] != OK or "status" in reference(broken)[1]
    assert agrees(served, broken)


def broken_stream(stored: bytes, random: Random) -> tuple[bytes, bool]:
    """Stored bytes with a few of them changed, or with more or fewer at their end; whether only head or end changed."""
    if random.randrange(4) == 0:
        return random.choice((stored + bytes([random.randrange(256)]), stored + stored, stored[:-1])), True
    out, reach = bytearray(stored), random.choice((6, 50, 2**31))
    for _ in range(random.choice((1, 1, 2, 5))):
        at = min(random.randrange(len(out)), reach - 1)
        out[at] = random.choice((out[at] ^ 1 << random.randrange(8), 0, 255, random.randrange(256)))
    return bytes(out), reach == 6


@given(data=files | vectors, random=st.randoms(use_true_random=False))
def test_damaged_streams(served: Served, data: bytes, random: Random) -> None:
    """Stored bytes that are not what a codec wrote, under the right CRC-32: the readers agree on what is a stream."""
    manifest, stored = parts(data)
    used = [index for index, payload in enumerate(stored) if payload]
    if not used:
        return
    index = random.choice(used)
    stored[index], outside = broken_stream(stored[index], random)
    entry = manifest.payloads[index]
    entry.stored_size, entry.crc32 = len(stored[index]), zlib.crc32(stored[index])
    broken = reframed(manifest, stored)
    if entry.codec != pb.CODEC_ZSTD or outside:
        assert agrees(served, broken)
        return
    # Versions of libzstd differ in which broken blocks they refuse, and in what the others decode to.
    assert served.open(broken, CALLERS) == OK
    assert statuses(json.loads(served.dump())) <= statuses(json.loads(reference(broken)[1])) | {"MALFORMED_STREAM"}


@given(data=files | vectors, random=st.randoms(use_true_random=False))
def test_hostile_manifests(served: Served, data: bytes, random: Random) -> None:
    """Bytes of the manifest that are changed under the right CRC-32: both readers open the same files."""
    start, end = manifest_span(data)
    raw = bytearray(data[start:end])
    for _ in range(random.choice((1, 1, 1, 2))):
        at = random.randrange(len(raw))
        raw[at] = random.choice((raw[at] ^ 1 << random.randrange(8), random.randrange(256), 0, 127, 128, 255))
    assert agrees(served, sealed(data, bytes(raw)))


@given(data=files | vectors, random=st.randoms(use_true_random=False))
def test_contradictory_manifests(served: Served, data: bytes, random: Random) -> None:
    """Fields of the manifest that are changed, gone, doubled or exchanged, in a file that is well framed again."""
    manifest, stored = parts(data)
    try:
        change(manifest, random)
        broken = reframed(manifest, stored)
    except (UnicodeError, ValueError):  # text or a number that protobuf itself refuses
        return
    assert agrees(served, broken)


Number = tuple[tuple[str, ...], Message, Any, int | None]
"""what leads to it, who holds it, its field, its place in a run of numbers"""


def numbers(message: Message, place: tuple[str, ...] = ()) -> Iterator[Number]:
    """Every number in a message and in those inside it."""
    for field in message.DESCRIPTOR.fields:
        value = getattr(message, field.name)
        where = (*place, field.name)
        if field.message_type is not None:
            inner = value if isinstance(value, Sequence) else [value] if message.HasField(field.name) else []
            for one in inner:
                yield from numbers(one, where)
        elif field.cpp_type in (field.CPPTYPE_UINT32, field.CPPTYPE_UINT64, field.CPPTYPE_ENUM, field.CPPTYPE_BOOL):
            runs = range(len(value)) if isinstance(value, Sequence) else [None]
            for index in runs:
                yield where, message, field, index


def test_every_number_of_the_manifest_matters_to_both(served: Served) -> None:
    """Each one a little more, a little less, nothing, or far too much: refused by both readers, or read alike."""
    for data in VALID[:: 8 if served.emulated else 1]:
        manifest, stored = parts(data)
        for where, holder, field, index in list(numbers(manifest)):
            kept = getattr(holder, field.name) if index is None else getattr(holder, field.name)[index]
            if where in (("file_size",), ("payloads", "offset")):
                continue
            for value in {0, kept + 1, kept - 1, 2 * kept, kept + 2**31} - {kept}:
                try:
                    put(holder, field, index, value)
                except (ValueError, TypeError):
                    continue
                assert agrees(served, reframed(manifest, stored)), (where, kept, value)
            put(holder, field, index, kept)


def put(holder: Message, field: Any, index: int | None, value: int) -> None:
    """Set a number."""
    if index is None:
        setattr(holder, field.name, bool(value) if field.cpp_type == field.CPPTYPE_BOOL else value)
    else:
        getattr(holder, field.name)[index] = value
