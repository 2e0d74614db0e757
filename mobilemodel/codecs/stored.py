"""Codec 0, stored: the raw bytes themselves (spec/codecs.md §2)."""

from __future__ import annotations

from mobilemodel.errors import MalformedStreamError


def decode(data: bytes | memoryview, raw_size: int) -> bytes | memoryview:
    """Return ``data`` itself after checking its length."""
    if len(data) != raw_size:
        raise MalformedStreamError("a stored payload has another size", expected=raw_size, found=len(data))
    return data
