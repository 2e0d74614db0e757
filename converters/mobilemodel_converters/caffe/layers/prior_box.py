"""PriorBox: the boxes that a detector starts from, a constant of the sizes of a feature map and its picture."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import numpy.typing as npt

from mobilemodel.errors import LimitExceededError, escape
from mobilemodel_converters.caffe.net import Float32
from mobilemodel_converters.caffe.scope import Scope

_MOST_BOXES = 2**20
"""boxes that a layer may put into the graph, 32 MiB of them; SSD512 has 24,564 in all its layers"""
_MOST_SIZES = 256
"""smallest sizes, and ratios, of a layer"""
_SAME_RATIO = 1e-6
_DEFAULT_VARIANCE = 0.1
_LARGEST_SIZE = 2**31


def _prior_box(scope: Scope) -> None:
    """A constant (1, 2, 4 x boxes): all boxes, xmin ymin xmax ymax as parts of the picture, then their variances."""
    parameters = scope.layer.message.prior_box_param
    if len(scope.inputs) != 2 or any(len(value.shape) != 4 for value in scope.inputs):
        scope.malformed("bottoms", expected="2 of 4 axes: a feature map and the picture",
                        found=[value.shape for value in scope.inputs])  # fmt: skip
    height, width = scope.known(*scope.inputs[0].shape[2:])
    picture = _picture(scope, parameters)
    sides = _sides(scope, parameters)
    if height * width * len(sides) > _MOST_BOXES:
        raise LimitExceededError("boxes of a PriorBox", expected=f"at most {_MOST_BOXES}",
                                 found=height * width * len(sides))  # fmt: skip
    boxes = _boxes((height, width), picture, _steps(scope, parameters, (height, width), picture), sides,
                   parameters.offset)  # fmt: skip
    if parameters.clip:
        boxes = np.clip(boxes, np.float32(0), np.float32(1))
    variances = np.broadcast_to(np.array(_variances(scope, parameters), np.float32), boxes.shape)
    values = np.stack((boxes.reshape(-1), variances.reshape(-1)))[np.newaxis]
    scope.fix_batch()
    scope.emit("Identity", (scope.constant(values, "boxes"),), values.shape)


def _boxes(
    cells: tuple[int, int],
    picture: tuple[int, int],
    steps: tuple[float, float],
    sides: npt.NDArray[np.float32],
    offset: float,
) -> Float32:
    """Cells down x cells across x boxes x 4; ``sides`` are the boxes' heights and widths in pixels.

    As in Caffe, centres and sides are float32, and what is made of them is computed in double precision.
    """
    with np.errstate(all="ignore"):  # hostile numbers may overflow to infinity, as they do in Caffe
        down, across = (
            (np.arange(count, dtype=np.float32) + np.float32(offset)) * np.float32(step)
            for count, step in zip(cells, steps, strict=True)
        )
        centre = np.stack(np.broadcast_arrays(across[np.newaxis, :], down[:, np.newaxis]), axis=-1)
        centre = centre[:, :, np.newaxis, :].astype(np.float64)
        half = sides[:, ::-1].astype(np.float64) / 2
        whole = np.array(picture[::-1], np.float64)
        corners = (centre - half) / whole, (centre + half) / whole
        return np.concatenate(corners, axis=-1).astype(np.float32)


def _sides(scope: Scope, parameters: Any) -> npt.NDArray[np.float32]:
    """Height and width of each box of a cell, in pixels.

    For each smallest size: its square, the square between it and the largest size, then one box for each ratio.
    """
    if max(len(parameters.min_size), len(parameters.aspect_ratio)) > _MOST_SIZES:
        raise LimitExceededError("min_size or aspect_ratio", expected=f"at most {_MOST_SIZES} of each")
    smallest, largest = _whole(scope, parameters.min_size, "min_size"), _whole(scope, parameters.max_size, "max_size")
    if not smallest or len(largest) not in (0, len(smallest)):
        scope.malformed("sizes", expected="a min_size or more, and as many max_size or none",
                        found=f"{len(smallest)} and {len(largest)}")  # fmt: skip
    if any(high <= low for low, high in zip(parameters.min_size, parameters.max_size, strict=False)):
        scope.malformed("max_size", expected="larger than min_size", found=list(parameters.max_size)[:8])
    ratios = _ratios(scope, parameters)
    sides: list[tuple[float, float]] = []
    for index, low in enumerate(smallest):
        sides.append((low, low))
        if largest:
            sides.append((math.sqrt(low * largest[index]),) * 2)
        sides += [(low / math.sqrt(ratio), low * math.sqrt(ratio)) for ratio in ratios]
    with np.errstate(all="ignore"):
        return np.array(sides, np.float64).astype(np.float32)


def _whole(scope: Scope, sizes: Any, field: str) -> list[int]:
    """The sizes as Caffe takes them: it keeps them as integers, what is behind the point is lost."""
    if any(not 1 <= size < _LARGEST_SIZE for size in sizes):
        scope.malformed(field, expected="pixels, 1 or more", found=list(sizes)[:8])
    if any(size != int(size) for size in sizes):
        scope.notes.append(f"{field} of the layer '{escape(scope.layer.name)}' is cut to whole pixels, as Caffe does.")
    return [int(size) for size in sizes]


def _ratios(scope: Scope, parameters: Any) -> list[float]:
    """Widths by heights beside 1, each once, and with ``flip`` each also the other way round."""
    ratios: list[float] = [1.0]
    for ratio in parameters.aspect_ratio:
        if not 0 < ratio < math.inf:
            scope.malformed("aspect_ratio", expected="more than 0", found=ratio)
        if any(abs(ratio - other) < _SAME_RATIO for other in ratios):
            continue
        ratios.append(ratio)
        if parameters.flip:
            with np.errstate(all="ignore"):
                ratios.append(float(np.float32(1 / ratio)))
    # Caffe leaves out what is close to 1 again here: a mirrored ratio may be.
    return [ratio for ratio in ratios if not abs(ratio - 1) < _SAME_RATIO]


def _picture(scope: Scope, parameters: Any) -> tuple[int, int]:
    """Height and width of the picture: given, or the second bottom's."""
    if parameters.HasField("img_h") or parameters.HasField("img_w"):
        if parameters.HasField("img_size"):
            scope.malformed("img_size and img_h or img_w", expected="one of them", found="both")
        height, width = parameters.img_h, parameters.img_w
    elif parameters.HasField("img_size"):
        height = width = parameters.img_size
    else:
        height, width = scope.known(*scope.inputs[1].shape[2:])
    if height < 1 or width < 1:
        scope.malformed("size of the picture", expected="1 or more", found=(height, width))
    return height, width


def _steps(scope: Scope, parameters: Any, cells: tuple[int, int], picture: tuple[int, int]) -> tuple[float, float]:
    """Pixels from one cell to the next, down and across."""
    if parameters.HasField("step_h") or parameters.HasField("step_w"):
        if parameters.HasField("step"):
            scope.malformed("step and step_h or step_w", expected="one of them", found="both")
        steps = parameters.step_h, parameters.step_w
    elif parameters.HasField("step"):
        steps = parameters.step, parameters.step
    else:
        return picture[0] / cells[0], picture[1] / cells[1]
    if not all(0 < step < math.inf for step in steps):
        scope.malformed("step", expected="more than 0", found=steps)
    return steps


def _variances(scope: Scope, parameters: Any) -> list[float]:
    """The variances of a box's four numbers; a lone one is that of all four."""
    variances = list(parameters.variance) or [_DEFAULT_VARIANCE]
    if len(variances) not in (1, 4) or any(not value > 0 for value in variances):
        scope.malformed("variance", expected="1 or 4 numbers above 0", found=variances[:8])
    return variances


RULES = {"PriorBox": _prior_box}
