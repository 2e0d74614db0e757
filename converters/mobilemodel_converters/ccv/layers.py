"""Rows of ``layer_params`` -> layers whose sizes fit each other.

Each row says the size of its own input, so that everything is said twice: a file is believed only where both agree.
Activations are rows x columns x channels. Source: ccv's convnet storage code and its engine's assertions.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from mobilemodel.errors import LimitExceededError, MalformedSourceError, MobileModelError, UnsupportedSourceError
from mobilemodel.limits import FORMAT_LIMITS
from mobilemodel_converters.ccv import schema
from mobilemodel_converters.ccv.database import Database, OtherType, Row
from mobilemodel_converters.ccv.schema import LARGEST, LAYER_TYPE_NAMES, LayerType

MOST_LAYERS = 1000
MOST_PARTITIONS = 256
MOST_PARTS = 4096
"""partitions of all normalisations: each one is a node of the graph"""
_LARGEST_REAL = float(2**100)
"""well within float32, in which the graph holds the numbers of a normalisation"""
_POOLS = (LayerType.MAX_POOL, LayerType.AVERAGE_POOL)


@dataclass(frozen=True)
class Size:
    """Rows, columns and channels of an activation; a full connect's outputs are rows of one value."""

    rows: int
    cols: int
    channels: int

    @property
    def values(self) -> int:
        """Product of all three."""
        return self.rows * self.cols * self.channels

    def __str__(self) -> str:
        return f"{self.rows}x{self.cols}x{self.channels}"


@dataclass(frozen=True)
class Layer:
    """One row of ``layer_params``, checked; a field that its type does not use is 0."""

    number: int
    kind: LayerType
    input: Size
    output: Size
    flattens: bool = False
    """a full connect whose input is a picture, taken in the order rows, columns, channels"""
    partition: int = 1
    """of the input: the groups of a convolution, the parts that a normalisation stays within"""
    kernel: tuple[int, int] = (0, 0)
    """rows and columns of a convolution's kernel or a pool's window"""
    strides: int = 0
    border: int = 0
    """rows and columns of padding on each side"""
    window: int = 0
    """channels that a normalisation sums over: an odd number"""
    kappa: float = 0.0
    alpha: float = 0.0
    """for each channel of the window, not for all of them"""
    beta: float = 0.0
    relu: bool = False

    @property
    def name(self) -> str:
        """What its output is called: ``layer-3``."""
        return schema.layer_name(self.number)

    @property
    def weight_shape(self) -> tuple[int, int, int, int]:
        """The axes of the weight of a convolution or full connect as the file orders them: filters or outputs, rows
        and columns, channels. ONNX has the channels second."""
        if self.kind is LayerType.CONVOLUTIONAL:
            return self.output.channels, *self.kernel, self.input.channels // self.partition
        return self.output.rows, self.input.rows, self.input.cols, self.input.channels


def read_layers(database: Database) -> tuple[list[Layer], list[str]]:
    """The layers of a convnet in their order, and what had to be assumed of them.

    Raises MalformedSourceError, UnsupportedSourceError, LimitExceededError; ``layer`` names it.
    """
    required = [column for column in schema.LAYER_COLUMNS if column not in schema.ADDED_COLUMNS]
    present = database.columns(schema.LAYER_PARAMS, required)
    columns = [column for column in schema.LAYER_COLUMNS if column in present]
    rows = _in_order(database.rows(schema.LAYER_PARAMS, columns, MOST_LAYERS))
    notes = [] if schema.RELU_COLUMN in present else _assume_relu(rows)
    layers: list[Layer] = []
    for number, row in enumerate(rows):
        for column, default in schema.ADDED_COLUMNS.items():
            row[column] = default if row.get(column) is None else row[column]
        try:
            layers.append(_layer(number, row, layers[-1] if layers else None))
        except MobileModelError as error:
            raise error.within(layer=schema.layer_name(number)) from None
    parts = sum(layer.partition for layer in layers if layer.kind is LayerType.LOCAL_RESPONSE_NORM)
    if parts > MOST_PARTS:
        raise LimitExceededError("partitions of all normalisations", expected=f"at most {MOST_PARTS}", found=parts)
    return layers, notes


def _in_order(rows: list[Row]) -> list[Row]:
    numbers = [integer(row, "layer") for row in rows]
    if not rows:
        raise MalformedSourceError(f"the table {schema.LAYER_PARAMS} has no rows")
    if sorted(numbers) != list(range(len(rows))):
        found = ", ".join(str(number) for number in sorted(numbers)[:20])
        raise MalformedSourceError("layers are not numbered one by one", expected=f"0 to {len(rows) - 1}, each once",
                                   found=found)  # fmt: skip
    return [row for _, row in sorted(zip(numbers, rows, strict=True), key=lambda pair: pair[0])]


def _assume_relu(rows: Sequence[Row]) -> list[str]:
    """Files before 2014-03-17 do not say where a ReLU follows a full connect."""
    connected = [row for row in rows if row["type"] == LayerType.FULL_CONNECT]
    for row in connected:
        row[schema.RELU_COLUMN] = int(row is not connected[-1])
    if not connected:
        return []
    return [
        "the file is older than the column output_relu: a ReLU is assumed after each full connect but the last"
    ]  # fmt: skip


def integer(row: Row, column: str, least: int = 0) -> int:
    """A whole number of a column; NULL is 0, as ccv reads it, and so is a column that the table lacks.

    Raises MalformedSourceError for another type or a number outside of the bounds.
    """
    value = row.get(column)
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    if value is None:
        value = 0
    bounds = f"a whole number from {least} to {LARGEST}"
    if not isinstance(value, int):
        kind = value if isinstance(value, (float, OtherType)) else "a BLOB" if not isinstance(value, str) else "text"
        raise MalformedSourceError(f"column {column}", expected=bounds, found=kind)
    if not least <= value <= LARGEST:
        raise MalformedSourceError(f"column {column}", expected=bounds, found=value)
    return value


def _real(row: Row, column: str) -> float:
    value = row[column]
    number = 0.0 if value is None else value
    # Not a comparison that NaN survives; SQLite itself turns NaN into NULL.
    if not isinstance(number, (int, float)) or not -_LARGEST_REAL <= number <= _LARGEST_REAL:
        raise MalformedSourceError(f"column {column}", expected="a number within 2^100", found=value)
    return float(number)


def _layer(number: int, row: Row, before: Layer | None) -> Layer:
    code = integer(row, "type")
    if code not in list(LayerType):
        raise UnsupportedSourceError(
            "a layer of an unknown type", expected=", ".join(f"{t.value} {n}" for t, n in LAYER_TYPE_NAMES.items()),
            found=code,
        )  # fmt: skip
    kind = LayerType(code)
    size = Size(*(integer(row, f"input_matrix_{axis}", 1) for axis in ("rows", "cols", "channels")))  # fmt: skip
    if size.values > FORMAT_LIMITS.elements:
        raise LimitExceededError("values of a layer's input", expected=f"at most {FORMAT_LIMITS.elements}", found=size)
    _check_input(kind, size, before)
    if kind is LayerType.FULL_CONNECT:
        return _full_connect(number, row, size, before)
    # A pool's windows see one channel at a time: its partitions change nothing.
    partition = 1 if kind in _POOLS else integer(row, "input_matrix_partition", 1)
    if size.channels % partition:
        raise MalformedSourceError("input_matrix_partition does not divide the channels",
                                   expected=f"a divisor of {size.channels}", found=partition)  # fmt: skip
    if kind is LayerType.LOCAL_RESPONSE_NORM:
        return _normalisation(number, row, size, partition)
    return _sliding(number, kind, row, size, partition)


def _check_input(kind: LayerType, size: Size, before: Layer | None) -> None:
    if before is None:
        return
    what = f"the input's size is not that of {before.name}'s output"
    if before.kind is not LayerType.FULL_CONNECT:
        if size != before.output:
            raise MalformedSourceError(what, expected=before.output, found=size)
    elif kind is not LayerType.FULL_CONNECT:
        raise UnsupportedSourceError(f"a {LAYER_TYPE_NAMES[kind]} after a full connect")
    elif size.values != before.output.values:
        raise MalformedSourceError(what, expected=f"{before.output.values} values", found=size)


def _full_connect(number: int, row: Row, size: Size, before: Layer | None) -> Layer:
    inputs = integer(row, "input_node_count", 1)
    if inputs != size.values:
        raise MalformedSourceError("input_node_count is not the product of the input's size",
                                   expected=size.values, found=inputs)  # fmt: skip
    outputs = integer(row, "output_count", 1)
    relu = integer(row, schema.RELU_COLUMN) != 0
    flattens = before is None or before.kind is not LayerType.FULL_CONNECT
    return Layer(number, LayerType.FULL_CONNECT, size, Size(outputs, 1, 1), flattens, relu=relu)


def _normalisation(number: int, row: Row, size: Size, partition: int) -> Layer:
    if partition > MOST_PARTITIONS:
        raise LimitExceededError("partitions of a normalisation", expected=f"at most {MOST_PARTITIONS}",
                                 found=partition)  # fmt: skip
    # From c - size/2 to c + size/2, in whole numbers: always odd. What is wider than all channels sees all of them.
    half = integer(row, "output_size", 1) // 2
    window = 2 * min(half, size.channels // partition - 1) + 1
    kappa, alpha, beta = (_real(row, column) for column in schema.REAL_COLUMNS)
    return Layer(number, LayerType.LOCAL_RESPONSE_NORM, size, size, partition=partition, window=window,
                 kappa=kappa, alpha=alpha, beta=beta)  # fmt: skip


def _sliding(number: int, kind: LayerType, row: Row, size: Size, partition: int) -> Layer:
    """A convolution or a pool."""
    strides = integer(row, "output_strides", 1)
    border = integer(row, "output_border")
    channels = size.channels
    if kind in _POOLS:
        window = integer(row, "output_size", 1)
        kernel = (window, window)
        if border >= window:
            raise UnsupportedSourceError("a pool whose window may lie in the border alone",
                                         expected=f"output_border below {window}", found=border)  # fmt: skip
    else:
        kernel = integer(row, "output_rows", 1), integer(row, "output_cols", 1)
        channels = _filters(row, size, partition, kernel)
    rows = _reach(size.rows, kernel[0], strides, border, "rows")
    cols = _reach(size.cols, kernel[1], strides, border, "columns")
    output = Size(rows, cols, channels)
    if output.values > FORMAT_LIMITS.elements:
        raise LimitExceededError("values of a layer's output", expected=f"at most {FORMAT_LIMITS.elements}",
                                 found=output)  # fmt: skip
    return Layer(number, kind, size, output, partition=partition, kernel=kernel, strides=strides, border=border)


def _filters(row: Row, size: Size, partition: int, kernel: tuple[int, int]) -> int:
    filters = integer(row, "output_count", 1)
    channels = integer(row, "output_channels")
    if channels != size.channels:
        raise MalformedSourceError("output_channels are the kernel's, all of the input's", expected=size.channels,
                                   found=channels)  # fmt: skip
    if filters % partition:
        raise MalformedSourceError("input_matrix_partition does not divide the filters",
                                   expected=f"a divisor of {filters}", found=partition)  # fmt: skip
    if kernel[0] % 2 == 0 or kernel[1] % 2 == 0:
        raise UnsupportedSourceError("a kernel of an even size, which ccv itself does not run", found=kernel)
    return filters


def _reach(size: int, kernel: int, strides: int, border: int, axis: str) -> int:
    """Places of a kernel along one axis; ccv asserts that the last one ends where the border ends."""
    free = size + 2 * border - kernel
    if free < 0 or free % strides:
        raise MalformedSourceError(
            f"the kernel does not end with the input's {axis}",
            expected=f"{size} + 2 x {border} - {kernel} to be a multiple of {strides}, at least 0", found=free,
        )  # fmt: skip
    return free // strides + 1
