"""Whether a file is Caffe's, told by its content alone and without reading a large one."""

from __future__ import annotations

import mmap
import re
from pathlib import Path

from mobilemodel.errors import MobileModelError
from mobilemodel.wire import BYTES, VARINT, Field, fields
from mobilemodel_converters.sources import OpenedFile

_HEAD = 64 * 1024
_ENOUGH = 4096
"""fields that are looked at"""
# NetParameter: the wire type of each field.
_NET = {1: BYTES, 2: BYTES, 3: BYTES, 4: VARINT, 5: VARINT, 6: BYTES, 7: VARINT, 8: BYTES, 100: BYTES}
_CONTROL = re.compile(rb"[\x00-\x08\x0e-\x1f]")
_TYPE = re.compile(rb"[A-Za-z][A-Za-z0-9_]{1,63}")
_COMMENT = re.compile(r"#[^\n]*")
_FIRST = re.compile(
    r"\s*(name|input|input_dim|input_shape|force_backward|debug_info)\s*:|\s*(layers?|input_shape|state)\s*:?\s*[{<]"
)
_LAYER = re.compile(r"(?<![\w:])layers?\s*:?\s*[{<]")


def is_caffe(path: Path) -> bool:
    """Whether the file is a prototxt or caffemodel with layers; False for what cannot be read."""
    try:
        with OpenedFile(path) as file:
            return _is_prototxt(_head(file)) if is_text(file) else _is_caffemodel(file)
    except (MobileModelError, OSError, ValueError):
        return False


def is_text(file: OpenedFile) -> bool:
    """Whether a file begins as text: no caffemodel goes far without a control character."""
    return not _CONTROL.search(_head(file))


def _head(file: OpenedFile) -> bytes:
    return file.read(0, min(file.size, _HEAD))


def _is_prototxt(head: bytes) -> bool:
    text = _COMMENT.sub("", head.decode("utf-8-sig", "ignore"))
    return _FIRST.match(text) is not None and _LAYER.search(text) is not None


def _is_caffemodel(file: OpenedFile) -> bool:
    """NetParameter's fields from the start, with a layer that has a name and a type among them."""
    with mmap.mmap(file.descriptor, 0, access=mmap.ACCESS_READ) as mapped, memoryview(mapped) as data:
        try:
            for count, field in enumerate(fields(data, 0, file.size, shortest=False)):
                if _NET.get(field.number) != field.wire_type or count == _ENOUGH:
                    return False
                if field.number in (2, 100):
                    return _is_layer(data, field)
        except MobileModelError:
            return False
    return False


def _is_layer(data: memoryview, layer: Field) -> bool:
    """A V2 layer says its type as a word, a V1 layer as a number; a V0 layer holds another message."""
    for count, field in enumerate(fields(data, layer.start, layer.end, shortest=False)):
        kind = (field.number, field.wire_type)
        if layer.number == 100 and kind == (2, BYTES):
            return _TYPE.fullmatch(data[field.start : field.end]) is not None
        if layer.number == 2 and kind in ((5, VARINT), (1, BYTES)):
            return True
        if field.wire_type != BYTES or count == _ENOUGH:
            return False
    return False
