"""Mean pictures as files: numpy's .npy, and Caffe's mean.binaryproto."""

from __future__ import annotations

import io
from typing import Literal

import numpy as np
import numpy.typing as npt

from mobilemodel.errors import MobileModelError, UsageError
from mobilemodel.files import read_small_file
from mobilemodel.limits import FORMAT_LIMITS

Channels = Literal["rgb", "bgr"]
_NPY_MAGIC = b"\x93NUMPY"
_HEADERS = 16 * 1024
"""bytes that a file may have beside its values"""


def read_mean_picture(path: str, channels: int) -> npt.NDArray[np.float32]:
    """Read a mean picture of height x width x ``channels``; its channels are in the order of the network's input.

    A .npy file holds it so, of any real type; a .binaryproto as Caffe does, 1 x channels x height x width.
    Raises UsageError for any other file, size or value.
    """
    content = _read(path)
    picture = _from_npy(content, path) if content.startswith(_NPY_MAGIC) else _from_binaryproto(content, path)
    shape = " x ".join(map(str, picture.shape))
    if picture.ndim != 3 or picture.shape[2] != channels or picture.size == 0 or picture.dtype.kind not in "fiu":
        raise UsageError("--mean", file=path, expected=f"numbers, height x width x {channels}",
                         found=f"{picture.dtype} {shape}")  # fmt: skip
    if max(picture.shape[:2]) > FORMAT_LIMITS.picture_side:
        raise UsageError("--mean", file=path, expected=f"sides of at most {FORMAT_LIMITS.picture_side}", found=shape)
    with np.errstate(over="ignore"):
        values = picture.astype("<f4")
    if not np.isfinite(values).all():
        raise UsageError("--mean holds values that are not finite in float32", file=path)
    return values


def usual_channels(path: str) -> Channels:
    """The order of a mean picture's channels where nobody says it: Caffe's tools write blue, green, red."""
    return "rgb" if _read(path).startswith(_NPY_MAGIC) else "bgr"


def _read(path: str) -> bytes:
    return read_small_file(path, 2 * FORMAT_LIMITS.mean + _HEADERS, "--mean")


def _from_binaryproto(content: bytes, path: str) -> npt.NDArray[np.generic]:
    from mobilemodel_converters.caffe.mean import looks_like_mean, read_mean

    if not looks_like_mean(content):
        raise UsageError(
            "--mean is neither numbers nor a picture", file=path, expected="a .npy file or Caffe's mean.binaryproto",
            advice="numpy.save writes one.",
        )  # fmt: skip
    try:
        return read_mean(content)
    except MobileModelError as error:
        raise error.within(file=path) from None


def _from_npy(content: bytes, path: str) -> npt.NDArray[np.generic]:
    """Read a .npy file whose header is believed only as far as the file is long."""
    try:
        stream = io.BytesIO(content)
        version = np.lib.format.read_magic(stream)
        later = version != (1, 0)
        read_header = np.lib.format.read_array_header_2_0 if later else np.lib.format.read_array_header_1_0
        shape, by_columns, kind = read_header(stream)
        flat = np.frombuffer(content, kind, offset=stream.tell())
        if any(side < 0 for side in shape):
            raise ValueError  # reshape would take it as "the rest"
        return flat.reshape(shape, order="F" if by_columns else "C")
    except Exception:  # numpy parses the header as Python: there is no list of what that may raise
        raise UsageError("--mean is no whole .npy file", file=path, advice="numpy.save writes one.") from None
