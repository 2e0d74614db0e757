"""Fuzz the C reader: build, make seeds, replay what was found before, then run every target at once for some time.

    python readers/c/fuzz/run.py --seconds 30                    in CI
    python readers/c/fuzz/run.py --seconds 600 --work FOLDER     a campaign; FOLDER keeps build and corpora for the next

It needs clang with libFuzzer, cmake, ninja, and a Python that has the package and what its tests need.
Ends with 0; with 1 after a finding, whose file is named; with 77 and the reason where this machine cannot fuzz.
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

FOLDER = Path(__file__).resolve().parent
TARGETS = {"file": 4096, "parts": 3000, "tensors": 600}
"""target -> bytes of an input at most"""
SKIPPED = 77
COMPILERS = ("clang-14", *(f"clang-{version}" for version in range(22, 14, -1)), "clang")


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--seconds", type=int, default=30, help="of each target; all run side by side")
    parser.add_argument("--work", type=Path, help="where to build, and to keep corpora")
    parser.add_argument("--targets", nargs="+", choices=TARGETS, default=list(TARGETS))
    parser.add_argument("--plain", action="store_true", help="only the plain kernels")
    options = parser.parse_args()
    compiler = find_compiler()
    tools = [name for name in ("cmake", "ninja") if shutil.which(name) is None]
    if compiler is None or tools:
        print(f"skipped: {', '.join(tools) or 'clang with libFuzzer'} not found")
        return SKIPPED
    if options.work is not None:
        return fuzz(compiler, options, options.work.resolve())
    with tempfile.TemporaryDirectory() as folder:
        return fuzz(compiler, options, Path(folder))


def find_compiler() -> str | None:
    """The first clang that links libFuzzer with its sanitizers."""
    source = "int LLVMFuzzerTestOneInput(const char *data, long size) { return data == 0 && size < 0; }"
    for name in COMPILERS:
        if shutil.which(name) is None:
            continue
        command = [name, "-fsanitize=fuzzer,address,undefined", "-x", "c", "-", "-o", os.devnull]
        if subprocess.run(command, input=source, text=True, capture_output=True, check=False).returncode == 0:
            return name
    return None


def fuzz(compiler: str, options: argparse.Namespace, work: Path) -> int:
    build, corpora = work / "build", work / "seeds"
    settings = {
        "CMAKE_C_COMPILER": compiler,
        "CMAKE_BUILD_TYPE": "Fuzzing",
        "CMAKE_C_FLAGS": "-O1 -g",
        "MM_BUILD_FUZZERS": "ON",
        "MM_WITH_SIMDE": "OFF" if options.plain else "AUTO",
    } | dict.fromkeys(("MM_BUILD_TESTS", "MM_BUILD_TOOLS", "MM_BUILD_EXAMPLES", "MM_INSTALL"), "OFF")
    defines = [f"-D{name}={value}" for name, value in settings.items()]
    steps: list[list[str | Path]] = [
        ["cmake", "-S", FOLDER.parent, "-B", build, "-G", "Ninja", *defines],
        ["ninja", "-C", build, "-j", "2"],
        [sys.executable, FOLDER / "seeds.py", corpora],
    ]
    for step in steps:
        subprocess.run(step, check=True, stdout=subprocess.DEVNULL)
    programs = build / "fuzz"
    files = [*sorted((FOLDER / "findings").glob("*.mm")), *sorted(FOLDER.parents[2].glob("spec/vectors/*/*.mm"))]
    replay = subprocess.run([programs / "fuzz-replay", *files], capture_output=True, text=True, check=False)
    if replay.returncode != 0:
        print(f"a file that stands in the tree is a finding:\n{replay.stderr}")
        return 1
    print(f"replayed {len(files)} files")
    return campaign(programs, corpora, work, options)


def campaign(programs: Path, corpora: Path, work: Path, options: argparse.Namespace) -> int:
    """All targets side by side; 1 where one of them found something."""
    artifacts = Path(tempfile.mkdtemp(prefix="findings-", dir=None if options.work is None else work))
    environment = os.environ | {"ASAN_OPTIONS": "quarantine_size_mb=8"}
    running = {}
    for target in options.targets:
        grown = work / "grown" / target
        grown.mkdir(parents=True, exist_ok=True)
        command = [
            programs / f"fuzz-{target}", f"-max_total_time={options.seconds}", f"-max_len={TARGETS[target]}",
            "-len_control=0", "-timeout=10", f"-artifact_prefix={artifacts}/{target}-", grown, corpora / target,
        ]  # fmt: skip
        if target != "tensors":
            command.insert(1, f"-dict={FOLDER / 'bundle.dict'}")
        log = (work / f"{target}.log").open("w+")
        running[target] = subprocess.Popen(command, stdout=log, stderr=log, env=environment), log
    failed = 0
    for target, (process, log) in running.items():
        failed += process.wait() != 0
        log.seek(0)
        report(target, process.returncode, log.read(), options.seconds)
        log.close()
    if not failed:
        artifacts.rmdir()
    return min(failed, 1)


def report(target: str, code: int, log: str, seconds: int) -> None:
    """Executions, their rate, and what they reached; or what was found."""
    done = re.findall(r"^#(\d+)\s.*?cov: (\d+) ft: (\d+)", log, re.MULTILINE)
    executions, covered, features = done[-1] if done else ("0", "0", "0")
    rate = int(executions) // max(seconds, 1)
    print(f"{target:8} {int(executions):>10,} executions, {rate:>7,} per second, cov {covered}, ft {features}")
    if code != 0:
        print(f"{target}: FOUND\n{log[-6000:]}")


if __name__ == "__main__":
    sys.exit(main())
