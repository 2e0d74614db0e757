"""PriorBox and DetectionOutput of SSD's Caffe against loops over boxes, over their parameters."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mobilemodel.errors import LimitExceededError, MalformedSourceError, UnsupportedSourceError
from mobilemodel_converters.caffe.net import Layer
from tests.caffe_layers import Array, assert_close, make_layer, run_layer, translate_layer

SIZES = st.sampled_from([16.0, 30.0, 35.84, 60.0])
RATIOS = st.sampled_from([1.0, 2.0, 3.0, 0.5, 1.5])


def prior_boxes(cells: tuple[int, int], picture: tuple[int, int], parameters: dict[str, Any]) -> Array:
    """Box by box, as Caffe's loop makes them; ``parameters`` are complete but for what has a default."""
    ratios = [1.0]
    for ratio in parameters.get("aspect_ratio", []):
        if all(abs(ratio - other) >= 1e-6 for other in ratios):
            ratios += [ratio, 1 / ratio] if parameters.get("flip", True) else [ratio]
    steps = [parameters.get("step") or parameters.get(f"step_{side}") or whole / count
             for side, whole, count in zip("hw", picture, cells, strict=True)]  # fmt: skip
    largest = [int(size) for size in parameters.get("max_size", [])]
    boxes = []
    for row in range(cells[0]):
        for column in range(cells[1]):
            y, x = ((place + parameters.get("offset", 0.5)) * step for place, step in zip((row, column), steps,
                                                                                          strict=True))  # fmt: skip
            for index, low in enumerate(int(size) for size in parameters["min_size"]):
                sides = [(low, low)] + ([(math.sqrt(low * largest[index]),) * 2] if largest else [])
                sides += [(low * math.sqrt(r), low / math.sqrt(r)) for r in ratios if abs(r - 1) >= 1e-6]
                for width, height in sides:
                    boxes.append([(x - width / 2) / picture[1], (y - height / 2) / picture[0],
                                  (x + width / 2) / picture[1], (y + height / 2) / picture[0]])  # fmt: skip
    values = np.array(boxes).reshape(-1)
    if parameters.get("clip", False):
        values = values.clip(0, 1)
    variances = parameters.get("variance", [0.1])
    return np.stack((values, np.resize(variances, values.shape))).astype(np.float32)[np.newaxis]


@st.composite
def prior_parameters(draw: st.DrawFn) -> dict[str, Any]:
    """Parameters of a PriorBox, each there or not."""
    smallest = draw(st.lists(SIZES, min_size=1, max_size=3))
    parameters: dict[str, Any] = {"min_size": smallest}
    choices: dict[str, st.SearchStrategy[Any]] = {
        "max_size": st.just([size * 2 + 1 for size in smallest]),
        "aspect_ratio": st.lists(RATIOS, max_size=3),
        "flip": st.booleans(),
        "clip": st.booleans(),
        "variance": st.sampled_from([[0.2], [0.1, 0.1, 0.2, 0.2]]),
        "offset": st.sampled_from([0.0, 0.5, 0.25]),
        "img_size": st.just(300),
    }
    for name, values in choices.items():
        if draw(st.booleans()):
            parameters[name] = draw(values)
    return parameters | draw(st.sampled_from([{}, {"step": 8.0}, {"step_h": 8.0, "step_w": 16.5}]))


@given(prior_parameters(), st.integers(1, 4), st.integers(1, 4))
def test_prior_boxes_are_those_of_the_loop(parameters: dict[str, Any], height: int, width: int) -> None:
    """Squares of min_size and of sqrt(min_size x max_size), then a box for each ratio; sizes are whole pixels."""
    inputs = [np.zeros((1, 2, height, width), np.float32), np.zeros((1, 3, 100, 120), np.float32)]
    picture = (300, 300) if "img_size" in parameters else (100, 120)
    (found,) = run_layer(make_layer("PriorBox", bottoms=2, prior_box_param=parameters), inputs)
    assert_close(found, prior_boxes((height, width), picture, parameters), absolute=1e-6)


def test_what_caffe_cuts_off_a_size_is_noted() -> None:
    shapes = [(1, 2, 3, 3), (1, 3, 9, 9)]
    for size, notes in ((35.84, 1), (35.0, 0)):
        layer = make_layer("PriorBox", bottoms=2, prior_box_param={"min_size": [size]})
        assert len([note for note in translate_layer(layer, shapes).notes if "whole pixels" in note]) == notes


@pytest.mark.parametrize(
    "parameters",
    [
        {},
        {"min_size": [0.0]},
        {"min_size": [float("nan")]},
        {"min_size": [float("inf")]},
        {"min_size": [30.0], "max_size": [30.0]},
        {"min_size": [30.0, 60.0], "max_size": [50.0]},
        {"min_size": [30.0], "aspect_ratio": [0.0]},
        {"min_size": [30.0], "aspect_ratio": [float("nan")]},
        {"min_size": [30.0], "variance": [0.1, 0.1]},
        {"min_size": [30.0], "variance": [-0.1]},
        {"min_size": [30.0], "step": 0.0},
        {"min_size": [30.0], "step": 8.0, "step_w": 8.0},
        {"min_size": [30.0], "img_size": 30, "img_w": 30},
        {"min_size": [30.0], "img_h": 0, "img_w": 30},
    ],
)
def test_prior_box_parameters_that_caffe_refuses(parameters: dict[str, Any]) -> None:
    with pytest.raises(MalformedSourceError):
        translate_layer(make_layer("PriorBox", bottoms=2, prior_box_param=parameters), [(1, 2, 3, 3), (1, 3, 9, 9)])


@pytest.mark.parametrize(
    ("parameters", "side"),
    [
        ({"min_size": [30.0]}, 32_768),
        ({"min_size": [9.0] * 300}, 3),
        ({"min_size": [9.0], "aspect_ratio": [2.0] * 999}, 3),
    ],
)
def test_prior_boxes_are_counted_before_they_are_made(parameters: dict[str, Any], side: int) -> None:
    shapes = [(1, 1, side, side), (1, 1, side, side)]
    with pytest.raises(LimitExceededError):
        translate_layer(make_layer("PriorBox", bottoms=2, prior_box_param=parameters), shapes)


@dataclass(frozen=True)
class Head:
    """Inputs of a DetectionOutput for one picture: codes (P x 4), scores (P x C), priors and variances (P x 4)."""

    codes: Array
    scores: Array
    priors: Array
    variances: Array

    @property
    def inputs(self) -> list[Array]:
        """As the layer takes them."""
        priors = np.stack((self.priors.reshape(-1), self.variances.reshape(-1)))
        return [self.codes.reshape(1, -1), self.scores.reshape(1, -1), priors[np.newaxis]]


def head(seed: int, priors: int, classes: int) -> Head:
    """Boxes that overlap often; some of the scores are equal."""
    generator = np.random.default_rng(seed)
    low = generator.random((priors, 2)) * 0.6
    boxes = np.concatenate((low, low + 0.1 + generator.random((priors, 2)) * 0.4), 1)
    codes = generator.standard_normal((priors, 4))
    scores = generator.integers(0, 40, (priors, classes)) / 40
    variances = np.resize([0.1, 0.2, 0.15, 0.25], (priors, 4))
    return Head(*(values.astype(np.float32) for values in (codes, scores, boxes, variances)))


def decoded(case: Head, code: str, in_target: bool) -> Array:
    """Corners of all boxes, in float32 as Caffe has them."""
    codes = case.codes if in_target else case.variances * case.codes
    if code == "CORNER":
        return case.priors + codes
    size = case.priors[:, 2:] - case.priors[:, :2]
    centre = (case.priors[:, :2] + case.priors[:, 2:]) / np.float32(2) + codes[:, :2] * size
    half = np.exp(codes[:, 2:]) * size / np.float32(2)
    return np.concatenate((centre - half, centre + half), 1)


def overlap(one: Array, other: Array) -> float:
    """Intersection over union; a box whose corners have changed places overlaps nothing."""
    width, height = np.minimum(one[2:], other[2:]) - np.maximum(one[:2], other[:2])
    if width <= 0 or height <= 0:
        return 0.0
    areas = [0 if (box[2:] < box[:2]).any() else np.prod(box[2:] - box[:2]) for box in (one, other)]
    return float(width * height / (areas[0] + areas[1] - width * height))


def detections(case: Head, parameters: dict[str, Any]) -> Array:
    """Caffe's loop: threshold, sort, top_k and suppression for each class, then keep_top_k of all."""
    suppression = parameters["nms_param"]
    boxes = decoded(case, parameters["code_type"], parameters["variance_encoded_in_target"])
    rows = []
    for label in range(case.scores.shape[1]):
        if label == parameters["background_label_id"]:
            continue
        scores = case.scores[:, label]
        order = [int(place) for place in np.argsort(-scores, kind="stable")
                 if scores[place] > parameters.get("confidence_threshold", -np.inf)]  # fmt: skip
        kept: list[int] = []
        for place in order[: suppression.get("top_k")]:
            if all(overlap(boxes[place], boxes[other]) <= np.float32(suppression["nms_threshold"]) for other in kept):
                kept.append(place)
        rows += [[0, label, scores[place], *boxes[place]] for place in kept]
    keep = parameters["keep_top_k"]
    if 0 <= keep < len(rows):
        best = sorted(range(len(rows)), key=lambda index: -rows[index][2])[:keep]
        rows = [rows[index] for index in sorted(best)]
    return np.array(rows or [[0] + [-1] * 6], np.float32)[np.newaxis, np.newaxis]


@st.composite
def detector_parameters(draw: st.DrawFn) -> dict[str, Any]:
    """Parameters of a DetectionOutput that is converted."""
    suppression: dict[str, Any] = {"nms_threshold": draw(st.sampled_from([0.0, 0.3, 0.45, 0.9, 1.5]))}
    if draw(st.booleans()):
        suppression["top_k"] = draw(st.integers(1, 30))
    parameters: dict[str, Any] = {
        "code_type": draw(st.sampled_from(["CORNER", "CENTER_SIZE"])),
        "variance_encoded_in_target": draw(st.booleans()),
        "background_label_id": draw(st.sampled_from([0, 0, 2, -1])),
        "keep_top_k": draw(st.sampled_from([-1, 1, 3, 10, 200])),
        "nms_param": suppression,
    }
    threshold = draw(st.sampled_from([None, 0.01, 0.5, 0.9, 1.0]))
    return parameters if threshold is None else parameters | {"confidence_threshold": threshold}


def detector(classes: int, parameters: dict[str, Any]) -> Layer:
    """The layer of these parameters."""
    return make_layer("DetectionOutput", bottoms=3, detection_output_param={"num_classes": classes, **parameters})


@given(detector_parameters(), st.integers(1, 25), st.integers(2, 4), st.integers(0, 99))
def test_detections_are_those_of_the_loop(parameters: dict[str, Any], priors: int, classes: int, seed: int) -> None:
    """Class by class, the best first; among equal scores the first prior, and the first class; no box is a row too."""
    case = head(seed, priors, classes)
    (found,) = run_layer(detector(classes, parameters), case.inputs)
    assert_close(found, detections(case, parameters), absolute=1e-5)


def test_boxes_turned_inside_out_suppress_nothing() -> None:
    """With CORNER a code may move the left corner past the right one; Caffe sees no area there, ONNX a mirrored box."""
    priors = np.array([[0.2, 0.2, 0.6, 0.6]] * 3, np.float32)
    codes = np.array([[0.4, 0.0, -0.4, 0.0], [0, 0, 0, 0], [0, 0.1, 0, 0.1]], np.float32)
    case = Head(codes, np.array([[0, 0.9], [0, 0.8], [0, 0.7]], np.float32), priors, np.ones((3, 4), np.float32))
    parameters = {"code_type": "CORNER", "keep_top_k": -1, "nms_param": {"nms_threshold": 0.3},
                  "background_label_id": 0, "variance_encoded_in_target": False}  # fmt: skip
    (found,) = run_layer(detector(2, parameters), case.inputs)
    assert found.shape == (1, 1, 2, 7)
    assert_close(found, detections(case, parameters), absolute=1e-6)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"share_location": False}, "share_location"),
        ({"code_type": "CORNER_SIZE"}, "code_type"),
        ({"nms_param": {"eta": 0.9}}, "eta"),
        ({"nms_param": {"top_k": 0}}, "no box"),
        ({"keep_top_k": 0}, "no box"),
    ],
)
def test_what_onnx_does_not_say_is_refused(change: dict[str, Any], reason: str) -> None:
    with pytest.raises(UnsupportedSourceError, match=reason):
        run_layer(detector(3, change), head(1, 5, 3).inputs)


def test_only_one_picture_at_a_time() -> None:
    shapes = [(2, 20), (2, 15), (1, 2, 20)]
    with pytest.raises(UnsupportedSourceError, match="batch of 1"):
        translate_layer(detector(3, {}), shapes)
    model = translate_layer(detector(3, {}), [(1, 20), (1, 15), (1, 2, 20)])
    assert [dim.size for dim in model.inputs[0].shape.dimensions] == [1, 20]


@pytest.mark.parametrize(
    ("classes", "shapes"),
    [
        (3, [(1, 20), (1, 16), (1, 2, 20)]),
        (3, [(1, 16), (1, 15), (1, 2, 20)]),
        (3, [(1, 20), (1, 15), (1, 1, 20)]),
        (3, [(1, 20), (1, 15), (1, 20)]),
        (3, [(1, 21), (1, 15), (1, 2, 21)]),
        (0, [(1, 20), (1, 15), (1, 2, 20)]),
        (1, [(1, 20), (1, 5), (1, 2, 20)]),
    ],
)
def test_the_three_bottoms_agree(classes: int, shapes: list[tuple[int, ...]]) -> None:
    with pytest.raises(MalformedSourceError):
        translate_layer(detector(classes, {}), shapes)


def test_classes_are_counted_before_they_are_listed() -> None:
    classes = 2_000_000_000
    with pytest.raises(LimitExceededError):
        translate_layer(detector(classes, {}), [(1, 4), (1, classes), (1, 2, 4)])
