"""fold(): normalization and scaling by constants go into the weights and biases of the layers beside them.

A layer followed by y = s x + t, one s and t for each output, is the same layer with its weights times s and its bias
times s plus t (as in Jacob et al., arXiv 1712.05877, §3.2). Before a layer the same holds for its inputs, but that a
shift may not meet zeros which a convolution pads with. All is computed in float64 and stored in the weight's type.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from mobilemodel import dtypes
from mobilemodel.errors import escape
from mobilemodel.graphs import inner_nodes, real, title
from mobilemodel.model import Model
from mobilemodel.transforms.affine import ARITHMETIC, NORMALIZATION, Affine, Channels, nothing, read_affine
from mobilemodel.transforms.biases import set_bias
from mobilemodel.transforms.constants import constant
from mobilemodel.transforms.draft import Draft
from mobilemodel.transforms.layers import (
    CONV,
    CONV_TRANSPOSE,
    GEMM,
    MATMUL,
    Layer,
    bias_of,
    find_layer,
    size_of,
    values_of,
)
from mobilemodel.transforms.report import Change, Kept, Size, Transformed
from mobilemodel.transforms.values import read, resolution, rounded, scaled, scaling_loss

if TYPE_CHECKING:
    import onnx

Array = npt.NDArray[Any]
_FOLD = "fold"
_PIECE = 1 << 22
"""values that are widened to float64 at a time"""


@dataclass(frozen=True)
class _Plan:
    """A layer and the nodes behind it, or before it, that it can take."""

    layer: Layer
    nodes: tuple[onnx.NodeProto, ...]
    affine: Affine
    before: bool
    bias: Array | None
    """the layer's bias with the nodes folded in, float64; None: it stays"""

    @property
    def factors(self) -> Array:
        """What the stored weight is multiplied by."""
        layer, scale = self.layer, self.affine.scale
        return layer.by_input(scale) if self.before else layer.by_output(scale)


def fold(model: Model) -> Transformed:
    """Fold BatchNormalization (in its inference form), and Mul, Add, Sub and Div by one constant for each channel,
    into the Conv, ConvTranspose, Gemm or MatMul beside them.

    The network stays the same but for rounding. What cannot be folded stays as it was; each BatchNormalization that is
    left is among ``kept`` with its reason.
    """
    draft = Draft(model)
    if draft.obstacle:
        return Transformed(model, (), (Kept("", draft.obstacle),))
    folding = _Folding(draft)
    done = -1
    # A shift that came through a MatMul stands behind it now, where the next layer may take it. Each round leaves
    # fewer nodes, or fewer that scale.
    while len(folding.changes) > done:
        done = len(folding.changes)
        folding.run(before=False)
        folding.run(before=True)
    return draft.finish(_FOLD, folding.changes, folding.kept())


class _Folding:
    """One fold under way."""

    def __init__(self, draft: Draft) -> None:
        self.draft = draft
        self.changes: list[Change] = []
        self.reasons: dict[int, str] = {}

    def run(self, before: bool) -> None:
        """Plan for all layers on one side of them, then apply what holds for every use of a weight."""
        by_weight: defaultdict[str, list[_Plan]] = defaultdict(list)
        for node in self.draft.nodes:
            plan = self._plan(node, before)
            if plan is not None:
                by_weight[plan.layer.weight.tensor.name].append(plan)
        self.unused: list[str] = []
        gone: list[onnx.NodeProto] = []
        for plans in by_weight.values():
            reason, loss = self._scale(plans)
            for plan in plans:
                if plan.affine.scales and reason:
                    self._refuse(plan.nodes, reason)
                else:
                    gone += plan.nodes
                    self._apply(plan, loss)
        self.draft.remove_nodes(gone)
        self.draft.remove_unused(self.unused + [name for node in gone for name in node.input])

    def kept(self) -> Iterator[Kept]:
        """Every BatchNormalization that is left, and why."""
        for node in self.draft.nodes:
            if node.op_type == NORMALIZATION:
                reason = self.reasons.get(id(node), "no convolution or FC layer alone makes or takes its values")
                yield Kept(title(node), reason)
            for inner in inner_nodes(node):
                if inner.op_type == NORMALIZATION:
                    yield Kept(title(inner), f"it lies in a graph within a node ({node.op_type})")
        for function in self.draft.functions:
            for node in function.node:
                if node.op_type == NORMALIZATION:
                    yield Kept(title(node), "it lies in a function of the model")

    def _refuse(self, nodes: tuple[onnx.NodeProto, ...], reason: str) -> None:
        for node in nodes:
            self.reasons.setdefault(id(node), reason)

    def _plan(self, node: onnx.NodeProto, before: bool) -> _Plan | None:
        layer = find_layer(self.draft, node)
        if layer is None:
            return None
        if isinstance(layer, str):
            beside = self.draft.only_use(node.output[0])
            self._refuse((beside.node,) if beside is not None else (), layer)
            return None
        nodes, affine = self._nodes_before(layer) if before else self._nodes_behind(layer)
        if not nodes or (layer.operator == MATMUL and len(nodes) == 1 and not affine.scales):
            return None
        bias: Array | str | None = None
        if not before or affine.shifts:
            bias = bias_of(self.draft, layer)
            if not isinstance(bias, str):
                bias = bias + _response(layer, affine.shift) if before else affine.scale * bias + affine.shift
                if not np.isfinite(rounded(bias, layer.weight.tensor.dtype)).all():
                    bias = "the folded bias would not be finite"
        if isinstance(bias, str):
            self._refuse(nodes, bias)
            return None
        return _Plan(layer, nodes, affine, before, bias)

    def _nodes_behind(self, layer: Layer) -> tuple[tuple[onnx.NodeProto, ...], Affine]:
        """The nodes that follow a layer one by one, each the only use of what it takes, and what they do together."""
        found: list[onnx.NodeProto] = []
        affine = nothing(layer.outputs)
        value = layer.node.output[0]
        channels = self._channels(layer, value, layer.outputs)
        while (use := self.draft.only_use(value)) is not None:
            step = read_affine(self.draft, use.node, value, channels)
            if isinstance(step, str) or not affine.then(step).finite:
                self._refuse((use.node,), step if isinstance(step, str) else "its factors are not finite")
                break
            found.append(use.node)
            affine, value = affine.then(step), use.node.output[0]
        return tuple(found), affine

    def _nodes_before(self, layer: Layer) -> tuple[tuple[onnx.NodeProto, ...], Affine]:
        """The nodes before a layer that nothing else takes from, and what they do together."""
        found: list[onnx.NodeProto] = []
        affine = nothing(layer.inputs)
        value = layer.node.input[0]
        channels = self._channels(layer, value, layer.inputs)
        while self.draft.only_use(value) is not None and value in self.draft.producers:
            node = self.draft.producers[value]
            data = self._data_input(node)
            step = read_affine(self.draft, node, data, channels) if data else "its input is a constant"
            if isinstance(step, str):
                break
            together = step.then(affine)
            if not together.finite or (together.shifts and (layer.pads or layer.operator == CONV_TRANSPOSE)):
                self._refuse((node,), "what it adds would be added to padding too")
                break
            found.insert(0, node)
            affine, value = together, data
        return tuple(found), affine

    def _data_input(self, node: onnx.NodeProto) -> str:
        """The input of a node that is no constant; empty where that is not one alone."""
        if node.op_type not in ARITHMETIC:
            return node.input[0] if node.input else ""
        names = [name for name in node.input if constant(self.draft, name) is None]
        return names[0] if len(names) == 1 else ""

    def _channels(self, layer: Layer, value: str, count: int) -> Channels:
        if layer.operator != MATMUL:
            return Channels(count, 1, layer.rank)
        shape = self.draft.shapes.get(value)
        return Channels(count, -1, None if shape is None else len(shape))

    def _scale(self, plans: list[_Plan]) -> tuple[str, float]:
        """Scale the weight that these plans share, if all of its uses agree; why not, and the loss by rounding."""
        scaling = [plan for plan in plans if plan.affine.scales]
        if not scaling:
            return "", 0.0
        tensor, factors = scaling[0].layer.weight.tensor, scaling[0].factors
        planned = {id(plan.layer.node) for plan in scaling}
        uses = self.draft.final_uses(tensor.name)
        if uses is None or any(use.position != 1 or id(use.node) not in planned for use in uses):
            return f"'{tensor.name}' is used elsewhere too, where it is not scaled alike", 0.0
        if any(not np.array_equal(factors, plan.factors) for plan in scaling):
            return f"'{tensor.name}' belongs to several layers, which would scale it differently", 0.0
        loss = scaling_loss(tensor, factors)
        if not np.isfinite(loss):
            return f"'{tensor.name}' would not be finite, or is not", 0.0
        if loss > resolution(tensor.dtype):
            name = dtypes.name(tensor.dtype)
            return f"{name} is too coarse for '{tensor.name}' once it is scaled: relative error {loss:.2g}", 0.0
        self.draft.add_tensor(scaled(tensor, factors))
        return "", loss

    def _apply(self, plan: _Plan, loss: float) -> None:
        layer, node, label = plan.layer, plan.layer.node, plan.layer.title
        before = self._size_before(plan)
        made = [layer.weight.tensor.name] if plan.affine.scales else []
        result = node.output[0] if plan.before else plan.nodes[-1].output[0]
        if plan.before:
            node.input[0] = self._data_input(plan.nodes[0])
        if plan.bias is not None and (plan.bias.any() or layer.bias):
            self.unused.append(layer.bias)
            made.append(set_bias(self.draft, layer, plan.bias, result))
        elif not plan.before:
            node.output[0] = result
        tensor = self.draft.tensors[layer.weight.tensor.name]
        now = Layer(node, replace(layer.weight, tensor=tensor), layer.groups)
        names = ", ".join(f"{node.op_type} '{escape(title(node))}'" for node in plan.nodes)
        what = f"{names} folded into the {layer.operator} {'behind' if plan.before else 'before'} it"
        removed = tuple(node.output[0] for node in plan.nodes)
        after = replace(before, parameters=now.parameters(), multiply_adds=size_of(self.draft, now).multiply_adds)
        self.changes.append(
            Change(_FOLD, label, what, exact=True, tensors=tuple(made), removed=removed, loss=loss,
                   before=before, after=after)
        )  # fmt: skip

    def _size_before(self, plan: _Plan) -> Size:
        """The layer and the nodes that it takes: their constants, one multiply-add for each value normalized."""
        found = size_of(self.draft, plan.layer)
        parameters, multiply_adds = found.parameters, found.multiply_adds
        for node in plan.nodes:
            values = [constant(self.draft, name) for name in node.input]
            parameters += sum(value.size for value in values if value is not None)
            count = values_of(self.draft, node.output[0]) if node.op_type == NORMALIZATION else 0
            multiply_adds = None if multiply_adds is None or count is None else multiply_adds + count
        return Size(parameters, multiply_adds)


def _response(layer: Layer, values: Array) -> Array:
    """What the layer makes of an input that has these values everywhere, without its bias."""
    weight = layer.seen(read(layer.weight.tensor))
    if layer.operator == CONV:
        summed = weight.reshape(*weight.shape[:2], -1).sum(axis=2, dtype=np.float64)
        grouped = summed.reshape(layer.groups, -1, weight.shape[1])
        return np.asarray((grouped @ values.reshape(layer.groups, -1, 1)).reshape(-1))
    rows = weight if layer.transposed else weight.T
    step = max(1, _PIECE // rows.shape[1])
    pieces = [rows[start : start + step].astype(np.float64) @ values for start in range(0, len(rows), step)]
    alpha = real(layer.node, "alpha", 1.0) if layer.operator == GEMM else 1.0
    return np.asarray(alpha * np.concatenate(pieces))
