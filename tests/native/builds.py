"""Builds of readers/c, one for each processor, made once in a session whatever the number of workers."""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

SOURCE = Path(__file__).resolve().parents[2] / "readers" / "c"
PROGRAMS = {"mm-serve": "tests", "mm-dump": "tools"}
"""where in a build they lie"""


class MissingToolError(Exception):
    """Something that a build needs is not on this machine; the text names it."""


@dataclass(frozen=True)
class Build:
    """One way to compile the library. What the tests need is not left out where CMake does not find it."""

    name: str
    compilers: tuple[str, ...] = ("cc", "gcc", "clang")
    emulators: tuple[str, ...] = ()
    settings: tuple[str, ...] = ()
    products: tuple[str, ...] = tuple(PROGRAMS)

    @property
    def cross(self) -> bool:
        return bool(self.emulators)


HOST = Build("host")
PLAIN = Build("plain", settings=("-DMM_WITH_SIMDE=OFF",))
BASELINE = Build("baseline", settings=("-DMM_WITH_ZSTD=OFF",), products=("mm-dump",))
LIBRARY = Build("library", settings=("-DBUILD_SHARED_LIBS=ON", "-DMM_BUILD_TOOLS=OFF"), products=("mobilemodel",))
AARCH64 = Build("aarch64", ("aarch64-linux-gnu-gcc",), ("qemu-aarch64-static", "qemu-aarch64"))
ARMV7 = Build("armv7", ("arm-linux-gnueabihf-gcc",), ("qemu-arm-static", "qemu-arm"))


@dataclass(frozen=True)
class Target:
    """A processor that the reader runs on: the build it takes, and the model that is emulated."""

    name: str
    build: Build
    kernels: tuple[str, ...]
    """those that it runs, or one of them"""
    processor: str = ""

    @property
    def emulated(self) -> bool:
        return self.build.cross


TARGETS = (
    Target("host", HOST, ("avx2", "sse4", "neon-fp16", "neon-crc", "neon", "plain")),
    Target("plain", PLAIN, ("plain", "neon-fp16", "neon-crc", "neon")),
    Target("aarch64", AARCH64, ("neon-fp16",), "cortex-a76"),
    # No arithmetic on halves: one such instruction would end the process.
    Target("cortex-a53", AARCH64, ("neon-crc", "neon"), "cortex-a53"),
    Target("armv7", ARMV7, ("neon",), "cortex-a15"),
    # NEON that knows no halves.
    Target("cortex-a8", ARMV7, ("plain",), "cortex-a8"),
)


def find_program(*names: str) -> str:
    """The first of these programs that there is."""
    for name in names:
        found = shutil.which(name)
        if found:
            return found
    raise MissingToolError(f"{names[0]} is not installed")


def command(target: Target, folder: Path, program: str) -> list[str]:
    """How a program of a build is started."""
    path = str(folder / PROGRAMS[program] / program)
    return [find_program(*target.build.emulators), "-cpu", target.processor, path] if target.emulated else [path]


def make(build: Build, session: Path) -> Path:
    """The folder with what was built, made once for all workers, which share the folder ``session``.

    MOBILEMODEL_C_BUILDS may name a folder that keeps builds from one session to the next.
    Raises MissingToolError, also where CMake does not find a library, and RuntimeError with what the compiler said.
    """
    cmake, ninja = find_program("cmake"), find_program("ninja", "ninja-build")
    find_program(*build.compilers)
    if build.cross:
        find_program(*build.emulators)
    folder = Path(os.environ.get("MOBILEMODEL_C_BUILDS") or session) / f"c-{build.name}"
    log = session / f"c-{build.name}.json"
    with _locked(session / f"c-{build.name}.lock"):
        if not log.exists():
            settings = ["-DMM_WITH_ZSTD=ON", "-DMM_BUILD_TOOLS=ON", *build.settings, *_toolchain(build)]
            step = [cmake, "-S", str(SOURCE), "-B", str(folder), "-G", "Ninja", f"-DCMAKE_MAKE_PROGRAM={ninja}"]
            missing = _run([*step, "-DMM_WERROR=OFF", *settings])
            wrong = "" if missing else _run([cmake, "--build", str(folder), "-j", "2", "--target", *build.products])
            log.write_text(json.dumps([missing, wrong]), "utf-8")
        missing, wrong = json.loads(log.read_text("utf-8"))
    if missing:
        raise MissingToolError(f"the build '{build.name}' cannot be configured: {missing}")
    if wrong:
        raise RuntimeError(wrong)
    return folder


def _toolchain(build: Build) -> list[str]:
    """CMake's settings for a target that is not the machine itself: Debian's compiler and libraries."""
    if not build.cross:
        return []
    libraries = os.environ.get("MOBILEMODEL_ARM_LIBRARIES", "")
    if not os.path.isdir(libraries):
        raise MissingToolError("MOBILEMODEL_ARM_LIBRARIES names no folder that fetch-arm-libraries.sh made")
    return [f"-DCMAKE_TOOLCHAIN_FILE={SOURCE}/cmake/{build.name}-linux.cmake", f"-DMM_ARM_LIBRARIES={libraries}"]


def _run(step: list[str]) -> str:
    """Nothing where a step went well, else what it said."""
    done = subprocess.run(step, capture_output=True, text=True, check=False)
    return f"{' '.join(step)}\n{done.stdout[-4000:]}{done.stderr[-4000:]}" if done.returncode else ""


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    """One worker at a time."""
    with path.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield
