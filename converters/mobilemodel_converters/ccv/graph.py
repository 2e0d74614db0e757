"""Reading an ONNX graph for ``expression``: nodes with their attributes, and values that do not change."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, NoReturn

import numpy as np

from mobilemodel.dtypes import DType
from mobilemodel.errors import UnsupportedSourceError, escape
from mobilemodel.graphs import constant_value, domain, integer, integers, real, text
from mobilemodel_converters.ccv.schema import LARGEST

if TYPE_CHECKING:
    import onnx


@dataclass(frozen=True)
class Constant:
    """A weight or a bias: an initializer of the graph, or of the bundle where that one is a reference."""

    tensor: onnx.TensorProto
    transposed: bool = False
    """a matrix whose axes the graph swaps"""

    @property
    def dims(self) -> tuple[int, ...]:
        """Sizes of the axes as the node sees them."""
        dims = tuple(self.tensor.dims)
        return dims[::-1] if self.transposed else dims


class Constants:
    """Initializers and Constant nodes by name, also behind Identity and the Transpose of a matrix."""

    def __init__(self, graph: onnx.GraphProto) -> None:
        self._tensors = {tensor.name: tensor for tensor in graph.initializer}
        self._made_by = {node.output[0]: node for node in graph.node if node.output}

    def __contains__(self, name: str) -> bool:
        return name in self._tensors

    def find(self, name: str) -> Constant | None:
        """The constant called ``name``; None for what is none."""
        transposed = False
        while name not in self._tensors:
            node = self._made_by.get(name)
            if node is None or domain(node.domain):
                return None
            value = _own_value(node)
            if value is not None:
                return Constant(value, transposed)
            if not node.input or node.op_type not in ("Identity", "Transpose"):
                return None
            if node.op_type == "Transpose":
                if integers(node, "perm") != (1, 0):
                    return None
                transposed = not transposed
            name = node.input[0]
        return Constant(self._tensors[name], transposed)


def _own_value(node: onnx.NodeProto) -> onnx.TensorProto | None:
    """The value of a Constant node: a tensor, or a list of integers such as a shape."""
    value = constant_value(node)
    found = integers(node, "value_ints") if node.op_type == "Constant" else ()
    if value is not None or not found:
        return value
    import onnx

    raw = np.array(found, "<i8").tobytes()
    return onnx.TensorProto(data_type=DType.INT64, dims=[len(found)], raw_data=raw)


def title(node: onnx.NodeProto) -> str:
    """A node's name and operator, fit to print."""
    return f"node '{escape(node.name or (node.output[0] if node.output else '?'))}' ({escape(node.op_type)})"


class Node:
    """A node of the graph, its attributes by name, and the refusal that names it."""

    def __init__(self, proto: onnx.NodeProto) -> None:
        self.proto = proto
        self.type: str = proto.op_type
        self.title = title(proto)
        if not proto.output or not proto.output[0]:
            self.refuse("a node without an output")
        self.output: str = proto.output[0]

    def refuse(self, why: str, *, expected: object = None, found: object = None) -> NoReturn:
        """Raise UnsupportedSourceError: why ccv cannot express this node."""
        raise UnsupportedSourceError(f"{self.title}: {why}", expected=expected, found=found)

    def input(self, index: int) -> str:
        """The name of an input; empty where it is left out."""
        return self.proto.input[index] if index < len(self.proto.input) else ""

    def integer(self, name: str, default: int) -> int:
        """An attribute of one integer."""
        return integer(self.proto, name, default)

    def integers(self, name: str) -> tuple[int, ...]:
        """An attribute of several integers; empty where there is none."""
        return integers(self.proto, name)

    def number(self, name: str, default: float) -> float:
        """An attribute of one float32."""
        return real(self.proto, name, default)

    def same(self, name: str) -> int:
        """An attribute of one integer for each direction, 1 where it is left out: the one for both."""
        values = self.integers(name) or (1, 1)
        if len(values) != 2 or values[0] != values[1] or not 1 <= values[0] <= LARGEST:
            self.refuse(f"ccv needs {name} to be the same in both directions", found=" x ".join(map(str, values)))
        return values[0]

    def border(self, sides: Sequence[int], window: Sequence[int], strides: int) -> int:
        """The padding, which has to be one and the same on all four sides of ``sides``."""
        automatic = text(self.proto, "auto_pad", b"")
        pads = self.integers("pads") or (0, 0, 0, 0)
        if automatic in (b"SAME_UPPER", b"SAME_LOWER"):
            totals = [max((-(-side // strides) - 1) * strides + width - side, 0)
                      for side, width in zip(sides, window, strict=True)]  # fmt: skip
            pads = (*(total // 2 for total in totals), *(total - total // 2 for total in totals))
        elif automatic == b"VALID":
            pads = (0, 0, 0, 0)
        elif automatic not in (b"", b"NOTSET"):
            self.refuse("ccv needs pads that are known", found=automatic)
        if len(pads) != 4 or len(set(pads)) != 1 or not 0 <= pads[0] <= LARGEST:
            self.refuse("ccv needs the same padding on all four sides", found=list(pads))
        return pads[0]
