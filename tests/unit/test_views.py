"""Ten views of a picture, against Pillow's crop and mirror."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image, ImageOps

from mobilemodel.errors import UsageError
from mobilemodel.runtime.picture import Pixels, prepare, resize
from mobilemodel.runtime.views import prepare_views
from mobilemodel.v1 import bundle_pb2 as pb

SIDES = st.integers(2, 9)


def noise(*shape: int) -> Pixels:
    return np.random.default_rng(sum(shape)).integers(0, 256, shape, np.uint8)


def by_pillow(picture: Pixels, height: int, width: int) -> list[Pixels]:
    """Krizhevsky et al. 2012, §4.1: the four corner patches and the centre patch, and their horizontal reflections."""
    image = Image.fromarray(picture)
    right, down = image.width - width, image.height - height
    corners = [(0, 0), (right, 0), (0, down), (right, down), (right // 2, down // 2)]
    patches = [image.crop((x, y, x + width, y + height)) for x, y in corners]
    return [np.array(patch) for patch in [*patches, *map(ImageOps.mirror, patches)]]


@given(SIDES, SIDES, st.data())
def test_the_ten_views_are_those_of_the_protocol(rows: int, columns: int, data: st.DataObject) -> None:
    height = data.draw(st.integers(1, rows))
    width = data.draw(st.integers(1, columns - 1 if height == rows else columns))
    pictures = noise(2, rows, columns, 3)
    found = prepare_views(pictures, pb.Preprocessing(crop_height=height, crop_width=width, layout=pb.LAYOUT_NHWC))
    for picture, views in zip(pictures, found, strict=True):
        assert np.array_equal(views, by_pillow(picture, height, width))


def test_the_centre_is_the_one_view_of_prepare() -> None:
    step = pb.Preprocessing(crop_height=5, crop_width=6, mean=[1, 2, 3], scale=[0.5], colour_order=pb.COLOUR_ORDER_BGR)
    step.resize.CopyFrom(pb.Resize(mode=pb.Resize.MODE_WARP, height=8, width=11, kernel=pb.Resize.KERNEL_AREA))
    pictures = noise(3, 20, 30, 3)
    assert np.array_equal(prepare_views(pictures, step)[:, 4], prepare(pictures, step))


@pytest.mark.parametrize("shape", [(20, 34), (34, 20)])
def test_after_a_resize_of_the_shorter_side_the_centre_square_is_the_frame(shape: tuple[int, int]) -> None:
    step = pb.Preprocessing(crop_height=7, crop_width=7, layout=pb.LAYOUT_NHWC)
    step.resize.CopyFrom(pb.Resize(mode=pb.Resize.MODE_SHORT, height=10, width=10, kernel=pb.Resize.KERNEL_AREA))
    pictures = noise(1, *shape, 3)
    resized = resize(pictures, step.resize)[0]
    square = resized[:, 3:13] if shape[1] > shape[0] else resized[3:13]
    assert resized.shape in ((10, 17, 3), (17, 10, 3))
    assert np.array_equal(prepare_views(pictures, step)[0], by_pillow(square, 7, 7))


def test_a_mean_picture_of_the_frame_is_subtracted_before() -> None:
    picture, mean = noise(1, 8, 9, 3), noise(8, 9, 3).astype(np.float32)
    step = pb.Preprocessing(crop_height=5, crop_width=5, layout=pb.LAYOUT_NHWC)
    step.mean_picture.CopyFrom(pb.MeanPicture(height=8, width=9))
    found = prepare_views(picture, step, mean)[0]
    # Differences of bytes are whole numbers: as bytes again, Pillow can cut them.
    shifted = (picture[0] - mean).astype(np.int16)
    low = np.stack(by_pillow((shifted & 255).astype(np.uint8), 5, 5))
    high = np.stack(by_pillow((shifted >> 8).astype(np.uint8), 5, 5))
    assert np.array_equal(found, (low.astype(np.int16) | (high.astype(np.int16) << 8)).astype(np.float32))


def test_a_smaller_mean_picture_is_subtracted_from_each_view() -> None:
    picture, mean = noise(1, 8, 9, 3), noise(5, 5, 3).astype(np.float32)
    step = pb.Preprocessing(crop_height=5, crop_width=5, layout=pb.LAYOUT_NHWC)
    step.mean_picture.CopyFrom(pb.MeanPicture(height=5, width=5))
    expected = np.stack(by_pillow(picture[0], 5, 5)).astype(np.float32) - mean
    assert np.array_equal(prepare_views(picture, step, mean)[0], expected)


@pytest.mark.parametrize(
    ("crop", "says"),
    [(0, "found no crop"), (6, "expected less than 6 x 6, found 6 x 6"), (7, "expected at least 7 x 7, found 6 x 6")],
)
def test_ten_views_need_a_crop_smaller_than_the_picture(crop: int, says: str) -> None:
    with pytest.raises(UsageError, match=says):
        prepare_views(noise(1, 6, 6, 3), pb.Preprocessing(crop_height=crop, crop_width=crop))
