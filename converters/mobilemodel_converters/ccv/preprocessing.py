"""How a picture becomes a convnet's input: ``convnet_params`` as a Preprocessing message (spec/preprocessing.md).

ccv scales a picture until its shorter side is ``input_height``, subtracts the mean picture, and takes views of the
network's size. The view that one run of the network sees is the centre of the centre: input_height x input_width out
of the picture, and the network's size out of that. The format crops once: floor((n - crop) / 2) from the picture is
where ccv's two crops end up too (where input_height - crop is odd, at most one pixel beside it), and the mean picture,
which has the size in between, is cropped alike by its own size: the same pixels of it that ccv subtracts.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from mobilemodel.errors import LimitExceededError, MalformedSourceError
from mobilemodel.limits import FORMAT_LIMITS
from mobilemodel.v1 import bundle_pb2 as pb
from mobilemodel_converters.ccv import schema
from mobilemodel_converters.ccv.database import Blob, Database
from mobilemodel_converters.ccv.layers import Size, integer

_COLOURS = {1: pb.COLOUR_ORDER_GREY, 3: pb.COLOUR_ORDER_RGB}


@dataclass(frozen=True)
class PictureInput:
    """What is known of a network's picture input."""

    step: pb.Preprocessing | None
    mean_picture: bytes
    """float32, rows x columns x channels; empty: none"""
    notes: tuple[str, ...]


def read_preprocessing(database: Database, name: str, size: Size) -> PictureInput:
    """The preprocessing of the input called ``name``, of ``size``.

    Raises MalformedSourceError for values that are no numbers, LimitExceededError for a picture that is too large.
    """
    if schema.CONVNET_PARAMS not in database.tables:
        return _unknown("the file is older than the table convnet_params and does not say how pictures are prepared")
    database.columns(schema.CONVNET_PARAMS, ("input_height", "input_width", "mean_activity"))
    rows = database.rows(schema.CONVNET_PARAMS, ("input_height", "input_width", "mean_activity"), 1)
    if not rows:
        return _unknown("the table convnet_params is empty and does not say how pictures are prepared")
    height = integer(rows[0]["input_height"], "input_height")
    width = integer(rows[0]["input_width"], "input_width")
    if size.channels not in _COLOURS:
        return _unknown(f"the input has {size.channels} channels: it is no picture, and nothing is said of it")
    if height < size.rows or width < size.cols:
        return _unknown(
            f"convnet_params names a picture of {height}x{width}, smaller than the network's input: nothing is said "
            "of how pictures are prepared"
        )
    if max(height, width) > FORMAT_LIMITS.picture_side:
        raise LimitExceededError("input_height or input_width", found=f"{height}x{width}",
                                 expected=f"at most {FORMAT_LIMITS.picture_side}")  # fmt: skip
    step, notes = _message(name, size, height, width)
    mean = rows[0]["mean_activity"]
    values = height * width * size.channels
    if not isinstance(mean, Blob) or mean.size != 4 * values:
        found = f"{mean.size} bytes" if isinstance(mean, Blob) else "none"
        notes.append("the mean picture is left out, as ccv does where its size does not fit: "
                     f"expected {4 * values} bytes, found {found}")  # fmt: skip
        return PictureInput(step, b"", tuple(notes))
    step.mean_picture.height, step.mean_picture.width = height, width
    return PictureInput(step, _read_mean(database, mean), tuple(notes))


def _unknown(note: str) -> PictureInput:
    return PictureInput(None, b"", (note,))


def _message(name: str, size: Size, height: int, width: int) -> tuple[pb.Preprocessing, list[str]]:
    step = pb.Preprocessing(
        input=name, crop_height=size.rows, crop_width=size.cols, colour_order=_COLOURS[size.channels],
        layout=pb.LAYOUT_NCHW,
    )  # fmt: skip
    notes = ["the preprocessing makes one view, the centre; ccv's classifier averages ten views"]
    # A message has one kernel, and pictures are larger than this.
    notes.append("pictures are resized by area, as ccv shrinks them; smaller ones it would enlarge by bicubic")
    step.resize.kernel = pb.Resize.KERNEL_AREA
    step.resize.height, step.resize.width = height, width
    step.resize.mode = pb.Resize.MODE_SHORT
    if height != width:
        step.resize.mode = pb.Resize.MODE_WARP
        notes.append(f"pictures are resized to {height}x{width} whatever their aspect: the format has no mode for "
                     "ccv's rule where both sides differ")  # fmt: skip
    return step, notes


def _read_mean(database: Database, blob: Blob) -> bytes:
    if blob.size > FORMAT_LIMITS.mean:
        raise LimitExceededError("the mean picture", expected=f"at most {FORMAT_LIMITS.mean} bytes", found=blob.size)
    content = database.read(blob)
    if not np.isfinite(np.frombuffer(content, "<f4")).all():
        raise MalformedSourceError("the mean picture holds values that are not finite")
    return content
