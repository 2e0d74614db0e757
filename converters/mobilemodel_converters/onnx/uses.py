"""Which initializers may leave the graph: those whose every use is a data input (spec/graph.md §2).

ONNX Runtime reads some inputs while it loads a graph (shapes, scales of Resize): these have to stay. The tables here
are the specification's.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from mobilemodel.graphs import all_graphs, domain, subgraphs

if TYPE_CHECKING:
    import onnx

ALL = frozenset(range(64))
_FIRST = frozenset((0,))
_PAIR = frozenset((0, 1))
_TRIPLE = frozenset((0, 1, 2))

DATA_INPUTS: dict[tuple[str, str], frozenset[int]] = {
    ("", "Conv"): _TRIPLE,
    ("", "ConvTranspose"): _TRIPLE,
    ("", "DeformConv"): frozenset((0, 1, 2, 3, 4)),
    ("", "Gemm"): _TRIPLE,
    ("", "MatMul"): _PAIR,
    ("", "Einsum"): ALL,
    ("", "Add"): _PAIR,
    ("", "Sub"): _PAIR,
    ("", "Mul"): _PAIR,
    ("", "Div"): _PAIR,
    ("", "Sum"): ALL,
    ("", "PRelu"): _PAIR,
    ("", "BatchNormalization"): frozenset(range(5)),
    ("", "InstanceNormalization"): _TRIPLE,
    ("", "LayerNormalization"): _TRIPLE,
    ("", "GroupNormalization"): _TRIPLE,
    ("", "RMSNormalization"): _PAIR,
    ("", "Gather"): _FIRST,
    ("", "RNN"): frozenset(range(8)),
    ("", "LSTM"): frozenset(range(8)),
    ("", "GRU"): frozenset(range(8)),
    ("", "QLinearConv"): frozenset(range(9)),
    ("", "QLinearMatMul"): frozenset(range(8)),
    ("", "ConvInteger"): frozenset(range(4)),
    ("", "MatMulInteger"): frozenset(range(4)),
    ("", "QuantizeLinear"): _TRIPLE,
    ("", "DequantizeLinear"): _TRIPLE,
    ("com.microsoft", "MatMulNBits"): frozenset(range(4)),
    ("com.microsoft", "FusedConv"): frozenset(range(4)),
    ("com.microsoft", "FusedMatMul"): _PAIR,
    ("com.microsoft", "FusedGemm"): _TRIPLE,
    ("com.microsoft", "Attention"): frozenset((1, 2)),
    ("com.microsoft", "EmbedLayerNormalization"): frozenset(range(2, 7)),
    ("com.microsoft", "SkipLayerNormalization"): frozenset(range(5)),
    ("com.microsoft", "DynamicQuantizeMatMul"): frozenset(range(5)),
    ("com.microsoft", "MatMulIntegerToFloat"): frozenset(range(7)),
}

# The value goes through: the uses of the output count as uses of the input.
PASS_THROUGH: dict[str, frozenset[int]] = {
    "Identity": _FIRST,
    "Cast": _FIRST,
    "Transpose": _FIRST,
    "Reshape": _FIRST,
    "Squeeze": _FIRST,
    "Unsqueeze": _FIRST,
    "Flatten": _FIRST,
}


FunctionKey = tuple[str, str, str]
"""domain, name and overload of a model's function"""
_MOST_STEPS = 10_000
"""inputs that a tensor is followed to: functions that call each other can make them grow without bound"""


@dataclass(frozen=True)
class Use:
    """An input of a node that a tensor reaches, and the nodes on the way there."""

    node: onnx.NodeProto
    position: int
    order: int
    """place of the node in the model, for sorting"""
    chain: tuple[onnx.NodeProto, ...] = ()
    in_function: bool = False


@dataclass
class UseIndex:
    """All inputs of all nodes by the name that they take, over a graph and the graphs within it."""

    by_name: dict[str, list[Use]] = field(default_factory=lambda: defaultdict(list))
    graph_outputs: set[str] = field(default_factory=set)
    functions: dict[FunctionKey, onnx.FunctionProto] = field(default_factory=dict)
    bodies: dict[FunctionKey, UseIndex] = field(default_factory=dict)

    def body(self, key: FunctionKey) -> UseIndex:
        """The uses within a function, indexed when first asked for."""
        if key not in self.bodies:
            function = self.functions[key]
            index = UseIndex(functions=self.functions, bodies=self.bodies)
            index.graph_outputs = set(function.output)
            index.add_nodes(list(function.node), 0)
            self.bodies[key] = index
        return self.bodies[key]

    def add_nodes(self, nodes: list[onnx.NodeProto], order: int) -> int:
        """Add the inputs of nodes and of the graphs within them; return the next place."""
        for node in nodes:
            for position, name in enumerate(node.input):
                if name:
                    self.by_name[name].append(Use(node, position, order))
            order += 1
            for inner in subgraphs(node):
                self.graph_outputs.update(value.name for value in inner.output)
                order = self.add_nodes(list(inner.node), order)
        return order


def index_uses(model: onnx.ModelProto) -> UseIndex:
    """Index the inputs of a model's main graph and its subgraphs."""
    index = UseIndex(functions={(domain(f.domain), f.name, f.overload): f for f in model.functions})
    index.graph_outputs.update(value.name for graph in all_graphs(model.graph) for value in graph.output)
    index.add_nodes(list(model.graph.node), 0)
    return index


def final_uses(index: UseIndex, name: str) -> list[Use] | None:
    """The inputs that a tensor reaches, through nodes that pass it on and into functions.

    None where one of them is an output of a graph, or the ways are too long or too many to follow.
    """
    try:
        return list(_follow(index, name, (), 64, iter(range(_MOST_STEPS))))
    except _LeavesGraph:
        return None


class _LeavesGraph(Exception):  # noqa: N818 - not an error, the answer "no"
    pass


def _follow(
    index: UseIndex, name: str, chain: tuple[onnx.NodeProto, ...], steps: int, budget: Iterator[int]
) -> Iterator[Use]:
    if name in index.graph_outputs or steps == 0:
        raise _LeavesGraph
    for use in index.by_name.get(name, ()):
        if next(budget, None) is None:
            raise _LeavesGraph
        key = (domain(use.node.domain), use.node.op_type, use.node.overload)
        if key in index.functions:
            function = index.functions[key]
            if use.position >= len(function.input):
                raise _LeavesGraph
            inner = _follow(index.body(key), function.input[use.position], chain, steps - 1, budget)
            yield from (Use(u.node, u.position, use.order, u.chain, in_function=True) for u in inner)
        elif key[0] == "" and use.node.output and use.position in PASS_THROUGH.get(key[1], ()):
            yield from _follow(index, use.node.output[0], (*chain, use.node), steps - 1, budget)
        else:
            yield Use(use.node, use.position, use.order, chain)


def is_data_input(use: Use) -> bool:
    """Whether a use is in the table of data inputs."""
    return use.position in DATA_INPUTS.get((domain(use.node.domain), use.node.op_type), ())


def may_leave(uses: list[Use] | None) -> str | None:
    """Why a tensor with these uses has to stay in the graph; None where it may leave."""
    if uses is None:
        return "it is an output of a graph, or its uses cannot be followed"
    if not uses:
        return "no node uses it"
    for use in uses:
        if not is_data_input(use):
            return f"input {use.position} of {use.node.op_type} is no data input"
    return None
