"""Transforms in a row, and what they leave alone."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

import mobilemodel as mm
from mobilemodel.runtime.session import random_inputs, run
from mobilemodel.transforms import fold, low_rank, prune, remove_dead, remove_duplicates
from tests.models import NETWORKS
from tests.transforming import imported, outputs, plain

Array = npt.NDArray[Any]


def test_a_transformed_model_becomes_a_bundle(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Fold, split and prune a network, then convert it: the bundle computes what the new model does."""
    made = NETWORKS["resnet"]()
    (tmp_path / "model.onnx").write_bytes(made.SerializeToString())
    new = low_rank(fold(imported(made)).model, "b0.conv1.weight", rank=8).model
    new = remove_duplicates(remove_dead(prune(new, 0.3).model).model).model
    monkeypatch.setattr("mobilemodel_converters.load_model", lambda *_: new)
    report = mm.convert(tmp_path / "model.onnx", tmp_path / "out.mm", scheme="lossless")
    assert {row.name for row in report.tensors} == {item.name for item in new.tensors}
    inputs = random_inputs(made.SerializeToString(), 0)
    with mm.open(tmp_path / "out.mm") as bundle:
        found = list(run(mm.session(bundle), inputs).values())
    np.testing.assert_array_equal(found[0], outputs(plain(new), inputs)[0])


@pytest.mark.parametrize("name", NETWORKS)
def test_nothing_is_lost_in_networks_without_dead_or_double_weights(name: str) -> None:
    made = NETWORKS[name]()
    made.graph.output[0].type.tensor_type.shape.SetInParent()
    old = imported(made)
    for transform in (remove_dead, remove_duplicates):
        transformed = transform(old)
        assert {item.name for item in transformed.model.tensors} == {item.name for item in old.tensors}
        assert all(not item.reason.startswith("0") for item in transformed.kept)


