"""Transforms under test: ONNX models become Models and plain ONNX again, and ONNX Runtime says whether they agree."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
from onnx import ModelProto

from mobilemodel.model import WEIGHT_ROLES, Model, SourceTensor
from mobilemodel.runtime.session import random_inputs, run, session
from mobilemodel_converters import load_model
from mobilemodel_converters.onnx.build import restore

Array = npt.NDArray[Any]
Description = tuple[Any, ...]


def imported(made: ModelProto) -> Model:
    """The model as the importer understands it; what it reads later stays in memory."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.onnx"
        path.write_bytes(made.SerializeToString())
        return load_model([path])


def plain(model: Model, hoisted: frozenset[str] = frozenset()) -> ModelProto:
    """A Model with its weights back inside, those of the ``hoisted`` tensors through the graph's references."""
    tensors = {tensor.name: tensor for tensor in model.tensors}
    return restore(model.build_graph(hoisted), lambda name: tensors[name].read())


def outputs(made: ModelProto, inputs: Mapping[str, Array]) -> list[Array]:
    """What ONNX Runtime makes of a model."""
    return list(run(session(made.SerializeToString()), inputs).values())


def largest_difference(old: ModelProto, new: ModelProto, *, runs: int = 2, size: int = 3) -> float:
    """Between the outputs on random inputs, relative to the largest output where that is above 1."""
    found = 0.0
    for seed in range(runs):
        inputs = random_inputs(old.SerializeToString(), seed, batch=2, size=size)
        for a, b in zip(outputs(old, inputs), outputs(new, inputs), strict=True):
            assert a.shape == b.shape
            assert a.dtype == b.dtype
            np.testing.assert_array_equal(np.isfinite(a), np.isfinite(b))
            known = np.isfinite(a)
            if known.any():
                difference = np.abs(a[known].astype(np.float64) - b[known]).max()
                found = max(found, float(difference / max(1.0, np.abs(a[known]).max())))
    return found


def check_descriptions(model: Model) -> None:
    """Every tensor is described as the importer would describe it, and the graph is valid ONNX."""
    made = plain(model, frozenset(tensor.name for tensor in model.tensors if tensor.hoisted))
    _check_onnx(made)
    again = {tensor.name: tensor for tensor in imported(made).tensors}
    assert again.keys() == {tensor.name for tensor in model.tensors}
    for tensor in model.tensors:
        assert description(tensor) == description(again[tensor.name]), tensor.name
        assert len(tensor.read()) == tensor.raw_bytes
        assert bytes(tensor.read()) == bytes(again[tensor.name].read())
    _check_onnx(plain(model))


def _check_onnx(made: ModelProto) -> None:
    # onnx's checker wants the rank of each output, which ONNX Runtime does not need.
    for output in made.graph.output:
        output.type.tensor_type.shape.SetInParent()
    onnx.checker.check_model(made)


def description(tensor: SourceTensor) -> Description:
    """What schemes choose by."""
    rank = tensor.rank_in_role if tensor.role in WEIGHT_ROLES else None
    return (tensor.dtype, tensor.dims, tensor.role, tensor.operator, tensor.order, rank)


def operators(model: Model) -> list[str]:
    """The operators of the main graph, in order."""
    return [node.op_type for node in plain(model).graph.node]
