"""Calibration of a real network: less is lost at a smaller size, and threads do not change the bytes."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import mobilemodel as mm
from mobilemodel.pipeline import ConvertOptions, FittingOptions
from mobilemodel.runtime import class_scores, mean_divergence
from mobilemodel.search import Transforms


@pytest.fixture
def options() -> ConvertOptions:
    step, _ = mm.PreprocessingOptions(mean="125.268845,122.93302,113.86284", scale="0.015625").message()
    return ConvertOptions(preprocessing=step, transforms=Transforms(fold=True), force=True)


def test_calibration_of_cifar_resnet(zoo: Path, tmp_path: Path, options: ConvertOptions) -> None:
    """Fitted to 120 pictures of calibration.npz, judged on 120 others: beside palettes at a price without data."""
    model, out, plan = zoo / "cifar-resnet" / "model.onnx", tmp_path / "out.mm", tmp_path / "plan.toml"
    fit, held = mm.read_data(zoo / "cifar-alexnet" / "calibration.npz").spread(240).split(120)
    assert held is not None
    exact = class_scores(model, held, preprocessing=options.preprocessing)
    content, losses = [], []
    for threads in (1, 2):
        fitting = FittingOptions(fit, threads=threads)
        report = mm.convert(model, out, scheme="auto", options=replace(options, fitting=fitting))
        content.append(out.read_bytes())
    assert content[0] == content[1]
    weights = [row for row in report.tensors if row.role in ("conv", "fc")]
    assert np.mean([row.response_db is not None for row in weights]) == 1
    losses.append(mean_divergence(exact, class_scores(out, held)))
    plan.write_text('scheme = "auto"\nprice = 0.5\n')
    without = mm.convert(model, out, scheme=plan, options=options)
    losses.append(mean_divergence(exact, class_scores(out, held)))
    assert report.file_bytes <= without.file_bytes
    assert losses[0] < losses[1] / 2
