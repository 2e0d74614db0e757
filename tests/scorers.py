"""Small ONNX models from an input ``data`` to ``scores`` of classes, and data for them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
from onnx import ModelProto, TensorProto, helper, numpy_helper

from mobilemodel.runtime import Data
from mobilemodel.v1 import bundle_pb2 as pb

Floats = npt.NDArray[np.float32]


def model(
    nodes: list[Any],
    shape: list[Any],
    dtype: int = TensorProto.FLOAT,
    weights: dict[str, npt.NDArray[Any]] | None = None,
    output: int = TensorProto.FLOAT,
) -> ModelProto:
    """``nodes`` between an input ``data`` of this shape and type and the output ``scores``."""
    graph = helper.make_graph(
        nodes, "g", [helper.make_tensor_value_info("data", dtype, shape)],
        [helper.make_tensor_value_info("scores", output, None)],
        [numpy_helper.from_array(array, name) for name, array in (weights or {}).items()],
    )  # fmt: skip
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)])
    made.ir_version = 8
    return made


def same(shape: list[Any]) -> bytes:
    """The scores are the input."""
    return model([helper.make_node("Identity", ["data"], ["scores"])], shape).SerializeToString()


def linear(weights: npt.NDArray[Any], batch: Any = "n") -> bytes:
    """The scores are the input times a matrix."""
    nodes = [helper.make_node("MatMul", ["data", "w"], ["scores"])]
    return model(nodes, [batch, len(weights)], weights={"w": weights.astype(np.float32)}).SerializeToString()


def scored(rows: list[list[float]], classes: list[int]) -> Data:
    """Float32 data that go in as they are."""
    return Data(np.array(rows, np.float32), np.array(classes))


def with_step(step: pb.Preprocessing) -> Callable[[pb.Manifest], None]:
    """A change for ``make_bundle``: the manifest's preprocessing."""

    def change(manifest: pb.Manifest) -> None:
        manifest.preprocessing.add().CopyFrom(step)

    return change


MEANS = [helper.make_node("GlobalAveragePool", ["data"], ["scores"])]
"""the mean of each channel over the picture is its score"""
PICTURES = np.zeros((3, 4, 6, 3), np.uint8)
PICTURES[0, ..., 0] = PICTURES[1, ..., 1] = PICTURES[2, ..., 2] = 9
COLOURS = Data(PICTURES, np.array([0, 1, 2]))
"""a red, a green and a blue picture"""
