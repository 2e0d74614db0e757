"""What Caffe's data layers do to pictures, as the manifest's preprocessing; nothing is followed, nothing invented."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

import mobilemodel as mm
from mobilemodel.errors import MalformedSourceError
from mobilemodel.v1 import bundle_pb2 as pb
from tests import caffe_files as files
from tests.caffe_files import layer, load, net, pair, values, write


def picture_net(step: dict[str, Any], channels: int = 3, size: int = 8, kind: str = "transform_param") -> Any:
    """A snapshot of a network of pictures."""
    said: dict[str, Any] = {kind: step}
    return net(
        layer("source", "Data", "", "data label", **said),
        layer("conv", "Convolution", "data", "conv", [values(4, channels, 3, 3), values(4)],
              convolution_param={"num_output": 4, "kernel_size": [3]}),
        layer("loss", "EuclideanLoss", "conv label", "loss"),
    )  # fmt: skip


def step_of(made: Any, folder: Path, shape: tuple[int | None, ...] = ()) -> tuple[pb.Preprocessing | None, str]:
    model = load(write(folder, "net.caffemodel", made), shape=shape)
    model.close()
    return (model.preprocessing[0] if model.preprocessing else None), " ".join(model.notes)


def test_preprocessing(tmp_path: Path) -> None:
    """docs/formats/caffe.md §5: BGR, minus the mean, then times the scale; a crop where it makes the input's size."""
    step, _ = step_of(picture_net({"mean_value": [104, 117, 123], "scale": 0.25, "crop_size": 8}), tmp_path)
    assert step == pb.Preprocessing(
        input="data", layout=pb.LAYOUT_NCHW, colour_order=pb.COLOUR_ORDER_BGR, mean=[104, 117, 123], scale=[0.25],
        crop_height=8, crop_width=8,
    )  # fmt: skip
    step, _ = step_of(picture_net({"scale": 0.5, "crop_size": 8}, channels=1), tmp_path, (1, 1, 9, None))
    assert step == pb.Preprocessing(
        input="data", layout=pb.LAYOUT_NCHW, colour_order=pb.COLOUR_ORDER_GREY, scale=[0.5]
    )
    assert step_of(picture_net({"crop_size": 8}), tmp_path)[0] is None
    assert step_of(picture_net({"scale": 0.5, "crop_size": 8}, channels=2), tmp_path)[0] is None


def test_a_mean_file_is_named_and_not_followed(tmp_path: Path) -> None:
    write(tmp_path, "mean.binaryproto", files.blob(values(1, 3, 8, 8)))
    path = f"{tmp_path}/\x1b[2J/../mean.binaryproto"
    step, notes = step_of(picture_net({"mean_file": path, "crop_size": 8}), tmp_path)
    assert step is None
    assert "'mean.binaryproto' was subtracted: give it by --mean" in notes
    assert str(tmp_path) not in notes


def test_transformations_of_old(tmp_path: Path) -> None:
    """Before there was transform_param its fields stood in the data layers' own parameters."""
    for kind in ("data_param", "image_data_param", "window_data_param"):
        step, notes = step_of(picture_net({"scale": 0.5, "crop_size": 8, "mean_file": "m"}, kind=kind), tmp_path)
        assert step is not None
        assert list(step.scale) == [0.5]
        assert step.crop_height == 8
        assert "'m'" in notes


def test_preprocessing_beside_the_weights(tmp_path: Path) -> None:
    """The deploy prototxt has no data layer: the snapshot's says what pictures it was trained on."""
    weighted = picture_net({"mean_value": [104, 117, 123], "crop_size": 6})
    described = net(weighted.layer[1], shape=(1, 3, 8, 8))
    model = load(*pair(tmp_path, described, weighted))
    model.close()
    assert [list(step.mean) for step in model.preprocessing] == [[104, 117, 123]]
    assert model.preprocessing[0].crop_height == 0


@pytest.mark.parametrize("step", [{"mean_value": [1, 2]}, {"scale": float("nan")}, {"mean_value": [float("inf")]}])
def test_broken_preprocessing(step: dict[str, Any], tmp_path: Path) -> None:
    with pytest.raises(MalformedSourceError, match="mean_value and scale"):
        step_of(picture_net({**step, "crop_size": 8}), tmp_path)


def test_a_bundle_of_it_opens(tmp_path: Path) -> None:
    """The preprocessing is what the format takes, and the files are recorded without their folder."""
    path = write(tmp_path, "net.caffemodel", picture_net({"mean_value": [104], "scale": 0.5, "crop_size": 8}))
    mm.convert(path, tmp_path / "out.mm", scheme="lossless")
    with mm.open(tmp_path / "out.mm") as bundle:
        assert [entry.file_name for entry in bundle.manifest.sources] == ["net.caffemodel"]
        assert [entry.format for entry in bundle.manifest.sources] == ["caffe"]
        assert list(bundle.manifest.preprocessing[0].scale) == [0.5]
