"""Files that ccv wrote, and Klaus's real index plane: activations, indices, labels and refusals."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt
import onnx
import pytest

import mobilemodel as mm
from mobilemodel.errors import UnsupportedSourceError
from mobilemodel.model import SourceOptions
from mobilemodel_converters.sources import OpenedFile
from tests.ccv_databases import Convnet, grey_png

LAYERS = 7


def _activations(zoo: Path, name: str, folder: Path) -> tuple[list[npt.NDArray[np.float32]], npt.NDArray[np.float32]]:
    """Convert without loss, export to ONNX, and run that with every layer's value as an output; and the network's."""
    import onnxruntime

    mm.convert(zoo / "ccv" / name, folder / "out.mm", scheme="lossless")
    with mm.open(folder / "out.mm") as bundle:
        mm.export(bundle, folder / "out.onnx")
    model = onnx.load(folder / "out.onnx")
    model.graph.output.extend(onnx.ValueInfoProto(name=f"layer-{layer}") for layer in range(LAYERS))
    x = np.fromfile(zoo / "ccv" / "x.bin", "<f4").reshape(1, 21, 21, 3).transpose(0, 3, 1, 2)
    output, *layers = onnxruntime.InferenceSession(model.SerializeToString()).run(None, {"input": x})
    return [value[0].transpose(1, 2, 0) if value.ndim == 4 else value[0] for value in layers], output


@pytest.mark.parametrize(("name", "tolerance"), [("f32.sqlite3", 1e-5), ("f16.sqlite3", 5e-3)])
def test_activations_are_ccvs(zoo: Path, name: str, tolerance: float, tmp_path: Path) -> None:
    layers, output = _activations(zoo, name, tmp_path)
    for layer, found in enumerate(layers):
        expected = np.fromfile(zoo / "ccv" / f"act{layer}.bin", "<f4")
        assert np.abs(found.reshape(-1) - expected).max() <= tolerance, layer
    scores = np.exp(layers[-1] - layers[-1].max())
    np.testing.assert_allclose(output[0], scores / scores.sum(), rtol=1e-5)


def test_the_bundle_runs(zoo: Path, tmp_path: Path) -> None:
    mm.convert(zoo / "ccv" / "f32.sqlite3", tmp_path / "out.mm")
    with mm.open(tmp_path / "out.mm") as bundle:
        x = np.fromfile(zoo / "ccv" / "x.bin", "<f4").reshape(1, 21, 21, 3).transpose(0, 3, 1, 2)
        (probabilities,) = mm.session(bundle).run(None, {"input": x})
    assert probabilities.shape == (1, 5)
    assert probabilities.sum() == pytest.approx(1, abs=1e-6)


def test_the_mean_picture_is_kept(zoo: Path, tmp_path: Path) -> None:
    mm.convert(zoo / "ccv" / "f16.sqlite3", tmp_path / "out.mm")
    with mm.open(tmp_path / "out.mm") as bundle:
        (step,) = bundle.manifest.preprocessing
        assert (step.mean_picture.height, step.mean_picture.width) == (23, 23)
        assert (step.resize.height, step.crop_height, step.crop_width) == (23, 21, 21)


def test_a_cascade_is_refused_by_name(zoo: Path, tmp_path: Path) -> None:
    with pytest.raises(UnsupportedSourceError, match=r"face-cascade\.sqlite3.*SURF cascade"):
        mm.convert(zoo / "ccv" / "face-cascade.sqlite3", tmp_path / "out.mm")
    assert not (tmp_path / "out.mm").exists()


def test_klauss_plane_and_a_4_bit_layer_come_through(zoo: Path, tmp_path: Path) -> None:
    """Klaus's mix: the first full connect 4 bit, the second the real 2048 x 2048 plane, 8 bit."""
    from mobilemodel_converters.ccv.png import read_picture

    with OpenedFile(zoo / "ccv" / "klaus-layer-11.png") as file:
        plane = read_picture(file, 2048, 2048).samples
    assert (int(plane.min()), int(plane.max()), len(np.unique(plane))) == (0, 254, 255)
    generator = np.random.default_rng(10)
    first = generator.integers(0, 16, (2048, 3 * 4 * 8), np.uint8)
    tables = {1: generator.standard_normal(16).astype("<f2"), 2: np.sort(generator.standard_normal(256)).astype("<f2")}
    net = Convnet((3, 4, 3)).conv(8).full(2048, relu=True).full(2048, relu=True).full(10)
    net.rows[1].weight = net.rows[2].weight = None
    net.write(tmp_path / "klaus.sqlite3", half=(0, 1, 2, 3), codebooks=tables)
    (tmp_path / "layer-1-4bit.png").write_bytes(grey_png(first, 4))
    options = mm.ConvertOptions(source=SourceOptions(pictures={"2": str(zoo / "ccv" / "klaus-layer-11.png")}))
    mm.convert(tmp_path / "klaus.sqlite3", tmp_path / "out.mm", options=options)
    with mm.open(tmp_path / "out.mm") as bundle:
        for number, codes in ((1, first), (2, plane)):
            tensor = bundle[f"layer-{number}.weight"]
            assert np.array_equal(tensor.indices(), codes)
            assert tensor.tables().reshape(-1).tobytes() == tables[number].tobytes()
        flat = tables[1].astype("f4")[first].reshape(2048, 3, 4, 8).transpose(0, 3, 1, 2)
        assert np.array_equal(bundle["layer-1.weight"].numpy(), flat.reshape(2048, -1))
        # The plane's entropy is 7.57 bit: nothing but the packing is added to it.
        assert bundle["layer-2.weight"].stored_bytes < 1.01 * 3_993_174


def test_labels_are_the_devkits_order(zoo: Path, tmp_path: Path) -> None:
    from mobilemodel.pipeline.labels import read_labels

    labels = read_labels(zoo / "ccv" / "image-net-2012.wnid")
    assert (len(labels), labels[:3]) == (1000, ("n02119789", "n02100735", "n02110185"))
    net = Convnet((3, 3, 3)).conv(4).full(1000)
    options = mm.ConvertOptions(labels=labels)
    mm.convert(net.write(tmp_path / "net.sqlite3"), tmp_path / "out.mm", options=options)
    with mm.open(tmp_path / "out.mm") as bundle:
        assert bundle.labels() == labels
