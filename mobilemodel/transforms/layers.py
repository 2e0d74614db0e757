"""Layers that are linear in their input with a constant weight: Conv, ConvTranspose, Gemm and MatMul."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from mobilemodel.graphs import integer, integers, is_standard, real, text, title
from mobilemodel.transforms.constants import constant
from mobilemodel.transforms.draft import Draft, Reference
from mobilemodel.transforms.report import Size
from mobilemodel.transforms.values import FLOATS

if TYPE_CHECKING:
    import onnx

Array = npt.NDArray[Any]
CONV, CONV_TRANSPOSE, GEMM, MATMUL = "Conv", "ConvTranspose", "Gemm", "MatMul"
_OPERATORS = frozenset((CONV, CONV_TRANSPOSE, GEMM, MATMUL))


@dataclass(frozen=True)
class Layer:
    """A node whose output is linear in its first input; its second is a constant weight."""

    node: onnx.NodeProto
    weight: Reference
    groups: int = 1

    @property
    def title(self) -> str:
        return title(self.node)

    @property
    def operator(self) -> str:
        return str(self.node.op_type)

    @property
    def convolves(self) -> bool:
        return self.operator in (CONV, CONV_TRANSPOSE)

    @property
    def transposed(self) -> bool:
        """Whether the weight's first axis is the outputs, as Gemm with transB has it."""
        return self.operator == GEMM and bool(integer(self.node, "transB", 0))

    @property
    def inputs(self) -> int:
        """Channels or values that the layer takes."""
        shape = self.weight.shape
        if self.operator == CONV:
            return shape[1] * self.groups
        return shape[1] if self.transposed else shape[0]

    @property
    def outputs(self) -> int:
        """Channels or values that it gives."""
        shape = self.weight.shape
        if self.operator == CONV_TRANSPOSE:
            return shape[1] * self.groups
        return shape[0] if self.operator == CONV or self.transposed else shape[1]

    @property
    def rank(self) -> int | None:
        """Axes of its input and output; None where a MatMul takes any number."""
        if self.convolves:
            return len(self.weight.shape)
        return 2 if self.operator == GEMM else None

    @property
    def bias(self) -> str:
        """The name of its bias; empty where it has none."""
        return self.node.input[2] if len(self.node.input) > 2 else ""

    def by_output(self, values: Array) -> Array:
        """One value for each output, shaped to be broadcast against the weight tensor as it is stored."""
        if self.operator == CONV_TRANSPOSE:
            rows = np.repeat(values.reshape(self.groups, -1), self.weight.shape[0] // self.groups, axis=0)
            return self._stored(rows.reshape(*rows.shape, *[1] * (len(self.weight.shape) - 2)))
        axis = 0 if self.operator == CONV or self.transposed else 1
        return self._along(values, axis)

    def by_input(self, values: Array) -> Array:
        """One value for each input, shaped likewise."""
        if self.operator == CONV and self.groups > 1:
            rows = np.repeat(values.reshape(self.groups, -1), self.weight.shape[0] // self.groups, axis=0)
            return self._stored(rows.reshape(*rows.shape, *[1] * (len(self.weight.shape) - 2)))
        axis = 1 if self.operator == CONV or self.transposed else 0
        return self._along(values, axis)

    def _along(self, values: Array, axis: int) -> Array:
        shape = [1] * len(self.weight.shape)
        shape[axis] = values.size
        return self._stored(values.reshape(shape))

    def _stored(self, values: Array) -> Array:
        """From the order of the node's axes to that of the tensor's."""
        return values.transpose(np.argsort(self.weight.axes))

    def seen(self, stored: Array) -> Array:
        """The weight as the node sees it, from the tensor's value."""
        return stored.transpose(self.weight.axes)

    @property
    def pads(self) -> bool:
        """Whether a convolution's input may be padded with zeros."""
        automatic = text(self.node, "auto_pad", b"NOTSET")
        return any(integers(self.node, "pads")) or automatic not in (b"NOTSET", b"VALID")

    def parameters(self) -> int:
        """Values of the weight and the bias."""
        return math.prod(self.weight.shape) + (self.outputs if self.bias else 0)


def find_layer(draft: Draft, node: onnx.NodeProto) -> Layer | str | None:
    """The layer that a node is; why it can't be changed where it is one all the same; None for other nodes."""
    if not is_standard(node) or node.op_type not in _OPERATORS or len(node.input) < 2 or not node.output:
        return None
    weight = draft.reference(node.input[1])
    if isinstance(weight, str):
        return weight
    if weight.tensor.dtype not in FLOATS:
        return f"'{weight.tensor.name}' holds no floating-point values"
    groups = integer(node, "group", 1) if node.op_type in (CONV, CONV_TRANSPOSE) else 1
    layer = Layer(node, weight, groups)
    rank = len(weight.shape)
    fits = rank >= 3 if layer.convolves else rank == 2
    if not fits or 0 in weight.shape or groups < 1 or weight.shape[0] % groups:
        return f"a weight of shape {list(weight.shape)} is none of a {node.op_type} of {groups} groups that is known"
    if node.op_type == GEMM and integer(node, "transA", 0):
        return "its data come transposed"
    if layer.convolves and not _window_fits(node, weight.shape[2:]):
        return "its strides, dilations, pads or kernel do not fit its weight"
    return layer


def _window_fits(node: onnx.NodeProto, kernel: tuple[int, ...]) -> bool:
    sizes = [integers(node, name) for name in ("strides", "dilations", "kernel_shape")]
    automatic = text(node, "auto_pad", b"NOTSET")
    return (
        all(len(found) in (0, len(kernel)) for found in sizes)
        and sizes[2] in ((), kernel)
        and len(integers(node, "pads")) in (0, 2 * len(kernel))
        and automatic in (b"NOTSET", b"VALID", b"SAME_UPPER", b"SAME_LOWER")
    )


def bias_of(draft: Draft, layer: Layer) -> Array | str:
    """A layer's bias as the layer adds it, float64, one for each output; or why it isn't known."""
    if not layer.bias:
        return np.zeros(layer.outputs)
    values = constant(draft, layer.bias)
    if values is None:
        return "its bias is no constant"
    if values.size not in (1, layer.outputs) or (values.ndim and values.shape[-1] != values.size):
        return f"its bias has the shape {list(values.shape)}"
    if values.ndim > 2:
        return f"its bias has the shape {list(values.shape)}"
    factor = real(layer.node, "beta", 1.0) if layer.operator == GEMM else 1.0
    return np.broadcast_to(values.astype(np.float64).reshape(-1) * factor, (layer.outputs,))


def size_of(draft: Draft, layer: Layer, parameters: int | None = None) -> Size:
    """A layer's parameters, and its multiply-adds where the sizes of its output (ConvTranspose: input) are known."""
    name = layer.node.input[0] if layer.operator == CONV_TRANSPOSE else layer.node.output[0]
    values = values_of(draft, name)
    each = math.prod(layer.weight.shape) // (layer.weight.shape[0] if layer.convolves else layer.outputs)
    count = layer.parameters() if parameters is None else parameters
    return Size(count, None if values is None else values * each)


def values_of(draft: Draft, name: str) -> int | None:
    """Number of values of a name with a batch of 1; None where it isn't known."""
    shape = draft.shapes.get(name)
    if shape is None:
        return None
    sizes = [1 if axis == 0 and size is None else size for axis, size in enumerate(shape)]
    return None if None in sizes else math.prod(size for size in sizes if size is not None)
