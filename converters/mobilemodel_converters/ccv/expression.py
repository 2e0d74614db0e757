"""An ONNX graph as a ccv convnet, or a refusal that names the first node for which ccv has no words.

A convnet is a row of layers: convolutions (always with ReLU), pools and normalisations, then full connects. Softmax,
flattening and what does nothing at inference have no layers of their own.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING

from mobilemodel.dtypes import QUANTIZABLE
from mobilemodel.dtypes import name as dtype_name
from mobilemodel.errors import LimitExceededError, UnsupportedSourceError, escape
from mobilemodel.graphs import domain, standard_opset
from mobilemodel.limits import FORMAT_LIMITS
from mobilemodel_converters.ccv.graph import Constant, Constants, Node, title
from mobilemodel_converters.ccv.layers import Size
from mobilemodel_converters.ccv.rows import (
    AveragePool,
    Convolution,
    FullConnect,
    Layer,
    MaxPool,
    Normalisation,
    Pool,
    with_partitions,
)
from mobilemodel_converters.ccv.schema import LARGEST
from mobilemodel_converters.onnx.tensors import small_integers

if TYPE_CHECKING:
    import onnx


@dataclass(frozen=True)
class Convnet:
    """A network that ccv can express."""

    layers: tuple[Layer, ...]
    input_name: str

    @property
    def input(self) -> Size:
        """The input of the first layer, which is the network's."""
        return self.layers[0].input


def express(model: onnx.ModelProto) -> Convnet:
    """The layers of a checked graph (``build.parse_graph``), whose weights are not read.

    Raises UnsupportedSourceError naming the first node that ccv cannot express, and why.
    """
    walk = _Walk(model)
    while (node := walk.next_node()) is not None:
        rule = _RULES.get(node.type)
        if rule is None:
            node.refuse("ccv has no such layer", expected=", ".join(_RULES))
        rule(walk, node)
    return Convnet(with_partitions(walk.finished()), walk.input)


class _Walk:
    """The way from the graph's input to its output, node by node."""

    def __init__(self, model: onnx.ModelProto) -> None:
        self.opset = standard_opset(model) or 1
        self.constants = Constants(model.graph)
        self.takers: dict[str, list[onnx.NodeProto]] = defaultdict(list)
        for node in model.graph.node:
            for name in set(node.input) - {""}:
                self.takers[name].append(node)
        self.functions = {function.name for function in model.functions}
        self.output = _only("output", [value.name for value in model.graph.output])
        inputs = [value for value in model.graph.input if value.name not in self.constants]
        self.input = self.value = _only("input", [value.name for value in inputs])
        self.size = _picture_size(inputs[0])
        self.batch = inputs[0].type.tensor_type.shape.dim[0].dim_value
        self.flat = False
        self.softmax = False
        self.layers: list[Layer] = []
        self.waiting: Node | None = None
        """the convolution whose ReLU has not been seen yet"""
        self.last: Node | None = None

    def is_foreign(self, node: onnx.NodeProto) -> bool:
        """Whether the operator is not ONNX's own."""
        return bool(domain(node.domain)) or node.op_type in self.functions

    def next_node(self) -> Node | None:
        """The one node that takes the current value; None at the output."""
        if self.value == self.output:
            return None
        takers = self.takers[self.value]
        if not takers:
            raise UnsupportedSourceError("the graph's input does not lead to its output", found=escape(self.value))
        node = Node(takers[0])
        if len(takers) > 1:
            node.refuse(f"ccv's layers are a row, and {title(takers[1])} takes the same value", found=self.value)
        if self.is_foreign(takers[0]):
            node.refuse("ccv has no such layer", found=takers[0].domain or "a function")
        if self.waiting is not None and node.type not in ("Relu", *_NOTHING):
            self.waiting.refuse("ccv needs a Relu behind every convolution", found=node.title)
        if self.softmax and node.type not in _NOTHING:
            node.refuse("ccv needs Softmax to be the end")
        self.last = node
        return node

    def go_on(self, node: Node) -> None:
        """Step over a node."""
        self.value = node.output

    def finished(self) -> list[Layer]:
        """The layers, once the output is reached."""
        if self.waiting is not None:
            self.waiting.refuse("ccv needs a Relu behind every convolution", found="the output")
        if self.last is None:
            raise UnsupportedSourceError("a graph without nodes is no network of ccv's")
        end = self.layers[-1] if self.layers else None
        if not isinstance(end, FullConnect) or end.relu:
            self.last.refuse("ccv needs a full connect (Gemm or MatMul) without Relu as the last layer")
        return self.layers

    def needs_picture(self, node: Node) -> None:
        if self.flat:
            node.refuse("ccv needs it before the flattening")

    def needs_flat(self, node: Node) -> None:
        if not self.flat:
            node.refuse("ccv needs a flattened input for it (Flatten, or Reshape to two axes)")

    def constant(self, node: Node, index: int, *ranks: int) -> Constant:
        """A weight or bias of a node, of one of these numbers of axes."""
        found = self.constants.find(node.input(index))
        if found is None:
            node.refuse(f"ccv needs a constant as input {index}", found=node.input(index) or "none")
        if found.tensor.data_type not in QUANTIZABLE:
            node.refuse("ccv keeps float32 and float16", found=dtype_name(found.tensor.data_type))
        if len(found.dims) not in ranks or min(found.dims) < 1:
            node.refuse(f"the axes of input {index} cannot be ccv's", found=list(found.dims))
        return found

    def bias(self, node: Node, index: int, count: int) -> Constant | None:
        """One value for each output; None where there is no such input."""
        if not node.input(index):
            return None
        found = self.constant(node, index, 1, 2)
        if found.dims not in ((count,), (1, count)):
            node.refuse("ccv needs a bias of one value for each output", expected=count, found=list(found.dims))
        return found

    def integers(self, name: str) -> tuple[int, ...] | None:
        """The values of a short constant, such as a shape."""
        found = self.constants.find(name)
        return small_integers(found.tensor) if found is not None else None

    def slide(self, node: Node, window: tuple[int, int]) -> tuple[int, int]:
        """Strides and border of a window; the size becomes that of what it gives."""
        strides = node.same("strides")
        if any(value != 1 for value in node.integers("dilations")):
            node.refuse("ccv needs dilations of 1", found=node.integers("dilations"))
        sides = (self.size.rows, self.size.cols)
        border = node.border(sides, window, strides)
        for side, width in zip(sides, window, strict=True):
            if side + 2 * border < width or (side + 2 * border - width) % strides:
                node.refuse("ccv needs steps that end at the edge: a multiple of the stride",
                            expected=f"(side + 2 x border - window) mod {strides} = 0",
                            found=f"{side} + 2 x {border} - {width}")  # fmt: skip
        rows, columns = ((side + 2 * border - width) // strides + 1 for side, width in zip(sides, window, strict=True))
        self.size = _checked(Size(rows, columns, self.size.channels), node)
        return strides, border


def _only(what: str, names: list[str]) -> str:
    if len(names) != 1:
        raise UnsupportedSourceError(f"ccv needs exactly one {what}", found=", ".join(map(escape, names)) or "none")
    return names[0]


def _picture_size(value: onnx.ValueInfoProto) -> Size:
    shape = value.type.tensor_type.shape.dim
    sizes = [int(axis.dim_value) for axis in shape]
    if len(sizes) != 4 or min(sizes[1:]) < 1:
        found = " x ".join(str(size) if size > 0 else "?" for size in sizes)
        raise UnsupportedSourceError(f"ccv needs the size of the input '{escape(value.name)}'",
                                     expected="N x C x H x W, the last three known", found=found or "none")  # fmt: skip
    return _checked(Size(sizes[2], sizes[3], sizes[1]), None)


def _checked(size: Size, node: Node | None) -> Size:
    if size.values > FORMAT_LIMITS.elements:
        place = f"{node.title}: " if node is not None else ""
        raise LimitExceededError(f"{place}values of an activation", expected=f"at most {FORMAT_LIMITS.elements}",
                                 found=size.values)  # fmt: skip
    return size


def _convolution(walk: _Walk, node: Node) -> None:
    walk.needs_picture(node)
    size = walk.size
    weight = walk.constant(node, 1, 4)
    if weight.transposed:
        node.refuse("ccv needs a weight that is not transposed")
    count, per_group, *sides = weight.dims
    kernel, groups = (sides[0], sides[1]), node.integer("group", 1)
    if groups < 1 or size.channels != per_group * groups:
        node.refuse("the weight does not fit the input", expected=f"{size.channels} channels",
                    found=f"{groups} groups of {per_group}")  # fmt: skip
    if node.integers("kernel_shape") not in ((), kernel):
        node.refuse("kernel_shape is not that of the weight", expected=kernel, found=node.integers("kernel_shape"))
    if not all(side % 2 for side in kernel):
        node.refuse("ccv needs odd kernels", found=f"{kernel[0]} x {kernel[1]}")
    if count % groups or count // groups % 4:
        node.refuse("ccv needs a multiple of 4 filters in each group", found=f"{count} in {groups} groups")
    strides, border = walk.slide(node, kernel)
    bias = walk.bias(node, 2, count)
    walk.layers.append(Convolution(node.title, size, groups, count, weight, bias, kernel, strides, border))
    walk.size = _checked(replace(walk.size, channels=count), node)
    walk.waiting = node
    walk.go_on(node)


def _relu(walk: _Walk, node: Node) -> None:
    last = walk.layers[-1] if walk.layers else None
    if walk.waiting is not None:
        walk.waiting = None
    elif isinstance(last, FullConnect) and not last.relu:
        walk.layers[-1] = replace(last, relu=True)
    else:
        node.refuse("ccv has a Relu behind a convolution or a full connect, nowhere else")
    walk.go_on(node)


def _pool(kind: type[Pool], walk: _Walk, node: Node) -> None:
    walk.needs_picture(node)
    size = walk.size
    window = node.same("kernel_shape")
    strides, border = walk.slide(node, (window, window))
    if border >= window:
        node.refuse("the window of a pool must be larger than its border", found=f"{window}, border {border}")
    if kind is AveragePool and border and node.integer("count_include_pad", 0):
        node.refuse("ccv needs an average without the padding: count_include_pad 0")
    walk.layers.append(kind(node.title, size, 1, window, strides, border))
    walk.go_on(node)


def _global_pool(kind: type[Pool], walk: _Walk, node: Node) -> None:
    walk.needs_picture(node)
    size = walk.size
    if size.rows != size.cols:
        node.refuse("ccv needs square windows", found=f"{size.rows} x {size.cols}")
    walk.layers.append(kind(node.title, size, 1, size.rows, 1, 0))
    walk.size = Size(1, 1, size.channels)
    walk.go_on(node)


def _normalisation(walk: _Walk, node: Node) -> None:
    walk.needs_picture(node)
    walk.layers.append(_normalised(node, walk.size, 1))
    walk.go_on(node)


def _normalised(node: Node, size: Size, partition: int) -> Normalisation:
    window = node.integer("size", 0)
    if window % 2 == 0 or not 1 <= window <= LARGEST:
        node.refuse("ccv needs an odd window", found=window)
    numbers = node.number("bias", 1.0), node.number("alpha", 1e-4), node.number("beta", 0.75)
    if not all(map(math.isfinite, numbers)):
        node.refuse("ccv needs numbers that are finite", found=numbers)
    return Normalisation(node.title, size, partition, window, *numbers)


def _split(walk: _Walk, node: Node) -> None:
    """Split, LRN on each part, Concat: a normalisation whose window stays within its partition."""
    walk.needs_picture(node)
    parts = list(node.proto.output)
    count = walk.size.channels
    given = node.integers("split") or (walk.integers(node.input(1)) if node.input(1) else ())
    equal = count % len(parts) == 0 and given in ((), (count // len(parts),) * len(parts))
    if node.integer("axis", 0) not in (1, -3) or not equal:
        node.refuse("ccv needs equal parts of the channels")
    ways = [walk.takers[part] for part in parts]
    if any(len(way) != 1 or way[0].op_type != "LRN" or walk.is_foreign(way[0]) for way in ways):
        node.refuse("ccv splits channels for a normalisation (LRN) alone")
    found = {replace(_normalised(Node(way[0]), walk.size, len(parts)), node=node.title) for way in ways}
    ends = [walk.takers[way[0].output[0]] for way in ways]
    joined = {id(end[0]): Node(end[0]) for end in ends if len(end) == 1}
    if len(found) != 1 or any(len(end) != 1 for end in ends) or len(joined) != 1:
        node.refuse("ccv needs the same normalisation for all parts, and all parts together behind it")
    (concat,) = joined.values()
    together = list(concat.proto.input) == [way[0].output[0] for way in ways]
    if concat.type != "Concat" or not together or concat.integer("axis", 0) not in (1, -3):
        concat.refuse("ccv needs all parts of the channels together again, in their order")
    walk.layers.append(found.pop())
    walk.go_on(concat)


def _flatten(walk: _Walk, node: Node) -> None:
    if node.integer("axis", 1) not in (1, -1 if walk.flat else -3):
        node.refuse("ccv needs one row for each picture: axis 1", found=node.integer("axis", 1))
    walk.flat = True
    walk.go_on(node)


def _reshape(walk: _Walk, node: Node) -> None:
    shape = walk.integers(node.input(1)) or ()
    values = walk.size.values
    # -1 may stand for the batch, or for the values where the first size is the batch's.
    first = (0, -1, *([walk.batch] if walk.batch > 0 else [1]))
    rows = len(shape) == 2 and shape[0] in first and (shape[1] == values or (shape[1] == -1 and shape[0] != -1))
    if not rows:
        node.refuse("ccv needs one row for each picture", expected=f"[0, {values}]", found=list(shape) or "no constant")
    walk.flat = True
    walk.go_on(node)


def _gemm(walk: _Walk, node: Node) -> None:
    for name in ("alpha", "beta"):
        if node.number(name, 1.0) != 1:
            node.refuse(f"ccv needs {name} to be 1", found=node.number(name, 1.0))
    _full_connect(walk, node, inputs_first=not node.integer("transB", 0))


def _matmul(walk: _Walk, node: Node) -> None:
    _full_connect(walk, node, inputs_first=True)


def _full_connect(walk: _Walk, node: Node, *, inputs_first: bool) -> None:
    walk.needs_flat(node)
    if node.input(0) != walk.value or node.integer("transA", 0):
        node.refuse("ccv needs the data on the left, one row for each picture")
    weight = walk.constant(node, 1, 2)
    weight = replace(weight, transposed=weight.transposed != inputs_first)
    count, nodes = weight.dims
    if nodes != walk.size.values:
        node.refuse("the weight does not fit the input", expected=f"{walk.size.values} values", found=nodes)
    walk.layers.append(FullConnect(node.title, walk.size, 1, count, weight, walk.bias(node, 2, count)))
    walk.size = Size(count, 1, 1)
    walk.go_on(node)


def _add(walk: _Walk, node: Node) -> None:
    """The bias of a MatMul."""
    last = walk.layers[-1] if walk.layers else None
    if not isinstance(last, FullConnect) or last.bias is not None or last.relu:
        node.refuse("ccv adds nothing but the bias of a full connect, once")
    index = 1 if node.input(0) == walk.value else 0
    walk.layers[-1] = replace(last, bias=walk.bias(node, index, last.count))
    walk.go_on(node)


def _softmax(walk: _Walk, node: Node) -> None:
    """Implied: ccv's classifier applies it to the last layer."""
    walk.needs_flat(node)
    if node.integer("axis", -1 if walk.opset >= 13 else 1) not in (1, -1):
        node.refuse("ccv needs Softmax over the classes: axis 1")
    walk.softmax = True
    walk.go_on(node)


def _nothing(walk: _Walk, node: Node) -> None:
    if node.type == "Dropout" and node.input(2):
        training = walk.constants.find(node.input(2))
        if training is None or any(training.tensor.raw_data) or any(training.tensor.int32_data):
            node.refuse("ccv needs Dropout to do nothing: training_mode false")
    walk.go_on(node)


_NOTHING = ("Identity", "Dropout")
_RULES: dict[str, Callable[[_Walk, Node], None]] = {
    "Conv": _convolution, "Relu": _relu, "LRN": _normalisation, "Split": _split, "MaxPool": partial(_pool, MaxPool),
    "AveragePool": partial(_pool, AveragePool), "GlobalMaxPool": partial(_global_pool, MaxPool),
    "GlobalAveragePool": partial(_global_pool, AveragePool), "Flatten": _flatten, "Reshape": _reshape, "Gemm": _gemm,
    "MatMul": _matmul, "Add": _add, "Softmax": _softmax, **dict.fromkeys(_NOTHING, _nothing),
}  # fmt: skip
