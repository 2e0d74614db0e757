"""low_rank: one layer becomes two, or is refused with the numbers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from onnx import helper

from mobilemodel.errors import UnsupportedSourceError, UsageError
from mobilemodel.model import Model, Role
from mobilemodel.transforms import low_rank, low_rank_layers
from mobilemodel_converters import load_model
from tests import models
from tests.models import NETWORKS, Net, model, value
from tests.transforming import check_descriptions, imported, outputs, plain

Array = npt.NDArray[Any]


def values_of(found: Model) -> dict[str, Array]:
    """The tensors by name."""
    return {t.name: np.frombuffer(t.read(), np.float32).reshape(t.dims) for t in found.tensors if t.dtype == 1}


def test_what_saves_nothing_is_refused_with_the_numbers() -> None:
    old = imported(NETWORKS["alexnet"]())
    assert low_rank_layers(old) == ("conv1.weight", "conv2.weight", "fc6.weight", "fc7.weight", "fc8.weight")
    with pytest.raises(UsageError, match=r"(?s)rank 39 saves nothing.*fewer than the 6144 weights.*6240.*up to 38"):
        low_rank(old, "fc7.weight", rank=39)
    low_rank(old, "fc7.weight", rank=38)
    with pytest.raises(UsageError, match=r"which an energy of 0.99999 takes"):
        low_rank(old, "fc7.weight", energy=0.99999)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"layer": "fc9", "rank": 2}, "there is no such layer"),
        ({"layer": "fc7.weight"}, "either a rank or an energy"),
        ({"layer": "fc7.weight", "rank": 2, "energy": 0.5}, "either a rank or an energy"),
        ({"layer": "fc7.weight", "rank": 0}, "at least 1"),
        ({"layer": "fc7.weight", "energy": 1.5}, "at most 1"),
        ({"layer": "fc7.weight", "rank": 2, "moments": np.eye(3)}, "96 x 96"),
        ({"layer": "fc7.weight", "rank": 2, "moments": np.full((96, 96), np.nan)}, "not finite"),
        ({"layer": "fc7.weight", "rank": 2, "moments": np.triu(np.ones((96, 96)))}, "symmetric"),
    ],
)
def test_wrong_calls_are_usage_errors(arguments: dict[str, Any], said: str) -> None:
    with pytest.raises(UsageError, match=said):
        low_rank(imported(NETWORKS["alexnet"]()), **arguments)


def test_a_shared_weight_is_not_split() -> None:
    net = Net(5)
    net.weight("w", 20, 20)
    net.node("MatMul", net.node("MatMul", "x", "w"), "w", name="y")
    old = imported(model(net.nodes, [value("x", ["N", 20])], net.initializers, outputs=[value("y", [None, 20])]))
    assert low_rank_layers(old) == ()
    with pytest.raises(UnsupportedSourceError, match="used elsewhere too"):
        low_rank(old, "y", rank=2)


def test_both_layers_take_the_place_of_the_one() -> None:
    """Ranks within a role and everything else are as an importer tells them; Klaus's mix knows the first FC by it."""
    made = NETWORKS["alexnet"]()
    transformed = low_rank(imported(made), "fc6.weight", rank=8)
    found = {item.name: item.rank_in_role for item in transformed.model.tensors if item.role is Role.FC}
    assert found == {"fc6.first.weight": 0, "fc6.second.weight": 1, "fc7.weight": 2, "fc8.weight": 3}
    check_descriptions(transformed.model)
    (change,) = transformed.changes
    assert not change.exact
    assert change.loss is not None
    assert 0 < change.loss < 1


def test_a_pooled_convolution_stays_two_fc_layers() -> None:
    made = models.fc_ways()["1x1 conv after a global pool"].model
    transformed = low_rank(imported(made), "w", rank=2)
    assert [item.role for item in transformed.model.tensors] == [Role.FC, Role.FC]
    assert [item.operator for item in transformed.model.tensors] == ["Conv", "Conv"]


def test_moments_make_the_response_better_and_the_weights_worse(zoo: Path) -> None:
    """On inputs that the moments did not see: fc8 of cifar-alexnet, and the network's own activations."""
    folder = zoo / "cifar-alexnet"
    old = load_model([folder / "model.onnx"])
    with np.load(folder / "calibration.npz") as data:
        pictures = data["x"][:384].transpose(0, 3, 1, 2)
    mean = np.array((125.268845, 122.93302, 113.86284), np.float32)[:, None, None]
    tapped = plain(old)
    tapped.graph.output.append(helper.make_tensor_value_info("fc7_relu", 1, ["N", 2048]))
    inputs = {"data": ((pictures - mean) / 64).astype(np.float32)}
    seen = outputs(tapped, inputs)[1].astype(np.float64)
    fit, judge = seen[:256], seen[256:]
    wanted = values_of(old)["fc8.weight"].astype(np.float64)
    errors = []
    for moments in (None, fit.T @ fit / len(fit)):
        made = low_rank(old, "fc8", rank=5, moments=moments)
        found = values_of(made.model)
        response = judge @ (found["fc8.second.weight"].astype(np.float64) @ found["fc8.first.weight"]).T
        errors.append(float(np.linalg.norm(response - judge @ wanted.T) / np.linalg.norm(judge @ wanted.T)))
    assert errors[1] < 0.9 * errors[0]
    with pytest.raises(UsageError, match=r"(?s)rank 1366 saves nothing.*8388608.*8392704.*up to 1365 save"):
        low_rank(old, "fc6", rank=1366)
    old.close()
