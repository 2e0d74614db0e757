"""Caffe network -> ONNX graph, layer by layer; what cannot be expressed is refused with all its layers at once."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from mobilemodel.errors import MobileModelError, UnsupportedSourceError, escape
from mobilemodel.model import Model
from mobilemodel_converters.caffe.fold import fold_scales
from mobilemodel_converters.caffe.layers import RULES, WHY_NOT, Rule
from mobilemodel_converters.caffe.net import Layer, Net, Shape, listed
from mobilemodel_converters.caffe.scope import LayerRefusedError, Scope, SurveyScope, Value
from mobilemodel_converters.network import NetworkBuilder

BATCH = "N"


def translate(net: Net, *, notes: Sequence[str] = (), **facts: Any) -> Model:
    """The network as a Model; ``notes`` follow its own, ``facts`` go to ``NetworkBuilder.finish``.

    The batch size stays free unless a layer depends on it. Raises UnsupportedSourceError naming every layer that
    cannot be expressed, MalformedSourceError for a layer that breaks Caffe's rules.
    """
    translation = _Translation(fold_scales(_named(net)))
    translation.run()
    return translation.finish(notes, facts)


def blob_dims(net: Net) -> tuple[dict[int, tuple[int, ...]], ...]:
    """The dims of the blobs that each layer asks for, by their index: for files that hold values without shapes.

    ``net`` needs no blobs; the result is as long as its layers. Raises what ``translate`` raises.
    """
    translation = _Translation(_named(net), SurveyScope)
    translation.run()
    return tuple(scope.asked for scope in translation.scopes if isinstance(scope, SurveyScope))


def _named(net: Net) -> Net:
    """The network with a name for each layer: one without is called after its type and its place, ``ReLU-3``."""
    return replace(net, layers=tuple(
        layer if layer.name else replace(layer, name=f"{layer.type}-{place}") for place, layer in enumerate(net.layers)
    ))  # fmt: skip


class _Translation:
    def __init__(self, net: Net, scope_type: type[Scope] = Scope) -> None:
        self.net = net
        self.scope_type = scope_type
        self.scopes: list[Scope] = []
        self.network = NetworkBuilder(net.name)
        self.values: dict[str, Value | None] = {}
        """what each blob's name stands for at this point of the file; None: it comes from a refused layer"""
        self.taken: set[str] = set()
        """blobs whose value at this point some layer takes"""
        self.refused: list[tuple[Layer, str]] = []
        self.batch_matters = False
        self.last_writer = {top: layer for layer in net.layers for top in layer.tops}
        self.fed = {item.name for item in net.inputs}
        self.batches: set[Shape] = set()
        """sizes of the inputs' first axes"""
        for item in net.inputs:
            assert item.shape is not None, "whoever calls finds out the inputs' shapes"
            self.values[item.name] = Value(self.network.input(item.name, item.shape), item.shape)
            self.batches.add(item.shape[:1])

    def run(self) -> None:
        """Translate all layers; raises for all that cannot be expressed at once."""
        for layer in self.net.layers:
            self._add(layer)
        if self.refused:
            named = [f"'{escape(layer.name)}' ({escape(layer.type)}: {reason})" for layer, reason in self.refused]
            raise UnsupportedSourceError(f"layers that cannot be converted: {listed(named)}")

    def _add(self, layer: Layer) -> None:
        inputs = [self._value(layer, bottom) for bottom in layer.bottoms]
        rule = RULES.get(layer.type)
        outputs: list[Value | None] = [None] * len(layer.tops)
        if rule is None:
            self.refused.append((layer, WHY_NOT.get(layer.type, "no such layer type is known")))
        elif None not in inputs:
            outputs = self._apply(rule, layer, tuple(value for value in inputs if value is not None))
        for top, output in zip(layer.tops, outputs, strict=True):
            self.values[top] = output
            self.taken.discard(top)

    def _value(self, layer: Layer, bottom: str) -> Value | None:
        if bottom not in self.values:
            raise UnsupportedSourceError(
                f"bottom '{escape(bottom)}' is made by no layer before", layer=layer.name,
                advice="Caffe runs layers in the order of the file.",
            )  # fmt: skip
        self.taken.add(bottom)
        return self.values[bottom]

    def _apply(self, rule: Rule, layer: Layer, inputs: tuple[Value, ...]) -> list[Value | None]:
        scope = self.scope_type(layer, inputs, self.network, tuple(self._wish(layer, top) for top in layer.tops))
        self.scopes.append(scope)
        try:
            rule(scope)
        except LayerRefusedError as refusal:
            self.refused.append((layer, str(refusal)))
            return [None] * len(layer.tops)
        except MobileModelError as error:
            raise error.within(layer=layer.name) from None
        if len(scope.outputs) != len(layer.tops):
            scope.malformed("tops", expected=len(scope.outputs), found=len(layer.tops))
        if len(layer.blobs) > len(scope.used_blobs):
            scope.malformed("blobs", expected=len(scope.used_blobs), found=len(layer.blobs))
        self.batch_matters |= scope.batch_matters
        return list(scope.outputs)

    def _wish(self, layer: Layer, top: str) -> str:
        """The last layer to write a blob gives its name to the value; those before are called after themselves, where
        no blob has that name.
        """
        if self.last_writer[top] is layer and top not in self.fed:
            return top
        return layer.name if layer.name not in self.last_writer else f"{layer.name}.before"

    def finish(self, notes: Sequence[str], facts: dict[str, Any]) -> Model:
        """Declare the outputs and make the Model."""
        said = [*self.net.notes, *notes, *(note for scope in self.scopes for note in scope.notes)]
        made = dict.fromkeys(top for layer in self.net.layers for top in layer.tops)
        for blob in self.net.outputs or tuple(top for top in made if top not in self.taken):
            value = self.values.get(blob)
            if value is None:
                raise UnsupportedSourceError("no layer makes the output", tensor=blob)
            name = self.network.output(value.name, value.shape, name=blob)
            if name != blob:
                said.append(f"the output '{escape(blob)}' is called '{escape(name)}': a graph's names differ")
        if not self.batch_matters and len(self.batches) == 1:
            self.network.vary_batch(BATCH)
        return self.network.finish(notes=said, **facts)
