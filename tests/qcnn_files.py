"""Q-CNN files for the tests: tensors, packed indices, and the folder of a small network of every kind of layer."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from mobilemodel_converters.qcnn.topologies import Row, Topology

Array = npt.NDArray[Any]
CHUNK = 4096
PREFIX = "small_aCaF"


def bin_bytes(values: Array) -> bytes:
    """A ``.bin`` file: dimensions and values."""
    return header(values.shape) + values.tobytes()


def header(dims: Iterable[int]) -> bytes:
    """The number of the dimensions, and their lengths."""
    lengths = list(dims)
    return b"".join(number.to_bytes(4, "little", signed=True) for number in (len(lengths), *lengths))


def cbn_bytes(codes: Array, bits: int, dims: Iterable[int] | None = None) -> bytes:
    """A ``.cbn`` file of indices from 0 on: each chunk begins with a new index, its spare bits are 0."""
    flat, each = codes.reshape(-1), 8 * CHUNK // bits
    chunks = [
        np.packbits((flat[start : start + each, None] >> np.arange(bits - 1, -1, -1)) & 1).tobytes().ljust(CHUNK, b"\0")
        for start in range(0, flat.size, each)
    ]
    return header(codes.shape if dims is None else dims) + bits.to_bytes(4, "little") + b"".join(chunks)


@dataclass(frozen=True)
class Quantized:
    """Codebooks (sub-spaces x entries x features), assignments (outputs, places, sub-spaces), and how many inputs."""

    tables: Array
    codes: Array
    inputs: int

    def weight(self) -> Array:
        """w[o, s F + f, y, x] = tables[s, codes[o, y, x, s], f], features beyond the inputs left out."""
        subspaces, _, features = self.tables.shape
        places = self.codes.shape[1:-1]
        out = np.empty((len(self.codes), self.inputs, *places), np.float32)
        for place in np.ndindex(len(self.codes), *places):
            for s in range(subspaces):
                for f in range(min(features, self.inputs - s * features)):
                    out[(place[0], s * features + f, *place[1:])] = self.tables[s, self.codes[(*place, s)], f]
        return out


def quantized(seed: int, dims: tuple[int, ...], features: int, entries: int) -> Quantized:
    """Random codebooks and assignments of a weight; every entry is named."""
    random = np.random.default_rng(seed)
    subspaces = -(-dims[1] // features)
    codes = random.integers(0, entries, (dims[0], *dims[2:], subspaces), np.uint8)
    codes.reshape(-1)[-1] = entries - 1
    return Quantized(random.standard_normal((subspaces, entries, features), np.float32), codes, dims[1])


SMALL = Topology("small", 11, (
    Row("conv1", "Convolution", {"convolution_param": {"num_output": 6, "kernel_size": [3], "stride": [2]}}),
    Row("relu1", "ReLU"),
    Row("conv2", "Convolution", {"convolution_param": {"num_output": 8, "kernel_size": [3], "pad": [1], "group": 2}}),
    Row("pool2", "Pooling", {"pooling_param": {"kernel_size": 2, "stride": 2}}),
    Row("fc3", "InnerProduct", {"inner_product_param": {"num_output": 12}}),
    Row("drop3", "Dropout"),
    Row("fc4", "InnerProduct", {"inner_product_param": {"num_output": 5}}),
    Row("prob", "Softmax"),
))  # fmt: skip
"""sizes: 11 -> 5 -> 5 -> 3 (rounded up) -> 8 x 3 x 3"""
WEIGHTS = {
    1: quantized(1, (6, 3, 3, 3), 8, 16),
    3: quantized(3, (8, 3, 3, 3), 2, 7),
    5: quantized(5, (12, 72), 4, 16),
    7: quantized(7, (5, 12), 1, 3),
}
"""row -> its weight: surplus features in conv1, a short last sub-space and groups in conv2, a table a column in fc4"""


def small_files() -> dict[str, bytes]:
    """The files of ``SMALL`` by name."""
    files = {}
    for place, value in WEIGHTS.items():
        bias = np.random.default_rng(100 + place).standard_normal(len(value.codes), np.float32)
        bits = int(value.codes.max()).bit_length()
        files[f"{PREFIX}.ctrdLst.{place:02d}.bin"] = bin_bytes(value.tables)
        files[f"{PREFIX}.asmtLst.{place:02d}.cbn"] = cbn_bytes(value.codes, bits)
        files[f"{PREFIX}.biasVec.{place:02d}.bin"] = bin_bytes(bias)
    return files


def write(folder: Path, files: dict[str, bytes]) -> Path:
    """Write files; returns their folder."""
    for name, content in files.items():
        (folder / name).write_bytes(content)
    return folder
