"""A model that scores classes: opened, its pictures prepared, run batch by batch."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from mobilemodel.bundle import Bundle
from mobilemodel.dtypes import DType
from mobilemodel.errors import (
    LimitExceededError,
    MalformedSourceError,
    MobileModelError,
    UnsupportedEncodingError,
    UnsupportedSourceError,
    UsageError,
)
from mobilemodel.runtime.data import Data, Prepare
from mobilemodel.runtime.picture import Floats, prepare
from mobilemodel.runtime.scores import Doubles, are_probabilities, probabilities
from mobilemodel.runtime.session import ModelLike, external_files, open_model, parse_model, run, session
from mobilemodel.runtime.views import VIEWS, prepare_views
from mobilemodel.v1 import bundle_pb2 as pb

if TYPE_CHECKING:
    from onnxruntime import InferenceSession

Array = npt.NDArray[Any]

LARGEST_BATCH = 2**29
"""values of a batch that a model with a fixed batch size takes"""
LARGEST_RUN = 2**21
"""values that go into one run of a model that takes any batch size: they grow manifold inside"""
_ELEMENT_TYPES = {"tensor(float)": DType.FLOAT, "tensor(float16)": DType.FLOAT16, "tensor(uint8)": DType.UINT8}
"""ONNX Runtime's names of the types that pictures can take"""


@dataclass(frozen=True, eq=False)
class Preparation:
    """How pictures become a model's input, and who said so."""

    step: pb.Preprocessing
    mean_picture: Floats | None = None
    bundle: str | None = None
    """name of the model that keeps it; None where the caller gave it"""

    @property
    def key(self) -> tuple[bytes, bytes]:
        """Equal where the same tensors come out, whatever the input is called."""
        step = pb.Preprocessing()
        step.CopyFrom(self.step)
        step.ClearField("input")
        step.ClearField("mean_picture")
        picture = b"" if self.mean_picture is None else self.mean_picture.tobytes()
        return step.SerializeToString(deterministic=True), picture


@dataclass(frozen=True, eq=False)
class Answers:
    """What a model says of a batch of pictures."""

    scores: Array
    """N x classes: the first output as it is; over several views, ``probabilities``"""
    probabilities: Doubles
    """N x classes, each row a distribution, or NaN altogether; over several views their mean"""
    softmaxed: bool | None
    """whether the outputs became probabilities by a softmax; None where they hold nothing but NaN so far"""


@dataclass(frozen=True, eq=False)
class Classifier:
    """A session with one input, whose first output holds scores of classes."""

    session: InferenceSession
    name: str
    """the file, or what the caller calls it; for reports and errors"""
    stored_bytes: int
    stored: Preparation | None = None
    """what a bundle says of its input's pictures"""

    @property
    def input(self) -> Any:
        """The only input: its name, type and shape as ONNX Runtime says them. Raises UnsupportedSourceError."""
        inputs = self.session.get_inputs()
        if len(inputs) != 1:
            raise UnsupportedSourceError("scores of a model with another number of inputs than one", file=self.name,
                                         found=len(inputs))  # fmt: skip
        return inputs[0]

    @property
    def fixed(self) -> int | None:
        """The only batch size that the model takes; None: any. Raises LimitExceededError for a huge one."""
        shape = self.input.shape
        if not shape or not isinstance(shape[0], int):
            return None
        values = 1
        for size in shape:
            values *= size if isinstance(size, int) else 1
        if values > LARGEST_BATCH or values < 1:
            raise LimitExceededError("a batch of the model's input", file=self.name, tensor=self.input.name,
                                     expected=f"1 to {LARGEST_BATCH} values", found=values)  # fmt: skip
        return int(shape[0])

    def preparing(self, preparation: Preparation, views: int) -> Prepare:
        """What makes pictures this model's input tensors: N x ..., or N x 10 x ... for ten views."""
        dtype, step, picture = self.element_type, preparation.step, preparation.mean_picture
        if views == 1:
            return lambda pictures: prepare(pictures, step, picture, dtype=dtype)
        return lambda pictures: prepare_views(pictures, step, picture, dtype=dtype)

    @property
    def element_type(self) -> int:
        """The input's type; raises UnsupportedEncodingError for one that pictures cannot take."""
        if self.input.type not in _ELEMENT_TYPES:
            raise UnsupportedEncodingError("pictures for an input of this type", file=self.name, tensor=self.input.name,
                                           found=self.input.type)  # fmt: skip
        return _ELEMENT_TYPES[self.input.type]

    def placed(self, preparation: Preparation) -> Preparation:
        """A copy in the other layout, where this input's shape has the channels where that one has them."""
        shape, step = self.input.shape, pb.Preprocessing()
        step.CopyFrom(preparation.step)
        channels = 1 if step.colour_order == pb.COLOUR_ORDER_GREY else 3
        behind = step.layout == pb.LAYOUT_NHWC
        here, there = (3, 1) if behind else (1, 3)
        if len(shape) == 4 and isinstance(shape[here], int) and shape[here] != channels == shape[there]:
            step.layout = pb.LAYOUT_NCHW if behind else pb.LAYOUT_NHWC
        return replace(preparation, step=step)

    def answers(self, batches: Iterable[Array], views: int = 1) -> Iterator[Answers]:
        """Score batches of tensors, N x ... or, for several views, N x views x ...

        Whether the output is probabilities or logits that a softmax makes so is decided on the first batch that holds
        a row without NaN (``are_probabilities``), and stays so for all that follow.

        Raises UsageError where the tensors do not fit the input, CheckFailedError where the model does not run,
        UnsupportedSourceError where its first output is no scores.
        """
        known: bool | None = None
        try:
            for tensors in batches:
                scores = self._scores(tensors if views == 1 else tensors.reshape(-1, *tensors.shape[2:]))
                known = known if known is not None else are_probabilities(scores)
                likely = probabilities(scores, softmax=not known)
                if views > 1:
                    likely = likely.reshape(len(tensors), views, -1).mean(axis=1)
                yield Answers(scores if views == 1 else likely, likely, None if known is None else not known)
        except MobileModelError as error:
            raise error.within(file=self.name) from None

    def _scores(self, tensors: Array) -> Array:
        source, fixed = self.input, self.fixed
        _check_shape(source, tensors)
        size = fixed or max(1, LARGEST_RUN // (tensors[0].size or 1))
        pieces = [tensors[start : start + size] for start in range(0, len(tensors), size)]
        found = [_first_output(self.session, source.name, _filled(piece, fixed))[: len(piece)] for piece in pieces]
        return np.concatenate(found)


def open_classifier(model: ModelLike, *, threads: int = 1, name: str | None = None) -> Classifier:
    """Open a bundle or an ONNX model, its content tells which, to score pictures; raises what ``session`` raises.

    ``name`` is what reports call a model that is no file.
    """
    opened = open_model(model)
    called = opened.file if isinstance(opened, Bundle) else opened if isinstance(opened, str) else None
    called = called or name or "the model"
    try:
        made = Classifier(session(opened, threads=threads), called, _stored_bytes(opened))
        return replace(made, stored=_stored_preparation(opened, made)) if isinstance(opened, Bundle) else made
    except MobileModelError as error:
        raise error.within(file=called) from None
    finally:
        if isinstance(opened, Bundle) and opened is not model:
            opened.close()


def batches_of(
    data: Data, classifier: Classifier, preparation: Preparation | None, views: int, size: int
) -> Iterator[Array]:
    """The data as tensors for a model; raises UsageError where nothing says how they are made, or for odd views."""
    if views not in VIEWS:
        raise UsageError("views", expected=" or ".join(map(str, VIEWS)), found=views)
    if data.ready and views > 1:
        raise UsageError("ten views need pictures", file=data.file, expected="uint8 pictures",
                         found="float32 tensors that go in as they are")  # fmt: skip
    if preparation is None and not data.ready:
        raise UsageError(
            "nothing says how pictures become the model's input", file=classifier.name, tensor=classifier.input.name,
            advice="Give preprocessing (mean, scale, channels, resize, crop), or float32 data of its shape.",
        )  # fmt: skip
    if preparation is None:
        preparation = Preparation(pb.Preprocessing())
    return data.batches(-(-size // views), classifier.preparing(preparation, views))


def _stored_preparation(bundle: Bundle, classifier: Classifier) -> Preparation | None:
    for step in bundle.manifest.preprocessing:
        if step.input == classifier.input.name:
            picture = bundle.mean_picture(step) if step.HasField("mean_picture") else None
            return Preparation(step, picture, classifier.name)
    return None


def _stored_bytes(opened: Bundle | str | bytes) -> int:
    """Size of a model's file or bytes; for an ONNX file, with the files that hold its external weights."""
    if isinstance(opened, Bundle):
        return opened.size
    if isinstance(opened, bytes):
        return len(opened)
    try:
        whole = Path(opened).read_bytes()
    except OSError as error:
        raise UsageError(f"cannot open: {error.strerror}", file=opened) from None
    total = len(whole)
    with suppress(MalformedSourceError):  # no protobuf: ONNX Runtime's own format, always one file
        for place in external_files(parse_model(whole)):
            # ONNX Runtime has opened all files that it needs: another one that is not there does not count.
            with suppress(OSError, ValueError):
                total += (Path(opened).parent / place).stat().st_size
    return total


def _check_shape(source: Any, tensors: Array) -> None:
    """All axes but the first must be what the input says, where it says anything (spec/preprocessing.md §7)."""
    known = [size if isinstance(size, int) else None for size in source.shape][1:]
    found = tensors.shape[1:]
    fits = len(known) == len(found) and all(size in (None, got) for size, got in zip(known, found, strict=True))
    if source.shape and not fits:
        raise UsageError(
            "the data do not fit the model's input", tensor=source.name,
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
    if scores.ndim < 2 or len(scores) != len(tensors) or scores.size == 0 or scores.dtype.kind not in "iuf":
        found = f"{scores.dtype} {list(scores.shape)}"
        raise UnsupportedSourceError("the first output holds no scores of classes", found=found)
    return scores.reshape(len(tensors), -1)
