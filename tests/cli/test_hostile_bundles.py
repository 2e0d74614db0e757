"""Bundles that are well framed, and wrong or hostile inside: a clear error and exit code, and bounded memory."""

from __future__ import annotations

import contextlib
import json
import resource
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from onnx import TensorProto, helper

from mobilemodel.codecs import Family
from mobilemodel.container.writer import Spool, write_container
from mobilemodel.encodings import dense
from mobilemodel.encodings.payloads import PayloadWriter
from mobilemodel.v1 import bundle_pb2 as pb

from .conftest import GIB, WEIGHTS, BundleMaker, listing, model_of, quiet, run_process


def _bundle(path: Path, change: Callable[[pb.Manifest, PayloadWriter, Spool], None]) -> Path:
    """A bundle with no tensors but those that ``change`` adds."""
    manifest = pb.Manifest(spec_major=1, spec_minor=0)
    with contextlib.closing(Spool()) as spool, path.open("wb") as out:
        writer = PayloadWriter(spool, Family.FULL)
        change(manifest, writer, spool)
        writer.flush()
        write_container(out, manifest, spool)
    return path


def _add_tensor(manifest: pb.Manifest, writer: PayloadWriter, name: str) -> pb.Tensor:
    tensor = manifest.tensors.add(name=name, dtype=1, dims=[4])
    dense.encode(writer, tensor.dense, np.arange(4, dtype="<f4").tobytes(), 1, 4)
    return tensor


def test_a_later_major_version(tmp_path: Path) -> None:
    path = _bundle(tmp_path / "a.mm", lambda manifest, writer, spool: setattr(manifest, "spec_major", 2))
    for command in (("inspect", path), ("verify", path), ("export", path, tmp_path / "out.onnx")):
        found = quiet(*command)
        assert found.code == 4
        assert "UNSUPPORTED_VERSION" in found.err
        assert "newer mobilemodel" in found.err


def test_an_unknown_feature_of_the_file(tmp_path: Path) -> None:
    path = _bundle(tmp_path / "a.mm", lambda manifest, writer, spool: manifest.required_features.append("tea\x1b[2J"))
    for command in (("inspect", path), ("verify", path)):
        found = quiet(*command)
        assert found.code == 4
        assert "tea\\x1b[2J" in found.err
        assert "\x1b" not in found.err


def test_an_unknown_feature_of_one_tensor(tmp_path: Path) -> None:
    def change(manifest: pb.Manifest, writer: PayloadWriter, spool: Spool) -> None:
        _add_tensor(manifest, writer, "good")
        _add_tensor(manifest, writer, "later").required_features.append("tea")

    path = _bundle(tmp_path / "a.mm", change)
    listed = quiet("inspect", path)
    assert listed.code == 0
    assert "UNSUPPORTED_FEATURE" in listed.out
    assert "1 of them cannot be decoded" in listed.out
    rows = {row["name"]: row for row in json.loads(quiet("inspect", path, "--json").out)["tensors"]}
    assert rows["later"]["status"] == "UNSUPPORTED_FEATURE"
    assert rows["good"]["status"] == "OK"
    assert quiet("inspect", path, "later").code == 0
    for command in (("verify", path), ("export", path, tmp_path / "out.npz")):
        found = quiet(*command)
        assert found.code == 4
        assert "tensor 'later'" in found.err


HOSTILE = {
    "escape": "\x1b[2J\x1b]0;owned\x07", "newline": "a\nfc6.weight  1x1", "climb": "../../x", "root": "/etc/x",
    "drive": "C:x", "backslash": "..\\..\\x", "right to left": "a\u202egnp.exe", "long": "n" * 1024,
}  # fmt: skip


@pytest.mark.parametrize("kind", HOSTILE)
def test_hostile_names(kind: str, tmp_path: Path) -> None:
    def change(manifest: pb.Manifest, writer: PayloadWriter, spool: Spool) -> None:
        _add_tensor(manifest, writer, HOSTILE[kind])
        manifest.producer = manifest.description = "\x1b[31mred\r\n"
        manifest.inputs.add(name="\x1b[2J", dtype=1).shape.dimensions.add(symbol="\x1b[1m")

    path = _bundle(tmp_path / "a.mm", change)
    rows = 9  # the head, its four lines, a blank, the header, a row, ... and a name of its own line
    for command in (("inspect", path), ("verify", path), ("inspect", path, HOSTILE[kind])):
        found = quiet(*command)
        assert found.code == 0
        text = found.out + found.err
        assert all(character.isprintable() or character == "\n" for character in text)
        assert len(found.out.splitlines()) <= rows + 20
    assert "\nfc6.weight" not in quiet("inspect", path).out
    json.loads(quiet("inspect", path, "--json").out)
    archive = quiet("export", path, tmp_path / "out.npz")
    if kind in ("climb", "root", "drive", "backslash"):
        assert archive.code == 4
        assert "would leave the folder" in archive.err
        assert listing(tmp_path) == ["a.mm"]
    else:
        assert archive.code == 0
        assert zipfile.ZipFile(tmp_path / "out.npz").namelist() == [f"{HOSTILE[kind]}.npy"]


def _zlib_bomb(size: int) -> bytes:
    packer = zlib.compressobj(9)
    return b"".join(packer.compress(bytes(1 << 20)) for _ in range(size >> 20)) + packer.flush()


@pytest.mark.parametrize("field", ["graph", "labels", "report"])
@pytest.mark.parametrize("codec", [pb.CODEC_ZLIB, pb.CODEC_ZSTD])
def test_a_payload_that_blows_up(field: str, codec: int, tmp_path: Path) -> None:
    """1.9 GB of zeros in a payload that does not say so, or says so: nothing near it is allocated."""
    import zstandard

    bomb = _zlib_bomb(256 << 20) if codec == pb.CODEC_ZLIB else zstandard.compress(bytes(64 << 20))
    for raw_size in (100, (1 << 31) - 1):

        def change(manifest: pb.Manifest, writer: PayloadWriter, spool: Spool, raw_size: int = raw_size) -> None:
            setattr(manifest, field, spool.add(bomb, codec, raw_size))

        path = _bundle(tmp_path / "bomb.mm", change)
        for command in (("verify", path), ("export", path, tmp_path / "out.onnx")):
            if command[0] == "export" and field != "graph":
                continue
            found = run_process(*command, limits={resource.RLIMIT_AS: GIB})
            assert found.code in (1, 3, 4)
            assert found.err.startswith("mobilemodel: ")
    assert listing(tmp_path) == ["bomb.mm"]


# Graphs that make no sense or are hostile.


GRAPHS = {
    "a cycle": [
        ("MatMul", ["x", "w"], ["a"]), ("Add", ["a", "c"], ["b"]), ("Relu", ["b"], ["c"]), ("Relu", ["c"], ["y"]),
    ],
    "nothing defines": [("MatMul", ["x", "w"], ["a"]), ("Add", ["a", "ghost"], ["y"])],
    "two definitions": [("MatMul", ["x", "w"], ["y"]), ("Relu", ["x"], ["y"])],
    "output of the graph": [("MatMul", ["x", "w"], ["a"])],
}  # fmt: skip


@pytest.mark.parametrize("fault", GRAPHS)
def test_a_graph_that_makes_no_sense(fault: str, tmp_path: Path, make_bundle: BundleMaker) -> None:
    model = model_of([helper.make_node(*node) for node in GRAPHS[fault]], WEIGHTS)
    (tmp_path / "a.mm").write_bytes(make_bundle(model, ["w"]))
    (tmp_path / "a.onnx").write_bytes(model.SerializeToString())
    for command in (("verify", "a.mm"), ("export", "a.mm", "out.onnx"), ("convert", "a.onnx", "out.mm")):
        found = quiet(command[0], *(tmp_path / name for name in command[1:]))
        assert found.code == 3, command
        assert fault in found.err
        assert str(tmp_path) in found.err
    assert quiet("inspect", tmp_path / "a.mm").code == 0
    assert listing(tmp_path) == ["a.mm", "a.onnx"]


def test_a_graph_that_refers_to_a_tensor_that_is_not_there(tmp_path: Path, make_bundle: BundleMaker) -> None:
    good = model_of([helper.make_node("MatMul", ["x", "w"], ["y"])], WEIGHTS)
    path = tmp_path / "a.mm"

    def rename(manifest: pb.Manifest) -> None:
        manifest.tensors[0].name = "v"

    def reshape(manifest: pb.Manifest) -> None:
        manifest.tensors[0].dims[:] = [2, 8]

    for change in (rename, reshape):
        path.write_bytes(make_bundle(good, ["w"], change))
        found = quiet("verify", path)
        assert found.code == 3
        assert "tensor 'w'" in found.err
    path.write_bytes(make_bundle(good, ["w"], rename))
    assert quiet("export", path, tmp_path / "out.onnx").code == 3
    assert listing(tmp_path) == ["a.mm"]


def test_a_graph_that_reaches_for_another_file(tmp_path: Path, make_bundle: BundleMaker) -> None:
    model = model_of([helper.make_node("MatMul", ["x", "w"], ["y"])], WEIGHTS)
    proto = model.graph.initializer[0]
    proto.ClearField("raw_data")
    proto.data_location = TensorProto.EXTERNAL
    proto.external_data.add(key="location", value="../../etc/passwd")
    (tmp_path / "a.mm").write_bytes(make_bundle(model, []))
    (tmp_path / "a.onnx").write_bytes(model.SerializeToString())
    assert quiet("verify", tmp_path / "a.mm").code == 3
    assert quiet("export", tmp_path / "a.mm", tmp_path / "out.onnx").code == 3
    assert quiet("convert", tmp_path / "a.onnx", tmp_path / "out.mm").code in (3, 4)


def test_a_graph_with_any_byte_changed_on_purpose(tmp_path: Path) -> None:
    """The payloads' checksums are right: what is left is a parser's and the checks' work."""
    model = model_of([helper.make_node("MatMul", ["x", "w"], ["y"], name="n")], WEIGHTS)
    reference = model.graph.initializer[0]
    reference.ClearField("raw_data")
    reference.data_location = TensorProto.EXTERNAL
    for key, value in (("location", "mobilemodel"), ("offset", "0"), ("length", "64")):
        reference.external_data.add(key=key, value=value)
    graph = model.SerializeToString()
    for position in range(len(graph)):
        changed = bytearray(graph)
        changed[position] ^= (0x01, 0x80, 0xFF, 0x08)[position % 4]

        def change(manifest: pb.Manifest, writer: PayloadWriter, spool: Spool, graph: bytes = bytes(changed)) -> None:
            tensor = manifest.tensors.add(name="w", dtype=1, dims=[4, 4])
            dense.encode(writer, tensor.dense, WEIGHTS["w"].tobytes(), 1, 16)
            manifest.graph = writer.add_bytes(graph)

        path = _bundle(tmp_path / "a.mm", change)
        assert quiet("verify", path).code in (0, 3, 4)
        assert quiet("export", path, tmp_path / "out.onnx", "--force").code in (0, 3, 4)
