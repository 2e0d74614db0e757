"""Deep Compression files for the tests: the ``.net`` file of dense codes, and a prototxt that fits."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]
PROTOTXT = """
name: "small"
input: "data"
input_dim: 1 input_dim: 3 input_dim: 6 input_dim: 6
layer { name: "conv1" type: "Convolution" bottom: "data" top: "conv1"
  convolution_param { num_output: 4 kernel_size: 3 } }
layer { name: "relu_conv1" type: "ReLU" bottom: "conv1" top: "conv1" }
layer { name: "conv2" type: "Convolution" bottom: "conv1" top: "conv2"
  convolution_param { num_output: 6 kernel_size: 1 group: 2 } }
layer { name: "fc3" type: "InnerProduct" bottom: "conv2" top: "fc3" inner_product_param { num_output: 5 } }
"""
SHAPES = {"conv1": (4, 3, 3, 3), "conv2": (6, 2, 1, 1), "fc3": (5, 96)}


@dataclass(frozen=True)
class Layer:
    """A layer's values: dense codes in the order of the weight, and what they stand for."""

    codes: Array
    codebook: Array
    bias: Array
    bits: int

    @property
    def weight(self) -> Array:
        return self.codebook[self.codes]

    def entries(self) -> tuple[list[int], list[int]]:
        """Codes and gaps: fillers of gap 15 and code 0 where more than 15 zeros stand before a weight."""
        codes, gaps = [], []
        zeros = 0
        for code in self.codes.reshape(-1).tolist():
            if code == 0 and zeros < 15:
                zeros += 1
            elif code == 0:
                codes.append(0)
                gaps.append(15)
                zeros = 0
            else:
                codes.append(code)
                gaps.append(zeros)
                zeros = 0
        while codes and codes[-1] == 0:  # a trailing run needs no filler
            codes.pop()
            gaps.pop()
        return codes, gaps


def layer(seed: int, shape: tuple[int, ...], bits: int, density: float) -> Layer:
    """A random layer; its codebook is not sorted, and begins with 0."""
    random = np.random.default_rng(seed)
    codes = random.integers(1, 1 << bits, shape) * (random.random(shape) < density)
    codebook = random.standard_normal(1 << bits, np.float32)
    codebook[0] = 0.0
    return Layer(codes.astype(np.uint8), codebook, random.standard_normal(shape[0], np.float32), bits)


def small_layers(density: float = 0.3) -> dict[str, Layer]:
    """Random values of the prototxt's layers."""
    return {
        name: layer(seed, shape, 8 if "conv" in name else 4, density)
        for seed, (name, shape) in enumerate(SHAPES.items())
    }


def nibbles(values: Sequence[int]) -> bytes:
    """Values of 4 bits, the first of two in the low half of a byte."""
    padded = [*values, 0] if len(values) % 2 else list(values)
    return bytes(low | high << 4 for low, high in zip(padded[0::2], padded[1::2], strict=True))


def net_bytes(layers: Sequence[Layer]) -> bytes:
    """A ``.net`` file."""
    counts, parts = [], []
    for item in layers:
        codes, gaps = item.entries()
        counts.append(len(codes))
        packed = bytes(codes) if item.bits == 8 else nibbles(codes)
        parts.append(item.codebook.astype("<f4").tobytes() + item.bias.astype("<f4").tobytes() + packed + nibbles(gaps))
    return np.array(counts, "<u4").tobytes() + b"".join(parts)
