"""The strict protobuf grammar of the manifest (spec/container.md §5)."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mobilemodel import wire
from mobilemodel.errors import LimitExceededError, MalformedWireError, MobileModelError
from mobilemodel.v1 import bundle_pb2 as pb
from mobilemodel.wire import read_varint, varint, varint_size
from tests.strategies import BuiltBundle, bundles

MANIFEST = pb.DESCRIPTOR.message_types_by_name["Manifest"]


def check(data: bytes, messages: int = 1000) -> None:
    wire.check_grammar(data, 0, len(data), MANIFEST, 8, messages)


@given(st.integers(0, 2**64 - 1))
def test_varints(value: int) -> None:
    """'Minimal varints': ours are those of the protobuf runtime, and are read back."""
    data = varint(value)
    assert b"\x18" + data == pb.Slice(size=value).SerializeToString() or value == 0
    assert varint_size(value) == len(data)
    assert read_varint(b"\xff" + data + b"\0", 1, 1 + len(data)) == (value, 1 + len(data))
    with pytest.raises(MalformedWireError, match="runs past"):
        read_varint(data, 0, len(data) - 1)
    if len(data) < 10:
        longer = data[:-1] + bytes([data[-1] | 0x80, 0])
        with pytest.raises(MalformedWireError, match="shortest"):
            read_varint(longer, 0, len(longer))


@pytest.mark.parametrize("data", [b"\xff" * 9 + b"\x02", b"\xff" * 10 + b"\x01", b"\x80" * 10 + b"\x01"])
def test_varints_of_more_than_64_bits(data: bytes) -> None:
    """'Varints are minimal, have at most 10 bytes and are below 2^64.'"""
    with pytest.raises(MalformedWireError):
        read_varint(data, 0, len(data))


@given(bundles())
def test_what_the_runtime_writes_passes(built: BuiltBundle) -> None:
    """A manifest that a protobuf runtime serialised keeps the grammar, and walks to the same fields."""
    manifest = pb.Bundle.FromString(built.data).manifest.SerializeToString(deterministic=True)
    check(manifest)
    numbers = {field.number for field in wire.fields(manifest, 0, len(manifest))}
    assert numbers == {field.number for field, _ in pb.Manifest.FromString(manifest).ListFields()}


TENSOR = b"\x82\x01"  # field 16, wire type 2


@pytest.mark.parametrize(
    ("data", "why"),
    [
        (b"\x08\x01\x08\x01", "stands twice"),
        (b"\x10\x00\x08\x01", "stands after"),
        (b"\x2a\x00\x2a\x00", "stands twice"),
        (b"\x0d\x01\x00\x00\x00", "wire type"),
        (b"\x2a\x02a", "runs past"),
        (b"\x21\x00\x00", "runs past"),
        (b"\x0b\x0c", "wire type 3"),
        (b"\xa3\x06\xa4\x06", "wire type 3"),
        (b"\x00\x00", "out of range"),
        (b"\x88\x00\x01", "shortest"),
        (b"\x08\x81\x00", "shortest"),
        (b"\x08\x80\x80\x80\x80\x10", "does not fit 32 bits"),
        (b"\x2a\x01\xff", "not UTF-8"),
        (b"\x2a\x02\xc0\x80", "not UTF-8"),
        (b"\x2a\x03\xed\xa0\x80", "not UTF-8"),
        (b"\x2a\x04\xf4\x90\x80\x80", "not UTF-8"),
        (TENSOR + b"\x0b\x10\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01", "does not fit 31 bits"),
        (TENSOR + b"\x06\x10\x80\x80\x80\x80\x10", "does not fit 31 bits"),
        (b"\x62\x06\x28\x81\x80\x80\x80\x10", "colour_order does not fit 31 bits"),
        (TENSOR + b"\x02\x18\x01", "wire type"),
        (TENSOR + b"\x06\x1a\x01\x01\x1a\x01\x01", "stands twice"),
        (TENSOR + b"\x04\x1a\x02\x80\x00", "shortest"),
        (TENSOR + b"\x04\x2a\x00\x32\x00", "another member"),
        (TENSOR + b"\x04\x2a\x00\x2a\x00", "stands twice"),
        (b"\x62\x05\x32\x03\x00\x00\x00", "multiple of 4"),
    ],
)
def test_violations(data: bytes, why: str) -> None:
    """'Singular fields once, minimal varints, packed fields in one run, valid UTF-8'; 'nothing is cut to fit'."""
    with pytest.raises(MalformedWireError, match=why) as caught:
        check(data)
    assert caught.value.offset is not None


def test_unknown_fields_are_passed_over() -> None:
    """'Unknown optional fields are ignored', at every level."""
    unknown = b"\xa0\x06\x05\xa2\x06\x03abc\xa5\x06\x01\x02\x03\x04\xa1\x06" + bytes(8)
    tensor = b"\x0a\x01a" + unknown
    check(b"\x08\x01" + TENSOR + varint(len(tensor)) + tensor + unknown)


def test_messages_are_counted() -> None:
    """Two bytes on the wire become hundreds in memory: their number is limited before anything is parsed."""
    check(b"\x52\x00" * 999)
    with pytest.raises(LimitExceededError, match="too many messages"):
        check(b"\x52\x00" * 1000)


def test_nesting_is_limited() -> None:
    """'nesting / features: 8 / 64'."""
    grouping = b"\x2a\x00"
    palette = b"\x32" + varint(len(grouping)) + grouping
    data = TENSOR + varint(len(palette)) + palette
    wire.check_grammar(data, 0, len(data), MANIFEST, 3)
    with pytest.raises(LimitExceededError, match="nested"):
        wire.check_grammar(data, 0, len(data), MANIFEST, 2)


@given(st.binary(max_size=60))
def test_what_passes_is_what_the_runtime_reads(data: bytes) -> None:
    """'Two readers MUST never see two different manifests in the same bytes': what passes, the runtime can parse."""
    try:
        check(data)
    except MobileModelError:
        return
    pb.Manifest.FromString(data)
