"""Write the golden pictures of spec/golden, which every reader's preprocessing is compared with.

    python tests/golden/write_golden.py           write what is missing; a file that is there is never changed
    python tests/golden/write_golden.py --check   compare what is there with what would be written

The pictures are made by formulas, so nobody owns them. To change a case on purpose, remove the file first.
"""

from __future__ import annotations

import argparse
import json
import sys
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

ROOT = Path(__file__).resolve().parents[2]
if str(ROOT) not in sys.path:
    sys.path.insert(0, str(ROOT))

from mobilemodel.dtypes import DType  # noqa: E402
from mobilemodel.runtime import picture as pictures  # noqa: E402
from mobilemodel.v1 import bundle_pb2 as pb  # noqa: E402

FOLDER = ROOT / "spec" / "golden"
Array = npt.NDArray[Any]

ABOUT = [
    "Golden results of spec/preprocessing.md; written by tests/golden/write_golden.py.",
    "pictures: rows x columns x channels, two hex digits for each value, equal to the PNG file of that name.",
    "resize: section 2 alone. A reader is right when the root of the mean square difference is at most 1.",
    "exact: sections 3 to 7 without a resize. Every value must be equal.",
    "exact, values: the bits of each element in hex, most significant first, in the order of the tensor.",
    "exact, mean, scale and mean_picture: the bits of binary32 numbers, written the same way.",
]
SIZES = [("WARP", 9, 11), ("WARP", 31, 40), ("WARP", 7, 30), ("WARP", 1, 1), ("SHORT", 8, 8), ("FIT", 12, 12)]
ANTIALIASED = {"BILINEAR_HALF_PIXEL", "BICUBIC"}


def colour_picture(rows: int = 17, columns: int = 23) -> pictures.Pixels:
    """Gradients, a checkerboard of hard edges, and noise in the lower rows: uint8 rows x columns x 3."""
    y, x = np.mgrid[:rows, :columns].astype(np.int64)
    red, green = 255 * x // (columns - 1), 255 * y // (rows - 1)
    blue = np.where((x // 3 + y // 2) % 2, 255, 0)
    made = np.stack([red, green, blue], axis=-1)
    number = (y * columns + x)[..., None] * 3 + np.arange(3)
    noise = (number * number * 7919 + number * 104729 + 12345) // 64 % 256
    made = np.where((y >= 12)[..., None], noise, made)
    made[2:9, 14:19] = (250, 30, 120)
    return made.astype(np.uint8)


def grey_picture() -> pictures.Pixels:
    """A tall picture of one channel: uint8 9 x 5 x 1."""
    y, x = np.mgrid[:9, :5].astype(np.int64)
    made: pictures.Pixels = ((y * 29 + x * 53 + 40 * (x % 2)) % 256)[..., None].astype(np.uint8)
    return made


PICTURES = {"picture.png": colour_picture(), "grey.png": grey_picture()}


def bits(values: Array) -> str:
    """The bits of each element in hex, most significant first."""
    return values.astype(values.dtype.newbyteorder(">")).tobytes().hex()


def mean_values(rows: int, columns: int, channels: int) -> pictures.Floats:
    """A mean picture whose values need all bits of a float32."""
    count = np.arange(rows * columns * channels, dtype=np.float64)
    return (60 + count * 7919 % 1009 / 13).astype(np.float32).reshape(rows, columns, channels)


def resize_cases() -> list[dict[str, Any]]:
    cases = []
    for name, (mode, height, width), kernel in product(PICTURES, SIZES, pb.Resize.Kernel.keys()):
        short = kernel.removeprefix("KERNEL_")
        for antialias in (False, True) if short in ANTIALIASED else (False,):
            step = pb.Resize(mode=f"MODE_{mode}", height=height, width=width, kernel=kernel, antialias=antialias)
            result = pictures.resize(PICTURES[name], step)
            cases.append({
                "picture": name, "mode": mode, "height": height, "width": width, "kernel": short,
                "antialias": antialias, "rows": result.shape[0], "columns": result.shape[1], "pixels": bits(result),
            })  # fmt: skip
    return cases


def exact_case(
    name: str,
    colour_order: str,
    layout: str = "NCHW",
    dtype: DType = DType.FLOAT,
    crop: tuple[int, int] = (0, 0),
    mean: tuple[float, ...] = (),
    mean_size: tuple[int, int] | None = None,
    scale: tuple[float, ...] = (),
) -> dict[str, Any]:
    """One case; ``mean_size`` asks for a mean picture of that size."""
    step = pb.Preprocessing(
        crop_height=crop[0], crop_width=crop[1], colour_order=f"COLOUR_ORDER_{colour_order}",
        mean=mean, scale=scale, layout=f"LAYOUT_{layout}",
    )  # fmt: skip
    picture = None
    if mean_size:
        picture = mean_values(*mean_size, 1 if colour_order == "GREY" else 3)
        step.mean_picture.height, step.mean_picture.width = mean_size
    tensor = pictures.prepare(PICTURES[name], step, picture, dtype=dtype)
    stored = None if picture is None else {"height": mean_size[0], "width": mean_size[1], "values": bits(picture)}  # type: ignore[index]
    return {
        "picture": name, "crop_height": crop[0], "crop_width": crop[1], "colour_order": colour_order,
        "mean": [bits(np.float32(value).reshape(1)) for value in mean], "mean_picture": stored,
        "scale": [bits(np.float32(value).reshape(1)) for value in scale], "layout": layout, "dtype": dtype.name,
        "shape": list(tensor.shape), "values": bits(tensor),
    }  # fmt: skip


def exact_cases() -> list[dict[str, Any]]:
    return [
        exact_case("picture.png", "RGB", mean=(127.5,), scale=(0.0078125,)),
        exact_case("picture.png", "RGB", crop=(11, 13), mean=(123.68, 116.78, 103.94), scale=(0.017, 0.0175, 0.0174)),
        exact_case("picture.png", "BGR", layout="NHWC", crop=(11, 12), mean=(104, 117, 123), scale=(0.017,)),
        exact_case("picture.png", "UNSPECIFIED", layout="UNSPECIFIED", crop=(3, 3), scale=(1 / 255,)),
        exact_case("picture.png", "GREY", crop=(8, 8), mean=(33.318,), scale=(1 / 78.567,)),
        exact_case("picture.png", "RGB", crop=(7, 9), mean_size=(7, 9), scale=(0.017,)),
        exact_case("picture.png", "BGR", crop=(10, 12), mean_size=(17, 23)),
        exact_case("picture.png", "RGB", crop=(6, 5), mean_size=(9, 10), scale=(0.1, 0.2, 0.3)),
        exact_case("picture.png", "GREY", layout="NHWC", crop=(5, 4), mean_size=(6, 7)),
        exact_case("grey.png", "BGR", mean=(103.94, 116.78, 123.68), scale=(0.017,)),
        exact_case("grey.png", "GREY", layout="NHWC"),
        exact_case("picture.png", "BGR", dtype=DType.FLOAT16, crop=(5, 7), mean=(104, 117, 123), scale=(0.017,)),
        exact_case("picture.png", "BGR", layout="NHWC", dtype=DType.UINT8, crop=(4, 6)),
    ]


def golden_json() -> str:
    shapes = {
        name: {"rows": made.shape[0], "columns": made.shape[1], "channels": made.shape[2], "pixels": bits(made)}
        for name, made in PICTURES.items()
    }
    whole = {"about": ABOUT, "pictures": shapes, "resize": resize_cases(), "exact": exact_cases()}
    return json.dumps(whole, indent=1) + "\n"


def stale(folder: Path) -> list[str]:
    """The golden files that are missing or differ from what would be written."""
    names = [
        name
        for name, made in PICTURES.items()
        if not (folder / name).exists() or not np.array_equal(_decoded(folder / name), made)
    ]
    table = folder / "resize.json"
    if not table.exists() or table.read_text("utf-8") != golden_json():
        names.append(table.name)
    return names


def _decoded(path: Path) -> Array:
    from PIL import Image

    with Image.open(path) as image:
        return np.atleast_3d(np.array(image))


def write(folder: Path) -> list[str]:
    """Write the files that are missing; return their names."""
    from PIL import Image

    folder.mkdir(parents=True, exist_ok=True)
    written = []
    for name, made in PICTURES.items():
        if not (folder / name).exists():
            Image.fromarray(made if made.shape[2] == 3 else made[..., 0]).save(folder / name, optimize=True)
            written.append(name)
    if not (folder / "resize.json").exists():
        (folder / "resize.json").write_text(golden_json(), "utf-8", newline="\n")
        written.append("resize.json")
    return written


def main() -> int:
    parser = argparse.ArgumentParser(description="Write the golden pictures of spec/golden, or check them.")
    parser.add_argument("--check", action="store_true", help="write nothing; exit 1 where a file is missing or differs")
    arguments = parser.parse_args()
    if not arguments.check:
        for name in write(FOLDER):
            print(f"wrote {FOLDER / name}")
    changed = stale(FOLDER)
    for name in changed:
        print(f"{name} is missing or differs from what this script makes", file=sys.stderr)
    return 1 if changed else 0


if __name__ == "__main__":
    sys.exit(main())
