"""The C reader on each processor: built once, run as one process that answers many requests."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.native import builds
from tests.native.builds import TARGETS, Build, MissingToolError, Target
from tests.native.serving import Served

EACH_TARGET = [
    pytest.param(target, id=target.name, marks=[pytest.mark.qemu] if target.emulated else []) for target in TARGETS
]


def missing(reason: str) -> None:
    """Skip for want of a tool, or fail where MOBILEMODEL_REQUIRE names ``qemu``."""
    if "qemu" in os.environ.get("MOBILEMODEL_REQUIRE", ""):
        pytest.fail(reason)
    pytest.skip(reason)


@pytest.fixture(scope="session")
def shared_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder that all workers of the session see."""
    own = tmp_path_factory.getbasetemp()
    return own.parent if os.environ.get("PYTEST_XDIST_WORKER") else own


@pytest.fixture(scope="session")
def built(shared_folder: Path) -> Callable[[Build], Path]:
    """The folder of a build; skips where it lacks a tool."""

    def make(build: Build) -> Path:
        try:
            return builds.make(build, shared_folder)
        except MissingToolError as error:
            missing(f"the C reader: {error}")
            raise

    return make


@pytest.fixture(scope="session", params=EACH_TARGET)
def target(request: pytest.FixtureRequest) -> Target:
    """A processor."""
    chosen: Target = request.param
    return chosen


@pytest.fixture(scope="session")
def served(target: Target, built: Callable[[Build], Path]) -> Iterator[Served]:
    """The C reader, running on the target."""
    with Served(builds.command(target, built(target.build), "mm-serve")) as running:
        yield running
