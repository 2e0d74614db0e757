"""Values of an ONNX model in other files: taken in where they are the model's own, refused where they are not."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import ModelProto, TensorProto, helper

import mobilemodel as mm
from mobilemodel.errors import LimitExceededError, MalformedSourceError, UnsupportedSourceError, UsageError
from mobilemodel_converters.onnx import structure
from tests import models
from tests.conversions import attempt, convert, exported, outside
from tests.models import W, tensor, value


def external(folder: Path, location: str = "weights.bin", **changes: str) -> ModelProto:
    """The weight as external data, 64 bytes into a file."""
    made = models.fc_ways()["MatMul, right"].model
    proto = made.graph.initializer[0]
    raw = proto.raw_data
    proto.ClearField("raw_data")
    proto.data_location = TensorProto.EXTERNAL
    for key, text in ({"location": location, "offset": "64", "length": str(len(raw))} | changes).items():
        proto.external_data.add(key=key, value=text)
    target = folder / location
    target.parent.mkdir(exist_ok=True)
    target.write_bytes(bytes(64) + raw + b"more")
    return made


@pytest.mark.parametrize("location", ["weights.bin", "sub/weights.bin", "./weights.bin", "mobilemodel"])
@pytest.mark.parametrize("scheme", ["lossless", "kmeans-4"])
def test_external_data(location: str, scheme: str, tmp_path: Path) -> None:
    made = external(tmp_path, location)
    convert(made, tmp_path, scheme)
    with mm.open(tmp_path / "out.mm") as bundle:
        assert np.array_equal(bundle["w"].numpy(), W.T)
        assert [source.file_name for source in bundle.manifest.sources] == ["model.onnx", Path(location).name]
    assert exported(tmp_path).graph.initializer[0].raw_data == W.T.tobytes()


@pytest.mark.parametrize("location", ["weights.bin", "mobilemodel"])
def test_external_data_that_stay_in_the_graph_are_taken_in(location: str, tmp_path: Path) -> None:
    """Also where a source calls its file as a bundle's graph calls the bundle."""
    made = external(tmp_path, location)
    made.graph.node.append(helper.make_node("Identity", ["w"], ["z"]))
    made.graph.output.append(value("z"))
    assert convert(made, tmp_path, "kmeans-4")["w"].encoding == "graph"
    proto = exported(tmp_path).graph.initializer[0]
    assert (proto.raw_data, len(proto.external_data)) == (W.T.tobytes(), 0)


def test_external_data_in_attributes_and_sparse_tensors_are_taken_in(tmp_path: Path) -> None:
    made = external(tmp_path)
    outside = TensorProto()
    outside.CopyFrom(made.graph.initializer[0])
    made.graph.node.append(helper.make_node("Constant", [], ["c"], value=outside))
    values = TensorProto(name="s", data_type=1, dims=[2], data_location=TensorProto.EXTERNAL)
    values.external_data.add(key="location", value="weights.bin")
    made.graph.sparse_initializer.append(helper.make_sparse_tensor(values, tensor("", np.array([1, 2])), [8]))
    convert(made, tmp_path)
    assert not [item for item in structure.all_tensors(exported(tmp_path)) if item.data_location]


def test_models_saved_by_onnx_with_external_data(tmp_path: Path) -> None:
    made = models.alexnet()
    weights = {item.name: item.raw_data for item in made.graph.initializer}
    onnx.save_model(made, tmp_path / "model.onnx", save_as_external_data=True, size_threshold=0, location="all.data")
    mm.convert(tmp_path / "model.onnx", tmp_path / "out.mm", scheme="lossless")
    with mm.open(tmp_path / "out.mm") as bundle:
        assert {name: bytes(item.raw()) for name, item in bundle.items()} == weights


def test_values_too_large_for_a_graph_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from mobilemodel_converters.onnx import build

    made = external(tmp_path)
    made.graph.output.append(value("w"))
    monkeypatch.setattr(build, "FORMAT_LIMITS", mm.Limits(graph=100))
    with pytest.raises(LimitExceededError, match="values that stay in the graph"):
        convert(made, tmp_path)


# --- hostile ---


@pytest.fixture
def sandbox(tmp_path: Path) -> Path:
    """A model's folder, with ways out of it: links to a file and a folder outside, a loop, a pipe and a directory."""
    folder = tmp_path / "model"
    (folder / "sub").mkdir(parents=True)
    (tmp_path / "secret.bin").write_bytes(bytes(4096))
    (folder / "link.bin").symlink_to(tmp_path / "secret.bin")
    (folder / "linked").symlink_to(tmp_path)
    (folder / "loop").symlink_to("loop")
    (folder / "zero").symlink_to("/dev/zero")
    (folder / "good.bin").write_bytes(bytes(960))
    (folder / "inner.bin").symlink_to("good.bin")
    os.mkfifo(folder / "pipe")
    return folder


@pytest.mark.parametrize(
    "location",
    ["/etc/hostname", "../secret.bin", "sub/../../secret.bin", "link.bin", "linked/secret.bin", "zero", "/dev/zero",
     "", "a\0b", "C:\\windows\\win.ini", "\\\\host\\share", "\\secret"],
)  # fmt: skip
def test_external_data_outside_of_the_folder_are_refused(location: str, sandbox: Path) -> None:
    assert isinstance(attempt(outside(location), sandbox), UnsupportedSourceError)


@pytest.mark.parametrize(
    "location", ["missing.bin", "sub", "pipe", "loop", ".", "good.bin/x", "n" * 100_000, "\x1b[2J"]
)
def test_external_data_that_are_no_file_are_refused(location: str, sandbox: Path) -> None:
    assert isinstance(attempt(outside(location), sandbox), MalformedSourceError)


def test_links_within_the_folder_are_fine(sandbox: Path) -> None:
    for location in ("good.bin", "inner.bin", "sub/../good.bin"):
        assert attempt(outside(location), sandbox) is None


@pytest.mark.parametrize(
    ("offset", "length", "dims"),
    [
        ("1", "960", (20, 12)), ("-1", "960", (20, 12)), ("9" * 5000, "960", (20, 12)), ("0x0", "960", (20, 12)),
        ("18446744073709551615", "960", (20, 12)), ("0", "-960", (20, 12)), ("0", "961", (20, 12)),
        ("0", "959", (20, 12)), ("0", "", (20, 12)), ("", "960", (20, 12)), ("0", "٩٦٠", (20, 12)),
        ("0", None, (21, 12)), ("0", None, (2**20, 2**19)), ("0", str(2**41), (2**20, 2**19)), ("961", "0", (0, 12)),
    ],
)  # fmt: skip
def test_external_data_that_do_not_fit_are_refused(
    offset: str, length: str | None, dims: tuple[int, ...], sandbox: Path
) -> None:
    assert isinstance(attempt(outside("good.bin", offset, length, dims), sandbox), MalformedSourceError)


def test_a_file_that_values_are_read_from_is_no_output(tmp_path: Path) -> None:
    """--force replaces what is at the output's place, but never the model itself."""
    (tmp_path / "model.onnx").write_bytes(external(tmp_path).SerializeToString())
    before = (tmp_path / "weights.bin").read_bytes()
    with pytest.raises(UsageError, match="the output is the source"):
        mm.convert(tmp_path / "model.onnx", tmp_path / "weights.bin", options=mm.ConvertOptions(force=True))
    assert (tmp_path / "weights.bin").read_bytes() == before
