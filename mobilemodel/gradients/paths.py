"""A model's graph as gradients see it: its operations, its constants, and the paths from layers to the outputs."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from mobilemodel.gradients.derivatives import DERIVATIVES, STEADY, Derivative, Operation
from mobilemodel.graphs import captured, is_standard, standard_opset

if TYPE_CHECKING:
    from onnx import AttributeProto, ModelProto, NodeProto, TensorProto

Array = npt.NDArray[Any]


def operations(model: ModelProto) -> list[Operation]:
    """The nodes of the main graph, in their order."""
    opset = standard_opset(model)
    return [_operation(node, opset) for node in model.graph.node]


def _operation(node: NodeProto, opset: int) -> Operation:
    plain = node.op_type if is_standard(node) else f"{node.domain}.{node.op_type}"
    attributes = {item.name: _attribute(item) for item in node.attribute}
    outer = frozenset(captured(node))
    return Operation(plain, node.name, tuple(node.input), tuple(node.output), outer, attributes, opset)


def _attribute(item: AttributeProto) -> Any:
    """The value of an attribute of numbers or text, or a tensor's protobuf message; None of any other."""
    from onnx import helper

    kinds = (item.FLOAT, item.INT, item.STRING, item.TENSOR, item.FLOATS, item.INTS)
    return helper.get_attribute_value(item) if item.type in kinds and not item.ref_attr_name else None


def constants(model: ModelProto, nodes: Iterable[Operation]) -> dict[str, TensorProto]:
    """Initializers and the tensors of Constant nodes, by name."""
    found = {item.name: item for item in model.graph.initializer}
    for node in nodes:
        if node.operator == "Constant" and node.attributes.get("value") is not None:
            found.update(dict.fromkeys(node.outputs, node.attributes["value"]))
    return found


def plain(values: Array) -> Array:
    """Floats of any width as float32; anything else as it is."""
    if values.dtype.kind in "iubSUO" or values.dtype == np.float32:
        return values
    return values.astype(np.float32)


@dataclass(frozen=True)
class Stage:
    """An operation on a path, its derivative, and the inputs that the gradient goes to."""

    operation: Operation
    derivative: Derivative
    wanted: tuple[int, ...]

    def values(self) -> set[str]:
        """Names of the values that the derivative needs."""
        names, derivative = self.operation.inputs, self.derivative
        needed = {name for index, name in enumerate(names) if index in derivative.inputs}
        if derivative.others:
            needed |= {name for index, name in enumerate(names) if self.wanted != (index,)}
        if derivative.output:
            needed.add(self.operation.outputs[0])
        return needed - {""}

    def shapes(self) -> set[str]:
        """Names of the values whose shapes the derivative needs."""
        operation, derivative = self.operation, self.derivative
        needed = {name for index, name in enumerate(operation.inputs) if index in derivative.shapes}
        needed |= {name for index, name in enumerate(operation.outputs) if index in derivative.output_shapes}
        return needed - {""}


@dataclass(frozen=True)
class Paths:
    """The stages that gradients pass, from the outputs back, and the layers that they cannot reach."""

    stages: tuple[Stage, ...]
    reached: tuple[str, ...]
    active: frozenset[str]
    """the values that follow the reached layers"""
    unreached: dict[str, str]
    """by layer: the operation in the way"""


def paths(nodes: list[Operation], wanted: Iterable[str], targets: Iterable[str]) -> Paths:
    """Find every path from the ``wanted`` values to the ``targets``, at which gradients start.

    A value from which *one* path leads through an operation without a derivative is unreached: what the others bring
    would be a part of its gradient.
    """
    obstacles = _obstacles(nodes, targets)
    unreached = {name: obstacles.get(name, "no path leads from it to an output") for name in wanted}
    reached = tuple(name for name in unreached if obstacles.get(name) == "")
    active = set(reached)
    stages = []
    for node in nodes:
        inputs = tuple(index for index, name in enumerate(node.inputs) if name in active)
        if inputs and node.operator in DERIVATIVES and any(name in obstacles for name in node.outputs):
            active.update(name for name in node.outputs if name in obstacles)
            stages.append(Stage(node, DERIVATIVES[node.operator], inputs))
    hindered = {name: why for name, why in unreached.items() if why}
    return Paths(tuple(stages[::-1]), reached, frozenset(active), hindered)


def _obstacles(nodes: list[Operation], targets: Iterable[str]) -> dict[str, str]:
    """For each value that a path leads from to a target: what is in the way on one of the paths, or nothing."""
    found = dict.fromkeys(targets, "")
    for node in reversed(nodes):
        behind = [(index, found[name]) for index, name in enumerate(node.outputs) if name in found]
        if not behind or node.operator in STEADY:
            continue
        further = next((why for _, why in behind if why), "")
        for index, name in [*enumerate(node.inputs), *((-1, name) for name in sorted(node.captured))]:
            if name:
                found[name] = found.get(name) or further or _obstacle(node, index, [place for place, _ in behind])
    return found


def _obstacle(node: Operation, index: int, outputs: list[int]) -> str:
    derivative = DERIVATIVES.get(node.operator)
    if derivative is None:
        return f"no derivative of {node.described}"
    if index not in derivative.through:
        return f"no derivative of {node.described} by its input {index}"
    if any(output not in derivative.back_from for output in outputs):
        return f"no derivative of {node.described} from its further outputs"
    why = derivative.limits(node)
    return f"no derivative of {node.described}: {why}" if why else ""
