"""A short coverage-guided run of each target, bounded in work, where atheris is installed."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.fuzz.targets import TARGETS

FUZZER = Path(__file__).with_name("fuzz_sources.py")
RUNS = 100
OPTIONS = (f"-runs={RUNS}", "-seed=1", "-rss_limit_mb=1500", "-timeout=60", "-max_len=60000", "-verbosity=0")


@pytest.fixture
def atheris() -> None:
    """Skips where atheris is not installed; fails there when MOBILEMODEL_REQUIRE names ``fuzz``."""
    if importlib.util.find_spec("atheris") is None:
        reason = "atheris is not installed: pip install --group fuzz"
        if "fuzz" in os.environ.get("MOBILEMODEL_REQUIRE", ""):
            pytest.fail(reason)
        pytest.skip(reason)


@pytest.mark.parametrize("name", TARGETS)
@pytest.mark.usefixtures("atheris")
def test_a_short_run_finds_nothing(name: str, tmp_path: Path) -> None:
    """Anything outside of the error tree ends the run as a crash, more memory or time than its options say as well."""
    command = [sys.executable, str(FUZZER), name, *OPTIONS, f"-artifact_prefix={tmp_path}/"]
    found = subprocess.run(command, capture_output=True, text=True, timeout=600, check=False)
    assert found.returncode == 0, found.stderr[-4000:]
