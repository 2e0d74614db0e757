"""Every source parser on broken sources: no exception outside the error tree, no hang, memory bounded.

The mutations are those of mutations.py; hypothesis chooses among them.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path
from random import Random

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.fuzz.mutations import mutate
from tests.fuzz.seeds import REAL, real_sources
from tests.fuzz.targets import TARGETS, Target, pack, survives, unpack

BATCH = Path(__file__).with_name("batch.py")
LONGEST = 60.0
"""CPU seconds after which a source counts as a hang; the slowest seen took a quarter of one"""
LARGEST = 256
"""MiB that a run of sources takes, each of them below 100 kB"""
HEALTH = (HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.large_base_example)
"""checks of hypothesis' speed, which say nothing of the parsers'"""
RUN = 100
"""mutations of each target within a limit of memory"""


@pytest.mark.parametrize("target", TARGETS.values(), ids=TARGETS)
def test_the_seeds_are_whole(target: Target) -> None:
    """A mutation of a source that is refused anyway would show nothing."""
    for seed in target.seeds:
        refusal = survives(target, seed)
        assert refusal is None or "x 1," in str(refusal), refusal  # a mean of three channels is none of one
        assert unpack(target, pack(target, seed)) == seed


@pytest.mark.parametrize("target", TARGETS.values(), ids=TARGETS)
@settings(suppress_health_check=HEALTH)
@given(random=st.randoms(use_true_random=False))
def test_a_broken_source_is_refused_or_read(target: Target, random: Random) -> None:
    """No exception outside our error tree, no hang: whatever is changed, within a bounded time."""
    broken = mutate(random.choice(target.seeds), random)
    start = time.process_time()
    survives(target, broken)
    assert time.process_time() - start < LONGEST


@pytest.mark.parametrize("target", TARGETS.values(), ids=TARGETS)
@settings(suppress_health_check=HEALTH)
@given(packed=st.binary(max_size=400))
def test_bytes_of_no_format(target: Target, packed: bytes) -> None:
    survives(target, unpack(target, packed))


@pytest.mark.parametrize("name", REAL)
@settings(suppress_health_check=HEALTH)
@given(random=st.randoms(use_true_random=False))
def test_a_broken_real_source(zoo: Path, name: str, random: Random) -> None:
    broken = mutate(random.choice(real_sources(zoo, name)), random)
    start = time.process_time()
    survives(TARGETS[name], broken)
    assert time.process_time() - start < LONGEST


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="limits of memory are set as Linux has them")
def test_memory_is_bounded() -> None:
    """A small source cannot ask for any amount of memory: runs of mutations in a process with a limit."""
    command = [sys.executable, str(BATCH), "0", str(RUN)]
    found = subprocess.run(command, capture_output=True, text=True, timeout=600, check=False)
    assert found.returncode == 0, found.stderr[-4000:]
    results = [json.loads(line) for line in found.stdout.splitlines()]
    assert [result["target"] for result in results] == list(TARGETS)
    assert all(result["mib"] < LARGEST and result["slowest"] < LONGEST for result in results), results
