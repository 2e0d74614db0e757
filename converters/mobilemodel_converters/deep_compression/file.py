"""Deep Compression's ``.net`` file: for each layer a codebook, biases, codes of the weights but zeros, and gaps.

    uint32 nz[layers]                          entries of each layer
    for each layer: float32 codebook[2^bits], float32 bias[outputs], codes of bits each, gaps of 4 bits each

The file holds no names and no shapes: they come from the prototxt. Codes have 8 bits where the layer's name contains
``conv``, else 4; of two in a byte, the first is the low one. Everything is little-endian.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from mobilemodel.errors import LimitExceededError, MalformedSourceError
from mobilemodel.layout import ceil_div, elements_of
from mobilemodel.limits import FORMAT_LIMITS
from mobilemodel_converters.sources import OpenedFile

GAP = 15
"""the largest gap; a longer run of zeros takes entries of this gap and code 0 on its way"""
_SPARE = 1 << 24
"""weights beyond what the entries can reach: runs of zeros at the ends of layers"""
_COUNT = 4
Bytes = npt.NDArray[np.uint8]


@dataclass(frozen=True)
class Place:
    """A layer as the prototxt has it."""

    name: str
    dims: tuple[int, ...]
    """of its weight"""
    outputs: int
    """values of its bias"""

    @property
    def bits(self) -> int:
        """Bits of a code."""
        return 8 if "conv" in self.name else 4

    def size(self, entries: int) -> int:
        """Bytes that the layer takes in the file."""
        return 4 * (1 << self.bits) + 4 * self.outputs + ceil_div(entries * self.bits, 8) + ceil_div(entries, 2)


@dataclass(frozen=True)
class Values:
    """A layer as the file has it."""

    codebook: npt.NDArray[np.float32]
    bias: npt.NDArray[np.float32]
    codes: Bytes
    """one for each weight, flat"""
    notes: tuple[str, ...]


def _read_counts(file: OpenedFile, places: Sequence[Place]) -> list[int]:
    """The entries of each layer, checked against the layers' sizes."""
    counts: list[int] = np.frombuffer(file.read(0, _COUNT * len(places)), "<u4").tolist()
    for index, (place, count) in enumerate(zip(places, counts, strict=True)):
        if count > elements_of(place.dims):
            raise MalformedSourceError(
                "more entries than the layer has weights", layer=place.name, offset=_COUNT * index,
                expected=f"at most {elements_of(place.dims)}, for {list(place.dims)}", found=count,
            )  # fmt: skip
    return counts


def read_layers(file: OpenedFile, places: Sequence[Place]) -> list[Values]:
    """All layers of a file.

    Raises MalformedSourceError where the file does not end with the last layer, or a layer breaks the format;
    LimitExceededError where the layers have far more weights than the file can name.
    """
    counts = _read_counts(file, places)
    sizes = [place.size(count) for place, count in zip(places, counts, strict=True)]
    end = _COUNT * len(places) + sum(sizes)
    if end != file.size:
        raise MalformedSourceError(
            f"size of the file, with {len(places)} layers and {sum(counts)} entries", expected=f"{end} bytes",
            found=f"{file.size} bytes", advice="Does the prototxt belong to it?",
        )  # fmt: skip
    _check_weights(places, counts)
    layers = []
    start = _COUNT * len(places)
    for place, count, size in zip(places, counts, sizes, strict=True):
        layers.append(_read_layer(place, count, file.read(start, size), start))
        start += size
    return layers


def _check_weights(places: Sequence[Place], counts: Sequence[int]) -> None:
    """A small file cannot ask for any amount of memory."""
    weights = sum(elements_of(place.dims) for place in places)
    most = min((GAP + 1) * sum(counts) + _SPARE, FORMAT_LIMITS.elements)
    if weights > most:
        raise LimitExceededError("weights of the layers", expected=f"at most {most} for so few entries", found=weights)


def _read_layer(place: Place, count: int, raw: bytes, start: int) -> Values:
    """The layer whose bytes begin at ``start`` of the file."""
    book, bias = 4 * (1 << place.bits), 4 * place.outputs
    codes_size = ceil_div(count * place.bits, 8)
    codebook = np.frombuffer(raw, "<f4", 1 << place.bits)
    wrong = ~np.isfinite(codebook)
    wrong[0] = codebook[0] != 0.0
    if wrong.any():
        entry = int(wrong.argmax())
        raise MalformedSourceError("codebook", layer=place.name, offset=start + 4 * entry,
                                   expected="finite values, the first of them 0",
                                   found=f"{codebook[entry]} at entry {entry}")  # fmt: skip
    packed = np.frombuffer(raw, np.uint8, codes_size, book + bias)
    codes, notes = (packed, []) if place.bits == 8 else _nibbles(packed, count, place, "codes")
    gaps, spare = _nibbles(np.frombuffer(raw, np.uint8, -1, book + bias + codes_size), count, place, "gaps")
    positions = np.cumsum(gaps.astype(np.int64) + 1) - 1
    elements = elements_of(place.dims)
    if count and positions[-1] >= elements:
        raise MalformedSourceError("position of the last entry", layer=place.name, offset=start + book + bias,
                                   expected=f"below {elements}", found=int(positions[-1]))  # fmt: skip
    odd = int(np.count_nonzero((codes == 0) & (gaps != GAP)))
    if odd:
        notes.append(f"{place.name}: {odd} entries name the value 0 though they bridge no run of zeros")
    dense = np.zeros(elements, np.uint8)
    dense[positions] = codes
    return Values(codebook, np.frombuffer(raw, "<f4", place.outputs, book), dense, (*notes, *spare))


def _nibbles(packed: Bytes, count: int, place: Place, what: str) -> tuple[Bytes, list[str]]:
    """Values of 4 bits, the low ones first; the spare one of an odd count is left out, and said where it is not 0."""
    values = np.empty(2 * packed.size, np.uint8)
    values[0::2], values[1::2] = packed & 15, packed >> 4
    note = f"{place.name}: the spare bits of its {what} are not zero; they were left out"
    return values[:count], [note] if values[count:].any() else []
