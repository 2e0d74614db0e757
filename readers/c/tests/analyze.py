"""Ask every analyser that this machine has about the C library; 1 where one of them complains.

    python readers/c/tests/analyze.py [--only NAME ...]

symbols     what the static library asks of others is a short list: no allocation, no printing
stack       the deepest chain of calls, from frames that gcc states; promised is less than 32 KiB
size        aarch64, -Os: 48 KiB of code and constants at most
analyzer    gcc -fanalyzer; of the vector kernels the cross compiler's, since SIMDe's own code is not ours to mend
tidy        clang-tidy with readers/c/.clang-tidy: also tools, examples and the fuzzers' exercise
cppcheck    warnings, performance, portability
valgrind    fuzz/replay.c over the fuzzers' seeds (the vectors among them) and the findings, without sanitizers
"""

from __future__ import annotations

import argparse
import json
import re
import shlex
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

READER = Path(__file__).resolve().parents[1]
ROOT = READER.parents[1]
STACK = 32 * 1024
OUTSIDE = 12 * 1024
"""bytes of stack that zlib and libzstd may take: several times what they were seen to"""
TEXT = 48 * 1024
CROSS = "aarch64-linux-gnu-gcc"
FRAME = re.compile(r'node: \{ title: "([^"]+)" label: "[^"]*?\\n([^"]*?):\d+:\d+\\n(\d+) bytes')
CALL = re.compile(r'sourcename: "([^"]+)" targetname: "([^"]+)"')
ALLOWED = re.compile(
    r"mm_\w+|_GLOBAL_OFFSET_TABLE_|__stack_chk_fail|__cpu_model|__cpu_indicator_init|getauxval"
    r"|mem(cpy|move|set|cmp|chr)|str(len|cmp)|inflate\w*|crc32|crc32_combine|ZSTD_\w+"
)


@dataclass
class Build:
    """The library, compiled as its users would."""

    folder: Path

    def make(self) -> None:
        settings = ("CMAKE_C_COMPILER=gcc", "CMAKE_C_FLAGS=-O2 -g", "CMAKE_BUILD_TYPE=Analysis")
        defines = [f"-D{setting}" for setting in (*settings, "CMAKE_EXPORT_COMPILE_COMMANDS=ON")]
        run(["cmake", "-S", str(READER), "-B", str(self.folder), "-G", "Ninja", *defines])
        run(["ninja", "-C", str(self.folder), "-j", "2"])

    @cached_property
    def commands(self) -> list[tuple[Path, list[str]]]:
        """Library files and how they are compiled, without their outputs."""
        out = []
        for entry in json.loads((self.folder / "compile_commands.json").read_text()):
            words = shlex.split(entry["command"])
            at = words.index("-o")
            if READER / "src" in Path(entry["file"]).parents:
                out.append((Path(entry["file"]), words[:at] + words[at + 2 :]))
        return out


def run(command: list[str]) -> str:
    """What the command prints; an exception where it fails."""
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise RuntimeError(f"{shlex.join(command[:2])} ...\n{done.stdout[-6000:]}{done.stderr[-6000:]}")
    return done.stdout


def every(commands: Iterable[list[str]]) -> list[str]:
    """What commands complain about, two of them at a time."""

    def complaint(command: list[str]) -> str:
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        return done.stdout + done.stderr if done.returncode != 0 else ""

    with ThreadPoolExecutor(2) as pool:
        return [text for text in pool.map(complaint, commands) if text]


def is_vector(path: Path) -> bool:
    return path.name.endswith("_neon.c")


# ---------------------------------------------------------------------------------------------------- checks


def symbols(build: Build) -> list[str]:
    out = run(["nm", "--undefined-only", "--format=posix", str(build.folder / "libmobilemodel.a")])
    names = {line.split()[0] for line in out.splitlines() if " U" in line}
    return [f"the library asks for {name}" for name in sorted(names) if not ALLOWED.fullmatch(name)]


def stack(build: Build) -> list[str]:
    """Frames and calls from gcc. A call through a pointer is one of any kernel, in fc.c also of any of its methods, in
    choose.c of what asks the processor.
    """
    frames: dict[str, int] = {}
    places: dict[str, str] = {}
    calls: dict[str, set[str]] = {}
    with tempfile.TemporaryDirectory() as folder:
        for index, (_, words) in enumerate(build.commands):
            run([*words, "-o", f"{folder}/{index}.o", "-fcallgraph-info=su"])
            graph = Path(folder, f"{index}.ci").read_text()
            if "(dynamic)" in graph:
                return [f"a frame without a bound: {words[-1]}"]
            for name, place, size in FRAME.findall(graph):
                frames[name], places[name] = int(size) + 8, place  # the address to return to
            for caller, called in CALL.findall(graph):
                calls.setdefault(caller, set()).add(called)
    pointed_at = {
        "choose.c": {name for name, place in places.items() if place.endswith("/choose.c")} - indirect(calls),
        "fc.c": {name for name, place in places.items() if re.search(r"/(fc_|kernels/(?!choose))\w+\.c$", place)},
    }
    kernels = {name for name, place in places.items() if re.search(r"/kernels/(?!choose)", place)}
    for name in indirect(calls):
        calls[name] |= pointed_at.get(Path(places[name]).name, kernels)
    depth, chain = deepest(frames, calls)
    names = " > ".join(f"{name.rpartition(':')[2]} {frames[name]}" for name in chain)
    print(f"    {depth} bytes: {names}; and at most {OUTSIDE} in zlib and libzstd")
    return [f"{depth + OUTSIDE} bytes of stack"] if depth + OUTSIDE > STACK else []


def indirect(calls: dict[str, set[str]]) -> set[str]:
    return {name for name, called in calls.items() if "__indirect_call" in called}


def deepest(frames: dict[str, int], calls: dict[str, set[str]]) -> tuple[int, list[str]]:
    """The longest path by bytes. Functions of others count nothing; a cycle is a fault."""
    known: dict[str, tuple[int, list[str]]] = {}

    def below(name: str, above: tuple[str, ...]) -> tuple[int, list[str]]:
        if name in above:
            raise RuntimeError(f"recursion: {' > '.join((*above, name))}")
        if name not in known:
            inner = [below(called, (*above, name)) for called in calls.get(name, ()) if called in frames]
            depth, chain = max(inner, default=(0, []))
            known[name] = depth + frames[name], [name, *chain]
        return known[name]

    return max(below(name, ()) for name in frames)


def size(_: Build) -> list[str]:
    """Code and constants of all objects; tables to unwind the stack, which a program may leave out, are left out."""
    if shutil.which(CROSS) is None:
        return skip(CROSS)
    total, lines = 0, []
    with tempfile.TemporaryDirectory() as folder:
        headers = Path(folder, "headers")
        headers.mkdir()
        for name in ("zlib.h", "zconf.h", "zstd.h"):
            headers.joinpath(name).symlink_to(Path("/usr/include", name))
        for path in sorted((READER / "src").rglob("*.c")):
            out = Path(folder, path.name).with_suffix(".o")
            run([*cross_command(path), "-Os", "-ffunction-sections", f"-I{headers}", "-c", str(path), "-o", str(out)])
            text = int(run(["aarch64-linux-gnu-size", str(out)]).splitlines()[1].split()[0])
            total += text
            lines.append(f"{path.name} {text}")
    print(f"    {total} bytes: {', '.join(lines)}")
    return [f"{total} bytes of text are more than {TEXT}"] if total > TEXT else []


def cross_command(path: Path) -> list[str]:
    flags = [
        "-std=c11",
        "-DMM_WITH_ZSTD=1",
        "-DMM_WITH_VECTORS=1",
        "-fno-unwind-tables",
        "-fno-asynchronous-unwind-tables",
        "-fvisibility=hidden",
    ]
    processors = {"halves_fp16.c": "-march=armv8.2-a+fp16", "crc32.c": "-march=armv8-a+crc"}
    own = [processors[path.name]] if path.name in processors else []
    contract = "fast" if path.name in ("fc_plain.c", "fc_neon.c") else "off"
    folders = [f"-I{READER / name}" for name in ("include", "src")]
    return [CROSS, *flags, *own, f"-ffp-contract={contract}", *folders]


def analyzer(build: Build) -> list[str]:
    commands = [
        [*words, "-o", "/dev/null", "-fanalyzer", "-Werror"] for path, words in build.commands if not is_vector(path)
    ]
    if shutil.which(CROSS) is None:
        skip(f"{CROSS}, for the vector kernels")
    else:
        options = ["-O2", "-fanalyzer", "-Werror", "-o", "/dev/null", "-c"]
        vectors = sorted((READER / "src" / "kernels").glob("*_neon.c"))
        commands += [[*cross_command(path), *options, str(path)] for path in vectors]
    return every(commands)


def tidy(build: Build) -> list[str]:
    program = shutil.which("clang-tidy-14") or shutil.which("clang-tidy")
    if program is None:
        return skip("clang-tidy")
    entries = json.loads((build.folder / "compile_commands.json").read_text())
    files = sorted({entry["file"] for entry in entries if READER / "tests" not in Path(entry["file"]).parents})
    return every([program, "-p", str(build.folder), "--quiet", file] for file in files)


def cppcheck(_: Build) -> list[str]:
    if shutil.which("cppcheck") is None:
        return skip("cppcheck")
    options = ["--enable=warning,performance,portability", "--error-exitcode=1", "--quiet", "-j", "2"]
    suppressed = [
        "--suppress=missingIncludeSystem",
        f"--suppress=zerodivcond:{READER / 'src/place.c'}",  # no axis has size 0 where an index is below their product
        "--suppress=nullPointer:*/src/manifest.c",  # of _Generic, which looks at types alone
        "--suppress=nullPointer:*/src/tensor.c",
        f"--suppress=uninitvar:{READER / 'src/kernels/decode_neon.c'}",  # vectors that a loop fills two at a time
    ]
    defines = ["-DMM_WITH_ZSTD=1", "-UMM_WITH_VECTORS", "-D__x86_64__=1", "--std=c11"]
    includes = [f"-I{READER / name}" for name in ("include", "src")]
    files = [str(path) for path in sorted((READER / "src").rglob("*.c"))]
    return every([["cppcheck", *options, *defines, *includes, *suppressed, *files]])


def valgrind(build: Build) -> list[str]:
    if shutil.which("valgrind") is None:
        return skip("valgrind")
    seeds = build.folder / "seeds"
    run([sys.executable, str(READER / "fuzz" / "seeds.py"), str(seeds)])
    files = sorted(map(str, [*(seeds / "file").iterdir(), *(READER / "fuzz" / "findings").glob("*.mm")]))
    halves = (files[::2], files[1::2])
    program = str(build.folder / "fuzz" / "fuzz-replay")
    command = ["valgrind", "--quiet", "--error-exitcode=9", "--leak-check=full", program]
    return every([*command, *half] for half in halves)


# ---------------------------------------------------------------------------------------------------- running


def skip(what: str) -> list[str]:
    print(f"    skipped: no {what}")
    return []


CHECKS: dict[str, Callable[[Build], list[str]]] = {
    check.__name__: check for check in (symbols, stack, size, analyzer, tidy, cppcheck, valgrind)
}


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--only", nargs="+", choices=CHECKS, default=list(CHECKS))
    wanted = parser.parse_args().only
    failed = False
    with tempfile.TemporaryDirectory() as folder:
        build = Build(Path(folder))
        build.make()
        for name in wanted:
            start = time.monotonic()
            print(name, flush=True)
            complaints = CHECKS[name](build)
            failed |= bool(complaints)
            for text in complaints:
                print(text.rstrip())
            print(f"    {'FAILED' if complaints else 'clean'}, {time.monotonic() - start:.0f} s", flush=True)
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
