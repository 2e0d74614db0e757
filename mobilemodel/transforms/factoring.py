"""low_rank(): one layer becomes two thinner ones."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from mobilemodel.errors import UnsupportedSourceError, UsageError
from mobilemodel.graphs import integer, integers, text, title
from mobilemodel.model import MatrixOrder, Model, SourceTensor
from mobilemodel.transforms import moments as second_moments
from mobilemodel.transforms.biases import bias_name
from mobilemodel.transforms.draft import Draft
from mobilemodel.transforms.factors import Spectrum, factored, spectrum
from mobilemodel.transforms.layers import CONV, CONV_TRANSPOSE, GEMM, Layer, find_layer, size_of, values_of
from mobilemodel.transforms.report import Change, Size, Transformed
from mobilemodel.transforms.values import holding, read, rounded

if TYPE_CHECKING:
    import onnx

Array = npt.NDArray[Any]
_NAME = "low_rank"
_BIAS_OPTIONAL = 11
"""opset from which on Gemm needs no bias"""
_NAMED = 20
"""layers that an error names"""


@dataclass(frozen=True)
class _Split:
    """How a layer's weight becomes matrices to factor, one for each group, and its two weights what they were."""

    layer: Layer
    matrices: Array
    """groups x outputs x inputs; for a spatial kernel groups x (outputs kw) x (inputs kh)"""
    spatial: bool

    @property
    def largest_rank(self) -> int:
        """The largest that saves weights: r (rows + columns) < rows columns."""
        rows, columns = self.matrices.shape[1:]
        return int((rows * columns - 1) // (rows + columns))

    def weights(self, rank: int) -> int:
        """Weights of both layers."""
        groups, rows, columns = self.matrices.shape
        return int(groups * rank * (rows + columns))


def low_rank_layers(model: Model) -> tuple[str, ...]:
    """The weights whose layers ``low_rank`` can split, in the order of the graph: FC layers, 1x1 and k x k
    convolutions that use their weight alone."""
    draft = Draft(model)
    if draft.obstacle:
        return ()
    layers = (find_layer(draft, node) for node in draft.nodes)
    return tuple(
        layer.weight.tensor.name for layer in layers if isinstance(layer, Layer) and not _obstacle(draft, layer)
    )


def low_rank(
    model: Model,
    layer: str,
    *,
    rank: int | None = None,
    energy: float | None = None,
    moments: Array | None = None,
) -> Transformed:
    """Split a layer in two of lower rank.

    ``layer`` names a node or its weight. An FC layer (Gemm, MatMul) or a 1x1 convolution becomes two of them with
    ``rank`` values between, for each group: the best approximation of the weight, or with ``moments``, H = E[x x^T] of
    the layer's input (inputs x inputs; for groups one matrix each), of its response (see ``factors.spectrum``). A k x k
    convolution becomes k x 1 and 1 x k (Jaderberg et al. 2014, arXiv 1405.3866, scheme 2), without regard to moments.
    ``energy`` (0 to 1) asks instead for the smallest rank that keeps this share of the squared singular values.

    The change tells the relative error of the response under the moments, or without them, of the weights.

    Raises UsageError for an unknown layer, a rank that saves nothing, moments that do not fit; UnsupportedSourceError
    for a layer that can't be split.
    """
    if (rank is None) == (energy is None):
        raise UsageError("low rank", expected="either a rank or an energy", layer=layer)
    draft = Draft(model)
    found = _find(draft, layer)
    split = _split(found)
    if rank is not None:
        _check_rank(split, rank)
    elif energy is None or not 0 < energy <= 1:
        raise UsageError("energy", expected="above 0, at most 1", found=energy, layer=layer)
    inputs = split.matrices.shape[2]
    known = None
    if moments is not None and not split.spatial:
        known = second_moments.checked(moments, inputs, found.groups, found.weight.tensor.name)
    if not np.isfinite(split.matrices).all():
        raise UnsupportedSourceError("a weight that is not finite cannot be split", tensor=found.weight.tensor.name)
    try:
        spectra = [spectrum(m, None if known is None else known[i]) for i, m in enumerate(split.matrices)]
    except np.linalg.LinAlgError:
        raise UnsupportedSourceError("the singular values of its weight were not found", layer=layer) from None
    if energy is not None:
        rank = max(found.rank_for(energy) for found in spectra)
        _check_rank(split, rank, f" (which an energy of {energy:g} takes)")
    assert rank is not None
    return _Splitting(draft, split, known).run(spectra, rank)


def _find(draft: Draft, name: str) -> Layer:
    """The layer of this name, or whose weight has it."""
    if draft.obstacle:
        raise UnsupportedSourceError("the graph cannot be changed", found=draft.obstacle)
    found: list[Layer | str] = []
    known: list[str] = []
    for node in draft.nodes:
        layer = find_layer(draft, node)
        if layer is None:
            continue
        names = {node.name, node.output[0], node.input[1]}
        if isinstance(layer, Layer):
            names.add(layer.weight.tensor.name)
            known.append(title(node))
        if name in names:
            found.append(layer)
    if len(found) != 1:
        what = "several layers have this name or weight" if found else "there is no such layer"
        more = " ..." if len(known) > _NAMED else ""
        raise UsageError(what, layer=name, expected=f"one of {', '.join(known[:_NAMED])}{more}")
    reason = _obstacle(draft, found[0]) if isinstance(found[0], Layer) else found[0]
    if reason or isinstance(found[0], str):
        raise UnsupportedSourceError(f"it cannot be split: {reason}", layer=name)
    return found[0]


def _obstacle(draft: Draft, layer: Layer) -> str:
    """Why a layer can't be split; empty where it can."""
    kernel = layer.weight.shape[2:]
    if layer.operator == CONV_TRANSPOSE:
        return "it is a ConvTranspose"
    if len(kernel) > 2 and max(kernel) > 1:
        return f"its kernel has {len(kernel)} axes"
    if kernel and max(kernel) > 1 and (len(kernel) < 2 or min(kernel) == 1):
        return "its kernel has one axis only"
    uses = draft.final_uses(layer.weight.tensor.name)
    if uses is None or len(uses) != 1 or layer.weight.tensor.name in layer.node.input[2:]:
        return f"'{layer.weight.tensor.name}' is used elsewhere too"
    return ""


def _split(layer: Layer) -> _Split:
    weight = layer.seen(read(layer.weight.tensor)).astype(np.float64)
    if layer.operator != CONV:
        return _Split(layer, (weight if layer.transposed else weight.T)[None], spatial=False)
    grouped = weight.reshape(layer.groups, -1, *weight.shape[1:])
    if max(weight.shape[2:]) == 1:
        return _Split(layer, grouped.reshape(*grouped.shape[:3]), spatial=False)
    groups, outputs, inputs, height, width = grouped.shape
    matrices = grouped.transpose(0, 1, 4, 2, 3).reshape(groups, outputs * width, inputs * height)
    return _Split(layer, matrices, spatial=True)


def _check_rank(split: _Split, rank: int, why: str = "") -> None:
    """Raise UsageError for a rank that is none or saves nothing."""
    groups, rows, columns = split.matrices.shape
    layer = split.layer.title
    if rank < 1:
        raise UsageError("rank", expected="at least 1", found=rank, layer=layer)
    if rank > split.largest_rank:
        most = f"Ranks up to {split.largest_rank} save." if split.largest_rank else "No rank saves here."
        raise UsageError(
            f"rank {rank}{why} saves nothing", layer=layer, advice=most,
            expected=f"fewer than the {groups * rows * columns} weights there are", found=split.weights(rank),
        )  # fmt: skip


class _Splitting:
    """One layer being replaced by two."""

    def __init__(self, draft: Draft, split: _Split, moments: Array | None) -> None:
        self.draft = draft
        self.split = split
        self.layer = split.layer
        self.moments = moments

    def run(self, spectra: list[Spectrum], rank: int) -> Transformed:
        layer, old = self.layer, self.layer.weight.tensor
        before = size_of(self.draft, layer)
        label = layer.title
        pairs = [
            factored(matrix, found.directions[:, :rank])
            for matrix, found in zip(self.split.matrices, spectra, strict=True)
        ]
        stored = [tuple(rounded(part, old.dtype) for part in pair) for pair in pairs]
        made = np.stack([second.astype(np.float64) @ first.astype(np.float64) for first, second in stored])
        loss = second_moments.response_error(made, self.split.matrices, self.moments)
        if not np.isfinite(loss):
            raise UnsupportedSourceError("the factors do not fit the weight's type", layer=label)
        after = Size(self.split.weights(rank) + before.parameters - math.prod(old.dims), self._multiply_adds(rank))
        first = self._tensor("first", self._first(np.stack([pair[0] for pair in stored])), old.name)
        second = self._tensor("second", self._second(np.stack([pair[1] for pair in stored])), first.name)
        self._replace(first, second, rank)
        way = "a column and a row of its kernel" if self.split.spatial else "inputs and outputs"
        of = "weights" if self.moments is None else "response"
        what = f"split between {way} at rank {rank} of {min(self.split.matrices.shape[1:])}; loss is that of the {of}"
        change = Change(_NAME, label, what, exact=False, tensors=(first.name, second.name), removed=(old.name,),
                        loss=loss, before=before, after=after)  # fmt: skip
        return self.draft.finish(_NAME, [change], [])

    def _multiply_adds(self, rank: int) -> int | None:
        """Each weight once for each position; the k x 1 layer also where the 1 x k one steps over."""
        values = values_of(self.draft, self.layer.node.output[0])
        if values is None:
            return None
        positions = values // self.layer.outputs
        if not self.split.spatial:
            return positions * self.split.weights(rank)
        groups, rows, columns = self.split.matrices.shape
        made = self.draft.shapes.get(self.layer.node.output[0], ())
        source = self.draft.shapes.get(self.layer.node.input[0], ())
        height, width = (made[2], source[3]) if len(made) == len(source) == 4 else (None, None)
        if height is None or width is None:
            return None
        between = (made[0] or 1) * height * width
        return int(groups * rank * (between * columns + positions * rows))

    def _first(self, factors: Array) -> Array:
        """groups x rank x inputs as the first layer's weight."""
        groups, rank, _ = factors.shape
        if self.layer.operator != CONV:
            one: Array = factors[0]
            return one if self.layer.transposed else one.T
        shape = self.layer.weight.shape
        kernel = (shape[2], 1) if self.split.spatial else shape[2:]
        return factors.reshape(groups * rank, shape[1], *kernel)

    def _second(self, factors: Array) -> Array:
        """groups x outputs x rank as the second layer's."""
        groups, rows, rank = factors.shape
        if self.layer.operator != CONV:
            one: Array = factors[0]
            return one if self.layer.transposed else one.T
        shape = self.layer.weight.shape
        if not self.split.spatial:
            return factors.reshape(groups * rows, rank, *shape[2:])
        return factors.reshape(shape[0], shape[3], rank).transpose(0, 2, 1)[:, :, None, :]

    def _tensor(self, which: str, values: Array, after: str) -> SourceTensor:
        old = self.layer.weight.tensor
        name = self.draft.fresh(f"{old.name.removesuffix('.weight')}.{which}.weight")
        made = holding(replace(old, name=name, hoisted=False, order=_order(self.layer)), values)
        self.draft.add_tensor(made, after=after)
        return made

    def _replace(self, first: SourceTensor, second: SourceTensor, rank: int) -> None:
        node = self.layer.node
        unused = node.input[1]
        made = type(node)()
        made.CopyFrom(node)
        made.name = self.draft.fresh(f"{title(node)}.first")
        del made.input[2:]
        made.input[1] = first.name
        made.output[0] = self.draft.fresh(f"{node.output[0]}.first")
        if self.layer.operator == GEMM and self.draft.opset < _BIAS_OPTIONAL:
            zero = SourceTensor(bias_name(self.draft, first.name), first.dtype, (rank,), bytes)
            self.draft.add_tensor(holding(zero, np.zeros(rank)))
            made.input.append(zero.name)
        _set_attributes(made, node, self.layer.weight.shape[2:], self.split.spatial)
        node.input[0], node.input[1] = made.output[0], second.name
        self.draft.insert_before(node, made)
        self.draft.changed()
        self.draft.remove_unused([unused])


def _order(layer: Layer) -> MatrixOrder:
    """How a weight that the layer takes as it is becomes a matrix with one row for each output."""
    if layer.operator == CONV:
        return MatrixOrder((), (0, *range(2, len(layer.weight.shape)), 1), 1)
    return MatrixOrder((), () if layer.transposed else (1, 0), 1)


def _set_attributes(first: onnx.NodeProto, second: onnx.NodeProto, kernel: tuple[int, ...], spatial: bool) -> None:
    """Share a layer's attributes, which both nodes have as yet, between the two."""
    from onnx import helper

    if second.op_type != CONV:
        kept = [attribute for attribute in first.attribute if attribute.name == "transB"]
        del first.attribute[:]
        first.attribute.extend(kept)
        return
    for node, attributes in zip((first, second), _conv_attributes(second, kernel, spatial), strict=True):
        del node.attribute[:]
        node.attribute.extend(helper.make_attribute(name, value) for name, value in attributes.items())


def _conv_attributes(
    node: onnx.NodeProto, kernel: tuple[int, ...], spatial: bool
) -> tuple[dict[str, Any], dict[str, Any]]:
    """The first has the strides and pads; of a spatial kernel each has those of its axis."""
    rank = len(kernel)
    shared: dict[str, Any] = {"group": integer(node, "group", 1)}
    automatic = text(node, "auto_pad", b"NOTSET").decode()
    along = {
        "kernel_shape": kernel,
        "strides": integers(node, "strides") or (1,) * rank,
        "dilations": integers(node, "dilations") or (1,) * rank,
    }
    padding: dict[str, Any] = {"pads": integers(node, "pads") or (0,) * (2 * rank)}
    if automatic != "NOTSET":
        padding = {"auto_pad": automatic}
    if not spatial:
        return shared | along | padding, shared | {"kernel_shape": kernel}
    pads = padding.get("pads", (0,) * 4)
    first = {name: (values[0], 1) for name, values in along.items()}
    second = {name: (1, values[1]) for name, values in along.items()}
    if automatic != "NOTSET":
        return shared | first | padding, shared | second | padding
    return shared | first | {"pads": (pads[0], 0, pads[2], 0)}, shared | second | {"pads": (0, pads[1], 0, pads[3])}
