"""mean.binaryproto: the mean picture of Caffe's training tools, a bare BlobProto (docs/formats/caffe.md §5)."""

from __future__ import annotations

import math

import numpy as np

from mobilemodel.errors import LimitExceededError, MalformedSourceError, MobileModelError
from mobilemodel.limits import FORMAT_LIMITS
from mobilemodel.wire import BYTES, FIXED32, FIXED64, VARINT, fields
from mobilemodel_converters.caffe.blobs import memory_blob
from mobilemodel_converters.caffe.net import Float32
from mobilemodel_converters.caffe.schema import message_class

_LIMIT = 2 * FORMAT_LIMITS.mean + 1024
"""bytes of a file: values in double precision, and the shape"""
# BlobProto: the wire types that a field may have.
_KINDS = {
    1: (VARINT,), 2: (VARINT,), 3: (VARINT,), 4: (VARINT,), 5: (BYTES, FIXED32), 6: (BYTES, FIXED32), 7: (BYTES,),
    8: (BYTES, FIXED64), 9: (BYTES, FIXED64),
}  # fmt: skip
_ENOUGH = 64
"""fields that are looked at"""


def looks_like_mean(content: bytes) -> bool:
    """Whether this is a BlobProto: its fields alone, a shape and values among them.

    >>> looks_like_mean(bytes.fromhex("0801 1001 1801 2001 2a04 00000000")), looks_like_mean(b"104,117,123")
    (True, False)
    """
    seen = set()
    try:
        for count, field in enumerate(fields(content, 0, len(content), shortest=False)):
            if field.wire_type not in _KINDS.get(field.number, ()):
                return False
            seen.add(field.number)
            if count == _ENOUGH:
                break
    except MobileModelError:
        return False
    return bool(seen & {1, 2, 3, 4, 7}) and bool(seen & {5, 8})


def read_mean(content: bytes) -> Float32:
    """The mean picture as float32, height x width x channels; Caffe's channels are blue, green, red.

    Raises MalformedSourceError for what is no picture, LimitExceededError for one that is too large.
    """
    from google.protobuf.message import DecodeError

    if len(content) > _LIMIT:
        raise LimitExceededError("a mean picture's file", expected=f"at most {_LIMIT} bytes", found=len(content))
    try:
        blob = memory_blob(message_class("BlobProto").FromString(content))
    except DecodeError:
        raise MalformedSourceError("the mean picture is no BlobProto") from None
    shape = blob.shape
    if len(shape) < 3 or math.prod(shape[:-3]) != 1 or not blob.count:
        raise MalformedSourceError("the mean picture", expected="one of channels x height x width", found=shape)
    return np.ascontiguousarray(blob.read().reshape(shape[-3:]).transpose(1, 2, 0))
