"""Where a network's gradients start: its outputs as distributions, and square roots of their Fisher information."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from mobilemodel.errors import CheckFailedError
from mobilemodel.gradients.derivatives import Operation
from mobilemodel.gradients.derivatives.normalization import softmax_axes

if TYPE_CHECKING:
    from onnx import ModelProto

Array = npt.NDArray[Any]

_FLOATS = frozenset((1, 10, 11, 16))
"""onnx.TensorProto: FLOAT, FLOAT16, DOUBLE, BFLOAT16"""
_SAME_VALUES = frozenset(("Cast", "Flatten", "Identity", "Reshape", "Squeeze", "Transpose", "Unsqueeze"))


class Kind(Enum):
    """What an output is."""

    SOFTMAX = "probabilities of classes"
    LOG_SOFTMAX = "logarithms of probabilities of classes"
    LOGITS = "logits of classes"
    SIGMOID = "probabilities, each for itself"
    VALUES = "values with Gaussian errors"


@dataclass(frozen=True)
class Target:
    """A value at which gradients start."""

    name: str
    told_by: str
    """the value that tells the distribution: the target itself, or what its softmax or sigmoid made of it"""
    kind: Kind
    operation: Operation | None = None
    """the softmax"""

    @property
    def needs_deviation(self) -> bool:
        return self.kind is Kind.VALUES


def targets(model: ModelProto, nodes: Iterable[Operation], logits: Collection[str] = ()) -> list[Target]:
    """Where the gradients start, one target for each output of floats.

    An output that a Softmax, LogSoftmax or Sigmoid has made (up to its shape) starts at what that operation was
    given; any other that ``logits`` names counts as logits of classes along axis 1, the rest as values.
    """
    producers = {name: node for node in nodes for name in node.outputs}
    outputs = [item.name for item in model.graph.output if item.type.tensor_type.elem_type in _FLOATS]
    return list(dict.fromkeys(_target(name, producers, name in logits) for name in outputs))


def _target(output: str, producers: Mapping[str, Operation], logits: bool) -> Target:
    name, seen = output, set[str]()
    while (node := producers.get(name)) and node.operator in _SAME_VALUES and node.inputs and name not in seen:
        seen.add(name)
        name = node.inputs[0]
    kinds = {"Softmax": Kind.SOFTMAX, "LogSoftmax": Kind.LOG_SOFTMAX, "Sigmoid": Kind.SIGMOID}
    if node is None or node.operator not in kinds or not node.inputs:
        return Target(output, output, Kind.LOGITS if logits else Kind.VALUES)
    return Target(node.inputs[0], name, kinds[node.operator], node)


def start(target: Target, values: Array, signs: Array, deviation: float) -> Array:
    """A random vector g with E[g g^T] = F, the Fisher information of the output with respect to the target.

    ``values`` are those of ``target.told_by``, ``signs`` independent and even, -1 or 1. F = diag(p) - p p^T of a
    softmax has the square root diag(sqrt p) - p sqrt(p)^T, F = p (1 - p) of a sigmoid and 1 / ``deviation``^2 of
    other values have their roots.
    """
    if target.kind is Kind.VALUES:
        return signs / np.float32(deviation)
    if target.kind is Kind.SIGMOID:
        return np.asarray(np.sqrt(values * (1 - values)) * signs)
    axes: tuple[int, ...] = (1,) if values.ndim > 1 else (0,)
    if target.operation is not None:
        axes = softmax_axes(target.operation, values.ndim)
    probabilities = values
    if target.kind is not Kind.SOFTMAX:
        raised = np.exp(values - values.max(axis=axes, keepdims=True))
        probabilities = raised / raised.sum(axis=axes, keepdims=True)
    signed = np.sqrt(probabilities) * signs
    return np.asarray(signed - probabilities * signed.sum(axis=axes, keepdims=True))


def deviation(target: Target, values: Array) -> float:
    """The standard deviation of the ``values`` of a target; 1 where it needs none.

    Raises CheckFailedError where it is zero or not finite.
    """
    if not target.needs_deviation:
        return 1.0
    found = float(np.std(values, dtype=np.float64)) if values.size else 0.0
    if not math.isfinite(found) or found == 0:
        raise CheckFailedError(
            "the standard deviation of an output over the first batch", layer=target.name,
            expected="a positive number", found=found, advice="Give a first batch of more, and different, samples.",
        )  # fmt: skip
    return found


def random_signs(sizes: Sequence[int], samples: range, *, seed: int, draw: int) -> list[Array]:
    """Signs, len(samples) x size for each of ``sizes``: a stream of its own for each sample and draw.

    Philox is counter based (Salmon et al. 2011): a sample's signs do not depend on the batch it came in.
    """
    found = np.empty((len(samples), sum(sizes)), np.float32)
    for row, sample in zip(found, samples, strict=True):
        generator = np.random.Generator(np.random.Philox(key=seed, counter=[0, 0, draw, sample]))
        row[:] = generator.integers(0, 2, len(row), dtype=np.int8)
    found = 2 * found - 1
    return np.split(found, np.cumsum(sizes)[:-1], axis=1)
