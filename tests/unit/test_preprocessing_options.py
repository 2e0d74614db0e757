"""What a user writes for preprocessing, as the manifest's message; and whether it fits the model."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

import numpy as np
import pytest

from mobilemodel.errors import LimitExceededError, MobileModelError, UsageError
from mobilemodel.limits import FORMAT_LIMITS
from mobilemodel.pipeline.labels import labels_text, read_labels
from mobilemodel.pipeline.preprocessing import PreprocessingOptions, placed
from mobilemodel.v1 import bundle_pb2 as pb
from mobilemodel_converters.caffe.schema import message_class


def message(**options: str) -> pb.Preprocessing:
    return PreprocessingOptions(**options).message()[0]


def picture_input(*sides: int | str, dtype: int = 1, name: str = "x") -> pb.ValueInfo:
    value = pb.ValueInfo(name=name, dtype=dtype)
    for side in sides:
        value.shape.dimensions.add(**({"size": side} if isinstance(side, int) else {"symbol": side}))
    return value


def test_nothing_was_said() -> None:
    assert not PreprocessingOptions().given
    assert PreprocessingOptions(crop="7").given


@pytest.mark.parametrize(
    ("text", "mode", "height", "width", "kernel", "antialias"),
    [
        ("256x256", "MODE_WARP", 256, 256, "KERNEL_BILINEAR_HALF_PIXEL", True),
        ("256", "MODE_WARP", 256, 256, "KERNEL_BILINEAR_HALF_PIXEL", True),
        ("warp:320x240", "MODE_WARP", 320, 240, "KERNEL_BILINEAR_HALF_PIXEL", True),
        ("short:256", "MODE_SHORT", 256, 256, "KERNEL_BILINEAR_HALF_PIXEL", True),
        ("fit:320x240:bicubic", "MODE_FIT", 320, 240, "KERNEL_BICUBIC", True),
        ("short:256:nearest", "MODE_SHORT", 256, 256, "KERNEL_NEAREST", False),
        ("short:256:corners", "MODE_SHORT", 256, 256, "KERNEL_BILINEAR_CORNERS", False),
        ("16384:area", "MODE_WARP", 16384, 16384, "KERNEL_AREA", False),
    ],
)
def test_resize(text: str, mode: str, height: int, width: int, kernel: str, antialias: bool) -> None:
    resize = message(resize=text).resize
    assert (pb.Resize.Mode.Name(resize.mode), resize.height, resize.width) == (mode, height, width)
    assert (pb.Resize.Kernel.Name(resize.kernel), resize.antialias) == (kernel, antialias)


@pytest.mark.parametrize(
    "text",
    ["", "0", "16385", "-1", "1x2x3", "short:2x3", "short", "short:", "256:lanczos", "a:b:c", "٣", "9" * 9, "2.5", "x"],
)
def test_no_resize(text: str) -> None:
    with pytest.raises(UsageError, match="--resize"):
        message(resize=text)


def test_crop() -> None:
    step = message(crop="224x192")
    assert (step.crop_height, step.crop_width) == (224, 192)
    for text in ("", "0", "16385", "1x2x3", "a"):
        with pytest.raises(UsageError, match="--crop"):
            message(crop=text)


@pytest.mark.parametrize(("resize", "crop"), [("8x8", "9"), ("8x9", "9x8"), ("short:8", "9"), ("fit:8x9", "8x10")])
def test_a_crop_must_fit_into_the_resized_picture(resize: str, crop: str) -> None:
    with pytest.raises(UsageError, match="--crop is larger"):
        message(resize=resize, crop=crop)


def test_a_crop_along_the_longer_side_of_short() -> None:
    """MODE_SHORT leaves the longer side longer: 8x12 may be there."""
    assert message(resize="short:8", crop="8x12").crop_width == 12


@pytest.mark.parametrize(
    ("channels", "text", "values"),
    [
        ("rgb", "1", [1]),
        ("rgb", "1,2,3", [1, 2, 3]),
        ("bgr", "103.939,116.779,123.68", None),
        ("grey", "-1e3", [-1000]),
    ],
)
def test_numbers(channels: str, text: str, values: list[float] | None) -> None:
    for option in ("mean", "scale"):
        found = list(getattr(message(**{option: text, "channels": channels}), option))
        assert found == (values or [float(np.float32(part)) for part in text.split(",")])


@pytest.mark.parametrize(
    ("channels", "text"), [("rgb", "1,2"), ("grey", "1,2,3"), ("rgb", "1,2,inf"), ("rgb", "1e39"), ("rgb", "nan")]
)
def test_no_numbers(channels: str, text: str) -> None:
    for option in ("mean", "scale"):
        with pytest.raises(UsageError, match=f"--{option}"):
            message(**{option: text, "channels": channels})


def test_unknown_channels() -> None:
    with pytest.raises(UsageError, match="rgb, bgr, grey"):
        message(channels="yuv")


@pytest.mark.parametrize("kind", ["<f4", "<f8", ">f4", "u1", "<i2"])
@pytest.mark.parametrize("order", ["C", "F"])
def test_a_mean_picture_of_any_type_of_numbers(kind: str, order: Literal["C", "F"], tmp_path: Path) -> None:
    picture = np.arange(4 * 5 * 3).reshape(4, 5, 3).astype(np.dtype(kind), order=order)
    np.save(tmp_path / "mean.npy", picture)
    step, raw = PreprocessingOptions(mean=str(tmp_path / "mean.npy")).message()
    assert (step.mean_picture.height, step.mean_picture.width) == (4, 5)
    assert np.array_equal(np.frombuffer(raw, "<f4").reshape(4, 5, 3), picture)


@pytest.mark.parametrize(
    "picture",
    [np.zeros((4, 5)), np.zeros((4, 5, 1)), np.zeros((0, 5, 3)), np.full((4, 5, 3), np.nan), np.full((4, 5, 3), 1e39),
     np.zeros((4, 5, 3), complex), np.full((4, 5, 3), "a"), np.zeros((16385, 1, 3))],
)  # fmt: skip
def test_no_mean_picture(picture: np.ndarray[Any, Any], tmp_path: Path) -> None:
    np.save(tmp_path / "mean.npy", picture)
    with pytest.raises(UsageError, match="--mean"):
        message(mean=str(tmp_path / "mean.npy"))


def test_a_mean_picture_cut_short(tmp_path: Path) -> None:
    path = tmp_path / "mean.npy"
    np.save(path, np.zeros((4, 5, 3), np.float32))
    whole = path.read_bytes()
    for length in (0, 5, 50, len(whole) - 1):
        path.write_bytes(whole[:length])
        with pytest.raises(UsageError, match=r"whole \.npy file|nor a picture"):
            message(mean=str(path))


@pytest.mark.parametrize(
    ("options", "fits"),
    [({"crop": "4"}, True), ({"crop": "6"}, False), ({"resize": "5x5"}, True), ({"resize": "5x6"}, False),
     ({"resize": "8x8", "crop": "4"}, True), ({"resize": "short:256"}, True)],
)  # fmt: skip
def test_a_mean_picture_covers_the_picture(options: dict[str, str], fits: bool, tmp_path: Path) -> None:
    np.save(tmp_path / "mean.npy", np.zeros((5, 5, 3)))
    wanted = PreprocessingOptions(mean=str(tmp_path / "mean.npy"), **options)
    if fits:
        wanted.message()
    else:
        with pytest.raises(UsageError, match="--mean is smaller"):
            wanted.message()


def test_the_input_gives_name_and_layout() -> None:
    step = message(crop="8")
    first = placed(step, [picture_input("N", 3, 8, 8), picture_input(1, 2, name="other")])
    assert (first.input, first.layout) == ("x", pb.LAYOUT_NCHW)
    assert placed(step, [picture_input("N", 8, 8, 3)]).layout == pb.LAYOUT_NHWC
    assert placed(step, [picture_input("N", "C", "H", "W")]).layout == pb.LAYOUT_NCHW
    assert placed(message(channels="grey"), [picture_input(1, 28, 28, 1)]).layout == pb.LAYOUT_NHWC
    assert step.input == ""


@pytest.mark.parametrize(
    ("options", "inputs", "says"),
    [
        ({"crop": "8"}, [], "0 of them"),
        ({"crop": "8"}, [picture_input(1, 3, 8, 8), picture_input(1, 3, 8, 8, name="y")], "2 of them"),
        ({"crop": "8"}, [picture_input(1, 10)], "0 of them"),
        ({"crop": "8"}, [picture_input(1, 1, 8, 8)], "3 channels, found 1 x 1 x 8 x 8"),
        ({"channels": "grey"}, [picture_input("N", 3, 8, 8)], "1 channels, found any x 3 x 8 x 8"),
        ({"crop": "7"}, [picture_input(1, 3, 8, 8)], "1 x 3 x 8 x 8, found 7 x 7"),
        ({"resize": "7x8"}, [picture_input(1, 3, "H", 9)], "found 7 x 8"),
        ({"crop": "8"}, [picture_input(1, 3, 8, 8, dtype=7)], "int64"),
        ({"scale": "2"}, [picture_input(1, 3, 8, 8, dtype=2)], "no --mean, no --scale"),
    ],
)
def test_preprocessing_that_does_not_fit_the_model(
    options: dict[str, str], inputs: list[pb.ValueInfo], says: str
) -> None:
    with pytest.raises(UsageError) as caught:
        placed(message(**options), inputs)
    assert says in str(caught.value)


@pytest.mark.parametrize(
    ("content", "labels"),
    [
        (b"a\nb\n", ("a", "b")), (b"a\nb", ("a", "b")), (b"a\r\nb\r\n", ("a", "b")), (b"\xef\xbb\xbfa\n", ("a",)),
        (b"a\n\nc\n", ("a", "", "c")), ("größe\n東京\n".encode(), ("größe", "東京")), (b"a b\tc\n", ("a b\tc",)),
    ],
)  # fmt: skip
def test_labels(content: bytes, labels: tuple[str, ...], tmp_path: Path) -> None:
    (tmp_path / "labels.txt").write_bytes(content)
    assert read_labels(tmp_path / "labels.txt") == labels


@pytest.mark.parametrize("content", [b"", b"\n", b" \n \n", b"\xff\xfe", b"ok\n\x80"])
def test_no_labels(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "labels.txt").write_bytes(content)
    with pytest.raises(UsageError, match="--labels"):
        read_labels(tmp_path / "labels.txt")


def test_labels_come_back_as_they_were_given() -> None:
    """spec/container.md §3: lines ended by 0A, line k names class k."""
    assert labels_text(["a", "", "ü"]) == "a\n\nü\n".encode()
    for wrong in ("a\nb", "\ud800"):
        with pytest.raises(UsageError, match="label 1"):
            labels_text(["good", wrong])
    with pytest.raises(LimitExceededError):
        labels_text(["x" * FORMAT_LIMITS.labels])


def binaryproto(**fields: Any) -> bytes:
    content: bytes = message_class("BlobProto")(**fields).SerializeToString()
    return content


def test_a_mean_of_caffe_is_channels_first(tmp_path: Path) -> None:
    """A mean.binaryproto is 1 x C x H x W, the bundle's mean picture H x W x C in the same order of channels."""
    picture = np.random.default_rng(0).random((3, 6, 5), np.float32) * 255
    path = tmp_path / "mean.binaryproto"
    path.write_bytes(binaryproto(num=1, channels=3, height=6, width=5, data=picture.reshape(-1)))
    step, raw = PreprocessingOptions(mean=str(path), channels="bgr").message()
    assert (step.mean_picture.height, step.mean_picture.width) == (6, 5)
    assert np.array_equal(np.frombuffer(raw, "<f4").reshape(6, 5, 3), picture.transpose(1, 2, 0))
    with pytest.raises(UsageError, match="height x width x 1"):
        message(mean=str(path), channels="grey")


@pytest.mark.parametrize(
    "fields",
    [
        {"num": 2, "channels": 3, "height": 2, "width": 2, "data": [0.0] * 24},
        {"channels": 3, "height": 2, "width": 2, "data": [0.0] * 11},
        {"shape": {"dim": [2**40, 2**40, 3]}, "data": [0.0]},
        {"channels": -1, "height": 2, "width": 2, "data": [0.0]},
    ],
)
def test_a_mean_of_caffe_whose_shape_lies(fields: dict[str, Any], tmp_path: Path) -> None:
    path = tmp_path / "mean.binaryproto"
    path.write_bytes(binaryproto(**fields))
    with pytest.raises(MobileModelError) as caught:
        message(mean=str(path), channels="bgr")
    assert caught.value.file == str(path)


def test_a_mean_that_is_no_picture_file(tmp_path: Path) -> None:
    path = tmp_path / "mean.txt"
    path.write_text("104 117 123\n")
    with pytest.raises(UsageError, match=r"neither numbers nor a picture.*binaryproto"):
        message(mean=str(path))


def test_the_mean_of_a_real_network(zoo: Path) -> None:
    _, raw = PreprocessingOptions(mean=str(zoo / "caffe/mean.binaryproto"), channels="bgr", resize="256x256",
                                  crop="227").message()  # fmt: skip
    means = np.frombuffer(raw, "<f4").reshape(256, 256, 3).mean((0, 1))
    assert np.allclose(means, [78.4, 87.8, 114.9], atol=0.1)
