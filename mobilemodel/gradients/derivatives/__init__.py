"""How gradients pass back through the operators of ONNX, each a function; ``DERIVATIVES`` is the table."""

from collections.abc import Mapping

from mobilemodel.gradients.derivatives import elementwise, linear, normalization, pooling, shaping
from mobilemodel.gradients.derivatives.step import Derivative, Operation, Step

DERIVATIVES: Mapping[str, Derivative] = {
    **elementwise.DERIVATIVES,
    **linear.DERIVATIVES,
    **normalization.DERIVATIVES,
    **pooling.DERIVATIVES,
    **shaping.DERIVATIVES,
}
STEADY = frozenset((
    "And", "ArgMax", "ArgMin", "Equal", "Greater", "GreaterOrEqual", "IsInf", "IsNaN", "Less", "LessOrEqual", "Not",
    "Or", "Shape", "Size", "Xor",
))  # fmt: skip
"""operators whose outputs do not follow small changes of their inputs: no gradient passes"""

__all__ = ["DERIVATIVES", "STEADY", "Derivative", "Operation", "Step"]
