"""Names in a graph and in the graphs within its nodes (If, Loop, Scan)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING

from mobilemodel.graphs import subgraphs

if TYPE_CHECKING:
    import onnx


def all_names(graph: onnx.GraphProto) -> Iterator[str]:
    """Every name of a value in a graph and the graphs within it."""
    yield from (value.name for value in (*graph.input, *graph.output))
    yield from (proto.name for proto in graph.initializer)
    yield from (sparse.values.name for sparse in graph.sparse_initializer)
    for node in graph.node:
        yield from (*node.input, *node.output)
        for inner in subgraphs(node):
            yield from all_names(inner)


def defined_inside(node: onnx.NodeProto) -> set[str]:
    """Names that the graphs within a node define or have as outputs."""
    found: set[str] = set()
    for graph in subgraphs(node):
        found.update(value.name for value in (*graph.input, *graph.output))
        found.update(proto.name for proto in graph.initializer)
        found.update(sparse.values.name for sparse in graph.sparse_initializer)
        for inner in graph.node:
            found.update(inner.output)
            found |= defined_inside(inner)
    return found


def rename_inside(node: onnx.NodeProto, names: Mapping[str, str]) -> None:
    """Let nodes of the graphs within a node take other values from outside; none of the names is defined there."""
    for graph in subgraphs(node):
        for inner in graph.node:
            for position, name in enumerate(inner.input):
                if name in names:
                    inner.input[position] = names[name]
            rename_inside(inner, names)
