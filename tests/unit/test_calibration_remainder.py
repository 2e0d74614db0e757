"""What the refits of later layers leave of an error, along every way to the outputs."""

from __future__ import annotations

import pytest

from mobilemodel.calibration.remainder import HALVING_COLUMNS, remainders
from tests.calibrating import Read, read, residual_net
from tests.models import Net, value


def kept(*columns: int) -> float:
    """Through layers of so many columns, one after the other."""
    share = 1.0
    for each in columns:
        share *= HALVING_COLUMNS / (HALVING_COLUMNS + each)
    return share


def shares(found: Read, *without: str) -> dict[str, float]:
    return remainders(found.graph, [layer for name, layer in found.layers.items() if name not in without])


def test_each_layer_behind_takes_its_share_and_the_way_that_corrects_least_counts() -> None:
    found = shares(read(residual_net()))
    behind = kept(48, 128)
    assert found == {
        "fc2.weight": 1.0, "fc1.weight": pytest.approx(kept(48)), "project.weight": pytest.approx(behind),
        "depthwise.weight": pytest.approx(behind * kept(8)),
        "conv1.weight": pytest.approx(behind),  # around the block: nothing is refitted there
    }  # fmt: skip


def test_a_layer_that_is_not_fitted_corrects_nothing() -> None:
    found = shares(read(residual_net()), "fc2.weight")
    assert found["fc1.weight"] == 1.0
    assert found["project.weight"] == pytest.approx(kept(128))


def test_a_value_that_is_an_output_itself_is_not_corrected() -> None:
    net = Net(1)
    x = net.gemm("a", "x", 16, 16)
    net.gemm("b", net.node("Relu", x), 4, 16, "y")
    made = net.done(value("x", ["N", 16]))
    assert shares(read(made)) == {"a.weight": pytest.approx(kept(16)), "b.weight": 1.0}
    made.graph.output.append(value(x))
    assert shares(read(made)) == {"a.weight": 1.0, "b.weight": 1.0}
