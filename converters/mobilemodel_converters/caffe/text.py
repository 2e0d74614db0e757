"""Prototxt files: protobuf's text format, read with tolerance for fields that forks of Caffe add."""

from __future__ import annotations

import re
from typing import Any

from mobilemodel.errors import LimitExceededError, MalformedSourceError, MobileModelError, escape
from mobilemodel.limits import FORMAT_LIMITS, KIB, MIB
from mobilemodel_converters.caffe import upgrade
from mobilemodel_converters.caffe.blobs import memory_blob
from mobilemodel_converters.caffe.net import Layer
from mobilemodel_converters.caffe.schema import message_class
from mobilemodel_converters.caffe.stored import ROUNDED, StoredNet, layer_of

TEXT_LIMIT = 4 * MIB
_LINE = 4 * KIB
"""characters of a line: protobuf copies the line for each value of a field that it does not know"""
_COMMENT = re.compile(rb"""("(?:\\.|[^"\\\n])*+"?|'(?:\\.|[^'\\\n])*+'?)|#[^\n]*+""")
"""a comment; or a string, so that none begins inside: one without an end counts too, or time would be quadratic"""


def read_text(content: bytes) -> StoredNet:
    """Read a NetParameter of V1 or V2 in text.

    Raises MalformedSourceError, with the line where it can be told; LimitExceededError for more than 4 MiB;
    UnsupportedSourceError for V0.
    """
    parameter = _parse(content)
    if len(parameter.layer) and len(parameter.layers):
        upgrade.refuse_both()
    if len(parameter.layer) + len(parameter.layers) > FORMAT_LIMITS.tensors:
        raise LimitExceededError("layers", expected=f"at most {FORMAT_LIMITS.tensors}")
    stored = [_stored(message) for message in (*parameter.layer, *parameter.layers)]
    parameter.ClearField("layer")
    parameter.ClearField("layers")
    notes = (ROUNDED,) if any(rounded for _, rounded in stored) else ()
    return StoredNet(parameter, tuple(layer for layer, _ in stored), notes)


def _parse(content: bytes) -> Any:
    from google.protobuf import text_format

    if len(content) > TEXT_LIMIT:
        raise LimitExceededError("a network's text", expected=f"at most {TEXT_LIMIT} bytes", found=len(content))
    # A comment may be in any encoding: spaces in its place leave all else where it is.
    content = _COMMENT.sub(lambda found: found[1] or b" " * len(found[0]), content)
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise MalformedSourceError("the text is not UTF-8", offset=error.start) from None
    for number, line in enumerate(text.split("\n"), 1):
        if len(line) > _LINE:
            raise LimitExceededError(f"line {number} of the text", expected=f"at most {_LINE} characters",
                                     found=len(line), advice="Break it into lines.")  # fmt: skip
    try:
        return text_format.Parse(text, message_class("NetParameter")(), allow_unknown_field=True)
    except text_format.ParseError as error:
        # The message begins with the whole line.
        what = escape(str(error).rsplit("': ", 1)[-1])
        place = f"line {error.GetLine()}, column {error.GetColumn()}: " if error.GetLine() else ""
        raise MalformedSourceError(f"not a prototxt: {place}{what}") from None
    except RecursionError:
        raise MalformedSourceError("messages are nested too deep") from None
    except (ValueError, TypeError) as error:  # a value that its field does not take
        raise MalformedSourceError(f"a value of the prototxt: {escape(str(error))}") from None


def _stored(message: Any) -> tuple[Layer, bool]:
    """The layer, and whether one of its blobs was rounded."""
    blobs = []
    for index, blob in enumerate(message.blobs):
        try:
            blobs.append(memory_blob(blob))
        except MobileModelError as error:
            error.message = f"blob {index}: {error.message}"
            raise error.within(layer=message.name) from None
    message.ClearField("blobs")
    layer = upgrade.to_v2(message)
    return layer_of(layer, tuple(blob for blob, _ in blobs)), any(rounded for _, rounded in blobs)
