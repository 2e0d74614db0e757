"""Schemes: which rule each tensor gets, by its role and its place among the weights of that role."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from mobilemodel.errors import PlanError
from mobilemodel.model import WEIGHT_ROLES, Role, SourceTensor

LOSSLESS, FLOAT16, PALETTE, AFFINE, RATE_DISTORTION = "lossless", "float16", "palette", "affine", "rate-distortion"
PRODUCT = "product"
ENCODINGS = (LOSSLESS, FLOAT16, PALETTE, AFFINE, RATE_DISTORTION, PRODUCT)
FITTED = frozenset((RATE_DISTORTION, PRODUCT))
"""what calibration data can choose codes for"""
DEFAULT_PRICE = 0.2
SMALLEST_PRICE, LARGEST_PRICE = 1e-15, 1e3
LARGEST_SQNR = 60.0
"""dB; above, float16 is no larger"""


@dataclass(frozen=True)
class Rule:
    """What is to be done to a tensor: ``entries`` of a palette, ``bits`` of affine codes, a palette's ``price`` or
    ``sqnr``."""

    encoding: str
    entries: int = 0
    bits: int = 0
    price: float = 0.0
    """error that a bit for each weight of the network is worth, relative to a tensor's sum of squares"""
    sqnr: float = 0.0
    """dB that the weights must keep, instead of a price"""
    share: float = 1.0
    """the tensor's share of the network's weights, where a price is given"""
    vector: int = 0
    """values that one code of product codebooks stands for; 0: the scheme's own choice, as for ``entries`` of 0"""
    typical_rms: float = 0.0
    """root mean square of as many weights with the network's typical sum of squares; 0: not known"""

    def __str__(self) -> str:
        if self.encoding == PALETTE:
            return f"palette of {self.entries}"
        if self.encoding == PRODUCT:
            return "product codebooks"
        if self.encoding == RATE_DISTORTION:
            return f"palette at {self.sqnr:g} dB" if self.sqnr else f"palette at price {self.price:g}"
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


def auto(price: float) -> Scheme:
    """Weights in palettes with the least error + price x bits."""

    def scheme(tensor: SourceTensor, _fc_weights: int) -> Rule:
        return Rule(RATE_DISTORTION, price=price) if tensor.role in WEIGHT_ROLES else KEEP

    return scheme


def qcnn(tensor: SourceTensor, fc_weights: int) -> Rule:
    """Product codebooks for FC and convolutions (Wu et al. 2016); the last FC has a table of 16 for each input."""
    if tensor.role is Role.FC and tensor.rank_in_role == fc_weights - 1 > 0:
        return Rule(PRODUCT, entries=16, vector=1)
    if tensor.role in (Role.FC, Role.CONV):
        return Rule(PRODUCT)
    return HALF if tensor.role in WEIGHT_ROLES else KEEP


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
    "auto": auto(DEFAULT_PRICE),
    "qcnn": qcnn,
}
DEFAULT_SCHEME = "auto"


def scheme_named(name: str) -> Scheme:
    """The scheme called ``name``. Raises PlanError with the known names."""
    try:
        return SCHEMES[name]
    except KeyError:
        raise PlanError("no such scheme", expected=", ".join(SCHEMES), found=name) from None
