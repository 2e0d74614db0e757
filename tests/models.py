"""ONNX networks for the tests: small, but in the proportions of the real ones, with heavy-tailed seeded weights.

``NETWORKS`` are whole networks; ``FC_WAYS`` one FC layer written in every way that exporters write it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from onnx import FunctionProto, GraphProto, ModelProto, NodeProto, TensorProto, ValueInfoProto, helper, numpy_helper

Array = npt.NDArray[Any]
FLOAT = TensorProto.FLOAT
OUTPUTS, INPUTS = 12, 20


def value(name: str, shape: list[Any] | None = None, dtype: int = FLOAT) -> ValueInfoProto:
    """A graph's input or output; without a shape the rank is unknown."""
    return helper.make_tensor_value_info(name, dtype, shape)


def tensor(name: str, array: Array) -> TensorProto:
    """An initializer with ``raw_data``."""
    return numpy_helper.from_array(np.ascontiguousarray(array), name)


def model(
    nodes: list[NodeProto], inputs: list[ValueInfoProto], initializers: list[TensorProto], *, opset: int = 17,
    ir_version: int = 8, outputs: list[ValueInfoProto] | None = None, functions: list[FunctionProto] | None = None,
) -> ModelProto:  # fmt: skip
    """A model whose output is ``y`` unless others are given."""
    graph = helper.make_graph(nodes, "g", inputs, outputs or [value("y")], initializers)
    opsets = [helper.make_opsetid("", opset)]
    if functions:
        opsets.append(helper.make_opsetid("tests", 1))
    made = helper.make_model(graph, opset_imports=opsets, functions=functions or [])
    made.ir_version = ir_version
    return made


class Net:
    """Gathers nodes and heavy-tailed weights in the order in which data flow."""

    def __init__(self, seed: int) -> None:
        self.random = np.random.default_rng(seed)
        self.nodes: list[NodeProto] = []
        self.initializers: list[TensorProto] = []

    def weight(self, name: str, *shape: int, spread: float | None = None) -> str:
        """Student's t with 5 degrees of freedom: trained layers have such tails. Scaled to keep activations' size."""
        fan_in = int(np.prod(shape[1:])) or 1
        values = self.random.standard_t(5, shape) * (spread or 1 / np.sqrt(fan_in))
        return self.constant(name, values.astype(np.float32))

    def constant(self, name: str, array: Array) -> str:
        self.initializers.append(tensor(name, array))
        return name

    def node(self, operator: str, *inputs: str, name: str = "", **attributes: Any) -> str:
        output = name or f"v{len(self.nodes)}"
        self.nodes.append(helper.make_node(operator, list(inputs), [output], **attributes))
        return output

    def conv(self, name: str, x: str, o: int, i: int, k: int, *, bias: bool = True, **attributes: Any) -> str:
        inputs = [x, self.weight(f"{name}.weight", o, i, k, k)]
        if bias:
            inputs.append(self.weight(f"{name}.bias", o, spread=0.1))
        return self.node("Conv", *inputs, kernel_shape=[k, k], pads=[k // 2] * 4, **attributes)

    def norm(self, name: str, x: str, channels: int) -> str:
        scale = self.constant(f"{name}.scale", self.random.uniform(0.5, 1.5, channels).astype(np.float32))
        shift = self.weight(f"{name}.shift", channels, spread=0.1)
        mean = self.weight(f"{name}.mean", channels, spread=0.1)
        variance = self.constant(f"{name}.variance", self.random.uniform(0.5, 2, channels).astype(np.float32))
        return self.node("BatchNormalization", x, scale, shift, mean, variance)

    def gemm(self, name: str, x: str, o: int, i: int, output: str = "") -> str:
        w, b = self.weight(f"{name}.weight", o, i), self.weight(f"{name}.bias", o, spread=0.1)
        return self.node("Gemm", x, w, b, name=output, transB=1)

    def done(self, *inputs: ValueInfoProto, opset: int = 17) -> ModelProto:
        return model(self.nodes, list(inputs), self.initializers, opset=opset)


def alexnet() -> ModelProto:
    """Two convolutions, one of them grouped, and three FC layers with nearly all of the weights."""
    net = Net(1)
    x = net.node("MaxPool", net.node("Relu", net.conv("conv1", "x", 16, 3, 5)), kernel_shape=[2, 2], strides=[2, 2])
    x = net.node("Relu", net.conv("conv2", x, 32, 8, 3, group=2))
    x = net.node("Flatten", net.node("MaxPool", x, kernel_shape=[2, 2], strides=[2, 2]))
    x = net.node("Relu", net.gemm("fc6", x, 96, 32 * 6 * 6))
    x = net.node("Relu", net.gemm("fc7", x, 64, 96))
    net.gemm("fc8", x, 10, 64, "y")
    return net.done(value("x", [1, 3, 24, 24]))


def vgg() -> ModelProto:
    """Pairs of 3x3 convolutions, then FC layers as MatMul and Add."""
    net = Net(2)
    x, channels = "x", 3
    for stage, width in enumerate((16, 24)):
        for index in range(2):
            x = net.node("Relu", net.conv(f"conv{stage}_{index}", x, width, channels, 3))
            channels = width
        x = net.node("MaxPool", x, kernel_shape=[2, 2], strides=[2, 2])
    x, size = net.node("Flatten", x), 24 * 5 * 5
    for name, width in (("fc1", 96), ("fc2", 10)):
        y = net.node("MatMul", x, net.weight(f"{name}.weight", size, width, spread=size**-0.5))
        x = net.node("Add", y, net.weight(f"{name}.bias", width, spread=0.1), name="y" if name == "fc2" else "")
        size = width
    return net.done(value("x", [1, 3, 20, 20]))


def mobilenet() -> ModelProto:
    """Inverted residuals with depthwise convolutions; the classifier is a small part."""
    net = Net(3)
    x = net.node("Relu", net.conv("stem", "x", 24, 3, 3, strides=[2, 2]))
    for block in range(3):
        y = net.node("Relu", net.conv(f"b{block}.expand", x, 144, 24, 1))
        y = net.node("Relu", net.conv(f"b{block}.depthwise", y, 144, 1, 3, group=144))
        x = net.node("Add", x, net.conv(f"b{block}.project", y, 24, 144, 1))
    x = net.node("GlobalAveragePool", net.node("Relu", net.conv("head", x, 192, 24, 1)))
    net.gemm("classifier", net.node("Flatten", x), 10, 192, "y")
    return net.done(value("x", [1, 3, 16, 16]))


def resnet() -> ModelProto:
    """Residual blocks of 3x3 convolutions without bias, each with its BatchNormalization."""
    net = Net(4)
    x = net.node("Relu", net.norm("bn0", net.conv("conv0", "x", 32, 3, 3, bias=False), 32))
    for block in range(2):
        y = net.conv(f"b{block}.conv1", x, 32, 32, 3, bias=False)
        y = net.node("Relu", net.norm(f"b{block}.bn1", y, 32))
        y = net.norm(f"b{block}.bn2", net.conv(f"b{block}.conv2", y, 32, 32, 3, bias=False), 32)
        x = net.node("Relu", net.node("Add", x, y))
    net.gemm("fc", net.node("Flatten", net.node("GlobalAveragePool", x)), 10, 32, "y")
    return net.done(value("x", [1, 3, 12, 12]))


def lstm() -> ModelProto:
    """An LSTM over five steps and an FC layer on each."""
    net = Net(5)
    inputs = ["x", net.weight("w", 1, 192, 32, spread=0.15), net.weight("r", 1, 192, 48, spread=0.1)]
    inputs.append(net.weight("b", 1, 384, spread=0.1))
    net.nodes.append(helper.make_node("LSTM", inputs, ["h"], hidden_size=48))
    steps = net.node("Squeeze", "h", net.constant("one", np.array([1])))
    net.node("MatMul", steps, net.weight("out", 48, 30), name="y")
    return net.done(value("x", [5, 1, 32]))


def transformer() -> ModelProto:
    """One block: embedding, attention, feed-forward; the embedding is tied to the last layer."""
    net = Net(6)
    width = 32
    x = net.node("Gather", net.weight("embedding", 160, width), "ids")
    q, k, v = (net.node("MatMul", x, net.weight(f"{name}.weight", width, width)) for name in "qkv")
    scores = net.node("MatMul", q, net.node("Transpose", k, perm=[1, 0]))
    scores = net.node("Mul", scores, net.constant("scale", np.array(width**-0.5, np.float32)))
    y = net.node("MatMul", net.node("Softmax", scores), v)
    x = net.node("Add", x, net.node("MatMul", y, net.weight("o.weight", width, width)))
    gain = net.constant("norm.scale", np.ones(width, np.float32))
    x = net.node("LayerNormalization", x, gain, net.weight("norm.shift", width, spread=0.1))
    y = net.node("Relu", net.node("MatMul", x, net.weight("up.weight", width, 4 * width, spread=0.2)))
    x = net.node("Add", x, net.node("MatMul", y, net.weight("down.weight", 4 * width, width, spread=0.1)))
    net.node("MatMul", x, net.node("Transpose", "embedding", perm=[1, 0]), name="y")
    return net.done(value("ids", [7], TensorProto.INT64))


NETWORKS: dict[str, Callable[[], ModelProto]] = {
    "alexnet": alexnet, "vgg": vgg, "mobilenet": mobilenet, "resnet": resnet, "lstm": lstm, "transformer": transformer,
}  # fmt: skip


@dataclass(frozen=True)
class Way:
    """An FC layer: its model, the name of its weight, and whether its data come as INPUTS x n instead of n x INPUTS."""

    model: ModelProto
    weight: str = "w"
    columns: bool = False
    role: str = "fc"
    pictures: bool = False


def fc_matrix() -> npt.NDArray[np.float32]:
    """OUTPUTS x INPUTS of 16 values, no two rows or columns alike: an exact palette of 4 bit."""
    r, c = np.mgrid[:OUTPUTS, :INPUTS]
    levels = np.random.default_rng(7).permutation(np.array([*range(-8, 0), *range(1, 9)], np.float32))
    return np.asarray(levels[(r * 7 + c * 3 + r * c) % 16], np.float32)


W = fc_matrix()
ROWS = value("x", [3, INPUTS])
COLUMNS = value("x", [INPUTS, 3])
PICTURE = value("x", [3, INPUTS, 4, 4])


def _one(operator: str, inputs: list[str], **attributes: Any) -> list[NodeProto]:
    return [helper.make_node(operator, inputs, ["y"], **attributes)]


def _behind(operator: str, stored: Array, inputs: list[str] | None = None, extra: list[TensorProto] | None = None,
            last: list[NodeProto] | None = None, opset: int = 17, **attributes: Any) -> Way:  # fmt: skip
    """A weight that goes through one node before MatMul, or ``last``, takes it."""
    nodes = [helper.make_node(operator, inputs or ["w"], ["v"], **attributes), *(last or _one("MatMul", ["x", "v"]))]
    return Way(model(nodes, [ROWS], [tensor("w", stored), *(extra or [])], opset=opset))


def _shape(*sizes: int) -> list[TensorProto]:
    return [tensor("shape", np.array(sizes, np.int64))]


def _gemm_b() -> list[NodeProto]:
    return _one("Gemm", ["x", "v"], transB=1)


def _pooled(pool: list[NodeProto], extra: list[TensorProto], opset: int) -> Way:
    nodes = [
        *pool,
        helper.make_node("Conv", ["p", "w"], ["c"], kernel_shape=[1, 1]),
        helper.make_node("Flatten", ["c"], ["y"]),
    ]
    made = model(nodes, [PICTURE], [tensor("w", W[:, :, None, None]), *extra], opset=opset)
    return Way(made, pictures=True)


def _branch(name: str, initializers: list[TensorProto], nodes: list[NodeProto], output: str) -> GraphProto:
    return helper.make_graph(nodes, name, [], [value(output)], initializers)


def in_if(first: str = "w", second: str = "other") -> ModelProto:
    """Both branches of an If hold a weight of their own."""
    branches = [
        _branch("yes", [tensor(first, W)], [helper.make_node("Gemm", ["x", first], ["a"], transB=1)], "a"),
        _branch("no", [tensor(second, -W)], [helper.make_node("Gemm", ["x", second], ["b"], transB=1)], "b"),
    ]
    node = helper.make_node("If", ["yes"], ["y"], then_branch=branches[0], else_branch=branches[1])
    return model([node], [ROWS], [tensor("yes", np.array(True))])


def _in_loop() -> ModelProto:
    body = helper.make_graph(
        [
            helper.make_node("MatMul", ["x", "w"], ["product"]),
            helper.make_node("Add", ["sum", "product"], ["next"]),
            helper.make_node("Identity", ["go"], ["on"]),
        ],
        "body", [value("i", [], TensorProto.INT64), value("go", [], TensorProto.BOOL), value("sum", [3, OUTPUTS])],
        [value("on", [], TensorProto.BOOL), value("next", [3, OUTPUTS])], [tensor("w", W.T)],
    )  # fmt: skip
    node = helper.make_node("Loop", ["once", "", "start"], ["y"], body=body)
    start = tensor("start", np.zeros((3, OUTPUTS), np.float32))
    return model([node], [ROWS], [tensor("once", np.array(1, np.int64)), start])


def in_function(inside: bool) -> ModelProto:
    """A function of the model multiplies; its weight is an argument, or a constant within it."""
    nodes = [helper.make_node("MatMul", ["a", "b"], ["c"])]
    if inside:
        nodes.insert(0, helper.make_node("Constant", [], ["b"], value=tensor("", W.T)))
    inputs = ["a"] if inside else ["a", "b"]
    opsets = [helper.make_opsetid("", 17)]
    function = helper.make_function("tests", "Multiply", inputs, ["c"], nodes, opsets)
    call = helper.make_node("Multiply", ["x"] if inside else ["x", "w"], ["y"], domain="tests")
    return model([call], [ROWS], [] if inside else [tensor("w", W.T)], functions=[function])


def quantized() -> ModelProto:
    """An int8 weight behind DequantizeLinear."""
    scale, zero = tensor("s", np.array(1, np.float32)), tensor("z", np.array(0, np.int8))
    nodes = [helper.make_node("DequantizeLinear", ["w", "s", "z"], ["v"]), *_one("MatMul", ["x", "v"])]
    return model(nodes, [ROWS], [tensor("w", W.T.astype(np.int8)), scale, zero])


def fc_ways() -> dict[str, Way]:
    """Every way of writing y = x W^T, or y = W x for data in columns."""
    spaces = np.array([2, 3], np.int64)
    return {
        "Gemm transB=1": Way(model(_one("Gemm", ["x", "w"], transB=1), [ROWS], [tensor("w", W)])),
        "Gemm transB=0": Way(model(_one("Gemm", ["x", "w"]), [ROWS], [tensor("w", W.T)])),
        "Gemm, left": Way(model(_one("Gemm", ["w", "x"]), [COLUMNS], [tensor("w", W)]), columns=True),
        "Gemm, left, transA=1": Way(
            model(_one("Gemm", ["w", "x"], transA=1), [COLUMNS], [tensor("w", W.T)]), columns=True
        ),
        "MatMul, right": Way(model(_one("MatMul", ["x", "w"]), [ROWS], [tensor("w", W.T)])),
        "MatMul, left": Way(model(_one("MatMul", ["w", "x"]), [COLUMNS], [tensor("w", W)]), columns=True),
        "1x1 conv after a global pool": _pooled([helper.make_node("GlobalAveragePool", ["x"], ["p"])], [], 17),
        "1x1 conv after ReduceMean": _pooled([helper.make_node("ReduceMean", ["x"], ["p"], axes=[2, 3])], [], 17),
        "1x1 conv after ReduceMean, axes outside": _pooled(
            [helper.make_node("ReduceMean", ["x", "axes"], ["p"])], [tensor("axes", spaces)], 18
        ),
        "behind Transpose": _behind("Transpose", W, perm=[1, 0]),
        "behind Transpose without perm": _behind("Transpose", W),
        "behind Reshape": _behind("Reshape", W[:, :, None, None], ["w", "shape"], _shape(0, -1), _gemm_b()),
        "behind Reshape, stored flat": _behind("Reshape", W.T.reshape(-1), ["w", "shape"], _shape(INPUTS, OUTPUTS)),
        "behind Flatten": _behind("Flatten", W[:, :, None, None], last=_gemm_b()),
        "behind Squeeze": _behind("Squeeze", W[:, :, None, None], last=_gemm_b()),
        "behind Unsqueeze": Way(model(
            [helper.make_node("Unsqueeze", ["w", "shape"], ["v"]), helper.make_node("MatMul", ["x", "v"], ["z"]),
             helper.make_node("Squeeze", ["z"], ["y"])], [ROWS], [tensor("w", W.T), *_shape(0)],
        )),
        "behind Identity": _behind("Identity", W.T),
        "behind Cast": _behind("Cast", W.T.astype(np.float16), to=FLOAT),
        "Constant node": Way(model(
            [helper.make_node("Constant", [], ["w"], value=tensor("", W.T)), *_one("MatMul", ["x", "w"])], [ROWS], []
        )),
        "in If": Way(in_if()),
        "in Loop": Way(_in_loop()),
        "a function's argument": Way(in_function(False)),
        "input and initializer, IR 3": Way(model(
            _one("MatMul", ["x", "w"]), [ROWS, value("w", [INPUTS, OUTPUTS])], [tensor("w", W.T)], opset=7, ir_version=3
        )),
        "used twice": Way(model(
            [helper.make_node("MatMul", ["x", "w"], ["a"]), helper.make_node("MatMul", ["x", "w"], ["b"]),
             helper.make_node("Max", ["a", "b"], ["y"])], [ROWS], [tensor("w", W.T)],
        )),
    }  # fmt: skip
