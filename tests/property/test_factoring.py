"""Layers of low rank and pruned layers: nothing lost where nothing has to be, and the least error elsewhere."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
from hypothesis import given
from hypothesis import strategies as st
from onnx import ModelProto

from mobilemodel.audit.multiply_adds import count_multiply_adds
from mobilemodel.model import WEIGHT_ROLES, Model
from mobilemodel.transforms import Change, low_rank, low_rank_layers
from mobilemodel.transforms.factors import factored, spectrum
from mobilemodel.transforms.moments import response_error
from mobilemodel.transforms.saliency import smallest, surgeon
from tests.drawn_nets import Net
from tests.models import value
from tests.transforming import check_descriptions, imported, largest_difference, plain

Array = npt.NDArray[Any]
CLOSE = 2e-6
"""of float32: relative to the largest output, a few units in the last place for each layer"""


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
