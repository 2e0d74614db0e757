"""Caffe's files: blobs in every form that tools have written, versions, and roles told by content."""

from __future__ import annotations

import struct
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

import mobilemodel as mm
from mobilemodel.errors import (
    LimitExceededError,
    MalformedSourceError,
    MobileModelError,
    UnsupportedSourceError,
    UsageError,
)
from mobilemodel.model import Model
from mobilemodel.wire import varint
from mobilemodel_converters import find_converter
from mobilemodel_converters.caffe import CaffeConverter
from mobilemodel_converters.caffe.importer import read_stored
from mobilemodel_converters.caffe.sniff import is_caffe
from mobilemodel_converters.onnx import OnnxConverter
from mobilemodel_converters.sources import OpenedFile
from tests import caffe_files as files
from tests import models
from tests.caffe_files import around, blob, both_versions, field, layer, load, net, small, weights_of, write

VALUES = np.array([1.5, -2.0, 3.25, 1e-3, 0.0, 7.0], np.float32)
SHAPE = field(7, field(1, bytes([2, 3])))
LEGACY = bytes([0x08, 1, 0x10, 1, 0x18, 2, 0x20, 3])
ONE_BY_ONE = b"".join(b"\x2d" + struct.pack("<f", value) for value in VALUES)
DIFF = field(6, bytes(24))
FORMS = {
    "packed": SHAPE + field(5, VALUES.tobytes()),
    "shape after values": field(5, VALUES.tobytes()) + SHAPE,
    "legacy shape": LEGACY + field(5, VALUES.tobytes()),
    "legacy shape wins": LEGACY + field(7, field(1, bytes([9]))) + field(5, VALUES.tobytes()),
    "dims one by one": field(7, bytes([8, 2, 8, 3])) + field(5, VALUES.tobytes()),
    "one by one": SHAPE + ONE_BY_ONE,
    "one by one, a diff behind": ONE_BY_ONE + b"\x35\0\0\0\0" * 6 + SHAPE,
    "in pieces": SHAPE + field(5, VALUES[:2].tobytes()) + DIFF + field(5, VALUES[2:].tobytes()),
    "packed, then one by one": SHAPE + field(5, VALUES[:4].tobytes()) + ONE_BY_ONE[20:],
    "with a diff": DIFF + SHAPE + field(5, VALUES.tobytes()) + DIFF,
    "double": SHAPE + field(8, VALUES.astype(np.float64).tobytes()),
    "double wins": SHAPE + field(5, bytes(12)) + field(8, VALUES.astype(np.float64).tobytes()),
    "double one by one": SHAPE + b"".join(b"\x41" + struct.pack("<d", value) for value in VALUES),
}


@pytest.mark.parametrize("form", FORMS)
def test_a_blob_in_every_form(form: str, tmp_path: Path) -> None:
    """docs/formats/caffe.md §1: values are ``data``, else ``double_data``, which wins; diffs count for nothing; a shape
    of old wins where one of its fields is there."""
    model = load(write(tmp_path, "net.caffemodel", around(FORMS[form])))
    rounded = [note for note in model.notes if "double" in note]
    assert len(rounded) == form.startswith("double")
    (found,) = weights_of(model).values()
    assert found.tobytes() == VALUES.tobytes()
    assert found.shape == (2, 3)


def test_doubles_are_rounded(tmp_path: Path) -> None:
    exact = np.random.default_rng(1).standard_normal(6)
    model = load(write(tmp_path, "net.caffemodel", around(SHAPE + field(8, exact.tobytes()))))
    (found,) = weights_of(model).values()
    assert found.tobytes() == exact.astype(np.float32).tobytes()


def test_a_double_beyond_float32_is_refused(tmp_path: Path) -> None:
    source = write(tmp_path, "net.caffemodel", around(SHAPE + field(8, np.full(6, 1e300).tobytes())))
    with pytest.raises(UnsupportedSourceError, match="exceeds float32"):
        mm.convert(source, tmp_path / "out.mm", scheme="lossless")


@pytest.mark.parametrize(
    ("content", "said"),
    {
        "no values": (SHAPE, "blob 0: .*expected 6, found 0"),
        "too few": (SHAPE + field(5, VALUES[:5].tobytes()), "expected 6, found 5"),
        "no shape": (field(5, VALUES.tobytes()), "expected 1, found 6"),
        "half a value": (SHAPE + field(5, bytes(23)), "packed values.*multiple of 4"),
        "negative": (field(7, field(1, varint(2**64 - 2) + bytes([3]))) + field(5, VALUES.tobytes()), "sizes from 0"),
        "negative, legacy": (b"\x08" + varint(2**64 - 1) + field(5, VALUES.tobytes()), "sizes from 0"),
        "huge": (field(7, field(1, varint(2**62))) + field(5, VALUES.tobytes()), "found 6"),
        "many axes": (field(7, field(1, bytes([1]) * 17)) + field(5, bytes(4)), "axes: expected at most 16"),
        "NVIDIA's": (SHAPE + field(12, bytes(12)), "raw_data"),
        "past its layer": (SHAPE + b"\x2a\x7f", "runs past its message"),
    }.values(),
    ids=lambda value: None,
)
def test_a_broken_blob_is_named(content: bytes, said: str, tmp_path: Path) -> None:
    """An error names file, layer and blob."""
    source = write(tmp_path, "net.caffemodel", around(content))
    with pytest.raises(MobileModelError, match=said) as caught:
        load(source)
    assert str(source) in str(caught.value)
    assert "layer 'ip'" in str(caught.value)
    assert "blob 0" in str(caught.value)
    assert caught.value.exit_code in (3, 4)


def test_ten_million_values_one_by_one_are_read_quickly(tmp_path: Path) -> None:
    """The tags of such values are looked at together: each alone would take ten seconds."""
    count = 10**7
    records = np.zeros((count, 5), np.uint8)
    records[:, 0] = 0x2D
    records[:, 1:] = np.arange(count, dtype="<f4").view(np.uint8).reshape(-1, 4)
    shape = field(7, field(1, varint(count)))
    with OpenedFile(write(tmp_path, "net.caffemodel", around(shape + records.tobytes()))) as file:
        found = read_stored(file).layers[0].blobs[0].read()
    assert found[-1] == np.float32(count - 1)
    assert (found[:1000] == np.arange(1000)).all()


def raw(model: Model) -> dict[str, bytes]:
    """Each tensor's bytes."""
    return {name: array.tobytes() for name, array in weights_of(model).items()}


def test_v1_is_v2_in_other_words(tmp_path: Path) -> None:
    """V1, binary alone and under a V1 text, gives the graph and the values that V2 gives."""
    new, old = both_versions()
    wanted = load(write(tmp_path, "new.caffemodel", new))
    alone = load(write(tmp_path, "old.caffemodel", old))
    described = load(write(tmp_path, "old.prototxt", files.text(old)), tmp_path / "new.caffemodel")
    graph = wanted.build_graph(frozenset())
    assert alone.build_graph(frozenset()) == described.build_graph(frozenset()) == graph
    assert raw(alone) == raw(described) == raw(wanted)


def test_every_v1_type_has_its_v2_name(tmp_path: Path) -> None:
    """docs/formats/caffe.md §1 lists the forty types."""
    wanted = [
        "None", "Accuracy", "BNLL", "Concat", "Convolution", "Data", "Dropout", "EuclideanLoss", "Flatten", "HDF5Data",
        "HDF5Output", "Im2col", "ImageData", "InfogainLoss", "InnerProduct", "LRN", "MultinomialLogisticLoss",
        "Pooling", "ReLU", "Sigmoid", "Softmax", "SoftmaxWithLoss", "Split", "TanH", "WindowData", "Eltwise", "Power",
        "SigmoidCrossEntropyLoss", "HingeLoss", "MemoryData", "ArgMax", "Threshold", "DummyData", "Slice", "MVN",
        "AbsVal", "Silence", "ContrastiveLoss", "Exp", "Deconvolution",
    ]  # fmt: skip
    content = b"".join(field(2, field(4, b"x") + b"\x28" + varint(number)) for number in range(40))
    with OpenedFile(write(tmp_path, "net.caffemodel", content)) as file:
        assert [item.type for item in read_stored(file).layers] == wanted


def refused(content: bytes, folder: Path, name: str = "net.caffemodel") -> MobileModelError:
    with pytest.raises(MobileModelError) as caught:
        load(write(folder, name, content))
    assert name in str(caught.value)
    return caught.value


def test_what_is_refused_by_name(tmp_path: Path) -> None:
    v0 = field(2, field(1, field(1, b"conv1") + field(2, b"conv")))
    assert "V0" in str(refused(v0, tmp_path))
    assert "layer 'conv1'" in str(refused(v0, tmp_path))
    text = b'layers { layer { name: "conv1" type: "conv" } bottom: "data" top: "conv1" }'
    assert "V0" in str(refused(text, tmp_path, "net.prototxt"))
    new, old = both_versions()
    both = refused(new.SerializeToString() + old.SerializeToString(), tmp_path)
    assert isinstance(both, MalformedSourceError)
    assert "two versions" in str(both)
    unknown = refused(field(2, field(4, b"odd") + b"\x28\x4d"), tmp_path)
    assert "layer 'odd'" in str(unknown)
    assert "found 77" in str(unknown)
    pool = refused(field(100, field(1, b"p") + field(2, b"Pooling") + field(121, b"\x08\x09")), tmp_path)
    assert "pool has a value that is not known" in str(pool)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b'layer { name: "a"\n  type: }', "line 2, column 9"),
        (b'layer {\n name: "a"\n pooling_param { pool: MEAN } }', "line 3"),
        (b'layer { name: "\xff" }', "not UTF-8"),
        (b'layer { name: "\\377" }', "line 1"),
        (b"layer { convolution_param { num_output: " + b"9" * 4000 + b"} }", "line 1"),
        (b"layer {\n" * 100_000, "nested too deep"),
        (b"layer { odd_param {\n" + b"deeper {\n" * 100_000, "nested too deep"),
        (b"# a comment\n" * 400_000, "at most 4194304 bytes"),
        (b"layer { name: 'a' " + b"odd: 1 " * 1000 + b"}", "line 1 of the text.*4096 characters"),
        (b"layer { }\n" * 65_536, "layers: expected at most 65535"),
    ],
)
def test_a_broken_text_is_located(content: bytes, said: str, tmp_path: Path) -> None:
    source = write(tmp_path, "net.prototxt", content)
    with pytest.raises((MalformedSourceError, LimitExceededError), match=said) as caught:
        load(source)
    assert str(source) in str(caught.value)
    assert len(str(caught.value)) < 1000


def test_a_text_with_fields_of_forks_and_blobs(tmp_path: Path) -> None:
    """Forks of Caffe add fields; a text may hold the weights too."""
    text = b"""
        # made by hand
        input: "data" input_shape { dim: 1 dim: 3 }
        layer { name: "ip" type: "InnerProduct" bottom: "data" top: "ip" new_in_fork { a: 1 b { c: "x" } d: [1, 2] }
          inner_product_param { num_output: 2 bias_term: false engine: CUDNN }
          blobs { shape { dim: 2 dim: 3 } data: [1.5, -2, 3.25, 0.001, 0, 7] } }
    """
    (found,) = weights_of(load(write(tmp_path, "net.prototxt", text))).values()
    assert found.tobytes() == VALUES.tobytes()


def test_either_order_and_what_is_missing(tmp_path: Path) -> None:
    """Roles are told by content; a prototxt alone has no weights."""
    made = small()
    weights = write(tmp_path, "a", made)
    topology = write(tmp_path, "b", files.text(made))
    first, second = load(weights, topology), load(topology, weights)
    assert [source.name for source in first.sources] == ["a", "b"]
    assert first.build_graph(frozenset()) == second.build_graph(frozenset())
    assert raw(first) == raw(second)
    for paths, said in (((topology,), "no weights"), ((topology, topology), "no weights"),
                        ((weights, weights), "both files hold weights")):  # fmt: skip
        with pytest.raises(UsageError, match=said):
            load(*paths)
    with pytest.raises(UsageError, match="3 files"):
        load(weights, weights, topology)


def with_inputs_first() -> bytes:
    """A network without a name, whose first fields are those of an ONNX model of a later layout, and a large layer."""
    made = net(layer("ip", "InnerProduct", "data", "ip", [files.values(64, 64)]), shape=(1, 64))
    made.ClearField("name")
    return bytes(made.SerializeToString())


RECOGNISED: dict[str, Callable[[], bytes]] = {
    "V2": lambda: both_versions()[0].SerializeToString(),
    "V1": lambda: both_versions()[1].SerializeToString(),
    "V0": lambda: field(2, field(1, field(1, b"conv1") + field(2, b"conv"))),
    "inputs first": with_inputs_first,
    "text": lambda: files.text(small()),
    "V1 text": lambda: files.text(both_versions()[1]),
    "comments first": lambda: b"# a licence { name: layer }\n" * 50 + files.text(small()),
    "colons": lambda: b"layer: < name: 'a' type: 'ReLU' >",
    "byte order mark": lambda: b"\xef\xbb\xbf" + files.text(small()),
}
FOREIGN: dict[str, Callable[[], bytes]] = {
    "empty": lambda: b"",
    "text": lambda: b"The name of each layer {of the cake} is its own.",
    "solver": lambda: b'net: "train_val.prototxt"\nbase_lr: 0.01\nnet_param { layer { name: "a" } }',
    "yaml": lambda: b"name: lenet\nlayers:\n  - type: conv\n",
    "json": lambda: b'{"name": "a", "layer": {"type": "x"}}',
    "sqlite": lambda: b"SQLite format 3\0" + bytes(4096),
    "png": lambda: b"\x89PNG\r\n\x1a\n" + bytes(100),
    "onnx": lambda: models.fc_ways()["MatMul, right"].model.SerializeToString(),
    "mean": lambda: blob(files.values(1, 3, 2, 2), legacy=True).SerializeToString(),
    "random": lambda: np.random.default_rng(0).bytes(5000),
    "zeros": lambda: bytes(5000),
}


@pytest.mark.parametrize("kind", RECOGNISED)
def test_content_tells_a_caffe_file(kind: str, tmp_path: Path) -> None:
    """Whatever it is called, and ONNX does not claim it."""
    path = write(tmp_path, "file", RECOGNISED[kind]())
    assert is_caffe(path)
    assert not OnnxConverter().sniff([path])
    assert find_converter([path]).name == "caffe"


@pytest.mark.parametrize("kind", FOREIGN)
def test_foreign_files_are_not_claimed(kind: str, tmp_path: Path) -> None:
    path = write(tmp_path, "file", FOREIGN[kind]())
    assert not is_caffe(path)
    topology = write(tmp_path, "net.prototxt", files.text(small()))
    assert not CaffeConverter().sniff([topology, path])


def test_bundles_and_folders_are_not_claimed(tmp_path: Path) -> None:
    source = write(tmp_path, "net.caffemodel", small())
    mm.convert(source, tmp_path / "out.mm")
    assert not is_caffe(tmp_path / "out.mm")
    assert not is_caffe(tmp_path)
    assert not is_caffe(tmp_path / "none")
    assert CaffeConverter().sniff([write(tmp_path, "net.prototxt", files.text(small())), source])
