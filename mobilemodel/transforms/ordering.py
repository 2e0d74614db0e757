"""order_units(): the units of a layer by falling weight, so that neighbouring rows cost alike.

Streams of codes are entropy coded block by block, each block with tables of its own. Where busy rows stand beside busy
ones and quiet beside quiet, the tables fit better. Which unit of a hidden layer is the first means nothing to the
network: the rows of one layer and the columns of those that take it are put in another order together.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from mobilemodel.model import Model
from mobilemodel.transforms.draft import Draft
from mobilemodel.transforms.layers import CONV, CONV_TRANSPOSE, Layer, find_layer
from mobilemodel.transforms.paths import Path, bias_node, paths_from
from mobilemodel.transforms.report import Change, Kept, Transformed
from mobilemodel.transforms.units import by_unit, taken

Order = npt.NDArray[np.int64]
_NAME = "order_units"


def order_units(model: Model) -> Transformed:
    """Put the units of hidden layers in the order of their weights' norms, the largest first.

    Done for Conv (of one group), Gemm and MatMul whose outputs reach other such layers through activations, pools and
    Flatten alone. The network computes the same but for the order in which sums are taken.
    """
    draft = Draft(model)
    if draft.obstacle:
        return Transformed(model, (), (Kept("", draft.obstacle),))
    changes, kept = [], []
    for node in list(draft.nodes):
        layer = find_layer(draft, node)
        if isinstance(layer, Layer) and layer.operator != CONV_TRANSPOSE and layer.groups == 1:
            found = _ordered(draft, layer)
            if isinstance(found, Change):
                changes.append(found)
            elif found:
                kept.append(Kept(layer.title, found))
    return draft.finish(_NAME, changes, kept)


def _ordered(draft: Draft, layer: Layer) -> Change | str:
    """Order one layer's units; or why not, empty where they are in order."""
    added = bias_node(draft, layer)
    bias = _own_bias(draft, layer) if added is None else next(name for name in added.input if name in draft.tensors)
    if bias is None:
        return "its bias belongs to others too, or has not one value for each unit"
    start = added.output[0] if added is not None else layer.node.output[0]
    paths = paths_from(draft, start, layer.outputs, layer.operator == CONV)
    if isinstance(paths, str):
        return paths
    uses = draft.final_uses(layer.weight.tensor.name)
    if uses is None or len(uses) != 1:
        return f"'{layer.weight.tensor.name}' is used elsewhere too"
    order = _falling(by_unit(layer))
    if not paths or np.array_equal(order, np.arange(layer.outputs)):
        return ""
    axis = 0 if layer.operator == CONV or layer.transposed else 1
    draft.add_tensor(taken(layer.weight.tensor, layer.weight.axes[axis], order))
    tensors = [layer.weight.tensor.name]
    if bias:
        draft.add_tensor(taken(draft.tensors[bias], 0, order))
        tensors.append(bias)
    return Change(_NAME, layer.title, f"{layer.outputs} units by falling norm of their weights", exact=True,
                  tensors=(*tensors, *(_take(draft, path, order) for path in paths)))  # fmt: skip


def _own_bias(draft: Draft, layer: Layer) -> str | None:
    """The name of the layer's bias, empty where there is none; None where it cannot be put in another order."""
    if not layer.bias:
        return ""
    tensor = draft.tensors.get(layer.bias)
    own = tensor is not None and tensor.dims == (layer.outputs,) and tensor.quantized is None
    return layer.bias if own and draft.only_use(layer.bias) is not None else None


def _falling(rows: npt.NDArray[Any]) -> Order:
    norms = np.square(rows, dtype=np.float64).sum(axis=1)
    return np.argsort(-norms, kind="stable")


def _take(draft: Draft, path: Path, order: Order) -> str:
    """Put the columns of a layer that takes the units in their order; returns its weight's name."""
    # The layer may have been changed on another path: its tensor is looked up anew.
    weight = path.taker.weight
    columns = (order[:, None] * path.spread + np.arange(path.spread)).reshape(-1)
    axis = 1 if path.taker.operator == CONV or path.taker.transposed else 0
    draft.add_tensor(taken(draft.tensors[weight.tensor.name], weight.axes[axis], columns))
    return weight.tensor.name
