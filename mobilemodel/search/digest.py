"""Which data it was: a checksum of a file, or of a folder with all its files."""

from __future__ import annotations

import hashlib
import os

from mobilemodel.errors import UsageError


def data_sha256(path: str | os.PathLike[str]) -> str:
    """The SHA-256 of a file's bytes, or of a folder: of each file, by name, its path within the folder and its SHA-256.

    Symbolic links to folders are not followed; what is no regular file is left out. Raises UsageError for what cannot
    be read.
    """
    top = os.fspath(path)
    try:
        if not os.path.isdir(top):
            return _file_sha256(top)
        files = [os.path.join(folder, name) for folder, _, names in os.walk(top, onerror=_refuse) for name in names]
        named = {os.path.relpath(file, top).replace(os.sep, "/"): file for file in files if os.path.isfile(file)}
        whole = hashlib.sha256()
        for name in sorted(named):
            whole.update(f"{_file_sha256(named[name])} {len(os.fsencode(name))} ".encode() + os.fsencode(name))
        return whole.hexdigest()
    except (OSError, ValueError) as error:
        raise UsageError(f"cannot read the data: {getattr(error, 'strerror', error)}", file=top) from None


def _file_sha256(path: str) -> str:
    if not os.path.isfile(path):
        raise UsageError("cannot read the data: no regular file", file=path)
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _refuse(error: OSError) -> None:
    raise error
