"""Derivatives of operators that work value by value."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence

import numpy as np

from mobilemodel.errors import UnsupportedSourceError
from mobilemodel.gradients.derivatives.step import EVERY, Array, Derivative, Operation, Step, unbroadcast

_SELU_ALPHA, _SELU_GAMMA = 1.67326319217681884765625, 1.05070102214813232421875
"""defaults of the ONNX specification"""
_FLOATS = frozenset((1, 10, 11, 16))
"""onnx.TensorProto: FLOAT, FLOAT16, DOUBLE, BFLOAT16"""


def _by_input(slope: Callable[[Array], Array]) -> Derivative:
    return Derivative(lambda step: {0: step.gradient * slope(step.input(0))}, through=(0,), inputs=(0,))


def _by_output(slope: Callable[[Array], Array]) -> Derivative:
    return Derivative(lambda step: {0: step.gradient * slope(step.output())}, through=(0,), output=True)


def _by_step(slope: Callable[[Step], Array], inputs: Sequence[int] = (0,), *, output: bool = False) -> Derivative:
    """Of operators whose slope depends on attributes or on further inputs."""
    return Derivative(lambda step: {0: step.gradient * slope(step)}, through=(0,), inputs=inputs, output=output)


def _unchanged(step: Step) -> Mapping[int, Array]:
    return {0: step.gradient}


def _dropout(step: Step) -> Mapping[int, Array]:
    training = step.optional(2)
    if training is not None and training.any():
        raise UnsupportedSourceError("Dropout in training mode", layer=step.operation.outputs[0])
    return {0: step.gradient}


def _cast_limits(operation: Operation) -> str:
    return "" if operation.attributes.get("to") in _FLOATS else "a cast to integers has no derivative"


def _elu(step: Step) -> Array:
    x = step.input(0)
    return np.where(x > 0, np.float32(1), step.attribute("alpha", 1.0) * np.exp(np.minimum(x, 0)))


def _selu(step: Step) -> Array:
    x, gamma = step.input(0), np.float32(step.attribute("gamma", _SELU_GAMMA))
    return np.where(x > 0, gamma, gamma * step.attribute("alpha", _SELU_ALPHA) * np.exp(np.minimum(x, 0)))


def _gelu(step: Step) -> Array:
    x = step.input(0)
    if step.attribute("approximate", b"none") == b"tanh":
        scale, cubic = math.sqrt(2 / math.pi), 0.044715
        bent = np.tanh(scale * (x + cubic * x**3))
        return np.asarray(0.5 * (1 + bent) + 0.5 * x * (1 - bent**2) * scale * (1 + 3 * cubic * x**2))
    below = 0.5 * (1 + step.kernels.run("Erf", x * np.float32(math.sqrt(0.5))))
    return np.asarray(below + x * np.exp(-0.5 * x**2) / np.float32(math.sqrt(2 * math.pi)))


def _prelu(step: Step) -> Array:
    return np.where(step.input(0) < 0, step.input(1), np.float32(1))


def _leaky_relu(step: Step) -> Array:
    return np.where(step.input(0) < 0, np.float32(step.attribute("alpha", 0.01)), np.float32(1))


def _clip(step: Step) -> Array:
    low, high = step.optional(1), step.optional(2)
    above = step.output() > (step.attribute("min", -np.inf) if low is None else low)
    return above & (step.output() < (step.attribute("max", np.inf) if high is None else high))


def _hard_sigmoid(step: Step) -> Array:
    y = step.output()
    return np.float32(step.attribute("alpha", 0.2)) * ((y > 0) & (y < 1))


def _hard_swish(x: Array) -> Array:
    return np.where(x <= -3, np.float32(0), np.where(x >= 3, np.float32(1), (2 * x + 3) / 6))


def _pow(step: Step) -> Mapping[int, Array]:
    x, exponent = step.input(0), step.input(1).astype(np.float32)
    slope = np.where(exponent == 0, np.float32(0), exponent * x ** (exponent - 1))
    return {0: unbroadcast(step.gradient * slope, step.shape(0))}


def _add(step: Step) -> Mapping[int, Array]:
    return {index: unbroadcast(step.gradient, step.shape(index)) for index in step.wanted}


def _mean(step: Step) -> Mapping[int, Array]:
    share = step.gradient / len(step.operation.inputs)
    return {index: unbroadcast(share, step.shape(index)) for index in step.wanted}


def _sub(step: Step) -> Mapping[int, Array]:
    signed = (step.gradient, -step.gradient)
    return {index: unbroadcast(signed[index], step.shape(index)) for index in step.wanted}


def _mul(step: Step) -> Mapping[int, Array]:
    return {index: unbroadcast(step.gradient * step.input(1 - index), step.shape(index)) for index in step.wanted}


def _div(step: Step) -> Mapping[int, Array]:
    share = step.gradient / step.input(1)
    return {index: unbroadcast(-share * step.output() if index else share, step.shape(index)) for index in step.wanted}


def _extreme(step: Step) -> Mapping[int, Array]:
    """Max and Min: all to the first operand that holds the extreme."""
    found: dict[int, Array] = {}
    left = step.gradient
    for index in range(len(step.operation.inputs)):
        share = left * (step.input(index) == step.output())
        left = left - share
        if index in step.wanted:
            found[index] = unbroadcast(share, step.shape(index))
    return found


def _where(step: Step) -> Mapping[int, Array]:
    shares = {index: step.gradient * (step.input(0) == (index == 1)) for index in step.wanted}
    return {index: unbroadcast(share, step.shape(index)) for index, share in shares.items()}


def _old_broadcast(operation: Operation) -> str:
    return "its broadcasting is that of opset 6 and before" if "broadcast" in operation.attributes else ""


def _training_attribute(operation: Operation) -> str:
    return "" if operation.opset >= 7 or operation.attributes.get("is_test") else "it may be in training mode"


DERIVATIVES: dict[str, Derivative] = {
    "Abs": _by_input(lambda x: np.sign(x)),
    "Add": Derivative(_add, shapes=EVERY, limits=_old_broadcast),
    "Cast": Derivative(_unchanged, limits=_cast_limits),
    "Clip": _by_step(_clip, (1, 2), output=True),
    "Div": Derivative(_div, inputs=(1,), output=True, shapes=EVERY, limits=_old_broadcast),
    "Dropout": Derivative(_dropout, through=(0,), inputs=(2,), limits=_training_attribute),
    "Elu": _by_step(_elu),
    "Erf": _by_input(lambda x: np.float32(2 / math.sqrt(math.pi)) * np.exp(-(x**2))),
    "Exp": _by_output(lambda y: y),
    "Gelu": _by_step(_gelu),
    "HardSigmoid": _by_step(_hard_sigmoid, (), output=True),
    "HardSwish": _by_input(_hard_swish),
    "Identity": Derivative(_unchanged),
    "LeakyRelu": _by_step(_leaky_relu),
    "Log": _by_input(lambda x: 1 / x),
    "Max": Derivative(_extreme, inputs=EVERY, output=True, shapes=EVERY),
    "Mean": Derivative(_mean, shapes=EVERY),
    "Min": Derivative(_extreme, inputs=EVERY, output=True, shapes=EVERY),
    "Mul": Derivative(_mul, others=True, shapes=EVERY, limits=_old_broadcast),
    "Neg": Derivative(lambda step: {0: -step.gradient}),
    "PRelu": _by_step(_prelu, (0, 1)),
    "Pow": Derivative(_pow, through=(0,), inputs=EVERY, shapes=(0,), limits=_old_broadcast),
    "Reciprocal": _by_output(lambda y: -(y**2)),
    "Relu": _by_output(lambda y: y > 0),
    "Selu": _by_step(_selu),
    "Sigmoid": _by_output(lambda y: y * (1 - y)),
    "Softplus": _by_output(lambda y: -np.expm1(-y)),
    "Softsign": _by_output(lambda y: (1 - np.abs(y)) ** 2),
    "Sqrt": _by_output(lambda y: 0.5 / y),
    "Sub": Derivative(_sub, shapes=EVERY, limits=_old_broadcast),
    "Sum": Derivative(_add, shapes=EVERY),
    "Tanh": _by_output(lambda y: 1 - y**2),
    "Where": Derivative(_where, through=(1, 2), inputs=(0,), shapes=EVERY),
}
