"""Preprocessing as a user writes it, as the manifest's message (spec/preprocessing.md).

resize  short:256, fit:320x240, 256x256 (warp); a kernel may follow: short:256:bicubic
crop    227, or 224x192 (height x width)
mean    one value, one for each channel, or a picture: a .npy file, or Caffe's mean.binaryproto
scale   one value, or one for each channel
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from mobilemodel import dtypes
from mobilemodel.dtypes import DType
from mobilemodel.errors import UsageError
from mobilemodel.limits import FORMAT_LIMITS
from mobilemodel.pipeline.mean import read_mean_picture, usual_channels
from mobilemodel.v1 import bundle_pb2 as pb

_MODES = {"short": pb.Resize.MODE_SHORT, "fit": pb.Resize.MODE_FIT, "warp": pb.Resize.MODE_WARP}
_KERNELS = {
    "nearest": pb.Resize.KERNEL_NEAREST,
    "bilinear": pb.Resize.KERNEL_BILINEAR_HALF_PIXEL,
    "corners": pb.Resize.KERNEL_BILINEAR_CORNERS,
    "area": pb.Resize.KERNEL_AREA,
    "bicubic": pb.Resize.KERNEL_BICUBIC,
}
_ANTIALIASED = (pb.Resize.KERNEL_BILINEAR_HALF_PIXEL, pb.Resize.KERNEL_BICUBIC)
_COLOURS = {"rgb": pb.COLOUR_ORDER_RGB, "bgr": pb.COLOUR_ORDER_BGR, "grey": pb.COLOUR_ORDER_GREY}


@dataclass(frozen=True)
class PreprocessingOptions:
    """The command line's preprocessing set; None where nothing was said."""

    mean: str | None = None
    scale: str | None = None
    channels: str | None = None
    resize: str | None = None
    crop: str | None = None

    @property
    def given(self) -> bool:
        """Whether anything was said."""
        return any(value is not None for value in (self.mean, self.scale, self.channels, self.resize, self.crop))

    def message(self) -> tuple[pb.Preprocessing, bytes]:
        """The manifest's message without its input, and the mean picture's raw bytes (empty where there is none).

        Raises UsageError for text that does not parse, naming the forms that do.
        """
        step = pb.Preprocessing(layout=pb.LAYOUT_NCHW)
        picture = None if self.mean is None or _is_numbers(self.mean) else self.mean
        colours = self.channels or ("rgb" if picture is None else usual_channels(picture))
        if colours not in _COLOURS:
            raise UsageError("--channels", expected=", ".join(_COLOURS), found=colours)
        step.colour_order = _COLOURS[colours]
        channels = 1 if colours == "grey" else 3
        if self.resize is not None:
            _parse_resize(self.resize, step.resize)
        if self.crop is not None:
            step.crop_height, step.crop_width = _parse_size(self.crop, "--crop")
        _check_crop(step)
        if self.scale is not None:
            step.scale.extend(_parse_values(self.scale, channels, "--scale"))
        if picture is not None:
            return step, _add_mean_picture(picture, channels, step)
        if self.mean is not None:
            step.mean.extend(_parse_values(self.mean, channels, "--mean"))
        return step, b""

    def prepared(self) -> tuple[pb.Preprocessing | None, npt.NDArray[np.float32] | None]:
        """As ``message``, for who runs a model now: the mean picture as an array; None where nothing was said."""
        if not self.given:
            return None, None
        step, raw = self.message()
        size = step.mean_picture
        return step, np.frombuffer(raw, "<f4").reshape(size.height, size.width, -1) if raw else None


def placed(step: pb.Preprocessing, inputs: Sequence[pb.ValueInfo]) -> pb.Preprocessing:
    """A copy of ``step`` that names the model's only picture input, and has the layout of that input.

    Raises UsageError where there is not exactly one input of four axes, or where its channels, height or width are
    known and are not what the preprocessing makes.
    """
    pictures = [value for value in inputs if len(value.shape.dimensions) == 4]
    if len(pictures) != 1:
        raise UsageError("preprocessing needs exactly one input of four axes", found=f"{len(pictures)} of them")
    out = pb.Preprocessing()
    out.CopyFrom(step)
    out.input = pictures[0].name
    _check_type(out, pictures[0].dtype)
    axes = [d.size if d.WhichOneof("value") == "size" else None for d in pictures[0].shape.dimensions]
    channels = 1 if step.colour_order == pb.COLOUR_ORDER_GREY else 3
    if axes[1] in (None, channels):
        out.layout, sides = pb.LAYOUT_NCHW, axes[2:]
    elif axes[3] in (None, channels):
        out.layout, sides = pb.LAYOUT_NHWC, axes[1:3]
    else:
        raise UsageError(
            "--channels does not fit the model's input", tensor=out.input, expected=f"{channels} channels",
            found=_shape_text(axes), advice="grey is one channel; rgb (the default) and bgr are three.",
        )  # fmt: skip
    made = _made_size(step)
    if made is not None and any(side not in (None, size) for side, size in zip(sides, made, strict=True)):
        raise UsageError(
            "--resize and --crop do not make the size of the model's input", tensor=out.input,
            expected=_shape_text(axes), found=_shape_text(made), advice="Sizes are height x width.",
        )  # fmt: skip
    return out


def _check_type(step: pb.Preprocessing, dtype: int) -> None:
    """Pictures can become float32, float16, or stay the bytes they are (spec/preprocessing.md §7)."""
    if dtype not in (DType.FLOAT, DType.FLOAT16, DType.UINT8):
        raise UsageError("preprocessing cannot make the type of the model's input", tensor=step.input,
                         expected="float32, float16 or uint8", found=dtypes.name(dtype))  # fmt: skip
    if dtype == DType.UINT8 and (step.mean or step.scale or step.HasField("mean_picture")):
        raise UsageError("the model's input takes pixels of uint8: no --mean, no --scale", tensor=step.input)


def _made_size(step: pb.Preprocessing) -> tuple[int, int] | None:
    """Height and width that come out, where they do not depend on the picture."""
    if step.crop_height:
        return step.crop_height, step.crop_width
    return (step.resize.height, step.resize.width) if step.resize.mode == pb.Resize.MODE_WARP else None


def _shape_text(sides: Sequence[int | None]) -> str:
    return " x ".join("any" if side is None else str(side) for side in sides)


def _is_numbers(text: str) -> bool:
    try:
        return bool([float(part) for part in text.split(",")])
    except ValueError:
        return False


def _parse_values(text: str, channels: int, option: str) -> list[float]:
    try:
        values = [float(part) for part in text.split(",")]
    except ValueError:
        raise UsageError(option, expected=_numbers(channels), found=text) from None
    with np.errstate(over="ignore"):
        single = np.array(values, np.float32)
    if len(values) not in (1, channels) or not np.isfinite(single).all():
        raise UsageError(option, expected=_numbers(channels), found=text)
    return [float(value) for value in single]


def _numbers(channels: int) -> str:
    return "one finite number (grey)" if channels == 1 else f"1 or {channels} finite numbers with commas between"


def _parse_size(text: str, option: str) -> tuple[int, int]:
    parts = text.split("x")
    numbers = [int(part) for part in parts if part.isascii() and part.isdigit() and len(part) <= 8]
    if len(numbers) != len(parts) or len(parts) > 2 or not all(1 <= n <= FORMAT_LIMITS.picture_side for n in numbers):
        raise UsageError(
            option, expected=f"pixels, 227 or 224x192 (height x width), each at most {FORMAT_LIMITS.picture_side}",
            found=text,
        )  # fmt: skip
    return numbers[0], numbers[-1]


def _check_crop(step: pb.Preprocessing) -> None:
    """What is cropped must be there. (The result of fit is not known; at most it is the box.)"""
    if step.HasField("resize") and (step.crop_height > step.resize.height or step.crop_width > step.resize.width):
        short = step.resize.mode == pb.Resize.MODE_SHORT
        if not (short and min(step.crop_height, step.crop_width) <= step.resize.height):
            raise UsageError("--crop is larger than --resize",
                             expected=f"at most {step.resize.height}x{step.resize.width}",
                             found=f"{step.crop_height}x{step.crop_width}")  # fmt: skip


def _parse_resize(text: str, out: pb.Resize) -> None:
    parts = text.split(":")
    mode = parts.pop(0) if parts[0] in _MODES else "warp"
    if len(parts) not in (1, 2) or (len(parts) == 2 and parts[1] not in _KERNELS):
        forms = f"short:256, fit:320x240 or 256x256, then :{'|'.join(_KERNELS)}"
        raise UsageError("--resize", expected=forms, found=text)
    out.mode = _MODES[mode]
    out.height, out.width = _parse_size(parts[0], "--resize")
    if mode == "short" and out.height != out.width:
        raise UsageError("--resize", expected="one size for the shorter side, short:256", found=text)
    out.kernel = _KERNELS[parts[1]] if len(parts) == 2 else pb.Resize.KERNEL_BILINEAR_HALF_PIXEL
    out.antialias = out.kernel in _ANTIALIASED


def _add_mean_picture(path: str, channels: int, step: pb.Preprocessing) -> bytes:
    """Put the size of the mean picture at ``path`` into ``step``; returns its values."""
    picture = read_mean_picture(path, channels)
    height, width = picture.shape[:2]
    least = _made_size(step)
    if least is not None and (height < least[0] or width < least[1]):
        raise UsageError("--mean is smaller than what is cropped or resized", file=path,
                         expected=f"at least {_shape_text(least)}", found=_shape_text((height, width)))  # fmt: skip
    step.mean_picture.height, step.mean_picture.width = height, width
    return picture.tobytes()
