"""Layers that work value by value with one input: ReLU and its kin, powers, exponentials, thresholds, identities."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from mobilemodel.dtypes import DType
from mobilemodel_converters.caffe.layers.shapes import per_channel
from mobilemodel_converters.caffe.scope import Scope

Step = tuple[str, float | None]
"""an operator, and its second operand where it takes one"""
_OPERANDS = {"Mul": "factor", "Add": "shift", "Pow": "power"}


def _plain(operator: str) -> Callable[[Scope], None]:
    """The rule of a layer that is one ONNX operator without parameters."""

    def rule(scope: Scope) -> None:
        scope.emit(operator, (scope.input.name,), scope.input.shape)

    return rule


def _identity(scope: Scope) -> None:
    """Dropout and Split change nothing when a network is used: Caffe rescales in training."""
    for _ in scope.layer.tops:
        scope.alias(scope.input)


def _silence(scope: Scope) -> None:
    """Takes values that nobody wants, and makes none."""


def _relu(scope: Scope) -> None:
    slope = scope.layer.message.relu_param.negative_slope
    if slope:
        scope.emit("LeakyRelu", (scope.input.name,), scope.input.shape, alpha=slope)
    else:
        scope.emit("Relu", (scope.input.name,), scope.input.shape)


def _prelu(scope: Scope) -> None:
    """A slope for each channel, or one for all."""
    value = scope.input
    if len(value.shape) < 2:
        scope.malformed("an input", expected="2 axes or more", found=value.shape)
    dims = (1,) if scope.layer.message.prelu_param.channel_shared else per_channel(scope, value)
    scope.emit("PRelu", (value.name, scope.weight(0, dims, "slope")), value.shape)


def _elu(scope: Scope) -> None:
    scope.emit("Elu", (scope.input.name,), scope.input.shape, alpha=scope.layer.message.elu_param.alpha)


def _swish(scope: Scope) -> None:
    """x sigmoid(beta x)."""
    value = scope.input
    beta, inner = scope.layer.message.swish_param.beta, value.name
    if beta != 1:
        inner = scope.add("Mul", (inner, scope.number(beta, "beta")), "scaled")
    scope.emit("Mul", (value.name, scope.add("Sigmoid", (inner,))), value.shape)


def _clip(scope: Scope) -> None:
    parameters = scope.layer.message.clip_param
    if not (parameters.HasField("min") and parameters.HasField("max")):
        scope.malformed("clip_param", expected="min and max")
    if not parameters.min <= parameters.max:
        scope.malformed("min", expected=f"at most max, {parameters.max}", found=parameters.min)
    _clip_to(scope, parameters.min, parameters.max)


def _relu6(scope: Scope) -> None:
    _clip_to(scope, 0, 6)


def _clip_to(scope: Scope, least: float, most: float) -> None:
    bounds = scope.number(least, "min"), scope.number(most, "max")
    scope.emit("Clip", (scope.input.name, *bounds), scope.input.shape)


def _threshold(scope: Scope) -> None:
    """1 where x is above the threshold, else 0."""
    value = scope.input
    threshold = scope.number(scope.layer.message.threshold_param.threshold, "threshold")
    scope.emit("Cast", (scope.add("Greater", (value.name, threshold)),), value.shape, to=int(DType.FLOAT))


def _power(scope: Scope) -> None:
    """(shift + scale x)^power; where power or scale is 0, Caffe takes the constant and leaves x alone."""
    parameters = scope.layer.message.power_param
    power, scale = np.float32(parameters.power), np.float32(parameters.scale)
    with np.errstate(all="ignore"):
        depends = power * scale != 0
        constant = np.power(np.float32(parameters.shift), power)
    if not depends:
        _emit_constant(scope, constant)
        return
    _emit_steps(scope, [*_affine(parameters.scale, parameters.shift), *_unless(1, "Pow", parameters.power)])


def _exp(scope: Scope) -> None:
    """base^(shift + scale x), computed as Caffe does: exp(scale ln(base) x) base^shift."""
    parameters = scope.layer.message.exp_param
    log_base = _log_base(scope, parameters.base)
    with np.errstate(all="ignore"):
        inner = float(np.float32(parameters.scale) * log_base)
        outer = float(np.exp(np.float32(parameters.shift) * log_base))
    _emit_steps(scope, [*_unless(1, "Mul", inner), ("Exp", None), *_unless(1, "Mul", outer)])


def _log(scope: Scope) -> None:
    """The logarithm of shift + scale x, to a base."""
    parameters = scope.layer.message.log_param
    log_base = _log_base(scope, parameters.base)
    if not log_base:
        scope.malformed("base", expected="a base other than 1", found=parameters.base)
    inner = _affine(parameters.scale, parameters.shift)
    _emit_steps(scope, [*inner, ("Log", None), *_unless(1, "Mul", float(1 / log_base))])


def _log_base(scope: Scope, base: float) -> np.float32:
    """The natural logarithm of a base; -1 stands for e."""
    if base == -1:
        return np.float32(1)
    if not 0 < base < np.inf:
        scope.malformed("base", expected="-1, for e, or a positive number", found=base)
    return np.float32(np.log(np.float64(base)))


def _affine(scale: float, shift: float) -> list[Step]:
    """shift + scale x."""
    return [*_unless(1, "Mul", scale), *_unless(0, "Add", shift)]


def _unless(neutral: float, operator: str, operand: float) -> list[Step]:
    """A step, left out where its operand changes nothing."""
    return [] if operand == neutral else [(operator, operand)]


def _emit_steps(scope: Scope, steps: list[Step]) -> None:
    """The input with each step done to it in turn."""
    if not steps:
        scope.alias(scope.input)
        return
    name = scope.input.name
    for place, (operator, operand) in enumerate(steps):
        inputs = (name,) if operand is None else (name, scope.number(operand, _OPERANDS[operator]))
        if place == len(steps) - 1:
            scope.emit(operator, inputs, scope.input.shape)
        else:
            name = scope.add(operator, inputs)


def _emit_constant(scope: Scope, constant: np.float32) -> None:
    """One value everywhere, in the shape of the input."""
    from onnx import numpy_helper

    shape = scope.add("Shape", (scope.input.name,))
    value = numpy_helper.from_array(np.array([constant], np.float32))
    scope.emit("ConstantOfShape", (shape,), scope.input.shape, value=value)


RULES = {
    "ReLU": _relu,
    "ReLU6": _relu6,
    "PReLU": _prelu,
    "ELU": _elu,
    "Swish": _swish,
    "Sigmoid": _plain("Sigmoid"),
    "TanH": _plain("Tanh"),
    "AbsVal": _plain("Abs"),
    "BNLL": _plain("Softplus"),
    "Clip": _clip,
    "Threshold": _threshold,
    "Power": _power,
    "Exp": _exp,
    "Log": _log,
    "Dropout": _identity,
    "Split": _identity,
    "Silence": _silence,
}
