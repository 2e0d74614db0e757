"""The C reader beside zstd, libspng and OpenBLAS: decoding, and fully connected layers from packed weights.

Builds the library and bench.c with CMake, makes the bundles, and runs everything in one process on one thread. All
figures are wall milliseconds, the best of 9; targets are ratios within the run.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from benchmarks import measuring
    from benchmarks.measuring import Results, Target
else:
    import measuring
    from measuring import Results, Target

SOURCES = measuring.FOLDER / "c"
Figures = Mapping[str, float]


def build(folder: Path) -> Path:
    """Compile in Release mode; return the program. CMake's words are shown where it fails."""
    for command in (
        ["cmake", "-S", str(SOURCES), "-B", str(folder), "-DCMAKE_BUILD_TYPE=Release"],
        ["cmake", "--build", str(folder), "--parallel", "2"],
    ):
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            sys.exit(f"{' '.join(command)}\n{done.stdout[-4000:]}{done.stderr[-4000:]}")
    return folder / "bench"


def cifar_bundle(folder: Path) -> Path | None:
    """The classifier of the zoo, converted; None where there is no zoo."""
    zoo = Path(os.environ.get("MOBILEMODEL_ZOO", measuring.FOLDER.parents[1] / "shared" / "zoo"))
    model = zoo / "cifar-alexnet" / "model.onnx"
    if not model.is_file():
        return None
    measuring.convert(model, folder / "cifar.mm", "--scheme", "mixed-4-8")
    return folder / "cifar.mm"


def rows(results: Results, found: Figures) -> None:
    """One line for each encoding of fc6: what it takes to get y = W x."""
    for name, what in (
        ("palette4", "palette, 4 bit"), ("palette4zstd", "palette, 4 bit, zstd"), ("palette8", "palette, 8 bit"),
        ("affine8", "affine, 8 bit"), ("vector", "vectors of 4, 32 centroids"), ("split", "split, 10 % density"),
        ("halves", "dense, float16"),
    ):  # fmt: skip
        decode, sgemv, stream = (found[f"{name}_{step}"] for step in ("decode", "sgemv", "stream"))
        fused = found.get(f"{name}_fused")
        gain = (decode + sgemv) / (fused or stream)
        results.rows.append((what, int(found[f"{name}_file_bytes"]), decode, sgemv, stream, fused, gain))
        worst = max(found[f"{name}_stream_error"], found.get(f"{name}_fused_error", 0.0))
        results.targets.append(Target(f"{what}: |difference| over sum |w x|", worst, 1e-5))


def targets(found: Figures) -> list[Target]:
    """What issue and README promise, as ratios of this run."""

    def least(what: str, value: float, limit: float) -> Target:
        return Target(what, value, limit, least=True)

    def gain(name: str) -> float:
        return (found[f"{name}_decode"] + found[f"{name}_sgemv"]) / found[f"{name}_fused"]

    return [
        least("zstd to float16, speed over plain zstd", found["zstd_plain"] / found["zstd_f16"], 0.6),
        least("zstd to float32, speed over plain zstd", found["zstd_plain"] / found["zstd_f32"], 0.4),
        least("png to packed rows, speed over libspng", found["spng"] / found["png_pack"], 0.9),
        least("4 bit FC, speed over dequantize + sgemv", gain("palette4"), 2.5),
        least("4 bit FC, speed over sgemv", found["palette4_sgemv"] / found["palette4_fused"], 1.0),
        least("vector palette FC, speed over dequantize + sgemv", gain("vector"), 3.0),
        least("split FC, speed over dequantize + sgemv", gain("split"), 2.0),
        Target("streaming fc6, scratch", found["stream_scratch_bytes"] / 2**20, 2.0, "MiB"),
        Target("streaming fc6, memory that became resident", found["stream_anonymous_bytes"] / 2**20, 2.0, "MiB"),
        Target("streaming fc6, calls of malloc", found["stream_allocations"], 0),
    ]


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--json", action="store_true", help="print JSON")
    options = parser.parse_args()
    columns = ("fc6 as", "file bytes", "decode", "sgemv", "FC from file", "FC from packed", "decode + sgemv over FC")
    results = Results("c", columns)
    with tempfile.TemporaryDirectory(prefix="mobilemodel-benchmark-") as name:
        folder = Path(name)
        program = build(folder / "build")
        measuring.python(SOURCES / "bundles.py", folder)
        cifar = cifar_bundle(folder)
        arguments = [str(program), str(folder), *([str(cifar)] if cifar else [])]
        environment = {**os.environ, "OPENBLAS_NUM_THREADS": "1"}
        done = subprocess.run(arguments, capture_output=True, text=True, check=False, env=environment)
        if done.returncode:
            sys.exit(f"exit code {done.returncode} of bench\n{done.stderr}")
        found = json.loads(done.stdout)
    rows(results, found)
    results.targets[:0] = targets(found)
    if cifar:
        results.targets.append(Target("opening the cifar bundle", 1000 * found["open"], 50, "microseconds"))
        results.targets.append(Target("opening, calls of malloc", found["open_allocations"], 0))
        results.notes.append(f"note: the bundle has {found['open_tensors']} tensors, {found['open_payloads']} payloads")
    else:
        results.notes.append("note: no zoo, so that opening is not measured: set MOBILEMODEL_ZOO")
    steps = ("zstd_plain", "zstd_pack", "zstd_f16", "zstd_f32", "spng", "png_pack")
    codecs = ", ".join(f"{step} {found[step]:.1f} ms" for step in steps)
    results.notes.append(f"note: {int(found['packed_bytes']):,} packed bytes of codes: {codecs}")
    results.notes.append(f"note: kernels {found['kernels']}; milliseconds; buffers were written before, none flushed")
    return results.finish(bool(options.json))


if __name__ == "__main__":
    sys.exit(main())
