"""The layers of a convnet on their way into ``layer_params``: what a graph becomes, and the columns of each row."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt

from mobilemodel_converters.ccv.graph import Constant
from mobilemodel_converters.ccv.layers import Size
from mobilemodel_converters.ccv.schema import LayerType

Columns = dict[str, int | float]
"""column of ``layer_params`` -> its value; columns that are not named are NULL"""


@dataclass(frozen=True)
class Layer:
    """A row of ``layer_params``; ``node`` names its node in messages."""

    type: ClassVar[LayerType]
    node: str
    input: Size
    """what it takes; from another full connect, count x 1 x 1"""
    partition: int
    """parts that the channels of the input are split into: the groups of a convolution"""

    def columns(self) -> Columns:
        """The columns that have a meaning for this type of layer."""
        return {
            "type": int(self.type),
            "input_matrix_rows": self.input.rows,
            "input_matrix_cols": self.input.cols,
            "input_matrix_channels": self.input.channels,
            "input_matrix_partition": self.partition,
            "input_node_count": 0,
        }


@dataclass(frozen=True)
class Weighted(Layer):
    """A layer with a weight and a bias."""

    count: int
    """filters, or outputs"""
    weight: Constant
    bias: Constant | None

    def in_order(self, values: npt.NDArray[Any]) -> npt.NDArray[Any]:
        """The weight's values, or the codes that stand for them, in ccv's order; a view where numpy has one.

        ``values`` lie as the graph's tensor. The first axis of the result are filters or outputs.
        """
        raise NotImplementedError


@dataclass(frozen=True)
class Convolution(Weighted):
    """A convolution with its ReLU, which ccv applies to every one."""

    type = LayerType.CONVOLUTIONAL
    kernel: tuple[int, int]
    strides: int
    border: int
    output_partition: int = 1

    def columns(self) -> Columns:
        return super().columns() | {
            "output_rows": self.kernel[0],
            "output_cols": self.kernel[1],
            "output_channels": self.input.channels,
            "output_partition": self.output_partition,
            "output_count": self.count,
            "output_strides": self.strides,
            "output_border": self.border,
        }

    def in_order(self, values: npt.NDArray[Any]) -> npt.NDArray[Any]:
        return values.transpose(0, 2, 3, 1)


@dataclass(frozen=True)
class FullConnect(Weighted):
    """A full connect; its input is flattened as rows x columns x channels, where the graph has the channels first."""

    type = LayerType.FULL_CONNECT
    relu: bool = False

    def columns(self) -> Columns:
        return super().columns() | {
            "input_node_count": self.input.values,
            "output_count": self.count,
            "output_relu": int(self.relu),
        }

    def in_order(self, values: npt.NDArray[Any]) -> npt.NDArray[Any]:
        size = self.input
        matrix = values.T if self.weight.transposed else values
        if size.channels == 1 or size.rows * size.cols == 1:
            return matrix
        return matrix.reshape(self.count, size.channels, size.rows, size.cols).transpose(0, 2, 3, 1)


@dataclass(frozen=True)
class Pool(Layer):
    """A pool with a square window."""

    size: int
    strides: int
    border: int

    def columns(self) -> Columns:
        return super().columns() | {
            "output_strides": self.strides,
            "output_border": self.border,
            "output_size": self.size,
        }


@dataclass(frozen=True)
class MaxPool(Pool):
    """Padding never wins."""

    type = LayerType.MAX_POOL


@dataclass(frozen=True)
class AveragePool(Pool):
    """Padding is not counted."""

    type = LayerType.AVERAGE_POOL


@dataclass(frozen=True)
class Normalisation(Layer):
    """Local response normalisation within each partition, ``alpha`` as ONNX has it: over the whole window."""

    type = LayerType.LOCAL_RESPONSE_NORM
    size: int
    kappa: float
    alpha: float
    beta: float

    def columns(self) -> Columns:
        return super().columns() | {
            "output_size": self.size,
            "output_kappa": self.kappa,
            "output_alpha": alpha_for_each(self.alpha, self.size),
            "output_beta": self.beta,
        }


def alpha_for_each(alpha: float, size: int) -> float:
    """ONNX's alpha, which is divided by the window, as ccv's, which is not.

    ccv computes in float32: such a number where its product with ``size`` gives ``alpha`` back, else the quotient,
    whose product does.

    >>> alpha_for_each(0.5, 5) == float(np.float32(0.1))
    True
    """
    single = np.float32(alpha / size)
    if np.float32(float(single) * size) == np.float32(alpha):
        return float(single)
    return alpha / size


def with_partitions(layers: Sequence[Layer]) -> tuple[Layer, ...]:
    """The layers with the partitions that the graph leaves open: those of pools, and of what convolutions give.

    A convolution's output has the partitions of the next convolution's or normalisation's input, where they are a
    multiple of its own as ccv asks, else its own. They change nothing that is computed.
    """
    kinds = (Convolution, Normalisation)
    out: list[Layer] = []
    current = 1
    for index, layer in enumerate(layers):
        current = layer.partition if isinstance(layer, kinds) else current
        if isinstance(layer, Pool):
            layer = replace(layer, partition=current)
        elif isinstance(layer, Convolution):
            following = (other.partition for other in layers[index + 1 :] if isinstance(other, kinds))
            wanted = next(following, current)
            current = wanted if wanted % current == 0 else current
            layer = replace(layer, output_partition=current)
        out.append(layer)
    return tuple(out)
