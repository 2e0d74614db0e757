"""The protobuf wire format, read strictly (spec/container.md §5), and the little of it that a writer needs.

Nothing here copies a payload: lengths are positions in the caller's buffer.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache
from typing import NamedTuple

from google.protobuf.descriptor import Descriptor
from google.protobuf.descriptor_pb2 import DescriptorProto, FieldDescriptorProto

from mobilemodel.errors import LimitExceededError, MalformedWireError
from mobilemodel.limits import FORMAT_LIMITS

VARINT, FIXED64, BYTES, FIXED32 = 0, 1, 2, 5

Buffer = bytes | memoryview


class Field(NamedTuple):
    """One field of a message: ``value`` of a varint or fixed field; bytes ``start`` to ``end`` of its content."""

    number: int
    wire_type: int
    tag: int
    value: int
    start: int
    end: int


def varint(value: int) -> bytes:
    """Encode an unsigned integer below 2**64 as the shortest varint.

    >>> varint(300).hex()
    'ac02'
    """
    out = bytearray()
    while value >= 0x80:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


def varint_size(value: int) -> int:
    """Bytes of the shortest varint of ``value``."""
    return max(1, (value.bit_length() + 6) // 7)


def read_varint(data: Buffer, position: int, end: int, *, shortest: bool = True) -> tuple[int, int]:
    """Read a varint below 2**64, in its shortest form unless told otherwise; return it and the position after it.

    Raises MalformedWireError where the input ends, the value is too long or a shorter form exists.
    """
    value = shift = 0
    start = position
    while True:
        if position >= end:
            raise MalformedWireError("a varint runs past its message", offset=start)
        byte = data[position]
        position += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            break
        shift += 7
        if shift > 63:
            raise MalformedWireError("a varint has more than 10 bytes", offset=start)
    if value >= 1 << 64:
        raise MalformedWireError("a varint exceeds 64 bits", offset=start)
    if shortest and byte == 0 and position - start > 1:
        raise MalformedWireError("a varint is not in its shortest form", offset=start)
    return value, position


def fields(data: Buffer, start: int, end: int, *, shortest: bool = True) -> Iterator[Field]:
    """Walk the fields of the message in ``data[start:end]``; groups and lengths past the end are refused.

    ``shortest`` False also takes varints in longer forms, as files of other formats may hold them.
    """
    position = start
    while position < end:
        tag = position
        key = data[position]
        position += 1
        if key >= 0x80:
            key, position = read_varint(data, tag, end, shortest=shortest)
        number, wire_type = key >> 3, key & 7
        if not 1 <= number < 1 << 29:
            raise MalformedWireError("a field number is out of range", offset=tag, found=number)
        value = 0
        content = position
        if wire_type == VARINT:
            value, position = read_varint(data, position, end, shortest=shortest)
        elif wire_type == BYTES:
            length, content = read_varint(data, position, end, shortest=shortest)
            position = content + length
        elif wire_type in (FIXED32, FIXED64):
            position = content + (4 if wire_type == FIXED32 else 8)
        else:
            raise MalformedWireError(f"field {number} has wire type {wire_type}", offset=tag, expected="0, 1, 2 or 5")
        if position > end:
            raise MalformedWireError(f"field {number} runs past its message", offset=tag)
        if wire_type in (FIXED32, FIXED64):
            value = int.from_bytes(data[content:position], "little")
        yield Field(number, wire_type, tag, value, content, position)


class _Rule(NamedTuple):
    """What the schema says of one field."""

    name: str
    wire_type: int
    repeated: bool
    packed: bool
    oneof: str
    text: bool
    message: Descriptor | None
    bits: int


_TYPE = FieldDescriptorProto
_FIXED = {
    _TYPE.TYPE_FIXED32: FIXED32, _TYPE.TYPE_SFIXED32: FIXED32, _TYPE.TYPE_FLOAT: FIXED32,
    _TYPE.TYPE_FIXED64: FIXED64, _TYPE.TYPE_SFIXED64: FIXED64, _TYPE.TYPE_DOUBLE: FIXED64,
    _TYPE.TYPE_STRING: BYTES, _TYPE.TYPE_BYTES: BYTES, _TYPE.TYPE_MESSAGE: BYTES,
}  # fmt: skip
# No int32 or enum of the schema is negative, and none may be cut to fit.
_BITS = {
    _TYPE.TYPE_UINT32: 32, _TYPE.TYPE_SINT32: 32, _TYPE.TYPE_INT32: 31, _TYPE.TYPE_ENUM: 31, _TYPE.TYPE_BOOL: 1,
}  # fmt: skip


@cache
def _rules(descriptor: Descriptor) -> dict[int, _Rule]:
    proto = DescriptorProto()
    descriptor.CopyToProto(proto)
    rules = {}
    for field in proto.field:
        repeated = field.label == _TYPE.LABEL_REPEATED
        wire_type = _FIXED.get(field.type, VARINT)
        in_oneof = field.HasField("oneof_index") and not field.proto3_optional
        rules[field.number] = _Rule(
            name=f"{descriptor.name}.{field.name}",
            wire_type=wire_type,
            repeated=repeated,
            packed=repeated and wire_type != BYTES,
            oneof=proto.oneof_decl[field.oneof_index].name if in_oneof else "",
            text=field.type == _TYPE.TYPE_STRING,
            message=descriptor.fields_by_number[field.number].message_type,
            bits=_BITS.get(field.type, 64),
        )
    return rules


def check_grammar(
    data: Buffer, start: int, end: int, descriptor: Descriptor, nesting: int, messages: int = FORMAT_LIMITS.messages
) -> int:
    """Check that ``data[start:end]`` is a message of ``descriptor`` in the strict form of spec/container.md §5.

    Field numbers never decrease; a singular field, a packed field and a member of a oneof occur at most once;
    varints are minimal and fit their type; text is UTF-8. Fields that the schema does not name are passed over.
    Returns how many of ``messages`` are left: a parsed message takes hundreds of bytes, an empty one on the wire two.

    Raises MalformedWireError, with the offset, for a violation; LimitExceededError when messages nest too deep or
    are too many.
    """
    if nesting < 0:
        raise LimitExceededError("messages are nested too deep", offset=start)
    if messages <= 0:
        raise LimitExceededError("too many messages", offset=start)
    rules = _rules(descriptor)
    messages -= 1
    last = 0
    oneofs: set[str] = set()
    for field in fields(data, start, end):
        if field.number < last:
            raise MalformedWireError(
                f"field {field.number} of {descriptor.name} stands after field {last}", offset=field.tag
            )
        repeats = field.number == last
        last = field.number
        rule = rules.get(field.number)
        if rule is None:
            continue
        if field.wire_type != (BYTES if rule.packed else rule.wire_type):
            raise MalformedWireError(f"{rule.name} has wire type {field.wire_type}", offset=field.tag)
        if repeats and (rule.packed or not rule.repeated):
            raise MalformedWireError(f"{rule.name} stands twice", offset=field.tag)
        if rule.oneof:
            if rule.oneof in oneofs:
                raise MalformedWireError(f"{rule.name}: another member of '{rule.oneof}' is set", offset=field.tag)
            oneofs.add(rule.oneof)
        if rule.packed:
            _check_packed(data, field, rule)
        elif rule.message is not None:
            messages = check_grammar(data, field.start, field.end, rule.message, nesting - 1, messages)
        elif rule.text:
            _check_text(data, field, rule)
        elif rule.wire_type == VARINT:
            _check_bits(field.value, rule, field.tag)
    return messages


def _check_bits(value: int, rule: _Rule, offset: int) -> None:
    if value >> rule.bits:
        raise MalformedWireError(f"{rule.name} does not fit {rule.bits} bits", offset=offset, found=value)


def _check_packed(data: Buffer, field: Field, rule: _Rule) -> None:
    if rule.wire_type != VARINT:
        width = 4 if rule.wire_type == FIXED32 else 8
        if (field.end - field.start) % width:
            raise MalformedWireError(f"{rule.name}: packed length is not a multiple of {width}", offset=field.tag)
        return
    position = field.start
    while position < field.end:
        start = position
        value = data[position]
        position += 1
        if value >= 0x80:
            value, position = read_varint(data, start, field.end)
        if value >> rule.bits:
            _check_bits(value, rule, start)


def _check_text(data: Buffer, field: Field, rule: _Rule) -> None:
    try:
        str(bytes(data[field.start : field.end]), "utf-8")
    except UnicodeDecodeError as error:
        raise MalformedWireError(f"{rule.name} is not UTF-8", offset=field.start + error.start) from None
