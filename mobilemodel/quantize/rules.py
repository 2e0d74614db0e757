"""Schemes: which rule each tensor gets, by its role and its place among the weights of that role."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from mobilemodel.errors import PlanError
from mobilemodel.model import WEIGHT_ROLES, Role, SourceTensor

LOSSLESS, FLOAT16, PALETTE, AFFINE = "lossless", "float16", "palette", "affine"
ENCODINGS = (LOSSLESS, FLOAT16, PALETTE, AFFINE)


@dataclass(frozen=True)
class Rule:
    """What is to be done to a tensor: ``entries`` of a palette, ``bits`` of affine codes."""

    encoding: str
    entries: int = 0
    bits: int = 0

    def __str__(self) -> str:
        if self.encoding == PALETTE:
            return f"palette of {self.entries}"
        return f"affine {self.bits} bit" if self.encoding == AFFINE else self.encoding


KEEP = Rule(LOSSLESS)
HALF = Rule(FLOAT16)


def palette(bits: int) -> Rule:
    """One table of 2^bits entries for the tensor."""
    return Rule(PALETTE, entries=1 << bits)


Scheme = Callable[[SourceTensor, int], Rule]
"""(tensor, number of FC weights) -> rule"""


def lossless(_tensor: SourceTensor, _fc_weights: int) -> Rule:
    """Every tensor bit for bit."""
    return KEEP


def fp16(tensor: SourceTensor, _fc_weights: int) -> Rule:
    """Weights, and other tensors of two axes and more, as float16; vectors (biases, statistics) as they are."""
    return HALF if tensor.role in WEIGHT_ROLES or len(tensor.dims) >= 2 else KEEP


def int8(tensor: SourceTensor, _fc_weights: int) -> Rule:
    """Weights in 8-bit affine codes, one scale for each output."""
    return Rule(AFFINE, bits=8) if tensor.role in WEIGHT_ROLES else KEEP


def _kmeans(bits: int) -> Scheme:
    def scheme(tensor: SourceTensor, _fc_weights: int) -> Rule:
        if tensor.role is Role.CONV:
            return HALF
        return palette(bits) if tensor.role in WEIGHT_ROLES else KEEP

    return scheme


def _palette(bits: int) -> Scheme:
    def scheme(tensor: SourceTensor, _fc_weights: int) -> Rule:
        return palette(bits) if tensor.role in WEIGHT_ROLES else KEEP

    return scheme


def mixed_4_8(tensor: SourceTensor, fc_weights: int) -> Rule:
    """Klaus's mix: the first FC weight 4 bit where there are two at least, all others 8 bit, convolutions float16."""
    if tensor.role is Role.CONV:
        return HALF
    if tensor.role is Role.FC and tensor.rank_in_role == 0 and fc_weights >= 2:
        return palette(4)
    return palette(8) if tensor.role in WEIGHT_ROLES else KEEP


SCHEMES: dict[str, Scheme] = {
    "lossless": lossless,
    "fp16": fp16,
    "int8": int8,
    "kmeans-8": _kmeans(8),
    "kmeans-4": _kmeans(4),
    "kmeans-2": _kmeans(2),
    "kmeans-1": _kmeans(1),
    "mixed-4-8": mixed_4_8,
    "palette-8": _palette(8),
    "palette-6": _palette(6),
    "palette-4": _palette(4),
}
DEFAULT_SCHEME = "mixed-4-8"


def scheme_named(name: str) -> Scheme:
    """The scheme called ``name``. Raises PlanError with the known names."""
    try:
        return SCHEMES[name]
    except KeyError:
        raise PlanError("no such scheme", expected=", ".join(SCHEMES), found=name) from None
