"""Compare the accuracy of a bundle with that of the float model it was made from.

python examples/digits/evaluate.py digits.mm
"""

from __future__ import annotations

import sys
from pathlib import Path

import mobilemodel as mm
from mobilemodel.v1 import bundle_pb2 as pb

HERE = Path(__file__).parent
PREPROCESSING = pb.Preprocessing(input="data", colour_order=pb.COLOUR_ORDER_GREY, mean=[120.0], scale=[1 / 64])


def main(bundle: str) -> None:
    """Print size and top-1 of the float model and of the bundle on the held-out pictures."""
    data = mm.read_data(HERE / "test.npz")
    for path in (HERE / "model.onnx", Path(bundle)):
        found = mm.evaluate(path, data, preprocessing=PREPROCESSING)
        size = f"{path.name:<12} {path.stat().st_size:>9,} bytes"
        print(f"{size}   top-1 {found.top1:.2f} % of {found.pictures} pictures")


if __name__ == "__main__":
    main(sys.argv[1])
