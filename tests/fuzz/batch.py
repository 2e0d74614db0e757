"""Run mutations of targets by number, within a limit of memory: `python tests/fuzz/batch.py FIRST COUNT [TARGET...]`.

Prints a line of JSON for each: the slowest mutation, by CPU seconds, and the memory in MiB that the run took beyond
what was taken before. A number below that of the seeds is a seed itself.
A finding ends it with a traceback below the number that repeats it.
"""

from __future__ import annotations

import json
import resource
import sys
import time
import warnings
from collections import Counter
from pathlib import Path
from random import Random

sys.path[:0] = [str(Path(__file__).resolve().parents[2]), str(Path(__file__).resolve().parents[2] / "converters")]

from tests.fuzz.mutations import Files, mutate  # noqa: E402 - the path comes first
from tests.fuzz.targets import TARGETS, Target, survives  # noqa: E402

MOST_MEMORY = 2 << 30
"""bytes of address space beyond what the process has at the start"""
MIB = 1 << 20


def mutated(target: Target, number: int) -> Files:
    """Mutation ``number`` of a target; the first numbers are the seeds themselves."""
    seeds = target.seeds
    if number < len(seeds):
        return seeds[number]
    random = Random(number)
    return mutate(random.choice(seeds), random)


def main(first: int, count: int, names: list[str]) -> None:
    warnings.simplefilter("error")
    for name in names:
        survives(TARGETS[name], TARGETS[name].seeds[0])
    with open("/proc/self/statm") as file:
        taken = int(file.read().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (taken + MOST_MEMORY, taken + MOST_MEMORY))
    for name in names:
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        slowest, number, verdicts = run(name, first, count)
        grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
        result = {"target": name, "slowest": round(slowest, 3), "number": number, "mib": grown >> 10} | verdicts
        print(json.dumps(result), flush=True)


def run(name: str, first: int, count: int) -> tuple[float, int, Counter[str]]:
    """The slowest mutation, its number, and how often each kind of error refused one."""
    slowest, verdicts = (0.0, -1), Counter[str]()
    for number in range(first, first + count):
        broken = mutated(TARGETS[name], number)
        start = time.process_time()
        try:
            refusal = survives(TARGETS[name], broken)
        except BaseException:
            print(f"{name} {number}", file=sys.stderr)
            raise
        slowest = max(slowest, (time.process_time() - start, number))
        verdicts["taken" if refusal is None else type(refusal).__name__] += 1
    return *slowest, verdicts


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]), sys.argv[3:] or list(TARGETS))
