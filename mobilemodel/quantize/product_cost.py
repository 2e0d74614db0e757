"""What product codebooks cost before any is made: bytes, and multiply-adds of a run that uses them as they are.

Wu et al. 2016 compute with codes directly: the products of each input sub-vector with the entries of its table are
computed once, and every output then adds one of them for each of its codes.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import NamedTuple

from mobilemodel.errors import UsageError
from mobilemodel.quantize.product_parts import Shape, shape_of

_HALF = 2
_CODED = 0.99
"""size of entropy-coded codes over their number times log2 of the entries: no table is used quite evenly"""
FC_CHOICES = ((1, 16), (2, 16), (2, 32), (4, 8), (4, 16), (4, 32), (4, 64), (4, 128), (4, 256), (8, 64), (8, 256))
CONV_CHOICES = ((1, 16), (2, 16), (2, 64), (2, 256), (4, 64), (4, 128), (4, 256), (8, 128), (8, 256))


class TheoreticalCost(NamedTuple):
    """Operations of one run of a layer."""

    multiply_adds: int
    """of the layer as it is"""
    table_multiply_adds: int
    """of inputs with entries of tables"""
    additions: int
    """of such products, one for each code of each output"""

    @property
    def speed_up(self) -> float:
        """Operations of the layer as it is over those with tables; an addition counts as much as a multiply-add."""
        return self.multiply_adds / max(self.table_multiply_adds + self.additions, 1)


@dataclass(frozen=True)
class ProductOption:
    """A choice of product codebooks for a weight."""

    vector: int
    entries: int
    shared: bool
    """one table for all sub-vectors"""
    bytes: float
    """predicted: codes at almost their bits, tables in float16"""


def theoretical_cost(
    rows: int,
    columns: int,
    *,
    vector: int,
    entries: int,
    segment: int = 0,
    groups: int = 1,
    input_positions: int = 1,
    output_positions: int = 1,
) -> TheoreticalCost:
    """Operations of a layer by its matrix of codes, as ``quantize_product`` cuts it.

    A fully connected layer has one position. A convolution has height x width of its input and output, and each input
    position's products serve all kernel positions that meet it. Codebooks of one table cost as much as others.

    >>> theoretical_cost(4096, 9216, vector=4, entries=32)
    TheoreticalCost(multiply_adds=37748736, table_multiply_adds=294912, additions=9437184)
    """
    shape = shape_of(rows, columns, vector, entries, segment, shared=False)
    if groups < 1 or rows % groups or input_positions < 1 or output_positions < 1:
        raise UsageError("groups and positions of a layer", expected="1 or more, groups that divide its rows",
                         found=f"{groups} groups of {rows} rows, {input_positions} and {output_positions}")  # fmt: skip
    return TheoreticalCost(
        rows * columns * output_positions,
        groups * shape.segment * shape.entries * input_positions,
        rows * shape.codes_per_row * output_positions,
    )


def product_options(rows: int, columns: int, *, segment: int = 0) -> tuple[ProductOption, ...]:
    """Sensible choices for a weight, each smaller than float16, by rising predicted bytes.

    ``segment``, where there is one, says that it is a convolution. Tables of their own are offered where they take at
    most a quarter of the bytes of the codes; beyond, more entries in one shared table reach less error.
    """
    choices = CONV_CHOICES if segment else FC_CHOICES
    found = {}
    for vector, entries in choices:
        for shared in (False, True):
            shape = shape_of(rows, columns, vector, entries, segment, shared)
            if (shape.vector, shape.entries) == (vector, entries):
                option = _option(shape)
                tables = _table_bytes(shape)
                if option.bytes < _HALF * rows * columns and (shared or 4 * tables <= option.bytes - tables):
                    found[vector, entries, shared] = option
    return tuple(sorted(found.values(), key=lambda option: (option.bytes, option.vector, option.shared)))


def default_option(rows: int, columns: int, *, segment: int = 0, last: bool = False) -> ProductOption:
    """What the scheme ``qcnn`` takes.

    Sub-vectors of 4 with 32 entries for FC, of 1 with 16 for the ``last`` FC, as Wu et al. 2016. For a convolution they
    took 8 with 128, which costs small ones more in tables than in codes: here 4 with 256 entries in one table. FC
    weights whose own tables would take more than a quarter of their codes have one table of 256, too.
    """
    if last:
        own, pooled = (1, 16), (1, 16)
    else:
        own, pooled = (4, 32), (4, 256)
    shape = shape_of(rows, columns, *own, segment, shared=False)
    option = _option(shape)
    tables = _table_bytes(shape)
    if segment or 4 * tables > option.bytes - tables:
        return _option(shape_of(rows, columns, *pooled, segment, shared=True))
    return option


def _table_bytes(shape: Shape) -> int:
    return _HALF * shape.tables * shape.entries * shape.vector


def _option(shape: Shape) -> ProductOption:
    codes = shape.rows * shape.codes_per_row * math.log2(shape.entries) * _CODED / 8
    return ProductOption(shape.vector, shape.entries, shape.shared, codes + _table_bytes(shape))
