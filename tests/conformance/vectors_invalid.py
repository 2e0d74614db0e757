"""The invalid vectors of the container: one fault each. The manifest's CRC-32 is right unless it is the fault."""

from __future__ import annotations

import zlib
from collections.abc import Callable

from mobilemodel.container import framing
from mobilemodel.v1 import bundle_pb2 as pb
from tests.conformance.builder import (
    FLOAT,
    Draft,
    Edit,
    floats,
    key,
    manifest_span,
    number_field,
)
from tests.conformance.rows import Row

ROWS: list[Row] = []
Make = Callable[[], bytes]


def refuse(
    name: str,
    status: str,
    make: Make,
    about: str,
    *covers: str,
    scope: str = "file",
    runtime: str = "same",
    profile: str = "baseline",
    expect: str = "error",
    rows: list[Row] = ROWS,
) -> None:
    """Register an invalid vector."""
    rows.append(Row(name, make, covers, about, profile, expect, status, scope, runtime))


def one() -> Draft:
    """A sound bundle: one dense tensor ``w``."""
    draft = Draft()
    draft.manifest.producer = "p"
    draft.small("w", floats(1.0, 2.0), [2])
    return draft


def two() -> bytes:
    """A sound file of two payloads."""
    draft = one()
    draft.small("x", floats(3.0), [1])
    return draft.build()


def patched(data: bytes, at: int, value: bytes) -> bytes:
    return data[:at] + value + data[at + len(value) :]


def changed(change: Callable[[pb.Manifest], object], start: Callable[[], Draft] = one) -> Make:
    """A file of a sound draft whose manifest message was changed."""

    def make() -> bytes:
        draft = start()
        change(draft.manifest)
        return draft.build()

    return make


def edited(edit: Edit, start: Callable[[], Draft] = one) -> Make:
    """A file of a sound draft whose manifest bytes were edited."""
    return lambda: start().build(edit)


# §2 and §6: head, truncation, trailing data.
SECTION_2 = "container.md §2"
ORDER = "container.md §6"
refuse("empty-file", "TRUNCATED", lambda: b"", "A file without bytes.", ORDER)
refuse("cut-magic", "TRUNCATED", lambda: two()[:3], "Three bytes, as in the magic.", ORDER)
refuse("magic", "NOT_A_BUNDLE", lambda: patched(two(), 4, b"2"), "Another last byte of the magic.", ORDER, SECTION_2)
refuse("short-not-magic", "NOT_A_BUNDLE", lambda: b"\x0d\x4e", "Two bytes that are not the magic's.", ORDER)
refuse("cut-head", "TRUNCATED", lambda: two()[:11], "The file ends before the manifest's length.", ORDER)
refuse("cut-length", "TRUNCATED", lambda: two()[:11] + b"\x80", "The file ends within the manifest's length.", ORDER)
refuse("cut-manifest", "TRUNCATED", lambda: two()[:40], "The file ends within the manifest.", ORDER, runtime="status")
refuse("cut-payload", "TRUNCATED", lambda: two()[:-1], "The last byte is missing.", ORDER, SECTION_2, runtime="status")
refuse(
    "trailing-byte",
    "TRAILING_DATA",
    lambda: two() + b"\0",
    "A zero byte follows the last payload.",
    SECTION_2,
    runtime="status",
)
refuse("trailing-field", "TRAILING_DATA", lambda: two() + b"\x22\x00", "An empty padding field follows.", SECTION_2)
refuse("crc-tag", "MALFORMED_WIRE", lambda: patched(two(), 5, b"\x1d"), "Byte 5 is another tag.", ORDER)
refuse("manifest-tag", "MALFORMED_WIRE", lambda: patched(two(), 10, b"\x2a"), "Byte 10 is another tag.", ORDER)
refuse(
    "manifest-length-5",
    "LIMIT_EXCEEDED",
    lambda: two()[:11] + b"\x81\x80\x80\x08" + two()[12:],
    "A manifest of 16 MiB and a byte.",
    ORDER,
    "security.md §3",
)
refuse(
    "manifest-length-long",
    "MALFORMED_WIRE",
    lambda: two()[:11] + b"\x81\x80\x80\x80\x80\x00" + two()[12:],
    "The manifest's length has six bytes.",
    ORDER,
)


def _long_length() -> bytes:
    data = one().build()
    return data[:11] + bytes([data[11] | 0x80, 0]) + data[12:]


refuse("manifest-length-not-minimal", "MALFORMED_WIRE", _long_length, "The manifest's length is not minimal.", ORDER)
refuse(
    "manifest-length-not-minimal-cut",
    "MALFORMED_WIRE",
    lambda: two()[:11] + b"\x81\x00\x80",
    "A length that ends, not minimal, before the file does.",
    ORDER,
)
refuse(
    "manifest-crc",
    "MANIFEST_CHECKSUM",
    lambda: patched(two(), 30, bytes([two()[30] ^ 1])),
    "One bit of the manifest is flipped.",
    ORDER,
)
refuse("major-2", "UNSUPPORTED_VERSION", changed(lambda m: setattr(m, "spec_major", 2)), "spec_major is 2.", ORDER)
refuse("major-0", "UNSUPPORTED_VERSION", changed(lambda m: setattr(m, "spec_major", 0)), "spec_major is 0.", ORDER)
refuse(
    "major-2-crc",
    "UNSUPPORTED_VERSION",
    lambda: patched(changed(lambda m: setattr(m, "spec_major", 2))(), 6, bytes(4)),
    "spec_major is 2 and the checksum is wrong: the version is what is reported.",
    ORDER,
)
refuse(
    "major-missing",
    "MALFORMED_WIRE",
    edited(lambda raw: raw[2:]),
    "The manifest does not begin with spec_major.",
    ORDER,
    "container.md §4.1",
)


def _begun(manifest: bytes) -> Make:
    """A file that ends with a manifest of these bytes, which has the right checksum."""
    return lambda: framing.head(manifest, zlib.crc32(manifest)) + manifest


refuse("major-no-manifest", "MALFORMED_WIRE", _begun(b""), "A manifest without bytes.", ORDER)
refuse("major-cut", "MALFORMED_WIRE", _begun(b"\x08\x81"), "The manifest ends within spec_major.", ORDER)
refuse("major-not-minimal", "MALFORMED_WIRE", _begun(b"\x08\x81\x00"), "spec_major is 1, in two bytes.", ORDER)
refuse("major-65-bits", "MALFORMED_WIRE", _begun(b"\x08" + b"\xff" * 9 + b"\x02"), "spec_major exceeds 64 bits.", ORDER)
refuse(
    "major-2-32",
    "UNSUPPORTED_VERSION",
    _begun(b"\x08\x81\x80\x80\x80\x10"),
    "spec_major is 2^32 + 1, which runtimes cut to 1.",
    ORDER,
)

# §6, checks 6 and 7: features and limits.
LIMITS = "security.md §3"
refuse(
    "file-feature",
    "UNSUPPORTED_FEATURE",
    changed(lambda m: m.required_features.append("trellis")),
    "The file requires an unknown feature.",
    ORDER,
    "container.md §4.2",
)
refuse(
    "file-features-65",
    "LIMIT_EXCEEDED",
    changed(lambda m: m.required_features.extend(["f"] * 65)),
    "65 required features.",
    ORDER,
    LIMITS,
)
refuse(
    "tensor-features-65",
    "LIMIT_EXCEEDED",
    changed(lambda m: m.tensors[0].required_features.extend(["f"] * 65)),
    "A tensor with 65 required features.",
    ORDER,
    LIMITS,
)
refuse(
    "name-1025",
    "LIMIT_EXCEEDED",
    changed(lambda m: setattr(m.tensors[0], "name", "n" * 1025)),
    "A name of 1,025 bytes.",
    LIMITS,
)
refuse("rank-17", "LIMIT_EXCEEDED", changed(lambda m: m.tensors[0].dims.extend([1] * 16)), "17 axes.", LIMITS)
refuse(
    "elements-2-31",
    "LIMIT_EXCEEDED",
    changed(lambda m: m.tensors[0].dims.extend([1 << 15, 1 << 15])),
    "2^31 elements.",
    LIMITS,
)
refuse(
    "elements-beside-0",
    "LIMIT_EXCEEDED",
    changed(lambda m: m.tensors[0].dims.extend([0, 1 << 62])),
    "No elements, but 2^63 beside the 0.",
    LIMITS,
)

# §6, check 8: places.
PLACES = "container.md §3"
ENTRY_END = key(5, 5) + bytes(4)


def entry_edit(size: int, new: bytes) -> Edit:
    """Replace the last field (codec, 5 bytes) of the only payload entry."""

    def edit(raw: bytes) -> bytes:
        at = raw.index(b"\x8a\x01\x1d")
        entry = raw[at + 3 : at + 32]
        assert entry.endswith(ENTRY_END)
        return raw[:at] + b"\x8a\x01" + bytes([size]) + entry[:24] + new + raw[at + 32 :]

    return edit


refuse("entry-short", "MALFORMED_MANIFEST", edited(entry_edit(24, b"")), "A payload entry without a codec.", PLACES)
refuse(
    "entry-long",
    "MALFORMED_MANIFEST",
    edited(entry_edit(31, ENTRY_END + number_field(6, 1))),
    "A payload entry with a sixth field.",
    PLACES,
)
refuse(
    "entry-other-field",
    "MALFORMED_MANIFEST",
    edited(entry_edit(29, key(6, 5) + bytes(4))),
    "29 bytes, but another field in the place of the codec.",
    PLACES,
)
refuse(
    "minor-missing",
    "MALFORMED_MANIFEST",
    changed(lambda m: m.ClearField("spec_minor")),
    "No spec_minor.",
    "container.md §4.1",
)


def without_file_size(raw: bytes) -> bytes:
    at = raw.index(b"\x08\x01\x10\x00") + 4
    return raw[:at] + raw[at + 9 :]


refuse("file-size-missing", "MALFORMED_MANIFEST", edited(without_file_size), "No file_size.", "container.md §4.1")


def plus_one(raw: bytes, at: int) -> bytes:
    return patched(raw, at, (int.from_bytes(raw[at : at + 8], "little") + 1).to_bytes(8, "little"))


refuse("file-size", "MALFORMED_MANIFEST", edited(lambda raw: plus_one(raw, 5)), "file_size is one more.", SECTION_2)
refuse(
    "offset",
    "MISPLACED_PAYLOAD",
    edited(lambda raw: plus_one(raw, raw.index(b"\x8a\x01\x1d") + 4)),
    "A recorded offset is one more.",
    PLACES,
)


def _frame(payload: int, byte: int = 2) -> bytes:
    """Another byte in the padding field before a payload: byte 1 is its length, byte 2 the first zero."""
    data = two()
    start, end = manifest_span(data)
    manifest = pb.Manifest.FromString(data[start:end])
    place = framing.frames(end - start, [entry.stored_size for entry in manifest.payloads])[payload]
    return patched(data, place.start + byte, b"\x01")


refuse(
    "frame-0",
    "MISPLACED_PAYLOAD",
    lambda: _frame(0),
    "A byte of the padding before payload 0 is not 0.",
    SECTION_2,
    ORDER,
    runtime="either",
)
refuse(
    "frame-length",
    "MISPLACED_PAYLOAD",
    lambda: _frame(0, byte=1),
    "The padding before payload 0 says that it is shorter.",
    SECTION_2,
    ORDER,
    runtime="status",
)
refuse(
    "frame-1",
    "MISPLACED_PAYLOAD",
    lambda: _frame(1),
    "A byte of the padding before payload 1 is not 0.",
    SECTION_2,
    ORDER,
    scope="tensor",
    runtime="either",
)
refuse(
    "reserialised",
    "MISPLACED_PAYLOAD",
    lambda: pb.Bundle.FromString(two()).SerializeToString(),
    "A protobuf runtime has written the file anew: all padding stands before all payloads.",
    SECTION_2,
    runtime="either",
)


def _unused() -> bytes:
    draft = one()
    draft.add(b"x")
    return draft.build()


refuse("payload-unused", "MALFORMED_MANIFEST", _unused, "A payload that nothing uses.", PLACES)
refuse(
    "payload-index",
    "MALFORMED_MANIFEST",
    changed(lambda m: setattr(m.tensors[0].dense.small, "payload", 1)),
    "A slice of a payload that is not there.",
    PLACES,
)


def _empty_slice(manifest: pb.Manifest) -> None:
    tensor = manifest.tensors.add(name="z", dtype=FLOAT, dims=[0])
    tensor.dense.stored_dtype = FLOAT
    tensor.dense.small.payload = 9


refuse(
    "payload-index-empty",
    "MALFORMED_MANIFEST",
    changed(_empty_slice),
    "An empty slice of a payload that is not there.",
    PLACES,
)
refuse(
    "graph-index", "MALFORMED_MANIFEST", changed(lambda m: setattr(m, "graph", 7)), "A graph that is not there.", PLACES
)
