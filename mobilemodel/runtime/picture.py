"""From a picture to the tensor that a network takes: spec/preprocessing.md, step by step, in numpy alone.

Pictures are uint8 arrays H x W x C or N x H x W x C with one channel (grey) or three (red, green, blue).
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from mobilemodel import dtypes
from mobilemodel.dtypes import DType
from mobilemodel.errors import (
    LimitExceededError,
    MalformedSourceError,
    UnsupportedEncodingError,
    UnsupportedFeatureError,
    UnsupportedSourceError,
    UsageError,
)
from mobilemodel.v1 import bundle_pb2 as pb

if TYPE_CHECKING:
    from PIL import Image

Pixels = npt.NDArray[np.uint8]
Floats = npt.NDArray[np.float32]
Doubles = npt.NDArray[np.float64]

FORMATS = ("PNG", "JPEG", "BMP", "PPM", "GIF", "WEBP", "TIFF")
"""the picture files that are read: of formats that run other programs (EPS) or hide large machines, none"""
_MODES = ("1", "L", "LA", "P", "PA", "RGB", "RGBA", "RGBX", "CMYK", "YCbCr")
"""Pillow's modes of 8 bits for each channel and less"""


@dataclass(frozen=True)
class PictureLimits:
    """Upper bounds of a picture file and of what a resize may make of it."""

    file: int = 2**28
    """bytes"""
    pixels: int = 2**26
    """rows x columns"""


PICTURE_LIMITS = PictureLimits()


def prepare(
    picture: Pixels, step: pb.Preprocessing, mean_picture: Floats | None = None, *, dtype: int = DType.FLOAT
) -> npt.NDArray[Any]:
    """Make the input tensor of one picture H x W x C or of N pictures of one size: always of rank 4.

    ``mean_picture`` is the array that ``step.mean_picture`` refers to (``Bundle.mean_picture``), H x W x C float32 in
    the step's colour order; ``dtype`` is the graph input's element type: FLOAT, FLOAT16, or UINT8 without mean and
    scale. Source: spec/preprocessing.md.

    Raises UsageError where picture and step do not fit, UnsupportedFeatureError for a step of a later version,
    UnsupportedEncodingError for another ``dtype``.

    >>> pixel = np.array([[[200, 100, 50]]], np.uint8)
    >>> step = pb.Preprocessing(colour_order=pb.COLOUR_ORDER_BGR, mean=[104, 117, 123], scale=[0.5])
    >>> prepare(pixel, step).tolist()
    [[[[-27.0]], [[-8.5]], [[38.5]]]]
    """
    pixels = _checked(picture)
    if step.HasField("resize"):
        pixels = resize(pixels, step.resize)
    if step.crop_height:
        pixels = crop(pixels, step.crop_height, step.crop_width)
    pixels = to_channels(pixels, step.colour_order)
    values = _to_type(pixels, step, mean_picture, dtype)
    if step.layout in (pb.LAYOUT_UNSPECIFIED, pb.LAYOUT_NCHW):
        return np.ascontiguousarray(np.moveaxis(values, -1, 1))
    if step.layout == pb.LAYOUT_NHWC:
        return values
    raise UnsupportedFeatureError("the layout is of a later version of the format", found=step.layout)


def result_size(height: int, width: int, resize: pb.Resize) -> tuple[int, int]:
    """Rows and columns of a resized picture of ``height`` x ``width`` (spec/preprocessing.md §2.1).

    >>> result_size(500, 375, pb.Resize(mode=pb.Resize.MODE_SHORT, height=256, width=256))
    (341, 256)
    """
    target_height, target_width = resize.height, resize.width
    if resize.mode not in pb.Resize.Mode.values():
        raise UnsupportedFeatureError("the mode of a resize is of a later version of the format", found=resize.mode)
    if not (resize.mode and target_height and target_width):
        raise UsageError("a resize has no mode or no size")
    if resize.mode == pb.Resize.MODE_WARP:
        return target_height, target_width
    if resize.mode == pb.Resize.MODE_SHORT:
        if target_height != target_width:
            raise UsageError("a resize of the shorter side has two sizes")
        by_width = width <= height
    else:
        by_width = target_height * width > target_width * height
    if by_width:
        return _rounded(height * target_width, width), target_width
    return target_height, _rounded(width * target_height, height)


def resize(picture: Pixels, resize: pb.Resize, limits: PictureLimits = PICTURE_LIMITS) -> Pixels:
    """Resample a picture, or several of one size: uint8 again (spec/preprocessing.md §2.2).

    Raises UsageError for a resize without mode or size, LimitExceededError for a result of too many pixels,
    UnsupportedFeatureError for a mode or kernel of a later version.
    """
    pixels = _checked(picture)
    height, width = pixels.shape[1:3]
    rows, columns = result_size(height, width, resize)
    if rows * columns > limits.pixels:
        raise LimitExceededError("a resized picture", expected=f"at most {limits.pixels} pixels",
                                 found=f"{rows} x {columns}")  # fmt: skip
    vertical, horizontal = taps(height, rows, resize), taps(width, columns, resize)
    resized = [_resample(_resample(one.astype(np.float64), 0, *vertical), 1, *horizontal) for one in pixels]
    out = np.floor(np.clip(np.stack(resized), 0, 255) + 0.5).astype(np.uint8)
    return out if picture.ndim == 4 else out[0]


def taps(samples: int, results: int, resize: pb.Resize) -> tuple[npt.NDArray[np.int64], Doubles]:
    """Which of n samples each of m results sums up, and their weights, both m x taps; a weight may be 0.

    >>> indices, weights = taps(4, 2, pb.Resize(kernel=pb.Resize.KERNEL_AREA))
    >>> weights[:, :2].tolist()
    [[2.0, 2.0], [2.0, 2.0]]
    """
    outputs, kernel = np.arange(results), resize.kernel
    if kernel == pb.Resize.KERNEL_NEAREST:
        return ((2 * outputs + 1) * samples // (2 * results))[:, None], np.ones((results, 1))
    if kernel == pb.Resize.KERNEL_AREA:
        # In units of 1 / results: whole numbers, so that the overlaps are exact.
        indices = (outputs * samples // results)[:, None] + np.arange(-(-samples // results) + 1)
        ends = np.minimum((indices + 1) * results, ((outputs + 1) * samples)[:, None])
        overlap = ends - np.maximum(indices * results, (outputs * samples)[:, None])
        return np.minimum(indices, samples - 1), np.maximum(overlap, 0).astype(np.float64)
    ratio = samples / results
    centres = (outputs + 0.5) * ratio - 0.5
    scale = max(1.0, ratio) if resize.antialias else 1.0
    if kernel == pb.Resize.KERNEL_BILINEAR_CORNERS:
        centres, scale = outputs * (samples - 1) / max(results - 1, 1), 1.0
    elif kernel not in (pb.Resize.KERNEL_BILINEAR_HALF_PIXEL, pb.Resize.KERNEL_BICUBIC):
        raise UnsupportedFeatureError("the kernel of a resize is of a later version of the format", found=kernel)
    reach = (2 if kernel == pb.Resize.KERNEL_BICUBIC else 1) * scale
    indices = np.ceil(centres - reach).astype(np.int64)[:, None] + np.arange(int(2 * reach) + 1)
    distance = np.abs(indices - centres[:, None]) / scale
    weights = _cubic(distance) if kernel == pb.Resize.KERNEL_BICUBIC else np.maximum(0.0, 1.0 - distance)
    weights[(indices < 0) | (indices >= samples)] = 0.0
    return np.clip(indices, 0, samples - 1), weights


def crop(picture: npt.NDArray[Any], height: int, width: int) -> npt.NDArray[Any]:
    """Cut ``height`` x ``width`` pixels out of the centre of (N x) H x W x C (spec/preprocessing.md §3).

    Raises UsageError where the picture is smaller.
    """
    rows, columns = picture.shape[-3:-1]
    if not (0 < height <= rows and 0 < width <= columns):
        raise UsageError("a picture is smaller than its crop", expected=f"at least {height} x {width}",
                         found=f"{rows} x {columns}")  # fmt: skip
    top, left = (rows - height) // 2, (columns - width) // 2
    return picture[..., top : top + height, left : left + width, :]


def to_channels(picture: Pixels, colour_order: int) -> Pixels:
    """Bring grey or RGB pixels to the channels of a colour order (spec/preprocessing.md §4).

    >>> to_channels(np.array([[[200, 100, 50]]], np.uint8), pb.COLOUR_ORDER_GREY).tolist()
    [[[124]]]
    """
    grey = picture.shape[-1] == 1
    if colour_order == pb.COLOUR_ORDER_GREY:
        if grey:
            return picture
        weighted = picture.astype(np.uint32) * np.array([19595, 38470, 7471], np.uint32)
        total: npt.NDArray[np.uint32] = weighted.sum(axis=-1, keepdims=True, dtype=np.uint32)
        return ((total + 32768) >> 16).astype(np.uint8)
    if colour_order not in (pb.COLOUR_ORDER_UNSPECIFIED, pb.COLOUR_ORDER_RGB, pb.COLOUR_ORDER_BGR):
        raise UnsupportedFeatureError("the colour order is of a later version of the format", found=colour_order)
    colours = np.repeat(picture, 3, axis=-1) if grey else picture
    if colour_order == pb.COLOUR_ORDER_BGR:
        colours = colours[..., ::-1]
    return colours


def read_picture(path: str | os.PathLike[str], limits: PictureLimits = PICTURE_LIMITS) -> Pixels:
    """Read a picture file through Pillow: uint8 H x W x 3, red, green, blue.

    The first picture of a file that holds several; turned upright as its EXIF orientation says; an alpha channel is
    dropped and a colour profile ignored (spec/preprocessing.md, before §1).

    Raises UsageError for a file that cannot be opened, LimitExceededError for one that is too large,
    MalformedSourceError for one that is no picture or is damaged, UnsupportedSourceError for more than 8 bits for
    each channel.
    """
    name = os.fspath(path)
    try:
        size = os.stat(name).st_size
        if size > limits.file:
            raise LimitExceededError("picture file", file=name, expected=f"at most {limits.file} bytes", found=size)
        with open(name, "rb") as file, warnings.catch_warnings():
            # Pillow warns of pictures within our limit, and of oddities that harm nothing.
            warnings.simplefilter("ignore")
            return _decode(file, name, limits)
    except OSError as error:
        raise UsageError(f"cannot open: {error.strerror}", file=name) from None


def _decode(file: Any, name: str, limits: PictureLimits) -> Pixels:
    from PIL import Image, ImageOps, UnidentifiedImageError

    try:
        image: Image.Image = Image.open(file, formats=FORMATS)
        _check_image(image, name, limits)
        return np.array(ImageOps.exif_transpose(image).convert("RGB"))
    except (LimitExceededError, UnsupportedSourceError):
        raise
    except Image.DecompressionBombError:
        raise LimitExceededError("a picture", file=name, expected=f"at most {limits.pixels} pixels") from None
    except UnidentifiedImageError:
        raise MalformedSourceError("not a picture", file=name, expected=", ".join(FORMATS)) from None
    except Exception as error:
        # Pillow's decoders raise errors of many kinds on damaged files, OSError among them.
        raise MalformedSourceError("a damaged picture", file=name, found=error) from None


def _check_image(image: Image.Image, name: str, limits: PictureLimits) -> None:
    width, height = image.size
    if width * height > limits.pixels:
        raise LimitExceededError("a picture", file=name, expected=f"at most {limits.pixels} pixels",
                                 found=f"{height} x {width}")  # fmt: skip
    if image.mode not in _MODES:
        raise UnsupportedSourceError("a picture of more than 8 bits for each channel", file=name, found=image.mode,
                                     advice="Convert it to 8 bits first.")  # fmt: skip


def _checked(picture: npt.NDArray[Any]) -> Pixels:
    """N x H x W x C of at least one pixel."""
    whole = picture if picture.ndim == 4 else picture[None]
    if whole.ndim != 4 or whole.dtype != np.uint8 or whole.shape[-1] not in (1, 3) or 0 in whole.shape[1:]:
        raise UsageError("not a picture", expected="uint8 H x W x 1 or H x W x 3",
                         found=f"{picture.dtype} {' x '.join(map(str, picture.shape))}")  # fmt: skip
    return whole


def _rounded(numerator: int, denominator: int) -> int:
    return max(1, (2 * numerator + denominator) // (2 * denominator))


def _cubic(x: Doubles) -> Doubles:
    """Cubic convolution with a = -0.5 (Keys 1981) of distances x >= 0."""
    near = (1.5 * x - 2.5) * x * x + 1.0
    far = ((-0.5 * x + 2.5) * x - 4.0) * x + 2.0
    return np.where(x <= 1.0, near, np.where(x < 2.0, far, 0.0))


def _resample(values: Doubles, axis: int, indices: npt.NDArray[np.int64], weights: Doubles) -> Doubles:
    """Weighted sums along one axis of H x W x C, tap by tap in ascending order, over the sums of the weights."""
    shape = [1, 1, 1]
    shape[axis] = -1
    divisor = weights[:, 0].reshape(shape)
    total: Doubles = np.take(values, indices[:, 0], axis) * divisor
    for tap in range(1, weights.shape[1]):
        weight = weights[:, tap].reshape(shape)
        total += np.take(values, indices[:, tap], axis) * weight
        divisor = divisor + weight
    total /= divisor
    return total


def _to_type(pixels: Pixels, step: pb.Preprocessing, mean_picture: Floats | None, dtype: int) -> npt.NDArray[Any]:
    """Minus the mean, times the scale, as the input's element type (spec/preprocessing.md §5 to §7)."""
    if dtype == DType.UINT8:
        if step.mean or step.scale or step.HasField("mean_picture"):
            raise UsageError("an input of bytes takes neither mean nor scale")
        return np.ascontiguousarray(pixels)
    if dtype not in (DType.FLOAT, DType.FLOAT16):
        raise UnsupportedEncodingError("pictures for an input of this type", expected="float32, float16 or uint8",
                                       found=dtypes.name(dtype))  # fmt: skip
    values: Floats = np.ascontiguousarray(pixels, np.float32)
    with np.errstate(over="ignore", invalid="ignore"):
        if step.HasField("mean_picture"):
            values -= _mean_of(values, step, mean_picture)
        elif step.mean:
            values -= _per_channel(step.mean, values.shape[-1], "mean")
        if step.scale:
            values *= _per_channel(step.scale, values.shape[-1], "scale")
        return values.astype(dtypes.numpy_dtype(dtype), copy=False)


def _mean_of(values: Floats, step: pb.Preprocessing, mean_picture: Floats | None) -> Floats:
    if step.mean:
        raise UsageError("preprocessing has both a mean and a mean picture")
    if mean_picture is None:
        raise UsageError("preprocessing refers to a mean picture that was not given")
    if mean_picture.ndim != 3 or mean_picture.shape[-1] != values.shape[-1]:
        raise UsageError("shape of the mean picture", expected=f"H x W x {values.shape[-1]}", found=mean_picture.shape)
    try:
        return crop(mean_picture, *values.shape[1:3]).astype(np.float32, copy=False)
    except UsageError as error:
        raise UsageError("the mean picture is smaller than the picture", expected=error.expected,
                         found=error.found) from None  # fmt: skip


def _per_channel(numbers: Sequence[float], channels: int, what: str) -> Floats:
    if len(numbers) not in (1, channels):
        raise UsageError(f"values of {what}", expected=f"1 or {channels}", found=len(numbers))
    return np.array(numbers, np.float32)
