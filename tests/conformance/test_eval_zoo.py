"""``eval`` on real networks: the CIFAR classifier beside its bundles, and SqueezeNet on photographs seen ten times."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import mobilemodel as mm
from mobilemodel.runtime import Data, agreement, class_scores, evaluate_models, mean_divergence, run, session, top1
from mobilemodel.runtime.picture import read_picture, resize
from mobilemodel.v1 import bundle_pb2 as pb


def step_of(mean: str, **options: str) -> pb.Preprocessing:
    return mm.PreprocessingOptions(mean=mean, **options).message()[0]


def test_the_cifar_classifier_beside_its_bundles(zoo: Path, tmp_path: Path) -> None:
    """On the first 500 pictures of calibration.npz, of which the float model gets 86.4 % right."""
    folder = zoo / "cifar-alexnet"
    step = step_of("125.268845,122.93302,113.86284", scale="0.015625")
    for scheme in ("mixed-4-8", "kmeans-2"):
        options = mm.ConvertOptions(preprocessing=step)
        mm.convert(folder / "model.onnx", tmp_path / f"{scheme}.mm", scheme=scheme, options=options)
    whole = mm.read_data(folder / "calibration.npz")
    assert whole.classes is not None
    classes = whole.classes[:500]
    data = Data(whole.x[:500], classes)
    models = [folder / "model.onnx", tmp_path / "mixed-4-8.mm", tmp_path / "kmeans-2.mm"]
    first, mixed, two_bits = evaluate_models(models, data).models
    assert first.top1 == pytest.approx(86.4, abs=0.3)
    assert mixed.beside is not None
    assert mixed.beside.top1 is not None
    assert mixed.beside.agreement >= 97
    assert 0 < mixed.beside.divergence < 0.005
    assert mixed.beside.top1.low < 0 < mixed.beside.top1.high
    assert two_bits.beside is not None
    assert two_bits.beside.top1 is not None
    assert two_bits.beside.agreement < 95
    assert 0.01 < two_bits.beside.divergence < 1
    assert two_bits.beside.top1.high < 0
    assert two_bits.beside.top1.p_value < 0.05
    p, q = (class_scores(model, data, preprocessing=step) for model in (models[0], models[2]))
    assert top1(q, classes) == two_bits.top1
    assert agreement(p, q) == two_bits.beside.agreement
    assert mean_divergence(p, q) == pytest.approx(two_bits.beside.divergence, rel=1e-4)


def test_squeezenet_sees_photographs_ten_times(zoo: Path) -> None:
    """The protocol by hand: corners and centre of 256 x 256, mirrored, the mean of the ten softmaxes."""
    model = zoo / "squeezenet-dc" / "squeezenet.onnx"
    step = step_of("104,117,123", channels="bgr", resize="256x256", crop="227")
    data = mm.read_data(zoo / "imagenet-sample").spread(3)
    opened = session(model)
    expected = []
    for path in data.x:
        resized = resize(read_picture(path), step.resize)[:, :, ::-1] - np.array([104, 117, 123], np.float32)
        total = np.zeros(1000)
        for top, left in ((0, 0), (0, 29), (29, 0), (29, 29), (14, 14)):
            patch = resized[top : top + 227, left : left + 227]
            for view in (patch, patch[:, ::-1]):
                (found,) = run(opened, {"data": np.ascontiguousarray(view.transpose(2, 0, 1)[None])}).values()
                total += found.reshape(-1)
        expected.append(total / 10)
    assert class_scores(opened, data, preprocessing=step, views=10) == pytest.approx(np.array(expected), abs=1e-6)
