"""ccv's SQLite files, written as its generations wrote them: convnets layer by layer, codebooks and nnc tensors."""

from __future__ import annotations

import sqlite3
import struct
import tracemalloc
import zlib
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx

from mobilemodel.errors import MobileModelError
from mobilemodel.model import NO_OPTIONS, Model, SourceOptions
from mobilemodel_converters.ccv import CcvConverter, schema
from mobilemodel_converters.ccv.schema import LayerType

Array = npt.NDArray[Any]
Size = tuple[int, int, int]
"""rows, columns, channels"""

GENERATIONS = ("2014-01-23", "2014-02-08", "2014-02-16", "2014-03-02", "2014-03-17")
"""when a table or column came: half_precision, convnet_params, the partitions, output_relu"""


@dataclass
class Row:
    """One layer: its row of ``layer_params``, and its values in the file's order, float32."""

    columns: dict[str, Any]
    weight: Array | None = None
    bias: Array | None = None


@dataclass
class Convnet:
    """A convnet under construction; weights are drawn from ``generator``."""

    input: Size
    generator: np.random.Generator = field(default_factory=lambda: np.random.default_rng(7))
    rows: list[Row] = field(default_factory=list)
    size: Size = (0, 0, 0)

    def __post_init__(self) -> None:
        self.size = self.input

    def _add(self, kind: LayerType, partition: int, **columns: Any) -> Row:
        row = Row({
            "layer": len(self.rows), "type": int(kind), "input_matrix_rows": self.size[0],
            "input_matrix_cols": self.size[1], "input_matrix_channels": self.size[2],
            "input_matrix_partition": partition, "input_node_count": 0, **columns,
        })  # fmt: skip
        self.rows.append(row)
        return row

    def _draw(self, *shape: int) -> Array:
        values: Array = self.generator.standard_normal(shape) / np.sqrt(np.prod(shape[1:]))
        return values.astype("<f4")

    def _slide(self, kernel: Sequence[int], strides: int, border: int) -> tuple[int, int]:
        rows, cols = ((n + 2 * border - k) // strides + 1 for n, k in zip(self.size[:2], kernel, strict=True))
        return rows, cols

    def conv(
        self, count: int, kernel: tuple[int, int] = (3, 3), strides: int = 1, border: int = 1, partition: int = 1
    ) -> Convnet:
        """Add a convolution of ``count`` filters, and its ReLU."""
        row = self._add(LayerType.CONVOLUTIONAL, partition, output_rows=kernel[0], output_cols=kernel[1],
                        output_channels=self.size[2], output_partition=partition, output_count=count,
                        output_strides=strides, output_border=border)  # fmt: skip
        row.weight = self._draw(count, *kernel, self.size[2] // partition)
        row.bias = self._draw(count)
        self.size = (*self._slide(kernel, strides, border), count)
        return self

    def pool(self, kind: LayerType, window: int = 2, strides: int = 2, border: int = 0) -> Convnet:
        """Add a max pool or an average pool."""
        self._add(kind, 1, output_size=window, output_strides=strides, output_border=border)
        self.size = (*self._slide((window, window), strides, border), self.size[2])
        return self

    def norm(
        self, window: int = 5, partition: int = 1, kappa: float = 2.0, alpha: float = 0.1, beta: float = 0.75
    ) -> Convnet:
        """Add a local response normalisation."""
        self._add(LayerType.LOCAL_RESPONSE_NORM, partition, output_size=window, output_kappa=kappa,
                  output_alpha=alpha, output_beta=beta)  # fmt: skip
        return self

    def full(self, outputs: int, relu: bool = False) -> Convnet:
        """Add a full connect."""
        inputs = int(np.prod(self.size))
        row = self._add(LayerType.FULL_CONNECT, 1, output_count=outputs, output_relu=int(relu))
        row.columns["input_node_count"] = inputs
        row.weight, row.bias = self._draw(outputs, inputs), self._draw(outputs)
        self.size = (outputs, 1, 1)
        return self

    def write(
        self,
        path: Path,
        *,
        generation: str = GENERATIONS[-1],
        half: Sequence[int] = (),
        picture: tuple[int, int] | None = None,
        mean: bytes | None = None,
        codebooks: Mapping[int, Array] | None = None,
    ) -> Path:
        """Write the convnet: the rows numbered in ``half`` in half precision; ``codebooks`` by layer number."""
        with sqlite3.connect(path) as connection:
            self._write_params(connection, generation)
            self._write_data(connection, generation, half)
            if generation >= "2014-02-16":
                connection.execute(schema.CREATE_CONVNET_PARAMS)
                height, width = picture or self.input[:2]
                connection.execute("INSERT INTO convnet_params VALUES (0, ?, ?, ?)", (height, width, mean))
            if codebooks is not None:
                connection.execute(schema.CREATE_LAYER_QUANT)
                for layer, values in codebooks.items():
                    connection.execute("INSERT INTO layer_quant VALUES (?, ?)", (layer, values.astype("<f2").tobytes()))
        connection.close()
        return path

    def _write_params(self, connection: sqlite3.Connection, generation: str) -> None:
        later = {"input_matrix_partition": "2014-03-02", "output_partition": "2014-03-02", "output_relu": "2014-03-17"}
        columns = [c for c in schema.LAYER_COLUMNS if generation >= later.get(c, "")]
        kinds = {c: "REAL" if c in schema.REAL_COLUMNS else "INTEGER" for c in columns}
        declared = ", ".join(f"{c} {kinds[c]}" for c in columns[1:])
        connection.execute(f"CREATE TABLE layer_params (layer INTEGER PRIMARY KEY ASC, {declared})")
        for row in self.rows:
            values = [row.columns.get(column) for column in columns]
            connection.execute(f"INSERT INTO layer_params VALUES ({', '.join('?' * len(values))})", values)

    def _write_data(self, connection: sqlite3.Connection, generation: str, half: Sequence[int]) -> None:
        halves = generation >= "2014-02-08"
        older = "CREATE TABLE layer_data (layer INTEGER PRIMARY KEY ASC, weight BLOB, bias BLOB)"
        connection.execute(schema.CREATE_LAYER_DATA if halves else older)
        for number, row in enumerate(self.rows):
            if row.weight is None and row.bias is None:
                continue
            kind = "<f2" if number in half else "<f4"
            blobs = [None if v is None else v.astype(kind).tobytes() for v in (row.weight, row.bias)]
            values = [number, *blobs, int(number in half)][: 4 if halves else 3]
            connection.execute(f"INSERT INTO layer_data VALUES ({', '.join('?' * len(values))})", values)


def change(path: Path, *statements: str | tuple[str, Sequence[object]]) -> Path:
    """Run SQL on a database, each statement alone or with its values."""
    connection = sqlite3.connect(path)
    with connection:
        for statement in statements:
            connection.execute(*([statement] if isinstance(statement, str) else statement))
    connection.close()
    return path


def grey_png(
    samples: Array, depth: int = 8, *, colour: int = 0, filters: Sequence[int] = (0,), pieces: int = 1,
    ancillary: bool = False, interlace: int = 0,
) -> bytes:  # fmt: skip
    """A PNG of these samples, row y under the filter ``filters[y % n]``; its IDAT in ``pieces``."""
    height, width = samples.shape
    bits = np.unpackbits(samples.astype(np.uint8)[:, :, None], axis=2)[:, :, 8 - depth :].reshape(height, -1)
    rows = np.packbits(bits, axis=1).astype(int)
    raw = bytearray()
    for y, row in enumerate(rows):
        kind = filters[y % len(filters)]
        above = rows[y - 1] if y else np.zeros_like(row)
        left, corner = np.roll(row, 1), np.roll(above, 1)
        left[0] = corner[0] = 0
        guess = row - row, left, above, (left + above) // 2, _paeth(left, above, corner)
        raw += bytes([kind]) + ((row - guess[kind]) & 0xFF).astype(np.uint8).tobytes()
    stream = zlib.compress(bytes(raw))
    cuts = np.linspace(0, len(stream), pieces + 1).astype(int)
    parts = [png_chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, interlace))]
    parts += [png_chunk(b"tEXt", b"Software\0pngcrush")] * ancillary
    parts += [png_chunk(b"PLTE", bytes(3 << depth))] * (colour == 3)
    parts += [png_chunk(b"IDAT", stream[a:b]) for a, b in pairwise(cuts)]
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts) + png_chunk(b"IEND", b"")


def _paeth(left: Array, above: Array, corner: Array) -> Array:
    guess = left + above - corner
    distances = np.abs(np.stack([guess - left, guess - above, guess - corner]))
    nearest: Array = np.choose(distances.argmin(axis=0), [left, above, corner])
    return nearest


def png_chunk(kind: bytes, content: bytes) -> bytes:
    """One chunk with its length and CRC."""
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


def write_store(path: Path, rows: Mapping[str, tuple[int, int, int, Sequence[int], bytes]]) -> Path:
    """An nnc tensor store: name -> codec, datatype, block length, dims, data."""
    change(path, schema.CREATE_TENSORS)
    for name, (codec, datatype, block, dims, data) in rows.items():
        dim = np.array([*dims, *[0] * (12 - len(dims))], "<i4").tobytes()
        values = name, codec << 32 | 1, block << 32 | datatype, dim, data
        change(path, ("INSERT INTO tensors VALUES (?, ?, 1, ?, ?, ?)", values))
    return path


def load(path: Path, **pictures: str | Path) -> Model:
    """Read a database with the converter; ``pictures`` as ``layer_11=file``."""
    named = {key.replace("_", "-"): str(file) for key, file in pictures.items()}
    return in_memory(CcvConverter().load([path], SourceOptions(pictures=named) if named else NO_OPTIONS))


def in_memory(model: Model) -> Model:
    """The model with all its values read, and its files closed."""
    with closing(model):
        values = [bytes(tensor.read()) for tensor in model.tensors]
        kept = [replace(tensor, read=partial(bytes, raw)) for tensor, raw in zip(model.tensors, values, strict=True)]
        return replace(model, tensors=tuple(kept))


def as_onnx(model: Model) -> onnx.ModelProto:
    """The model with its values inside, and the value of every layer an output."""
    made = onnx.ModelProto.FromString(model.build_graph(frozenset()))
    values = {tensor.name: tensor for tensor in model.tensors}
    for proto in made.graph.initializer:
        if proto.name in values:
            proto.ClearField("external_data")
            proto.ClearField("data_location")
            proto.raw_data = bytes(values[proto.name].read())
    known = {value.name for value in made.graph.output}
    for node in made.graph.node:
        made.graph.output.extend(onnx.ValueInfoProto(name=name) for name in node.output if name not in known)
    return made


def activations(model: Model, x: Array) -> dict[str, Array]:
    """Run a model on one input, rows x columns x channels: each value by its name, channels last."""
    import onnxruntime

    session = onnxruntime.InferenceSession(as_onnx(model).SerializeToString())
    names = [value.name for value in session.get_outputs()]
    found = session.run(names, {"input": np.ascontiguousarray(x.transpose(2, 0, 1))[None]})
    return {
        name: value[0].transpose(1, 2, 0) if value.ndim == 4 else value[0]
        for name, value in zip(names, found, strict=True)
    }


def error_of(action: Callable[[], object]) -> MobileModelError | None:
    """The error of ours that an action ends in, None where it works; any other exception goes on."""
    try:
        action()
    except MobileModelError as error:
        return error
    return None


def peak_memory(action: Callable[[], object]) -> int:
    """Bytes that an action holds at most."""
    tracemalloc.start()
    try:
        action()
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
