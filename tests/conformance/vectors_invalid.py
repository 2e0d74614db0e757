"""The invalid vectors of the container: one fault each. The manifest's CRC-32 is right unless it is the fault."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from mobilemodel.container import framing
from mobilemodel.v1 import bundle_pb2 as pb
from tests.conformance.builder import (
    FLOAT, PNG, STORED, UINT8, Draft, Edit, bytes_field, floats, halves, key, manifest_span, number_field, replaced,
    with_crc,
)  # fmt: skip
from tests.conformance.rows import Row
from tests.conformance.vectors_valid import described, palette

ROWS: list[Row] = []
Make = Callable[[], bytes]


def refuse(
    name: str, status: str, make: Make, about: str, *covers: str, scope: str = "file", runtime: str = "same",
    profile: str = "baseline", expect: str = "error", rows: list[Row] = ROWS,
) -> None:  # fmt: skip
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
refuse("trailing-byte", "TRAILING_DATA", lambda: two() + b"\0", "A zero byte follows the last payload.", SECTION_2,
       runtime="status")  # fmt: skip
refuse("trailing-field", "TRAILING_DATA", lambda: two() + b"\x22\x00", "An empty padding field follows.", SECTION_2)
refuse("crc-tag", "MALFORMED_WIRE", lambda: patched(two(), 5, b"\x1d"), "Byte 5 is another tag.", ORDER)
refuse("manifest-tag", "MALFORMED_WIRE", lambda: patched(two(), 10, b"\x2a"), "Byte 10 is another tag.", ORDER)
refuse("manifest-length-5", "LIMIT_EXCEEDED", lambda: two()[:11] + b"\x81\x80\x80\x08" + two()[12:],
       "A manifest of 16 MiB and a byte.", ORDER, "security.md §3")  # fmt: skip
refuse("manifest-length-long", "MALFORMED_WIRE", lambda: two()[:11] + b"\x81\x80\x80\x80\x80\x00" + two()[12:],
       "The manifest's length has six bytes.", ORDER)  # fmt: skip


def _long_length() -> bytes:
    data = one().build()
    return data[:11] + bytes([data[11] | 0x80, 0]) + data[12:]


refuse("manifest-length-not-minimal", "MALFORMED_WIRE", _long_length, "The manifest's length is not minimal.", ORDER)
refuse("manifest-crc", "MANIFEST_CHECKSUM", lambda: patched(two(), 30, bytes([two()[30] ^ 1])),
       "One bit of the manifest is flipped.", ORDER)  # fmt: skip
refuse("major-2", "UNSUPPORTED_VERSION", changed(lambda m: setattr(m, "spec_major", 2)), "spec_major is 2.", ORDER)
refuse("major-0", "UNSUPPORTED_VERSION", changed(lambda m: setattr(m, "spec_major", 0)), "spec_major is 0.", ORDER)
refuse("major-2-crc", "UNSUPPORTED_VERSION",
       lambda: patched(changed(lambda m: setattr(m, "spec_major", 2))(), 6, bytes(4)),
       "spec_major is 2 and the checksum is wrong: the version is what is reported.", ORDER)  # fmt: skip
refuse("major-missing", "MALFORMED_WIRE", edited(lambda raw: raw[2:]), "The manifest does not begin with spec_major.",
       ORDER, "container.md §4.1")  # fmt: skip

# §5: the grammar. A reader on a protobuf runtime may accept these.
GRAMMAR = "container.md §5"


def wire(name: str, edit: Edit, about: str, start: Callable[[], Draft] = one) -> None:
    refuse(f"wire-{name}", "MALFORMED_WIRE", edited(edit, start), about, GRAMMAR, runtime="either")


PRODUCER = bytes_field(5, b"p")
TENSOR = bytes_field(1, b"w") + number_field(2, 1) + bytes_field(3, b"\x02")


def tensor_edit(old: bytes, new: bytes) -> Edit:
    """Replace bytes of the manifest's only tensor and correct its length."""

    def edit(raw: bytes) -> bytes:
        at = raw.index(b"\x82\x01") + 2
        size = raw[at]
        tensor = replaced(old, new)(raw[at + 1 : at + 1 + size])
        return raw[:at] + bytes([len(tensor)]) + tensor + raw[at + 1 + size :]

    return edit


DIMS = bytes_field(3, b"\x02")
wire("decreasing", replaced(PRODUCER, bytes_field(7, b"l") + PRODUCER), "Field 5 stands after field 7.")
wire("unknown-decreasing", lambda raw: raw + number_field(300, 1) + number_field(299, 1),
     "Unknown fields have to be in order too.")  # fmt: skip
wire("twice", replaced(PRODUCER, PRODUCER + PRODUCER), "A singular field stands twice.")
wire("message-twice", tensor_edit(DIMS, DIMS + b"\x2a\x00"), "A singular message stands twice: runtimes merge.")
wire("not-minimal", tensor_edit(number_field(2, 1), b"\x10\x81\x00"), "A varint in two bytes where one does.")
wire("tag-not-minimal", replaced(PRODUCER, b"\xaa\x00\x01p"), "A tag in two bytes where one does.")
wire("varint-11", lambda raw: raw + key(300, 0) + b"\xff" * 10 + b"\x01", "A varint of eleven bytes.")
wire("varint-65-bits", lambda raw: raw + key(300, 0) + b"\xff" * 9 + b"\x02", "A varint above 64 bits.")
wire("group", lambda raw: raw + key(300, 3) + key(300, 4), "A group, though unknown.")
wire("type", replaced(PRODUCER, number_field(5, 1)), "A string field as a varint.")
wire("packed-twice", tensor_edit(DIMS, bytes_field(3, b"\x01") + bytes_field(3, b"\x02")), "dims in two runs.")
wire("unpacked", tensor_edit(DIMS, number_field(3, 2)), "dims not packed.")
wire("oneof-twice", lambda raw: raw[: raw.index(b"\x82\x01")] + bytes_field(
    16, TENSOR + bytes_field(5, number_field(1, 1)) + bytes_field(7, b"")) + raw[raw.index(b"\x8a\x01") :],
    "A tensor with two encodings.")  # fmt: skip
wire("utf8", replaced(PRODUCER, bytes_field(5, b"\xc0\x80")), "An overlong form in a string.")
wire("utf8-surrogate", replaced(PRODUCER, bytes_field(5, b"\xed\xa0\x80")), "A surrogate in a string.")
wire("past-end", lambda raw: raw + key(300, 2) + b"\x05abc", "A length runs past the manifest.")
wire("cut-field", lambda raw: raw + key(300, 5) + b"abc", "A fixed field runs past the manifest.")
wire("field-0", lambda raw: raw + b"\x00\x01", "Field number 0.")
wire("uint32", replaced(b"\x08\x01\x10\x00", b"\x08\x01\x10\x80\x80\x80\x80\x10"), "A uint32 of 2^32.")
wire("int32", tensor_edit(number_field(2, 1), b"\x10" + b"\x81\x80\x80\x80\x10"),
     "An int32 of 2^32 + 1, which runtimes cut to 1.")  # fmt: skip
wire("int32-negative", tensor_edit(number_field(2, 1), b"\x10" + b"\xff" * 9 + b"\x01"), "An int32 of -1.")


def _bool_2(raw: bytes) -> bytes:
    at = raw.index(b"\x82\x01")
    dense = number_field(1, 1) + number_field(2, 64) + number_field(4, 2)
    return raw[:at] + bytes_field(16, TENSOR + bytes_field(5, dense)) + raw[raw.index(b"\x8a\x01") :]


wire("bool", _bool_2, "A bool of 2.")


wire("packed-float", lambda raw: raw + bytes_field(12, bytes_field(1, b"data") + bytes_field(6, bytes(5))),
     "A packed run of floats of five bytes.", described)  # fmt: skip

# §6, checks 6 and 7: features and limits.
LIMITS = "security.md §3"
refuse("file-feature", "UNSUPPORTED_FEATURE", changed(lambda m: m.required_features.append("trellis")),
       "The file requires an unknown feature.", ORDER, "container.md §4.2")  # fmt: skip
refuse("file-features-65", "LIMIT_EXCEEDED", changed(lambda m: m.required_features.extend(["f"] * 65)),
       "65 required features.", ORDER, LIMITS)  # fmt: skip
refuse("tensor-features-65", "LIMIT_EXCEEDED", changed(lambda m: m.tensors[0].required_features.extend(["f"] * 65)),
       "A tensor with 65 required features.", ORDER, LIMITS)  # fmt: skip
refuse("name-1025", "LIMIT_EXCEEDED", changed(lambda m: setattr(m.tensors[0], "name", "n" * 1025)),
       "A name of 1,025 bytes.", LIMITS)  # fmt: skip
refuse("rank-17", "LIMIT_EXCEEDED", changed(lambda m: m.tensors[0].dims.extend([1] * 16)), "17 axes.", LIMITS)
refuse("elements-2-31", "LIMIT_EXCEEDED", changed(lambda m: m.tensors[0].dims.extend([1 << 15, 1 << 15])),
       "2^31 elements.", LIMITS)  # fmt: skip
refuse("elements-beside-0", "LIMIT_EXCEEDED", changed(lambda m: m.tensors[0].dims.extend([0, 1 << 62])),
       "No elements, but 2^63 beside the 0.", LIMITS)  # fmt: skip

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
refuse("entry-long", "MALFORMED_MANIFEST", edited(entry_edit(31, ENTRY_END + number_field(6, 1))),
       "A payload entry with a sixth field.", PLACES)  # fmt: skip
refuse("entry-other-field", "MALFORMED_MANIFEST", edited(entry_edit(29, key(6, 5) + bytes(4))),
       "29 bytes, but another field in the place of the codec.", PLACES)  # fmt: skip
refuse("minor-missing", "MALFORMED_MANIFEST", changed(lambda m: m.ClearField("spec_minor")), "No spec_minor.",
       "container.md §4.1")  # fmt: skip


def without_file_size(raw: bytes) -> bytes:
    at = raw.index(b"\x08\x01\x10\x00") + 4
    return raw[:at] + raw[at + 9 :]


refuse("file-size-missing", "MALFORMED_MANIFEST", edited(without_file_size), "No file_size.", "container.md §4.1")


def plus_one(raw: bytes, at: int) -> bytes:
    return patched(raw, at, (int.from_bytes(raw[at : at + 8], "little") + 1).to_bytes(8, "little"))


refuse("file-size", "MALFORMED_MANIFEST", edited(lambda raw: plus_one(raw, 5)), "file_size is one more.", SECTION_2)
refuse("offset", "MISPLACED_PAYLOAD", edited(lambda raw: plus_one(raw, raw.index(b"\x8a\x01\x1d") + 4)),
       "A recorded offset is one more.", PLACES)  # fmt: skip


def _frame(payload: int) -> bytes:
    """Another byte in the padding before a payload."""
    data = two()
    start, end = manifest_span(data)
    manifest = pb.Manifest.FromString(data[start:end])
    place = framing.frames(end - start, [entry.stored_size for entry in manifest.payloads])[payload]
    return patched(data, place.start + 2, b"\x01")


refuse("frame-0", "MISPLACED_PAYLOAD", lambda: _frame(0), "A byte of the padding before payload 0 is not 0.", SECTION_2,
       ORDER, runtime="either")  # fmt: skip
refuse("frame-1", "MISPLACED_PAYLOAD", lambda: _frame(1), "A byte of the padding before payload 1 is not 0.", SECTION_2,
       ORDER, scope="tensor", runtime="either")  # fmt: skip
refuse("reserialised", "MISPLACED_PAYLOAD", lambda: pb.Bundle.FromString(two()).SerializeToString(),
       "A protobuf runtime has written the file anew: all padding stands before all payloads.", SECTION_2,
       runtime="either")  # fmt: skip
refuse("payload-unused", "MALFORMED_MANIFEST", lambda: (d := one()).bytes(b"x") and d.build(),
       "A payload that nothing uses.", PLACES)  # fmt: skip
refuse("payload-index", "MALFORMED_MANIFEST", changed(lambda m: setattr(m.tensors[0].dense.small, "payload", 1)),
       "A slice of a payload that is not there.", PLACES)  # fmt: skip


def _empty_slice(manifest: pb.Manifest) -> None:
    tensor = manifest.tensors.add(name="z", dtype=FLOAT, dims=[0])
    tensor.dense.stored_dtype = FLOAT
    tensor.dense.small.payload = 9


refuse("payload-index-empty", "MALFORMED_MANIFEST", changed(_empty_slice), "An empty slice of a payload that is not there.",
       PLACES)  # fmt: skip
refuse("graph-index", "MALFORMED_MANIFEST", changed(lambda m: setattr(m, "graph", 7)), "A graph that is not there.", PLACES)

# §4.1: names, order, values.
FIELDS = "container.md §4.1"
refuse("name-empty", "MALFORMED_MANIFEST", changed(lambda m: setattr(m.tensors[0], "name", "")), "An empty name.", FIELDS)
refuse("name-nul", "MALFORMED_MANIFEST", changed(lambda m: setattr(m.tensors[0], "name", "a\0b")), "NUL in a name.", FIELDS)


def _named(*names: str) -> Make:
    def make() -> bytes:
        draft = Draft()
        for name in names:
            draft.small(name, b"\1", [1], UINT8)
        return draft.build()

    return make


refuse("name-order", "MALFORMED_MANIFEST", _named("b", "a"), "Names out of order.", FIELDS)
refuse("name-order-utf16", "MALFORMED_MANIFEST", _named("\U0001f600", "\uffee"), "In order by UTF-16 units, not by bytes.", FIELDS)
refuse("name-twice", "MALFORMED_MANIFEST", _named("a", "a"), "A name twice.", FIELDS)
refuse("sha256-31", "MALFORMED_MANIFEST", changed(lambda m: m.sources.add(format="onnx", sha256=bytes(31))),
       "A SHA-256 of 31 bytes.", FIELDS)  # fmt: skip
for _index, _name in enumerate(("a/b", "a\\b", "..", "c:x", "a\0")):
    refuse(f"file-name-{_index}", "MALFORMED_MANIFEST",
           changed(lambda m, name=_name: m.sources.add(format="onnx", file_name=name)),  # type: ignore[misc]
           "A file name with a folder, a drive or NUL.", FIELDS)  # fmt: skip
refuse("input-twice", "MALFORMED_MANIFEST", changed(lambda m: m.inputs.add(name="data"), described), "Two inputs of one name.",
       FIELDS)  # fmt: skip
refuse("output-unnamed", "MALFORMED_MANIFEST", changed(lambda m: m.outputs.add(), described), "An output without a name.", FIELDS)

# preprocessing.md §8.
Fields = dict[str, object]


def _preprocessing(name: str, status: str, about: str, *steps: Fields) -> None:
    def change(manifest: pb.Manifest) -> None:
        for step in steps:
            manifest.preprocessing.add(**step)  # type: ignore[arg-type]

    refuse(f"preprocessing-{name}", status, changed(change, described), about, "preprocessing.md §8")


BAD = "MALFORMED_MANIFEST"
_preprocessing("input", BAD, "It names no input.", {"input": "prob"})
_preprocessing("twice", BAD, "Two for one input.", {"input": "data"}, {"input": "data"})
_preprocessing("crop", BAD, "A crop with one side.", {"input": "data", "crop_height": 3})
_preprocessing("resize-mode", BAD, "A resize without a mode.", {"input": "data", "resize": pb.Resize(height=1, width=1)})
_preprocessing("resize-size", BAD, "A resize without a width.", {"input": "data", "resize": pb.Resize(mode=1, height=1)})
_preprocessing("resize-short", BAD, "The shorter side to two sizes.",
               {"input": "data", "resize": pb.Resize(mode=2, height=1, width=2)})  # fmt: skip
_preprocessing("mean-2", BAD, "Two means for three channels.", {"input": "data", "mean": [1, 2]})
_preprocessing("mean-grey", BAD, "Three means for one channel.", {"input": "data", "mean": [1, 2, 3], "colour_order": 3})
_preprocessing("scale-infinite", BAD, "An infinite scale.", {"input": "data", "scale": [float("inf")]})
_preprocessing("side", "LIMIT_EXCEEDED", "A side of 16,385 pixels.",
               {"input": "data", "crop_height": 16385, "crop_width": 1})  # fmt: skip


def _mean_picture(raw: int, **step: object) -> Make:
    def make() -> bytes:
        draft = described()
        picture = pb.MeanPicture(payload=draft.bytes(bytes(raw)), height=1, width=2)
        draft.manifest.preprocessing.add(input="data", mean_picture=picture, **step)  # type: ignore[arg-type]
        return draft.build()

    return make


refuse("mean-picture-size", BAD, _mean_picture(23), "A mean picture of another size.", "preprocessing.md §8")
refuse("mean-and-picture", BAD, _mean_picture(24, mean=[1.0]), "A mean and a mean picture.", "preprocessing.md §8")

# codecs.md §1 and §2, as far as the manifest tells.
CODECS = "codecs.md §1"
SIZES = "codecs.md §2"


def _recorded(codec: int, stored: bytes, raw_size: int, dims: Sequence[int] = (2, 2)) -> Make:
    """A 4-bit palette whose only block has this entry."""

    def make() -> bytes:
        draft = Draft()
        palette(draft, "w", dims, [[0] * dims[1]] * dims[0], 4, halves(1, 2), 2)
        part = draft.parts[0]
        part.codec, part.stored, part.raw_size = codec, stored, raw_size
        return draft.build()

    return make


def _with_labels(codec: int, stored: bytes, raw_size: int) -> Make:
    def make() -> bytes:
        draft = one()
        draft.manifest.labels = draft.stored(codec, stored, raw_size)
        return draft.build()

    return make


refuse("codec-zlib-matrix", BAD, _recorded(1, bytes(9), 2), "A block of codes by zlib.", CODECS)
refuse("codec-png-bytes", BAD, _with_labels(PNG, bytes(60), 9), "Labels by PNG.", CODECS)
refuse("raw-size", BAD, _recorded(STORED, bytes(3), 3), "raw_size is not what the encoding makes it.", SIZES)
refuse("raw-size-stored", BAD, _with_labels(STORED, b"ab", 3), "A stored payload whose sizes differ.", SIZES)
refuse("deflate-ratio", BAD, _with_labels(1, bytes(10), 1032 * 10 + 1025), "More than deflate can reach.", SIZES)
refuse("labels-limit", "LIMIT_EXCEEDED", _with_labels(3, bytes(10), (16 << 20) + 1), "Labels of 16 MiB and a byte.", LIMITS,
       profile="full")  # fmt: skip
refuse("raw-size-png", BAD, _recorded(PNG, bytes(60), 3), "A PNG whose raw_size is not the matrix's.", SIZES)
assert with_crc(two()) == two()
