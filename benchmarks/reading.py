"""Opening and listing a bundle of 60 MB, beside `import mobilemodel` alone.

Times are CPU seconds of whole processes, the least of several runs taken in turn. What is read of the file is measured
twice: the pages of its mapping that the process holds when the listing is done, plus what it took by read(); and, from
a cold cache, the pages of the file that the kernel has brought in by then, read-ahead included.
"""

from __future__ import annotations

import ctypes
import mmap
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:  # to a type checker this folder is a package; a script finds the files beside it
    from benchmarks import measuring
else:
    import measuring

TIMES = 15
LISTING_MS = 50
IMPORT_MS = 300
HEAVY = ("onnx", "onnxruntime", "PIL")


def evict(path: Path) -> None:
    """Ask the kernel to drop the file's pages from its cache."""
    with path.open("rb") as file:
        os.fsync(file.fileno())
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def cached_bytes(path: Path) -> int:
    """Bytes of the file in the kernel's cache (mincore); looking at them brings none in."""
    size = path.stat().st_size
    pages = (ctypes.c_ubyte * -(-size // mmap.PAGESIZE))()
    library = ctypes.CDLL(None, use_errno=True)
    with path.open("rb") as file, mmap.mmap(file.fileno(), size, access=mmap.ACCESS_COPY) as mapping:
        start = ctypes.c_char.from_buffer(mapping)
        failed = library.mincore(ctypes.c_void_p(ctypes.addressof(start)), ctypes.c_size_t(size), pages)
        del start
    if failed:
        raise OSError(ctypes.get_errno(), "mincore")
    return sum(page & 1 for page in pages) * mmap.PAGESIZE


def main() -> int:
    options = measuring.arguments(__doc__)
    results = measuring.Results("reading", ("process", "CPU ms", "wall ms", "peak MB"))
    with measuring.workspace(options.model) as (folder, model):
        bundle = folder / "alexnet.mm"
        measuring.convert(model, bundle, "--scheme", "kmeans-8")
        commands = {
            "python": ("-c", "pass"),
            "python, import mobilemodel": ("-c", "import mobilemodel"),
            "mobilemodel inspect": ("-m", "mobilemodel", "inspect", str(bundle)),
        }
        runs: dict[str, list[measuring.Run]] = {what: [] for what in commands}
        for _ in range(TIMES):
            for what, command in commands.items():
                runs[what].append(measuring.python(*command))
        for what, took in runs.items():
            wall = min(run.wall_seconds for run in took)
            peak = max(run.peak_bytes for run in took) / measuring.MB
            results.rows.append((what, 1000 * measuring.least_cpu(took), 1000 * wall, peak))
        empty, imported, listed = (1000 * measuring.least_cpu(took) for took in runs.values())
        results.targets += [
            measuring.Target("importing, CPU", imported - empty, IMPORT_MS, "ms"),
            measuring.Target("opening and listing beyond importing, CPU", listed - imported, LISTING_MS, "ms"),
        ]
        measure_file(bundle, results)
    return results.finish(options.json)


def measure_file(bundle: Path, results: measuring.Results) -> None:
    """What listing reads of the file, and what it imports."""
    evict(bundle)
    left = cached_bytes(bundle)
    found = measuring.job("jobs.py", "listing", bundle)
    size = bundle.stat().st_size
    results.notes.append(f"note: the bundle has {size:,} bytes and {found['tensors']} tensors")
    taken = (found["touched"] + found["read"]) / measuring.MB
    results.targets.append(measuring.Target("read of the file: mapped pages and read()", taken, 1, "MB"))
    if left:
        results.notes.append("note: the file system keeps pages in its cache; the cold figure was not measured")
    else:
        cold = cached_bytes(bundle) / measuring.MB
        results.targets.append(measuring.Target("read of the file from cold, read-ahead included", cold, 1, "MB"))
    roots = {name.partition(".")[0] for name in found["modules"]}
    results.targets.append(measuring.Target(f"of {', '.join(HEAVY)}: imported by listing", len(roots & set(HEAVY)), 0))
    results.notes.append(f"note: listing has {len(found['modules'])} modules imported")


if __name__ == "__main__":
    sys.exit(main())
