"""A full-size VGG-16 caffemodel (553 MB, random weights): peak memory and CPU seconds of its conversion."""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:  # to a type checker this folder is a package; a script finds the files beside it
    from benchmarks import measuring
else:
    import measuring

SCHEME = "mixed-4-8"
CPU_SECONDS = 60


def limit(largest: int) -> int:
    return 150 * measuring.MB + 3 * largest


def main() -> int:
    options = measuring.arguments(__doc__)
    columns = ("conversion", "source bytes", "CPU s", "peak MB", "limit MB", "bundle bytes")
    results = measuring.Results("caffe", columns)
    with tempfile.TemporaryDirectory() as folder:
        source, out = Path(folder) / "vgg16.caffemodel", Path(folder) / "vgg16.mm"
        made = measuring.job("vgg16.py", source)
        took = measuring.convert(source, out, "--scheme", SCHEME)
        peak, most = took.peak_bytes / measuring.MB, limit(made["largest"]) / measuring.MB
        results.rows.append((f"VGG-16 {SCHEME}", made["bytes"], took.cpu_seconds, peak, most, out.stat().st_size))
    results.targets += [
        measuring.Target("VGG-16: peak memory", peak, most, "MB"),
        measuring.Target("VGG-16: CPU seconds", took.cpu_seconds, CPU_SECONDS, "s"),
    ]
    return results.finish(options.json)


if __name__ == "__main__":
    sys.exit(main())
