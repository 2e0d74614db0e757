"""Class names: from a text file, and as a bundle keeps them."""

from __future__ import annotations

import os
from collections.abc import Sequence

from mobilemodel.errors import LimitExceededError, UsageError
from mobilemodel.files import read_small_file
from mobilemodel.limits import FORMAT_LIMITS


def read_labels(path: str | os.PathLike[str]) -> tuple[str, ...]:
    """Read class names, one for each line, UTF-8; a byte order mark is dropped.

    Raises UsageError when the file cannot be read or names nothing, LimitExceededError when it is too large.
    """
    content = read_small_file(path, FORMAT_LIMITS.labels, "--labels")
    try:
        text = content.decode("utf-8-sig").replace("\r\n", "\n")
    except UnicodeDecodeError as error:
        raise UsageError("--labels is not UTF-8", file=os.fspath(path), offset=error.start) from None
    if not text.strip():
        raise UsageError("--labels holds no names", file=os.fspath(path), expected="a class name on each line")
    return tuple(text.removesuffix("\n").split("\n"))


def labels_text(labels: Sequence[str]) -> bytes:
    """Class names as a bundle keeps them (spec/container.md §3): UTF-8, each line ended by 0A.

    Raises UsageError for a name that would be read back as another.
    """
    for index, label in enumerate(labels):
        if "\n" in label or any("\ud800" <= c <= "\udfff" for c in label):
            raise UsageError(f"label {index}", expected="one line of UTF-8", found=label)
    text = "".join(f"{label}\n" for label in labels).encode()
    if len(text) > FORMAT_LIMITS.labels:
        raise LimitExceededError("labels", expected=f"at most {FORMAT_LIMITS.labels} bytes", found=len(text))
    return text
