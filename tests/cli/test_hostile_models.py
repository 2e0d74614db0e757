"""Models and mean pictures that are broken or hostile: a clear error and exit code, and bounded memory."""

from __future__ import annotations

import resource
from pathlib import Path

import numpy as np
import pytest
from onnx import helper

import mobilemodel as mm
from mobilemodel.wire import varint

from .conftest import DIGITS, GIB, WEIGHTS, Command, check_refused, listing, model_of, quiet, run_process

MODEL = DIGITS / "model.onnx"


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
    model = model_of([helper.make_node("MatMul", ["x", "w"], ["y"])], WEIGHTS)
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
