"""Derivatives of layers with weights: convolutions and matrix products. What is heavy runs in ONNX Runtime."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from mobilemodel.gradients.derivatives.step import Array, Derivative, Operation, Step, unbroadcast, window
from mobilemodel.gradients.derivatives.windows import Windows


def _conv(step: Step) -> Mapping[int, Array]:
    """With respect to the padded input it is the transposed convolution; what lay in the padding falls away."""
    weights = step.input(1)
    windows = Windows.of(step, weights.shape[2:])
    padded = step.kernels.run(
        "ConvTranspose", step.gradient, weights, group=step.attribute("group", 1), strides=windows.strides,
        dilations=windows.dilations,
    )  # fmt: skip
    return {0: window(padded, (0, 0, *windows.begins), step.shape())}


def _conv_transpose(step: Step) -> Mapping[int, Array]:
    """The convolution of the gradient, widened to what the operator had before it cropped its output."""
    weights = step.input(1)
    rank = weights.ndim - 2
    strides = step.attribute("strides") or [1] * rank
    dilations = step.attribute("dilations") or [1] * rank
    begins = (step.attribute("pads") or [0] * rank)[:rank]
    sizes = zip(step.shape()[2:], strides, weights.shape[2:], dilations, strict=True)
    whole = [(size - 1) * stride + (kernel - 1) * dilation + 1 for size, stride, kernel, dilation in sizes]
    widened = window(step.gradient, (0, 0, *(-begin for begin in begins)), (*step.gradient.shape[:2], *whole))
    group = step.attribute("group", 1)
    found = step.kernels.run("Conv", widened, weights, group=group, strides=strides, dilations=dilations)
    return {0: found}


def _conv_transpose_limits(operation: Operation) -> str:
    if operation.attributes.get("auto_pad", b"NOTSET") != b"NOTSET" or "output_shape" in operation.attributes:
        return "its pads are given by a rule, not by numbers"
    return ""


def _gemm(step: Step) -> Mapping[int, Array]:
    gradient = step.gradient
    first, second = step.attribute("transA", 0), step.attribute("transB", 0)
    alpha, run = step.attribute("alpha", 1.0), step.kernels.run
    found: dict[int, Array] = {}
    if 0 in step.wanted and not first:
        found[0] = run("Gemm", gradient, step.input(1), transB=int(not second), alpha=alpha)
    elif 0 in step.wanted:
        found[0] = run("Gemm", step.input(1), gradient, transA=second, transB=1, alpha=alpha)
    if 1 in step.wanted and not second:
        found[1] = run("Gemm", step.input(0), gradient, transA=int(not first), alpha=alpha)
    elif 1 in step.wanted:
        found[1] = run("Gemm", gradient, step.input(0), transA=1, transB=first, alpha=alpha)
    if 2 in step.wanted:
        found[2] = unbroadcast(gradient * np.float32(step.attribute("beta", 1.0)), step.shape(2))
    return found


def _matmul(step: Step) -> Mapping[int, Array]:
    """Vectors are matrices of one row (on the left) or of one column (on the right)."""
    left, right = step.shape(0), step.shape(1)
    rows = left if len(left) > 1 else (1, *left)
    columns = right if len(right) > 1 else (*right, 1)
    gradient = step.gradient
    if len(right) == 1:
        gradient = np.expand_dims(gradient, -1)
    if len(left) == 1:
        gradient = np.expand_dims(gradient, -2)
    found: dict[int, Array] = {}
    if 0 in step.wanted:
        found[0] = _product(step, gradient, step.input(1).reshape(columns), rows, swap=1).reshape(left)
    if 1 in step.wanted:
        found[1] = _product(step, step.input(0).reshape(rows), gradient, columns, swap=0).reshape(right)
    return found


def _product(step: Step, left: Array, right: Array, shape: tuple[int, ...], *, swap: int) -> Array:
    """``left @ right``, one of them transposed, summed over the axes along which the operand was repeated."""
    if swap and right.ndim == 2:
        # Gemm reads the weights transposed, where MatMul would need a copy of them.
        flat = step.kernels.run("Gemm", left.reshape(-1, left.shape[-1]), right, transB=1)
        return unbroadcast(flat.reshape(*left.shape[:-1], -1), shape)
    operands = (left, right.swapaxes(-1, -2)) if swap else (left.swapaxes(-1, -2), right)
    return unbroadcast(step.kernels.run("MatMul", *operands), shape)


DERIVATIVES: dict[str, Derivative] = {
    "Conv": Derivative(_conv, through=(0,), inputs=(1,), shapes=(0,)),
    "ConvTranspose": Derivative(_conv_transpose, through=(0,), inputs=(1,), shapes=(0,), limits=_conv_transpose_limits),
    "Gemm": Derivative(_gemm, through=(0, 1, 2), others=True, shapes=(2,)),
    "MatMul": Derivative(_matmul, others=True, shapes=(0, 1)),
}
