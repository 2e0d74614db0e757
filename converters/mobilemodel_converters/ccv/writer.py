"""Layers and their values as a ccv database of the current generation (schema.py), row by row.

The file is built where SQLite wants it, by name; its bytes depend on nothing but the content and SQLite's version.
"""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from mobilemodel.errors import OutputError, UnsupportedSourceError
from mobilemodel_converters.ccv import schema
from mobilemodel_converters.ccv.expression import Convnet
from mobilemodel_converters.ccv.graph import Constant
from mobilemodel_converters.ccv.preprocessing import Picture
from mobilemodel_converters.ccv.rows import Weighted

Array = npt.NDArray[Any]
_PIECE = 1 << 20
"""values that are brought in order and written at once"""
_ROW_HEAD = 1024
"""bytes of a row beside its BLOBs, generously"""
_SETTINGS = (
    "page_size = 4096", "encoding = 'UTF-8'", "auto_vacuum = NONE",
    # The file is nobody's until it is whole: nothing has to be undone, and the caller syncs it.
    "journal_mode = OFF", "synchronous = OFF", "locking_mode = EXCLUSIVE", "secure_delete = ON",
)  # fmt: skip


@dataclass(frozen=True)
class Content:
    """Where a database's values come from."""

    convnet: Convnet
    picture: Picture
    read: Callable[[Constant], Array]
    """the values of a constant in float32 or float16, as the graph's tensor lies"""
    tables: Mapping[int, bytes] = field(default_factory=dict)
    """Klaus: the binary16 table of each layer whose weight lies in a PNG"""


def write_database(path: str | os.PathLike[str], content: Content) -> None:
    """Write a database to a path where nothing is yet.

    Memory stays within the largest weight and a few MiB. Raises OutputError, UnsupportedSourceError for a weight that
    is too large for a row.
    """
    try:
        # isolation_level None: transactions are begun and committed here alone.
        with closing(sqlite3.connect(os.path.abspath(path), isolation_level=None)) as connection:
            for setting in _SETTINGS:
                connection.execute(f"PRAGMA {setting}").fetchall()
            connection.execute("BEGIN")
            _write_params(connection, content)
            for number, layer in enumerate(content.convnet.layers):
                if isinstance(layer, Weighted):
                    _write_data(connection, number, layer, content)
            if content.tables:
                connection.execute(schema.CREATE_LAYER_QUANT)
                rows = sorted(content.tables.items())
                connection.executemany(f"INSERT INTO {schema.LAYER_QUANT} (layer, quant) VALUES (?, ?)", rows)  # noqa: S608
            connection.execute("COMMIT")
    except sqlite3.Error as error:
        raise OutputError(f"cannot write the database: {error}") from None


def _write_params(connection: sqlite3.Connection, content: Content) -> None:
    for statement in (schema.CREATE_LAYER_PARAMS, schema.CREATE_CONVNET_PARAMS, schema.CREATE_LAYER_DATA):
        connection.execute(statement)
    places = ", ".join("?" * len(schema.LAYER_COLUMNS))
    for number, layer in enumerate(content.convnet.layers):
        columns = {"layer": number} | layer.columns()
        row = [columns.get(column) for column in schema.LAYER_COLUMNS]
        connection.execute(f"INSERT INTO {schema.LAYER_PARAMS} VALUES ({places})", row)  # noqa: S608 - a name of ours
    picture = content.picture
    mean = None if picture.mean is None else np.ascontiguousarray(picture.mean, "<f4").tobytes()
    connection.execute(f"INSERT INTO {schema.CONVNET_PARAMS} VALUES (0, ?, ?, ?)",  # noqa: S608
                       (picture.height, picture.width, mean))  # fmt: skip


def _write_data(connection: sqlite3.Connection, number: int, layer: Weighted, content: Content) -> None:
    """The row of a layer with a weight: in binary16 where both weight and bias are, value for value.

    A BLOB is written piece by piece: SQLite holds no copy of it.
    """
    weight = None if number in content.tables else _weight(connection, layer, content)
    bias = content.read(layer.bias).reshape(-1) if layer.bias is not None else np.zeros(layer.count, np.float16)
    half = is_half(bias) and (weight is None or is_half(weight))
    kind = np.dtype("<f2" if half else "<f4")
    sizes = [None if weight is None else weight.size * kind.itemsize, bias.size * kind.itemsize]
    _check_row(connection, layer, sum(filter(None, sizes)))
    places = "NULL" if weight is None else "zeroblob(?)"
    # Zeros up to the row's end are not made in memory: nothing but the flag, which takes no bytes, may follow them.
    connection.execute(f"INSERT INTO {schema.LAYER_DATA} VALUES (?, {places}, zeroblob(?), ?)",  # noqa: S608
                       [value for value in (number, *sizes, int(half)) if value is not None])  # fmt: skip
    for column, values in (("weight", None if weight is None else layer.in_order(weight)), ("bias", bias)):
        if values is not None:
            with connection.blobopen(schema.LAYER_DATA, column, number) as blob:
                for piece in _pieces(values):
                    blob.write(piece.astype(kind, copy=False).tobytes())


def _weight(connection: sqlite3.Connection, layer: Weighted, content: Content) -> Array:
    elements = int(np.prod(layer.weight.dims, dtype=object))
    # Before it is decoded: halves are the least that it can take.
    _check_row(connection, layer, 2 * elements)
    return content.read(layer.weight)


def _check_row(connection: sqlite3.Connection, layer: Weighted, size: int) -> None:
    most = connection.getlimit(sqlite3.SQLITE_LIMIT_LENGTH) - _ROW_HEAD
    if size > most:
        raise UnsupportedSourceError(f"{layer.node}: an SQLite row does not hold its weight",
                                     expected=f"at most {most} bytes", found=size)  # fmt: skip


def _pieces(values: Array) -> Iterator[Array]:
    """Some of the first axis at a time, so that what is copied stays small."""
    step = max(1, _PIECE * len(values) // max(values.size, 1))
    for start in range(0, len(values), step):
        yield values[start : start + step]


def is_half(values: Array) -> bool:
    """Whether every value is a binary16 number, bit for bit; NaN, whose bits may change, is none.

    >>> is_half(np.float32([0.5, -0.0])), is_half(np.float32([0.1])), is_half(np.float32([1e6]))
    (True, False, False)
    """
    if values.dtype == np.float16:
        return True
    with np.errstate(over="ignore", under="ignore"):
        return all(np.array_equal(piece.astype(np.float16), piece) for piece in _pieces(values))
