"""prune(): weights become zero, the least salient first."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from mobilemodel.errors import UsageError
from mobilemodel.model import Model, Role, SourceTensor
from mobilemodel.transforms import moments as second_moments
from mobilemodel.transforms.draft import Draft
from mobilemodel.transforms.report import Change, Kept, Transformed
from mobilemodel.transforms.saliency import smallest, surgeon
from mobilemodel.transforms.values import FLOATS, holding, read, relative_error

Array = npt.NDArray[Any]
_NAME = "prune"
_ROLES = frozenset((Role.FC, Role.CONV, Role.RECURRENT))


def prune(
    model: Model,
    sparsity: float | Mapping[str, float],
    *,
    moments: Mapping[str, Array] | None = None,
    across: bool = False,
) -> Transformed:
    """Zero a share of the weights.

    ``sparsity`` (0 to 1) is for each weight of an FC, convolutional or recurrent layer, or tensor by tensor by name;
    zeros that are there already count. The smallest magnitudes go; with ``across`` the smallest of all these tensors
    together. A tensor with ``moments``, H = E[x x^T] of its layer's input (columns x columns of the tensor's matrix,
    or groups of them), loses the least salient weights instead and its others make up for it (``saliency.surgeon``).

    A change tells the relative error of the response under the moments, or without them, of the weights. Dims and
    multiply-adds stay: zeros are cheap to store, and ``remove_dead`` finds units that are left with nothing else.

    Raises UsageError for a sparsity outside of 0 to 1, names of no tensor, moments that do not fit.
    """
    draft = Draft(model)
    known = {} if moments is None else dict(moments)
    if across and (known or not isinstance(sparsity, (int, float))):
        raise UsageError("pruning across layers", expected="one sparsity and no moments",
                         advice="Saliencies of different layers cannot be compared.")  # fmt: skip
    wanted = _wanted(draft, sparsity)
    for name in known:
        if name not in draft.tensors:
            raise UsageError("second moments of no tensor", tensor=name)
    kept = [Kept(name, reason) for name in wanted if (reason := _obstacle(draft, draft.tensors[name]))]
    for item in kept:
        del wanted[item.layer]
    masks = _masks_across(draft, wanted) if across else {}
    changes: list[Change] = []
    for name, share in wanted.items():
        change = _prune_tensor(draft, draft.tensors[name], share, known.get(name), masks.get(name))
        if change is None:
            kept.append(Kept(name, "that many of its weights are zero already"))
        else:
            changes.append(change)
    return draft.finish(_NAME, changes, kept)


def _wanted(draft: Draft, sparsity: float | Mapping[str, float]) -> dict[str, float]:
    """Tensor -> sparsity, in the order of the graph."""
    if isinstance(sparsity, (int, float)):
        found = {name: float(sparsity) for name, tensor in draft.tensors.items() if tensor.role in _ROLES}
        sparsity = found or {"": float(sparsity)}
    else:
        for name in sparsity:
            if name not in draft.tensors:
                raise UsageError("the sparsity of no tensor", tensor=name)
        found = {name: float(sparsity[name]) for name in draft.tensors if name in sparsity}
    for name, share in sparsity.items():
        if not (math.isfinite(share) and 0 <= share <= 1):
            raise UsageError("sparsity", tensor=name or None, expected="0 to 1", found=share)
    return found


def _obstacle(draft: Draft, tensor: SourceTensor) -> str:
    """Why a tensor can't be pruned; empty where it can."""
    if draft.obstacle:
        return draft.obstacle
    if tensor.quantized is not None:
        return "it is quantized in the source"
    if tensor.name in draft.replaceable:
        return "a caller may replace it: it is the default of an input"
    if tensor.dtype not in FLOATS:
        return "it holds no floating-point values"
    if not tensor.elements or not np.isfinite(read(tensor)).all():
        return "it holds values that are not finite, or none"
    return ""


def _masks_across(draft: Draft, wanted: Mapping[str, float]) -> dict[str, Array]:
    """The smallest magnitudes of all tensors together."""
    sizes = {name: draft.tensors[name].elements for name in wanted}
    if not sizes:
        return {}
    magnitudes = np.empty(sum(sizes.values()), np.float32)
    place = 0
    for name, size in sizes.items():
        magnitudes[place : place + size] = np.abs(read(draft.tensors[name]).reshape(-1))
        place += size
    mask = smallest(magnitudes, round(next(iter(wanted.values())) * len(magnitudes)))
    parts = np.split(mask, np.cumsum(list(sizes.values()))[:-1])
    return {name: part.reshape(draft.tensors[name].dims) for name, part in zip(sizes, parts, strict=True)}


def _prune_tensor(
    draft: Draft, tensor: SourceTensor, sparsity: float, moments: Array | None, mask: Array | None
) -> Change | None:
    """Prune one tensor by a mask, by saliency where there are moments, or by magnitude; None where nothing changes."""
    values = read(tensor)
    before, count = int(np.count_nonzero(values)), round(sparsity * values.size)
    if mask is None and count <= values.size - before:
        return None
    if moments is None:
        chosen = smallest(np.abs(values), count) if mask is None else mask
        made = holding(tensor, np.where(chosen, values.dtype.type(0), values))
        loss, way = relative_error(read(made), values), "by magnitude; loss is that of the weights"
    else:
        made, loss = _by_saliency(tensor, values, moments, sparsity)
        way = "by saliency; loss is that of the response"
    after = int(np.count_nonzero(read(made)))
    if after == before:
        return None
    draft.add_tensor(made)
    what = f"{after} of {values.size} weights are left, of {before} before, {way}"
    return Change(_NAME, tensor.name, what, exact=False, tensors=(tensor.name,), loss=loss)


def _by_saliency(tensor: SourceTensor, values: Array, moments: Array, sparsity: float) -> tuple[SourceTensor, float]:
    """The pruned tensor and the relative error of the response, with its values as they are stored."""
    rows = _matrix(tensor, values)
    groups = moments.shape[0] if moments.ndim == 3 and len(rows) % max(1, moments.shape[0]) == 0 else 1
    known = second_moments.checked(moments, rows.shape[1], groups, tensor.name)
    wanted = rows.reshape(groups, -1, rows.shape[1]).astype(np.float64)
    try:
        found = np.stack([surgeon(part, moment, sparsity) for part, moment in zip(wanted, known, strict=True)])
    except np.linalg.LinAlgError:
        raise UsageError("the second moments of a layer's inputs are no second moments", tensor=tensor.name,
                         expected="a positive semidefinite matrix") from None  # fmt: skip
    made = holding(tensor, _from_matrix(tensor, found.reshape(rows.shape)))
    stored = _matrix(tensor, read(made)).reshape(wanted.shape).astype(np.float64)
    loss = second_moments.response_error(stored, wanted, known)
    if not np.isfinite(stored).all():
        raise UsageError("the moments ask for weights that do not fit the tensor's type", tensor=tensor.name)
    return made, loss


def _matrix(tensor: SourceTensor, values: Array) -> Array:
    """One row for each output (spec/tensors.md §3.1)."""
    order = tensor.order
    viewed = values.reshape(order.view) if order.view else values
    permuted = viewed.transpose(order.perm) if order.perm else viewed
    return permuted.reshape(math.prod(permuted.shape[: order.row_axes]), -1)


def _from_matrix(tensor: SourceTensor, rows: Array) -> Array:
    """The inverse of ``_matrix``."""
    order = tensor.order
    sizes = order.view or tensor.dims
    permuted = rows.reshape([sizes[axis] for axis in order.perm] if order.perm else sizes)
    return (permuted.transpose(np.argsort(order.perm)) if order.perm else permuted).reshape(tensor.dims)
