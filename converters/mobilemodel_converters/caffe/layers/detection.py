"""DetectionOutput: boxes of a single-shot detector, decoded and thinned out by ONNX's NonMaxSuppression.

Caffe takes, for each class, the ``top_k`` boxes with the largest scores above the threshold, drops the ones that
overlap a better one, and keeps the ``keep_top_k`` best of all classes, listed class by class. Where none is left it
gives one row without a box: 0, and -1 six times.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from mobilemodel.errors import LimitExceededError
from mobilemodel.layout import elements_of
from mobilemodel_converters.caffe.schema import enum_name
from mobilemodel_converters.caffe.scope import Scope

_MOST_CLASSES = 65_536
"""classes that are listed one by one inside the graph"""
_ROW = 7
"""image, class, score, xmin, ymin, xmax, ymax"""


@dataclass(frozen=True)
class _Detector:
    """The layer's parameters after all checks."""

    priors: int
    classes: int
    wanted: tuple[int, ...]
    """classes that are searched for: all but the background"""
    code: str
    variances: bool
    """the third bottom holds them, and the box codes are to be multiplied by them"""
    candidates: int
    """boxes of a class that are looked at"""
    overlap: float
    score: float | None
    most: int | None
    """rows of the output"""


def _detection_output(scope: Scope) -> None:
    detector = _read(scope)
    boxes, compared = _decode(scope, detector)
    scores, places = _candidates(scope, detector)
    chosen = _suppress(scope, detector, compared, scores, places)
    found = scope.add("GatherND", (scores, chosen), "found_scores")
    place = scope.add("GatherND", (places, chosen), "found_places")
    rows = _rows(scope, detector, chosen, found, scope.add("Gather", (boxes, place), "found_boxes", axis=0))
    best = _best(scope, detector, found)
    kept = scope.add("Gather", (rows, best), "kept", axis=0)
    scope.fix_batch()
    scope.emit("Unsqueeze", (kept, scope.integers([0, 1], "front")), (1, 1, None, _ROW))


def _read(scope: Scope) -> _Detector:
    """Check the layer; refuse what the nodes made here do not express."""
    parameters = scope.layer.message.detection_output_param
    suppression = parameters.nms_param
    if len(scope.inputs) != 3:
        scope.refuse("is converted with three bottoms: locations, confidences and priors")
    if not parameters.share_location:
        scope.refuse("is converted with share_location alone, one box for all classes")
    if enum_name(parameters, "code_type") not in ("CORNER", "CENTER_SIZE"):
        scope.refuse("is converted with code_type CORNER or CENTER_SIZE")
    if suppression.eta != 1:
        scope.refuse(f"is converted with a fixed threshold, eta 1, not {suppression.eta:g}")
    if parameters.keep_top_k == 0 or (suppression.HasField("top_k") and suppression.top_k == 0):
        scope.refuse("would keep no box: keep_top_k or top_k is 0")
    if not suppression.nms_threshold >= 0:
        scope.malformed("nms_threshold", expected="0 or more", found=suppression.nms_threshold)
    priors, classes, rows = _sizes(scope)
    wanted = tuple(label for label in range(classes) if label != parameters.background_label_id)
    if not wanted:
        scope.malformed("num_classes", expected="a class beside the background", found=classes)
    limit = suppression.top_k if suppression.HasField("top_k") and suppression.top_k > 0 else priors
    return _Detector(
        priors, classes, wanted, enum_name(parameters, "code_type"),
        variances=rows == 2 and not parameters.variance_encoded_in_target,
        candidates=min(limit, priors),
        overlap=min(suppression.nms_threshold, 1.0),
        score=parameters.confidence_threshold if parameters.HasField("confidence_threshold") else None,
        most=parameters.keep_top_k if parameters.keep_top_k > 0 else None,
    )  # fmt: skip


def _sizes(scope: Scope) -> tuple[int, int, int]:
    """Number of priors, of classes, and rows of the third bottom, all three bottoms agreeing on them."""
    parameters = scope.layer.message.detection_output_param
    locations, confidences, priors = (scope.known(*value.shape) for value in scope.inputs)
    if len(priors) < 3 or not locations or not confidences:
        scope.malformed("priors", expected="a bottom of shape 1, 2, 4 x boxes", found=priors)
    if (locations[0], confidences[0], priors[0]) != (1, 1, 1):
        scope.refuse(f"is converted for a batch of 1, not {locations[0]}: give it by --input-shape")
    boxes, classes, rows = elements_of(priors[2:]) // 4, parameters.num_classes, priors[1]
    if rows != 2 and not (rows == 1 and parameters.variance_encoded_in_target):
        scope.malformed("priors", expected="two rows, boxes and variances", found=priors)
    if boxes < 1 or {elements_of(priors[2:]), elements_of(locations)} != {boxes * 4}:
        scope.malformed("locations", expected="four for each prior", found=f"{locations} with priors {priors}")
    if classes < 1 or elements_of(confidences) != boxes * classes:
        scope.malformed("confidences", expected=f"{boxes} x {classes} classes", found=confidences)
    if classes > _MOST_CLASSES:
        raise LimitExceededError("classes of a DetectionOutput", expected=f"at most {_MOST_CLASSES}", found=classes)
    return boxes, classes, rows


def _decode(scope: Scope, detector: _Detector) -> tuple[str, str]:
    """Boxes (priors x 4) as xmin ymin xmax ymax; and as they are compared, none of them turned inside out."""
    network, name = scope.network, scope.layer.name
    codes = scope.add("Reshape", (scope.inputs[0].name, scope.integers([detector.priors, 4], "codes_shape")), "codes")
    shape = scope.integers([-1, detector.priors, 4], "priors_shape")
    rows = scope.add("Reshape", (scope.inputs[2].name, shape), "priors")
    prior = scope.add("Gather", (rows, scope.constant(np.array(0, np.int64), "first_row")), "prior", axis=0)
    if detector.variances:
        second = scope.constant(np.array(1, np.int64), "second_row")
        codes = scope.add("Mul", (scope.add("Gather", (rows, second), "variances", axis=0), codes), "scaled")
    halves = scope.integers([2, 2], "halves")
    if detector.code == "CORNER":
        boxes = scope.add("Add", (prior, codes), "boxes")
        # A box whose corners have changed places overlaps nothing in Caffe, but its mirror does in ONNX: flat, it
        # overlaps nothing in either.
        low, high = network.add_many("Split", (boxes, halves), (f"{name}.low", f"{name}.high"), axis=1)
        return boxes, scope.add("Concat", (low, scope.add("Max", (low, high), "above")), "compared", axis=1)
    low, high = network.add_many("Split", (prior, halves), (f"{name}.prior_low", f"{name}.prior_high"), axis=1)
    shift, growth = network.add_many("Split", (codes, halves), (f"{name}.shift", f"{name}.growth"), axis=1)
    half = scope.number(0.5, "half")
    size = scope.add("Sub", (high, low), "prior_size")
    centre = scope.add("Mul", (scope.add("Add", (low, high), "prior_sum"), half), "prior_centre")
    centre = scope.add("Add", (scope.add("Mul", (shift, size), "way"), centre), "centre")
    reach = scope.add("Mul", (scope.add("Mul", (scope.add("Exp", (growth,)), size), "size"), half), "reach")
    corners = scope.add("Sub", (centre, reach), "low"), scope.add("Add", (centre, reach), "high")
    boxes = scope.add("Concat", corners, "boxes", axis=1)
    return boxes, boxes


def _candidates(scope: Scope, detector: _Detector) -> tuple[str, str]:
    """The best scores of each class (classes x candidates), largest first, and the priors that they belong to."""
    shape = scope.integers([detector.priors, detector.classes], "scores_shape")
    scores = scope.add("Reshape", (scope.inputs[1].name, shape), "by_prior")
    scores = scope.add("Transpose", (scores,), "by_class", perm=(1, 0))
    scores = scope.add("Gather", (scores, scope.integers(detector.wanted, "classes")), "scores", axis=0)
    names = f"{scope.layer.name}.best_scores", f"{scope.layer.name}.best_places"
    best = scope.integers([detector.candidates], "candidates")
    values, places = scope.network.add_many("TopK", (scores, best), names, axis=1)
    return values, places


def _suppress(scope: Scope, detector: _Detector, boxes: str, scores: str, places: str) -> str:
    """The chosen ones as pairs (class, candidate), class by class, the best first.

    To ONNX each class is a picture of its own with one class: its candidates are not those of the others.
    """
    boxes = scope.add("Gather", (boxes, places), "candidate_boxes", axis=0)
    scores = scope.add("Unsqueeze", (scores, scope.integers([1], "one")), "candidate_scores")
    inputs = [boxes, scores, scope.integers([detector.candidates], "most"),
              scope.constant(np.array([detector.overlap], np.float32), "overlap")]  # fmt: skip
    if detector.score is not None:
        inputs.append(scope.constant(np.array([detector.score], np.float32), "threshold"))
    triples = scope.add("NonMaxSuppression", inputs, "chosen")
    return scope.add("Gather", (triples, scope.integers([0, 2], "pair")), "pairs", axis=1)


def _rows(scope: Scope, detector: _Detector, chosen: str, scores: str, boxes: str) -> str:
    """A row for each chosen box, and behind them the row that says there is none."""
    labels = np.array([(0, label) for label in detector.wanted], np.float32)
    index = scope.add("Gather", (chosen, scope.constant(np.array(0, np.int64), "class_column")), "class", axis=1)
    heads = scope.add("Gather", (scope.constant(labels, "labels"), index), "heads", axis=0)
    column = scope.add("Unsqueeze", (scores, scope.integers([1], "column")), "score_column")
    rows = scope.add("Concat", (heads, column, boxes), "rows", axis=1)
    nothing = scope.constant(np.array([[0] + [-1] * (_ROW - 1)], np.float32), "nothing")
    return scope.add("Concat", (rows, nothing), "all_rows", axis=0)


def _best(scope: Scope, detector: _Detector, scores: str) -> str:
    """Which rows stay, in their order; the last row stays where it is the only one."""
    kept = scope.add("Shape", (scores,), "found")
    if detector.most is not None:
        kept = scope.add("Min", (kept, scope.integers([detector.most], "keep_top_k")), "at_most")
    kept = scope.add("Max", (kept, scope.integers([1], "least")), "count")
    last = scope.constant(np.array([-np.inf], np.float32), "below_all")
    keys = scope.add("Concat", (scores, last), "keys", axis=0)
    name = scope.layer.name
    _, order = scope.network.add_many("TopK", (keys, kept), (f"{name}.sorted", f"{name}.order"), axis=0)
    places, _ = scope.network.add_many("TopK", (order, kept), (f"{name}.stay", f"{name}.unused"), axis=0, largest=0)
    return places


RULES = {"DetectionOutput": _detection_output}
