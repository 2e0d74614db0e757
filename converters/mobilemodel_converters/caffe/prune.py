"""Training's parts taken out of a network: losses, measures, labels, and what feeds nothing else.

A name stands for another blob after each layer that writes it. So every layer's bottoms are traced to who made them,
and nothing is told apart by its name alone. Source: docs/formats/caffe.md §4.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import NamedTuple

from mobilemodel.errors import UnsupportedSourceError, escape
from mobilemodel_converters.caffe.net import Layer, Net, listed, new_layer
from mobilemodel_converters.caffe.weights import needs_blobs

_MEASURES = frozenset(("Accuracy", "DetectionEvaluate"))
_INNER = {"SoftmaxWithLoss": "Softmax", "SigmoidCrossEntropyLoss": "Sigmoid"}
"""losses that have another layer inside, whose output is what a network in use gives"""
_OUTSIDE = -1


class Value(NamedTuple):
    """A blob as one layer made it."""

    name: str
    maker: int
    """index of the layer; -1: it comes from outside"""


def prune(net: Net) -> Net:
    """Keep what leads to an output: the blobs that no layer takes, and those of the network's own that losses take.

    A SoftmaxWithLoss becomes a Softmax, a SigmoidCrossEntropyLoss a Sigmoid. In a network with losses or measures,
    blobs that depend on no learned layer are labels, and never outputs.

    Raises UnsupportedSourceError where no output is left.
    """
    graph = _Graph(net.layers)
    wanted = graph.wanted()
    if not wanted:
        raise UnsupportedSourceError("no layer of the network makes an output", found=f"{len(net.layers)} layers")
    needed = graph.needed(wanted)
    last = {top: index for index in needed for top in graph.layers[index].tops}
    # An output whose name a later layer writes anew is passed on under another name before.
    passed = {value: f"{value.name}_of_{graph.layers[value.maker].name}"
              for value in wanted if last[value.name] != value.maker}  # fmt: skip
    kept: list[Layer] = []
    for index in needed:
        layer = graph.layers[index]
        kept.append(layer)
        for top in dict.fromkeys(layer.tops):
            name = passed.get(Value(top, index))
            if name is not None:
                kept.append(new_layer(name, "Split", (top,), (name,)))
    free = {value.name for index in needed for value in graph.bottoms[index] if value.maker == _OUTSIDE}
    return replace(
        net, inputs=tuple(item for item in net.inputs if item.name in free), layers=tuple(kept),
        outputs=tuple(passed.get(value, value.name) for value in wanted),
        notes=(*net.notes, *_notes(net.layers, graph.layers, frozenset(needed))),
    )  # fmt: skip


class _Graph:
    """Layers with each bottom traced to the layer that made it; losses with a layer inside are that layer."""

    def __init__(self, layers: Sequence[Layer]) -> None:
        self.layers: list[Layer] = []
        self.bottoms: list[tuple[Value, ...]] = []
        """of each layer"""
        self._origin: dict[Value, Value] = {}
        """what a value is before Splits"""
        self._learned: set[Value] = set()
        """values that depend on a learned one"""
        self._training = any(_is_loss(layer) or layer.type in (*_MEASURES, "Silence") for layer in layers)
        names = dict.fromkeys((top for layer in layers for top in layer.tops), 1)
        current: dict[str, Value] = {}
        for index, layer in enumerate(layers):
            taken = tuple(current.get(name, Value(name, _OUTSIDE)) for name in layer.bottoms)
            made = _without_loss(layer, self.origin(taken[0]).name, names) if taken else layer
            self.layers.append(made)
            self.bottoms.append(taken[: len(made.bottoms)])
            learned = needs_blobs(made) or any(value in self._learned for value in self.bottoms[-1])
            for top in made.tops:
                current[top] = Value(top, index)
                if learned:
                    self._learned.add(current[top])
                if made.type == "Split" and taken:
                    self._origin[current[top]] = self.origin(taken[0])

    def origin(self, value: Value) -> Value:
        """The value that Splits have passed on as this one."""
        return self._origin.get(value, value)

    def wanted(self) -> list[Value]:
        """The values that a network in use gives, in the order of their makers."""
        used = self._used()
        measured = (value for value in self._taken_by(_is_measure) if value not in used)
        found = [*self._taken_by(_is_loss), *self._untaken(), *measured]
        return sorted(dict.fromkeys(found), key=lambda value: value.maker)

    def _taken_by(self, kind: Callable[[Layer], bool]) -> Iterator[Value]:
        """The network's own values that layers of a kind take."""
        for layer, bottoms in zip(self.layers, self.bottoms, strict=True):
            if kind(layer):
                yield from (self.origin(value) for value in bottoms if value in self._learned)

    def _untaken(self) -> Iterator[Value]:
        taken = {value for bottoms in self.bottoms for value in bottoms}
        for index, layer in enumerate(self.layers):
            if _is_loss(layer) or _is_measure(layer):
                continue
            for top in layer.tops:
                value = Value(top, index)
                origin = self.origin(value)
                if value not in taken and origin.maker != _OUTSIDE and (value in self._learned or not self._training):
                    yield origin

    def _used(self) -> set[Value]:
        """What layers beside Splits and measures take."""
        return {
            self.origin(value)
            for layer, bottoms in zip(self.layers, self.bottoms, strict=True)
            if layer.type != "Split" and not _is_measure(layer)
            for value in bottoms
        }

    def needed(self, wanted: Sequence[Value]) -> list[int]:
        """The layers that lead to these values, in the order of the file."""
        found: set[int] = set()
        pending = [value.maker for value in wanted]
        while pending:
            index = pending.pop()
            if index not in found and index != _OUTSIDE:
                found.add(index)
                pending += [value.maker for value in self.bottoms[index]]
        return sorted(found)


def _is_loss(layer: Layer) -> bool:
    return layer.type.endswith("Loss")


def _is_measure(layer: Layer) -> bool:
    return layer.type in _MEASURES


def _without_loss(layer: Layer, bottom: str, names: dict[str, int]) -> Layer:
    """A loss with a layer inside as that layer; its second top, where it has one, is that layer's own.

    ``names`` are the blobs that there are, each with the last number that was put behind it for another one.
    """
    inner = _INNER.get(layer.type)
    if inner is None:
        return layer
    top = wish = layer.tops[1] if len(layer.tops) > 1 else f"{bottom}_{inner.lower()}"
    while len(layer.tops) < 2 and top in names:
        names[wish] += 1
        top = f"{wish}_{names[wish]}"
    names.setdefault(top, 1)
    made = new_layer(layer.name, inner, layer.bottoms[:1], (top,))
    if inner == "Softmax":
        made.message.softmax_param.axis = layer.message.softmax_param.axis
    return made


def _notes(before: Sequence[Layer], after: Sequence[Layer], needed: frozenset[int]) -> Iterator[str]:
    """What was left out or replaced, named."""
    for index in sorted(needed):
        if after[index].type != before[index].type:
            yield f"layer '{escape(before[index].name)}' ({before[index].type}) became a {after[index].type}"
    left = [
        f"'{escape(layer.name)}' ({escape(layer.type)})"
        for index, layer in enumerate(before)
        if index not in needed and layer.type != "Split"
    ]
    if left:
        yield f"left out, for training alone or leading to no output: {listed(left)}"
