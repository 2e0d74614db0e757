"""A bundle as an annotated hex dump: each field of the head, the manifest and the frames on its line."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from google.protobuf.descriptor import Descriptor, FieldDescriptor

from mobilemodel.codecs import name as codec_name
from mobilemodel.container import framing
from mobilemodel.v1 import bundle_pb2 as pb
from mobilemodel.wire import Field, fields, read_varint
from tests.conformance.builder import manifest_span

_WIDTH = 16
_LISTS = ("sources", "inputs", "outputs", "preprocessing", "tensors", "payloads", "dimensions", "required_features")


def annotate(data: bytes) -> str:
    """The dump of a well-formed file as text: position, bytes, meaning."""
    start, end = manifest_span(data)
    manifest = pb.Manifest.FromString(data[start:end])
    lines = [
        *_line(data, 0, 5, "magic: the file begins with \\r M M B 1"),
        *_line(data, 5, 10, f"manifest_crc32 = {int.from_bytes(data[6:10], 'little'):08x}"),
        *_line(data, 10, start, f"manifest: {end - start} bytes"),
        *_message(data, start, end, pb.DESCRIPTOR.message_types_by_name["Manifest"], "  "),
    ]
    placed = framing.frames(end - start, [entry.stored_size for entry in manifest.payloads])
    for index, (place, entry) in enumerate(zip(placed, manifest.payloads, strict=True)):
        at = place.start
        if place.padding:
            zeros = f"padding: {place.padding} bytes in all, {place.padding - 2} of them 00"
            lines += [f"{at:06x}  {_hex(data[at : at + 2])} 00 ...".ljust(58) + zeros]
            at += place.padding
        lines += _line(data, at, place.offset, f"payload {index}: {place.payload_size} stored bytes")
        about = f"{codec_name(entry.codec)}, {entry.raw_size} raw bytes, CRC-32 {entry.crc32:08x}"
        lines += _line(data, place.offset, place.offset + place.payload_size, f"  {about}")
    return "\n".join(lines) + "\n"


def _hex(data: bytes) -> str:
    return data.hex(" ").upper()


def _line(data: bytes, start: int, end: int, text: str) -> Iterator[str]:
    for at in range(start, max(end, start + 1), _WIDTH):
        line = f"{at:06x}  {_hex(data[at : min(at + _WIDTH, end)])}".ljust(58)
        yield (line + text if at == start else line).rstrip()


def _message(data: bytes, start: int, end: int, descriptor: Descriptor, indent: str) -> Iterator[str]:
    counts: dict[int, int] = {}
    for field in fields(data, start, end):
        known = descriptor.fields_by_number.get(field.number)
        index = counts[field.number] = counts.get(field.number, -1) + 1
        if known is None:
            yield from _line(data, field.tag, field.end, f"{indent}field {field.number}, unknown")
            continue
        name = f"{known.name}[{index}]" if known.name in _LISTS else known.name
        if known.message_type is not None:
            yield from _line(data, field.tag, field.start, f"{indent}{name}: {field.end - field.start} bytes")
            yield from _message(data, field.start, field.end, known.message_type, indent + "  ")
        else:
            yield from _line(data, field.tag, field.end, f"{indent}{name} = {_shown(data, field, known)}")


def _shown(data: bytes, field: Field, known: FieldDescriptor) -> Any:
    if field.wire_type != 2:
        if known.enum_type is not None and field.value in known.enum_type.values_by_number:
            return known.enum_type.values_by_number[field.value].name
        return f"{field.value:08x}" if known.name == "crc32" else field.value
    content = data[field.start : field.end]
    if known.type == FieldDescriptor.TYPE_STRING:
        return f'"{content.decode()}"'
    if known.type == FieldDescriptor.TYPE_BYTES:
        return f"{len(content)} bytes"
    if known.type == FieldDescriptor.TYPE_FLOAT:
        return f"{len(content) // 4} floats"
    numbers, position = [], field.start
    while position < field.end:
        value, position = read_varint(data, position, field.end)
        numbers.append(value)
    return numbers
