"""Ten views of a picture: corners and centre, each also mirrored; a classifier's answer is the mean over them.

The protocol of Krizhevsky et al. 2012 (§4.1), and of ccv, which Klaus uses: the crop is not taken from the centre
alone.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from mobilemodel.dtypes import DType
from mobilemodel.errors import UsageError
from mobilemodel.runtime.picture import Floats, Pixels, crop, prepare, resize
from mobilemodel.v1 import bundle_pb2 as pb

VIEWS = (1, 10)
"""how many views of a picture can be asked for"""


@dataclass(frozen=True)
class Window:
    """A part of a picture."""

    top: int
    left: int
    height: int
    width: int
    mirrored: bool
    """left and right exchanged"""

    def of(self, picture: npt.NDArray[Any]) -> npt.NDArray[Any]:
        """The part of (N x) H x W x C; a view of the same memory."""
        part = picture[..., self.top : self.top + self.height, self.left : self.left + self.width, :]
        return part[..., ::-1, :] if self.mirrored else part


def windows(rows: int, columns: int, height: int, width: int) -> Iterator[Window]:
    """The ten windows of ``height`` x ``width`` in a frame of ``rows`` x ``columns``.

    Top left, top right, bottom left, bottom right, centre; then the same, mirrored. The centre is the format's crop.

    >>> [(window.top, window.left) for window in windows(256, 256, 227, 227)][:5]
    [(0, 0), (0, 29), (29, 0), (29, 29), (14, 14)]
    """
    down, right = rows - height, columns - width
    places = ((0, 0), (0, right), (down, 0), (down, right), (down // 2, right // 2))
    for mirrored in (False, True):
        for top, left in places:
            yield Window(top, left, height, width, mirrored)


def prepare_views(
    pictures: Pixels, step: pb.Preprocessing, mean_picture: Floats | None = None, *, dtype: int = DType.FLOAT
) -> npt.NDArray[Any]:
    """Make the input tensors of ten views of each of N pictures N x H x W x C: N x 10 x (the tensor's axes).

    As ``prepare``, but for the crop: windows of its size are taken from the resized picture, and where the resize is
    that of the shorter side, from the centre square of it. A mean picture of the size of that frame is cut and mirrored
    with it (it is subtracted before); a smaller one is subtracted from each view as it is.

    Raises UsageError where the step has no crop or one as large as the frame, and what ``prepare`` raises.
    """
    height, width = step.crop_height, step.crop_width
    framed = _frame(pictures, step)
    rows, columns = framed.shape[1:3]
    if not height or (rows, columns) == (height, width):
        raise UsageError(
            "ten views need a crop that is smaller than the resized picture", expected=f"less than {rows} x {columns}",
            found=f"{height} x {width}" if height else "no crop",
            advice="Give preprocessing with --crop, and --resize where the pictures are not larger than that.",
        )  # fmt: skip
    if height > rows or width > columns:
        crop(framed, height, width)  # says what is too small
    plain = pb.Preprocessing()
    plain.CopyFrom(step)
    plain.ClearField("resize")
    plain.crop_height = plain.crop_width = 0
    views = []
    for window in windows(rows, columns, height, width):
        mean = mean_picture
        if mean is not None and mean.shape[:2] == (rows, columns):
            mean = window.of(mean)
        views.append(prepare(window.of(framed), plain, mean, dtype=dtype))
    return np.stack(views, axis=1)


def _frame(pictures: Pixels, step: pb.Preprocessing) -> Pixels:
    if not step.HasField("resize"):
        return pictures
    resized = resize(pictures, step.resize)
    if step.resize.mode != pb.Resize.MODE_SHORT:
        return resized
    return crop(resized, max(step.resize.height, step.crop_height), max(step.resize.width, step.crop_width))
