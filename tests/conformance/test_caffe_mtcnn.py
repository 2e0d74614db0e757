"""MTCNN, a cascade of three Caffe networks: converted, it finds the faces of a photograph.

``test1.jpg`` (450 x 344) shows two men who shake hands, and no other face: on the left a tall one who laughs, on the
right a smaller one with glasses, his head turned and tilted a little. The numbers below were found by this cascade and
looked at once: each box holds a face from the forehead to the chin, and the landmarks lie on the eyes and, within a
few pixels, at the tip of the nose and the corners of the mouth.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from onnxruntime import InferenceSession
from PIL import Image

import mobilemodel as mm
from mobilemodel.errors import UsageError
from mobilemodel.model import SourceOptions
from mobilemodel.runtime import run
from tests.mtcnn import Cascade, Faces, Look, Picture

Array = np.ndarray[Any, Any]
Shape = tuple[int | None, ...]
NETWORKS: dict[str, Shape] = {"det1": (1, 3, None, None), "det2": (None, 3, 24, 24), "det3": (None, 3, 48, 48)}
"""the P-Net is convolutional throughout: one bundle serves all levels of the pyramid"""

BOXES = [(89.4, 19.4, 150.1, 101.9), (297.1, 87.1, 361.2, 169.9)]
"""left, top, right, bottom of each face in pixels; the man on the left first"""
LANDMARKS = [
    [(112.6, 48.4), (139.9, 51.6), (127.7, 65.7), (108.2, 76.8), (136.9, 80.5)],
    [(310.6, 121.8), (337.0, 117.6), (322.5, 136.2), (316.6, 151.5), (341.3, 148.4)],
]
"""x, y of the eyes, the tip of the nose and the corners of the mouth, each the one further left in the picture first"""
EXACT, FEW = 2.0, 3.0
"""pixels by which they may be off: unquantized, and with 256 levels"""


def convert(sources: list[Path], folder: Path, shape: Shape = (), scheme: str = "lossless") -> InferenceSession:
    """A session of the bundle that the files make."""
    options = mm.ConvertOptions(source=SourceOptions(input_shape=shape))
    out = folder / f"{sources[0].name}.mm"
    mm.convert(sources, out, scheme=scheme, options=options)
    return mm.session(out)


def both(zoo: Path, name: str) -> list[Path]:
    return [zoo / f"mtcnn/{name}.prototxt", zoo / f"mtcnn/{name}.caffemodel"]


def convert_all(zoo: Path, folder: Path, scheme: str) -> dict[str, InferenceSession]:
    return {name: convert(both(zoo, name), folder, shape, scheme) for name, shape in NETWORKS.items()}


@pytest.fixture(scope="module")
def networks(zoo: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, InferenceSession]:
    """Prototxt and caffemodel, lossless."""
    return convert_all(zoo, tmp_path_factory.mktemp("mtcnn"), "lossless")


@pytest.fixture
def cascade(networks: dict[str, InferenceSession]) -> Cascade:
    return Cascade(*networks.values())


@pytest.fixture
def picture(zoo: Path) -> Picture:
    return Image.open(zoo / "mtcnn/test1.jpg")


def largest_error(faces: Faces) -> float:
    """Pixels between the faces found, from left to right, and the two that are there; infinite if not two."""
    if len(faces.boxes) != len(BOXES):
        return np.inf
    order = faces.boxes[:, 0].argsort()
    boxes, landmarks = faces.boxes[order] - np.array(BOXES), faces.landmarks[order] - np.array(LANDMARKS)
    return float(max(abs(boxes).max(), abs(landmarks).max()))


def random_pictures(shape: Shape) -> Array:
    """Values as the networks take them, -1 to 1; three pictures, of 31 x 40 pixels, where the shape is free."""
    sizes = [size or free for size, free in zip(shape, (3, 3, 31, 40), strict=True)]
    return np.random.default_rng(0).uniform(-1, 1, sizes).astype(np.float32)


def by_channels(network: InferenceSession, pictures: Array) -> dict[int, Array]:
    """The outputs by their number of channels, which tells each from the others."""
    return {values.shape[1]: values for values in run(network, {network.get_inputs()[0].name: pictures}).values()}


def test_the_cascade_finds_the_two_faces(cascade: Cascade, picture: Picture) -> None:
    faces = cascade.find(picture)
    assert largest_error(faces) <= EXACT
    assert (faces.scores > 0.99).all()


def test_the_faces_are_found_with_palettes_of_256(zoo: Path, picture: Picture, tmp_path: Path) -> None:
    """``palette-8``: 0.48 MB of bundles where the caffemodels have 1.99 MB, and the same faces."""
    faces = Cascade(*convert_all(zoo, tmp_path, "palette-8").values()).find(picture)
    assert largest_error(faces) <= FEW
    assert (faces.scores > 0.99).all()
    stored = sum(path.stat().st_size for path in tmp_path.glob("*.mm"))
    assert stored < 0.25 * sum(both(zoo, name)[1].stat().st_size for name in NETWORKS)


def test_the_networks_want_pictures_transposed_and_in_rgb(cascade: Cascade, picture: Picture) -> None:
    """A control of the test itself: pictures laid otherwise are answered worse, up to no face at all."""
    assert len(cascade.find(picture, Look(transposed=False)).boxes) < len(BOXES)
    assert len(cascade.find(picture, Look(transposed=False, channels="BGR")).boxes) == 0
    assert largest_error(cascade.find(picture, Look(channels="BGR"))) > EXACT


def test_no_face_is_found_where_there_is_none(cascade: Cascade, picture: Picture) -> None:
    """On the picture on the wall and in the hands, and on an even grey, where the P-Net proposes nothing."""
    for faceless in (picture.crop((155, 0, 290, 344)), Image.new("RGB", picture.size, "grey")):
        faces = cascade.find(faceless)
        assert (faces.boxes.shape, faces.scores.shape, faces.landmarks.shape) == ((0, 4), (0,), (0, 5, 2))


@pytest.mark.parametrize("name", NETWORKS)
def test_a_training_snapshot_alone_computes_the_same(
    name: str, networks: dict[str, InferenceSession], zoo: Path, tmp_path: Path
) -> None:
    """The caffemodels hold data layers, labels and losses, a Softmax only within a loss, and no input's shape."""
    shape, snapshot = NETWORKS[name], [both(zoo, name)[1]]
    with pytest.raises(UsageError, match="--input-shape"):
        convert(snapshot, tmp_path)
    expected = by_channels(networks[name], random_pictures(shape))
    found = by_channels(convert(snapshot, tmp_path, shape), random_pictures(shape))
    assert set(found) - set(expected) == ({10} if name == "det2" else set())  # landmarks that the prototxt leaves out
    for channels, values in expected.items():
        assert values.tobytes() == found[channels].tobytes()


@pytest.mark.parametrize("name", NETWORKS)
def test_opencv_computes_the_same(name: str, networks: dict[str, InferenceSession], zoo: Path) -> None:
    """The P-Net at sizes whose last windows are whole, cut in one direction, and cut in both."""
    shape = NETWORKS[name]
    network = cv2.dnn.readNetFromCaffe(*map(str, both(zoo, name)))
    for sides in ((12, 12), (13, 16), (17, 29), (206, 270)) if name == "det1" else (shape[2:],):
        pictures = random_pictures((*shape[:2], *sides))
        network.setInput(pictures)
        for output, values in run(networks[name], {"data": pictures}).items():
            np.testing.assert_allclose(values, network.forward(output), rtol=0, atol=2e-5)
