"""Coverage-guided fuzzing of a source parser with atheris.

    python tests/fuzz/fuzz_sources.py TARGET [libFuzzer options] [corpus folder]

Without a corpus folder it begins with the seeds alone. What it finds is written as libFuzzer does, `crash-...`; the
same command with that file repeats it. Without TARGET it lists the targets.
"""

from __future__ import annotations

import importlib
import pkgutil
import sys
import warnings
from pathlib import Path
from random import Random
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tests.fuzz.targets import Target

ROOT = Path(__file__).resolve().parents[2]


def instrument() -> None:
    """Import what is to be fuzzed so that atheris sees which branches are taken."""
    import atheris

    sys.path[:0] = [str(ROOT), str(ROOT / "converters")]
    with atheris.instrument_imports(include=["mobilemodel", "mobilemodel_converters"]):
        import mobilemodel_converters

        # What is imported where it is needed would come too late to be instrumented.
        for found in pkgutil.walk_packages(mobilemodel_converters.__path__, "mobilemodel_converters."):
            importlib.import_module(found.name)
        importlib.import_module("tests.fuzz.targets")


def mutator(target: Target) -> object:
    """Half of the steps are libFuzzer's own, half know the formats."""
    import atheris

    from tests.fuzz.mutations import mutate
    from tests.fuzz.targets import pack, unpack

    def change(packed: bytes, most: int, seed: int) -> bytes:
        random = Random(seed)
        files = unpack(target, packed)
        if not files or random.randrange(2):
            return bytes(atheris.Mutate(packed, most))
        return pack(target, mutate(files, random))[:most]

    return change


def main(arguments: list[str]) -> None:
    instrument()
    import atheris

    from tests.fuzz.targets import TARGETS, pack, survives, unpack

    target = TARGETS.get(arguments[1]) if len(arguments) > 1 else None
    if target is None:
        sys.exit(f"TARGET is one of {', '.join(TARGETS)}")
    with TemporaryDirectory() as corpus:
        for number, seed in enumerate(target.seeds):
            Path(corpus, f"seed-{number}").write_bytes(pack(target, seed))
        options = arguments[2:]
        if all(option.startswith("-") for option in options):
            options.append(corpus)

        def one(packed: bytes) -> None:
            survives(target, unpack(target, packed))

        warnings.simplefilter("error")  # as pytest does
        atheris.Setup([arguments[0], *options], one, custom_mutator=mutator(target))
        atheris.Fuzz()


if __name__ == "__main__":
    main(sys.argv)
