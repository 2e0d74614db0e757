"""Invalid vectors of the grammar (spec/container.md §5): a reader on a protobuf runtime may accept them."""

from __future__ import annotations

from collections.abc import Callable

from tests.conformance.builder import (
    Draft,
    Edit,
    bytes_field,
    key,
    number_field,
    replaced,
)
from tests.conformance.parts import described
from tests.conformance.rows import Row
from tests.conformance.vectors_invalid import edited, one, refuse

ROWS: list[Row] = []
GRAMMAR = "container.md §5"


def wire(name: str, edit: Edit, about: str, start: Callable[[], Draft] = one) -> None:
    refuse(f"wire-{name}", "MALFORMED_WIRE", edited(edit, start), about, GRAMMAR, runtime="either", rows=ROWS)


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
wire(
    "unknown-decreasing",
    lambda raw: raw + number_field(300, 1) + number_field(299, 1),
    "Unknown fields have to be in order too.",
)
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
wire(
    "oneof-twice",
    lambda raw: (
        raw[: raw.index(b"\x82\x01")]
        + bytes_field(16, TENSOR + bytes_field(5, number_field(1, 1)) + bytes_field(7, b""))
        + raw[raw.index(b"\x8a\x01") :]
    ),
    "A tensor with two encodings.",
)
wire("utf8", replaced(PRODUCER, bytes_field(5, b"\xc0\x80")), "An overlong form in a string.")
wire("utf8-surrogate", replaced(PRODUCER, bytes_field(5, b"\xed\xa0\x80")), "A surrogate in a string.")
wire("past-end", lambda raw: raw + key(300, 2) + b"\x05abc", "A length runs past the manifest.")
wire("cut-field", lambda raw: raw + key(300, 5) + b"abc", "A fixed field runs past the manifest.")
wire("field-0", lambda raw: raw + b"\x00\x01", "Field number 0.")
wire("uint32", replaced(b"\x08\x01\x10\x00", b"\x08\x01\x10\x80\x80\x80\x80\x10"), "A uint32 of 2^32.")
wire(
    "int32",
    tensor_edit(number_field(2, 1), b"\x10" + b"\x81\x80\x80\x80\x10"),
    "An int32 of 2^32 + 1, which runtimes cut to 1.",
)
wire("field-2-29", lambda raw: raw + key(1 << 29, 0) + b"\x01", "Field number 2^29, which is none.")
wire(
    "enum",
    lambda raw: raw + bytes_field(12, bytes_field(1, b"data") + number_field(5, 1 << 31)),
    "An enum of 2^31, which runtimes make negative.",
    described,
)
wire("int32-negative", tensor_edit(number_field(2, 1), b"\x10" + b"\xff" * 9 + b"\x01"), "An int32 of -1.")


def _bool_2(raw: bytes) -> bytes:
    at = raw.index(b"\x82\x01")
    dense = number_field(1, 1) + number_field(2, 64) + number_field(4, 2)
    return raw[:at] + bytes_field(16, TENSOR + bytes_field(5, dense)) + raw[raw.index(b"\x8a\x01") :]


wire("bool", _bool_2, "A bool of 2.")


wire(
    "packed-float",
    lambda raw: raw + bytes_field(12, bytes_field(1, b"data") + bytes_field(6, bytes(5))),
    "A packed run of floats of five bytes.",
    described,
)


def _foreign() -> Draft:
    draft = one()
    tensor = draft.tensor("x", [2])
    tensor.required_features.append("trellis")
    tensor.affine.codes.depth = 8
    return draft


wire(
    "foreign",
    replaced(bytes_field(1, number_field(4, 8)), b"\x0a\x02\x24\x08"),
    "A group in the codes of a foreign tensor: the grammar holds for it too.",
    _foreign,
)
