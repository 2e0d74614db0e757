"""Chains of layers with constants written in every way, for property tests of transforms."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
from hypothesis import strategies as st
from onnx import ModelProto, NodeProto, TensorProto, helper, numpy_helper

from tests.models import tensor, value

Array = npt.NDArray[Any]


class Net:
    """A chain of nodes with constants written in every way."""

    def __init__(self, draw: st.DrawFn) -> None:
        self.draw = draw
        self.random = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
        self.opset = draw(st.sampled_from((7, 8, 9, 11, 13, 15, 17, 21)))
        self.nodes: list[NodeProto] = []
        self.initializers: list[TensorProto] = []
        self.count = 0

    def name(self) -> str:
        self.count += 1
        return f"v{self.count}"

    def node(self, operator: str, *inputs: str, **attributes: Any) -> str:
        output = self.name()
        self.nodes.append(helper.make_node(operator, list(inputs), [output], **attributes))
        return output

    def constant(self, values: Array) -> str:
        """An initializer, a Constant node, or an initializer behind Identity."""
        way = self.draw(st.sampled_from(("initializer", "initializer", "Constant", "Identity")))
        if way == "Constant":
            return self.node("Constant", value=numpy_helper.from_array(values))
        name = self.name()
        self.initializers.append(tensor(name, values))
        return self.node("Identity", name) if way == "Identity" else name

    def weight(self, *shape: int) -> str:
        values = (self.random.standard_normal(shape) / np.sqrt(np.prod(shape[1:]))).astype(np.float32)
        if self.draw(st.booleans()):
            return self.constant(values)
        perm = list(self.draw(st.permutations(range(len(shape)))))
        stored = self.constant(np.ascontiguousarray(values.transpose(np.argsort(perm))))
        return self.node("Transpose", stored, perm=perm)

    def per_channel(self, channels: int, rank: int) -> Array:
        """Shaped to be broadcast along axis 1 of ``rank`` axes; away from zero, with both signs."""
        values = self.random.uniform(0.5, 1.5, channels) * self.random.choice([-1, 1], channels)
        kind = self.draw(st.sampled_from(("all", "axis", "scalar", "one")))
        shape = {"all": (1, channels, *[1] * (rank - 2)), "axis": (channels, *[1] * (rank - 2)), "scalar": (),
                 "one": (1,)}[kind]  # fmt: skip
        return np.asarray(values[: int(np.prod(shape))].reshape(shape).astype(np.float32))

    def affine(self, x: str, channels: int, rank: int) -> str:
        """One node that multiplies or shifts each channel."""
        operator = self.draw(st.sampled_from(("BatchNormalization", "Mul", "Add", "Sub", "Div", "Dropout")))
        if operator == "BatchNormalization":
            spread = (0.5, 0.5, 0.5)
            scale, shift, mean = (self.random.normal(0, s, channels).astype(np.float32) for s in spread)
            variance = self.random.uniform(0.1, 2, channels).astype(np.float32)
            inputs = [self.constant(values) for values in (scale, shift, mean, variance)]
            given_epsilon = self.draw(st.booleans())
            epsilon = {"epsilon": self.draw(st.sampled_from((1e-12, 1e-3, 0.5)))} if given_epsilon else {}
            return self.node("BatchNormalization", x, *inputs, **epsilon)
        if operator == "Dropout":
            return self.node("Dropout", x)
        constant = self.constant(self.per_channel(channels, rank))
        first = operator == "Div" or self.draw(st.booleans())
        return self.node(operator, *((x, constant) if first else (constant, x)))

    def conv(self, x: str, channels: int, size: int) -> tuple[str, int]:
        transposed = self.draw(st.booleans())
        groups = self.draw(st.sampled_from([g for g in (1, 2, channels) if channels % g == 0]))
        outputs = groups * self.draw(st.integers(1, 3))
        kernel = [self.draw(st.integers(1, 3)), self.draw(st.integers(1, 3))]
        dilations = [self.draw(st.integers(1, 2)), 1]
        pads = self.draw(st.sampled_from(([0, 0, 0, 0], [1, 1, 1, 1], [0, 1, 1, 0])))
        attributes: dict[str, Any] = {"group": groups, "kernel_shape": kernel, "dilations": dilations}
        attributes |= {"strides": [1, self.draw(st.integers(1, 2))], "pads": pads}
        shape = (channels, outputs // groups) if transposed else (outputs, channels // groups)
        inputs = [x, self.weight(*shape, *kernel)]
        if self.draw(st.booleans()):
            inputs.append(self.constant(self.random.standard_normal(outputs).astype(np.float32)))
        return self.node("ConvTranspose" if transposed else "Conv", *inputs, **attributes), outputs

    def gemm(self, x: str, inputs: int) -> tuple[str, int]:
        outputs = self.draw(st.integers(1, 4))
        transposed = self.draw(st.integers(0, 1))
        attributes: dict[str, Any] = {"transB": transposed, "alpha": self.draw(st.sampled_from((1.0, 0.5, -2.0)))}
        if self.draw(st.booleans()):
            attributes["beta"] = self.draw(st.sampled_from((0.0, 0.25, 1.0)))
        shape = (outputs, inputs) if transposed else (inputs, outputs)
        operands = [x, self.weight(*shape)]
        if self.opset < 11 or self.draw(st.booleans()):
            bias = self.random.standard_normal(outputs).astype(np.float32)
            dims = self.draw(st.sampled_from(((outputs,), (1, outputs), (1,), ())))
            operands.append(self.constant(bias[: int(np.prod(dims))].reshape(dims)))
        return self.node("Gemm", *operands, **attributes), outputs

    def matmul(self, x: str, inputs: int) -> tuple[str, int]:
        outputs = self.draw(st.integers(1, 4))
        return self.node("MatMul", x, self.weight(inputs, outputs)), outputs

    def done(self, inputs: list[Any], rank: int, *outs: str) -> ModelProto:
        outputs = [value(name, [None] * rank) for name in outs]
        graph = helper.make_graph(self.nodes, "g", inputs, outputs, self.initializers)
        made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", self.opset)])
        made.ir_version = 8 if self.opset < 21 else 10
        return made
