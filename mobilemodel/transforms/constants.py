"""Values that are known without running the network: initializers, Constant nodes and short sums over them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from mobilemodel.graphs import is_standard
from mobilemodel.transforms.draft import Draft
from mobilemodel.transforms.values import read

if TYPE_CHECKING:
    import onnx

Array = npt.NDArray[Any]
MOST_VALUES = 1 << 20
"""values of a constant that is computed from others, or read to be computed with"""
_MOST_STEPS = 8
_ONE_OPERAND = frozenset(("Identity", "Cast", "Neg", "Reciprocal", "Sqrt", "Transpose", "Flatten"))
_FIRST_OPERAND = frozenset(("Reshape", "Squeeze", "Unsqueeze"))
_TWO_OPERANDS = frozenset(("Add", "Sub", "Mul", "Div"))


def constant(draft: Draft, name: str, steps: int = _MOST_STEPS) -> Array | None:
    """The value of a name where it is a constant of at most MOST_VALUES; None where it is not, or may be replaced."""
    from onnx.reference import ReferenceEvaluator

    if not name or steps == 0 or name in draft.replaceable:
        return None
    if name in draft.tensors:
        tensor = draft.tensors[name]
        return read(tensor) if tensor.elements <= MOST_VALUES else None
    if name in draft.initializers:
        return _of_proto(draft.initializers[name])
    node = draft.producers.get(name)
    if node is None or not is_standard(node) or len(node.output) != 1:
        return None
    if node.op_type == "Constant":
        return _of_node(node)
    if node.op_type not in _ONE_OPERAND | _FIRST_OPERAND | _TWO_OPERANDS:
        return None
    operands = {value: constant(draft, value, steps - 1) for value in node.input if value}
    known = {value: found for value, found in operands.items() if found is not None}
    if len(known) < len(operands) or not _small(node, [known[value] for value in node.input if value]):
        return None
    try:
        with np.errstate(all="ignore"):
            results: Any = ReferenceEvaluator(node, opsets={"": draft.opset}).run(None, known)
    except Exception:  # the evaluator fails in its own ways on nodes that break their rules: no constant then
        return None
    return results[0] if isinstance(results[0], np.ndarray) else None


def _of_proto(proto: onnx.TensorProto) -> Array | None:
    from onnx import numpy_helper

    size = int(np.prod([int(dim) for dim in proto.dims], dtype=object))
    numeric = proto.data_type not in (proto.STRING, proto.UNDEFINED)
    return np.asarray(numpy_helper.to_array(proto)) if numeric and size <= MOST_VALUES else None


def _of_node(node: onnx.NodeProto) -> Array | None:
    for attribute in node.attribute:
        if attribute.name == "value" and attribute.HasField("t"):
            return _of_proto(attribute.t)
        if attribute.name == "value_float":
            return np.array(attribute.f, np.float32)
        if attribute.name == "value_floats":
            return np.array(attribute.floats, np.float32)
        if attribute.name == "value_int":
            return np.array(attribute.i, np.int64)
        if attribute.name == "value_ints":
            return np.array(attribute.ints, np.int64)
    return None


def _small(node: onnx.NodeProto, operands: list[Array]) -> bool:
    if node.op_type in _TWO_OPERANDS:
        try:
            shape = np.broadcast_shapes(*(operand.shape for operand in operands))
        except ValueError:
            return False
        return len(operands) == 2 and int(np.prod(shape, dtype=object)) <= MOST_VALUES
    return bool(operands)
