"""Layers that combine several values of one shape, or values along one axis: Eltwise, Softmax."""

from __future__ import annotations

from mobilemodel_converters.caffe.layers.shapes import agreed, several
from mobilemodel_converters.caffe.schema import enum_name
from mobilemodel_converters.caffe.scope import Scope


def _eltwise(scope: Scope) -> None:
    """Product, sum with a coefficient for each bottom, or maximum; all bottoms have the same shape."""
    parameters = scope.layer.message.eltwise_param
    inputs = several(scope, 2)
    shape = agreed(scope, [value.shape for value in inputs])
    names = [value.name for value in inputs]
    operation, coefficients = enum_name(parameters, "operation"), tuple(parameters.coeff)
    if coefficients and operation != "SUM":
        scope.malformed("coeff", expected="none but for SUM", found=f"{len(coefficients)} of them for {operation}")
    if operation == "MAX":
        scope.emit("Max", names, shape)
    elif operation == "PROD":
        for index, name in enumerate(names[1:-1]):
            names[0] = scope.add("Mul", (names[0], name), f"product{index}")
        scope.emit("Mul", (names[0], names[-1]), shape)
    else:
        scope.emit("Sum", _scaled(scope, names, coefficients), shape)


def _scaled(scope: Scope, names: list[str], coefficients: tuple[float, ...]) -> list[str]:
    """The values, each times its coefficient."""
    if not coefficients:
        return names
    if len(coefficients) != len(names):
        scope.malformed("coeff", expected=f"{len(names)}, one for each bottom", found=len(coefficients))
    return [
        name if factor == 1 else scope.add("Mul", (name, scope.number(factor, f"coeff{index}")), f"scaled{index}")
        for index, (name, factor) in enumerate(zip(names, coefficients, strict=True))
    ]


def _softmax(scope: Scope) -> None:
    """Over one axis, all others apart: ONNX's Softmax means this from opset 13 on."""
    axis = scope.mixed_axis(scope.layer.message.softmax_param.axis, len(scope.input.shape))
    scope.emit("Softmax", (scope.input.name,), scope.input.shape, axis=axis)


RULES = {"Eltwise": _eltwise, "Softmax": _softmax}
