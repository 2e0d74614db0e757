"""Converting a full-size AlexNet, beside coremltools' k-means palettization of the same weights.

CPU seconds are user + system of a process of its own. mobilemodel's count everything from the interpreter's start;
of coremltools' only palettizing and saving count, its import and model building are reported apart.
"""

from __future__ import annotations

import json
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:  # to a type checker this folder is a package; a script finds the files beside it
    from benchmarks import measuring
else:
    import measuring

PEER = "coremltools"
SCHEMES = {"kmeans-4": "4,4,4", "mixed-4-8": "4,8,8", "kmeans-8": None, "palette-6": None, "lossless": None}
"""scheme -> the bits of the peer's FC layers where it is compared"""
CPU_RATIOS = {"kmeans-4": 1 / 4, "mixed-4-8": 1 / 2}
PEAK_RATIO = 1 / 2
ERROR_RATIO = 1.0023
"""0.01 dB"""


@dataclass(frozen=True)
class Conversion:
    """What one tool did under one scheme."""

    cpu_seconds: float
    peak_bytes: int
    file_bytes: int
    archive_bytes: int
    errors: dict[str, float]
    """squared error by tensor"""


def ours(model: Path, folder: Path, scheme: str) -> Conversion:
    out = folder / f"{scheme}.mm"
    took = measuring.convert(model, out, "--scheme", scheme)
    size = out.stat().st_size
    errors = measuring.job("jobs.py", "errors", out, model)
    out.unlink()
    return Conversion(took.cpu_seconds, took.peak_bytes, size, size, errors)


def theirs(model: Path, folder: Path, package: Path, bits: str) -> tuple[Conversion, float]:
    """The peer's conversion, and the CPU seconds of its import."""
    out = folder / f"palettes-{bits.replace(',', '')}.mlpackage"
    took = measuring.python(measuring.FOLDER / "coremltools_job.py", "palettize", package, out, bits)
    seconds = json.loads(took.stdout.splitlines()[-1])
    size = measuring.job("jobs.py", "archive", out)
    errors = measuring.job("coremltools_job.py", "errors", out, model)
    return Conversion(seconds["palettize"], took.peak_bytes, size["bytes"], size["zstd"], errors), seconds["import"]


def compare(scheme: str, own: Conversion, peer: Conversion) -> list[measuring.Target]:
    targets = [
        measuring.Target(f"{scheme}: CPU seconds / {PEER}", own.cpu_seconds / peer.cpu_seconds, CPU_RATIOS[scheme]),
        measuring.Target(f"{scheme}: peak memory / {PEER}", own.peak_bytes / peer.peak_bytes, PEAK_RATIO),
        measuring.Target(f"{scheme}: file / {PEER} after zstd -19", own.file_bytes / peer.archive_bytes, 1.0),
    ]
    for tensor, error in sorted(peer.errors.items()):
        ratio = own.errors[tensor] / error
        targets.append(measuring.Target(f"{scheme}: squared error of {tensor} / {PEER}", ratio, ERROR_RATIO))
    return targets


def main() -> int:
    options = measuring.arguments(__doc__, peers=(PEER,))
    results = measuring.Results("convert", ("conversion", "CPU s", "peak MB", "file bytes", "after zstd -19"))
    with measuring.workspace(options.model) as (folder, model):
        package = folder / "alexnet.mlpackage"
        if measuring.installed(PEER):
            built = measuring.job("coremltools_job.py", "build", model, package)
            results.notes.append(f"note: {PEER} built the float16 model in {built['build']:.2f} CPU s (not counted)")
        else:
            results.notes.append(f"note: {PEER} is not installed; its targets were not checked")
        for scheme, bits in SCHEMES.items():
            own = ours(model, folder, scheme)
            peak = own.peak_bytes / measuring.MB
            results.rows.append((f"mobilemodel {scheme}", own.cpu_seconds, peak, own.file_bytes, None))
            if bits is None or not measuring.installed(PEER):
                continue
            peer, imported = theirs(model, folder, package, bits)
            figures = (peer.cpu_seconds, peer.peak_bytes / measuring.MB, peer.file_bytes, peer.archive_bytes)
            results.rows.append((f"{PEER} k-means {bits}", *figures))
            results.notes.append(f"note: {PEER} took {imported:.2f} CPU s to import for k-means {bits} (not counted)")
            results.targets += compare(scheme, own, peer)
    return results.finish(options.json)


if __name__ == "__main__":
    sys.exit(main())
