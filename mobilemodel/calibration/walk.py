"""The float and the quantized network side by side, from layer to layer, without holding more than a budget."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy.typing as npt

from mobilemodel.calibration.layers import Layer
from mobilemodel.calibration.samples import Samples
from mobilemodel.calibration.segments import Graph, Segment, check_finite, make_segment, needed_nodes
from mobilemodel.graphs import reads
from mobilemodel.limits import MIB

Array = npt.NDArray[Any]
HELD_BYTES = 512 * MIB
"""of values that are kept between layers, both networks together"""
INPUT_BYTES = 192 * MIB
"""of prepared samples that are kept"""


@dataclass
class _Held:
    """Values of both networks at a cut through the graph, batch by batch."""

    samples: int = 0
    names: tuple[str, ...] = ()
    exact: list[dict[str, Array]] = field(default_factory=list)
    changed: list[dict[str, Array]] = field(default_factory=list)
    size: int = 0


class Walk:
    """Visits layers in the order of the graph; ``changed`` are the weights of the quantized network, to be set by the
    visitor."""

    def __init__(self, graph: Graph, weights: Mapping[str, Array], *, threads: int = 1) -> None:
        self._graph = graph
        self.exact = weights
        self.changed = dict(weights)
        self._threads = threads
        self._held = _Held()
        self._prepared: dict[int, list[Array]] = {}
        self._outputs = tuple(value.name for value in graph.model.graph.output)

    def visit(self, layer: Layer, samples: Samples) -> Iterator[tuple[Array, Array]]:
        """For each batch the layer's input in the quantized network and its response in the float network."""
        live = self._live(layer.place)
        start = self._held if self._held.samples == len(samples) else _Held()
        known = start.names or self._graph.inputs
        graph = _typed(self._graph, start)
        exact = self._segment(graph, known, (layer.response, *live), self.exact)
        changed = self._segment(graph, known, (layer.source, *live), self.changed)
        keeping, held = True, _Held(len(samples), live)
        for first, second in self._starts(start, samples):
            wanted, found = exact.run(first), changed.run(second)
            check_finite(wanted[layer.response], layer.name)
            check_finite(found[layer.source], layer.name)
            yield found[layer.source], wanted[layer.response]
            if keeping:
                held.exact.append({name: wanted[name] for name in live})
                held.changed.append({name: found[name] for name in live})
                held.size += sum(value.nbytes for name in live for value in (wanted[name], found[name]))
                keeping = held.size + start.size <= HELD_BYTES
            if not keeping:
                held = _Held()
        if keeping:
            self._held = held

    def _segment(
        self, graph: Graph, known: tuple[str, ...], wanted: tuple[str, ...], weights: Mapping[str, Array]
    ) -> Segment:
        names = tuple(dict.fromkeys(wanted))
        return make_segment(graph, weights, known, names, threads=self._threads)

    def _starts(self, start: _Held, samples: Samples) -> Iterator[tuple[dict[str, Array], dict[str, Array]]]:
        if start.names:
            yield from zip(start.exact, start.changed, strict=True)
            return
        for batch in self._inputs(samples):
            yield {samples.input: batch}, {samples.input: batch}

    def _inputs(self, samples: Samples) -> Iterator[Array]:
        """The prepared samples; some are kept, since reading and resizing pictures takes longer than a layer."""
        if len(samples) in self._prepared:
            yield from self._prepared[len(samples)]
            return
        kept: list[Array] = []
        size = 0
        for batch in samples.batches():
            size += batch.nbytes
            if size <= INPUT_BYTES:
                kept.append(batch)
            yield batch
        self._prepared = {len(samples): kept} if size <= INPUT_BYTES else {}

    def _live(self, place: int) -> tuple[str, ...]:
        """Values that are known before the node at ``place`` and that it or a later one reads, as far as an output
        needs it."""
        nodes = self._graph.model.graph.node
        needed = needed_nodes(self._graph, self._graph.inputs, self._outputs)
        made = {name for at in range(place) for name in nodes[at].output} | set(self._graph.inputs)
        read = set[str]().union(*(reads(nodes[at]) for at in needed if at >= place), self._outputs)
        return tuple(sorted(made & read))


def _typed(graph: Graph, held: _Held) -> Graph:
    """The graph with the types that the held values were found to have; shapes, for example, are integers."""
    import onnx

    found = {name: onnx.helper.np_dtype_to_tensor_dtype(held.exact[0][name].dtype) for name in held.names}
    return replace(graph, types={**graph.types, **found})
