"""Accuracy on labelled data, and differences between two models' outputs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from mobilemodel.bundle import Bundle
from mobilemodel.dtypes import DType
from mobilemodel.errors import (
    CheckFailedError,
    MalformedSourceError,
    UnsupportedEncodingError,
    UnsupportedSourceError,
    UsageError,
)
from mobilemodel.runtime.data import Data, Prepare
from mobilemodel.runtime.picture import Floats, prepare
from mobilemodel.runtime.session import ModelLike, open_model, run, session
from mobilemodel.v1 import bundle_pb2 as pb

if TYPE_CHECKING:
    from onnxruntime import InferenceSession

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
    batch_size: int = 64,
    threads: int = 1,
) -> Evaluation:
    """Measure top-1 and top-5 accuracy of the model's first output on labelled data.

    Pictures are prepared as ``preprocessing`` says (with ``mean_picture`` where it refers to one), else as the bundle
    says for its input; float32 data go in as they are. At most ``limit`` pictures, evenly spread, are looked at. A
    class counts as found among the first k when fewer than k others score higher, or equal with a smaller index; where
    a score is NaN, nothing is found. Of a model with a fixed batch size, that size is used.

    Raises UsageError where data, preprocessing and input do not fit, and what ``session`` and reading raise.

        evaluate("out.mm", read_data("test.npz")).top1
    """
    chosen = data.spread(limit)
    classes = chosen.classes
    if classes is None:
        raise UsageError("the data have no classes to compare with", file=data.file)
    opened = open_model(model)
    try:
        running = session(opened, threads=threads)
        source = _only_input(running)
        step, picture = preprocessing, mean_picture
        if step is None and isinstance(opened, Bundle):
            step, picture = _stored_step(opened, source.name)
        ready = _preparation(chosen, source, step, picture)
    finally:
        if isinstance(opened, Bundle) and opened is not model:
            opened.close()
    fixed = source.shape[0] if source.shape and isinstance(source.shape[0], int) else None
    ranks = np.empty(len(chosen), np.int64)
    done = 0
    for tensors in chosen.batches(fixed or batch_size, ready):
        _check_shape(source, tensors, data.file)
        scores = _first_output(running, source.name, _filled(tensors, fixed))[: len(tensors)]
        ranks[done : done + len(tensors)] = _ranks(scores, classes[done : done + len(tensors)], data.file)
        done += len(tensors)
    top1, top5 = (100 * int((ranks < k).sum()) / len(chosen) for k in (1, 5))
    return Evaluation(top1, top5, len(chosen))


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


def _only_input(running: InferenceSession) -> Any:
    inputs = running.get_inputs()
    if len(inputs) != 1:
        raise UnsupportedSourceError("accuracy of a model with another number of inputs than one", found=len(inputs))
    return inputs[0]


def _stored_step(bundle: Bundle, name: str) -> tuple[pb.Preprocessing | None, Floats | None]:
    """A bundle's preprocessing of an input, and its mean picture."""
    for step in bundle.manifest.preprocessing:
        if step.input == name:
            return step, bundle.mean_picture(step) if step.HasField("mean_picture") else None
    return None, None


_ELEMENT_TYPES = {"tensor(float)": DType.FLOAT, "tensor(float16)": DType.FLOAT16, "tensor(uint8)": DType.UINT8}
"""ONNX Runtime's names of the types that pictures can take"""


def _preparation(data: Data, source: Any, step: pb.Preprocessing | None, mean_picture: Floats | None) -> Prepare:
    if source.type not in _ELEMENT_TYPES:
        raise UnsupportedEncodingError("pictures for an input of this type", tensor=source.name, found=source.type)
    if step is None:
        if not data.ready:
            raise UsageError(
                "nothing says how pictures become the model's input", tensor=source.name,
                advice="Give preprocessing (mean, scale, channels, resize, crop), or float32 data of its shape.",
            )  # fmt: skip
        step = pb.Preprocessing()
    known = step
    return lambda pictures: prepare(pictures, known, mean_picture, dtype=_ELEMENT_TYPES[source.type])


def _check_shape(source: Any, tensors: Array, file: str | None) -> None:
    """All axes but the first must be what the input says, where it says anything (spec/preprocessing.md §7)."""
    known = [size if isinstance(size, int) else None for size in source.shape][1:]
    found = tensors.shape[1:]
    fits = len(known) == len(found) and all(size in (None, got) for size, got in zip(known, found, strict=True))
    if source.shape and not fits:
        raise UsageError(
            "the data do not fit the model's input", file=file, tensor=source.name,
            expected=f"N x {' x '.join('any' if size is None else str(size) for size in known)}",
            found=f"N x {' x '.join(map(str, found))}",
        )  # fmt: skip


def _filled(tensors: Array, fixed: int | None) -> Array:
    """Fill a short last batch by repeating its last tensor: the model takes no other batch size."""
    if fixed is None or len(tensors) == fixed:
        return tensors
    return np.concatenate([tensors, np.repeat(tensors[-1:], fixed - len(tensors), axis=0)])


def _first_output(running: InferenceSession, name: str, tensors: Array) -> Array:
    scores = next(iter(run(running, {name: tensors}).values()))
    if scores.ndim < 2 or len(scores) != len(tensors) or scores.dtype.kind not in "iuf":
        found = f"{scores.dtype} {list(scores.shape)}"
        raise UnsupportedSourceError("the first output holds no scores of classes", found=found)
    return scores.reshape(len(tensors), -1)


def _ranks(scores: Array, classes: npt.NDArray[np.int64], file: str | None) -> npt.NDArray[np.int64]:
    """How many classes come before the right one, 0 at best."""
    count = scores.shape[1]
    if int(classes.max()) >= count:
        raise MalformedSourceError("a class is out of range", file=file, expected=f"below {count}", found=classes.max())
    right = np.take_along_axis(scores, classes[:, None], axis=1)
    before = (scores > right) | ((scores == right) & (np.arange(count) < classes[:, None]))
    ranks: npt.NDArray[np.int64] = before.sum(axis=1, dtype=np.int64)
    ranks[np.isnan(scores).any(axis=1)] = max(count, 5)
    return ranks
