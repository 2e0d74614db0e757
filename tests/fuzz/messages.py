"""Protobuf messages changed field by field: hostile values, fields that are gone, doubled, or in another order."""

from __future__ import annotations

import re
import warnings
from collections.abc import Iterator
from random import Random
from typing import Any

from google.protobuf import text_format
from google.protobuf.message import DecodeError, Message
from onnx import ModelProto

from mobilemodel_converters.caffe.schema import message_class

_INTEGERS = (0, 1, 2, 3, -1, -2, 16, 255, 65_536, 2**24, 2**31 - 1, -(2**31), 2**32 - 1, 2**63 - 1, -(2**63), 2**64 - 1)
_FLOATS = (0.0, -0.0, 1.0, -1.0, 0.5, 1e-45, 3e38, -3e38, 1e300, float("nan"), float("inf"), float("-inf"))
_TEXTS = ("", " ", "\0", "a" * 1008, "a" * 1025, "x" * 70_000, "../../etc/passwd", "\x1b[2J", "\u202eabc", "a/b",
          "Ω", "-1")  # fmt: skip
_RANGES = {
    "int32": (-(2**31), 2**31 - 1), "int64": (-(2**63), 2**63 - 1), "uint32": (0, 2**32 - 1), "uint64": (0, 2**64 - 1),
}  # fmt: skip
_MANY = (2, 17, 300, 3000)
"""copies of a repeated value"""
_TOKENS = ("{", "}", "<", ">", "[", "]", ":", ";", ",", '"', "'", "#", "\\", "-", "1e999", "nan", "0x",
           '"\\377"', "\ufeff")  # fmt: skip


def mutate_net(content: bytes, random: Random) -> bytes:
    """A field of a caffemodel."""
    return _binary(message_class("NetParameter")(), content, random)


def mutate_blob(content: bytes, random: Random) -> bytes:
    """A field of a mean picture."""
    return _binary(message_class("BlobProto")(), content, random)


def mutate_onnx(content: bytes, random: Random) -> bytes:
    """A field of an ONNX model."""
    return _binary(ModelProto(), content, random)


def _binary(message: Any, content: bytes, random: Random) -> bytes:
    try:
        message.ParseFromString(content)
        change(message, random)
    except (DecodeError, UnicodeError):  # text that is not UTF-8 cannot be copied
        return content
    return bytes(message.SerializePartialToString())


def mutate_prototxt(content: bytes, random: Random) -> bytes:
    """A field of a prototxt, or its tokens."""
    if random.randrange(3) == 0:
        return _tokens(content, random)
    message = message_class("NetParameter")()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of escapes that Python does not know
            text_format.Parse(content.decode(), message, allow_unknown_field=True)
    except (text_format.ParseError, ValueError):
        return _tokens(content, random)
    change(message, random)
    try:
        return text_format.MessageToString(message).encode()
    except UnicodeError:
        return content


def _tokens(content: bytes, random: Random) -> bytes:
    """A token is put in, taken away or replaced."""
    tokens = re.findall(r"\w+|\s+|.", content.decode("utf-8", "replace"))
    at = random.randrange(len(tokens) + 1)
    new = random.choice((*_TOKENS, *map(str, _INTEGERS), "{" * 2000, *(tokens and (random.choice(tokens),))))
    tokens[at : at + random.randrange(2)] = [new] * random.randrange(3)
    return "".join(tokens).encode("utf-8", "replace")


def change(message: Message, random: Random) -> None:
    """Change one field somewhere in a message."""
    places = list(_places(message))
    holder = random.choice(places)
    kinds = [field for field in holder.DESCRIPTOR.fields if not _holds_only_unset(holder, field)]
    # What is set is what the file speaks of; what is not is what its reader may trip over.
    pool: list[Any] = kinds if kinds and random.randrange(4) else list(holder.DESCRIPTOR.fields)
    if not pool:
        return
    field = random.choice(pool)
    if _repeated(field):
        _change_repeated(holder, field, message, random)
    elif random.randrange(6) == 0:
        holder.ClearField(field.name)
    elif field.message_type is not None:
        _copy(getattr(holder, field.name), message, random)
    else:
        _put(holder, field, random)


def _holds_only_unset(holder: Message, field: Any) -> bool:
    if _repeated(field):
        return not len(getattr(holder, field.name))
    return not holder.HasField(field.name) if field.has_presence else not getattr(holder, field.name)


def _repeated(field: Any) -> bool:
    return bool(field.is_repeated if hasattr(field, "is_repeated") else field.label == field.LABEL_REPEATED)


def _places(message: Message) -> Iterator[Message]:
    """The message and all that are set inside it."""
    yield message
    for field, value in message.ListFields():
        if field.message_type is not None:
            for inner in value if _repeated(field) else (value,):
                yield from _places(inner)


def _copy(target: Message, root: Message, random: Random) -> None:
    """Let a message be another one of its kind, or be there without content."""
    others = [other for other in _places(root) if other.DESCRIPTOR is target.DESCRIPTOR and other is not target]
    target.SetInParent()
    if others and random.randrange(3):
        target.CopyFrom(_same(random.choice(others)))  # the other one may lie inside


def _put(holder: Message, field: Any, random: Random) -> None:
    try:
        setattr(holder, field.name, value_for(field, holder, random))
    except (ValueError, TypeError):
        holder.ClearField(field.name)  # an enum that is closed, or text that UTF-8 does not hold


def value_for(field: Any, holder: Message, random: Random) -> Any:
    """A hostile value of the field's type."""
    kind = field.cpp_type
    if kind in (field.CPPTYPE_FLOAT, field.CPPTYPE_DOUBLE):
        return random.choice(_FLOATS)
    if kind == field.CPPTYPE_BOOL:
        return bool(random.randrange(2))
    if kind == field.CPPTYPE_ENUM:
        return random.choice([value.number for value in field.enum_type.values])
    if kind == field.CPPTYPE_STRING:
        text = random.choice((*_TEXTS, *_names(holder)))
        return text.encode() if field.type == field.TYPE_BYTES else text
    names = {field.CPPTYPE_INT32: "int32", field.CPPTYPE_INT64: "int64", field.CPPTYPE_UINT32: "uint32"}
    low, high = _RANGES[names.get(kind, "uint64")]
    return random.choice([number for number in _INTEGERS if low <= number <= high])


def _names(holder: Message) -> list[str]:
    """Text that the message holds in other fields: names that lead elsewhere."""
    found = []
    for field, value in holder.ListFields():
        if field.cpp_type == field.CPPTYPE_STRING and field.type != field.TYPE_BYTES:
            found += [text for text in (value if _repeated(field) else (value,)) if isinstance(text, str)]
    return found


def _change_repeated(holder: Message, field: Any, root: Message, random: Random) -> None:
    values = getattr(holder, field.name)
    action = random.randrange(6)
    at = random.randrange(len(values)) if len(values) else None
    if action == 0:
        holder.ClearField(field.name)
    elif action == 1 and at is not None:
        del values[at]
    elif action == 2 and at is not None:
        kept = list(values)
        random.shuffle(kept)
        copies = [_same(value) for value in kept]
        holder.ClearField(field.name)
        getattr(holder, field.name).extend(copies)
    elif action == 3 and at is not None:
        values.extend([_same(values[at])] * random.choice(_MANY))
    elif field.message_type is not None:
        _copy(values.add() if at is None or random.randrange(2) else values[at], root, random)
    else:
        _put_one(values, at, value_for(field, holder, random), random)


def _put_one(values: Any, at: int | None, value: Any, random: Random) -> None:
    if at is None or random.randrange(2):
        values.append(value)
    else:
        values[at] = value


def _same(value: Any) -> Any:
    """A copy that outlives its parent."""
    if not isinstance(value, Message):
        return value
    copy = type(value)()
    copy.CopyFrom(value)
    return copy
