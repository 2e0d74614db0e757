"""The graphs of a model: walking them, and checking that every name is defined once and before its use."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, MutableSequence
from typing import TYPE_CHECKING

from mobilemodel.errors import MalformedSourceError, escape
from mobilemodel.graphs import all_graphs, reads, subgraphs

if TYPE_CHECKING:
    import onnx
    from google.protobuf.message import Message


def all_parts(model: onnx.ModelProto) -> tuple[list[onnx.GraphProto], list[onnx.NodeProto]]:
    """Every graph and every node of a model: main graph, subgraphs, functions and training graphs."""
    graphs = list(all_graphs(model.graph))
    for training in model.training_info:
        graphs += [*all_graphs(training.initialization), *all_graphs(training.algorithm)]
    nodes: list[onnx.NodeProto] = []
    for function in model.functions:
        nodes += function.node
        graphs += [graph for node in function.node for inner in subgraphs(node) for graph in all_graphs(inner)]
    nodes += [node for graph in graphs for node in graph.node]
    return graphs, nodes


def all_tensors(model: onnx.ModelProto) -> Iterator[onnx.TensorProto]:
    """Every TensorProto of a model: initializers and attributes, also the two of each sparse tensor."""
    graphs, nodes = all_parts(model)
    sparse: list[onnx.SparseTensorProto] = []
    for graph in graphs:
        yield from graph.initializer
        sparse += graph.sparse_initializer
    for node in nodes:
        for attribute in node.attribute:
            if attribute.HasField("t"):
                yield attribute.t
            yield from attribute.tensors
            if attribute.HasField("sparse_tensor"):
                sparse.append(attribute.sparse_tensor)
            sparse += attribute.sparse_tensors
    for tensor in sparse:
        yield from (tensor.values, tensor.indices)


def definitions(graph: onnx.GraphProto) -> Counter[str]:
    """How often each name is defined in a graph and those within it; an initializer that is an input counts once."""
    counts: Counter[str] = Counter()
    for inner in all_graphs(graph):
        names = [tensor.name for tensor in inner.initializer]
        names += [sparse.values.name for sparse in inner.sparse_initializer]
        own = set(names)
        names += [value.name for value in inner.input if value.name not in own]
        names += [output for node in inner.node for output in node.output if output]
        counts.update(names)
    return counts


def check_model(model: onnx.ModelProto) -> None:
    """Check that the model has a graph whose names are defined exactly once in their scope, without cycles.

    Operators and types are not judged: any operator of any domain may be right for its runtime.

    Raises MalformedSourceError naming the node and the value.
    """
    _check_text(model)
    if not model.HasField("graph"):
        raise MalformedSourceError("the model has no graph")
    if not model.graph.node and not model.graph.output:
        raise MalformedSourceError("the graph is empty", advice="Is this an ONNX model?")
    if not model.opset_import and model.ir_version >= 3:
        raise MalformedSourceError("the model imports no operator set", advice="Is the file complete?")
    _check_graph(model.graph, frozenset())
    for function in model.functions:
        _check_order(list(function.node), set(function.input), set(function.output), frozenset())


def _check_text(message: Message) -> None:
    """Names must be UTF-8. In ONNX's schema protobuf does not ask for it: it hands out bytes, or fails, where not."""
    for field, value in message.ListFields():
        if field.type == field.TYPE_MESSAGE:
            for inner in value if isinstance(value, MutableSequence) else (value,):
                _check_text(inner)
        elif field.type == field.TYPE_STRING:
            for text in value if isinstance(value, MutableSequence) else (value,):
                if not isinstance(text, str):
                    raise MalformedSourceError(f"{field.full_name} is not UTF-8", found=text[:40])


def _check_graph(graph: onnx.GraphProto, outer: frozenset[str]) -> None:
    initializers = [tensor.name for tensor in graph.initializer]
    initializers += [sparse.values.name for sparse in graph.sparse_initializer]
    twice = [name for name, count in Counter(initializers).items() if count > 1]
    if twice:
        raise MalformedSourceError("two initializers have the same name", found=escape(twice[0]))
    for what, values in (("inputs", graph.input), ("outputs", graph.output)):
        names = Counter(value.name for value in values)
        twice = [name for name, count in names.items() if count > 1]
        if twice:
            raise MalformedSourceError(f"two {what} of a graph have the same name", found=escape(twice[0]))
    known = {value.name for value in graph.input} | set(initializers)
    _check_order(list(graph.node), known, {value.name for value in graph.output}, outer)


def _check_order(nodes: list[onnx.NodeProto], known: set[str], outputs: set[str], outer: frozenset[str]) -> None:
    produced: dict[str, int] = {}
    for index, node in enumerate(nodes):
        for output in node.output:
            if output and (output in produced or output in known):
                raise MalformedSourceError(f"two definitions of a value, one by {_title(node)}", found=escape(output))
            if output:
                produced[output] = index
    visible = known | produced.keys() | outer
    wanted = [reads(node) for node in nodes]
    for node, names in zip(nodes, wanted, strict=True):
        for name in sorted(names - visible):
            raise MalformedSourceError(f"{_title(node)} uses a value that nothing defines", found=escape(name))
    for name in sorted(outputs - visible):
        raise MalformedSourceError("an output of the graph is defined by nothing", found=escape(name))
    _check_acyclic(nodes, wanted, produced)
    inside = outer | frozenset(known) | frozenset(produced)
    for node in nodes:
        for inner in subgraphs(node):
            _check_graph(inner, inside)


def _check_acyclic(nodes: list[onnx.NodeProto], wanted: list[set[str]], produced: dict[str, int]) -> None:
    waiting = [{produced[name] for name in names if name in produced} for names in wanted]
    followers: list[list[int]] = [[] for _ in nodes]
    for index, needs in enumerate(waiting):
        for need in needs:
            followers[need].append(index)
    ready = [index for index, needs in enumerate(waiting) if not needs]
    done = 0
    while ready:
        index = ready.pop()
        done += 1
        for follower in followers[index]:
            waiting[follower].discard(index)
            if not waiting[follower]:
                ready.append(follower)
    if done < len(nodes):
        stuck = next(node for node, needs in zip(nodes, waiting, strict=True) if needs)
        raise MalformedSourceError("the graph has a cycle", found=_title(stuck))


def _title(node: onnx.NodeProto) -> str:
    return f"node '{escape(node.name or (node.output[0] if node.output else '?'))}' ({escape(node.op_type)})"
