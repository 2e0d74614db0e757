"""Peak memory of converting a full-size AlexNet, and a model of 2.7 GB with its weights in an external file.

The limit is 150 MB + 4 times the largest float32 tensor. `lossless` cannot hold the large model in a bundle: it has to
be refused with the predicted size before anything is written.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:  # to a type checker this folder is a package; a script finds the files beside it
    from benchmarks import measuring
else:
    import measuring

SCHEME = "mixed-4-8"
ALEXNET_LARGEST = 4 * 4096 * 9216
"""bytes of fc6.weight in float32"""
LAYERS, WIDTH = 10, 8192
FILE_LIMIT = 2**31 - 1
UNSUPPORTED = 4


def limit(largest: int) -> int:
    return 150 * measuring.MB + 4 * largest


def measure(results: measuring.Results, what: str, took: measuring.Run, largest: int) -> None:
    peak, most = took.peak_bytes / measuring.MB, limit(largest) / measuring.MB
    results.rows.append((what, took.code, took.cpu_seconds, peak, most, took.written_bytes))
    results.targets.append(measuring.Target(f"{what}: peak memory", peak, most, "MB"))


def check_refusal(results: measuring.Results, took: measuring.Run, out: Path) -> None:
    found = re.search(r"about ([\d,]+)", took.stderr)
    predicted = int(found[1].replace(",", "")) if found else 0
    what = "lossless of the large model"
    results.notes.append(f"note: {what} ended with exit code {took.code}: {took.stderr.strip()}")
    results.targets += [
        measuring.Target(f"{what}: differs from exit code {UNSUPPORTED}", abs(took.code - UNSUPPORTED), 0),
        measuring.Target(f"{what}: the limit / the predicted size", FILE_LIMIT / max(predicted, 1), 1),
        measuring.Target(f"{what}: written before it was refused", took.written_bytes / measuring.MB, 1, "MB"),
        measuring.Target(f"{what}: files left", sum(out.name in path.name for path in out.parent.iterdir()), 0),
    ]


def main() -> int:
    options = measuring.arguments(__doc__)
    results = measuring.Results("memory", ("conversion", "exit", "CPU s", "peak MB", "limit MB", "written bytes"))
    with measuring.workspace(options.model) as (folder, model):
        out = folder / "out.mm"
        measure(results, f"AlexNet {SCHEME}", measuring.convert(model, out, "--scheme", SCHEME), ALEXNET_LARGEST)
        out.unlink()
        made = measuring.job("jobs.py", "external", folder, str(LAYERS), str(WIDTH))
        large = Path(made["model"])
        what = f"{made['bytes'] / 1e9:.2f} GB external"
        refused = measuring.convert(large, out, "--scheme", "lossless", may_fail=True)
        measure(results, f"{what} lossless", refused, made["largest"])
        check_refusal(results, refused, out)
        measure(results, f"{what} {SCHEME}", measuring.convert(large, out, "--scheme", SCHEME), made["largest"])
    return results.finish(options.json)


if __name__ == "__main__":
    sys.exit(main())
