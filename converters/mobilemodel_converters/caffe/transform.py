"""Preprocessing that a data layer's transform_param says: (pixel - mean) * scale, the channels as OpenCV has them, BGR.

Source: docs/formats/caffe.md §5.
"""

from __future__ import annotations

import math
import re
from typing import Any

from mobilemodel.errors import MalformedSourceError, escape
from mobilemodel.limits import FORMAT_LIMITS
from mobilemodel.v1 import bundle_pb2 as pb
from mobilemodel_converters.caffe.net import Input


def preprocessing(item: Input, transformation: Any) -> tuple[pb.Preprocessing, ...]:
    """The message for a network's input; none where nothing is subtracted or scaled, or the input is no picture.

    Nothing is resized: Caffe's data sets hold pictures of the right size.

    Raises MalformedSourceError for numbers that are not finite, or means of another number than the channels.
    """
    said = transformation.mean_value or transformation.scale != 1
    if not said or item.shape is None or len(item.shape) != 4 or item.shape[1] not in (1, 3):
        return ()
    channels = item.shape[1]
    means, scale = list(transformation.mean_value), transformation.scale
    if len(means) not in (0, 1, channels) or not all(map(math.isfinite, (*means, scale))):
        raise MalformedSourceError("mean_value and scale", tensor=item.name,
                                   expected=f"0, 1 or {channels} means, and finite numbers",
                                   found=f"{means[:8]}, {scale}")  # fmt: skip
    order = pb.COLOUR_ORDER_BGR if channels == 3 else pb.COLOUR_ORDER_GREY
    step = pb.Preprocessing(input=item.name, layout=pb.LAYOUT_NCHW, colour_order=order, mean=means)
    if scale != 1:
        step.scale.append(scale)
    crop = transformation.crop_size
    if crop and item.shape[2:] == (crop, crop) and crop <= FORMAT_LIMITS.picture_side:
        step.crop_height = step.crop_width = crop
    return (step,)


def notes(transformation: Any) -> tuple[str, ...]:
    """What the transformation says that is not in the files: its mean picture, a path, which is never followed."""
    if not transformation.mean_file:
        return ()
    name = escape(re.split(r"[/\\]", transformation.mean_file)[-1]) or "without a name"
    crop = f" --crop {transformation.crop_size}" if transformation.crop_size else ""
    scale = f" --scale {transformation.scale:g}" if transformation.scale != 1 else ""
    return (f"in training the mean picture '{name}' was subtracted: give it by --mean FILE.binaryproto{crop}{scale}",)
