"""Size at a given accuracy, on the zoo's networks, beside NNCodec and GPTQ: the sizes that are aimed at, show by show.

Every choice was made on calibration.npz; test.npz is read here, by the judge alone. Each show prints its table, and a
line for each limit.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING

if TYPE_CHECKING:  # to a type checker this folder is a package; a script finds the files beside it
    from benchmarks import accuracy_lab, accuracy_networks, accuracy_whole, measuring
    from benchmarks.accuracy_lab import Lab
else:
    import accuracy_lab
    import accuracy_networks
    import accuracy_whole
    import measuring
    from accuracy_lab import Lab

Show = Callable[[Lab], Iterator[measuring.Results]]
SHOWS: Mapping[int, Show] = MappingProxyType(
    {
        1: accuracy_networks.alexnet,
        2: accuracy_whole.full_alexnet,
        3: accuracy_networks.resnet,
        4: accuracy_networks.qcnn,
        5: accuracy_whole.targets,
        6: accuracy_whole.transforms,
        7: accuracy_whole.costs,
    }
)


def main() -> int:
    options = _arguments()
    zoo = Path(os.environ.get("MOBILEMODEL_ZOO", measuring.FOLDER.parent.parent / "shared" / "zoo"))
    if not zoo.is_dir():
        sys.exit(f"no folder {zoo}: set MOBILEMODEL_ZOO")
    if options.require_peers and not accuracy_lab.has_nncodec(options.peer_python):
        sys.exit(f"NNCodec is required, and {options.peer_python} cannot import it")
    code = 0
    for number in options.show:
        with tempfile.TemporaryDirectory(prefix="mobilemodel-benchmark-") as name:
            for results in SHOWS[number](Lab(Path(name), zoo, options.peer_python, options.rehearsal)):
                if not options.json:
                    print(f"\n{results.name}\n", flush=True)
                code |= results.finish(options.json)
    return code


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--show", type=_numbers, default=tuple(SHOWS), metavar="N,N", help="which (default all)")
    parser.add_argument("--peer-python", type=Path, default=Path(sys.executable), metavar="PATH",
                        help="the interpreter that has NNCodec (default this one)")  # fmt: skip
    parser.add_argument("--require-peers", action="store_true", help="fail where a peer is missing")
    parser.add_argument("--rehearsal", action="store_true",
                        help="judge on the last of calibration.npz, which is then not calibrated with; for work on "
                        "the methods: test.npz is not read")  # fmt: skip
    parser.add_argument("--json", action="store_true", help="print JSON, a document for each table")
    return parser.parse_args()


def _numbers(text: str) -> tuple[int, ...]:
    parts = text.split(",")
    if not all(part.isdigit() and int(part) in SHOWS for part in parts):
        raise argparse.ArgumentTypeError(f"expected numbers from {min(SHOWS)} to {max(SHOWS)}, found {text!r}")
    return tuple(int(part) for part in parts)


if __name__ == "__main__":
    sys.exit(main())
