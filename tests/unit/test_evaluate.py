"""Accuracy and differences: counted by hand on small models, and measured on the real network of the zoo."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from onnx import TensorProto, helper
from PIL import Image

from mobilemodel.errors import (
    CheckFailedError,
    MalformedSourceError,
    UnsupportedEncodingError,
    UnsupportedSourceError,
    UsageError,
)
from mobilemodel.runtime import Data, Evaluation, compare, difference, evaluate, read_data
from mobilemodel.v1 import bundle_pb2 as pb
from tests.scorers import COLOURS, MEANS, PICTURES, model, same, scored, with_step

MakeBundle = Callable[..., bytes]


def test_top1_and_top5_are_counted() -> None:
    rows = [[9.0, 8, 7, 6, 5, 4, 3]] * 7
    found = evaluate(same(["n", 7]), scored(rows, [0, 1, 2, 3, 4, 5, 6]))
    assert found == Evaluation(100 / 7, 500 / 7, 7)


def test_equal_scores_favour_the_smaller_index_and_nan_finds_nothing() -> None:
    rows = [[1.0, 1, 0], [1.0, 1, 0], [float("nan"), 2, 1]]
    found = evaluate(same(["n", 3]), scored(rows, [0, 1, 1]))
    assert found.top1 == pytest.approx(100 / 3)
    assert found.top5 == pytest.approx(200 / 3)


@given(st.data())
def test_top_k_is_a_stable_sort(data: st.DataObject) -> None:
    rows = data.draw(st.lists(st.lists(st.integers(0, 4), min_size=8, max_size=8), min_size=1, max_size=9))
    classes = data.draw(st.lists(st.integers(0, 7), min_size=len(rows), max_size=len(rows)))
    found = evaluate(SAME_8, scored([[float(score) for score in row] for row in rows], classes), batch_size=4)
    order = [sorted(range(8), key=lambda index, row=row: -row[index]) for row in rows]  # type: ignore[misc]
    for k, share in ((1, found.top1), (5, found.top5)):
        right = sum(wanted in first[:k] for wanted, first in zip(classes, order, strict=True))
        assert share == pytest.approx(100 * right / len(rows))


SAME_8 = same(["n", 8])


@pytest.mark.parametrize("batch_size", [1, 2, 3, 64])
@pytest.mark.parametrize("batch", ["n", 1, 2, 4])
def test_batches_do_not_matter(batch: Any, batch_size: int) -> None:
    """A model with a fixed batch size is run in that size, the last batch filled up."""
    rows = np.eye(5, dtype=np.float32)
    found = evaluate(same([batch, 5]), Data(rows, np.array([0, 1, 2, 3, 3])), batch_size=batch_size)
    assert found == Evaluation(80.0, 100.0, 5)


def test_a_limit_looks_at_all_classes_of_sorted_data() -> None:
    rows, classes = np.repeat(np.eye(3, dtype=np.float32), 10, axis=0), np.repeat([0, 1, 0], 10)
    found = evaluate(same(["n", 3]), Data(rows, classes), limit=3)
    assert found.pictures == 3
    assert found.top1 == pytest.approx(200 / 3)


# Where preprocessing comes from


def test_preprocessing_comes_from_the_bundle_or_is_given(make_bundle: MakeBundle) -> None:
    swapped = pb.Preprocessing(input="data", colour_order=pb.COLOUR_ORDER_BGR, crop_height=4, crop_width=4)
    bundle = make_bundle(model(MEANS, ["n", 3, 4, 4]), (), with_step(swapped))
    assert evaluate(bundle, COLOURS).top1 == pytest.approx(100 / 3)
    straight = pb.Preprocessing(crop_height=4, crop_width=4)
    assert evaluate(bundle, COLOURS, preprocessing=straight).top1 == 100
    plain = model(MEANS, ["n", 3, 4, 4]).SerializeToString()
    assert evaluate(plain, COLOURS, preprocessing=straight).top1 == 100


def test_a_given_mean_picture_is_subtracted() -> None:
    step = pb.Preprocessing(mean_picture=pb.MeanPicture(height=4, width=6))
    mean = PICTURES[0].astype(np.float32) * 2
    found = evaluate(model(MEANS, ["n", 3, 4, 6]).SerializeToString(), COLOURS, preprocessing=step, mean_picture=mean)
    assert found.top1 == pytest.approx(200 / 3)


def test_pictures_without_preprocessing_are_refused_not_guessed() -> None:
    with pytest.raises(UsageError, match="nothing says how pictures become the model's input"):
        evaluate(model(MEANS, ["n", 3, 4, 6]).SerializeToString(), COLOURS)


def test_files_of_pictures(tmp_path: Path) -> None:
    for index, name in enumerate(("a", "b", "c")):
        (tmp_path / name).mkdir()
        Image.fromarray(PICTURES[index]).save(tmp_path / name / "1.png")
    plain = model(MEANS, ["n", 3, 4, 6]).SerializeToString()
    assert evaluate(plain, read_data(tmp_path), preprocessing=pb.Preprocessing(), batch_size=2).top1 == 100


@pytest.mark.parametrize("dtype", [TensorProto.FLOAT16, TensorProto.UINT8])
def test_inputs_of_other_types(dtype: int) -> None:
    nodes = [helper.make_node("Cast", ["data"], ["f"], to=TensorProto.FLOAT)]
    nodes.append(helper.make_node("ReduceMean", ["f"], ["scores"], axes=[1, 2], keepdims=0))
    raw = model(nodes, ["n", 4, 6, 3], dtype).SerializeToString()
    assert evaluate(raw, COLOURS, preprocessing=pb.Preprocessing(layout=pb.LAYOUT_NHWC)).top1 == 100


def test_what_does_not_fit_is_said() -> None:
    plain = model(MEANS, ["n", 3, 4, 6]).SerializeToString()
    step = pb.Preprocessing()
    with pytest.raises(UsageError, match="no classes to compare with"):
        evaluate(plain, Data(PICTURES), preprocessing=step)
    with pytest.raises(UsageError, match="expected N x 3 x 4 x 6, found N x 3 x 2 x 2"):
        evaluate(plain, COLOURS, preprocessing=pb.Preprocessing(crop_height=2, crop_width=2))
    with pytest.raises(UsageError, match="expected N x 3 x 4 x 6, found N x 7"):
        evaluate(plain, Data(np.zeros((2, 7), np.float32), np.zeros(2, np.int64)))
    with pytest.raises(MalformedSourceError, match="a class is out of range: expected below 3, found 3"):
        evaluate(plain, Data(PICTURES, np.array([0, 3, 1])), preprocessing=step)


def test_ten_views_see_what_one_view_misses() -> None:
    """A red picture whose left border is bright blue: only windows that hold the border see that."""
    picture = np.zeros((1, 4, 8, 3), np.uint8)
    picture[..., 0], picture[:, :, 0] = 2, (0, 0, 40)
    data, step = Data(picture, np.array([0])), pb.Preprocessing(crop_height=4, crop_width=4)
    plain = model(MEANS, ["n", 3, 4, 4]).SerializeToString()
    assert evaluate(plain, data, preprocessing=step).top1 == 100
    # Of ten windows four hold the border: there the softmax of (1.5, 0, 10) is nearly sure of blue, elsewhere that of
    # (2, 0, 0) gives red 0.79.
    assert evaluate(plain, data, preprocessing=step, views=10).top1 == 100
    picture[..., 0] = 1
    assert evaluate(plain, data, preprocessing=step).top1 == 100
    # (1, 0, 0) gives red 0.58: 6 x 0.58 < 4 + 6 x 0.21.
    assert evaluate(plain, data, preprocessing=step, views=10).top1 == 0


def test_what_cannot_be_seen_ten_times_is_said() -> None:
    plain = model(MEANS, ["n", 3, 4, 4]).SerializeToString()
    with pytest.raises(UsageError, match="views: expected 1 or 10, found 5"):
        evaluate(plain, COLOURS, preprocessing=pb.Preprocessing(), views=5)
    with pytest.raises(UsageError, match="ten views need pictures"):
        evaluate(same(["n", 3]), scored([[1, 2, 3]], [2]), views=10)
    with pytest.raises(UsageError, match="expected less than 4 x 6, found no crop"):
        evaluate(plain, COLOURS, preprocessing=pb.Preprocessing(), views=10)


def test_models_that_are_no_classifiers_of_pictures() -> None:
    two = model([helper.make_node("Add", ["data", "other"], ["scores"])], ["n", 3])
    two.graph.input.append(helper.make_tensor_value_info("other", TensorProto.FLOAT, ["n", 3]))
    data = scored([[1, 2, 3]], [2])
    with pytest.raises(UnsupportedSourceError, match="number of inputs than one: found 2"):
        evaluate(two.SerializeToString(), data)
    text = model([helper.make_node("Cast", ["data"], ["scores"], to=1)], ["n", 3], TensorProto.INT64)
    with pytest.raises(UnsupportedEncodingError, match=r"tensor\(int64\)"):
        evaluate(text.SerializeToString(), data)
    total = model([helper.make_node("ReduceSum", ["data"], ["scores"], keepdims=0)], ["n", 3])
    with pytest.raises(UnsupportedSourceError, match="no scores of classes"):
        evaluate(total.SerializeToString(), data)


# Differences


def test_a_bundle_and_its_model_are_identical(make_bundle: MakeBundle) -> None:
    weight = np.random.default_rng(0).standard_normal((5, 4)).astype(np.float32)
    made = model([helper.make_node("MatMul", ["data", "w"], ["scores"])], ["n", 5], weights={"w": weight})
    inputs = {"data": np.random.default_rng(1).standard_normal((3, 5)).astype(np.float32)}
    (found,) = compare(made.SerializeToString(), make_bundle(made, {"w"}), inputs)
    assert (found.output, found.largest_absolute, found.largest_relative, found.identical) == ("scores", 0, 0, True)
    changed = model([helper.make_node("MatMul", ["data", "w"], ["scores"])], ["n", 5], weights={"w": weight * 2})
    (found,) = compare(made.SerializeToString(), changed.SerializeToString(), inputs)
    assert found.largest_absolute == pytest.approx(np.abs(inputs["data"] @ weight).max(), rel=1e-5)
    assert found.largest_relative == pytest.approx(1, rel=1e-5)
    assert not found.identical


def test_other_outputs_are_no_match() -> None:
    renamed = model([helper.make_node("Identity", ["data"], ["other"])], ["n", 3])
    renamed.graph.output[0].name = "other"
    with pytest.raises(CheckFailedError, match="outputs of the two models: expected scores, found other"):
        compare(same(["n", 3]), renamed.SerializeToString(), {"data": np.zeros((1, 3), np.float32)})
    with pytest.raises(CheckFailedError, match="type or shape"):
        difference("y", np.zeros(3), np.zeros(4))


@pytest.mark.parametrize(
    ("a", "b", "absolute", "relative", "identical"),
    [
        ([1.0, -4.0], [1.0, -3.0], 1.0, 0.25, False),
        ([0.0], [-0.0], 0.0, 0.0, False),
        ([np.nan, 1.0], [np.nan, 1.0], 0.0, 0.0, True),
        ([np.nan, 1.0], [2.0, 1.0], np.inf, np.inf, False),
        ([np.inf, 1.0], [np.inf, 1.0], 0.0, 0.0, True),
        ([np.inf, 1.0], [-np.inf, 1.0], np.inf, np.inf, False),
        ([0.0], [3.0], 3.0, np.inf, False),
        ([], [], 0.0, 0.0, True),
    ],
)
def test_differences(a: list[float], b: list[float], absolute: float, relative: float, identical: bool) -> None:
    found = difference("y", np.array(a), np.array(b))
    assert (found.largest_absolute, found.largest_relative, found.identical) == (absolute, relative, identical)


def test_differences_of_other_types() -> None:
    assert difference("y", np.array([True, False]), np.array([True, True])).largest_absolute == 1
    assert difference("y", np.array([250], np.uint8), np.array([5], np.uint8)).largest_absolute == 245
    words = np.array(["a", "b"], object)
    assert difference("y", words, np.array(["a", "b"], object)).identical
    assert not difference("y", words, np.array(["a", "c"], object)).identical


# The real network

CIFAR = pb.Preprocessing(mean=[125.268845, 122.93302, 113.86284], scale=[1 / 64])


def test_the_real_classifier_has_its_accuracy(zoo: Path) -> None:
    folder = zoo / "cifar-alexnet"
    found = evaluate(folder / "model.onnx", read_data(folder / "test.npz"), preprocessing=CIFAR)
    assert found.pictures == 5000
    assert found.top1 == pytest.approx(82.28, abs=0.05)


def test_a_bundle_of_the_real_classifier_computes_the_same(zoo: Path, make_bundle: MakeBundle) -> None:
    import onnx

    folder = zoo / "cifar-alexnet"
    real = onnx.load(folder / "model.onnx")
    weights = {item.name for item in real.graph.initializer if item.data_type == TensorProto.FLOAT}
    step = pb.Preprocessing(input="data")
    step.MergeFrom(CIFAR)
    bundle = make_bundle(real, weights, with_step(step))
    data = read_data(folder / "test.npz")
    given = evaluate(folder / "model.onnx", data, preprocessing=CIFAR, limit=300)
    assert evaluate(bundle, data, limit=300) == given
    inputs = {"data": next(data.spread(8).batches(8, lambda p: p.astype(np.float32).transpose(0, 3, 1, 2)))}
    assert all(found.identical for found in compare(folder / "model.onnx", bundle, inputs))
