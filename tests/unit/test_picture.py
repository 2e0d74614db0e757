"""Preprocessing of pictures against spec/preprocessing.md, its examples, and Pillow as an independent oracle."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from mobilemodel.dtypes import DType
from mobilemodel.errors import LimitExceededError, UnsupportedEncodingError, UnsupportedFeatureError, UsageError
from mobilemodel.runtime.picture import crop, prepare, resize, result_size, taps, to_channels
from mobilemodel.v1 import bundle_pb2 as pb
from tests.pictures import noise

KERNELS = list(pb.Resize.Kernel.values())
WARP, SHORT, FIT = pb.Resize.MODE_WARP, pb.Resize.MODE_SHORT, pb.Resize.MODE_FIT
sizes = st.integers(1, 40)


def warp(height: int, width: int, kernel: int, antialias: bool = False) -> pb.Resize:
    return pb.Resize(mode=WARP, height=height, width=width, kernel=kernel, antialias=antialias)  # type: ignore[arg-type]


def weight(kernel: int, antialias: bool, i: int, o: int, n: int, m: int) -> float:
    """weight(i, o) of the table in §2.2, written down as it stands there."""
    r = n / m
    s = max(1.0, r) if antialias else 1.0
    c = (o + 0.5) * r - 0.5
    if kernel == pb.Resize.KERNEL_NEAREST:
        return float(i == ((2 * o + 1) * n) // (2 * m))
    if kernel == pb.Resize.KERNEL_BILINEAR_HALF_PIXEL:
        return max(0.0, 1 - abs((i - c) / s))
    if kernel == pb.Resize.KERNEL_BILINEAR_CORNERS:
        return max(0.0, 1 - abs(i - (o * (n - 1) / (m - 1) if m > 1 else 0.0)))
    if kernel == pb.Resize.KERNEL_AREA:
        return max(0.0, min(i + 1, (o + 1) * r) - max(i, o * r))
    x = abs((i - c) / s)
    if x <= 1:
        return 1.5 * x**3 - 2.5 * x**2 + 1
    return -0.5 * x**3 + 2.5 * x**2 - 4 * x + 2 if x < 2 else 0.0


def resized_row(row: list[int], results: int, kernel: int, antialias: bool) -> list[float]:
    """The formula of §2.2 for one row, unrounded."""
    n = len(row)
    found = []
    for o in range(results):
        weights = [weight(kernel, antialias, i, o, n, results) for i in range(n)]
        found.append(sum(w * x for w, x in zip(weights, row, strict=True)) / sum(weights))
    return found


@pytest.mark.parametrize(
    ("mode", "size", "target", "expected"),
    [
        (SHORT, (500, 375), (256, 256), (341, 256)),
        (SHORT, (375, 500), (256, 256), (256, 341)),
        (SHORT, (64, 64), (20, 20), (20, 20)),
        (FIT, (500, 375), (256, 256), (256, 192)),
        (FIT, (100, 400), (50, 100), (25, 100)),
        (FIT, (1, 1000), (10, 10), (1, 10)),
        (WARP, (500, 375), (1, 7), (1, 7)),
    ],
)  # fmt: skip
def test_size_of_the_result(
    mode: int, size: tuple[int, int], target: tuple[int, int], expected: tuple[int, int]
) -> None:
    step = pb.Resize(mode=mode, height=target[0], width=target[1])  # type: ignore[arg-type]
    assert result_size(*size, step) == expected


@given(height=st.integers(1, 5000), width=st.integers(1, 5000), target=st.integers(1, 2000))
def test_short_makes_the_shorter_side_the_target_and_fit_stays_inside(height: int, width: int, target: int) -> None:
    short = result_size(height, width, pb.Resize(mode=SHORT, height=target, width=target))
    fit = result_size(height, width, pb.Resize(mode=FIT, height=target, width=target))
    assert min(short) == target
    assert max(fit) == target


@pytest.mark.parametrize(
    ("kernel", "antialias", "before", "pixels"),
    [
        (pb.Resize.KERNEL_NEAREST, False, [100, 50], [100, 50]),
        (pb.Resize.KERNEL_BILINEAR_HALF_PIXEL, False, [77.5, 37.5], [78, 38]),
        (pb.Resize.KERNEL_BILINEAR_HALF_PIXEL, True, [91.82, 70.45], [92, 70]),
        (pb.Resize.KERNEL_BILINEAR_CORNERS, False, [10, 0], [10, 0]),
        (pb.Resize.KERNEL_AREA, False, [84, 60], [84, 60]),
        (pb.Resize.KERNEL_BICUBIC, False, [73.21, 28.63], [73, 29]),
        (pb.Resize.KERNEL_BICUBIC, True, [94.37, 71.27], [94, 71]),
    ],
)
def test_worked_example(kernel: int, antialias: bool, before: list[float], pixels: list[int]) -> None:
    row = [10, 100, 200, 50, 0]
    assert resized_row(row, 2, kernel, antialias) == pytest.approx(before, abs=0.005)
    found = resize(np.array(row, np.uint8).reshape(1, 5, 1), warp(1, 2, kernel, antialias))
    assert found.ravel().tolist() == pixels


@given(n=sizes, m=sizes, kernel=st.sampled_from(KERNELS), antialias=st.booleans())
def test_taps_are_the_weights_of_the_table(n: int, m: int, kernel: int, antialias: bool) -> None:
    """§2.2: the sums run over samples that exist, with weight(i, o) of the kernel."""
    indices, weights = taps(n, m, warp(1, 1, kernel, antialias))
    found = np.zeros((m, n))
    np.add.at(found, (np.arange(m)[:, None], indices), weights)
    expected = np.array([[weight(kernel, antialias, i, o, n, m) for i in range(n)] for o in range(m)])
    np.testing.assert_allclose(
        found / found.sum(1, keepdims=True), expected / expected.sum(1, keepdims=True), rtol=0, atol=1e-12
    )


@given(
    height=sizes,
    width=sizes,
    kernel=st.sampled_from(KERNELS),
    antialias=st.booleans(),
    channels=st.sampled_from([1, 3]),
)
def test_a_picture_that_keeps_its_size_keeps_its_values(
    height: int, width: int, kernel: int, antialias: bool, channels: int
) -> None:
    pixels = noise(height, width, channels)
    assert np.array_equal(resize(pixels, warp(height, width, kernel, antialias)), pixels)


@given(st.data())
def test_an_even_picture_stays_even(data: st.DataObject) -> None:
    """The weights are divided by their sum, at the edges too."""
    level, kernel = data.draw(st.integers(0, 255)), data.draw(st.sampled_from(KERNELS))
    pixels = np.full((data.draw(sizes), data.draw(sizes), 1), level, np.uint8)
    step = warp(data.draw(sizes), data.draw(sizes), kernel, data.draw(st.booleans()))
    assert (resize(pixels, step) == level).all()


@pytest.mark.parametrize(
    ("kernel", "oracle"),
    [
        (pb.Resize.KERNEL_BILINEAR_HALF_PIXEL, Image.Resampling.BILINEAR),
        (pb.Resize.KERNEL_BICUBIC, Image.Resampling.BICUBIC),
    ],
)
@given(height=sizes, width=sizes, rows=sizes, columns=sizes, seed=st.integers(0, 99))
def test_pillow_agrees_within_a_grey_level(
    kernel: int, oracle: Image.Resampling, height: int, width: int, rows: int, columns: int, seed: int
) -> None:
    """Pillow rounds and clamps between the axes, we do not: a smooth picture keeps that below a level."""
    pixels = 64 + noise(height, width, 3, seed) // 2
    found = resize(pixels, warp(rows, columns, kernel, antialias=True))
    expected = np.asarray(Image.fromarray(pixels).resize((columns, rows), oracle))
    assert np.sqrt(np.mean((found.astype(float) - expected) ** 2)) <= 1


@given(factor_y=st.integers(1, 5), factor_x=st.integers(1, 5), rows=st.integers(1, 9), columns=st.integers(1, 9))
def test_area_agrees_with_pillows_box_at_whole_factors(factor_y: int, factor_x: int, rows: int, columns: int) -> None:
    pixels = noise(rows * factor_y, columns * factor_x)
    found = resize(pixels, warp(rows, columns, pb.Resize.KERNEL_AREA))
    expected = np.asarray(Image.fromarray(pixels).resize((columns, rows), Image.Resampling.BOX))
    assert np.abs(found.astype(int) - expected).max() <= 1


@given(height=sizes, width=sizes, rows=sizes, columns=sizes)
def test_nearest_is_pillows(height: int, width: int, rows: int, columns: int) -> None:
    """But where a centre falls on the border of two pixels: Pillow's sums of steps land on either side."""
    pixels = noise(height, width)
    found = resize(pixels, warp(rows, columns, pb.Resize.KERNEL_NEAREST))
    expected = np.asarray(Image.fromarray(pixels).resize((columns, rows), Image.Resampling.NEAREST))
    clear_rows = (2 * np.arange(rows) + 1) * height % (2 * rows) != 0
    clear_columns = (2 * np.arange(columns) + 1) * width % (2 * columns) != 0
    assert np.array_equal(found[clear_rows][:, clear_columns], expected[clear_rows][:, clear_columns])


def test_a_batch_is_its_pictures() -> None:
    pixels = np.stack([noise(9, 7, seed=seed) for seed in range(3)])
    step = pb.Preprocessing(resize=warp(6, 8, pb.Resize.KERNEL_BICUBIC), crop_height=5, crop_width=4, mean=[1, 2, 3])
    assert np.array_equal(prepare(pixels, step), np.concatenate([prepare(one, step) for one in pixels]))


@given(rows=sizes, columns=sizes, data=st.data())
def test_crop_starts_at_the_floor_of_half_the_rest(rows: int, columns: int, data: st.DataObject) -> None:
    height, width = data.draw(st.integers(1, rows)), data.draw(st.integers(1, columns))
    place = np.moveaxis(np.indices((rows, columns)), 0, -1)
    found = crop(place, height, width)
    assert found.shape == (height, width, 2)
    assert found[0, 0].tolist() == [(rows - height) // 2, (columns - width) // 2]


def test_a_picture_smaller_than_its_crop_is_refused() -> None:
    with pytest.raises(UsageError, match="smaller than its crop: expected at least 8 x 4, found 7 x 9"):
        crop(noise(7, 9), 8, 4)


def test_colour_orders() -> None:
    pixel = np.array([[[200, 100, 50]]], np.uint8)
    assert to_channels(pixel, pb.COLOUR_ORDER_UNSPECIFIED).ravel().tolist() == [200, 100, 50]
    assert to_channels(pixel, pb.COLOUR_ORDER_BGR).ravel().tolist() == [50, 100, 200]
    grey = np.array([[[7]]], np.uint8)
    assert to_channels(grey, pb.COLOUR_ORDER_BGR).ravel().tolist() == [7, 7, 7]
    assert to_channels(grey, pb.COLOUR_ORDER_GREY).ravel().tolist() == [7]


@given(st.tuples(*[st.integers(0, 255)] * 3))
def test_grey_is_the_integer_formula_and_pillows(colour: tuple[int, int, int]) -> None:
    """§4: (19595 R + 38470 G + 7471 B + 32768) div 65536."""
    found = int(to_channels(np.array([[colour]], np.uint8), pb.COLOUR_ORDER_GREY)[0, 0, 0])
    assert found == (19595 * colour[0] + 38470 * colour[1] + 7471 * colour[2] + 32768) // 65536
    assert found == Image.new("RGB", (1, 1), colour).convert("L").getpixel((0, 0))


def test_worked_example_of_all_steps() -> None:
    step = pb.Preprocessing(colour_order=pb.COLOUR_ORDER_BGR, mean=[104, 117, 123], scale=[0.017])
    found = prepare(np.array([[[200, 100, 50]]], np.uint8), step)
    assert found.shape == (1, 3, 1, 1)
    assert found.dtype == np.float32
    assert [f"{value:08X}" for value in found.view(np.uint32).ravel()] == ["BF6B020D", "BE93F7CF", "3FA78D50"]


@given(st.data())
def test_mean_and_scale_are_single_binary32_operations(data: st.DataObject) -> None:
    """§4: each operation is one binary32 operation, no fused operation, no reordering."""
    number = st.floats(-300, 300, width=32)
    mean, scale = data.draw(st.lists(number, min_size=3, max_size=3)), data.draw(number)
    pixels = noise(3, 4, seed=data.draw(st.integers(0, 99)))
    found = prepare(pixels, pb.Preprocessing(mean=mean, scale=[scale], layout=pb.LAYOUT_NHWC))
    for (y, x, c), pixel in np.ndenumerate(pixels):
        # A double holds the exact difference of a pixel and a binary32 number of this size, and the exact product of
        # two binary32 numbers; so each rounding here happens once.
        difference = np.float32(float(pixel) - float(np.float32(mean[c])))
        assert found[0, y, x, c] == np.float32(float(difference) * float(np.float32(scale)))


@pytest.mark.parametrize("size", [(5, 4), (6, 7), (9, 9)])
def test_a_mean_picture_is_cropped_like_the_picture(size: tuple[int, int]) -> None:
    pixels, mean = noise(9, 9), np.arange(size[0] * size[1] * 3, dtype=np.float32).reshape(*size, 3)
    step = pb.Preprocessing(crop_height=5, crop_width=4, layout=pb.LAYOUT_NHWC)
    step.mean_picture.height, step.mean_picture.width = size
    top, left = (size[0] - 5) // 2, (size[1] - 4) // 2
    expected = crop(pixels, 5, 4).astype(np.float32) - mean[top : top + 5, left : left + 4]
    assert np.array_equal(prepare(pixels, step, mean)[0], expected)


def test_a_smaller_or_missing_mean_picture_is_refused() -> None:
    step = pb.Preprocessing(mean_picture=pb.MeanPicture(height=4, width=9))
    with pytest.raises(UsageError, match="mean picture is smaller than the picture"):
        prepare(noise(5, 5), step, np.zeros((4, 9, 3), np.float32))
    with pytest.raises(UsageError, match="was not given"):
        prepare(noise(5, 5), step)


def test_element_types_of_the_input() -> None:
    pixels = noise(2, 2)
    step = pb.Preprocessing(mean=[1.1])
    half = prepare(pixels, step, dtype=DType.FLOAT16)
    assert half.dtype == np.float16
    assert np.array_equal(half, prepare(pixels, step).astype(np.float16))
    plain = prepare(pixels, pb.Preprocessing(layout=pb.LAYOUT_NHWC), dtype=DType.UINT8)
    assert plain.dtype == np.uint8
    assert np.array_equal(plain[0], pixels)
    with pytest.raises(UsageError, match="neither mean nor scale"):
        prepare(pixels, step, dtype=DType.UINT8)
    with pytest.raises(UnsupportedEncodingError):
        prepare(pixels, step, dtype=DType.INT64)


@pytest.mark.parametrize(
    "step",
    [
        pb.Preprocessing.FromString(bytes([5 << 3, 9])),
        pb.Preprocessing.FromString(bytes([9 << 3, 9])),
        pb.Preprocessing.FromString(bytes([2 << 3 | 2, 6, 8, 9, 16, 1, 24, 1])),
        pb.Preprocessing.FromString(bytes([2 << 3 | 2, 8, 8, 1, 16, 1, 24, 1, 32, 9])),
    ],
    ids=["colour order", "layout", "mode", "kernel"],
)
def test_values_of_a_later_version_are_named_as_such(step: pb.Preprocessing) -> None:
    with pytest.raises(UnsupportedFeatureError, match="later version"):
        prepare(noise(3, 3), step)


@pytest.mark.parametrize(
    ("step", "message"),
    [
        (pb.Preprocessing(mean=[1, 2]), "values of mean: expected 1 or 3, found 2"),
        (pb.Preprocessing(scale=[1, 2], colour_order=pb.COLOUR_ORDER_GREY), "values of scale"),
        (pb.Preprocessing(mean=[1], mean_picture=pb.MeanPicture(height=3, width=3)), "both a mean and a mean picture"),
        (pb.Preprocessing(resize=pb.Resize(height=3, width=3)), "no mode or no size"),
        (pb.Preprocessing(resize=pb.Resize(mode=SHORT, height=3, width=4)), "two sizes"),
    ],
)
def test_wrong_steps_are_refused(step: pb.Preprocessing, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        prepare(noise(3, 3), step, np.zeros((3, 3, 3), np.float32))


@pytest.mark.parametrize("shape", [(3, 3), (3, 3, 2), (0, 3, 3), (1, 1, 1, 1, 3)])
def test_arrays_that_are_no_pictures_are_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(UsageError, match="not a picture"):
        prepare(np.zeros(shape, np.uint8), pb.Preprocessing())
    with pytest.raises(UsageError, match="found float64"):
        prepare(np.zeros((3, 3, 3)), pb.Preprocessing())  # type: ignore[arg-type]


def test_a_resize_to_too_many_pixels_is_refused_before_it_is_made() -> None:
    step = pb.Resize(mode=SHORT, height=16384, width=16384)
    with pytest.raises(LimitExceededError, match="16384 x 16384000"):
        resize(noise(1, 1000), step)
