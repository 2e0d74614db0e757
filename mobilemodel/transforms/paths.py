"""The ways from a layer's output to the layers that take it, through nodes that keep its units apart."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from mobilemodel.graphs import integer, integers, is_standard, text
from mobilemodel.transforms.constants import constant
from mobilemodel.transforms.draft import INSIDE, Draft, Use
from mobilemodel.transforms.layers import CONV, CONV_TRANSPOSE, MATMUL, Layer, find_layer

if TYPE_CHECKING:
    import onnx

Array = npt.NDArray[Any]
_ACTIVATIONS = frozenset((
    "Relu", "LeakyRelu", "Clip", "Sigmoid", "Tanh", "HardSigmoid", "HardSwish", "Elu", "Selu", "Celu", "Softplus",
    "Softsign", "ThresholdedRelu", "Mish", "Gelu", "Abs", "Neg", "Identity", "Dropout",
))  # fmt: skip
_POOLS = frozenset(("MaxPool", "AveragePool", "GlobalMaxPool", "GlobalAveragePool"))


@dataclass(frozen=True)
class Path:
    """One way to a layer that takes the units."""

    nodes: tuple[onnx.NodeProto, ...]
    taker: Layer
    spread: int
    """inputs of the taker that belong to one unit: the positions of a channel that was flattened"""


def paths_from(draft: Draft, value: str, units: int, channels_first: bool) -> list[Path] | str:
    """All ways from a value, whose units lie along axis 1 or (not ``channels_first``) along its last axis; or why one
    of them can't be followed."""
    found: list[Path] = []
    waiting: list[tuple[str, tuple[onnx.NodeProto, ...], bool]] = [(value, (), channels_first)]
    while waiting:
        value, nodes, first = waiting.pop()
        if value in draft.outputs:
            return "an output of the network holds them"
        for use in draft.uses_of(value):
            after = _through(draft, use, first)
            if after is not None:
                waiting.append((use.node.output[0], (*nodes, use.node), after))
                continue
            taker = _taker(draft, use, units, first)
            if isinstance(taker, str):
                return taker
            found.append(Path(nodes, taker, taker.inputs // units))
    return found


def _through(draft: Draft, use: Use, first: bool) -> bool | None:
    """Whether the units lie along axis 1 behind a node; None where it does not keep them apart."""
    node = use.node
    known = is_standard(node) and len(node.output) > 0 and not any(node.output[1:])
    if use.position != 0 or not known:
        return None
    if node.op_type in _ACTIVATIONS:
        return first if all(constant(draft, name) is not None for name in node.input[1:] if name) else None
    if node.op_type in _POOLS:
        return first if first else None
    if node.op_type == "Flatten" and first and integer(node, "axis", 1) == 1:
        return False
    if node.op_type == "Reshape" and first and _flattens(draft, node):
        return False
    return None


def _flattens(draft: Draft, node: onnx.NodeProto) -> bool:
    """Whether a Reshape keeps the batch and puts all else into one axis of any size."""
    shape = constant(draft, node.input[1]) if len(node.input) > 1 else None
    source = draft.shapes.get(node.input[0])
    if shape is None or shape.shape != (2,) or shape[1] != -1 or integer(node, "allowzero", 0):
        return False
    return bool(shape[0] == 0 or (source is not None and source[0] == shape[0]))


def _taker(draft: Draft, use: Use, units: int, first: bool) -> Layer | str:
    if use.position == INSIDE:
        return f"a graph within a node ({use.node.op_type}) takes them"
    taker = find_layer(draft, use.node)
    if not isinstance(taker, Layer) or use.position != 0 or taker.operator == CONV_TRANSPOSE or taker.groups != 1:
        return f"{use.node.op_type} takes them" if not isinstance(taker, str) else taker
    if (taker.operator == CONV) != first or taker.inputs % units or (first and taker.inputs != units):
        return f"{use.node.op_type} takes them along another axis"
    uses = draft.final_uses(taker.weight.tensor.name)
    if uses is None or len(uses) != 1:
        return f"'{taker.weight.tensor.name}', which takes them, is used elsewhere too"
    return taker


def bias_node(draft: Draft, layer: Layer) -> onnx.NodeProto | None:
    """The Add that is a MatMul's bias: its only follower, with one value for each output that nothing else uses."""
    use = draft.only_use(layer.node.output[0]) if layer.operator == MATMUL else None
    if use is None or use.node.op_type != "Add" or not is_standard(use.node):
        return None
    name = use.node.input[1 - use.position]
    tensor = draft.tensors.get(name)
    own = draft.only_use(name) is not None and not isinstance(draft.reference(name), str)
    return use.node if tensor is not None and own and tensor.dims == (layer.outputs,) else None


@dataclass(frozen=True)
class Arrival:
    """What a unit that has the same value everywhere is when it reaches a layer."""

    values: Array
    """one for each unit, float64"""
    even: npt.NDArray[np.bool_]
    """whether it still is the same everywhere"""


def arrival(draft: Draft, path: Path, values: Array, dtype: Any) -> Arrival:
    """Send one value for each unit along a path."""
    even = np.isfinite(values)
    found = np.asarray(values, dtype)
    for node in path.nodes:
        if node.op_type in _ACTIVATIONS:
            found = _activated(draft, node, found)
        elif node.op_type == "AveragePool" and _counts_padding(node):
            even = even & (found == 0)
    values = found.astype(np.float64)
    if path.taker.pads:
        even = even & (values == 0)
    return Arrival(values, even & np.isfinite(values))


def _activated(draft: Draft, node: onnx.NodeProto, values: Array) -> Array:
    from onnx.reference import ReferenceEvaluator

    feeds = {name: constant(draft, name) for name in node.input[1:] if name} | {node.input[0]: values}
    try:
        with np.errstate(all="ignore"):
            made: Any = ReferenceEvaluator(node, opsets={"": draft.opset}).run(None, feeds)
        return np.asarray(made[0]).reshape(values.shape)
    except Exception:  # the evaluator fails in its own ways: then no value is known
        return np.full(values.shape, np.nan)


def _counts_padding(node: onnx.NodeProto) -> bool:
    automatic = text(node, "auto_pad", b"NOTSET")
    padded = any(integers(node, "pads")) or automatic not in (b"NOTSET", b"VALID")
    return bool(integer(node, "ceil_mode", 0)) or (padded and bool(integer(node, "count_include_pad", 0)))
