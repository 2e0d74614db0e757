"""slim-320, a face detector that its authors give as Caffe and as ONNX: what is converted computes the same."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import mobilemodel as mm
from mobilemodel.runtime import run, session

SCORES, BOXES = 1e-5, 2e-5
FILES = {
    "caffemodel alone": ["slim-320.caffemodel"],
    "with the prototxt": ["slim-320.prototxt", "slim-320.caffemodel"],
    "the other way round": ["slim-320.caffemodel", "slim-320.prototxt"],
}


@pytest.mark.parametrize("names", FILES.values(), ids=list(FILES))
def test_slim_320_computes_what_the_authors_onnx_does(names: list[str], zoo: Path, tmp_path: Path) -> None:
    """Scores within 1e-5; boxes, as the simplified ONNX gives them too, before they are decoded, within 2e-5."""
    folder = zoo / "ultraface"
    report = mm.convert([folder / name for name in names], tmp_path / "out.mm", scheme="lossless")
    assert [row.encoding for row in report.tensors if row.role == "conv"] == ["dense"] * 42
    assert report.notes == ()
    picture = {"input": np.random.default_rng(0).standard_normal((1, 3, 240, 320)).astype(np.float32)}
    expected = run(session(folder / "version-slim-320_simplified.onnx"), picture)
    decoded = run(session(folder / "version-slim-320.onnx"), picture)
    with mm.open(tmp_path / "out.mm") as bundle:
        found = run(session(bundle), picture)
    assert set(found) == {"scores", "boxes"}
    assert found["scores"].shape == (1, 4420, 2)
    assert found["boxes"].shape == (1, 4420, 4)
    assert np.abs(found["scores"] - expected["scores"]).max() <= SCORES
    assert np.abs(found["scores"] - decoded["scores"]).max() <= SCORES
    assert np.abs(found["boxes"] - expected["boxes"]).max() <= BOXES


def test_both_ways_give_the_same_weights(zoo: Path, tmp_path: Path) -> None:
    folder = zoo / "ultraface"
    for index, names in enumerate(list(FILES.values())[:2]):
        mm.convert([folder / name for name in names], tmp_path / f"{index}.mm", scheme="lossless")
    with mm.open(tmp_path / "0.mm") as alone, mm.open(tmp_path / "1.mm") as both:
        assert set(alone) == set(both)
        assert all(bytes(alone[name].raw()) == bytes(both[name].raw()) for name in alone)
