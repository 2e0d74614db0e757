"""What the benchmarks share: a command in a process of its own, the network they convert, tables and targets.

Nothing heavy is imported here: a child's peak memory starts at what its parent held when it was started (Linux hands
the high-water mark on through exec), so the process that measures has to stay small.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path
from typing import Any

MB = 1_000_000
FOLDER = Path(__file__).resolve().parent
_RSS_UNIT = 1 if sys.platform == "darwin" else 1024


@dataclass(frozen=True)
class Run:
    """A finished process and what it took, with its own children: sizes in bytes, times in seconds."""

    code: int
    cpu_seconds: float
    """user + system"""
    wall_seconds: float
    peak_bytes: int
    """largest resident set"""
    written_bytes: int
    """what it made the file system write"""
    stdout: str
    stderr: str


def run(*command: str | os.PathLike[str], may_fail: bool = False) -> Run:
    """Run a command to its end. Where it fails and not ``may_fail``, the benchmark ends with the command's words."""
    arguments = [os.fspath(part) for part in command]
    with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
        started = time.perf_counter()
        process = subprocess.Popen(arguments, stdout=out, stderr=err, env={**os.environ, "ORT_DISABLE_TELEMETRY": "1"})
        _, status, usage = os.wait4(process.pid, 0)
        wall = time.perf_counter() - started
        process.returncode = os.waitstatus_to_exitcode(status)
        texts = []
        for stream in (out, err):
            stream.seek(0)
            texts.append(stream.read().decode(errors="replace"))
    if process.returncode and not may_fail:
        sys.exit(f"exit code {process.returncode} of {' '.join(arguments)}\n{texts[1]}")
    return Run(
        code=process.returncode, cpu_seconds=usage.ru_utime + usage.ru_stime, wall_seconds=wall,
        peak_bytes=usage.ru_maxrss * _RSS_UNIT, written_bytes=usage.ru_oublock * 512, stdout=texts[0], stderr=texts[1],
    )  # fmt: skip


def python(*arguments: str | os.PathLike[str], may_fail: bool = False) -> Run:
    """Run this interpreter."""
    return run(sys.executable, *arguments, may_fail=may_fail)


def job(script: str, *arguments: str | os.PathLike[str]) -> Any:
    """Run a script of this folder that prints one JSON value last; return the value."""
    return json.loads(python(FOLDER / script, *arguments).stdout.splitlines()[-1])


def convert(source: Path, out: Path, *options: str, may_fail: bool = False) -> Run:
    """``mobilemodel convert``: the whole process, imports included."""
    return python("-m", "mobilemodel", "convert", source, out, *options, may_fail=may_fail)


def least_cpu(runs: Sequence[Run]) -> float:
    """The least of several equal runs: other work on the machine only ever adds CPU seconds (caches, shared cores)."""
    return min(each.cpu_seconds for each in runs)


@dataclass(frozen=True)
class Target:
    """A figure and the most it may be, or with ``least`` the least."""

    what: str
    found: float
    limit: float
    unit: str = ""
    least: bool = False

    @property
    def met(self) -> bool:
        return self.found >= self.limit if self.least else self.found <= self.limit

    def __str__(self) -> str:
        state = "ok   " if self.met else "SHORT"
        bound = "at least" if self.least else "at most"
        return f"{state} {self.what}: {self.found:.4g} of {bound} {self.limit:.5g}{self.unit and ' ' + self.unit}"


@dataclass
class Results:
    """One benchmark's table, targets and remarks."""

    name: str
    columns: tuple[str, ...]
    rows: list[tuple[str | float | int | None, ...]] = field(default_factory=list)
    targets: list[Target] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def finish(self, as_json: bool) -> int:
        """Print everything; return the exit code: 1 where a target is missed."""
        met = all(target.met for target in self.targets)
        self.notes.append(_surroundings())
        if as_json:
            targets = [{**asdict(target), "ok": target.met} for target in self.targets]
            print(json.dumps({**asdict(self), "targets": targets, "ok": met}, indent=2))
            return 0 if met else 1
        print(_table(self.columns, self.rows), end="\n\n")
        for line in (*self.targets, *self.notes):
            print(line)
        return 0 if met else 1


def _table(columns: Sequence[str], rows: Sequence[Sequence[str | float | int | None]]) -> str:
    cells = [list(columns), *[[_cell(value) for value in row] for row in rows]]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    lines = []
    for first, *others in cells:
        aligned = [text.rjust(width) for text, width in zip(others, widths[1:], strict=True)]
        lines.append("  ".join([first.ljust(widths[0]), *aligned]).rstrip())
    return "\n".join(lines)


def _cell(value: str | float | int | None) -> str:
    if value is None:
        return "-"
    if isinstance(value, float):
        return f"{value:.4f}" if abs(value) < 10 else f"{value:.2f}"
    return f"{value:,}" if isinstance(value, int) else value


def _surroundings() -> str:
    packages = []
    for name in ("mobilemodel", "numpy", "onnx", "zstandard", "coremltools"):
        try:
            packages.append(f"{name} {version(name)}")
        except PackageNotFoundError:
            continue
    machine = f"Python {platform.python_version()}, {platform.machine()}, {os.cpu_count()} CPUs"
    return f"note: {machine}; {', '.join(packages)}"


def arguments(description: str | None, peers: Sequence[str] = ()) -> argparse.Namespace:
    """The command line of a benchmark: ``model``, ``json`` and, where it has peers, ``require``."""
    parser = argparse.ArgumentParser(description=(description or "").partition("\n")[0])
    parser.add_argument("--model", type=Path, metavar="FILE", help="the full-size AlexNet; without it, it is made anew")
    parser.add_argument("--json", action="store_true", help="print JSON")
    if peers:
        parser.add_argument("--require", action="append", default=[], choices=peers, help="fail where it is missing")
    options = parser.parse_args()
    for peer in getattr(options, "require", ()):
        if not installed(peer):
            sys.exit(f"{peer} is required and not installed")
    return options


def installed(package: str) -> bool:
    """Whether a package can be imported; it is not imported here."""
    return find_spec(package) is not None


@contextmanager
def workspace(model: Path | None) -> Iterator[tuple[Path, Path]]:
    """A temporary folder and the path of the full-size AlexNet: ``model``, or made there by the zoo's script."""
    with tempfile.TemporaryDirectory(prefix="mobilemodel-benchmark-") as name:
        folder = Path(name)
        if model is None:
            model = folder / "alexnet.onnx"
            zoo = Path(os.environ.get("MOBILEMODEL_ZOO", FOLDER.parent.parent / "shared" / "zoo"))
            script = zoo / "make_alexnet.py"
            if not script.is_file():
                sys.exit(f"no {script.name} in {zoo}: set MOBILEMODEL_ZOO, or name a model with --model")
            python(script, model)
        yield folder, model
