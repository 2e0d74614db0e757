"""Running the command line: as a process of its own, and within this one."""

from __future__ import annotations

import contextlib
import io
import os
import resource
import subprocess
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import ModelProto, NodeProto, TensorProto, helper, numpy_helper

from mobilemodel import cli

ROOT = Path(__file__).resolve().parents[2]
DIGITS = ROOT / "examples" / "digits"
GIB = 1 << 30
WEIGHTS = {"w": np.eye(4, dtype=np.float32)}


@dataclass(frozen=True)
class Outcome:
    """What a command left: its exit code and what it said."""

    code: int
    out: str
    err: str


Command = Callable[..., Outcome]
BundleMaker = Callable[..., bytes]


def environment(**more: str) -> dict[str, str]:
    """The variables of a subprocess: this checkout, one thread, buffered streams."""
    wanted = {name: value for name, value in os.environ.items() if name != "PYTHONUNBUFFERED"}
    paths = os.pathsep.join([str(ROOT), str(ROOT / "converters")])
    return wanted | {"PYTHONPATH": paths, "OPENBLAS_NUM_THREADS": "1", "PYTHONDONTWRITEBYTECODE": "1"} | more


def run_process(
    *arguments: object,
    limits: Mapping[int, int] | None = None,
    variables: Mapping[str, str] | None = None,
    command: tuple[str, ...] = ("-m", "mobilemodel"),
    timeout: float = 60,
) -> Outcome:
    """Run a command as a process; ``limits`` are rlimits such as ``{resource.RLIMIT_AS: bytes}``."""

    def restrict() -> None:
        for kind, bound in (limits or {}).items():
            resource.setrlimit(kind, (bound, bound))

    found = subprocess.run(
        [sys.executable, *command, *map(str, arguments)], capture_output=True, text=True, timeout=timeout, check=False,
        env=environment(**(variables or {})), preexec_fn=restrict if limits else None, stdin=subprocess.DEVNULL,
    )  # fmt: skip
    assert "Traceback" not in found.stderr, found.stderr
    return Outcome(found.returncode, found.stdout, found.stderr)


@pytest.fixture
def call(capsys: pytest.CaptureFixture[str]) -> Command:
    """Run a command within this process."""

    def run(*arguments: object) -> Outcome:
        capsys.readouterr()
        try:
            code = cli.main([str(argument) for argument in arguments])
        except SystemExit as stop:  # argparse has refused, or has shown its help
            code = stop.code if isinstance(stop.code, int) else 0
        captured = capsys.readouterr()
        return Outcome(code, captured.out, captured.err)

    return run


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


def listing(folder: Path) -> list[str]:
    """Everything in a folder, hidden files too."""
    return sorted(os.listdir(folder))


def model_of(nodes: list[NodeProto], weights: dict[str, Any]) -> ModelProto:
    """These nodes and weights between an input ``x`` and an output ``y`` of 1 by 4."""
    value = helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 4])
    result = helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, 4])
    initializers = [numpy_helper.from_array(array, name) for name, array in weights.items()]
    graph = helper.make_graph(nodes, "g", [value], [result], initializers)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


@pytest.fixture(scope="session")
def digits_bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The example converted by Klaus's mix, with its preprocessing and labels."""
    out = tmp_path_factory.mktemp("digits") / "digits.mm"
    prepared = ["--mean", "120", "--scale", "0.015625", "--channels", "grey", "--labels", DIGITS / "labels.txt"]
    found = run_process("convert", DIGITS / "model.onnx", out, "--scheme", "mixed-4-8", *prepared)
    assert found.code == 0, found.err
    return out


@pytest.fixture(scope="session")
def small_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A network of a convolution and two FC layers whose bundle has between 2 and 4 KB."""
    generator = np.random.default_rng(5)
    shapes = {"conv.w": (4, 1, 3, 3), "fc1.w": (24, 16), "fc1.b": (16,), "fc2.w": (16, 10)}
    values = {name: generator.normal(0, 0.3, shape).astype(np.float32) for name, shape in shapes.items()}
    nodes = [
        helper.make_node("Conv", ["x", "conv.w"], ["c"], kernel_shape=[3, 3]),
        helper.make_node("Reshape", ["c", "shape"], ["r"]),
        helper.make_node("Gemm", ["r", "fc1.w", "fc1.b"], ["h"]),
        helper.make_node("Relu", ["h"], ["a"]),
        helper.make_node("MatMul", ["a", "fc2.w"], ["y"]),
    ]
    inputs = [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", 1, 4, 5])]
    outputs = [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["N", 10])]
    weights = [numpy_helper.from_array(value, name) for name, value in values.items()]
    weights.append(numpy_helper.from_array(np.array([-1, 24], np.int64), "shape"))
    graph = helper.make_graph(nodes, "small", inputs, outputs, weights)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    path = tmp_path_factory.mktemp("small") / "small.onnx"
    onnx.save(model, path)
    return path


@pytest.fixture(scope="session")
def small_bundle(small_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """``small_model`` as a bundle: palettes, affine codes, dense tensors, labels, preprocessing, a mean picture."""
    folder = tmp_path_factory.mktemp("bundle")
    plan = folder / "plan.toml"
    plan.write_text('scheme = "mixed-4-8"\n[operator.Conv]\nencoding = "affine"\n')
    np.save(folder / "mean.npy", np.full((4, 5, 1), 100, np.float32))
    (folder / "labels.txt").write_text("".join(f"class {n}\n" for n in range(10)))
    out = folder / "small.mm"
    arguments = ["convert", small_model, out, "--scheme", plan, "--mean", folder / "mean.npy", "--channels", "grey"]
    code = cli.main([*map(str, arguments), "--labels", str(folder / "labels.txt"), "--crop", "4x5"])
    assert code == 0
    return out
