"""What a weight is to the network, and the order of its matrix: one row for each output (spec/tensors.md §3.1)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from mobilemodel.graphs import all_nodes, domain, integer, integers
from mobilemodel.model import MatrixOrder, Role
from mobilemodel_converters.onnx.arrangement import Arrangement, arrangement
from mobilemodel_converters.onnx.tensors import small_integers
from mobilemodel_converters.onnx.uses import Use, UseIndex, final_uses

if TYPE_CHECKING:
    import onnx

# What may stand between a global pool and the 1x1 convolution that is an FC layer in all but name.
_BETWEEN_POOL_AND_FC = frozenset((
    "Relu", "LeakyRelu", "PRelu", "Clip", "Sigmoid", "HardSigmoid", "HardSwish", "Tanh", "Elu", "Selu", "Identity",
    "Cast", "Dropout", "BatchNormalization", "Reshape", "Flatten", "Squeeze", "Unsqueeze", "Softplus",
))  # fmt: skip
_TWO_VALUES = frozenset(("Mul", "Add", "Sub", "Div"))
_GLOBAL_POOLS = frozenset(("GlobalAveragePool", "GlobalMaxPool", "GlobalLpPool"))
_MATRIX_INPUTS = {
    "Gemm": (0, 1), "MatMul": (0, 1), "QLinearMatMul": (0, 3), "MatMulInteger": (0, 1), "FusedMatMul": (0, 1),
    "FusedGemm": (0, 1), "DynamicQuantizeMatMul": (1,), "MatMulIntegerToFloat": (0, 1), "MatMulNBits": (1,),
    "Attention": (1,),
}  # fmt: skip
_CONV_WEIGHTS = {"Conv": 1, "ConvTranspose": 1, "QLinearConv": 3, "ConvInteger": 1, "FusedConv": 1, "DeformConv": 1}
_EMBEDDINGS = {"EmbedLayerNormalization": (2, 3, 4)}
_RECURRENT = frozenset(("RNN", "LSTM", "GRU"))


@dataclass(frozen=True)
class Weight:
    """A tensor's role, the operator that gives it, and its place in the graph."""

    role: Role
    operator: str
    order: MatrixOrder
    place: int


NO_WEIGHT = Weight(Role.OTHER, "", MatrixOrder(), 0)


@dataclass(frozen=True)
class Network:
    """What roles are told from: all uses, the node that makes each value, and tensors whose names are defined once."""

    index: UseIndex
    made_by: dict[str, onnx.NodeProto]
    constants: dict[str, onnx.TensorProto]

    def integers(self, name: str) -> tuple[int, ...] | None:
        """The values of a short constant, such as axes or a shape; None for what is none."""
        constant = self.constants.get(name)
        if constant is not None:
            return small_integers(constant)
        node = self.made_by.get(name)
        values = integers(node, "value_ints") if node is not None and node.op_type == "Constant" else ()
        return values or None


def producers(graph: onnx.GraphProto) -> dict[str, onnx.NodeProto]:
    """The node that makes each value, over a graph and the graphs within it."""
    return {output: node for node in all_nodes(graph) for output in node.output if output}


def classify(uses: list[Use], dims: tuple[int, ...], network: Network) -> Weight:
    """The role of a tensor of ``dims`` by all its uses; the first in the graph decides, an FC layer before others.

    A quantized weight is followed through its DequantizeLinear, one quantized on the fly through QuantizeLinear too.
    """
    found = []
    for use in uses:
        for step in _through_dequantize(use, network.index):
            weight = _weight(step, arrangement(step, dims, network.integers), network)
            if weight is not None:
                found.append(weight)
    if not found:
        return NO_WEIGHT
    return min(found, key=lambda weight: (weight.role is not Role.FC, weight.place))


def _through_dequantize(use: Use, index: UseIndex, steps: int = 2) -> list[Use]:
    quantizing = use.node.op_type in ("QuantizeLinear", "DequantizeLinear")
    if not quantizing or not steps or use.position != 0 or use.in_function or not use.node.output:
        return [use]
    further = final_uses(index, use.node.output[0]) or []
    reached = [Use(u.node, u.position, use.order, use.chain + u.chain, u.in_function) for u in further]
    return [final for step in reached for final in _through_dequantize(step, index, steps - 1)]


def _weight(use: Use, arranged: Arrangement, network: Network) -> Weight | None:
    operator = use.node.op_type
    rank = len(arranged.axes)
    if domain(use.node.domain) not in ("", "com.microsoft"):
        return None
    if use.position in _MATRIX_INPUTS.get(operator, ()) and rank >= 2:
        return Weight(Role.FC, operator, _matrix_order(use, arranged), use.order)
    if operator == "Einsum" and rank >= 2:
        return Weight(Role.FC, operator, MatrixOrder(), use.order)
    if use.position in _EMBEDDINGS.get(operator, ()) and rank >= 2:
        return Weight(Role.EMBEDDING, operator, MatrixOrder(), use.order)
    if _CONV_WEIGHTS.get(operator) == use.position and rank >= 3:
        role = Role.FC if operator == "Conv" and _sees_one_position(use, arranged, network) else Role.CONV
        return Weight(role, operator, _conv_order(use, arranged), use.order)
    if operator in _RECURRENT and use.position in (1, 2) and rank == 3:
        return Weight(Role.RECURRENT, operator, arranged.order((0, 1, 2), 2), use.order)
    if operator == "Gather" and use.position == 0 and rank >= 2:
        axis = integer(use.node, "axis", 0) % rank
        wanted = (axis, *(other for other in range(rank) if other != axis))
        return Weight(Role.EMBEDDING, operator, arranged.order(wanted, 1), use.order)
    return None


def _matrix_order(use: Use, arranged: Arrangement) -> MatrixOrder:
    """Rows are outputs: Gemm and MatMul in all their ways, through transposes."""
    operator, rank = use.node.op_type, len(arranged.axes)
    if operator == "MatMulNBits":
        return MatrixOrder()
    left = use.position == 0
    transposed = operator in ("Gemm", "FusedGemm", "FusedMatMul") and integer(
        use.node, "transA" if left else "transB", 0
    )
    batch = tuple(range(rank - 2))
    last = (rank - 2, rank - 1) if left != bool(transposed) else (rank - 1, rank - 2)
    return arranged.order((*batch, *last), rank - 1)


def _conv_order(use: Use, arranged: Arrangement) -> MatrixOrder:
    """O x spatial x I; a ConvTranspose's channels are regrouped so that its rows are outputs too."""
    rank = len(arranged.axes)
    if use.node.op_type != "ConvTranspose":
        return arranged.order((0, *range(2, rank), 1), 1)
    groups = integer(use.node, "group", 1)
    shape = arranged.shape
    if not arranged.in_order or groups < 1 or shape[0] % groups:
        return MatrixOrder()
    return MatrixOrder((groups, shape[0] // groups, *shape[1:]), (0, 2, *range(3, rank + 1), 1), 2)


def _sees_one_position(use: Use, arranged: Arrangement, network: Network) -> bool:
    """Whether a 1x1 convolution sees a single position: all its input comes from global pools.

    A product of a pooled gate with a whole picture (squeeze and excitation) is a whole picture.
    """
    if any(size != 1 for size in arranged.shape[2:]) or use.in_function:
        return False
    waiting, seen = [use.node.input[0]], set()
    pooled = False
    while waiting:
        name = waiting.pop()
        if name in seen or name in network.constants:
            continue
        seen.add(name)
        node = network.made_by.get(name)
        if node is None or len(seen) > 256:
            return False
        if _pools_globally(node, network):
            pooled = True
        elif node.op_type in _TWO_VALUES:
            waiting += node.input
        elif node.input and _keeps_one_position(node):
            waiting.append(node.input[0])
        else:
            return False
    return pooled


def _keeps_one_position(node: onnx.NodeProto) -> bool:
    if node.op_type != "Conv":
        return node.op_type in _BETWEEN_POOL_AND_FC
    kernel = integers(node, "kernel_shape")
    return bool(kernel) and set(kernel) == {1} and not any(integers(node, "pads"))


def _pools_globally(node: onnx.NodeProto, network: Network) -> bool:
    if node.op_type in _GLOBAL_POOLS:
        return True
    if node.op_type != "ReduceMean":
        return False
    axes = integers(node, "axes")
    if not axes and len(node.input) > 1:
        axes = network.integers(node.input[1]) or ()
    return sorted(axes) in ([2, 3], [-2, -1], [2], [-1])
