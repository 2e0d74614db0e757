"""Preprocessing as a user writes it, as the manifest's message (spec/preprocessing.md).

    resize  short:256, fit:320x240, 256x256 (warp); a kernel may follow: short:256:bicubic
    crop    227, or 224x192 (height x width)
    mean    one value, one for each channel, or a .npy file with a picture
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from mobilemodel.errors import LimitExceededError, UsageError
from mobilemodel.limits import FORMAT_LIMITS
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
_LARGEST_SIDE = 65_535


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
        colours = self.channels or "rgb"
        if colours not in _COLOURS:
            raise UsageError("--channels", expected=", ".join(_COLOURS), found=colours)
        step.colour_order = _COLOURS[colours]
        channels = 1 if colours == "grey" else 3
        if self.resize is not None:
            _parse_resize(self.resize, step.resize)
        if self.crop is not None:
            step.crop_height, step.crop_width = _parse_size(self.crop, "--crop")
        if self.scale is not None:
            step.scale.extend(_parse_values(self.scale, channels, "--scale"))
        if self.mean is None:
            return step, b""
        if _is_numbers(self.mean):
            step.mean.extend(_parse_values(self.mean, channels, "--mean"))
            return step, b""
        return step, _read_mean(Path(self.mean), channels, step)


def _is_numbers(text: str) -> bool:
    try:
        return bool([float(part) for part in text.split(",")])
    except ValueError:
        return False


def _parse_values(text: str, channels: int, option: str) -> list[float]:
    try:
        values = [float(part) for part in text.split(",")]
    except ValueError:
        raise UsageError(option, expected=f"1 or {channels} numbers with commas between", found=text) from None
    single = np.float32(values)
    if len(values) not in (1, channels) or not np.isfinite(single).all() or any(map(math.isnan, values)):
        raise UsageError(option, expected=f"1 or {channels} finite numbers", found=text)
    return [float(value) for value in single]


def _parse_size(text: str, option: str) -> tuple[int, int]:
    parts = text.split("x")
    if len(parts) > 2 or not all(part.isascii() and part.isdigit() and 1 <= int(part) <= _LARGEST_SIDE for part in parts):
        raise UsageError(option, expected="a size in pixels, 227 or 224x192 (height x width)", found=text)
    return int(parts[0]), int(parts[-1])


def _parse_resize(text: str, out: pb.Resize) -> None:
    parts = text.split(":")
    mode = parts.pop(0) if parts[0] in _MODES else "warp"
    if len(parts) not in (1, 2) or (len(parts) == 2 and parts[1] not in _KERNELS):
        raise UsageError("--resize", expected=f"short:256, fit:320x240 or 256x256, then :{'|'.join(_KERNELS)}", found=text)
    out.mode = _MODES[mode]
    out.height, out.width = _parse_size(parts[0], "--resize")
    if mode == "short" and out.height != out.width:
        raise UsageError("--resize", expected="one size for the shorter side, short:256", found=text)
    out.kernel = _KERNELS[parts[1]] if len(parts) == 2 else pb.Resize.KERNEL_BILINEAR_HALF_PIXEL
    out.antialias = out.kernel in _ANTIALIASED


def _read_mean(path: Path, channels: int, step: pb.Preprocessing) -> bytes:
    try:
        if path.stat().st_size > FORMAT_LIMITS.mean + 4096:
            raise LimitExceededError("the mean picture", file=str(path), expected=f"at most {FORMAT_LIMITS.mean} bytes")
        picture = np.load(path, allow_pickle=False)
    except OSError as error:
        raise UsageError(f"--mean: {error.strerror or error}", file=str(path)) from None
    except (ValueError, EOFError, SyntaxError):
        raise UsageError("--mean is neither numbers nor a .npy file", file=str(path)) from None
    if not isinstance(picture, np.ndarray) or picture.ndim != 3 or picture.shape[2] != channels or picture.size == 0:
        raise UsageError("--mean", file=str(path), expected=f"an array height x width x {channels}",
                         found=getattr(picture, "shape", type(picture).__name__))  # fmt: skip
    values = picture.astype("<f4")
    if not np.isfinite(values).all():
        raise UsageError("--mean holds values that are not finite", file=str(path))
    step.mean_picture.height, step.mean_picture.width = values.shape[:2]
    return values.tobytes()


def read_labels(path: Path) -> tuple[str, ...]:
    """Read class names, one for each line, UTF-8.

    Raises UsageError when the file cannot be read, LimitExceededError when it is too large.
    """
    try:
        if path.stat().st_size > FORMAT_LIMITS.labels:
            raise LimitExceededError("labels", file=str(path), expected=f"at most {FORMAT_LIMITS.labels} bytes")
        text = path.read_text("utf-8")
    except OSError as error:
        raise UsageError(f"--labels: {error.strerror}", file=str(path)) from None
    except UnicodeDecodeError:
        raise UsageError("--labels is not UTF-8", file=str(path)) from None
    return tuple(text.removesuffix("\n").split("\n"))
