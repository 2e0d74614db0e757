"""Instructions per weight of the C reader's kernels on ARM, counted under qemu, beside llvm-mca's model of the loop.

    python count.py BUILD/tests/mm-count [--cpu max] [--kernel palette4_f16]

takes the program mm-count of an ARM build (cmake/aarch64-linux.cmake), and compiles the plugin beside this file. Counts
repeat exactly; the cycles are a model of the processor's pipelines with all data in the first cache, never a timing.
"""

from __future__ import annotations

import argparse
import re
import shutil
import subprocess
import sys
import tempfile
from collections import Counter
from pathlib import Path

HERE = Path(__file__).parent
COLUMNS = (12288, 24576)
TARGETS = {  # instructions per weight on aarch64
    "palette4_f16": 0.6,
    "palette8_f16": 1.5,
    "dot_palette4_f16": 1.3,
    "dot_palette4_f32": 1.3,
    "vector_palette": 1.3,
}
MODELS = ("cortex-a55", "cortex-a76")


def output(*command: str | Path) -> str:
    return subprocess.run([str(part) for part in command], check=True, stdout=subprocess.PIPE, text=True).stdout


class Program:
    """The program mm-count under qemu, with how often each of its instructions runs."""

    def __init__(self, program: Path, qemu: str, cpu: str, folder: Path, compiler: str) -> None:
        self.program = program
        self.qemu = [qemu, "-cpu", cpu]
        self.aarch64 = "aarch64" in Path(qemu).name
        self.folder = folder
        self.plugin = folder / "libcount.so"
        output(compiler, "-O2", "-Wall", "-Wextra", "-shared", "-fPIC", "-o", self.plugin, HERE / "plugin.c")
        self.start, self.end = self._text()

    def _text(self) -> tuple[int, int]:
        for line in output("readelf", "-SW", self.program).splitlines():
            if found := re.search(r"\.text\s+PROGBITS\s+([0-9a-f]+)\s+[0-9a-f]+\s+([0-9a-f]+)", line):
                return int(found[1], 16), int(found[1], 16) + int(found[2], 16)
        sys.exit(f"{self.program}: no section .text")

    def kernels(self) -> list[tuple[str, int]]:
        """Names, and how many weights a column stands for."""
        lines = output(*self.qemu, self.program).splitlines()
        return [(name, int(weights)) for name, weights in (line.split() for line in lines)]

    def counts(self, kernel: int, columns: int) -> Counter[int]:
        """How often the instruction at each address runs."""
        counts = self.folder / "counts"
        plugin = f"{self.plugin},from={self.start:#x},to={self.end:#x},counts={counts}"
        output(*self.qemu, "-plugin", plugin, self.program, str(kernel), str(columns))
        lines = counts.read_text().splitlines()
        return Counter({int(address, 16): int(count) for address, count in (line.split() for line in lines)})

    def hot_loop(self, counts: Counter[int]) -> tuple[list[str], int]:
        """Of neighbouring instructions that run equally often, those that run most in all; and how often that is."""
        best: list[int] = []
        run: list[int] = []
        for address in sorted(counts):
            if not run or address != run[-1] + 4 or counts[address] != counts[run[-1]]:
                run = []
            run.append(address)
            if not best or len(run) * counts[address] > len(best) * counts[best[0]]:
                best = run
        bounds = (f"--start-address={best[0]:#x}", f"--stop-address={best[-1] + 4:#x}")
        listing = output("llvm-objdump-14", "-d", "--no-show-raw-insn", *bounds, self.program)
        lines = re.findall(r"^\s*[0-9a-f]+:\s+(.*)$", listing, flags=re.MULTILINE)
        return [re.sub(r"(0x[0-9a-f]+ )?<.*>", "loop", line) for line in lines], counts[best[0]]


def cycles(loop: list[str], processor: str) -> float:
    """Cycles of one pass of a loop, as llvm-mca models it."""
    command = ["llvm-mca-14", "-mtriple=aarch64-linux-gnu", f"-mcpu={processor}", "-iterations=200"]
    source = "loop:\n" + "\n".join(loop) + "\n"
    model = subprocess.run(command, input=source, check=True, capture_output=True, text=True).stdout
    found = re.search(r"^Total Cycles:\s+(\d+)", model, flags=re.MULTILINE)
    assert found is not None
    return int(found[1]) / 200


def measure(program: Program, number: int, weights: int, baseline: Counter[int]) -> tuple[float, float, list[float]]:
    """Instructions per weight, instructions per call beyond them, and modelled cycles per weight."""
    few, many = (program.counts(number, columns) for columns in COLUMNS)
    per_weight = (many.total() - few.total()) / ((COLUMNS[1] - COLUMNS[0]) * weights)
    per_call = few.total() - baseline.total() - per_weight * COLUMNS[0] * weights
    modelled: list[float] = []
    if shutil.which("llvm-mca-14") is not None and program.aarch64:
        many.subtract(baseline)
        loop, passes = program.hot_loop(+many)
        modelled = [cycles(loop, model) * passes / (COLUMNS[1] * weights) for model in MODELS]
    return per_weight, per_call, modelled


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("program", type=Path)
    parser.add_argument("--qemu", default="qemu-aarch64", help="of Debian's qemu-user, which takes plugins")
    parser.add_argument("--cpu", default="max")
    parser.add_argument("--compiler", default="cc", help="of this machine, for the plugin")
    parser.add_argument("--kernel", action="append", help="only this one; may be given more than once")
    arguments = parser.parse_args()
    missed = 0
    with tempfile.TemporaryDirectory() as folder:
        program = Program(arguments.program, arguments.qemu, arguments.cpu, Path(folder), arguments.compiler)
        baseline = program.counts(0, COLUMNS[0])
        print("| kernel | instructions per weight | target | and per call | model: cycles per weight, a55 | a76 |")
        print("|---|---|---|---|---|---|")
        for number, (name, weights) in enumerate(program.kernels()):
            if number == 0 or (arguments.kernel and name not in arguments.kernel):
                continue
            per_weight, per_call, modelled = measure(program, number, weights, baseline)
            target = TARGETS.get(name) if program.aarch64 else None
            missed += target is not None and per_weight > target
            columns = [name, f"{per_weight:.3f}", f"<= {target}" if target else "", f"{per_call:.0f}"]
            columns += [f"{value:.2f}" for value in modelled] or ["-", "-"]
            print("| " + " | ".join(columns) + " |", flush=True)
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
