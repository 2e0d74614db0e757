"""The bundles that the benchmark of the C reader runs on: AlexNet's fc6, 4096 x 9216, in several encodings.

    python benchmarks/c/bundles.py FOLDER
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from mobilemodel.codecs import Family
from mobilemodel.container import Spool, write_container
from mobilemodel.dtypes import DType
from mobilemodel.encodings import affine, dense, palette
from mobilemodel.encodings.payloads import PayloadWriter
from mobilemodel.v1 import bundle_pb2 as pb

ROWS, COLUMNS = 4096, 9216
NAME = "fc6.weight"
Array = npt.NDArray[Any]
Write = Callable[[PayloadWriter, pb.Tensor], None]


class StoredWriter(PayloadWriter):
    """Packs everything as it is, so that what a kernel costs is not lost behind its codec."""

    def encode_matrix(self, raw: bytes | memoryview, *_: object) -> tuple[int, bytes]:
        return pb.CODEC_STORED, bytes(raw)

    def encode_bytes(self, raw: bytes | memoryview, *_: object) -> tuple[int, bytes]:
        return pb.CODEC_STORED, bytes(raw)


def gaussian_codes(levels: int, random: np.random.Generator) -> tuple[Array, Array]:
    """Codes of normal weights under evenly spaced levels out to 3.5 deviations, and the levels' values."""
    edge = 3.5
    weights = random.standard_normal((ROWS, COLUMNS), np.float32)
    steps = np.rint((weights + edge) * ((levels - 1) / (2 * edge)))
    codes = np.clip(steps, 0, levels - 1).astype(np.uint8 if levels <= 256 else np.uint16)
    return codes, np.linspace(-edge, edge, levels) * 0.01


def write_palette(levels: int, random: np.random.Generator) -> Write:
    codes, values = gaussian_codes(levels, random)

    def write(writer: PayloadWriter, tensor: pb.Tensor) -> None:
        tensor.palette.codes.row_axes = 1
        palette.encode(writer, tensor.palette, codes, values.astype(np.float16).reshape(1, -1, 1))

    return write


def write_split(density: float, random: np.random.Generator) -> Write:
    """A pruned layer: zeros but for ``density`` of the weights, 16 values beside the zero."""
    codes = random.integers(1, 17, (ROWS, COLUMNS), np.uint8)
    codes[random.random((ROWS, COLUMNS), np.float32) >= density] = 0
    values = np.concatenate([[0.0], random.standard_normal(16) * 0.01])

    def write(writer: PayloadWriter, tensor: pb.Tensor) -> None:
        tensor.palette.codes.row_axes = 1
        palette.encode(writer, tensor.palette, codes, values.astype(np.float16).reshape(1, -1, 1))
        assert tensor.palette.codes.split

    return write


def write_vector(entries: int, length: int, random: np.random.Generator) -> Write:
    """Product codebooks: a table for each sub-vector of ``length`` inputs."""
    codes = random.integers(0, entries, (ROWS, COLUMNS // length), np.uint8)
    tables = (random.standard_normal((COLUMNS // length, entries, length)) * 0.01).astype(np.float32)

    def write(writer: PayloadWriter, tensor: pb.Tensor) -> None:
        tensor.palette.codes.row_axes = 1
        tensor.palette.tables_by.col_group = 1
        palette.encode(writer, tensor.palette, codes, tables)

    return write


def write_affine(random: np.random.Generator) -> Write:
    codes, _ = gaussian_codes(256, random)

    def write(writer: PayloadWriter, tensor: pb.Tensor) -> None:
        tensor.affine.codes.row_axes = 1
        tensor.affine.by.row_group = 1
        affine.encode(writer, tensor.affine, codes, 8, np.full(ROWS, 0.0003, np.float32), None)

    return write


def write_halves(random: np.random.Generator) -> Write:
    values = (random.standard_normal((ROWS, COLUMNS), np.float32) * 0.01).astype(np.float16)

    def write(writer: PayloadWriter, tensor: pb.Tensor) -> None:
        dense.encode(writer, tensor.dense, values.tobytes(), DType.FLOAT16, values.size)

    return write


def write_bundle(path: Path, write: Write, *, stored: bool = False, baseline: bool = False) -> None:
    manifest = pb.Manifest(spec_major=1, spec_minor=0)
    tensor = manifest.tensors.add(name=NAME, dtype=DType.FLOAT, dims=[ROWS, COLUMNS])
    with Spool(path.parent) as spool, path.open("wb") as out:
        writer = (StoredWriter if stored else PayloadWriter)(spool, Family.BASELINE if baseline else Family.FULL)
        write(writer, tensor)
        writer.flush()
        write_container(out, manifest, spool)


def main(folder: Path) -> None:
    random = np.random.default_rng(4)
    four = write_palette(16, random)
    write_bundle(folder / "palette-4-zstd.mm", four)
    write_bundle(folder / "palette-4-png.mm", four, baseline=True)
    write_bundle(folder / "palette-4.mm", four, stored=True)
    write_bundle(folder / "palette-8.mm", write_palette(256, random), stored=True)
    write_bundle(folder / "split.mm", write_split(0.1, random), stored=True)
    write_bundle(folder / "vector.mm", write_vector(32, 4, random), stored=True)
    write_bundle(folder / "affine-8.mm", write_affine(random), stored=True)
    write_bundle(folder / "halves.mm", write_halves(random), stored=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
