"""Units of layers that make no difference: found between a layer and those that take its output, and taken out."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from mobilemodel import dtypes
from mobilemodel.graphs import real
from mobilemodel.model import Buffer, SourceTensor
from mobilemodel.transforms.biases import set_bias
from mobilemodel.transforms.draft import Draft
from mobilemodel.transforms.layers import CONV, CONV_TRANSPOSE, GEMM, Layer, bias_of, find_layer, size_of
from mobilemodel.transforms.paths import Path, arrival, bias_node, paths_from
from mobilemodel.transforms.report import Change, Kept, Size
from mobilemodel.transforms.values import raw, read

if TYPE_CHECKING:
    import onnx

Array = npt.NDArray[Any]
Mask = npt.NDArray[np.bool_]
_NAME = "remove_dead"


@dataclass(frozen=True)
class _Dead:
    """The units of a layer that can go, and what they are when they reach the layers behind."""

    unused: Mask
    constant: Mask
    arriving: tuple[Array, ...]
    """path by path, one value for each unit"""

    @property
    def gone(self) -> Mask:
        return self.unused | self.constant


class DeadUnits:
    """One round over all layers."""

    def __init__(self, draft: Draft) -> None:
        self.draft = draft
        self.changes: list[Change] = []
        self.kept: list[Kept] = []
        self._replaced: list[str] = []

    def run(self) -> None:
        for node in list(self.draft.nodes):
            layer = find_layer(self.draft, node)
            if isinstance(layer, Layer) and layer.operator != CONV_TRANSPOSE and layer.groups == 1:
                self._look_at(layer)
        self.draft.changed()
        self.draft.remove_unused(self._replaced)

    def _look_at(self, layer: Layer) -> None:
        silent = np.asarray(~by_unit(layer).any(axis=1))
        added = bias_node(self.draft, layer)
        bias = self._bias(layer, added)
        start = added.output[0] if added is not None else layer.node.output[0]
        paths = paths_from(self.draft, start, layer.outputs, layer.operator == CONV)
        uses = self.draft.final_uses(layer.weight.tensor.name)
        if uses is None or len(uses) != 1:
            paths = f"'{layer.weight.tensor.name}' is used elsewhere too"
        if isinstance(bias, str) or isinstance(paths, str):
            self._keep(layer, silent, bias if isinstance(bias, str) else str(paths))
            return
        dead = self._dead(layer, silent, bias, paths)
        self._keep(layer, silent & ~dead.gone, "their value is not the same everywhere in the next layer")
        if dead.gone.all():
            # A layer without outputs is none.
            others = np.arange(layer.outputs) > 0
            dead = replace(dead, unused=dead.unused & others, constant=dead.constant & others)
        if dead.gone.any() and paths:
            self._remove(layer, dead, bias, added, paths)

    def _keep(self, layer: Layer, units: Mask, reason: str) -> None:
        if units.any():
            count = int(np.count_nonzero(units))
            self.kept.append(Kept(layer.title, f"{count} units have no weights but zeros: {reason}"))

    def _bias(self, layer: Layer, added: onnx.NodeProto | None) -> Array | str:
        """What the layer adds, also through an Add behind it."""
        if added is None:
            return bias_of(self.draft, layer)
        tensor = self._bias_tensor(added)
        return np.asarray(read(tensor).astype(np.float64))

    def _bias_tensor(self, added: onnx.NodeProto) -> SourceTensor:
        return next(self.draft.tensors[name] for name in added.input if name in self.draft.tensors)

    def _dead(self, layer: Layer, silent: Mask, bias: Array, paths: list[Path]) -> _Dead:
        unused = np.ones(layer.outputs, np.bool_)
        same = silent.copy()
        kind = dtypes.numpy_dtype(layer.weight.tensor.dtype)
        arriving = []
        for path in paths:
            unused &= ~_by_input(path, layer.outputs).any(axis=1)
            arrived = arrival(self.draft, path, bias, kind)
            same &= arrived.even
            if isinstance(bias_of(self.draft, path.taker), str):
                same &= arrived.values == 0
            arriving.append(np.where(same, arrived.values, 0))
        dead = _Dead(unused, same & ~unused, tuple(arriving))
        for path, values in zip(paths, arriving, strict=True):
            with np.errstate(over="ignore"):
                total = _shift(path, values * dead.constant).astype(kind)
            if not np.isfinite(total).all():
                return replace(dead, constant=np.zeros_like(dead.constant))
        return dead

    def _remove(self, layer: Layer, dead: _Dead, bias: Array, added: onnx.NodeProto | None, paths: list[Path]) -> None:
        draft, left = self.draft, np.flatnonzero(~dead.gone)
        before = self._size([layer.node, *(path.taker.node for path in paths)])
        tensors = [layer.weight.tensor.name, *(path.taker.weight.tensor.name for path in paths)]
        axis = 0 if layer.operator == CONV or layer.transposed else 1
        draft.add_tensor(taken(layer.weight.tensor, layer.weight.axes[axis], left))
        if added is not None:
            tensor = self._bias_tensor(added)
            draft.add_tensor(taken(tensor, 0, left))
            tensors.append(tensor.name)
        elif layer.bias:
            tensors.append(self._set_bias(layer, bias[left]))
        for path, values in zip(paths, dead.arriving, strict=True):
            shift = _shift(path, values * dead.constant)
            taker = path.taker
            columns = (left[:, None] * path.spread + np.arange(path.spread)).reshape(-1)
            axis = 1 if taker.operator == CONV or taker.transposed else 0
            draft.add_tensor(taken(taker.weight.tensor, taker.weight.axes[axis], columns))
            if shift.any():
                known = bias_of(draft, taker)
                assert not isinstance(known, str)
                tensors.append(self._set_bias(taker, known + shift))
        self._reshape(layer, added, paths, len(left))
        after = self._size([layer.node, *(path.taker.node for path in paths)])
        unused, same = int(np.count_nonzero(dead.unused)), int(np.count_nonzero(dead.constant))
        what = f"{unused + same} of {layer.outputs} units removed: {unused} that nothing uses, {same} of one value each"
        self.changes.append(
            Change(_NAME, layer.title, what, exact=True, tensors=tuple(tensors), before=before, after=after)
        )

    def _set_bias(self, layer: Layer, values: Array) -> str:
        self._replaced.append(layer.bias)
        return set_bias(self.draft, layer, values, layer.node.output[0])

    def _size(self, nodes: list[onnx.NodeProto]) -> Size:
        layers = [layer for layer in (find_layer(self.draft, node) for node in nodes) if isinstance(layer, Layer)]
        sizes = [size_of(self.draft, layer) for layer in layers]
        counts = [size.multiply_adds for size in sizes]
        known = None if None in counts else sum(count for count in counts if count is not None)
        return Size(sum(size.parameters for size in sizes), known)

    def _reshape(self, layer: Layer, added: onnx.NodeProto | None, paths: list[Path], left: int) -> None:
        """The values that hold the units have fewer of them now."""
        names = {layer.node.output[0]} | ({added.output[0]} if added is not None else set())
        names |= {node.output[0] for path in paths for node in path.nodes}
        for name in names:
            self.draft.reshaped.add(name)
            shape = self.draft.shapes.get(name)
            axis = 1 if layer.operator == CONV else -1
            size = shape[axis] if shape is not None else None
            if shape is not None and size is not None:
                self.draft.shapes[name] = (*shape[:axis], size // layer.outputs * left, *shape[axis:][1:])


def by_unit(layer: Layer) -> Array:
    """The weights of each output: outputs x all others."""
    weight = layer.seen(read(layer.weight.tensor))
    return (weight if layer.operator == CONV or layer.transposed else weight.T).reshape(layer.outputs, -1)


def _by_input(path: Path, units: int) -> Array:
    """The weights that take each unit: units x all others."""
    taker = path.taker
    weight = taker.seen(read(taker.weight.tensor))
    first = np.moveaxis(weight, 1, 0) if taker.operator == CONV or taker.transposed else weight
    return first.reshape(units, -1)


def _shift(path: Path, values: Array) -> Array:
    """What units of these values everywhere add to the outputs of the layer that takes them."""
    taker, live = path.taker, np.flatnonzero(values)
    weight = taker.seen(read(taker.weight.tensor))
    rows = weight if taker.operator == CONV or taker.transposed else weight.T
    parts = rows.reshape(taker.outputs, values.size, -1)[:, live].sum(axis=2, dtype=np.float64)
    alpha = real(taker.node, "alpha", 1.0) if taker.operator == GEMM else 1.0
    return np.asarray(alpha * (parts @ values[live]))


def taken(tensor: SourceTensor, axis: int, indices: npt.NDArray[np.int64]) -> SourceTensor:
    """Part of a tensor along an axis, in the order of ``indices``, taken anew at each read."""
    dims = (*tensor.dims[:axis], len(indices), *tensor.dims[axis + 1 :])
    return replace(tensor, dims=dims, read=partial(_read_taken, tensor, axis, indices))


def _read_taken(tensor: SourceTensor, axis: int, indices: npt.NDArray[np.int64]) -> Buffer:
    return raw(read(tensor).take(indices, axis=axis))
