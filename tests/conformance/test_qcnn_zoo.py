"""The real Q-CNN AlexNet: every layer that is there, and the whole network with the missing assignments made up."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import mobilemodel as mm
from mobilemodel.errors import MalformedSourceError
from mobilemodel.layout import tensor_layout
from mobilemodel.model import SourceOptions
from mobilemodel.pipeline import verify
from mobilemodel_converters.qcnn import QcnnConverter
from mobilemodel_converters.qcnn.file import Folder, read_codes, read_dims, read_floats
from mobilemodel_converters.qcnn.importer import MEAN
from tests.qcnn_files import Quantized, cbn_bytes

Array = np.ndarray[Any, Any]
ALEXNET = SourceOptions(topology="alexnet")
MISSING = "bvlc_alexnet_aCaF.asmtLst.16.cbn"
# docs/formats/qcnn.md §5: row -> shape, mean, standard deviation, largest magnitude
TABLE = [
    (1, (96, 3, 11, 11), 0.00004, 0.0610, 0.377),
    (5, (256, 48, 5, 5), -0.0012, 0.0292, 0.430),
    (9, (384, 256, 3, 3), -0.0008, 0.0195, 0.540),
    (11, (384, 192, 3, 3), -0.0012, 0.0201, 0.458),
    (13, (256, 192, 3, 3), -0.0027, 0.0217, 0.351),
    (19, (4096, 4096), -0.0005, 0.0064, 0.104),
    (22, (1000, 4096), 0.000001, 0.0112, 0.074),
]
NAMES = {1: "conv1", 5: "conv2", 9: "conv3", 11: "conv4", 13: "conv5", 16: "fc6", 19: "fc7", 22: "fc8"}


@pytest.fixture(scope="module")
def source(zoo: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The real files without the mean picture, and fc6's assignments: 5 bits each, evenly spread, as fc7's are."""
    folder = tmp_path_factory.mktemp("alexnet")
    for path in (zoo / "qcnn-alexnet").glob("bvlc_alexnet_aCaF.*"):
        shutil.copyfile(path, folder / path.name)
    codes = np.random.default_rng(0).integers(0, 32, (4096, 2304), np.uint8)
    (folder / MISSING).write_bytes(cbn_bytes(codes, 5))
    return folder


@pytest.fixture(scope="module")
def bundle(source: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("bundle") / "alexnet.mm"
    mm.convert(source, out, scheme="lossless", options=mm.ConvertOptions(source=ALEXNET))
    return out


def stored(folder: Folder, place: int, inputs: int) -> Quantized:
    """What two files hold."""
    tables, codes = folder.open("ctrdLst", place), folder.open("asmtLst", place)
    found, clean = read_codes(codes, read_dims(codes, 4 if place < 16 else 2))
    assert clean
    return Quantized(read_floats(tables, read_dims(tables, 3)), found, inputs)


@pytest.mark.parametrize(("place", "shape", "mean", "deviation", "largest"), TABLE)
def test_each_layer_has_the_figures_of_the_table(
    place: int, shape: tuple[int, ...], mean: float, deviation: float, largest: float, bundle: Path, zoo: Path
) -> None:
    with mm.open(bundle) as opened, Folder(zoo / "qcnn-alexnet") as folder:
        tensor = opened[f"{NAMES[place]}.weight"]
        values = stored(folder, place, shape[1])
        assert np.array_equal(tensor.indices().reshape(-1), values.codes.reshape(-1))
        assert tensor.tables().tobytes() == values.tables.tobytes()
        weight = tensor.numpy()
    assert weight.shape == shape
    assert weight.mean(dtype=np.float64) == pytest.approx(mean, abs=5e-5)
    assert weight.std(dtype=np.float64) == pytest.approx(deviation, abs=5e-5)
    assert np.abs(weight).max() == pytest.approx(largest, abs=5e-4)


def test_neighbouring_taps_of_the_first_filters_are_alike(bundle: Path) -> None:
    """docs/formats/qcnn.md §6: 0.54 along x and 0.56 along y; unpacked from the low bits up it would be 0.01."""
    with mm.open(bundle) as opened:
        filters = opened["conv1.weight"].numpy()
    for first, second in ((filters[..., 1:], filters[..., :-1]), (filters[..., 1:, :], filters[..., :-1, :])):
        assert np.corrcoef(first.reshape(-1), second.reshape(-1))[0, 1] > 0.5


def test_the_weight_of_a_group_is_rebuilt_by_the_rule(bundle: Path, zoo: Path) -> None:
    """Both groups index the same codebooks: six of 8 inputs each cover the 48 of a group."""
    with mm.open(bundle) as opened, Folder(zoo / "qcnn-alexnet") as folder:
        values = stored(folder, 5, 48)
        some = Quantized(values.tables, values.codes[120:136], 48)
        assert np.array_equal(opened["conv2.weight"].numpy()[120:136], some.weight())


def test_missing_assignments_are_named(zoo: Path, tmp_path: Path) -> None:
    with pytest.raises(MalformedSourceError, match="files of the network are missing: " + MISSING):
        mm.convert(zoo / "qcnn-alexnet", tmp_path / "out.mm", options=mm.ConvertOptions(source=ALEXNET))


def test_the_bundle_is_smaller_than_its_source(source: Path, bundle: Path) -> None:
    """Less than the packed indices, codebooks and biases together, 13.2 MB; the indices alone within half a percent."""
    with mm.open(bundle) as opened:
        payloads = opened.manifest.payloads
        indices = sum(
            payloads[use.payload].stored_size
            for name in NAMES.values()
            for use in tensor_layout(opened[f"{name}.weight"].message).uses
        )
    packed = sum(path.stat().st_size for path in source.glob("*.cbn"))
    assert packed == 10_846_376
    assert indices <= 1.005 * packed
    assert bundle.stat().st_size < sum(path.stat().st_size for path in source.iterdir())


def test_the_network_runs_and_is_verified(source: Path, bundle: Path) -> None:
    found = verify(bundle, [source], options=ALEXNET)
    assert found.lossless
    assert [(output.output, output.largest_absolute) for output in found.outputs] == [("prob", 0.0)]


def test_the_mean_picture_of_the_folder(zoo: Path, source: Path, tmp_path: Path) -> None:
    """docs/formats/qcnn.md §7: blue, green, red, with the means 104.007, 116.669 and 122.679."""
    folder = tmp_path / "net"
    shutil.copytree(source, folder)
    shutil.copyfile(zoo / "qcnn-alexnet" / MEAN, folder / MEAN)
    model = QcnnConverter().load([folder], ALEXNET)
    (step,) = model.preprocessing
    assert (step.crop_height, step.crop_width) == (227, 227)
    picture = np.frombuffer(model.mean_picture, "<f4").reshape(256, 256, 3)
    assert picture.mean((0, 1), dtype=np.float64) == pytest.approx([104.007, 116.669, 122.679], abs=1e-3)
    model.close()
