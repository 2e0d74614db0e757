"""What the layers behind a layer leave of its error: each is refitted to the float response on what reaches it."""

from __future__ import annotations

from collections.abc import Iterable

from mobilemodel.calibration.layers import Layer, layer_columns
from mobilemodel.calibration.segments import Graph
from mobilemodel.graphs import reads

HALVING_COLUMNS = 1500
"""inputs of a response with which a refit leaves half of the error of these inputs. The error is spread over all
directions, the signal is not: the more inputs, the more of the error a refit can tell from it. Measured on the zoo's
networks: 0.97 is left with 9 inputs, 0.6 to 0.9 with 200 to 600, 0.2 to 0.5 with 2048."""


def remainders(graph: Graph, layers: Iterable[Layer]) -> dict[str, float]:
    """The share of each layer's error that reaches the network's outputs, by the name of its weight.

    ``layers`` are all that are fitted. An error that goes more than one way (around a residual block, say) counts with
    what is left on the way that corrects least.
    """
    found = {layer.place: layer for layer in layers}
    nodes = graph.model.graph.node
    left = {output.name: 1.0 for output in graph.model.graph.output}
    for place in reversed(range(len(nodes))):
        node, layer = nodes[place], found.get(place)
        behind = max((left[name] for name in node.output if name in left), default=0.0)
        for name in reads(node):
            share = behind * _kept(layer) if layer is not None and name == layer.source else behind
            left[name] = max(left.get(name, 0.0), share)
    return {layer.name: left.get(layer.response) or 1.0 for layer in found.values()}


def _kept(layer: Layer) -> float:
    return HALVING_COLUMNS / (HALVING_COLUMNS + layer_columns(layer))
