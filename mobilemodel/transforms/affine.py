"""Nodes that multiply each channel by a constant and add another: BatchNormalization, Mul, Add, Sub, Div."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from mobilemodel.graphs import integer, is_standard, real
from mobilemodel.transforms.constants import constant
from mobilemodel.transforms.draft import Draft

if TYPE_CHECKING:
    import onnx

Array = npt.NDArray[Any]
NORMALIZATION = "BatchNormalization"
ARITHMETIC = frozenset(("Mul", "Add", "Sub", "Div"))


@dataclass(frozen=True)
class Channels:
    """Where a value's channels lie."""

    count: int
    axis: int
    """of the value; negative from its end"""
    rank: int | None
    """None: any number of axes"""


@dataclass(frozen=True)
class Affine:
    """y = scale x + shift, one scale and one shift for each channel, float64."""

    scale: Array
    shift: Array

    def then(self, other: Affine) -> Affine:
        """This one first, ``other`` on its result."""
        return Affine(other.scale * self.scale, other.scale * self.shift + other.shift)

    @property
    def scales(self) -> bool:
        return bool((self.scale != 1).any())

    @property
    def shifts(self) -> bool:
        return bool((self.shift != 0).any())

    @property
    def finite(self) -> bool:
        return bool(np.isfinite(self.scale).all() and np.isfinite(self.shift).all())


def nothing(channels: int) -> Affine:
    """y = x."""
    return Affine(np.ones(channels), np.zeros(channels))


def read_affine(draft: Draft, node: onnx.NodeProto, data: str, channels: Channels) -> Affine | str:
    """What a node does to each channel of its input ``data``; or why that isn't known or isn't affine."""
    if not is_standard(node):
        return f"{node.op_type} of another domain"
    if not node.output or not node.output[0]:
        return f"{node.op_type} without a result"
    if node.op_type == NORMALIZATION:
        found = _normalization(draft, node, data, channels)
    elif node.op_type in ARITHMETIC:
        found = _arithmetic(draft, node, data, channels)
    elif node.input[0] == data and (node.op_type == "Identity" or _does_nothing(draft, node)):
        return nothing(channels.count)
    else:
        return f"{node.op_type} follows"
    if isinstance(found, Affine) and not found.finite:
        return "its factors are not finite"
    return found


def _normalization(draft: Draft, node: onnx.NodeProto, data: str, channels: Channels) -> Affine | str:
    """scale (x - mean) / sqrt(variance + epsilon) + bias, over axis 1 (Ioffe & Szegedy, arXiv 1502.03167)."""
    if training(draft, node):
        return "it normalizes by the batch: it is in its training form"
    if node.input[0] != data or len(node.input) != 5:
        return "its input is one of its parameters"
    if channels.rank is None or channels.axis % channels.rank != 1:
        return "its channels are not those of the layer's output, or the number of axes is not known"
    values = [constant(draft, name) for name in node.input[1:]]
    parameters = [value.astype(np.float64) for value in values if value is not None]
    if len(parameters) < 4:
        return "its parameters are no constants"
    if any(value.shape != (channels.count,) for value in parameters):
        return "its parameters do not fit the layer's outputs"
    scale, bias, mean, variance = parameters
    with np.errstate(all="ignore"):
        factor = scale / np.sqrt(variance + real(node, "epsilon", 1e-5))
        return Affine(factor, bias - mean * factor)


def training(draft: Draft, node: onnx.NodeProto) -> bool:
    """Whether a BatchNormalization takes the batch's statistics, or has one of each position (spatial=0)."""
    if integer(node, "training_mode", 0) or any(node.output[1:]):
        return True
    return draft.opset < 9 and not integer(node, "spatial", 1)


def _arithmetic(draft: Draft, node: onnx.NodeProto, data: str, channels: Channels) -> Affine | str:
    if len(node.input) != 2 or node.input[0] == node.input[1]:
        return f"{node.op_type} takes no constant"
    first = node.input[0] == data
    values = constant(draft, node.input[1 if first else 0])
    if values is None:
        return f"{node.op_type} takes no constant"
    by_channel = _by_channel(values, channels)
    if by_channel is None:
        return f"{node.op_type} with a constant of shape {list(values.shape)}, not one for each channel"
    one, zero = np.ones(channels.count), np.zeros(channels.count)
    if node.op_type == "Mul":
        return Affine(by_channel, zero)
    if node.op_type == "Add":
        return Affine(one, by_channel)
    if node.op_type == "Sub":
        return Affine(one, -by_channel) if first else Affine(-one, by_channel)
    if not first:
        return "Div by what is no constant"
    with np.errstate(all="ignore"):
        return Affine(1 / by_channel, zero)


def _by_channel(values: Array, channels: Channels) -> Array | None:
    """A constant that is broadcast against a value, as one number for each channel; None where it is not that."""
    if values.dtype.kind in "OUSb":
        return None
    if channels.rank is None and values.ndim > 1:
        return None
    rank = channels.rank if channels.rank is not None else max(1, values.ndim)
    if values.ndim > rank:
        return None
    shape = (1,) * (rank - values.ndim) + values.shape
    axis = channels.axis % rank
    if any(size != 1 for other, size in enumerate(shape) if other != axis) or shape[axis] not in (1, channels.count):
        return None
    return np.broadcast_to(values.astype(np.float64).reshape(-1), (channels.count,))


def _does_nothing(draft: Draft, node: onnx.NodeProto) -> bool:
    """Whether a node is a Dropout that passes its input on: it does unless it is told that it trains."""
    if node.op_type != "Dropout" or any(node.output[1:]) or node.input[0] in node.input[1:]:
        return False
    mode = node.input[2] if len(node.input) > 2 else ""
    if not mode:
        return True
    value = constant(draft, mode)
    return value is not None and value.size == 1 and not value.any()
