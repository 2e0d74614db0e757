"""The C reader (readers/c) where it is installed: it decodes tensors for ``Tensor.numpy``. Never required.

It is looked for once, when a tensor is first decoded: in the file that MOBILEMODEL_NATIVE names (nowhere, where that
is empty), else beside this package, else, on Linux and its like, by its name where the system keeps libraries. What a
bundle holds, or where it lies, never decides. A library of another version is not used.

The Python reader stays the reference: whatever the library does not decode, Python decodes, or says why not.
"""

from __future__ import annotations

import ctypes
import os
import sys
import warnings
from functools import cache
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

Bytes = npt.NDArray[np.uint8]
_NAMES = {"darwin": "libmobilemodel.0.dylib", "win32": "mobilemodel.dll"}
_OK = 0
_POINTER, _SIZE = ctypes.c_void_p, ctypes.c_size_t
_FUNCTIONS: dict[str, tuple[Any, tuple[Any, ...]]] = {
    "mm_bundle_size": (_SIZE, ()),
    "mm_tensor_size": (_SIZE, ()),
    "mm_kernels_name": (ctypes.c_char_p, ()),
    "mm_open": (ctypes.c_int, (_POINTER, _POINTER, _SIZE, _POINTER)),
    "mm_find": (ctypes.c_int, (_POINTER, ctypes.c_char_p, _POINTER)),
    "mm_slices": (ctypes.c_uint64, (_POINTER,)),
    "mm_decoded_size": (ctypes.c_uint64, (_POINTER, ctypes.c_uint32, ctypes.c_uint64)),
    "mm_decode_scratch": (ctypes.c_uint64, (_POINTER, _POINTER)),
    "mm_decode": (
        ctypes.c_int,
        (_POINTER, _POINTER, ctypes.c_uint32, ctypes.c_uint64, ctypes.c_uint64, _POINTER, _SIZE, _POINTER, _SIZE),
    ),
}  # result and arguments of what is called, as mobilemodel.h declares it


class Holder(Protocol):
    """What has the bytes of a bundle, until it is closed."""

    @property
    def data(self) -> memoryview: ...


@cache
def library() -> ctypes.CDLL | None:
    """The loaded library, or None. A file that MOBILEMODEL_NATIVE names and that cannot be used is warned of."""
    named = os.environ.get("MOBILEMODEL_NATIVE")
    if named is not None:
        loaded = _load(named) if named else None
        if named and loaded is None:
            warnings.warn(f"MOBILEMODEL_NATIVE: no mobilemodel library: {named!r}", RuntimeWarning, stacklevel=2)
        return loaded
    name = _NAMES.get(sys.platform, "libmobilemodel.so.0")
    beside = _load(str(Path(__file__).parent / name))
    # Loaders of other systems also look for a plain name in the current folder.
    return _load(name) if beside is None and sys.platform not in _NAMES else beside


def _load(path: str) -> ctypes.CDLL | None:
    """The library in a file, where it is one of this version."""
    from mobilemodel import __version__

    try:
        loaded = ctypes.CDLL(path)
        version = loaded.mm_version
        version.restype, version.argtypes = ctypes.c_char_p, ()
        if version() != __version__.encode():
            return None
        for function, (result, arguments) in _FUNCTIONS.items():
            getattr(loaded, function).restype, getattr(loaded, function).argtypes = result, arguments
    except (OSError, AttributeError):
        return None
    return loaded


class Decoder:
    """Decodes the tensors of one bundle with the library; threads may share it."""

    def __init__(self, holder: Holder) -> None:
        self._holder = holder
        self._opened: tuple[int, Bytes | None] = (0, None)

    def decode(self, name: str, dtype: int) -> Bytes | None:
        """The raw bytes of a tensor of that type; None where there is no library, or where it does not decode it.

        Raises UsageError where the bundle is closed.
        """
        c = library()
        if c is None:
            return None
        data = np.frombuffer(self._holder.data, np.uint8)  # the file is not let go while it is viewed
        bundle = self._open(c, data)
        tensor = np.empty(c.mm_tensor_size(), np.uint8)
        if bundle is None or c.mm_find(bundle.ctypes, name.encode(), tensor.ctypes) != _OK:
            return None
        slices = c.mm_slices(tensor.ctypes)
        out = np.empty(c.mm_decoded_size(tensor.ctypes, dtype, slices), np.uint8)
        scratch = np.empty(c.mm_decode_scratch(bundle.ctypes, tensor.ctypes), np.uint8)
        status = c.mm_decode(
            bundle.ctypes, tensor.ctypes, dtype, 0, slices, out.ctypes, out.size, scratch.ctypes, scratch.size
        )
        return out if status == _OK else None

    def _open(self, c: ctypes.CDLL, data: Bytes) -> Bytes | None:
        """The library's own idea of the bundle, an mm_bundle, made once; None where it does not open it."""
        address, bundle = self._opened
        if address != data.ctypes.data:
            bundle = np.empty(c.mm_bundle_size(), np.uint8)
            if c.mm_open(bundle.ctypes, data.ctypes, data.size, None) != _OK:
                bundle = None
            self._opened = (data.ctypes.data, bundle)
        return bundle
