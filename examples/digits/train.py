"""Train a small convolutional digit classifier with numpy and write it as ONNX.

    python train.py

writes model.onnx, test.npz and labels.txt next to this file.  The result depends only on SEED and on the
rounding of the installed BLAS; set OPENBLAS_NUM_THREADS=1 for the same bits on every run.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

import numpy as np
import numpy.typing as npt
import onnx
from numpy.lib.stride_tricks import sliding_window_view
from onnx import TensorProto, helper, numpy_helper
from sklearn.datasets import load_digits

Floats = npt.NDArray[np.float32]
Pixels = npt.NDArray[np.uint8]
Classes = npt.NDArray[np.int64]

HERE = Path(__file__).parent
LABELS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")

SEED = 1998
EPOCHS = 60
BATCH = 32
LEARNING_RATE = 2e-3
WEIGHT_DECAY = 1e-2  # decoupled (AdamW), so it is scaled by the learning rate
MOMENTUM, MOMENTUM_SQUARED, EPSILON = 0.9, 0.999, 1e-8

GREY_STEP = 15  # stored pixel = digit grey level (0..16) * 15
MEAN, SCALE = 120.0, 1 / 64  # network input = (stored pixel - MEAN) * SCALE


# --- data ---------------------------------------------------------------------------------------------------


def load_pictures() -> tuple[Pixels, Classes]:
    """Return the pictures, N x 8 x 8 x 1 with values 0..240, and their classes, N."""
    grey, classes = load_digits(return_X_y=True)
    pictures = (grey * GREY_STEP).astype(np.uint8).reshape(-1, 8, 8, 1)
    return pictures, classes.astype(np.int64)


def split(classes: Classes, rng: np.random.Generator) -> tuple[Classes, Classes]:
    """Return the indices of the training two thirds and of the held-out third, stratified by class."""
    shuffled = rng.permutation(len(classes))
    by_class = shuffled[np.argsort(classes[shuffled], kind="stable")]
    held_out = np.zeros(len(classes), dtype=bool)
    held_out[by_class[::3]] = True
    return np.flatnonzero(~held_out), np.flatnonzero(held_out)


def preprocess(pictures: Pixels) -> Floats:
    """Turn stored pictures, N x 8 x 8 x 1, into network input, N x 1 x 8 x 8."""
    floats = pictures.astype(np.float32).transpose(0, 3, 1, 2)
    return (floats - np.float32(MEAN)) * np.float32(SCALE)


def shift_randomly(pictures: Pixels, rng: np.random.Generator) -> Pixels:
    """Move each picture, N x 8 x 8 x 1, by -1, 0 or 1 pixel on each axis; what comes in is background (0)."""
    windows = sliding_window_view(np.pad(pictures, ((0, 0), (1, 1), (1, 1), (0, 0))), (8, 8), axis=(1, 2))
    down, right = rng.integers(0, 3, size=(2, len(pictures)))
    shifted: Pixels = windows[np.arange(len(pictures)), down, right]  # N x 1 x 8 x 8
    return shifted.transpose(0, 2, 3, 1)


# --- layers -------------------------------------------------------------------------------------------------


@dataclass
class Parameter:
    """A named array with its gradient and Adam's two running moments, all of one shape."""

    name: str
    value: Floats
    grad: Floats = field(init=False)
    mean: Floats = field(init=False)
    mean_square: Floats = field(init=False)

    def __post_init__(self) -> None:
        self.grad, self.mean, self.mean_square = (np.zeros_like(self.value) for _ in range(3))


class Layer(Protocol):
    """One step of the network; backward relies on what the last forward remembered."""

    name: str
    parameters: tuple[Parameter, ...]

    def forward(self, x: Floats) -> Floats:
        """Return the layer's output."""

    def backward(self, dy: Floats) -> Floats:
        """Set the parameters' gradients and return the input's, given the output's."""

    def node(self, source: str) -> onnx.NodeProto:
        """Return the ONNX node that reads the tensor `source` and writes the tensor `self.name`."""


def he_parameters(name: str, shape: tuple[int, ...], rng: np.random.Generator) -> tuple[Parameter, Parameter]:
    """Return a weight of `shape` (outputs first), scaled by He's rule for relu, and a bias of zeros."""
    deviation = math.sqrt(2 / math.prod(shape[1:]))
    weight = (rng.standard_normal(shape) * deviation).astype(np.float32)
    return Parameter(f"{name}.weight", weight), Parameter(f"{name}.bias", np.zeros(shape[0], np.float32))


class Conv:
    """3x3 convolution, stride 1, zero padding 1: N x C x H x W to N x O x H x W; weight O x C x 3 x 3."""

    def __init__(self, name: str, inputs: int, outputs: int, rng: np.random.Generator) -> None:
        self.name = name
        self.weight, self.bias = he_parameters(name, (outputs, inputs, 3, 3), rng)
        self.parameters: tuple[Parameter, ...] = (self.weight, self.bias)

    def forward(self, x: Floats) -> Floats:
        n, c, h, w = x.shape
        windows = sliding_window_view(np.pad(x, ((0, 0), (0, 0), (1, 1), (1, 1))), (3, 3), axis=(2, 3))
        self.columns = windows.transpose(0, 2, 3, 1, 4, 5).reshape(n * h * w, c * 9)
        y = self.columns @ self._matrix().T + self.bias.value
        return y.reshape(n, h, w, -1).transpose(0, 3, 1, 2)

    def backward(self, dy: Floats) -> Floats:
        n, o, h, w = dy.shape
        rows = dy.transpose(0, 2, 3, 1).reshape(n * h * w, o)
        self.weight.grad = (rows.T @ self.columns).reshape(self.weight.value.shape)
        self.bias.grad = rows.sum(axis=0)
        patches = (rows @ self._matrix()).reshape(n, h, w, -1, 3, 3).transpose(0, 3, 1, 2, 4, 5)
        dx = np.zeros((n, patches.shape[1], h + 2, w + 2), np.float32)
        for i, j in np.ndindex(3, 3):  # the windows overlap, so their gradients add up
            dx[:, :, i : i + h, j : j + w] += patches[..., i, j]
        return dx[:, :, 1:-1, 1:-1]

    def node(self, source: str) -> onnx.NodeProto:
        inputs = [source, self.weight.name, self.bias.name]
        return helper.make_node(
            "Conv", inputs, [self.name], self.name, kernel_shape=[3, 3], strides=[1, 1], pads=[1, 1, 1, 1]
        )

    def _matrix(self) -> Floats:
        """Return the weight as O x (C * 9), to match the columns."""
        return self.weight.value.reshape(len(self.weight.value), -1)


class Relu:
    """max(x, 0) on any shape."""

    parameters: tuple[Parameter, ...] = ()

    def __init__(self, name: str) -> None:
        self.name = name

    def forward(self, x: Floats) -> Floats:
        self.positive = x > 0
        return np.maximum(x, np.float32(0))

    def backward(self, dy: Floats) -> Floats:
        return dy * self.positive

    def node(self, source: str) -> onnx.NodeProto:
        return helper.make_node("Relu", [source], [self.name], self.name)


class MaxPool:
    """2x2 maximum, stride 2: N x C x H x W to N x C x H/2 x W/2, with H and W even."""

    parameters: tuple[Parameter, ...] = ()

    def __init__(self, name: str) -> None:
        self.name = name

    def forward(self, x: Floats) -> Floats:
        n, c, h, w = x.shape
        blocks = x.reshape(n, c, h // 2, 2, w // 2, 2)
        y: Floats = blocks.max(axis=(3, 5), keepdims=True)
        self.is_max = blocks == y
        return y[:, :, :, 0, :, 0]

    def backward(self, dy: Floats) -> Floats:
        n, c, h, w = dy.shape
        # Equal maxima each get the whole gradient: in practice they are zeros, which the relu before blocks.
        dx: Floats = self.is_max * dy[:, :, :, None, :, None]
        return dx.reshape(n, c, h * 2, w * 2)

    def node(self, source: str) -> onnx.NodeProto:
        return helper.make_node("MaxPool", [source], [self.name], self.name, kernel_shape=[2, 2], strides=[2, 2])


class Flatten:
    """N x C x H x W to N x (C * H * W)."""

    parameters: tuple[Parameter, ...] = ()

    def __init__(self, name: str) -> None:
        self.name = name

    def forward(self, x: Floats) -> Floats:
        self.shape = x.shape
        return x.reshape(len(x), -1)

    def backward(self, dy: Floats) -> Floats:
        return dy.reshape(self.shape)

    def node(self, source: str) -> onnx.NodeProto:
        return helper.make_node("Flatten", [source], [self.name], self.name, axis=1)


class Linear:
    """Fully connected: N x I to N x O; weight O x I."""

    def __init__(self, name: str, inputs: int, outputs: int, rng: np.random.Generator) -> None:
        self.name = name
        self.weight, self.bias = he_parameters(name, (outputs, inputs), rng)
        self.parameters: tuple[Parameter, ...] = (self.weight, self.bias)

    def forward(self, x: Floats) -> Floats:
        self.x = x
        return x @ self.weight.value.T + self.bias.value

    def backward(self, dy: Floats) -> Floats:
        self.weight.grad = dy.T @ self.x
        self.bias.grad = dy.sum(axis=0)
        return dy @ self.weight.value

    def node(self, source: str) -> onnx.NodeProto:
        inputs = [source, self.weight.name, self.bias.name]
        return helper.make_node("Gemm", inputs, [self.name], self.name, transB=1)


# --- network ------------------------------------------------------------------------------------------------


def build_network(rng: np.random.Generator) -> list[Layer]:
    """Return the layers from the input, N x 1 x 8 x 8, to the logits, N x 10."""
    return [
        Conv("conv1", 1, 16, rng),
        Relu("relu1"),
        MaxPool("pool1"),  # N x 16 x 4 x 4
        Conv("conv2", 16, 32, rng),
        Relu("relu2"),
        MaxPool("pool2"),  # N x 32 x 2 x 2
        Flatten("flatten"),
        Linear("fc6", 128, 256, rng),
        Relu("relu6"),
        Linear("fc7", 256, 128, rng),
        Relu("relu7"),
        Linear("fc8", 128, 10, rng),
    ]


def parameters_of(network: list[Layer]) -> list[Parameter]:
    """Return the parameters of all layers, in the order of the layers."""
    return [parameter for layer in network for parameter in layer.parameters]


def forward(network: list[Layer], x: Floats) -> Floats:
    """Return the logits, N x 10, of the network input, N x 1 x 8 x 8."""
    for layer in network:
        x = layer.forward(x)
    return x


def backward(network: list[Layer], dy: Floats) -> None:
    """Set every parameter's gradient, given that of the logits, N x 10."""
    for layer in reversed(network):
        dy = layer.backward(dy)


def cross_entropy(logits: Floats, classes: Classes) -> tuple[float, Floats]:
    """Return the mean loss in nats and its gradient with respect to the logits, N x 10."""
    rows = np.arange(len(classes))
    shifted = logits - logits.max(axis=1, keepdims=True)  # so that exp cannot overflow
    log_prob = shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True))
    gradient = np.exp(log_prob)
    gradient[rows, classes] -= 1
    gradient /= len(classes)
    return -float(log_prob[rows, classes].mean()), gradient


def top1(network: list[Layer], pictures: Pixels, classes: Classes) -> float:
    """Return the share, 0..1, of the pictures whose likeliest class is right."""
    return float(np.mean(forward(network, preprocess(pictures)).argmax(axis=1) == classes))


# --- training -----------------------------------------------------------------------------------------------


def adam_step(parameter: Parameter, step: int, rate: float) -> None:
    """Move one parameter by AdamW; `step` counts from 1."""
    p = parameter
    p.mean += (1 - MOMENTUM) * (p.grad - p.mean)
    p.mean_square += (1 - MOMENTUM_SQUARED) * (p.grad**2 - p.mean_square)
    # Both moments start at zero; dividing undoes that bias.
    mean = p.mean / (1 - MOMENTUM**step)
    mean_square = p.mean_square / (1 - MOMENTUM_SQUARED**step)
    if p.value.ndim > 1:  # a bias does not overfit, so only weights decay
        p.value *= 1 - rate * WEIGHT_DECAY
    p.value -= rate * mean / (np.sqrt(mean_square) + EPSILON)


def batches(count: int, rng: np.random.Generator) -> Iterator[Classes]:
    """Yield the indices 0..count-1 in random order, BATCH at a time."""
    order = rng.permutation(count)
    for start in range(0, count, BATCH):
        yield order[start : start + BATCH]


def train(network: list[Layer], pictures: Pixels, classes: Classes, rng: np.random.Generator) -> None:
    """Fit the network in place to the pictures, N x 8 x 8 x 1, and their classes, N; the rate falls to 0."""
    parameters = parameters_of(network)
    step, steps = 0, EPOCHS * math.ceil(len(pictures) / BATCH)
    for epoch in range(1, EPOCHS + 1):
        losses = []
        for batch in batches(len(pictures), rng):
            rate = LEARNING_RATE * (1 + math.cos(math.pi * step / steps)) / 2
            step += 1
            x = preprocess(shift_randomly(pictures[batch], rng))
            loss, gradient = cross_entropy(forward(network, x), classes[batch])
            backward(network, gradient)
            for parameter in parameters:
                adam_step(parameter, step, rate)
            losses.append(loss)
        if epoch % 10 == 0:
            print(f"epoch {epoch:3d}  training loss {np.mean(losses):.4f}")


# --- export -------------------------------------------------------------------------------------------------


def to_onnx(network: list[Layer]) -> onnx.ModelProto:
    """Return the checked model: `data`, N x 1 x 8 x 8 float32, to `prob`, N x 10 float32."""
    nodes, source = [], "data"
    for layer in network:
        nodes.append(layer.node(source))
        source = layer.name
    nodes.append(helper.make_node("Softmax", [source], ["prob"], "prob", axis=1))
    graph = helper.make_graph(
        nodes,
        "digits",
        [helper.make_tensor_value_info("data", TensorProto.FLOAT, ["N", 1, 8, 8])],
        [helper.make_tensor_value_info("prob", TensorProto.FLOAT, ["N", len(LABELS)])],
        [numpy_helper.from_array(p.value, p.name) for p in parameters_of(network)],
    )
    model = helper.make_model(
        graph,
        ir_version=8,
        opset_imports=[helper.make_opsetid("", 17)],
        producer_name="mobilemodel-digits-example",
    )
    onnx.checker.check_model(model, full_check=True)
    return model


def main() -> None:
    """Train, report and write the three files."""
    rng = np.random.default_rng(SEED)
    pictures, classes = load_pictures()
    training, held_out = split(classes, rng)
    network = build_network(rng)
    train(network, pictures[training], classes[training], rng)
    for name, part in (("training", training), ("held-out", held_out)):
        print(f"{name} top-1 {top1(network, pictures[part], classes[part]):.2%} of {len(part)}")

    onnx.save(to_onnx(network), HERE / "model.onnx")
    np.savez_compressed(HERE / "test.npz", x=pictures[held_out], y=classes[held_out])
    (HERE / "labels.txt").write_text("\n".join(LABELS) + "\n", encoding="utf-8", newline="\n")


if __name__ == "__main__":
    main()
