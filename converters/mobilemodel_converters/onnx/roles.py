"""What a weight is to the network, and the order of its matrix: one row for each output (spec/tensors.md §3.1)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from mobilemodel.model import MatrixOrder, Role
from mobilemodel_converters.onnx.structure import all_nodes, domain
from mobilemodel_converters.onnx.uses import Use, UseIndex, final_uses

if TYPE_CHECKING:
    import onnx

# What may stand between a global pool and the 1x1 convolution that is an FC layer in all but name.
_BETWEEN_POOL_AND_FC = frozenset((
    "Relu", "LeakyRelu", "PRelu", "Clip", "Sigmoid", "HardSigmoid", "HardSwish", "Tanh", "Elu", "Selu", "Identity",
    "Cast", "Dropout", "BatchNormalization", "Reshape", "Flatten", "Squeeze", "Unsqueeze", "Conv", "Mul", "Add", "Softplus",
))  # fmt: skip
_GLOBAL_POOLS = frozenset(("GlobalAveragePool", "GlobalMaxPool", "GlobalLpPool"))
_MATRIX_INPUTS = {
    "Gemm": (0, 1), "MatMul": (0, 1), "QLinearMatMul": (0, 3), "MatMulInteger": (0, 1), "FusedMatMul": (0, 1),
    "FusedGemm": (0, 1), "DynamicQuantizeMatMul": (1,), "MatMulIntegerToFloat": (0, 1), "MatMulNBits": (1,),
}  # fmt: skip
_CONV_WEIGHTS = {"Conv": 1, "ConvTranspose": 1, "QLinearConv": 3, "ConvInteger": 1, "FusedConv": 1, "DeformConv": 1}
_RECURRENT = frozenset(("RNN", "LSTM", "GRU"))


@dataclass(frozen=True)
class Weight:
    """A tensor's role, the operator that gives it, and its place in the graph."""

    role: Role
    operator: str
    order: MatrixOrder
    place: int


NO_WEIGHT = Weight(Role.OTHER, "", MatrixOrder(), 0)


def producers(graph: onnx.GraphProto) -> dict[str, onnx.NodeProto]:
    """The node that makes each value, over a graph and the graphs within it."""
    return {output: node for node in all_nodes(graph) for output in node.output if output}


def classify(
    uses: list[Use], dims: tuple[int, ...], index: UseIndex, made_by: dict[str, onnx.NodeProto]
) -> Weight:
    """The role of a tensor of ``dims`` by all its uses; the first in the graph decides, an FC layer before others.

    A quantized weight is followed through its DequantizeLinear.
    """
    found = []
    for use in uses:
        steps = _through_dequantize(use, index)
        found += [weight for step in steps if (weight := _weight(step, dims, made_by)) is not None]
    if not found:
        return NO_WEIGHT
    return min(found, key=lambda weight: (weight.role is not Role.FC, weight.place))


def _through_dequantize(use: Use, index: UseIndex) -> list[Use]:
    if use.node.op_type != "DequantizeLinear" or use.position != 0 or use.in_function:
        return [use]
    further = final_uses(index, use.node.output[0]) or []
    return [Use(u.node, u.position, u.order, use.chain + u.chain) for u in further]


def _weight(use: Use, dims: tuple[int, ...], made_by: dict[str, onnx.NodeProto]) -> Weight | None:
    operator = use.node.op_type
    if domain(use.node.domain) not in ("", "com.microsoft"):
        return None
    if use.position in _MATRIX_INPUTS.get(operator, ()) and len(dims) >= 2:
        return Weight(Role.FC, operator, _matrix_order(use, dims), use.order)
    if _CONV_WEIGHTS.get(operator) == use.position and len(dims) >= 3:
        role = Role.FC if operator == "Conv" and _follows_global_pool(use, dims, made_by) else Role.CONV
        return Weight(role, operator, _conv_order(use, dims), use.order)
    if operator in _RECURRENT and use.position in (1, 2) and len(dims) == 3:
        return Weight(Role.RECURRENT, operator, MatrixOrder(row_axes=2), use.order)
    if operator == "Gather" and use.position == 0 and len(dims) >= 2:
        return Weight(Role.EMBEDDING, operator, MatrixOrder(), use.order)
    return None


def _attribute(node: onnx.NodeProto, name: str, default: int) -> int:
    return next((int(a.i) for a in node.attribute if a.name == name), default)


def _chain_perm(chain: tuple[onnx.NodeProto, ...], rank: int) -> tuple[int, ...] | None:
    """The permutation that a chain of nodes makes of a tensor's axes; None where it changes the shape."""
    axes = tuple(range(rank))
    for node in chain:
        if node.op_type == "Transpose":
            perm = next((tuple(a.ints) for a in node.attribute if a.name == "perm"), tuple(reversed(range(rank))))
            if sorted(perm) != list(range(rank)):
                return None
            axes = tuple(axes[i] for i in perm)
        elif node.op_type not in ("Identity", "Cast"):
            return None
    return axes


def _order(axes: tuple[int, ...], wanted: tuple[int, ...], row_axes: int) -> MatrixOrder:
    perm = tuple(axes[i] for i in wanted)
    return MatrixOrder(perm=() if perm == tuple(range(len(perm))) else perm, row_axes=row_axes)


def _matrix_order(use: Use, dims: tuple[int, ...]) -> MatrixOrder:
    """Rows are outputs: Gemm and MatMul in all their ways, through transposes."""
    rank = len(dims)
    axes = _chain_perm(use.chain, rank)
    if axes is None or use.node.op_type == "MatMulNBits":
        return MatrixOrder()
    left = use.position == 0
    flag = "transA" if left else "transB"
    transposed = bool(_attribute(use.node, flag, 0)) and use.node.op_type in ("Gemm", "FusedGemm", "FusedMatMul")
    batch = tuple(range(rank - 2))
    outputs_first = (*batch, rank - 2, rank - 1)
    outputs_last = (*batch, rank - 1, rank - 2)
    return _order(axes, outputs_first if left != transposed else outputs_last, rank - 1)


def _conv_order(use: Use, dims: tuple[int, ...]) -> MatrixOrder:
    """O x spatial x I; a ConvTranspose's channels are regrouped so that its rows are outputs too."""
    rank = len(dims)
    axes = _chain_perm(use.chain, rank)
    spatial = tuple(range(2, rank))
    if use.node.op_type != "ConvTranspose":
        return MatrixOrder() if axes is None else _order(axes, (0, *spatial, 1), 1)
    groups = _attribute(use.node, "group", 1)
    if axes != tuple(range(rank)) or groups < 1 or dims[0] % groups:
        return MatrixOrder()
    view = (groups, dims[0] // groups, *dims[1:])
    return MatrixOrder(view, (0, 2, *range(3, rank + 1), 1), 2)


def _follows_global_pool(use: Use, dims: tuple[int, ...], made_by: dict[str, onnx.NodeProto]) -> bool:
    """Whether a 1x1 convolution sees a single position: its input comes from a global pool."""
    if any(size != 1 for size in dims[2:]) or not use.node.input:
        return False
    name = use.node.input[0]
    for _ in range(64):
        node = made_by.get(name)
        if node is None:
            return False
        if node.op_type in _GLOBAL_POOLS or _reduces_space(node, made_by):
            return True
        if node.op_type not in _BETWEEN_POOL_AND_FC or not node.input:
            return False
        if node.op_type == "Conv" and any(_attribute_ints(node, "kernel_shape")[i : i + 1] != [1] for i in range(2)):
            return False
        name = node.input[0]
    return False


def _attribute_ints(node: onnx.NodeProto, name: str) -> list[int]:
    return next((list(a.ints) for a in node.attribute if a.name == name), [])


def _reduces_space(node: onnx.NodeProto, made_by: dict[str, onnx.NodeProto]) -> bool:
    if node.op_type != "ReduceMean":
        return False
    axes = _attribute_ints(node, "axes")
    if not axes and len(node.input) > 1:
        constant = made_by.get(node.input[1])
        if constant is not None and constant.op_type == "Constant":
            from onnx import numpy_helper

            axes = [int(v) for a in constant.attribute if a.name == "value" for v in numpy_helper.to_array(a.t).ravel()]
    return sorted(axes) in ([2, 3], [-2, -1], [2], [-1])
