"""Small networks and data to calibrate with: pictures of noisy classes, and layers of every kind that data can see."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from onnx import ModelProto

from mobilemodel.calibration.calibrate import Quantized, model_weights
from mobilemodel.calibration.layers import Layer, find_layers
from mobilemodel.calibration.samples import Samples
from mobilemodel.calibration.segments import Graph, read_graph
from mobilemodel.calibration.walk import Walk
from mobilemodel.model import Model, QuantizedValue
from mobilemodel.quantize.response import Float32, Response
from mobilemodel.runtime.data import Data
from mobilemodel.runtime.session import parse_model, run, session
from mobilemodel.v1 import bundle_pb2 as pb
from tests.models import Net, value
from tests.transforming import imported

Array = npt.NDArray[Any]
CLASSES, SIZE = 10, 8


def pictures(count: int, seed: int = 0) -> Array:
    """float32 N x 1 x 8 x 8: ten smooth patterns, each with noise of its own strength."""
    generator = np.random.default_rng(seed)
    patterns = np.cumsum(np.random.default_rng(99).standard_normal((CLASSES, 1, SIZE, SIZE)), axis=-1)
    chosen = generator.integers(CLASSES, size=count)
    noise = generator.standard_normal((count, 1, SIZE, SIZE)) * 0.7
    return np.asarray(patterns[chosen] * 0.5 + noise, np.float32)


def residual_net(hidden: int = 48, batch: str | int = "N") -> ModelProto:
    """Convolutions (plain, depthwise, 1x1) around an addition, then two FC layers: Gemm, and MatMul with Add."""
    net = Net(11)
    x = net.node("Relu", net.conv("conv1", "x", 8, 1, 3))
    y = net.node("Relu", net.conv("depthwise", x, 8, 1, 3, group=8))
    x = net.node("Add", x, net.conv("project", y, 8, 8, 1))
    x = net.node("Flatten", net.node("MaxPool", net.node("Relu", x), kernel_shape=[2, 2], strides=[2, 2]))
    x = net.node("Relu", net.gemm("fc1", x, hidden, 128))
    y = net.node("MatMul", x, net.weight("fc2.weight", hidden, CLASSES, spread=hidden**-0.5))
    y = net.node("Add", y, net.weight("fc2.bias", CLASSES, spread=0.1))
    net.node("Softmax", y, name="y")
    return net.done(value("x", [batch, 1, SIZE, SIZE]))


def labelled(made: ModelProto, count: int, seed: int = 0) -> Data:
    """Pictures with the classes that the network itself sees: it loses nothing before it is quantized."""
    x = pictures(count, seed)
    scores = run(session(made.SerializeToString()), {"x": x})["y"]
    return Data(x, scores.argmax(axis=1).astype(np.int64))


def saved(folder: Path, made: ModelProto, data: Data) -> tuple[Path, Path]:
    """A model's file and its data's."""
    model, file = folder / "net.onnx", folder / "data.npz"
    model.write_bytes(made.SerializeToString())
    if data.classes is None:
        np.savez(file, x=np.asarray(data.x))
    else:
        np.savez(file, x=np.asarray(data.x), y=data.classes)
    return model, file


@dataclass(frozen=True)
class Read:
    """A model as calibration sees it."""

    model: Model
    graph: Graph
    layers: dict[str, Layer]
    refused: dict[str, str]

    @property
    def walk(self) -> Walk:
        return Walk(self.graph, model_weights(self.model))


def read(made: ModelProto) -> Read:
    """Import a model and find its layers."""
    model = imported(made)
    graph = read_graph(parse_model(model.build_graph(frozenset())))
    layers, refused = find_layers(model, graph)
    return Read(model, graph, {layer.name: layer for layer in layers}, refused)


def samples_of(x: Array, name: str = "x") -> Samples:
    """Tensors as they are."""
    return Samples(Data(x), lambda ready: ready, name)


def untouched(_layer: Layer, response: Response) -> Quantized:
    """A quantizer that stores the refitted weights themselves."""
    return Quantized(QuantizedValue(pb.Palette(), np.zeros((1, 1), np.uint8)), response.target, "not at all")


def quadratic(
    generator: np.random.Generator, rows: int, columns: int, groups: int = 1, *, diagonal: bool = False
) -> Response:
    """Heavy-tailed weights and correlated inputs with a floor under their smallest power."""
    target = (generator.standard_t(4, (rows, columns)) * 0.1).astype(np.float32)
    moments = np.empty((groups, columns, columns), np.float32)
    for group in range(groups):
        x = generator.standard_normal((3 * columns, columns)) * generator.uniform(0.1, 2, columns)
        x = x + x.mean(axis=1, keepdims=True)
        found = x.T @ x / len(x)
        moments[group] = (
            np.diag(np.diag(found)) if diagonal else found + 0.01 * np.trace(found) / columns * np.eye(columns)
        )
    return Response(target, moments, generator.uniform(0.2, 5, rows))


def rounded(weights: Array, step: float) -> Float32:
    """To multiples of a step."""
    return np.asarray(np.rint(weights / step) * step, np.float32)
