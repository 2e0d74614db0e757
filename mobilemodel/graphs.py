"""ONNX graphs as they are written: walking them, what a node reads, its attributes.

Nothing here needs the onnx package: the functions read messages that a caller has parsed and checked.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import onnx


def subgraphs(node: onnx.NodeProto) -> Iterator[onnx.GraphProto]:
    """The graphs in a node's attributes: bodies of If, Loop, Scan and the like."""
    for attribute in node.attribute:
        if attribute.HasField("g"):
            yield attribute.g
        yield from attribute.graphs


def all_graphs(graph: onnx.GraphProto) -> Iterator[onnx.GraphProto]:
    """A graph and all graphs within it, in the order of their nodes."""
    yield graph
    for node in graph.node:
        for inner in subgraphs(node):
            yield from all_graphs(inner)


def all_nodes(graph: onnx.GraphProto) -> Iterator[onnx.NodeProto]:
    """All nodes of a graph and of the graphs within it, in order."""
    for node in graph.node:
        yield node
        yield from inner_nodes(node)


def inner_nodes(node: onnx.NodeProto) -> Iterator[onnx.NodeProto]:
    """All nodes of the graphs within a node, in order."""
    for inner in subgraphs(node):
        yield from all_nodes(inner)


def captured(node: onnx.NodeProto) -> set[str]:
    """Names that the graphs within a node take from the graphs around it."""
    return {name for inner in subgraphs(node) for name in _free_names(inner)}


def reads(node: onnx.NodeProto) -> set[str]:
    """Every value that a node needs: its inputs, and what the graphs within it take from outside."""
    return {name for name in node.input if name} | captured(node)


def _free_names(graph: onnx.GraphProto) -> set[str]:
    known = {value.name for value in graph.input} | {tensor.name for tensor in graph.initializer}
    known |= {sparse.values.name for sparse in graph.sparse_initializer}
    known |= {name for node in graph.node for name in node.output}
    wanted = {value.name for value in graph.output}.union(*(reads(node) for node in graph.node))
    return wanted - known - {""}


def domain(name: str) -> str:
    """A domain of operators in its short form: ``ai.onnx`` is the empty one."""
    return "" if name == "ai.onnx" else name


def is_standard(node: onnx.NodeProto) -> bool:
    """Whether the operator is one of ONNX itself."""
    return not domain(node.domain)


def standard_opset(model: onnx.ModelProto) -> int:
    """Version of ONNX's own operators; 0 where the model imports none."""
    return max((int(entry.version) for entry in model.opset_import if not domain(entry.domain)), default=0)


def constant_value(node: onnx.NodeProto) -> onnx.TensorProto | None:
    """The tensor of a Constant node; None for other nodes and other kinds of constants."""
    if node.op_type != "Constant" or not is_standard(node) or len(node.output) != 1:
        return None
    return next((a.t for a in node.attribute if a.name == "value" and a.HasField("t")), None)


def title(node: onnx.NodeProto) -> str:
    """What a node is called: its name, or else its first output."""
    return str(node.name or next((name for name in node.output if name), node.op_type))


def integer(node: onnx.NodeProto, name: str, default: int) -> int:
    """A node's attribute of one integer; ``default`` where it has none."""
    return next((int(a.i) for a in node.attribute if a.name == name), default)


def integers(node: onnx.NodeProto, name: str) -> tuple[int, ...]:
    """A node's attribute of several integers; empty where it has none."""
    return next((tuple(a.ints) for a in node.attribute if a.name == name), ())


def real(node: onnx.NodeProto, name: str, default: float) -> float:
    """A node's attribute of one real number; ``default`` where it has none."""
    return next((float(a.f) for a in node.attribute if a.name == name), default)


def text(node: onnx.NodeProto, name: str, default: bytes) -> bytes:
    """A node's attribute of text, in the bytes of the file; ``default`` where it has none."""
    return next((bytes(a.s) for a in node.attribute if a.name == name), default)
