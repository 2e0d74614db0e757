"""MTCNN's cascade: three small networks find the faces of a photograph, each looking closer than the one before.

Zhang, Zhang, Li, Qiao: Joint Face Detection and Alignment Using Multi-task Cascaded Convolutional Networks, 2016.
Boxes are rows of left, top, right, bottom, in pixels of the picture; the right and bottom edges lie outside.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from onnxruntime import InferenceSession
from PIL import Image

Floats = npt.NDArray[np.floating[Any]]
Places = npt.NDArray[np.intp]
Picture = Image.Image

SMALLEST_FACE, SHRINKAGE = 20, 0.709
CELL, STEP = 12, 2
"""pixels that the P-Net sees at each place of its map, and from one place to the next"""
SIDES = (24, 48)
"""of the pictures that R-Net and O-Net take"""
CERTAIN = (0.6, 0.7, 0.7)
"""the probability from which on P-Net, R-Net and O-Net see a face"""
SAME_LEVEL, SAME = 0.5, 0.7
"""overlaps from which on two boxes are of the same face: within a level of the pyramid, and everywhere else"""


@dataclass(frozen=True)
class Look:
    """How a picture is laid before the networks. They were trained on RGB in MATLAB, which stores columns first."""

    transposed: bool = True
    channels: str = "RGB"

    def __call__(self, picture: Picture) -> Floats:
        """1 x 3 x width x height, or where it is not transposed, 1 x 3 x height x width; about -1 to 1."""
        pixels = (np.asarray(picture.convert("RGB"), np.float32) - 127.5) / 128
        if self.channels == "BGR":
            pixels = pixels[..., ::-1]
        return np.ascontiguousarray(pixels.transpose(2, 1, 0) if self.transposed else pixels.transpose(2, 0, 1))[None]


TRAINED = Look()


@dataclass(frozen=True)
class Faces:
    """What was found: N boxes, probabilities, and where eyes, nose and corners of the mouth are (N x 5 x 2: x, y)."""

    boxes: Floats
    scores: Floats
    landmarks: Floats


@dataclass(frozen=True)
class Answer:
    """A network's outputs: the probability of a face, how far its edges are from the box's, and its landmarks.

    The edges are in widths and heights of the box, the landmarks' five x and five y from its left and top; for the
    P-Net two axes of places follow.
    """

    scores: Floats
    shifts: Floats
    landmarks: Floats


def ask(network: InferenceSession, pictures: Floats) -> Answer:
    """Run a network; its outputs, whatever their names, are known by their channels: 2, 4 and 10."""
    outputs = network.run(None, {network.get_inputs()[0].name: pictures})
    by_channels = {output.shape[1]: output for output in outputs}
    return Answer(by_channels[2][:, 1], by_channels[4], by_channels.get(10, np.zeros((len(pictures), 10))))


@dataclass(frozen=True)
class Cascade:
    """P-Net proposes boxes at every scale, R-Net refuses most of them, O-Net decides and finds the landmarks."""

    proposer: InferenceSession
    refiner: InferenceSession
    decider: InferenceSession

    def find(self, picture: Picture, look: Look = TRAINED) -> Faces:
        """The faces of a picture, the most certain one first."""
        boxes = squares(self._proposals(picture, look))
        boxes, answer = _judge(self.refiner, picture, boxes, look, SIDES[0], CERTAIN[1])
        kept = distinct(boxes, answer.scores, SAME)
        boxes = squares(shifted(boxes[kept], answer.shifts[kept]))
        boxes, answer = _judge(self.decider, picture, boxes, look, SIDES[1], CERTAIN[2])
        points = _points(boxes, answer.landmarks)
        boxes = shifted(boxes, answer.shifts)
        kept = distinct(boxes, answer.scores, SAME, of_smaller=True)
        return Faces(boxes[kept], answer.scores[kept], points[kept])

    def _proposals(self, picture: Picture, look: Look) -> Floats:
        levels = []
        scale = CELL / SMALLEST_FACE
        while min(picture.size) * scale >= CELL:
            levels.append(self._proposals_at(picture, look, scale))
            scale *= SHRINKAGE
        boxes, scores, shifts = (np.concatenate(parts) for parts in zip(*levels, strict=True))
        kept = distinct(boxes, scores, SAME)
        return shifted(boxes[kept], shifts[kept])

    def _proposals_at(self, picture: Picture, look: Look, scale: float) -> tuple[Floats, Floats, Floats]:
        """Boxes, scores and shifts at one level of the pyramid."""
        size = np.ceil(np.array(picture.size) * scale).astype(int)
        answer = ask(self.proposer, look(picture.resize((size[0], size[1]), Image.Resampling.BILINEAR)))
        score, shift = answer.scores[0], answer.shifts[0]
        if not look.transposed:
            score, shift = score.T, shift.transpose(0, 2, 1)
        x, y = np.nonzero(score >= CERTAIN[0])
        corner = np.stack((x, y), axis=1) * STEP
        boxes = np.hstack((corner, corner + CELL)) * np.tile(np.array(picture.size) / size, 2)
        kept = distinct(boxes, score[x, y], SAME_LEVEL)
        return boxes[kept], score[x, y][kept], shift[:, x, y].T[kept]


def _judge(
    network: InferenceSession, picture: Picture, boxes: Floats, look: Look, side: int, certain: float
) -> tuple[Floats, Answer]:
    """The boxes in which a network sees a face, and what it says of them; beyond its edges the picture is black."""
    pieces = [picture.crop(tuple(box)).resize((side, side), Image.Resampling.BILINEAR) for box in boxes.tolist()]
    nothing = np.zeros((0, 3, side, side), np.float32)
    answer = ask(network, np.concatenate((nothing, *map(look, pieces))))
    seen = answer.scores >= certain
    return boxes[seen], Answer(answer.scores[seen], answer.shifts[seen], answer.landmarks[seen])


def _points(boxes: Floats, landmarks: Floats) -> Floats:
    x, y = landmarks[:, :5], landmarks[:, 5:]
    return np.stack((x, y), axis=2) * _sizes(boxes)[:, None] + boxes[:, None, :2]


def shifted(boxes: Floats, shifts: Floats) -> Floats:
    """Boxes whose edges are moved by parts of their widths and heights.

    >>> shifted(np.array([[10, 10, 20, 30]]), np.array([[-0.1, 0, 0.1, 0.5]])).tolist()
    [[9.0, 10.0, 21.0, 40.0]]
    """
    moved: Floats = boxes + shifts * np.tile(_sizes(boxes), 2)
    return moved


def squares(boxes: Floats) -> Floats:
    """Squares around the boxes, of their longer sides, at whole pixels.

    >>> squares(np.array([[10.0, 10, 20, 30]])).tolist()
    [[5.0, 10.0, 25.0, 30.0]]
    """
    side = _sizes(boxes).max(axis=1, keepdims=True)
    corner = (boxes[:, :2] + boxes[:, 2:] - side) / 2
    return np.round(np.hstack((corner, corner + side)))


def distinct(boxes: Floats, scores: Floats, same: float, *, of_smaller: bool = False) -> Places:
    """Places of the boxes that overlap none of higher score by more than ``same``, the highest first.

    The overlap is the part of the union, or of the smaller box: a box within another is then the same face.

    >>> boxes = np.array([[0, 0, 10, 10], [0, 0, 10, 9], [4, 4, 8, 8]])
    >>> distinct(boxes, np.array([0.8, 0.9, 0.7]), 0.5).tolist()
    [1, 2]
    >>> distinct(boxes, np.array([0.8, 0.9, 0.7]), 0.5, of_smaller=True).tolist()
    [1]
    """
    waiting = np.argsort(-scores, kind="stable")
    areas = _sizes(boxes).prod(axis=1)
    kept = []
    while len(waiting):
        best, waiting = waiting[0], waiting[1:]
        kept.append(best)
        common = np.minimum(boxes[best, 2:], boxes[waiting, 2:]) - np.maximum(boxes[best, :2], boxes[waiting, :2])
        shared = np.maximum(common, 0).prod(axis=1)
        whole = np.minimum(areas[best], areas[waiting]) if of_smaller else areas[best] + areas[waiting] - shared
        waiting = waiting[shared <= same * whole]
    return np.array(kept, np.intp)


def _sizes(boxes: Floats) -> Floats:
    """Widths and heights."""
    return boxes[:, 2:] - boxes[:, :2]
