"""The layers of a network that data can speak about: convolutions and products with a constant weight."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from mobilemodel.calibration.segments import Graph, needed_nodes
from mobilemodel.dtypes import DType
from mobilemodel.encodings import matrix
from mobilemodel.graphs import is_standard, reads
from mobilemodel.model import WEIGHT_ROLES, MatrixOrder, Model, SourceTensor

if TYPE_CHECKING:
    import onnx

Array = npt.NDArray[Any]
_OPERATORS = frozenset(("Conv", "Gemm", "MatMul"))


@dataclass(frozen=True)
class Window:
    """How a convolution looks at its input: spatial sizes, two or one of each, and its groups."""

    kernel: tuple[int, ...]
    strides: tuple[int, ...]
    dilations: tuple[int, ...]
    pads: tuple[int, ...]
    """before all spatial axes, then after them"""
    groups: int


@dataclass(frozen=True)
class Layer:
    """One weight with the node that uses it; its matrix has a row for each output channel.

    ``source`` and ``response`` are names of values: what the node reads and what it makes, with its bias where ``bias``
    names one.
    """

    weight: SourceTensor
    place: int
    """of its node in the graph"""
    source: str
    response: str
    bias: str | None
    channel_axis: int
    """of ``response``; -1: the last one"""
    window: Window | None
    """of a convolution; None for products"""

    @property
    def name(self) -> str:
        return self.weight.name

    @property
    def groups(self) -> int:
        return self.window.groups if self.window is not None else 1

    def to_matrix(self, weights: Array) -> Array:
        """The weights as rows x columns."""
        order = self.weight.order
        return matrix.to_matrix(weights, order.view, order.perm, order.row_axes)

    def from_matrix(self, rows: Array) -> Array:
        """The inverse of ``to_matrix``, in the tensor's dims."""
        order = self.weight.order
        return matrix.from_matrix(rows, order.view, order.perm, self.weight.dims)


def find_layers(model: Model, graph: Graph) -> tuple[list[Layer], dict[str, str]]:
    """The layers in the graph's order, and for every other weight why data cannot speak about it."""
    uses: dict[str, list[int]] = {}
    for place, node in enumerate(graph.model.graph.node):
        for name in reads(node):
            uses.setdefault(name, []).append(place)
    needed = frozenset(needed_nodes(graph, graph.inputs, [value.name for value in graph.model.graph.output]))
    layers, refused = [], {}
    for tensor in model.tensors:
        if tensor.role not in WEIGHT_ROLES:
            continue
        found = _layer(tensor, graph, uses, needed)
        if isinstance(found, Layer):
            layers.append(found)
        else:
            refused[tensor.name] = found
    return sorted(layers, key=lambda layer: (layer.place, layer.name)), refused


def _layer(
    tensor: SourceTensor, graph: Graph, uses: Mapping[str, list[int]], needed: frozenset[int]
) -> Layer | str:
    """The layer of a weight, or why it is none."""
    if tensor.quantized is not None:
        return "it is quantized in the source"
    if tensor.dtype != DType.FLOAT:
        return "only float32 weights are calibrated"
    if tensor.hoisted or len(uses.get(tensor.name, [])) != 1:
        return "it is not the weight of exactly one layer of the main graph"
    place = uses[tensor.name][0]
    node = graph.model.graph.node[place]
    if not is_standard(node) or node.op_type not in _OPERATORS or node.input[1:2] != [tensor.name]:
        return f"it is not the weight of a {', '.join(sorted(_OPERATORS))}"
    if node.input[0] in graph.initializers or list(node.input).count(tensor.name) != 1:
        return "its layer has no input from the data"
    if place not in needed:
        return "no output of the network needs its layer"
    if len(node.input) > 2 and node.input[2] and node.input[2] not in graph.initializers:
        return "its bias is computed by the network"
    if node.op_type == "Conv":
        return _convolution(tensor, node, place)
    return _product(tensor, graph, node, place, uses)


def _attributes(node: onnx.NodeProto) -> dict[str, Any]:
    import onnx

    return {attribute.name: onnx.helper.get_attribute_value(attribute) for attribute in node.attribute}


def _convolution(tensor: SourceTensor, node: onnx.NodeProto, place: int) -> Layer | str:
    given = _attributes(node)
    rank = len(tensor.dims) - 2
    if given.get("auto_pad", b"NOTSET") not in (b"NOTSET", b"VALID") or not 1 <= rank <= 2:
        return "a convolution with automatic padding, or of more than two spatial axes, is not calibrated"
    if tensor.order != MatrixOrder(perm=(0, *range(2, rank + 2), 1)):
        return "its matrix has an unusual order"
    if min(given.get("pads", (0,))) < 0:
        return "a convolution that crops its input is not calibrated"
    ones = (1,) * rank
    window = Window(
        tensor.dims[2:], tuple(given.get("strides", ones)), tuple(given.get("dilations", ones)),
        tuple(given.get("pads", (0,) * (2 * rank))), int(given.get("group", 1)),
    )  # fmt: skip
    bias = node.input[2] if len(node.input) > 2 and node.input[2] else None
    return Layer(tensor, place, node.input[0], node.output[0], bias, 1, window)


def _product(
    tensor: SourceTensor, graph: Graph, node: onnx.NodeProto, place: int, uses: Mapping[str, list[int]]
) -> Layer | str:
    if len(tensor.dims) != 2:
        return "only products with a matrix are calibrated"
    given = _attributes(node)
    transposed = bool(given.get("transB", 0))
    if any(float(given.get(name, 1.0)) != 1.0 for name in ("alpha", "beta")) or given.get("transA", 0):
        return "a Gemm that scales or transposes its input is not calibrated"
    wanted = MatrixOrder() if transposed else MatrixOrder(perm=(1, 0))
    if (tensor.order.perm or (0, 1)) != (wanted.perm or (0, 1)) or tensor.order.view:
        return "its matrix has an unusual order"
    if node.op_type == "Gemm":
        bias = node.input[2] if len(node.input) > 2 and node.input[2] else None
        return Layer(tensor, place, node.input[0], node.output[0], bias, -1, None)
    response, bias = _added(graph, node.output[0], tensor.dims[1], uses)
    return Layer(tensor, place, node.input[0], response, bias, -1, None)


def _added(graph: Graph, value: str, columns: int, uses: Mapping[str, list[int]]) -> tuple[str, str | None]:
    """The value behind a bias that an Add gives to a product, and the bias; the product itself where there is none."""
    readers = uses.get(value, [])
    if len(readers) == 1:
        node = graph.model.graph.node[readers[0]]
        others = [name for name in node.input if name != value]
        alone = node.op_type == "Add" and len(others) == 1 and others[0] in graph.initializers
        if alone and tuple(graph.initializers[others[0]].dims) == (columns,):
            return node.output[0], others[0]
    return value, None


def own_bias(layer: Layer, uses_of_bias: int, biases: Mapping[str, Array]) -> bool:
    """Whether the layer has a bias that is its own: one float for each output, used nowhere else."""
    bias = biases.get(layer.bias) if layer.bias is not None else None
    return bias is not None and uses_of_bias == 1 and bias.dtype == np.float32 and bias.shape == (layer_rows(layer),)


def layer_columns(layer: Layer) -> int:
    """Inputs of each output channel of a layer."""
    return layer.weight.elements // layer_rows(layer)


def layer_rows(layer: Layer) -> int:
    """Output channels of a layer."""
    dims, perm = layer.weight.dims, layer.weight.order.perm
    return dims[perm[0]] if perm else dims[0]
