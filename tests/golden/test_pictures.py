"""The golden pictures of spec/golden, read as a reader of another language would read them."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from mobilemodel.dtypes import DType
from mobilemodel.runtime import prepare, read_picture, resize
from mobilemodel.v1 import bundle_pb2 as pb

GOLDEN = Path(__file__).resolve().parents[2] / "spec" / "golden"
TABLE: dict[str, Any] = json.loads((GOLDEN / "resize.json").read_text("utf-8"))
BIG_ENDIAN = {"FLOAT": ">f4", "FLOAT16": ">f2", "UINT8": "u1"}


def from_bits(text: str, kind: str = "FLOAT") -> npt.NDArray[Any]:
    stored = np.dtype(BIG_ENDIAN[kind])
    return np.frombuffer(bytes.fromhex(text), stored).astype(stored.newbyteorder("="))


def picture(name: str) -> npt.NDArray[np.uint8]:
    made = TABLE["pictures"][name]
    return from_bits(made["pixels"], "UINT8").reshape(made["rows"], made["columns"], made["channels"])


def title(case: dict[str, Any]) -> str:
    keys = (
        "picture",
        "mode",
        "height",
        "width",
        "kernel",
        "antialias",
        "colour_order",
        "layout",
        "crop_height",
        "dtype",
    )
    return "-".join(str(case[key]) for key in keys if key in case)


def writer() -> ModuleType:
    spec = importlib.util.spec_from_file_location("write_golden", Path(__file__).with_name("write_golden.py"))
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("name", TABLE["pictures"])
def test_the_png_files_hold_the_pixels_of_the_table(name: str) -> None:
    expected = picture(name)
    assert np.array_equal(read_picture(GOLDEN / name), np.broadcast_to(expected, (*expected.shape[:2], 3)))


@pytest.mark.parametrize("case", TABLE["resize"], ids=title)
def test_resize_is_within_one_grey_level(case: dict[str, Any]) -> None:
    step = pb.Resize(
        mode=f"MODE_{case['mode']}", height=case["height"], width=case["width"],
        kernel=f"KERNEL_{case['kernel']}", antialias=case["antialias"],
    )  # fmt: skip
    found = resize(picture(case["picture"]), step)
    assert found.shape[:2] == (case["rows"], case["columns"])
    expected = from_bits(case["pixels"], "UINT8").reshape(found.shape)
    assert np.sqrt(np.mean((found.astype(np.float64) - expected) ** 2)) <= 1


@pytest.mark.parametrize("case", TABLE["exact"], ids=title)
def test_everything_after_the_resize_is_exact(case: dict[str, Any]) -> None:
    step = pb.Preprocessing(
        crop_height=case["crop_height"], crop_width=case["crop_width"],
        colour_order=f"COLOUR_ORDER_{case['colour_order']}",
        mean=[from_bits(value)[0] for value in case["mean"]], scale=[from_bits(value)[0] for value in case["scale"]],
        layout=f"LAYOUT_{case['layout']}",
    )  # fmt: skip
    mean = case["mean_picture"]
    if mean:
        step.mean_picture.height, step.mean_picture.width = mean["height"], mean["width"]
        mean = from_bits(mean["values"]).reshape(mean["height"], mean["width"], -1)
    found = prepare(picture(case["picture"]), step, mean, dtype=DType[case["dtype"]])
    expected = from_bits(case["values"], case["dtype"]).reshape(case["shape"])
    assert found.dtype == expected.dtype
    assert found.shape == expected.shape
    assert found.tobytes() == expected.tobytes()


def test_the_files_are_what_their_writer_makes() -> None:
    assert writer().stale(GOLDEN) == []


def test_a_file_that_is_there_is_never_changed(tmp_path: Path) -> None:
    module = writer()
    assert sorted(module.write(tmp_path)) == ["grey.png", "picture.png", "resize.json"]
    assert module.stale(tmp_path) == []
    (tmp_path / "resize.json").write_text("{}")
    assert module.write(tmp_path) == []
    assert module.stale(tmp_path) == ["resize.json"]


def test_the_table_stays_small() -> None:
    assert (GOLDEN / "resize.json").stat().st_size < 200_000
