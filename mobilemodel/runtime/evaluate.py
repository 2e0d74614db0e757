"""Accuracy on labelled data, and differences between two models' outputs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from mobilemodel.errors import CheckFailedError, UsageError
from mobilemodel.runtime.comparison import evaluate_models
from mobilemodel.runtime.data import Data
from mobilemodel.runtime.picture import Floats
from mobilemodel.runtime.session import ModelLike, run, session
from mobilemodel.v1 import bundle_pb2 as pb

Array = npt.NDArray[Any]


@dataclass(frozen=True)
class Evaluation:
    """How many of the pictures a network got right."""

    top1: float
    """per cent"""
    top5: float
    """per cent"""
    pictures: int


@dataclass(frozen=True)
class Difference:
    """How far one output of two models is apart."""

    output: str
    largest_absolute: float
    """largest |a - b|; infinite where one is NaN or infinite and the other is not the same"""
    largest_relative: float
    """largest |a - b| over the largest |a| of the output; 0 where there is no difference"""
    identical: bool
    """the same type, shape and bits"""


def evaluate(
    model: ModelLike,
    data: Data,
    *,
    preprocessing: pb.Preprocessing | None = None,
    mean_picture: Floats | None = None,
    limit: int | None = None,
    views: int = 1,
    batch_size: int = 64,
    threads: int = 1,
) -> Evaluation:
    """Measure top-1 and top-5 accuracy of the model's first output on labelled data.

    Pictures are prepared as ``preprocessing`` says (with ``mean_picture`` where it refers to one), else as the bundle
    says for its input; float32 data go in as they are. At most ``limit`` pictures, evenly spread, are looked at. A
    class counts as found among the first k when fewer than k others score higher, or equal with a smaller index; where
    a score is NaN, nothing is found. With ten ``views`` the scores are the mean of the probabilities of ten crops
    (``prepare_views``). Of a model with a fixed batch size, that size is used.

    Raises UsageError where data, preprocessing and input do not fit, and what ``session`` and reading raise.

        evaluate("out.mm", read_data("test.npz")).top1
    """
    if data.classes is None:
        raise UsageError("the data have no classes to compare with", file=data.file)
    found = evaluate_models(
        [model], data, preprocessing=preprocessing, mean_picture=mean_picture, limit=limit, views=views,
        batch_size=batch_size, threads=threads,
    )  # fmt: skip
    (only,) = found.models
    assert only.top1 is not None
    assert only.top5 is not None
    return Evaluation(only.top1, only.top5, found.pictures)


def compare(a: ModelLike, b: ModelLike, inputs: Mapping[str, Array], *, threads: int = 1) -> tuple[Difference, ...]:
    """Run two models on the same inputs: the differences of each output, in the order of ``a``.

    Raises CheckFailedError where their outputs differ in name, type or shape, or where one of them cannot be run.
    """
    first = run(session(a, threads=threads), inputs)
    second = run(session(b, threads=threads), inputs)
    if set(first) != set(second):
        raise CheckFailedError("outputs of the two models", expected=", ".join(first), found=", ".join(second))
    return tuple(difference(name, first[name], second[name]) for name in first)


def difference(output: str, a: Array, b: Array) -> Difference:
    """Compare two arrays; NaN equals NaN in value, its bits count for ``identical``.

    >>> difference("y", np.array([1.0, 4.0]), np.array([1.0, 3.0]))
    Difference(output='y', largest_absolute=1.0, largest_relative=0.25, identical=False)
    """
    if (a.dtype, a.shape) != (b.dtype, b.shape):
        raise CheckFailedError("type or shape of an output", tensor=output, expected=f"{a.dtype} {list(a.shape)}",
                               found=f"{b.dtype} {list(b.shape)}")  # fmt: skip
    if a.dtype.kind not in "biuf":
        same = bool(np.array_equal(a, b))
        return Difference(output, 0.0 if same else np.inf, 0.0 if same else np.inf, same)
    wide_a, wide_b = a.astype(np.float64), b.astype(np.float64)
    with np.errstate(invalid="ignore", over="ignore"):
        apart = np.abs(wide_a - wide_b)
    apart[(wide_a == wide_b) | (np.isnan(wide_a) & np.isnan(wide_b))] = 0.0
    apart[np.isnan(apart)] = np.inf
    absolute = float(apart.max(initial=0.0))
    sizes = np.abs(wide_a[np.isfinite(wide_a)])
    largest = float(sizes.max(initial=0.0))
    relative = absolute / largest if largest else np.inf
    return Difference(output, absolute, relative if absolute else 0.0, a.tobytes() == b.tobytes())
