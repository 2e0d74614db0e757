"""Values that a source holds quantized, as palettes: the same codes and tables (spec/tensors.md §5)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from mobilemodel.layout import elements_of
from mobilemodel.model import QuantizedValue
from mobilemodel.v1 import bundle_pb2 as pb


def palette_value(
    codes: npt.NDArray[np.uint8],
    tables: npt.NDArray[Any],
    dims: Sequence[int],
    *,
    view: Sequence[int] = (),
    perm: Sequence[int] = (),
    segment: int = 0,
    tables_by: tuple[int, int] = (0, 0),
) -> QuantizedValue:
    """A tensor of ``dims`` as codes and tables; the first axis of its matrix makes the rows.

    ``codes`` are of any shape, in the order of the matrix; ``tables`` are tables x entries x values of a code;
    ``tables_by`` is how many rows and codes of a row share a table, 0 for all of them.

    >>> value = palette_value(np.arange(6, dtype=np.uint8), np.zeros((2, 6, 1)), (2, 3), tables_by=(1, 0))
    >>> value.codes.tolist()
    [[0, 1, 2], [3, 4, 5]]
    """
    sizes = [(view or dims)[axis] for axis in perm or range(len(view or dims))]
    row_axes = min(1, len(sizes))
    rows = elements_of(sizes[:row_axes])
    encoding = pb.Palette(
        codes=pb.Codes(view=view, perm=perm, row_axes=row_axes, vector=tables.shape[2], segment=segment),
        tables_by=pb.Grouping(row_group=tables_by[0], col_group=tables_by[1]),
    )
    return QuantizedValue(encoding, codes.reshape(rows, codes.size // max(rows, 1)), tables)
