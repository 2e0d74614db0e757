"""What a layer's rule sees while it is translated: its inputs with their shapes, its blobs, and the graph to add to."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, NoReturn

import numpy as np
import numpy.typing as npt

from mobilemodel.errors import LimitExceededError, MalformedSourceError
from mobilemodel.layout import elements_of
from mobilemodel.limits import FORMAT_LIMITS
from mobilemodel.model import Buffer
from mobilemodel_converters.caffe.net import Blob, Float32, Layer, Shape
from mobilemodel_converters.network import NetworkBuilder


class LayerRefusedError(Exception):
    """A layer, or a way to use it, that cannot be expressed; the text says what and why."""


@dataclass(frozen=True)
class Value:
    """A value of the graph: its name there, and its shape."""

    name: str
    shape: Shape


@dataclass
class Scope:
    """One layer under translation. A rule reads ``inputs`` and calls ``emit`` or ``alias`` once for each top."""

    layer: Layer
    inputs: tuple[Value, ...]
    network: NetworkBuilder
    names: tuple[str, ...]
    """what the values of the tops are wished to be called in the graph"""
    outputs: list[Value] = field(default_factory=list)
    batch_matters: bool = False
    """the layer was translated for just this batch size"""
    used_blobs: set[int] = field(default_factory=set)
    notes: list[str] = field(default_factory=list)
    """what the user should know about this layer, one sentence each"""

    @property
    def input(self) -> Value:
        """The one input of a layer that takes one; raises MalformedSourceError where there are more or none."""
        if len(self.inputs) != 1:
            self.malformed("bottoms", expected=1, found=len(self.inputs))
        return self.inputs[0]

    def refuse(self, reason: str) -> NoReturn:
        """This layer cannot be expressed."""
        raise LayerRefusedError(reason)

    def malformed(self, what: str, *, expected: object = None, found: object = None) -> NoReturn:
        """This layer breaks the format's own rules."""
        raise MalformedSourceError(f"{self.layer.type}: {what}", layer=self.layer.name, expected=expected,
                                   found=found)  # fmt: skip

    def known(self, *sizes: int | None) -> tuple[int, ...]:
        """The sizes as numbers; refuses the layer where one may vary."""
        if any(size is None for size in sizes):
            self.refuse("needs an input of known size: give it by --input-shape")
        return tuple(int(size) for size in sizes if size is not None)

    def axis(self, axis: int, rank: int) -> int:
        """An axis counted from 0; a negative one counts from the end."""
        if not -rank <= axis < rank:
            self.malformed("axis", expected=f"-{rank} to {rank - 1}", found=axis)
        return axis % rank

    def mixed_axis(self, axis: int, rank: int) -> int:
        """An axis, counted from 0, along which the layer does not work place by place: over axis 0, the translation
        holds for the batch size at hand alone.
        """
        found = self.axis(axis, rank)
        if found == 0:
            self.fix_batch()
        return found

    def fix_batch(self) -> None:
        """Say that the translation holds for the batch size at hand alone."""
        self.batch_matters = True

    def add(self, operator: str, inputs: Sequence[str], suffix: str = "", **attributes: Any) -> str:
        """Add a node whose value stays within the layer; returns its name."""
        return self.network.add(operator, inputs, f"{self.layer.name}.{suffix or operator.lower()}", **attributes)

    def emit(self, operator: str, inputs: Sequence[str], shape: Shape, **attributes: Any) -> None:
        """Add the node that makes the next top."""
        self.emit_many(operator, inputs, (shape,), **attributes)

    def emit_many(self, operator: str, inputs: Sequence[str], shapes: Sequence[Shape], **attributes: Any) -> None:
        """Add one node that makes the next tops."""
        first, end = len(self.outputs), len(self.outputs) + len(shapes)
        if end > len(self.names):
            self.malformed("tops", expected=f"at least {end}", found=len(self.names))
        for shape in shapes:
            self.check_size(shape)
        names = self.network.add_many(operator, inputs, self.names[first:end], **attributes)
        self.outputs += [Value(name, shape) for name, shape in zip(names, shapes, strict=True)]

    def check_size(self, shape: Shape) -> None:
        """Raises LimitExceededError for a value with more elements than a tensor may have."""
        if elements_of([size for size in shape if size]) > FORMAT_LIMITS.elements:
            raise LimitExceededError(f"{self.layer.type}: a value's size", found=shape,
                                     expected=f"at most {FORMAT_LIMITS.elements} elements")  # fmt: skip

    def alias(self, value: Value) -> None:
        """The next top is this value itself."""
        self.outputs.append(value)

    def constant(self, values: npt.NDArray[Any], suffix: str) -> str:
        """Add a value that stays inside the graph."""
        return self.network.constant(f"{self.layer.name}.{suffix}", values)

    def integers(self, values: Sequence[int], suffix: str) -> str:
        """Add a list of int64, such as a shape or axes, that stays inside the graph."""
        return self.constant(np.array(values, np.int64), suffix)

    def number(self, value: float, suffix: str) -> str:
        """Add a float32 scalar that stays inside the graph."""
        return self.constant(np.array(value, np.float32), suffix)

    def blob(self, index: int, count: int) -> Blob:
        """A learned value of ``count`` values; raises MalformedSourceError where it is missing or has others."""
        if index >= len(self.layer.blobs):
            self.malformed(f"blob {index} is missing", expected=f"{count} values")
        self.used_blobs.add(index)
        blob = self.layer.blobs[index]
        if blob.count != count:
            self.malformed(f"blob {index}", expected=f"{count} values", found=f"{blob.count}, of shape {blob.shape}")
        return blob

    def weight(self, index: int, dims: Sequence[int], suffix: str) -> str:
        """A learned value as a tensor outside the graph, ``<layer>.<suffix>``, as it is but for its dims.

        Raises MalformedSourceError for dims that would give its values another order, as Caffe does.
        """
        blob = self.blob(index, elements_of(dims))
        if not _same_order(blob.shape, dims):
            self.malformed(f"blob {index}", expected=f"the shape {tuple(dims)}", found=blob.shape)
        return self.network.weight(f"{self.layer.name}.{suffix}", dims, raw(blob.read), quantized=blob.quantized)

    def derived(self, dims: Sequence[int], suffix: str, compute: Callable[[], Float32]) -> str:
        """A tensor outside the graph that is computed from the layer's blobs each time it is read."""
        return self.network.weight(f"{self.layer.name}.{suffix}", dims, raw(compute))


@dataclass
class SurveyScope(Scope):
    """A layer whose blobs are not known: it gets zeros, and what it asks for is kept."""

    asked: dict[int, tuple[int, ...]] = field(default_factory=dict)
    """index of a blob -> its dims, or the number of its values where the layer says no more"""

    def blob(self, index: int, count: int) -> Blob:
        """A learned value of zeros."""
        dims = self.asked.setdefault(index, (count,))
        return Blob(dims, lambda: np.zeros(count, np.float32))

    def weight(self, index: int, dims: Sequence[int], suffix: str) -> str:
        """A learned value of zeros as a tensor outside the graph."""
        self.asked[index] = tuple(dims)
        return super().weight(index, dims, suffix)


def _same_order(stored: Sequence[int], dims: Sequence[int]) -> bool:
    """Whether one of the shapes is the other with axes beside each other merged, axes of 1 aside.

    >>> _same_order((1, 1, 5, 12), (5, 3, 2, 2)), _same_order((12, 5), (5, 12))
    (True, False)
    """
    inner, outer = ({elements_of(shape[:axis]) for axis in range(len(shape) + 1)} for shape in (stored, dims))
    return inner <= outer or outer <= inner


def raw(read: Callable[[], Float32]) -> Callable[[], Buffer]:
    """The values that ``read`` gives as the bytes of a float32 tensor."""
    return lambda: np.ascontiguousarray(read(), "<f4").reshape(-1).data.cast("B")
