"""One node of a graph, on the way back: what its derivative is given, and what it says of itself."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from mobilemodel.gradients.kernels import Kernels

Array = npt.NDArray[Any]

EVERY = range(sys.maxsize)
"""all inputs, or all outputs, however many a node has"""


@dataclass(frozen=True, eq=False)
class Operation:
    """A node as its derivative sees it."""

    operator: str
    """its type; of other domains than ONNX's own: ``domain.type``"""
    name: str
    inputs: tuple[str, ...]
    """names of values; empty where an optional input is left out"""
    outputs: tuple[str, ...]
    captured: frozenset[str]
    """values that its subgraphs take from around them"""
    attributes: Mapping[str, Any]
    opset: int

    @property
    def described(self) -> str:
        """``Gather 'pick'``, for messages."""
        return f"{self.operator} '{self.name or next(iter(self.outputs), '')}'"


@dataclass(frozen=True)
class Step:
    """One operation while a batch walks back through it."""

    operation: Operation
    gradients: Mapping[int, Array]
    """by output: the loss's gradient; outputs that no gradient arrives at are missing"""
    wanted: tuple[int, ...]
    """inputs whose gradients are asked for"""
    values: Mapping[str, Array]
    shapes: Mapping[str, tuple[int, ...]]
    kernels: Kernels

    @property
    def gradient(self) -> Array:
        """The gradient with respect to the first output."""
        return self.gradients[0]

    def input(self, index: int) -> Array:
        return self.values[self.operation.inputs[index]]

    def optional(self, index: int) -> Array | None:
        """The value of an input that may be left out."""
        return self.input(index) if self.has(index) else None

    def has(self, index: int) -> bool:
        return index < len(self.operation.inputs) and bool(self.operation.inputs[index])

    def output(self) -> Array:
        return self.values[self.operation.outputs[0]]

    def shape(self, index: int = 0) -> tuple[int, ...]:
        """Of an input."""
        return self.shapes[self.operation.inputs[index]]

    def output_shape(self, index: int = 0) -> tuple[int, ...]:
        return self.shapes[self.operation.outputs[index]]

    def attribute(self, name: str, default: Any = None) -> Any:
        return self.operation.attributes.get(name, default)

    def integers(self, name: str, index: int) -> list[int] | None:
        """Integers that older versions of an operator keep in an attribute and newer ones take as an input."""
        value = self.optional(index)
        found = self.attribute(name) if value is None else value.reshape(-1).tolist()
        return None if found is None else [int(number) for number in found]


def no_limits(operation: Operation) -> str:
    del operation
    return ""


@dataclass(frozen=True)
class Derivative:
    """How a gradient passes back through an operator, and what has to be at hand for it."""

    apply: Callable[[Step], Mapping[int, Array]]
    """gradients with respect to inputs, at least the wanted ones; must not write into what it is given"""
    through: Sequence[int] = EVERY
    """inputs by which the operator can be differentiated"""
    back_from: Sequence[int] = (0,)
    """outputs from which gradients can come"""
    inputs: Sequence[int] = ()
    """inputs whose values it needs"""
    others: bool = False
    """to differentiate by an input it needs the values of all others"""
    output: bool = False
    """it needs the value of the first output"""
    shapes: Sequence[int] = ()
    """inputs whose shapes it needs"""
    output_shapes: Sequence[int] = ()
    limits: Callable[[Operation], str] = no_limits
    """why an operation has no derivative although its operator has one; empty where it has"""


def unbroadcast(gradient: Array, shape: tuple[int, ...]) -> Array:
    """Sum a gradient over the axes along which an operand of ``shape`` was repeated (numpy's broadcasting).

    >>> unbroadcast(np.ones((4, 2, 3)), (2, 1)).tolist()
    [[12.0], [12.0]]
    """
    extra = gradient.ndim - len(shape)
    axes = [*range(extra), *(extra + axis for axis, size in enumerate(shape) if size == 1)]
    repeated = tuple(axis for axis in axes if gradient.shape[axis] != 1 or axis < extra)
    return gradient.sum(axis=repeated).reshape(shape) if repeated else gradient.reshape(shape)


def window(array: Array, starts: Sequence[int], shape: Sequence[int], fill: float = 0) -> Array:
    """The part of ``array`` that begins at ``starts`` (possibly before it) and has ``shape``; ``fill`` around it.

    A view where nothing has to be filled in.

    >>> window(np.arange(4), [-1], [3]).tolist(), window(np.arange(4), [2], [3]).tolist()
    ([0, 0, 1], [2, 3, 0])
    """
    inside = [
        (max(start, 0), max(min(start + size, extent), max(start, 0)))
        for start, size, extent in zip(starts, shape, array.shape, strict=True)
    ]
    part = array[tuple(slice(*bounds) for bounds in inside)]
    if part.shape == tuple(shape):
        return part
    filled = np.full(shape, fill, array.dtype)
    if part.size:
        ends = zip(inside, starts, strict=True)
        filled[tuple(slice(first - start, last - start) for (first, last), start in ends)] = part
    return filled
