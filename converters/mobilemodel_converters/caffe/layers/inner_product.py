"""InnerProduct: the fully connected layer."""

from __future__ import annotations

from mobilemodel.layout import elements_of
from mobilemodel_converters.caffe.scope import Scope


def _inner_product(scope: Scope) -> None:
    """The axes from ``axis`` on become one, which the weight (outputs x inputs) maps to the outputs."""
    parameters, value = scope.layer.message.inner_product_param, scope.input
    axis, outputs = scope.axis(parameters.axis, len(value.shape)), parameters.num_output
    if not outputs:
        scope.malformed("num_output", expected="at least 1", found=outputs)
    inputs = elements_of(scope.known(*value.shape[axis:]))
    dims = (inputs, outputs) if parameters.transpose else (outputs, inputs)
    weight = scope.weight(0, dims, "weight")
    bias = [scope.weight(1, (outputs,), "bias")] if parameters.bias_term else []
    if axis <= 1:
        _as_gemm(scope, axis, [weight, *bias])
    else:
        _as_product(scope, axis, weight, bias)


def _as_gemm(scope: Scope, axis: int, weights: list[str]) -> None:
    """One row for each picture; over axis 0, one row for the whole batch."""
    parameters, value = scope.layer.message.inner_product_param, scope.input
    transposed = int(not parameters.transpose)
    name = value.name
    if axis == 0 or len(value.shape) > 2:
        name = scope.add("Flatten", (name,), axis=axis)
    if axis == 1:
        scope.emit("Gemm", (name, *weights), (value.shape[0], parameters.num_output), transB=transposed)
        return
    scope.fix_batch()
    row = scope.add("Gemm", (name, *weights), transB=transposed)
    scope.emit("Reshape", (row, scope.integers((-1,), "shape")), (parameters.num_output,))


def _as_product(scope: Scope, axis: int, weight: str, bias: list[str]) -> None:
    """The axes before ``axis`` stay, of whatever size: MatMul, which keeps them, where Gemm takes two axes alone."""
    parameters, value = scope.layer.message.inner_product_param, scope.input
    shape = (*value.shape[:axis], parameters.num_output)
    name = value.name
    if len(value.shape) > axis + 1:
        name = scope.add("Reshape", (name, scope.integers((*(0,) * axis, -1), "shape")))
    if not parameters.transpose:
        weight = scope.add("Transpose", (weight,), perm=(1, 0))
    if bias:
        scope.emit("Add", (scope.add("MatMul", (name, weight)), *bias), shape)
    else:
        scope.emit("MatMul", (name, weight), shape)


RULES = {"InnerProduct": _inner_product}
