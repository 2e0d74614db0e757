"""The models of the onnx wheel's ``backend/test/data`` go through ``lossless`` and back without changing one bit."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import ModelProto, TensorProto, numpy_helper

import mobilemodel as mm
from mobilemodel.errors import CheckFailedError, UnsupportedSourceError
from mobilemodel.runtime import random_inputs, run, session

FOLDER = Path(onnx.__file__).parent / "backend" / "test" / "data"
MODELS = sorted(path.relative_to(FOLDER).as_posix() for path in FOLDER.rglob("*.onnx"))
RANDOM = frozenset((
    "Bernoulli", "Multinomial", "RandomNormal", "RandomNormalLike", "RandomUniform", "RandomUniformLike",
))  # fmt: skip
EXCLUDED: frozenset[str] = frozenset()
"""models with a random operator without a seed, by name: 1.23.2 has none"""
LEAST_RUNNING = 109
"""of the 149 models of onnx 1.23.2; the others need operators that ONNX Runtime lacks, or the locale en_US"""

Array = np.ndarray[Any, Any]
Inputs = dict[str, Array]


def has_unseeded_random(model: ModelProto) -> bool:
    return any(n.op_type in RANDOM and not any(a.name == "seed" for a in n.attribute) for n in model.graph.node)


def recorded_inputs(path: Path, model: ModelProto) -> list[Inputs]:
    """The inputs of the wheel's own data sets; a set with other things than tensors is left out."""
    initializers = {item.name for item in model.graph.initializer}
    names = [item.name for item in model.graph.input if item.name not in initializers]
    found = []
    for folder in sorted(path.parent.glob("test_data_set_*")):
        values = [TensorProto.FromString((folder / f"input_{i}.pb").read_bytes()) for i in range(len(names))]
        if all(value.data_type for value in values):
            arrays = [numpy_helper.to_array(value) for value in values]
            found.append(dict(zip(names, arrays, strict=True)))
    return found


def candidates(path: Path, model: ModelProto) -> list[Inputs]:
    """The recorded inputs; else random ones, with indices that fit any table in a second try."""
    found = recorded_inputs(path, model)
    if found:
        return found
    try:
        drawn = random_inputs(model.SerializeToString(), 0)
    except UnsupportedSourceError:
        return []
    return [drawn, {name: value % 2 if value.dtype.kind in "iu" else value for name, value in drawn.items()}]


def runnable(path: Path) -> tuple[Inputs, Inputs] | str:
    """Inputs and outputs of the source in ONNX Runtime; why not, where it refuses."""
    raw = path.read_bytes()
    model = ModelProto.FromString(raw)
    reason = "no inputs"
    for inputs in candidates(path, model):
        try:
            return inputs, run(session(raw), inputs)
        except (UnsupportedSourceError, CheckFailedError) as error:
            reason = str(error)
    return reason


def same(a: Inputs, b: Inputs) -> bool:
    """The same outputs bit for bit; strings by value."""
    return a.keys() == b.keys() and all(
        a[name].dtype == b[name].dtype
        and a[name].shape == b[name].shape
        and (np.array_equal(a[name], b[name]) if a[name].dtype == object else a[name].tobytes() == b[name].tobytes())
        for name in a
    )


@cache
def outcomes(folder: Path) -> dict[str, str]:
    """By model: ``same``, ``different`` and where, or ``refused`` and ONNX Runtime's reason for the source."""
    found = {}
    for name in MODELS:
        if name in EXCLUDED:
            continue
        ran = runnable(FOLDER / name)
        if isinstance(ran, str):
            found[name] = f"refused: {ran}"
            continue
        inputs, expected = ran
        mm.convert(FOLDER / name, folder / "out.mm", scheme="lossless", options=mm.ConvertOptions(force=True))
        with mm.open(folder / "out.mm") as bundle:
            mm.export(bundle, folder / "back.onnx", force=True)
            outputs = run(session(bundle), inputs)
        exported = run(session(folder / "back.onnx"), inputs)
        found[name] = "same" if same(expected, outputs) and same(expected, exported) else "different"
    return found


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    return outcomes(tmp_path_factory.mktemp("backend"))


def test_every_model_that_runs_gives_the_same_bits(results: dict[str, str]) -> None:
    assert [name for name, outcome in results.items() if outcome == "different"] == []


def test_enough_models_run(results: dict[str, str]) -> None:
    running = sum(outcome == "same" for outcome in results.values())
    refused = [f"{name}: {outcome[:160]}" for name, outcome in results.items() if outcome.startswith("refused")]
    print(f"{running} of {len(MODELS)} models run", *refused, sep="\n")
    assert running >= LEAST_RUNNING, "\n".join(refused)
    assert len(MODELS) >= 149


def test_the_models_that_do_not_run_convert_too(results: dict[str, str], tmp_path: Path) -> None:
    """ONNX Runtime's operators are no limit of ours: every value comes back in the exported model."""
    for name, outcome in results.items():
        if outcome == "same":
            continue
        mm.convert(FOLDER / name, tmp_path / "out.mm", scheme="lossless", options=mm.ConvertOptions(force=True))
        with mm.open(tmp_path / "out.mm") as bundle:
            mm.export(bundle, tmp_path / "back.onnx", force=True)
        source, back = (ModelProto.FromString(path.read_bytes()) for path in (FOLDER / name, tmp_path / "back.onnx"))
        assert [numpy_helper.to_array(item).tobytes() for item in source.graph.initializer] == [
            numpy_helper.to_array(item).tobytes() for item in back.graph.initializer
        ]


def test_the_excluded_are_those_with_a_random_operator_without_a_seed() -> None:
    unseeded = {name for name in MODELS if has_unseeded_random(ModelProto.FromString((FOLDER / name).read_bytes()))}
    assert unseeded == EXCLUDED
