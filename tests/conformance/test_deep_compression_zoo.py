"""The real SqueezeNet of Deep Compression: its exact weights, a smaller file, and what it still recognises."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from onnx import ModelProto, numpy_helper

import mobilemodel as mm
from mobilemodel.errors import MalformedSourceError
from mobilemodel.pipeline import verify
from mobilemodel.runtime import evaluate, read_data

LARGEST, TOP1, NON_ZEROS = 590_000, 60.0, 415_921
FILES = ("SqueezeNet_deploy.prototxt", "compressed_SqueezeNet.net")


@pytest.fixture(scope="module")
def bundle(zoo: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("bundle") / "squeezenet.mm"
    step, _ = mm.PreprocessingOptions(mean="104,117,123", channels="bgr", resize="256x256", crop="227").message()
    mm.convert(sources(zoo), out, scheme="lossless", options=mm.ConvertOptions(preprocessing=step))
    return out


def sources(zoo: Path) -> list[Path]:
    return [zoo / "squeezenet-dc" / name for name in FILES]


def test_the_weights_are_those_of_the_decoded_network(bundle: Path, zoo: Path) -> None:
    """Every weight and bias, bit for bit, in the order of the layers."""
    graph = ModelProto.FromString((zoo / "squeezenet-dc" / "squeezenet.onnx").read_bytes()).graph
    values = {item.name: numpy_helper.to_array(item) for item in graph.initializer}
    expected = [node.input[1:] for node in graph.node if node.op_type == "Conv"]
    assert len(expected) == 26
    non_zeros = 0
    with mm.open(bundle) as opened:
        ours = ModelProto.FromString(opened.graph() or b"").graph
        found = [node.input[1:] for node in ours.node if node.op_type == "Conv"]
        for names, wanted in zip(found, expected, strict=True):
            for name, other in zip(names, wanted, strict=True):
                assert opened[name].shape == values[other].shape
                assert opened[name].numpy().tobytes() == values[other].tobytes()
            assert opened[names[0]].encoding == "palette"
            non_zeros += int(np.count_nonzero(opened[names[0]].indices()))
    assert non_zeros == NON_ZEROS


def test_the_file_is_smaller_than_its_source(bundle: Path, zoo: Path) -> None:
    """The .net file has 675,763 bytes."""
    assert bundle.stat().st_size <= LARGEST < sources(zoo)[1].stat().st_size


def test_the_bundle_is_the_source(bundle: Path, zoo: Path) -> None:
    found = verify(bundle, sources(zoo))
    assert found.lossless
    assert [output.largest_absolute for output in found.outputs] == [0.0]


def test_what_it_recognises(bundle: Path, zoo: Path) -> None:
    """docs/formats/deep_compression.md §5: 65.5 % of 1000 photographs, warped to 256 x 256 and cropped. (Here of every
    other one of 400; of all 400 it is 66.25 %.)"""
    found = evaluate(bundle, read_data(zoo / "imagenet-sample"))
    assert found.top1 >= TOP1


def test_a_cut_file_is_refused(zoo: Path, tmp_path: Path) -> None:
    topology, values = sources(zoo)
    (tmp_path / "cut.net").write_bytes(values.read_bytes()[:-1])
    with pytest.raises(MalformedSourceError, match="expected 675763 bytes, found 675762 bytes"):
        mm.convert([topology, tmp_path / "cut.net"], tmp_path / "out.mm")
