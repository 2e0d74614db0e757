"""Transforms keep what a network computes: ONNX Runtime on the graph before and after, over random small networks."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
from hypothesis import given
from hypothesis import strategies as st
from onnx import ModelProto

from mobilemodel.transforms import fold, order_units, remove_dead, remove_duplicates
from tests.drawn_nets import Net
from tests.models import tensor, value
from tests.transforming import check_descriptions, imported, largest_difference, operators, plain

Array = npt.NDArray[Any]
CLOSE = 2e-6
"""of float32: relative to the largest output, a few units in the last place for each layer"""


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
