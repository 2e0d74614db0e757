"""How many multiply-adds one run of a graph takes, node by node; what cannot be known is said, never guessed.

A weight's value is not looked at: its dims are enough. Counted are the operators that multiply by weights, or two
values as matrices, and BatchNormalization (one multiply-add a value); bias additions, activations and pools are not.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from mobilemodel.errors import MalformedContentError, UsageError
from mobilemodel.graphs import integer, is_standard, subgraphs, text, title

if TYPE_CHECKING:
    import onnx

Shape = tuple[int, ...]
_LARGEST = 2**31 - 1


class _Unknown(Exception):  # noqa: N818 - not an error: what is missing
    pass


@dataclass(frozen=True)
class NodeCount:
    """Multiply-adds of one node."""

    name: str
    operator: str
    multiply_adds: int | None
    """None: not known"""
    reason: str = ""
    """why they are not known"""


@dataclass(frozen=True)
class MultiplyAdds:
    """Multiply-adds of a graph for inputs of the given sizes."""

    nodes: tuple[NodeCount, ...]
    """the nodes that are counted, in the order of the graph"""
    others: tuple[tuple[str, int], ...]
    """operators that are not counted, and how many nodes there are of each"""

    @property
    def total(self) -> int:
        """Sum over the nodes that are known: a lower bound where ``unknown`` has any."""
        return sum(node.multiply_adds or 0 for node in self.nodes)

    @property
    def unknown(self) -> tuple[NodeCount, ...]:
        """The nodes that could not be counted."""
        return tuple(node for node in self.nodes if node.multiply_adds is None)


def count_multiply_adds(graph: bytes, sizes: Mapping[str, Sequence[int]] | None = None) -> MultiplyAdds:
    """Count the multiply-adds of a serialised onnx.ModelProto, such as a bundle's graph with its weights outside.

    ``sizes`` gives inputs' shapes by name. Of other inputs a first axis of any size counts as 1 and further free axes
    stay unknown, unless their symbol is known by then. Nodes within If, Loop and the like, and functions of the model,
    are unknown: nothing says how often they run.

    Raises MalformedContentError for bytes that are no model, UsageError for sizes that do not fit the inputs.
    """
    import onnx
    from google.protobuf.message import DecodeError

    try:
        model = onnx.ModelProto.FromString(graph)
    except DecodeError:
        raise MalformedContentError("the graph is no ONNX model") from None
    initializers = {proto.name: tuple(proto.dims) for proto in model.graph.initializer}
    _fix_inputs(model, initializers, sizes or {})
    shapes = _infer(model) | initializers
    functions = {(function.domain, function.name) for function in model.functions}
    nodes: list[NodeCount] = []
    others: Counter[str] = Counter()
    for node in model.graph.node:
        if not isinstance(node.op_type, str) or not isinstance(node.name, str):
            raise MalformedContentError("the name of a node or its operator is not UTF-8")
        if (is_standard(node) or node.domain == "com.microsoft") and node.op_type in _COUNTERS:
            nodes.append(_count(node, shapes))
        elif _may_hide_more(node) or (node.domain, node.op_type) in functions:
            nodes.append(NodeCount(title(node), node.op_type, None, "nothing says how often its inner graph runs"))
        else:
            others[node.op_type] += 1
    return MultiplyAdds(tuple(nodes), tuple(sorted(others.items())))


def _may_hide_more(node: onnx.NodeProto) -> bool:
    return any(subgraphs(node))


def _fix_inputs(model: onnx.ModelProto, initializers: Mapping[str, Shape], sizes: Mapping[str, Sequence[int]]) -> None:
    """Write the given sizes into the inputs, and a batch of 1 where the first axis may be of any size."""
    free = {value.name: value for value in model.graph.input if value.name not in initializers}
    for name in sizes:
        if name not in free:
            raise UsageError("the sizes of an input", expected=f"one of {sorted(map(str, free))}", found=name)
    known: dict[str, int] = {}
    for name, value in free.items():
        dims = value.type.tensor_type.shape.dim
        given = sizes.get(name)
        if given is not None and (len(given) != len(dims) or not all(0 <= size <= _LARGEST for size in given)):
            raise UsageError(f"the sizes of input '{name}'", expected=f"{len(dims)} axes", found=tuple(given))
        for axis, dim in enumerate(dims):
            size = given[axis] if given is not None else 1 if axis == 0 else None
            if given is not None and dim.HasField("dim_value") and dim.dim_value != size:
                raise UsageError(f"axis {axis} of input '{name}'", expected=dim.dim_value, found=size)
            if size is not None and not dim.HasField("dim_value"):
                known.setdefault(dim.dim_param, size)
                dim.dim_value = size
    for value in free.values():
        for dim in value.type.tensor_type.shape.dim:
            if dim.dim_param and dim.dim_param in known:
                dim.dim_value = known[dim.dim_param]
    # What the file says of other values was true for its own sizes.
    model.graph.ClearField("value_info")
    for output in model.graph.output:
        if output.type.HasField("tensor_type"):
            output.type.tensor_type.ClearField("shape")


def _infer(model: onnx.ModelProto) -> dict[str, Shape]:
    """The shapes that are known in full, by name."""
    import onnx

    try:
        inferred = onnx.shape_inference.infer_shapes(model, data_prop=True)
    except Exception:  # onnx has no error of its own for models that it cannot infer; they may run all the same
        inferred = model
    found: dict[str, Shape] = {}
    for value in (*inferred.graph.input, *inferred.graph.value_info, *inferred.graph.output):
        kind = value.type.tensor_type
        if kind.HasField("shape") and all(dim.HasField("dim_value") and dim.dim_value >= 0 for dim in kind.shape.dim):
            found[value.name] = tuple(dim.dim_value for dim in kind.shape.dim)
    return found


def _count(node: onnx.NodeProto, shapes: Mapping[str, Shape]) -> NodeCount:
    operands = _Operands(node, shapes)
    try:
        return NodeCount(title(node), node.op_type, _COUNTERS[node.op_type](operands))
    except _Unknown as unknown:
        return NodeCount(title(node), node.op_type, None, str(unknown))


@dataclass(frozen=True)
class _Operands:
    """A node and the shapes of its values."""

    node: onnx.NodeProto
    shapes: Mapping[str, Shape]

    def input(self, position: int, rank: int = 0) -> Shape:
        """The shape of an input of at least ``rank`` axes; raises _Unknown."""
        return self._shape(self.node.input, position, f"input {position}", rank)

    def output(self) -> Shape:
        return self._shape(self.node.output, 0, "the output", 0)

    def integer(self, name: str, default: int = 0) -> int:
        return integer(self.node, name, default)

    def _shape(self, names: Sequence[str], position: int, what: str, rank: int) -> Shape:
        name = names[position] if position < len(names) else ""
        shape = self.shapes.get(name)
        if shape is None:
            raise _Unknown(f"the sizes of {what} are not known")
        if len(shape) < rank:
            raise _Unknown(f"{what} has {len(shape)} axes, not {rank}")
        return shape


def _convolution(weight: int) -> Callable[[_Operands], int]:
    """Each value of the output takes one row of the weight."""
    return lambda operands: math.prod(operands.output()) * math.prod(operands.input(weight, 1)[1:])


def _transposed_convolution(operands: _Operands) -> int:
    """Each value of the input is multiplied by one row of the weight."""
    return math.prod(operands.input(0)) * math.prod(operands.input(1, 1)[1:])


def _matrices(first: int = 0) -> Callable[[_Operands], int]:
    """Each value of the output is a sum over the shared axis, the last of input ``first`` unless it is transposed."""

    def count(operands: _Operands) -> int:
        left = operands.input(first, 1)
        return math.prod(operands.output()) * left[-2 if operands.integer("transA") and len(left) > 1 else -1]

    return count


def _einsum(operands: _Operands) -> int:
    """Two operands: one multiply-add for each combination of all indices; one operand multiplies nothing."""
    equation = text(operands.node, "equation", b"").decode("utf-8", "replace")
    terms = equation.replace(" ", "").split("->")[0].split(",")
    if len(terms) == 1:
        return 0
    if len(terms) > 2 or "." in equation or len(terms) != len(operands.node.input):
        raise _Unknown("an equation of more than two operands, or with an ellipsis")
    sizes: dict[str, int] = {}
    for position, term in enumerate(terms):
        shape = operands.input(position, len(term))
        if len(shape) != len(term):
            raise _Unknown("the equation does not fit its operands")
        for label, size in zip(term, shape, strict=True):
            sizes[label] = max(size, sizes.get(label, 0))
    return math.prod(sizes.values())


def _recurrent(operands: _Operands) -> int:
    """Each step takes every weight of W and R once: layout 0 and 1 have their batch and steps as the first two axes."""
    steps = math.prod(operands.input(0, 2)[:2])
    return steps * (math.prod(operands.input(1)[1:]) + math.prod(operands.input(2)[1:])) * operands.input(1, 1)[0]


def _normalization(operands: _Operands) -> int:
    return math.prod(operands.input(0))


def _attention(_: _Operands) -> int:
    raise _Unknown("a fused attention")


_COUNTERS: dict[str, Callable[[_Operands], int]] = {
    "Conv": _convolution(1), "FusedConv": _convolution(1), "ConvInteger": _convolution(1), "DeformConv":
    _convolution(1), "QLinearConv": _convolution(3), "ConvTranspose": _transposed_convolution, "Gemm": _matrices(),
    "MatMul": _matrices(), "MatMulInteger": _matrices(), "QLinearMatMul": _matrices(), "FusedMatMul": _matrices(),
    "FusedGemm": _matrices(), "DynamicQuantizeMatMul": _matrices(), "MatMulIntegerToFloat": _matrices(),
    "MatMulNBits": _matrices(), "Einsum": _einsum, "RNN": _recurrent, "LSTM": _recurrent, "GRU": _recurrent,
    "BatchNormalization": _normalization, "Attention": _attention, "MultiHeadAttention": _attention,
    "GroupQueryAttention": _attention,
}  # fmt: skip
