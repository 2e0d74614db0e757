"""OpenCV's PriorBox and DetectionOutput against ours, in heads like those of SSD."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from tests.conformance.test_caffe_opencv import Array, assert_agree, ours, theirs, write_weights

MAP = """
    name: "head" input: "data" input_shape { dim: 1 dim: 3 dim: 60 dim: 72 }
    layer { name: "map" type: "Convolution" bottom: "data" top: "map"
            convolution_param { num_output: 8 kernel_size: 3 stride: 9 } }"""
PRIOR_BOXES = {
    "one size": "min_size: 20",
    "two sizes": "min_size: 20 min_size: 32",
    "largest sizes": "min_size: 20 min_size: 32 max_size: 31 max_size: 50 aspect_ratio: 2",
    "no flip": "min_size: 20 aspect_ratio: 2 aspect_ratio: 3 flip: false",
    "flip": "min_size: 20 aspect_ratio: 2 aspect_ratio: 3 flip: true",
    "clip": "min_size: 20 max_size: 50 clip: true variance: 0.1 variance: 0.1 variance: 0.2 variance: 0.2",
    "step": "min_size: 20 step: 8",
    "steps and offset": "min_size: 20 step_h: 9 step_w: 7.5 offset: 0.25 variance: 0.3",
    "ratio 1 and twice the same": "min_size: 20 aspect_ratio: 1 aspect_ratio: 2 aspect_ratio: 2 variance: 0.1",
}
DETECTIONS = {
    "ssd": "code_type: CENTER_SIZE keep_top_k: 200 confidence_threshold: 0.01 "
           "nms_param { nms_threshold: 0.45 top_k: 400 }",
    "few of many": "code_type: CENTER_SIZE keep_top_k: 12 confidence_threshold: 0.01 "
                   "nms_param { nms_threshold: 0.6 top_k: 50 }",
    "few candidates": "code_type: CENTER_SIZE keep_top_k: 30 confidence_threshold: 0.2 "
                      "nms_param { nms_threshold: 0.3 top_k: 9 }",
    "corner": "code_type: CORNER keep_top_k: 60 confidence_threshold: 0.1 nms_param { nms_threshold: 0.4 top_k: 100 }",
    "little overlap": "code_type: CENTER_SIZE keep_top_k: 40 confidence_threshold: 0.3 "
                      "nms_param { nms_threshold: 0.05 }",
    "another background": "code_type: CENTER_SIZE background_label_id: 2 keep_top_k: 40 confidence_threshold: 0.3 "
                          "nms_param { nms_threshold: 0.45 top_k: 100 }",
}  # fmt: skip
CLASSES, PRIORS = 4, 6
HEAD = f"""
    layer {{ name: "boxes" type: "PriorBox" bottom: "map" bottom: "data" top: "boxes" prior_box_param {{
             min_size: 20 max_size: 40 aspect_ratio: 2 aspect_ratio: 3 flip: true clip: false
             variance: 0.1 variance: 0.1 variance: 0.2 variance: 0.2 }} }}
    layer {{ name: "loc" type: "Convolution" bottom: "map" top: "loc"
             convolution_param {{ num_output: {PRIORS * 4} kernel_size: 3 pad: 1 }} }}
    layer {{ name: "loc_perm" type: "Permute" bottom: "loc" top: "loc_perm"
             permute_param {{ order: 0 order: 2 order: 3 order: 1 }} }}
    layer {{ name: "loc_flat" type: "Flatten" bottom: "loc_perm" top: "loc_flat" }}
    layer {{ name: "conf" type: "Convolution" bottom: "map" top: "conf"
             convolution_param {{ num_output: {PRIORS * CLASSES} kernel_size: 3 pad: 1 }} }}
    layer {{ name: "conf_perm" type: "Permute" bottom: "conf" top: "conf_perm"
             permute_param {{ order: 0 order: 2 order: 3 order: 1 }} }}
    layer {{ name: "conf_flat" type: "Flatten" bottom: "conf_perm" top: "conf_flat" }}
    layer {{ name: "rows" type: "Reshape" bottom: "conf_flat" top: "rows"
             reshape_param {{ shape {{ dim: 0 dim: -1 dim: {CLASSES} }} }} }}
    layer {{ name: "scores" type: "Softmax" bottom: "rows" top: "scores" softmax_param {{ axis: 2 }} }}
    layer {{ name: "scores_flat" type: "Flatten" bottom: "scores" top: "scores_flat" }}"""


def both(text: str, tmp_path: Path, seed: int = 3) -> tuple[Array, Array]:
    """The output ``y`` by our converter and by OpenCV, for a random picture."""
    prototxt, weights = tmp_path / "net.prototxt", tmp_path / "net.caffemodel"
    prototxt.write_text(text)
    write_weights(weights, prototxt, seed=seed)
    inputs = {"data": np.random.default_rng(seed).standard_normal((1, 3, 60, 72)).astype(np.float32)}
    (found,), (expected,) = ours(prototxt, weights, ["y"], inputs), theirs(prototxt, weights, (), inputs)
    return found, expected


def named(parameters: str, **defaults: str) -> str:
    """The parameters with Caffe's defaults written out: OpenCV has others, or none."""
    return parameters + "".join(f" {field}: {value}" for field, value in defaults.items() if field not in parameters)


@pytest.mark.parametrize("name", PRIOR_BOXES)
def test_prior_boxes(name: str, tmp_path: Path) -> None:
    parameters = named(PRIOR_BOXES[name], flip="true", clip="false", variance="0.1")
    found, expected = both(
        f'{MAP} layer {{ name: "y" type: "PriorBox" bottom: "map" bottom: "data" top: "y" '
        f"prior_box_param {{ {parameters} }} }}", tmp_path,
    )  # fmt: skip
    assert found.shape == expected.shape
    assert_agree(found, expected)
    np.testing.assert_allclose(found, expected, atol=1e-6)


def rows(output: Array) -> Array:
    """The rows that hold a box (OpenCV fills up with zeros), by class and score."""
    table = output.reshape(-1, 7)
    table = table[table[:, 2] > 0]
    return table[np.lexsort((-table[:, 2], table[:, 1]))]


@pytest.mark.parametrize("seed", [3, 4, 5])
@pytest.mark.parametrize("name", DETECTIONS)
def test_detections(name: str, seed: int, tmp_path: Path) -> None:
    """Same boxes, classes and scores: what is suppressed depends on all that was kept before."""
    parameters = named(DETECTIONS[name], background_label_id="0")
    layer = f"""layer {{ name: "y" type: "DetectionOutput" bottom: "loc_flat" bottom: "scores_flat" bottom: "boxes"
        top: "y" detection_output_param {{ num_classes: {CLASSES} share_location: true {parameters} }} }}"""
    found, expected = both(MAP + HEAD + layer, tmp_path, seed)
    assert len(rows(found)) == found.shape[2] > 5
    np.testing.assert_allclose(rows(found), rows(expected), atol=1e-4)
