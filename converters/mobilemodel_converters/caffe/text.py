"""Prototxt files: protobuf's text format, read with tolerance for fields that forks of Caffe add."""

from __future__ import annotations

import re
import warnings
from typing import Any

from mobilemodel.errors import LimitExceededError, MalformedSourceError, MobileModelError, escape
from mobilemodel.limits import FORMAT_LIMITS, KIB, MIB
from mobilemodel_converters.caffe import upgrade
from mobilemodel_converters.caffe.blobs import memory_blob
from mobilemodel_converters.caffe.net import Layer, StoredNet, layer_of
from mobilemodel_converters.caffe.schema import message_class

TEXT_LIMIT = 4 * MIB
_LINE = 4 * KIB
"""characters of a line: protobuf copies the line for each value of a field that it does not know"""
_MOST_TOKENS = 250_000
"""protobuf takes up to 10 microseconds for one; the longest texts in use, of 600 KiB, have about 120,000"""
_STRING = rb"""("(?:\\.|[^"\\\n])*+"?|'(?:\\.|[^'\\\n])*+'?)"""
"""one without an end counts too, or time would be quadratic"""
_COMMENT = re.compile(_STRING + rb"|#[^\n]*+")
"""a comment; or a string, so that none begins inside"""
_TOKEN = re.compile(rb"\s*+(?:" + _STRING + rb"|#[^\n]*+|[\w+-]++|[^\s\w+-]|\Z)")


def read_text(content: bytes) -> StoredNet:
    """Read a NetParameter of V1 or V2 in text.

    Raises MalformedSourceError, with the line where it can be told; LimitExceededError for more than 4 MiB or 250,000
    tokens; UnsupportedSourceError for V0.
    """
    parameter = _parse(content)
    if len(parameter.layer) and len(parameter.layers):
        upgrade.refuse_both()
    if len(parameter.layer) + len(parameter.layers) > FORMAT_LIMITS.tensors:
        raise LimitExceededError("layers", expected=f"at most {FORMAT_LIMITS.tensors}")
    layers = tuple(_stored(message) for message in (*parameter.layer, *parameter.layers))
    parameter.ClearField("layer")
    parameter.ClearField("layers")
    return StoredNet(parameter, layers)


def _parse(content: bytes) -> Any:
    from google.protobuf import text_format

    if len(content) > TEXT_LIMIT:
        raise LimitExceededError("a network's text", expected=f"at most {TEXT_LIMIT} bytes", found=len(content))
    for count, found in enumerate(_TOKEN.finditer(content), 1):
        if count > _MOST_TOKENS:
            raise LimitExceededError("a network's text has too many words, numbers and signs", offset=found.start(),
                                     expected=f"at most {_MOST_TOKENS}")  # fmt: skip
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
        with warnings.catch_warnings():
            # Python's word on a path such as "C:\data"; protobuf takes the backslash as it is.
            warnings.simplefilter("ignore")
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


def _stored(message: Any) -> Layer:
    blobs = []
    for index, blob in enumerate(message.blobs):
        try:
            blobs.append(memory_blob(blob))
        except MobileModelError as error:
            error.message = f"blob {index}: {error.message}"
            raise error.within(layer=message.name) from None
    message.ClearField("blobs")
    return layer_of(upgrade.to_v2(message), tuple(blobs))
