"""Transforms keep what a network computes: ONNX Runtime on the graph before and after, over random small networks."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
from hypothesis import given
from hypothesis import strategies as st
from onnx import ModelProto, NodeProto, TensorProto, helper, numpy_helper

from mobilemodel.audit.multiply_adds import count_multiply_adds
from mobilemodel.model import WEIGHT_ROLES, Model
from mobilemodel.transforms import Change, fold, low_rank, low_rank_layers, order_units, remove_dead, remove_duplicates
from mobilemodel.transforms.factors import factored, spectrum
from mobilemodel.transforms.moments import response_error
from mobilemodel.transforms.saliency import smallest, surgeon
from tests.models import tensor, value
from tests.transforming import check_descriptions, imported, largest_difference, operators, plain

Array = npt.NDArray[Any]
CLOSE = 2e-6
"""of float32: relative to the largest output, a few units in the last place for each layer"""


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


@st.composite
def layers_among_affine_nodes(draw: st.DrawFn) -> ModelProto:
    """One or two layers with up to three affine nodes before and behind each; some values are outputs too."""
    net = Net(draw)
    flat = draw(st.booleans())
    rank = 2 if flat else 4
    channels = draw(st.integers(1, 4))
    inputs = [value("x", ["N", channels] if flat else ["N", channels, 9, 9])]
    x, taps = "x", []
    for _ in range(draw(st.integers(1, 2))):
        for _ in range(draw(st.integers(0, 2))):
            x = net.affine(x, channels, rank)
        if flat:
            x, channels = (net.gemm if draw(st.booleans()) else net.matmul)(x, channels)
        else:
            x, channels = net.conv(x, channels, 9)
        if draw(st.integers(0, 5)) == 0:
            taps.append(x)
        for _ in range(draw(st.integers(0, 3))):
            x = net.affine(x, channels, rank)
        if draw(st.booleans()):
            x = net.node("Relu", x)
    return net.done(inputs, rank, *dict.fromkeys((*taps, x)))


@given(layers_among_affine_nodes())
def test_folding_keeps_what_the_network_computes(made: ModelProto) -> None:
    """The network stays the same but for rounding, and its tensors are described as an importer would."""
    model = imported(made)
    transformed = fold(model)
    assert (transformed.model is model) == (not transformed.changes)
    assert largest_difference(made, plain(transformed.model)) < CLOSE
    left = operators(transformed.model).count("BatchNormalization")
    assert left == len(transformed.kept)
    assert all(change.exact for change in transformed.changes)
    check_descriptions(transformed.model)
    again = fold(transformed.model)
    assert not again.changes


def _sparse(net: Net, values: Array, axis: int) -> Array:
    """Zero the weights of some units along an axis."""
    index: list[Any] = [slice(None)] * values.ndim
    index[axis] = net.random.random(values.shape[axis]) < 0.4
    values[tuple(index)] = 0
    return values


ACTIVATIONS: dict[str, dict[str, Any]] = {
    "Relu": {}, "LeakyRelu": {"alpha": 0.2}, "Sigmoid": {}, "Tanh": {}, "Elu": {}, "Softplus": {}, "Identity": {},
    "HardSigmoid": {}, "Abs": {}, "Dropout": {},
}  # fmt: skip


@st.composite
def layers_with_dead_units(draw: st.DrawFn) -> ModelProto:
    """Convolutions, perhaps a pool, then FC layers; rows and columns of their weights are zero."""
    net = Net(draw)
    x, channels, size = "x", draw(st.integers(1, 3)), 7
    inputs = [value("x", ["N", channels, size, size])]
    for _ in range(draw(st.integers(1, 3))):
        outputs, kernel = draw(st.integers(1, 5)), draw(st.sampled_from((1, 3)))
        weights = net.random.standard_normal((outputs, channels, kernel, kernel)).astype(np.float32)
        weights = _sparse(net, _sparse(net, weights, 0), 1)
        operands = [x, net.constant(weights)]
        if draw(st.booleans()):
            operands.append(net.constant(net.random.standard_normal(outputs).astype(np.float32)))
        pads = [draw(st.sampled_from((0, 1)))] * 4 if kernel == 3 else [0] * 4
        x, channels = net.node("Conv", *operands, kernel_shape=[kernel] * 2, pads=pads), outputs
        size += 2 * pads[0] - kernel + 1
        name = draw(st.sampled_from(sorted(ACTIVATIONS)))
        x = net.node(name, x, **ACTIVATIONS[name])
        pool = draw(st.sampled_from(("", "MaxPool", "AveragePool", "AveragePool counting")))
        if pool and size > 2:
            counting = {"count_include_pad": 1} if pool.endswith("counting") else {}
            x = net.node(pool.split()[0], x, kernel_shape=[3, 3], pads=[1] * 4, **counting)
    if draw(st.booleans()):
        x, size = net.node("GlobalAveragePool", x), 1
    if draw(st.booleans()):
        x = net.node("Flatten", x)
    else:
        net.initializers.append(tensor("shape", np.array([0, -1])))
        x = net.node("Reshape", x, "shape")
    width = channels * size * size
    for last in (False, True):
        outputs = draw(st.integers(1, 6))
        weights = _sparse(net, net.random.standard_normal((outputs, width)).astype(np.float32), 0)
        if last and draw(st.booleans()):
            weights = _sparse(net, weights, 1)
        bias = net.random.standard_normal(outputs).astype(np.float32)
        if draw(st.booleans()):
            x = net.node("Gemm", x, net.constant(weights), net.constant(bias), transB=1)
        else:
            x = net.node("MatMul", x, net.constant(weights.T.copy()))
            x = net.node("Add", x, net.constant(bias)) if draw(st.booleans()) else x
        x, width = net.node("Relu", x) if draw(st.booleans()) else x, outputs
    return net.done(inputs, 2, x)


@given(layers_with_dead_units())
def test_removing_dead_units_keeps_what_the_network_computes(made: ModelProto) -> None:
    """Exact removal: a unit goes only where that changes nothing."""
    model = imported(made)
    transformed = remove_dead(model)
    assert largest_difference(made, plain(transformed.model)) < CLOSE
    check_descriptions(transformed.model)
    for change in transformed.changes:
        if change.before is not None and change.after is not None:
            assert change.after.parameters < change.before.parameters + 8
    assert not remove_dead(transformed.model).changes


@given(layers_with_dead_units())
def test_ordering_units_keeps_what_the_network_computes(made: ModelProto) -> None:
    """Rows of one layer and columns of the next move together; once in order they stay."""
    model = imported(made)
    transformed = order_units(model)
    assert largest_difference(made, plain(transformed.model)) < CLOSE
    check_descriptions(transformed.model)
    old = {tensor.name: tensor for tensor in model.tensors}
    new = {tensor.name: tensor for tensor in transformed.model.tensors}
    assert new.keys() == old.keys()
    for change in transformed.changes:
        for name in change.tensors:
            assert sorted(new[name].read()) == sorted(old[name].read())
    assert not order_units(transformed.model).changes


@st.composite
def layers_of_low_rank(draw: st.DrawFn) -> tuple[ModelProto, int, str]:
    """One layer whose weight is the product of two thinner ones, its true rank, and what kind of layer it is."""
    net = Net(draw)
    rank = draw(st.integers(1, 2))
    kind = draw(st.sampled_from(("Gemm", "MatMul", "1x1", "spatial")))
    groups = draw(st.integers(1, 2)) if kind in ("1x1", "spatial") else 1
    rows, columns = draw(st.integers(6, 9)), draw(st.integers(6, 9))
    normal = net.random.standard_normal
    if kind == "spatial":
        kernel = [draw(st.integers(3, 4)), draw(st.integers(3, 4))]
        across, along = normal((groups, 4, kernel[1], rank)), normal((groups, rank, 4, kernel[0]))
        weight = np.einsum("gowr,grch->gochw", across, along).reshape(groups * 4, 4, *kernel)
        rows = columns = 4
    else:
        kernel = [1, 1]
        weight = np.concatenate([normal((rows, rank)) @ normal((rank, columns)) for _ in range(groups)])
    weight = (weight / np.sqrt(weight[0].size)).astype(np.float32)

    def stored(values: Array) -> str:
        if draw(st.booleans()):
            return net.constant(np.ascontiguousarray(values))
        turned = net.constant(np.ascontiguousarray(values.T))
        return net.node("Transpose", turned, perm=list(reversed(range(values.ndim))))

    bias = [net.constant(normal(groups * rows).astype(np.float32))] if draw(st.booleans()) else []
    if kind in ("Gemm", "MatMul"):
        transposed = draw(st.booleans()) and kind == "Gemm"
        operands = ["x", stored(weight if transposed else weight.T)]
        if kind == "Gemm":
            bias = bias or ([net.constant(np.zeros(1, np.float32))] if net.opset < 11 else [])
            y = net.node("Gemm", *operands, *bias, transB=int(transposed), alpha=0.5, beta=2.0)
        else:
            y = net.node("MatMul", *operands)
        return net.done([value("x", ["N", columns])], 2, y), rank, kind
    attributes: dict[str, Any] = {"group": groups, "strides": [draw(st.integers(1, 2)), draw(st.integers(1, 2))]}
    if draw(st.booleans()):
        attributes["auto_pad"] = draw(st.sampled_from(("SAME_UPPER", "SAME_LOWER", "VALID")))
    else:
        attributes["pads"] = [draw(st.integers(0, 2)) for _ in range(4)]
        attributes["dilations"] = [draw(st.integers(1, 2)), 1]
    if draw(st.booleans()):
        attributes["kernel_shape"] = kernel
    y = net.node("Conv", "x", stored(weight.reshape(groups * rows, columns, *kernel)), *bias, **attributes)
    return net.done([value("x", ["N", groups * columns, 11, 12])], 4, y), rank, kind


@given(layers_of_low_rank(), st.booleans())
def test_a_layer_of_low_rank_is_split_without_loss(case: tuple[ModelProto, int, str], aware: bool) -> None:
    """The best approximation of a weight of rank r by rank r is the weight itself, whatever the moments."""
    made, rank, kind = case
    model = imported(made)
    (layer,) = low_rank_layers(model)
    groups = next((a.i for node in made.graph.node for a in node.attribute if a.name == "group"), 1)
    inputs = made.graph.input[0].type.tensor_type.shape.dim[1].dim_value // groups
    samples = np.random.default_rng(rank).standard_normal((3 * inputs, inputs))
    moments = samples.T @ samples / len(samples) if aware and kind != "spatial" else None
    transformed = low_rank(model, layer, rank=rank, moments=moments)
    (change,) = transformed.changes
    assert change.loss is not None
    assert change.loss < CLOSE
    assert largest_difference(made, plain(transformed.model)) < CLOSE
    check_descriptions(transformed.model)
    check_size(model, transformed.model, change)


def check_size(old: Model, new: Model, change: Change) -> None:
    """The change's numbers are those of the graph and its counter."""
    assert change.before is not None
    assert change.after is not None
    weights = [sum(t.elements for t in model.tensors if t.role in WEIGHT_ROLES) for model in (old, new)]
    assert weights[1] - weights[0] == change.after.parameters - change.before.parameters
    counts = [count_multiply_adds(model.build_graph(frozenset())) for model in (old, new)]
    assert not counts[0].unknown
    assert [count.total for count in counts] == [change.before.multiply_adds, change.after.multiply_adds]


@given(st.integers(0, 2**32 - 1), st.integers(1, 12), st.integers(1, 12), st.integers(1, 6), st.booleans())
def test_no_other_weight_of_a_rank_has_a_smaller_error(
    seed: int, rows: int, columns: int, rank: int, aware: bool
) -> None:
    """tr((W - W') H (W - W')^T) is the sum of the squared singular values of W H^(1/2) that were left out."""
    random = np.random.default_rng(seed)
    weight = random.standard_normal((rows, columns))
    samples = random.standard_normal((random.integers(1, 3 * columns), columns)) * random.exponential(1, columns)
    moments = samples.T @ samples if aware else np.eye(columns)
    found = spectrum(weight, moments if aware else None)
    values, vectors = np.linalg.eigh(moments)
    root = vectors * np.sqrt(np.maximum(values, 0)) @ vectors.T
    singular = np.linalg.svd(weight @ root, compute_uv=False)
    first, second = factored(weight, found.directions[:, :rank])
    error = weight - second @ first
    np.testing.assert_allclose(np.sum((error @ moments) * error), np.square(singular[rank:]).sum(),
                               atol=1e-9 * float(np.square(singular).sum()))  # fmt: skip


@given(st.integers(0, 2**32 - 1), st.integers(1, 30), st.integers(2, 300), st.floats(0, 1))
def test_pruning_by_saliency_zeroes_the_share_and_beats_magnitude(
    seed: int, rows: int, columns: int, sparsity: float
) -> None:
    """At least the share of weights is zero; what is left answers better than the same number of largest weights."""
    random = np.random.default_rng(seed)
    weight = random.standard_normal((rows, columns))
    mixed = random.standard_normal((2 * columns, columns)) @ random.standard_normal((columns, columns))
    moments = mixed.T @ mixed
    pruned = surgeon(weight, moments, sparsity)
    count = round(sparsity * weight.size)
    assert np.count_nonzero(pruned == 0) >= count
    plainly = np.where(smallest(np.abs(weight), count), 0, weight)
    if 0.3 < sparsity < 0.7 and rows > 9 and columns > 50:
        errors = [response_error(found[None], weight[None], moments[None]) for found in (pruned, plainly)]
        assert errors[0] < errors[1]


@given(layers_among_affine_nodes(), st.integers(2, 3))
def test_merging_copies_gives_the_network_back(made: ModelProto, copies: int) -> None:
    """A network beside copies of itself on the same input becomes one network again: every copy of a tensor and of a
    node that is no output is found."""
    doubled = copied(made, copies)
    model = imported(doubled)
    transformed = remove_duplicates(model)
    # Not to the last bit: what ONNX Runtime fuses depends on how often a value is used.
    assert largest_difference(doubled, plain(transformed.model)) < CLOSE
    check_descriptions(transformed.model)
    once = remove_duplicates(imported(made)).model
    assert len(transformed.model.tensors) == len(once.tensors)
    outputs = copies * len(made.graph.output)
    assert len(operators(transformed.model)) <= len(operators(once)) + outputs


def copied(made: ModelProto, copies: int) -> ModelProto:
    """The nodes, constants and outputs of a network several times, under other names."""
    out = ModelProto()
    out.CopyFrom(made)
    inputs = {item.name for item in made.graph.input}
    for field in ("node", "initializer", "output"):
        out.graph.ClearField(field)
    for copy in range(copies):
        again = ModelProto()
        again.CopyFrom(made)
        for node in again.graph.node:
            for names in (node.input, node.output):
                names[:] = [name if name in inputs or not name else f"{name}.{copy}" for name in names]
        for constant in again.graph.initializer:
            constant.name = f"{constant.name}.{copy}"
        for output in again.graph.output:
            output.name = f"{output.name}.{copy}"
        out.graph.node.extend(again.graph.node)
        out.graph.initializer.extend(again.graph.initializer)
        out.graph.output.extend(again.graph.output)
    return out
