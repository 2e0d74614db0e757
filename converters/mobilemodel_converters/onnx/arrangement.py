"""How a weight's axes lie after the nodes between its tensor and the operator that uses it."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from mobilemodel.graphs import integer, integers
from mobilemodel.limits import FORMAT_LIMITS
from mobilemodel.model import MatrixOrder
from mobilemodel_converters.onnx.uses import Use

if TYPE_CHECKING:
    import onnx

Integers = Callable[[str], tuple[int, ...] | None]
"""name of a value -> its numbers where it is a short constant"""


@dataclass(frozen=True)
class Arrangement:
    """The operator's axis i is axis ``axes[i]`` of the tensor seen in the shape ``view``."""

    dims: tuple[int, ...]
    view: tuple[int, ...]
    axes: tuple[int, ...]
    known: bool = True
    """False: a node on the way rearranges in a manner that cannot be told"""

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape that the operator sees."""
        return tuple(self.view[axis] for axis in self.axes)

    @property
    def in_order(self) -> bool:
        """Whether the operator's axes are the view's, in order."""
        return self.known and self.axes == tuple(range(len(self.axes)))

    def order(self, wanted: tuple[int, ...], row_axes: int) -> MatrixOrder:
        """The matrix whose axes are the operator's, in the order ``wanted``; as the tensor lies where it is unknown."""
        if not self.known:
            return MatrixOrder()
        perm = tuple(self.axes[axis] for axis in wanted)
        view = () if self.view == self.dims else self.view
        return MatrixOrder(view, () if perm == tuple(range(len(perm))) else perm, row_axes)


def arrangement(use: Use, dims: tuple[int, ...], known: Integers) -> Arrangement:
    """Follow the nodes between a tensor of ``dims`` and an operator."""
    found = Arrangement(dims, dims, tuple(range(len(dims))))
    for node in use.chain:
        if node.op_type in ("Identity", "Cast"):
            continue
        # Names within a function are not those of the graph: only attributes can be trusted there.
        step = _transposed(found, node) if node.op_type == "Transpose" else None
        if step is None and node.op_type != "Transpose" and not use.in_function:
            step = _reshaped(found, node, known)
        if step is None:
            return Arrangement(dims, dims, tuple(range(len(dims))), known=False)
        found = step
    return found


def _transposed(found: Arrangement, node: onnx.NodeProto) -> Arrangement | None:
    rank = len(found.axes)
    perm = integers(node, "perm") or tuple(reversed(range(rank)))
    if sorted(perm) != list(range(rank)):
        return None
    return Arrangement(found.dims, found.view, tuple(found.axes[axis] for axis in perm))


def _reshaped(found: Arrangement, node: onnx.NodeProto, known: Integers) -> Arrangement | None:
    shape = _new_shape(found.shape, node, known)
    if shape is None or math.prod(shape) != math.prod(found.shape) or len(shape) > FORMAT_LIMITS.rank:
        return None
    if found.in_order:
        return Arrangement(found.dims, shape, tuple(range(len(shape))))
    return None


def _new_shape(shape: tuple[int, ...], node: onnx.NodeProto, known: Integers) -> tuple[int, ...] | None:
    given = known(node.input[1]) if len(node.input) > 1 else None
    if node.op_type == "Reshape":
        return _filled(shape, given) if given is not None else None
    if node.op_type == "Flatten":
        axis = integer(node, "axis", 1)
        axis += len(shape) if axis < 0 else 0
        return (math.prod(shape[:axis]), math.prod(shape[axis:]))
    axes = given if given is not None else integers(node, "axes")
    if node.op_type == "Squeeze":
        gone = {axis % len(shape) for axis in axes if shape} or {i for i, size in enumerate(shape) if size == 1}
        return tuple(size for i, size in enumerate(shape) if i not in gone)
    if node.op_type == "Unsqueeze":
        rank = len(shape) + len(axes)
        sizes = iter(shape)
        new = {axis % rank for axis in axes} if rank else set()
        return tuple(1 if i in new else next(sizes, 0) for i in range(rank))
    return None


def _filled(shape: tuple[int, ...], given: tuple[int, ...]) -> tuple[int, ...] | None:
    """Reshape's 0 copies a size, its -1 takes what is left."""
    if any(size < -1 or (size == 0 and i >= len(shape)) for i, size in enumerate(given)):
        return None
    sizes = [shape[i] if size == 0 else size for i, size in enumerate(given)]
    if sizes.count(-1) == 1:
        rest = math.prod(size for size in sizes if size != -1)
        sizes[sizes.index(-1)] = math.prod(shape) // rest if rest else 0
    return tuple(sizes) if -1 not in sizes else None
