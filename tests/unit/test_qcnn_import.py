"""Q-CNN -> Model: codebooks and indices as they are, weights rebuilt by the rule, and folders that do not fit."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import mobilemodel as mm
from mobilemodel.errors import LimitExceededError, MalformedSourceError, MobileModelError, UsageError
from mobilemodel.model import Model, QuantizedValue, SourceOptions
from mobilemodel.pipeline import verify
from mobilemodel.runtime import run, session
from mobilemodel.v1 import bundle_pb2 as pb
from mobilemodel_converters.caffe.translate import blob_dims
from mobilemodel_converters.qcnn import QcnnConverter
from mobilemodel_converters.qcnn.importer import MEAN, load_model, rebuild
from mobilemodel_converters.qcnn.topologies import TOPOLOGIES
from tests.qcnn_files import PREFIX, SMALL, WEIGHTS, bin_bytes, cbn_bytes, quantized, small_files, write

NAMED = SourceOptions(topology="small")


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The small network, known as a topology."""
    monkeypatch.setitem(TOPOLOGIES, SMALL.name, SMALL)
    made = tmp_path / "net"
    made.mkdir()
    return write(made, small_files())


def load(folder: Path) -> Model:
    return QcnnConverter().load([folder], NAMED)


@given(
    outputs=st.integers(1, 5), inputs=st.integers(1, 9), places=st.sampled_from([(), (1, 1), (2, 3)]),
    features=st.integers(1, 5), entries=st.integers(1, 9), seed=st.integers(0, 2**32),
)  # fmt: skip
def test_weights_are_rebuilt_by_the_rule(
    outputs: int, inputs: int, places: tuple[int, ...], features: int, entries: int, seed: int
) -> None:
    """docs/formats/qcnn.md §5: W[k, s F + f, h, w] = ctrd[s, asmt[k, h, w, s], f], for an FC layer without places;
    surplus entries of the last centroid are dropped."""
    dims = (outputs, inputs, *places)
    value = quantized(seed, dims, features, entries)
    stored = QuantizedValue(pb.Palette(), value.codes.reshape(outputs, -1), value.tables)
    assert np.array_equal(rebuild(stored, dims).reshape(dims), value.weight())


def test_a_network_is_converted_without_requantizing(folder: Path, tmp_path: Path) -> None:
    """The same codebooks, the same indices; what a reader decodes is what the rule rebuilds."""
    mm.convert([folder], tmp_path / "out.mm", scheme="lossless", options=mm.ConvertOptions(source=NAMED))
    with mm.open(tmp_path / "out.mm") as bundle:
        for place, value in WEIGHTS.items():
            name = f"{SMALL.rows[place - 1].name}.weight"
            stored = bundle[name]
            assert stored.encoding == "palette"
            assert stored.tables().tobytes() == value.tables.tobytes()
            assert np.array_equal(stored.indices().reshape(-1), value.codes.reshape(-1))
            assert np.array_equal(stored.numpy(), value.weight())
        assert bundle.manifest.sources[0].format == "qcnn"
        assert len(bundle.manifest.sources) == len(small_files())
        found = run(session(bundle), {"data": np.ones((2, 3, 11, 11), np.float32)})["prob"]
    assert found.shape == (2, 5)
    assert found.sum(1) == pytest.approx([1, 1], abs=1e-5)
    checked = verify(tmp_path / "out.mm", [folder], options=NAMED)
    assert checked.lossless


def test_a_scheme_does_not_requantize_what_is_quantized(folder: Path, tmp_path: Path) -> None:
    report = mm.convert([folder], tmp_path / "out.mm", options=mm.ConvertOptions(source=NAMED))
    rows = {row.name: row for row in report.tensors}
    assert all(rows[f"{SMALL.rows[place - 1].name}.weight"].sqnr_db is None for place in WEIGHTS)


def test_raw_assignments_serve_as_well(folder: Path) -> None:
    expected = {tensor.name: bytes(tensor.read()) for tensor in load(folder).tensors}
    (folder / f"{PREFIX}.asmtLst.05.cbn").unlink()
    write(folder, {f"{PREFIX}.asmtLst.05.bin": bin_bytes(WEIGHTS[5].codes + np.uint8(1))})
    assert {tensor.name: bytes(tensor.read()) for tensor in load(folder).tensors} == expected


@pytest.mark.parametrize(("place", "kind"), [(3, "convKnl"), (5, "fcntWei")])
def test_weights_that_are_not_quantized_are_taken_as_they_are(folder: Path, place: int, kind: str) -> None:
    for name in (f"{PREFIX}.ctrdLst.{place:02d}.bin", f"{PREFIX}.asmtLst.{place:02d}.cbn"):
        (folder / name).unlink()
    weight = WEIGHTS[place].weight()
    write(folder, {f"{PREFIX}.{kind}.{place:02d}.bin": bin_bytes(weight)})
    found = next(t for t in load(folder).tensors if t.name == f"{SMALL.rows[place - 1].name}.weight")
    assert found.quantized is None
    assert bytes(found.read()) == weight.tobytes()


def test_all_missing_files_are_named_at_once(folder: Path) -> None:
    gone = ["asmtLst.05.cbn", "biasVec.07.bin", "ctrdLst.01.bin"]
    for name in gone:
        (folder / f"{PREFIX}.{name}").unlink()
    with pytest.raises(MalformedSourceError, match="files of the network are missing") as error:
        load(folder)
    assert all(f"{PREFIX}.{name}" in str(error.value) for name in gone)


def test_values_of_a_layer_that_has_none(folder: Path) -> None:
    write(folder, {f"{PREFIX}.biasVec.02.bin": b""})
    with pytest.raises(MalformedSourceError, match="small has no values in row 2") as error:
        load(folder)
    assert error.value.file == str(folder / f"{PREFIX}.biasVec.02.bin")


BROKEN = [
    ("ctrdLst.03.bin", bin_bytes(np.zeros((3, 7, 2), np.float32)), "as many as cover 3 inputs, 2 each, found 3"),
    ("ctrdLst.03.bin", bin_bytes(np.zeros((2, 7), np.float32)), "number of dimensions: expected 3, found 2"),
    ("ctrdLst.03.bin", bin_bytes(np.full((2, 7, 2), np.nan, np.float32)), "not finite"),
    ("asmtLst.03.cbn", cbn_bytes(WEIGHTS[3].codes + np.uint8(1), 3), "below 7, found 7"),
    ("asmtLst.03.cbn", cbn_bytes(WEIGHTS[3].codes[:7], 3), r"expected \(8, 3, 3, 2\), found \(7, 3, 3, 2\)"),
    ("asmtLst.05.cbn", cbn_bytes(WEIGHTS[5].codes[None], 4), "number of dimensions: expected 2, found 3"),
    ("biasVec.07.bin", bin_bytes(np.zeros(6, np.float32)), r"expected \(5,\), found \(6,\)"),
    ("biasVec.07.bin", bin_bytes(np.zeros(5, np.float32)) + b"\0", "expected 28 bytes, found 29 bytes"),
    (MEAN, bin_bytes(np.zeros((1, 256, 256), np.float32)), r"expected \(3, 256, 256\)"),
]


@pytest.mark.parametrize(("name", "content", "message"), BROKEN)
def test_files_that_do_not_fit(folder: Path, name: str, content: bytes, message: str) -> None:
    """The error names the file, and the layer that it belongs to."""
    full = name if name == MEAN else f"{PREFIX}.{name}"
    write(folder, {full: content})
    with pytest.raises(MalformedSourceError, match=message) as error:
        load(folder)
    assert error.value.file == str(folder / full)
    assert name == MEAN or error.value.layer in [row.name for row in SMALL.rows]


def test_codebooks_beyond_the_format(folder: Path) -> None:
    write(folder, {f"{PREFIX}.ctrdLst.05.bin": bin_bytes(np.zeros((1, 2, 257), np.float32))})
    with pytest.raises(LimitExceededError, match=r"found \(1, 2, 257\)"):
        load(folder)


def test_stray_bits_are_said(folder: Path) -> None:
    name = f"{PREFIX}.asmtLst.07.cbn"
    content = bytearray((folder / name).read_bytes())
    content[-1] = 1
    write(folder, {name: bytes(content)})
    assert load(folder).notes[0] == f"{name}: bits beside the indices are not zero; they were left out"


def test_the_mean_picture_makes_the_preprocessing(folder: Path) -> None:
    """docs/formats/qcnn.md §7: blue, green, red planes of 256 x 256; warped with aligned corners, the full mean taken
    off, cropped in the middle."""
    assert load(folder).preprocessing == ()
    assert MEAN in load(folder).notes[-1]
    planes = np.random.default_rng(0).standard_normal((3, 256, 256), np.float32)
    write(folder, {MEAN: bin_bytes(planes)})
    model = load(folder)
    (step,) = model.preprocessing
    assert step.colour_order == pb.COLOUR_ORDER_BGR
    assert (step.crop_height, step.crop_width) == (11, 11)
    assert (step.resize.mode, step.resize.height, step.resize.width) == (pb.Resize.MODE_WARP, 256, 256)
    assert step.resize.kernel == pb.Resize.KERNEL_BILINEAR_CORNERS
    assert (step.mean_picture.height, step.mean_picture.width) == (256, 256)
    picture = np.frombuffer(model.mean_picture, "<f4").reshape(256, 256, 3)
    assert np.array_equal(picture[:, :, 0], planes[0])
    assert MEAN in [source.name for source in model.sources]


def test_the_topology_has_to_be_named(folder: Path) -> None:
    for options in (SourceOptions(), SourceOptions(topology="lenet")):
        with pytest.raises(UsageError, match="expected alexnet, caffenet, vgg-cnn-s, vgg16") as error:
            QcnnConverter().load([folder], options)
        assert "--topology" in str(error.value)


def test_a_folder_with_codebooks_is_known(folder: Path, tmp_path: Path) -> None:
    converter = QcnnConverter()
    assert converter.sniff([folder])
    assert not converter.sniff([folder, folder])
    assert not converter.sniff([tmp_path])
    assert not converter.sniff([folder / f"{PREFIX}.ctrdLst.01.bin"])


@pytest.mark.parametrize(
    ("name", "places", "parameters"),
    [
        ("alexnet", [1, 5, 9, 11, 13, 16, 19, 22], 60_965_224),
        ("caffenet", [1, 5, 9, 11, 13, 16, 19, 22], 60_965_224),
        ("vgg-cnn-s", [1, 5, 8, 10, 12, 15, 18, 21], 102_908_520),
        ("vgg16", [1, 3, 6, 8, 11, 13, 15, 18, 20, 22, 25, 27, 29, 32, 35, 38], 138_357_544),
    ],
)
def test_the_tables_are_the_published_networks(name: str, places: list[int], parameters: int) -> None:
    """The sizes between the layers add up: as many parameters as their authors count, in the rows of the files."""
    rows = TOPOLOGIES[name].rows
    assert [place for place, row in enumerate(rows, 1) if row.weighted] == places
    asked = blob_dims(TOPOLOGIES[name].net())
    assert sum(int(np.prod(dims)) for layer in asked for dims in layer.values()) == parameters


def test_caffenet_pools_before_it_normalises() -> None:
    """docs/formats/qcnn.md §4: the CaffeNet table swaps the two."""
    order = {name: [row.type for row in TOPOLOGIES[name].rows[:9]] for name in ("alexnet", "caffenet")}
    assert order["alexnet"][2:4] == ["LRN", "Pooling"] == order["alexnet"][6:8]
    assert order["caffenet"][2:4] == ["Pooling", "LRN"] == order["caffenet"][6:8]


@given(data=st.data())
def test_any_change_of_a_file_is_a_model_or_our_error(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    files = small_files()
    name = data.draw(st.sampled_from(sorted(files)))
    content = bytearray(files[name])
    for at, byte in data.draw(st.lists(st.tuples(st.integers(0, 40), st.integers(0, 255)), max_size=3)):
        content[min(at, len(content) - 1)] = byte
    files[name] = bytes(content[: data.draw(st.sampled_from([len(content), len(content) - 1, 10, 3, 0]))])
    folder = tmp_path_factory.mktemp("fuzz")
    try:
        model = load_model(write(folder, files), SMALL)
    except MobileModelError:
        return
    for tensor in model.tensors:
        assert len(tensor.read()) == tensor.raw_bytes
    model.close()


def test_files_that_are_not_read_are_said(tmp_path: Path) -> None:
    """A weight from before quantization may lie beside the codebooks, which come first."""
    stray = f"{PREFIX}.convKnl.01.bin"
    write(tmp_path, small_files() | {stray: bin_bytes(np.zeros((6, 3, 3, 3), np.float32))})
    model = load_model(tmp_path, SMALL)
    model.close()
    assert f"{stray} was not read: other files hold its layer's weight" in model.notes
    assert stray not in [source.name for source in model.sources]
