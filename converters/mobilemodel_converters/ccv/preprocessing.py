"""How a picture becomes a convnet's input: ``convnet_params`` as a Preprocessing message (spec/preprocessing.md), and
a Preprocessing message as ``convnet_params``.

ccv scales a picture until its shorter side is ``input_height``, subtracts the mean picture, and takes views of the
network's size. The view that one run of the network sees is the centre of the centre: input_height x input_width out
of the picture, and the network's size out of that. The format crops once: floor((n - crop) / 2) from the picture is
where ccv's two crops end up too (where input_height - crop is odd, at most one pixel beside it), and the mean picture,
which has the size in between, is cropped alike by its own size: the same pixels of it that ccv subtracts.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from mobilemodel.errors import LimitExceededError, MalformedSourceError
from mobilemodel.layout import elements_of
from mobilemodel.limits import FORMAT_LIMITS
from mobilemodel.v1 import bundle_pb2 as pb
from mobilemodel_converters.ccv import schema
from mobilemodel_converters.ccv.database import Blob, Database
from mobilemodel_converters.ccv.layers import Size, integer

_COLUMNS = ("input_height", "input_width", "mean_activity")
_COLOURS = {1: pb.COLOUR_ORDER_GREY, 3: pb.COLOUR_ORDER_RGB}


@dataclass(frozen=True)
class PictureInput:
    """What is known of a network's picture input."""

    step: pb.Preprocessing | None
    mean_picture: bytes
    """float32, rows x columns x channels; empty: none"""
    notes: tuple[str, ...]


@dataclass(frozen=True)
class Picture:
    """What ``convnet_params`` says of the pictures that the network takes."""

    height: int
    width: int
    mean: npt.NDArray[np.float32] | None
    """height x width x channels; None: NULL, which ccv reads as zeros"""


def read_preprocessing(database: Database, name: str, size: Size) -> PictureInput:
    """The preprocessing of the input called ``name``, of ``size``.

    Raises MalformedSourceError for values that are no numbers, LimitExceededError for a picture that is too large.
    """
    if schema.CONVNET_PARAMS not in database.tables:
        return _unknown("the file is older than the table convnet_params and does not say how pictures are prepared")
    database.columns(schema.CONVNET_PARAMS, _COLUMNS)
    rows = database.rows(schema.CONVNET_PARAMS, _COLUMNS, 1)
    if not rows:
        return _unknown("the table convnet_params is empty and does not say how pictures are prepared")
    (row,) = rows
    height, width = integer(row, "input_height"), integer(row, "input_width")
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
    mean = row["mean_activity"]
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


def picture_for(
    step: pb.Preprocessing | None, mean: npt.NDArray[np.float32] | None, size: Size, say: Callable[[str], None]
) -> Picture:
    """The size of the pictures and their mean; without preprocessing that of the network's input, and no mean.

    ``mean`` is the step's mean picture; ``say`` is told what ccv has no place for. Where there is no mean,
    ``mean_activity`` stays NULL: ccv then subtracts nothing, as from zeros, and a reader can tell that none was given.
    """
    sides = (size.rows, size.cols)
    if step is None:
        say(f"no preprocessing in the bundle: ccv will resize pictures to {sides[0]} pixels and subtract nothing")
        return Picture(*sides, None)
    if mean is not None:
        sides = (mean.shape[0], mean.shape[1])
    elif step.HasField("resize"):
        sides = (step.resize.height, step.resize.width)
    if mean is None and step.mean:
        mean = _even_picture(sides, np.array(step.mean, np.float32), size.channels)
    if mean is not None and mean.shape[2] != size.channels:
        say(f"the mean has {mean.shape[2]} channels, the network's input {size.channels}: it is not in the database")
        mean = None
    _say_what_differs(step, sides, say)
    return Picture(*sides, mean)


def _even_picture(sides: tuple[int, int], mean: npt.NDArray[np.float32], channels: int) -> npt.NDArray[np.float32]:
    """A mean of one value for each channel, or one for all, as the picture that ccv wants."""
    shape = (*sides, channels if len(mean) == 1 else len(mean))
    if 4 * elements_of(shape) > FORMAT_LIMITS.mean:
        raise LimitExceededError("the mean as a picture", expected=f"at most {FORMAT_LIMITS.mean} bytes",
                                 found=" x ".join(map(str, shape)))  # fmt: skip
    return np.broadcast_to(mean, shape)


def _say_what_differs(step: pb.Preprocessing, sides: tuple[int, int], say: Callable[[str], None]) -> None:
    """ccv's preprocessing is one: the shorter side to ``input_height``, red green blue, minus the mean."""
    if any(value != 1 for value in step.scale):
        say(f"ccv multiplies no pixel: the scale {', '.join(f'{value:.6g}' for value in step.scale)} is lost")
    if step.colour_order == pb.COLOUR_ORDER_BGR:
        say("ccv hands in red, green, blue: this network takes blue, green, red")
    resize = step.resize
    if resize.mode != pb.Resize.MODE_SHORT or (resize.height, resize.width) != sides:
        say(f"ccv resizes the shorter side to {sides[0]} pixels: the bundle's preprocessing says otherwise")
