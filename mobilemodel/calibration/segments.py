"""Parts of a network that run on their own: from values that are known to values that are wanted."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from mobilemodel.errors import CheckFailedError, UnsupportedSourceError
from mobilemodel.graphs import reads
from mobilemodel.runtime.session import run, session_of

if TYPE_CHECKING:
    import onnx
    from onnxruntime import InferenceSession

Array = npt.NDArray[Any]


@dataclass(frozen=True)
class Graph:
    """The nodes of an ONNX graph in their order, and what is known beside them."""

    model: onnx.ModelProto
    """weights are initializers whose values may lie elsewhere"""
    makers: Mapping[str, int]
    """place of the node that makes each value"""
    initializers: Mapping[str, onnx.TensorProto]
    inputs: tuple[str, ...]
    """of the network: those that are no initializers"""
    types: Mapping[str, int]
    """element type of each value as far as it is known"""


def read_graph(model: onnx.ModelProto) -> Graph:
    """Index a model's main graph."""
    import onnx

    graph = model.graph
    initializers = {item.name: item for item in graph.initializer}
    makers = {name: place for place, node in enumerate(graph.node) for name in node.output if name}
    known = [*graph.input, *graph.output, *graph.value_info]
    types = {value.name: value.type.tensor_type.elem_type for value in known}
    types.update({item.name: item.data_type for item in graph.initializer})
    for name in makers:
        types.setdefault(name, onnx.TensorProto.FLOAT)
    inputs = tuple(value.name for value in graph.input if value.name not in initializers)
    return Graph(model, makers, initializers, inputs, types)


def needed_nodes(graph: Graph, known: Iterable[str], wanted: Iterable[str]) -> list[int]:
    """Places of the nodes that make ``wanted`` from ``known``, ascending.

    Raises UnsupportedSourceError for a value that nothing makes.
    """
    have = set(known) | set(graph.initializers)
    waiting, places = [name for name in wanted if name not in have], set[int]()
    while waiting:
        name = waiting.pop()
        if name in have:
            continue
        have.add(name)
        if name not in graph.makers:
            raise UnsupportedSourceError("a value of the network cannot be computed from its inputs", tensor=name)
        place = graph.makers[name]
        if place not in places:
            places.add(place)
            waiting += reads(graph.model.graph.node[place])
    return sorted(places)


@dataclass(frozen=True)
class Segment:
    """A part of a network, ready to run."""

    session: InferenceSession | None
    """None where all that is wanted is known"""
    known: tuple[str, ...]
    wanted: tuple[str, ...]
    passed: tuple[str, ...]
    """values that are wanted and known: handed through"""

    def run(self, values: Mapping[str, Array]) -> dict[str, Array]:
        """Compute the wanted values from a batch of the known ones."""
        handed = {name: values[name] for name in self.passed}
        if self.session is None:
            return handed
        return handed | run(self.session, {name: values[name] for name in self.known})


def make_segment(
    graph: Graph, weights: Mapping[str, Array], known: Sequence[str], wanted: Sequence[str], *, threads: int = 1
) -> Segment:
    """Cut out the nodes that make ``wanted`` from ``known`` and start them with ``weights``.

    ``weights`` holds the value of every initializer that lies outside of the graph; others are the graph's own.
    """
    import onnx

    passed = tuple(name for name in wanted if name in known)
    making = tuple(name for name in wanted if name not in known)
    if not making:
        return Segment(None, (), (), passed)
    places = needed_nodes(graph, known, making)
    nodes = [graph.model.graph.node[place] for place in places]
    taken = set[str]().union(*(reads(node) for node in nodes)) | set(making)
    part = onnx.ModelProto(ir_version=graph.model.ir_version)
    part.opset_import.extend(graph.model.opset_import)
    part.functions.extend(graph.model.functions)
    part.graph.name = graph.model.graph.name or "segment"
    part.graph.node.extend(nodes)
    used = tuple(name for name in known if name in taken)
    for name in used:
        part.graph.input.append(onnx.helper.make_tensor_value_info(name, graph.types[name], None))
    part.graph.output.extend(onnx.ValueInfoProto(name=name) for name in making)
    held = [item for name, item in graph.initializers.items() if name in taken]
    part.graph.initializer.extend(held)
    values = {item.name: weights[item.name] for item in held if item.data_location == item.EXTERNAL}
    return Segment(session_of(part.SerializeToString(), values, threads=threads), used, making, passed)


def check_finite(values: Array, name: str) -> None:
    """Raise CheckFailedError where a value of the network is not finite: nothing can be learned from it."""
    if not np.isfinite(values).all():
        raise CheckFailedError(
            "the network's values on the calibration data are not finite", layer=name,
            advice="Check the preprocessing of the data; a float model that overflows cannot be calibrated.",
        )  # fmt: skip
