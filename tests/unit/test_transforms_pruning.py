"""prune: by magnitude and by saliency."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from onnx import ModelProto

from mobilemodel.errors import UsageError
from mobilemodel.model import Model, Role
from mobilemodel.transforms import prune
from mobilemodel.transforms.moments import response_error
from mobilemodel.transforms.saliency import surgeon
from tests import models
from tests.models import NETWORKS, in_if, tensor, value
from tests.transforming import check_descriptions, imported

Array = npt.NDArray[Any]


def values_of(found: Model) -> dict[str, Array]:
    """The tensors by name."""
    return {t.name: np.frombuffer(t.read(), np.float32).reshape(t.dims) for t in found.tensors if t.dtype == 1}


def test_the_smallest_weights_of_each_tensor_become_zero() -> None:
    made = NETWORKS["alexnet"]()
    old = imported(made)
    transformed = prune(old, 0.75)
    before, after = values_of(old), values_of(transformed.model)
    assert {change.layer for change in transformed.changes} == {
        "conv1.weight", "conv2.weight", "fc6.weight", "fc7.weight", "fc8.weight",
    }  # fmt: skip
    for change in transformed.changes:
        name = change.layer
        zero = after[name] == 0
        assert np.count_nonzero(zero) == round(0.75 * zero.size)
        assert np.abs(before[name][zero]).max() <= np.abs(before[name][~zero]).min()
        np.testing.assert_array_equal(after[name][~zero], before[name][~zero])
        error = np.linalg.norm(after[name] - before[name]) / np.linalg.norm(before[name])
        assert change.loss == pytest.approx(float(error), rel=1e-5)
    np.testing.assert_array_equal(before["fc6.bias"], after["fc6.bias"])
    again = prune(transformed.model, 0.5)
    assert not again.changes
    assert {item.reason for item in again.kept} == {"that many of its weights are zero already"}


def test_across_layers_one_threshold_holds() -> None:
    old = imported(NETWORKS["alexnet"]())
    after = values_of(prune(old, 0.6, across=True).model)
    before = values_of(old)
    names = [item.name for item in old.tensors if item.role in (Role.FC, Role.CONV)]
    gone = np.concatenate([np.abs(before[name][after[name] == 0]) for name in names])
    left = np.concatenate([np.abs(before[name][after[name] != 0]) for name in names])
    assert gone.max() <= left.min()
    assert gone.size == round(0.6 * (gone.size + left.size))


@pytest.mark.parametrize(("network", "name", "groups"), [("alexnet", "fc7.weight", 1), ("alexnet", "conv2.weight", 2)])
def test_saliency_beats_magnitude_where_inputs_go_together(network: str, name: str, groups: int) -> None:
    """Moments are in the order of the tensor's matrix: rows of outputs, and for a convolution positions x channels."""
    old = imported(NETWORKS[network]())
    weight = values_of(old)[name]
    rows = weight.transpose(0, 2, 3, 1).reshape(len(weight), -1) if weight.ndim == 4 else weight
    columns = rows.shape[1]
    generator = np.random.default_rng(0)
    x = generator.standard_normal((groups, 4 * columns, 12)) @ generator.standard_normal((12, columns))
    x += 0.3 * generator.standard_normal(x.shape)
    moments = x.transpose(0, 2, 1) @ x
    errors = []
    for known in ({}, {name: moments}):
        transformed = prune(old, {name: 0.5}, moments=known)
        after = values_of(transformed.model)[name]
        found = after.transpose(0, 2, 3, 1).reshape(rows.shape) if weight.ndim == 4 else after
        difference = (found - rows).reshape(groups, -1, columns) @ x.transpose(0, 2, 1)
        wanted = rows.reshape(groups, -1, columns) @ x.transpose(0, 2, 1)
        errors.append(float(np.linalg.norm(difference) / np.linalg.norm(wanted)))
        assert np.count_nonzero(found == 0) >= round(0.5 * found.size)
    (change,) = transformed.changes
    assert change.loss == pytest.approx(errors[1], rel=1e-4)
    assert errors[1] < 0.7 * errors[0]
    check_descriptions(transformed.model)


def test_blocks_of_columns_make_up_for_each_other() -> None:
    """300 columns are three blocks: better than pruning each block for itself."""
    generator = np.random.default_rng(1)
    weight = generator.standard_normal((20, 300))
    x = generator.standard_normal((900, 20)) @ generator.standard_normal((20, 300))
    moments = (x + 0.2 * generator.standard_normal(x.shape)).T @ x
    moments = (moments + moments.T) / 2 + 10 * np.eye(300)
    together = surgeon(weight, moments, 0.5)
    alone = np.hstack([
        surgeon(weight[:, place : place + 128], moments[place : place + 128, place : place + 128], 0.5)
        for place in (0, 128, 256)
    ])  # fmt: skip
    errors = [response_error(found[None], weight[None], moments[None]) for found in (together, alone)]
    assert errors[0] < 0.7 * errors[1]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"sparsity": 1.5}, "0 to 1"),
        ({"sparsity": float("nan")}, "0 to 1"),
        ({"sparsity": {"fc9": 0.5}}, "the sparsity of no tensor"),
        ({"sparsity": 0.5, "moments": {"fc9": np.eye(2)}}, "second moments of no tensor"),
        ({"sparsity": 0.5, "moments": {"fc7.weight": np.eye(2)}}, "96 x 96"),
        ({"sparsity": 0.5, "moments": {"fc7.weight": 1 - 0.9 * np.eye(96)}}, "positive semidefinite"),
        ({"sparsity": 0.5, "moments": {"fc7.weight": np.eye(96)}, "across": True}, "one sparsity and no moments"),
    ],
)
def test_wrong_prunings_are_usage_errors(arguments: dict[str, Any], said: str) -> None:
    with pytest.raises(UsageError, match=said):
        prune(imported(NETWORKS["alexnet"]()), **arguments)


def test_values_that_are_not_finite_are_kept() -> None:
    made = NETWORKS["alexnet"]()
    weight = next(item for item in made.graph.initializer if item.name == "fc8.weight")
    weight.CopyFrom(tensor("fc8.weight", np.full((10, 64), np.inf, np.float32)))
    transformed = prune(imported(made), {"fc8.weight": 0.5})
    assert not transformed.changes
    assert [item.reason for item in transformed.kept] == ["it holds values that are not finite, or none"]


def test_pruned_constants_keep_their_zeros_inside_the_graph() -> None:
    made = in_if()
    made.graph.output[0].CopyFrom(value("y", [3, models.OUTPUTS]))
    transformed = prune(imported(made), {"w": 1.0})
    inside = {
        item.name: item for item in ModelProto.FromString(transformed.model.build_graph(frozenset())).graph.initializer
    }
    assert not any(inside["w"].raw_data)
