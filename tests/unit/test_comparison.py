"""Several models on the same data: against numbers that are counted by hand, and each model alone."""

from __future__ import annotations

import math
import weakref
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper
from PIL import Image

import mobilemodel as mm
from mobilemodel.bundle import open_bundle
from mobilemodel.errors import LimitExceededError, MalformedSourceError, UnsupportedSourceError, UsageError
from mobilemodel.runtime import (
    Comparison,
    Data,
    agreement,
    class_scores,
    evaluate,
    evaluate_models,
    mean_divergence,
    paired_interval,
    read_data,
    read_picture,
    session,
    top1,
)
from mobilemodel.v1 import bundle_pb2 as pb
from tests.scorers import COLOURS, MEANS, PICTURES, linear, model, same, scored, with_step

MakeBundle = Callable[..., bytes]
NAN = math.nan


def softmax(logits: Any) -> Any:
    powers = np.exp(np.asarray(logits, np.float64) - np.max(logits, axis=1, keepdims=True))
    return powers / powers.sum(axis=1, keepdims=True)


def swapped(a: int, b: int, classes: int) -> bytes:
    """The input with two classes exchanged."""
    order = list(range(classes))
    order[a], order[b] = b, a
    return linear(np.eye(classes)[:, order])


def test_each_model_is_compared_with_the_first() -> None:
    rows = np.eye(3, dtype=np.float32)[[0, 0, 1, 1, 2, 2, 2, 2]] * 4
    data = Data(rows, np.array([0, 0, 1, 1, 2, 2, 2, 1]))
    found = evaluate_models([same(["n", 3]), swapped(0, 1, 3), same(["n", 3])], data)
    first, second, third = found.models
    assert (found.pictures, found.classes, found.views) == (8, 3, 1)
    assert [item.name for item in found.models] == ["model 1", "model 2", "model 3"]
    assert first.stored_bytes == len(same(["n", 3]))
    assert (first.top1, first.top5, first.beside) == (87.5, 100.0, None)
    assert second.top1 == 37.5
    assert second.beside is not None
    assert second.beside.agreement == 50
    difference = second.beside.top1
    assert difference is not None
    assert (difference.points, difference.lost, difference.gained) == (-50, 4, 0)
    assert (difference.low, difference.high) == paired_interval(4, 0, 8)
    assert difference.p_value == pytest.approx(2 / 16)
    p = softmax([[4, 0, 0]])[0]
    assert second.beside.divergence == pytest.approx(4 / 8 * 4 * (p[0] - p[1]))
    assert third.beside is not None
    assert (third.beside.agreement, third.beside.divergence) == (100, 0)


def test_each_model_has_the_accuracy_that_it_has_alone() -> None:
    random = np.random.default_rng(3)
    data = Data(random.standard_normal((150, 6)).astype(np.float32), random.integers(0, 7, 150))
    models = [linear(random.standard_normal((6, 7))) for _ in range(3)]
    for item, alone in zip(evaluate_models(models, data).models, models, strict=True):
        assert (item.top1, item.top5) == (evaluate(alone, data).top1, evaluate(alone, data).top5)


@pytest.mark.parametrize("batches", [("n", "n"), (1, "n"), (3, 4), (16, 1)])
@pytest.mark.parametrize("batch_size", [1, 5, 64])
def test_neither_batches_nor_the_models_fixed_sizes_matter(batches: tuple[Any, Any], batch_size: int) -> None:
    random = np.random.default_rng(4)
    x = random.standard_normal((11, 4)).astype(np.float32)
    data = Data(x, random.integers(0, 3, 11))
    weights = [random.standard_normal((4, 3)) for _ in batches]
    p, q = (softmax(x @ matrix.astype(np.float32)) for matrix in weights)
    models = [linear(matrix, batch) for matrix, batch in zip(weights, batches, strict=True)]
    found = evaluate_models(models, data, batch_size=batch_size)
    beside = found.models[1].beside
    assert beside is not None
    assert beside.agreement == pytest.approx(agreement(p, q))
    assert beside.divergence == pytest.approx(mean_divergence(p, q), rel=1e-5)
    assert class_scores(models[1], data, batch_size=batch_size) == pytest.approx(q, rel=1e-5)


def test_data_without_classes_give_agreement_and_divergence_alone() -> None:
    data = Data(np.eye(3, dtype=np.float32))
    first, second = evaluate_models([same(["n", 3]), swapped(1, 2, 3)], data).models
    assert (first.top1, first.top5, second.top1, second.top5) == (None, None, None, None)
    assert second.beside is not None
    assert second.beside.top1 is None
    assert second.beside.agreement == pytest.approx(100 / 3)
    assert second.beside.divergence > 0


# What the outputs are


def test_probabilities_are_taken_as_they_are_and_logits_through_a_softmax() -> None:
    x = np.array([[0.25, 0.75], [0.5, 0.5]], np.float32)
    data = Data(x, np.array([1, 0]))
    logits = linear(np.log([[0.1, 0.9], [0.5, 0.5]]))
    first, second = evaluate_models([same(["n", 2]), logits], data).models
    assert (first.softmaxed, second.softmaxed) == (False, True)
    expected = softmax(x @ np.log([[0.1, 0.9], [0.5, 0.5]]))
    assert second.beside is not None
    assert second.beside.divergence == pytest.approx(mean_divergence(x, expected), rel=1e-5)
    assert class_scores(same(["n", 2]), data).tolist() == x.tolist()
    assert class_scores(logits, data) == pytest.approx(expected, rel=1e-5)


def test_the_first_batch_decides_what_the_outputs_are() -> None:
    """docs/eval.md: a later row that is no distribution, like one with NaN, is counted as unusable."""
    data = scored([[0.25, 0.75], [0.5, 0.5], [3, 4]], [1, 0, 1])
    found = evaluate_models([same(["n", 2])] * 2, data, batch_size=2)
    first, second = found.models
    assert (first.softmaxed, first.unusable, first.top1) == (False, 1, 100)
    assert second.beside is not None
    assert (second.beside.agreement, second.beside.divergence) == (100, math.inf)
    assert evaluate_models([same(["n", 2])], data).models[0].softmaxed is True
    assert np.isnan(class_scores(same(["n", 2]), data, batch_size=2)).any(axis=1).tolist() == [False, False, True]


def test_nan_finds_nothing_and_leaves_no_divergence() -> None:
    data = scored([[NAN, 1], [NAN, 2], [5, 1]], [1, 1, 0])
    first, second = evaluate_models([same(["n", 2])] * 2, data, batch_size=1).models
    assert first.top1 == pytest.approx(100 / 3)
    assert (first.unusable, first.softmaxed) == (2, True)
    assert second.beside is not None
    assert second.beside.agreement == pytest.approx(100 / 3)
    assert second.beside.divergence == math.inf
    assert evaluate_models([same(["n", 2])], scored([[NAN, 1]], [0])).models[0].softmaxed is None


def test_halves_and_integers_are_scores_too() -> None:
    for dtype in (TensorProto.FLOAT16, TensorProto.INT32):
        cast = model([helper.make_node("Cast", ["data"], ["scores"], to=dtype)], ["n", 3], output=dtype)
        data = scored([[1, 2, 4], [7, 2, 4]], [2, 0])
        _, second = evaluate_models([same(["n", 3]), cast.SerializeToString()], data).models
        assert second.top1 == 100
        assert second.beside is not None
        assert second.beside.divergence == pytest.approx(0, abs=1e-12)


def test_models_of_other_classes_are_not_compared() -> None:
    with pytest.raises(UsageError, match="model 2: the models score different classes: expected 3 scores"):
        evaluate_models([same(["n", 3]), linear(np.ones((3, 4)))], scored([[1, 2, 3]], [0]))


# Where preprocessing comes from


def cropped(order: pb.ColourOrder = pb.COLOUR_ORDER_UNSPECIFIED, name: str = "") -> pb.Preprocessing:
    return pb.Preprocessing(input=name, colour_order=order, crop_height=4, crop_width=4)


def colour_model(
    shape: list[Any], order: pb.ColourOrder | None, make_bundle: MakeBundle, folder: Path, name: str
) -> Path:
    """Scores are the means of the channels: a bundle with a crop and this colour order, or a plain model."""
    made = model(MEANS, shape)
    content = made.SerializeToString()
    if order is not None:
        content = make_bundle(made, (), with_step(cropped(order, "data")))
    (folder / name).write_bytes(content)
    return folder / name


def accuracies(found: Comparison) -> list[float | None]:
    return [None if item.top1 is None else round(item.top1) for item in found.models]


def test_options_then_the_own_bundle_then_the_first_bundle(make_bundle: MakeBundle, tmp_path: Path) -> None:
    """Read as BGR, red and blue are exchanged: one picture of three is right."""
    shape = ["n", 3, 4, 4]
    plain = colour_model(shape, None, make_bundle, tmp_path, "plain.onnx")
    bgr = colour_model(shape, pb.COLOUR_ORDER_BGR, make_bundle, tmp_path, "bgr.mm")
    rgb = colour_model(shape, pb.COLOUR_ORDER_RGB, make_bundle, tmp_path, "rgb.mm")
    found = evaluate_models([plain, bgr, rgb], COLOURS)
    assert accuracies(found) == [33, 33, 100]
    kept = [item.preparation.bundle for item in found.models if item.preparation is not None]
    assert kept == [str(bgr), str(bgr), str(rgb)]
    assert accuracies(evaluate_models([plain, rgb, bgr], COLOURS)) == [100, 100, 33]
    given = evaluate_models([plain, bgr, rgb], COLOURS, preprocessing=cropped())
    assert accuracies(given) == [100, 100, 100]
    assert [item.preparation and item.preparation.bundle for item in given.models] == [None, None, None]
    with pytest.raises(UsageError, match=r"plain\.onnx: tensor 'data': nothing says how pictures become"):
        evaluate_models([plain, plain], COLOURS)


def test_what_another_model_says_is_put_into_this_ones_layout(make_bundle: MakeBundle, tmp_path: Path) -> None:
    first = colour_model(["n", 3, 4, 4], pb.COLOUR_ORDER_RGB, make_bundle, tmp_path, "first.mm")
    nodes = [helper.make_node("ReduceMean", ["data"], ["scores"], axes=[1, 2], keepdims=0)]
    last = model(nodes, ["n", 4, 4, 3]).SerializeToString()
    assert accuracies(evaluate_models([first, last], COLOURS)) == [100, 100]
    assert evaluate(last, COLOURS, preprocessing=cropped()).top1 == 100
    grey = cropped(pb.COLOUR_ORDER_GREY)
    with pytest.raises(UsageError, match="expected N x 4 x 4 x 3, found N x 1 x 4 x 4"):
        evaluate(last, COLOURS, preprocessing=grey)


def test_bundles_that_differ_in_the_mean_picture_alone_are_prepared_apart(tmp_path: Path) -> None:
    """The first mean is 0; the second one takes so much red away that a red picture is none any more."""
    (tmp_path / "m.onnx").write_bytes(model(MEANS, ["n", 3, 4, 6]).SerializeToString())
    reddish = np.zeros((4, 6, 3), np.float32)
    reddish[...] = (20, 0, 0)
    for name, mean in (("zero", 0 * reddish), ("reddish", reddish)):
        np.save(tmp_path / f"{name}.npy", mean)
        step, raw = mm.PreprocessingOptions(mean=str(tmp_path / f"{name}.npy")).message()
        options = mm.ConvertOptions(preprocessing=step, mean_picture=raw)
        mm.convert(tmp_path / "m.onnx", tmp_path / f"{name}.mm", options=options)
    found = evaluate_models([tmp_path / "zero.mm", tmp_path / "reddish.mm"], COLOURS)
    assert accuracies(found) == [100, 67]


def test_models_prepared_alike_share_what_is_read(
    make_bundle: MakeBundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each file is read once for each kind of preparation, and no more than a batch of them is in memory."""
    (tmp_path / "pictures").mkdir()
    for index in range(12):
        Image.fromarray(PICTURES[index % 3]).save(tmp_path / "pictures" / f"{index:02}.png")
    names: list[str] = []
    read_so_far: list[weakref.ref[Any]] = []
    most = 0

    def watched(path: Path) -> Any:
        nonlocal most
        names.append(path.name)
        picture = read_picture(path)
        read_so_far.append(weakref.ref(picture))
        most = max(most, sum(reference() is not None for reference in read_so_far))
        return picture

    monkeypatch.setattr("mobilemodel.runtime.data.read_picture", watched)
    shape = ["n", 3, 4, 4]
    rgb = colour_model(shape, pb.COLOUR_ORDER_RGB, make_bundle, tmp_path, "rgb.mm")
    bgr = colour_model(shape, pb.COLOUR_ORDER_BGR, make_bundle, tmp_path, "bgr.mm")
    evaluate_models([rgb, bgr, rgb, rgb], read_data(tmp_path / "pictures"), batch_size=3)
    assert sorted(names) == sorted([f"{index:02}.png" for index in range(12)] * 2)
    assert most <= 2


# Views, sizes, sessions


def test_ten_views_are_averaged(make_bundle: MakeBundle, tmp_path: Path) -> None:
    pictures = np.random.default_rng(5).integers(0, 9, (9, 6, 7, 3), np.uint8)
    plain = colour_model(["n", 3, 4, 4], None, make_bundle, tmp_path, "plain.onnx")
    step = cropped()
    made = []
    for picture in pictures.astype(np.float32):
        patches = [picture[top : top + 4, left : left + 4] for top in (0, 2) for left in (0, 3)]
        patches.append(picture[1:5, 1:5])
        logits = np.array([patch.mean(axis=(0, 1)) for patch in patches])  # mirrored, the mean is the same
        made.append(softmax(logits).mean(axis=0))
    for size in (1, 64):
        found = class_scores(plain, Data(pictures), preprocessing=step, views=10, batch_size=size)
        assert found == pytest.approx(np.array(made), abs=1e-6)
    compared = evaluate_models([plain], Data(pictures, np.argmax(made, axis=1)), preprocessing=step, views=10)
    assert (compared.views, compared.models[0].top1) == (10, 100)


def test_an_open_session_and_an_open_bundle(make_bundle: MakeBundle) -> None:
    data, step = Data(PICTURES), cropped()
    content = make_bundle(model(MEANS, ["n", 3, 4, 4]), (), with_step(cropped(name="data")))
    wanted = class_scores(content, data)
    assert wanted.dtype == np.float32
    assert top1(wanted, np.arange(3)) == 100
    assert class_scores(session(content), data, preprocessing=step).tolist() == wanted.tolist()
    with pytest.raises(UsageError, match="nothing says"):
        class_scores(session(content), data)
    with open_bundle(content) as bundle:
        assert class_scores(bundle, data).tolist() == wanted.tolist()
        assert evaluate_models([bundle], data).models[0].stored_bytes == len(content)
        assert bundle.graph() is not None  # still open


def test_weights_outside_of_an_onnx_file_are_part_of_its_size(tmp_path: Path) -> None:
    made = onnx.ModelProto.FromString(linear(np.eye(40)))
    onnx.save(made, tmp_path / "m.onnx", save_as_external_data=True, location="m.data", size_threshold=0)
    data = Data(np.eye(40, dtype=np.float32))
    (found,) = evaluate_models([tmp_path / "m.onnx"], data).models
    assert found.stored_bytes == sum((tmp_path / name).stat().st_size for name in ("m.onnx", "m.data")) > 6400
    assert found.name == str(tmp_path / "m.onnx")


def test_progress_counts_pictures() -> None:
    seen: list[tuple[str, int, int]] = []
    data = Data(np.zeros((5, 2), np.float32))
    evaluate_models([same(["n", 2])], data, batch_size=2, progress=lambda *what: seen.append(what))
    assert seen == [("opening the models", 0, 1), *[("evaluating", done, 5) for done in (2, 4, 5)]]


# What cannot be


def test_what_cannot_be_evaluated_is_said(tmp_path: Path) -> None:
    data = scored([[1, 2, 3]], [2])
    with pytest.raises(UsageError, match="no model to evaluate"):
        evaluate_models([], data)
    with pytest.raises(UsageError, match="the data are empty"):
        evaluate_models([same(["n", 3])], Data(np.zeros((0, 3), np.float32)))
    with pytest.raises(UsageError, match="batch size"):
        evaluate_models([same(["n", 3])], data, batch_size=0)
    with pytest.raises(LimitExceededError, match=r"model 1: tensor 'data': a batch of the model's input"):
        evaluate_models([same([2**30, 3])], data)
    with pytest.raises(LimitExceededError):
        evaluate_models([same([0, 3])], data)
    with pytest.raises(MalformedSourceError, match=r"data\.npz: a class is out of range: expected below 3, found 7"):
        evaluate_models([same(["n", 3])], Data(data.x, np.array([7]), file="data.npz"))
    (tmp_path / "text.onnx").write_bytes(b"no model at all")
    with pytest.raises(UnsupportedSourceError, match=r"text\.onnx: ONNX Runtime refuses the model"):
        evaluate_models([tmp_path / "text.onnx"], data)
    empty = helper.make_node("Slice", ["data", "start", "start", "axis"], ["scores"])
    weights = {"start": np.array([0]), "axis": np.array([1])}
    with pytest.raises(UnsupportedSourceError, match=r"model 1: the first output holds no scores of classes"):
        evaluate_models([model([empty], ["n", 3], weights=weights).SerializeToString()], data)


def test_scores_beyond_the_limit_are_not_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mobilemodel.runtime.comparison.LARGEST_SCORES", 5)
    with pytest.raises(LimitExceededError, match="expected at most 5, found 6"):
        class_scores(same(["n", 3]), scored([[1, 2, 3]] * 2, [0, 1]))
