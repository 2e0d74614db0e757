"""Hostile and broken input to every command: its own clear error and exit code, no traceback, no hang, no memory."""

from __future__ import annotations

import contextlib
import io
import json
import os
import resource
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from onnx import ModelProto, NodeProto, TensorProto, helper, numpy_helper

import mobilemodel as mm
from mobilemodel import cli
from mobilemodel.codecs import Family
from mobilemodel.container import framing
from mobilemodel.container.writer import Spool, write_container
from mobilemodel.encodings import dense
from mobilemodel.encodings.payloads import PayloadWriter
from mobilemodel.errors import CorruptError, MalformedError, UnsupportedError
from mobilemodel.pipeline import verify
from mobilemodel.v1 import bundle_pb2 as pb
from mobilemodel.wire import varint

from .conftest import DIGITS, Command, Outcome, listing, run_process

GIB = 1 << 30
MODEL = DIGITS / "model.onnx"
BundleMaker = Callable[..., bytes]


def quiet(*arguments: object) -> Outcome:
    """Run a command within this process; whatever is raised fails the test."""
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        code = cli.main([str(argument) for argument in arguments])
    return Outcome(code, out.getvalue(), err.getvalue())


def check_refused(found: Outcome, codes: tuple[int, ...]) -> None:
    """A refusal is one error on stderr, with its status."""
    assert found.code in codes, found
    assert found.err.startswith("mobilemodel: ")
    assert "]" in found.err.splitlines()[0]


# Damage to a whole bundle.


def test_the_small_bundle_is_what_these_tests_take_it_for(small_bundle: Path) -> None:
    assert 2000 <= small_bundle.stat().st_size <= 4096
    with mm.open(small_bundle) as bundle:
        assert {tensor.encoding for tensor in bundle.values()} == {"palette", "affine", "dense"}
    assert quiet("verify", small_bundle).code == 0


def test_truncated_at_every_length(small_bundle: Path, tmp_path: Path) -> None:
    whole = small_bundle.read_bytes()
    path = tmp_path / "cut.mm"
    for length in range(len(whole)):
        with pytest.raises(MalformedError):
            mm.open(whole[:length])
        if length % 16 == 0:
            path.write_bytes(whole[:length])
            check_refused(quiet("inspect", path), (3,))


def test_every_single_byte_changed(small_bundle: Path, tmp_path: Path) -> None:
    """Every byte of a bundle is covered by a checksum, a frame or the magic."""
    whole = small_bundle.read_bytes()
    path = tmp_path / "changed.mm"
    for position in range(len(whole)):
        changed = bytearray(whole)
        changed[position] ^= 1 << position % 8
        with pytest.raises((MalformedError, CorruptError, UnsupportedError)):
            verify(mm.open(changed))
        if position % 16 == 0:
            path.write_bytes(changed)
            check_refused(quiet("verify", path), (1, 3, 4))


def _resealed(whole: bytes, position: int, flipped: int) -> bytes:
    """The bundle with a byte of its manifest changed and the checksum made right again."""
    container = mm.parse_bundle(whole).container
    start = framing.head_size(container.manifest_size) - container.manifest_size
    manifest = bytearray(whole[start : start + container.manifest_size])
    manifest[position] ^= flipped
    crc = zlib.crc32(manifest).to_bytes(4, "little")
    return whole[:6] + crc + whole[10:start] + bytes(manifest) + whole[start + len(manifest) :]


def test_every_byte_of_the_manifest_changed_on_purpose(small_bundle: Path, tmp_path: Path) -> None:
    """An attacker makes the checksum right: every command still ends with an exit code, never a traceback."""
    whole = small_bundle.read_bytes()
    size = mm.parse_bundle(whole).container.manifest_size
    path = tmp_path / "forged.mm"
    codes = set()
    for position in range(size):
        path.write_bytes(_resealed(whole, position, (0x01, 0x80, 0x10, 0x7F, 0x04)[position % 5]))
        commands = [("inspect", path, "--json"), ("inspect", path, "fc1.w"), ("verify", path)]
        found = quiet(*commands[position % 3])
        assert found.code in (0, 1, 2, 3, 4)
        codes.add(found.code)
        if found.code == 0 and position % 3 != 2:
            quiet("inspect", path)
            quiet("export", path, tmp_path / f"out.{('onnx', 'npz', 'safetensors')[position % 3]}", "--force")
    assert {0, 3} <= codes


@pytest.mark.parametrize("position", [0, 7, 40, -1])
def test_damage_in_a_process_of_its_own(position: int, small_bundle: Path, tmp_path: Path) -> None:
    changed = bytearray(small_bundle.read_bytes())
    changed[position] ^= 0xFF
    path = tmp_path / "changed.mm"
    path.write_bytes(changed)
    found = run_process("verify", path)
    check_refused(found, (1, 3, 4))
    assert "changed.mm" in found.err
    assert found.out == ""


def test_a_damaged_payload_is_a_failed_check(small_bundle: Path, tmp_path: Path) -> None:
    changed = bytearray(small_bundle.read_bytes())
    changed[-1] ^= 1
    (tmp_path / "a.mm").write_bytes(changed)
    for command in (("verify", tmp_path / "a.mm"), ("export", tmp_path / "a.mm", tmp_path / "out.npz")):
        found = quiet(*command)
        if found.code:
            assert found.code == 1
            assert "PAYLOAD_CHECKSUM" in found.err
    assert quiet("verify", tmp_path / "a.mm").code == 1
    assert quiet("inspect", tmp_path / "a.mm").code == 0


# What is no bundle, and what is no file.


@pytest.fixture
def oddities(tmp_path: Path) -> dict[str, Path]:
    """Things that a path can lead to beside a regular file with content."""
    folder = tmp_path / "oddities"
    folder.mkdir()
    (folder / "folder.mm").mkdir()
    (folder / "empty.mm").touch()
    os.mkfifo(folder / "pipe.mm")
    (folder / "text.mm").write_text("a bundle, really\n" * 100)
    with (folder / "sparse.mm").open("wb") as file:
        file.truncate(3 * GIB)
    with (folder / "head.mm").open("wb") as file:
        file.write(framing.MAGIC + b"\x15" + bytes(4) + b"\x1a" + varint(2 * GIB))
        file.truncate(3 * GIB)
    paths = {path.stem: path for path in folder.iterdir()}
    return paths | {"missing": folder / "missing.mm", "zero": Path("/dev/zero"), "null": Path("/dev/null")}


BUNDLE_CODES = {
    "folder": 2, "missing": 2, "pipe": 2, "zero": 2, "null": 2, "empty": 3, "text": 3, "sparse": 3, "head": 4,
}  # fmt: skip


@pytest.mark.parametrize("kind", BUNDLE_CODES)
def test_no_bundle(kind: str, oddities: dict[str, Path], tmp_path: Path) -> None:
    path = oddities[kind]
    check_refused(quiet("inspect", path), (BUNDLE_CODES[kind],))
    check_refused(quiet("verify", path), (BUNDLE_CODES[kind],))
    check_refused(quiet("export", path, tmp_path / "out.onnx"), (BUNDLE_CODES[kind],))
    assert listing(tmp_path) == ["oddities"]


@pytest.mark.parametrize("kind", BUNDLE_CODES)
def test_no_model(kind: str, oddities: dict[str, Path], tmp_path: Path, small_bundle: Path) -> None:
    path = oddities[kind]
    check_refused(quiet("convert", path, tmp_path / "out.mm"), (2, 3))
    check_refused(quiet("convert", path, tmp_path / "out.mm", "--from", "onnx"), (2, 3, 4))
    check_refused(quiet("verify", small_bundle, "--against", path), (2, 3))
    assert listing(tmp_path) == ["oddities"]


@pytest.mark.parametrize("kind", [kind for kind in BUNDLE_CODES if kind != "text"])
@pytest.mark.parametrize("option", ["--labels", "--mean"])
def test_no_side_file(option: str, kind: str, oddities: dict[str, Path], tmp_path: Path) -> None:
    found = quiet("convert", MODEL, tmp_path / "out.mm", "--channels", "grey", option, oddities[kind])
    check_refused(found, (2, 4))
    assert option in found.err
    assert listing(tmp_path) == ["oddities"]


@pytest.mark.parametrize("kind", ["pipe", "sparse", "head"])
def test_quickly_and_within_memory(kind: str, oddities: dict[str, Path], tmp_path: Path) -> None:
    limits = {resource.RLIMIT_AS: GIB}
    check_refused(run_process("inspect", oddities[kind], limits=limits, timeout=20), (2, 3, 4))
    check_refused(run_process("convert", oddities[kind], tmp_path / "out.mm", limits=limits, timeout=20), (2, 3))


# Bundles that are well framed, and wrong or hostile inside.


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


def _model(nodes: list[NodeProto], weights: dict[str, Any]) -> ModelProto:
    value = helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 4])
    result = helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, 4])
    initializers = [numpy_helper.from_array(array, name) for name, array in weights.items()]
    graph = helper.make_graph(nodes, "g", [value], [result], initializers)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


WEIGHTS = {"w": np.eye(4, dtype=np.float32)}
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
    model = _model([helper.make_node(*node) for node in GRAPHS[fault]], WEIGHTS)
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
    good = _model([helper.make_node("MatMul", ["x", "w"], ["y"])], WEIGHTS)
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
    model = _model([helper.make_node("MatMul", ["x", "w"], ["y"])], WEIGHTS)
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
    model = _model([helper.make_node("MatMul", ["x", "w"], ["y"], name="n")], WEIGHTS)
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


# Models that are broken or hostile.


def test_a_model_cut_anywhere(small_model: Path, tmp_path: Path) -> None:
    whole = small_model.read_bytes()
    path = tmp_path / "cut.onnx"
    refused = 0
    for length in range(0, len(whole), 17):
        path.write_bytes(whole[:length])
        found = quiet("convert", path, tmp_path / "out.mm", "--from", "onnx", "--dry-run")
        assert found.code in (0, 2, 3, 4), found
        refused += found.code != 0
    assert refused >= len(whole) // 17 - 2
    assert listing(tmp_path) == ["cut.onnx"]


def test_a_model_changed_anywhere(small_model: Path, tmp_path: Path) -> None:
    whole = small_model.read_bytes()
    path = tmp_path / "changed.onnx"
    for position in range(0, len(whole), 13):
        changed = bytearray(whole)
        changed[position] ^= (0x01, 0x80, 0xFF, 0x10)[position % 4]
        path.write_bytes(changed)
        found = quiet("convert", path, tmp_path / "out.mm", "--from", "onnx", "--dry-run", "--scheme", "fp16")
        assert found.code in (0, 2, 3, 4), found
    assert listing(tmp_path) == ["changed.onnx"]


@pytest.mark.parametrize("dims", [[2**40], [2**31, 2**31, 2**31], [-1], [2**62, 4]])
def test_a_model_that_claims_more_than_it_has(dims: list[int], tmp_path: Path) -> None:
    model = _model([helper.make_node("MatMul", ["x", "w"], ["y"])], WEIGHTS)
    model.graph.initializer[0].dims[:] = dims
    (tmp_path / "a.onnx").write_bytes(model.SerializeToString())
    found = run_process("convert", tmp_path / "a.onnx", tmp_path / "out.mm", limits={resource.RLIMIT_AS: GIB})
    check_refused(found, (3, 4))
    assert "'w'" in found.err


def test_subgraphs_without_end(tmp_path: Path) -> None:
    def field(number: int, content: bytes) -> bytes:
        return varint(number << 3 | 2) + varint(len(content)) + content

    graph = b""
    for _ in range(2000):  # GraphProto.node, its attribute, and its graph
        graph = field(1, field(5, field(6, graph)))
    path = tmp_path / "deep.onnx"
    path.write_bytes(b"\x08\x08" + field(7, graph))
    check_refused(quiet("convert", path, tmp_path / "out.mm", "--from", "onnx"), (3,))


def test_a_mean_picture_that_claims_more_than_it_has(tmp_path: Path) -> None:
    path = tmp_path / "mean.npy"
    for shape in ("(100000, 100000, 1)", "(8, 8, -1)", "(8, 8)", "(8, 8, 1), " + "(" * 500, "[8, 8, 1]"):
        header = f"{{'descr': '<f4', 'fortran_order': False, 'shape': {shape}, }}".ljust(700) + "\n"
        path.write_bytes(b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header.encode() + bytes(256))
        found = run_process("convert", MODEL, tmp_path / "out.mm", "--channels", "grey", "--mean", path,
                            limits={resource.RLIMIT_AS: GIB})  # fmt: skip
        check_refused(found, (2,))
        assert "--mean" in found.err


def test_a_mean_picture_that_is_a_pickle(tmp_path: Path) -> None:
    np.save(tmp_path / "mean.npy", np.array([[["text"]]], object))
    found = quiet("convert", MODEL, tmp_path / "out.mm", "--channels", "grey", "--mean", tmp_path / "mean.npy")
    check_refused(found, (2,))


def test_memory_that_runs_out_is_said(call: Command, monkeypatch: pytest.MonkeyPatch, small_bundle: Path) -> None:
    def run_out(*_: object) -> None:
        raise MemoryError

    monkeypatch.setattr(mm, "open", run_out)
    found = call("inspect", small_bundle)
    assert (found.code, found.err) == (1, "mobilemodel: not enough memory\n")
