"""Giving a layer another bias: its own with new values, a new one, or for a MatMul an Add behind it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy.typing as npt

from mobilemodel.graphs import title
from mobilemodel.model import SourceTensor
from mobilemodel.transforms.draft import Draft, Reference
from mobilemodel.transforms.layers import GEMM, MATMUL, Layer
from mobilemodel.transforms.values import holding

if TYPE_CHECKING:
    import onnx

Array = npt.NDArray[Any]


def set_bias(draft: Draft, layer: Layer, values: Array, result: str) -> str:
    """Let a layer add ``values`` (one for each output, as they are added) and give ``result``.

    A MatMul gets an Add behind it, whatever follows. Returns the tensor's name; a bias that the layer no longer uses
    is the caller's to remove.
    """
    tensor = _tensor(draft, layer, values)
    draft.add_tensor(tensor)
    node = layer.node
    if layer.operator == MATMUL:
        _add_behind(draft, node, tensor.name, result)
        return tensor.name
    draft.set_inputs(node, 2, [tensor.name])
    node.output[0] = result
    if layer.operator == GEMM:
        kept = [attribute for attribute in node.attribute if attribute.name != "beta"]
        del node.attribute[:]
        node.attribute.extend(kept)
    return tensor.name


def bias_name(draft: Draft, weight: str) -> str:
    """A name for the bias that goes with a weight.

    ``conv1.weight`` has ``conv1.bias``, or ``conv1.bias_2`` where that is taken.
    """
    return draft.fresh(f"{weight.removesuffix('.weight')}.bias")


def _tensor(draft: Draft, layer: Layer, values: Array) -> SourceTensor:
    known = draft.tensors.get(layer.bias)
    own = known is not None and isinstance(draft.reference(layer.bias), Reference)
    if known is not None and own and draft.only_use(layer.bias) and len(known.dims) == 1:
        return holding(known, values)
    weight = layer.weight.tensor
    return holding(SourceTensor(bias_name(draft, weight.name), weight.dtype, values.shape, bytes), values)


def _add_behind(draft: Draft, node: onnx.NodeProto, bias: str, result: str) -> None:
    from onnx import helper

    inner = draft.fresh(node.output[0])
    if result in draft.shapes:
        draft.shapes[inner] = draft.shapes[result]
    node.output[0] = inner
    draft.insert_behind(node, helper.make_node("Add", [inner, bias], [result], name=f"{title(node)}.bias"))
