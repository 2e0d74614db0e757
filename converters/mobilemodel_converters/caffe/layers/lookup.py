"""Layers whose output is learned: Embed, Parameter."""

from __future__ import annotations

from mobilemodel.dtypes import DType
from mobilemodel_converters.caffe.scope import Scope


def _embed(scope: Scope) -> None:
    """Row i of the weight for each value i, plus the bias."""
    parameters, shape = scope.layer.message.embed_param, scope.input.shape
    rows, width = parameters.input_dim, parameters.num_output
    if rows < 1 or width < 1:
        scope.malformed("input_dim and num_output", expected="1 or more", found=(rows, width))
    weight = scope.weight(0, (rows, width), "weight")
    indices = scope.add("Cast", (scope.input.name,), "indices", to=int(DType.INT64))
    if not parameters.bias_term:
        scope.emit("Gather", (weight, indices), (*shape, width), axis=0)
        return
    found = scope.add("Gather", (weight, indices), "rows", axis=0)
    scope.emit("Add", (found, scope.weight(1, (width,), "bias")), (*shape, width))


def _parameter(scope: Scope) -> None:
    """A learned value as it is, for layers that take their weights from a bottom."""
    if scope.inputs:
        scope.malformed("bottoms", expected=0, found=len(scope.inputs))
    shape = tuple(scope.layer.message.parameter_param.shape.dim)
    if any(size < 1 for size in shape):
        scope.malformed("shape", expected="sizes of 1 or more", found=shape)
    scope.fix_batch()
    # A sum of one: whatever takes the value, the weight itself is a data input and may leave the graph.
    scope.emit("Sum", (scope.weight(0, shape, "weight"),), shape)


RULES = {"Embed": _embed, "Parameter": _parameter}
