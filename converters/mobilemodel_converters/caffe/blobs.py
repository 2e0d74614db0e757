"""Blobs as files hold them: shapes old and new, values packed, one by one or in pieces, single or double."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from mobilemodel.errors import LimitExceededError, MalformedSourceError, UnsupportedSourceError
from mobilemodel.layout import elements_of
from mobilemodel.limits import FORMAT_LIMITS
from mobilemodel_converters.caffe.net import Blob, Float32
from mobilemodel_converters.sources import OpenedFile

_LEGACY = ("num", "channels", "height", "width")


@dataclass(frozen=True)
class Run:
    """Values that lie at equal distances in a file."""

    offset: int
    """where the first one begins"""
    count: int
    gap: int = 0
    """bytes between two values: a tag before each one where they are not packed"""


def blob_shape(message: Any, count: int) -> tuple[int, ...]:
    """The dims of a BlobProto of ``count`` values, from the four fields of old where one of them is there.

    Raises MalformedSourceError for dims below 0 or of another number of values, LimitExceededError for dims that the
    format does not hold.
    """
    if any(message.HasField(name) for name in _LEGACY):
        shape = tuple(getattr(message, name) for name in _LEGACY)
    else:
        shape = tuple(message.shape.dim)
    if len(shape) > FORMAT_LIMITS.rank:
        raise LimitExceededError("axes", expected=f"at most {FORMAT_LIMITS.rank}", found=len(shape))
    if any(dim < 0 for dim in shape):
        raise MalformedSourceError("shape", expected="sizes from 0 on", found=shape)
    if elements_of(shape) != count:
        raise MalformedSourceError(f"values of shape {shape}", expected=elements_of(shape), found=count)
    if count > FORMAT_LIMITS.elements:
        raise LimitExceededError("values", expected=f"at most {FORMAT_LIMITS.elements}", found=count)
    return shape


def memory_blob(message: Any) -> Blob:
    """The blob of a parsed BlobProto."""
    double = len(message.double_data) > 0
    values = to_single(np.array(message.double_data, np.float64)) if double else np.array(message.data, np.float32)
    return Blob(blob_shape(message, values.size), lambda: values, rounded=double)


def read_runs(file: OpenedFile, runs: tuple[Run, ...], double: bool) -> Float32:
    """All values of a blob, read from its file."""
    width = 8 if double else 4
    parts = [_read_run(file, run, width) for run in runs]
    raw = parts[0] if len(parts) == 1 else np.concatenate([*parts, np.empty(0, np.uint8)])
    return to_single(raw.view("<f8")) if double else raw.view("<f4")


def _read_run(file: OpenedFile, run: Run, width: int) -> npt.NDArray[np.uint8]:
    """The bytes of a run's values without what lies between."""
    step = width + run.gap
    raw = np.frombuffer(file.read(run.offset, run.count * step - run.gap), np.uint8)
    if not run.gap:
        return raw
    values = np.empty((run.count, width), np.uint8)
    values[:-1] = raw[: (run.count - 1) * step].reshape(-1, step)[:, :width]
    values[-1] = raw[-width:]
    return values.reshape(-1)


def to_single(values: npt.NDArray[np.float64]) -> Float32:
    """Round to float32; raises UnsupportedSourceError for a finite value that float32 does not hold."""
    with np.errstate(over="ignore", invalid="ignore"):  # a NaN may be of a kind that warns
        rounded = values.astype(np.float32)
    if (np.isinf(rounded) & np.isfinite(values)).any():
        raise UnsupportedSourceError("a value of double precision exceeds float32")
    return rounded
