"""Several models on the same data, side by side: accuracy, and how each answers beside the first."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import tee
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from mobilemodel.errors import LimitExceededError, MobileModelError, UsageError
from mobilemodel.runtime.classifier import Answers, Array, Classifier, Preparation, batches_of, open_classifier
from mobilemodel.runtime.data import Classes, Data
from mobilemodel.runtime.paired import PairedDifference, paired_difference
from mobilemodel.runtime.picture import Floats
from mobilemodel.runtime.scores import Doubles, agreement_of_winners, divergences, ranks, winners
from mobilemodel.runtime.session import ModelLike
from mobilemodel.v1 import bundle_pb2 as pb

if TYPE_CHECKING:
    from onnxruntime import InferenceSession

Progress = Callable[[str, int, int], None]
"""(what is being done, pictures done, pictures in all)"""

LARGEST_SCORES = 2**29
"""values that ``class_scores`` returns"""


@dataclass(frozen=True)
class Beside:
    """How a model answers beside the first one."""

    agreement: float
    """per cent of the pictures that both put into the same class, right or wrong"""
    divergence: float
    """mean KL(first || model) of the outputs in nats; infinite where an output of either is no distribution"""
    top1: PairedDifference | None
    """difference of top-1; None for data without classes"""


@dataclass(frozen=True)
class ModelEvaluation:
    """One model of a comparison."""

    name: str
    stored_bytes: int
    """the file; of an ONNX model with the files of its external weights"""
    top1: float | None
    """per cent; None for data without classes"""
    top5: float | None
    beside: Beside | None
    """None for the first model"""
    softmaxed: bool | None
    """whether its outputs became probabilities by a softmax; None where they are nothing but NaN"""
    unusable: int
    """pictures whose outputs are no distribution: NaN among them, or not of sum 1 though the first ones are"""
    preparation: Preparation | None
    """how pictures became its input; None for tensors that went in as they are"""


@dataclass(frozen=True)
class Comparison:
    """What several models say of the same pictures."""

    pictures: int
    classes: int
    """scores of a picture"""
    views: int
    models: tuple[ModelEvaluation, ...]


@dataclass(eq=False)
class _Record:
    """A model's answer to each picture: a few bytes for each, whatever the number of classes."""

    classifier: Classifier
    preparation: Preparation | None
    winners: Classes
    ranks: Classes
    """all 0 where the data have no classes"""
    divergences: Doubles
    unusable: npt.NDArray[np.bool_]
    softmaxed: bool | None = None

    @classmethod
    def of(cls, classifier: Classifier, preparation: Preparation | None, count: int) -> _Record:
        whole = np.zeros(count, np.int64)
        return cls(classifier, preparation, whole, whole.copy(), np.zeros(count), np.zeros(count, np.bool_))

    def note(self, part: slice, answer: Answers, first: Answers, classes: Classes | None) -> None:
        self.winners[part] = winners(answer.scores)
        self.unusable[part] = np.isnan(answer.probabilities).any(axis=1)
        self.divergences[part] = divergences(first.probabilities, answer.probabilities)
        self.softmaxed = answer.softmaxed
        if classes is not None:
            self.ranks[part] = ranks(answer.scores, classes[part])

    def summary(self, first: _Record, labelled: bool) -> ModelEvaluation:
        """What the report says of this model; ``first`` may be itself."""
        beside = None
        if first is not self:
            paired = paired_difference(first.ranks < 1, self.ranks < 1) if labelled else None
            agreed = agreement_of_winners(first.winners, self.winners)
            beside = Beside(agreed, float(self.divergences.mean()), paired)
        top1, top5 = (100 * int((self.ranks < k).sum()) / len(self.ranks) if labelled else None for k in (1, 5))
        return ModelEvaluation(
            self.classifier.name, self.classifier.stored_bytes, top1, top5, beside, self.softmaxed,
            int(self.unusable.sum()), self.preparation,
        )  # fmt: skip


def evaluate_models(
    models: Sequence[ModelLike],
    data: Data,
    *,
    preprocessing: pb.Preprocessing | None = None,
    mean_picture: Floats | None = None,
    limit: int | None = None,
    views: int = 1,
    batch_size: int = 64,
    threads: int = 1,
    progress: Progress | None = None,
) -> Comparison:
    """Run models on the same data, batch by batch in lockstep, and compare each with the first.

    Pictures become tensors as ``preprocessing`` says, with ``mean_picture`` where it refers to one; else as each bundle
    says; a model that says nothing takes what the first bundle of the list says. A layout that does not fit the
    input's shape is exchanged for the one that does. Float32 data go in as they are. At most ``limit`` pictures, evenly
    spread, are looked at. With ten ``views`` the probabilities of ten crops (``prepare_views``) are averaged. Every
    model stays open until the end; of the data, one batch is in memory for each kind of preparation.

    Outputs are taken as probabilities where ``are_probabilities`` says so of the first batch, else their softmax is.

    Raises UsageError where data, preprocessing and inputs do not fit, or where two models have other numbers of
    classes; MalformedSourceError for classes that have no score; and what ``session`` and reading raise.

        evaluate_models(["alexnet.onnx", "out.mm"], read_data("test.npz")).models[1].beside.agreement
    """
    chosen = _chosen(data, limit)
    if not models:
        raise UsageError("no model to evaluate")
    opened = []
    for number, model in enumerate(models, 1):
        _say(progress, "opening the models", number - 1, len(models))
        opened.append(open_classifier(model, threads=threads, name=f"model {number}"))
    given = Preparation(preprocessing, mean_picture) if preprocessing is not None else None
    prepared = [None if data.ready else _preparation(one, opened, given) for one in opened]
    batches = _shared_batches(opened, prepared, chosen, views, batch_size)
    records = [_Record.of(one, how, len(chosen)) for one, how in zip(opened, prepared, strict=True)]
    streams = [one.answers(stream, views) for one, stream in zip(opened, batches, strict=True)]
    done = classes = 0
    for answers in zip(*streams, strict=True):
        part = slice(done, done + len(answers[0].scores))
        classes = _common_classes(opened, answers)
        for record, answer in zip(records, answers, strict=True):
            try:
                record.note(part, answer, answers[0], chosen.classes)
            except MobileModelError as error:
                raise error.within(file=data.file) from None
        done = part.stop
        _say(progress, "evaluating", done, len(chosen))
    labelled = chosen.classes is not None
    found = tuple(record.summary(records[0], labelled) for record in records)
    return Comparison(len(chosen), classes, views, found)


def class_scores(
    model: ModelLike | InferenceSession,
    data: Data,
    *,
    preprocessing: pb.Preprocessing | None = None,
    mean_picture: Floats | None = None,
    limit: int | None = None,
    views: int = 1,
    batch_size: int = 64,
    threads: int = 1,
) -> npt.NDArray[np.float32]:
    """The probabilities of the classes of each picture, N x classes float32, made as ``evaluate_models`` makes them.

    ``model`` may be a session that is open already; then ``threads`` has no say, and pictures need ``preprocessing``.
    A row that is no distribution (``probabilities``) is NaN altogether.

    Raises LimitExceededError for more than 2^29 values, and what ``evaluate_models`` raises.
    """
    chosen = _chosen(data, limit)
    if hasattr(model, "get_inputs"):
        one = Classifier(model, "the session", 0)
    else:
        one = open_classifier(model, threads=threads)
    given = Preparation(preprocessing, mean_picture) if preprocessing is not None else None
    prepared = None if data.ready else _preparation(one, [one], given)
    made: npt.NDArray[np.float32] | None = None
    done = 0
    for answer in one.answers(batches_of(chosen, one, prepared, views, batch_size), views):
        count, classes = answer.probabilities.shape
        if made is None:
            if len(chosen) * classes > LARGEST_SCORES:
                raise LimitExceededError("scores of all pictures", file=one.name,
                                         expected=f"at most {LARGEST_SCORES}", found=len(chosen) * classes)  # fmt: skip
            made = np.empty((len(chosen), classes), np.float32)
        made[done : done + count] = answer.probabilities
        done += count
    assert made is not None, "there is at least one picture"
    return made


def _chosen(data: Data, limit: int | None) -> Data:
    if len(data) == 0:
        raise UsageError("the data are empty", file=data.file)
    return data.spread(limit)


def _preparation(one: Classifier, opened: Sequence[Classifier], given: Preparation | None) -> Preparation | None:
    """What is given goes before what a model's own bundle says, and that before the first bundle of the others."""
    if given is None and one.stored is not None:
        return one.stored
    known = given or next((other.stored for other in opened if other.stored is not None), None)
    return one.placed(known) if known is not None else None


def _shared_batches(
    opened: Sequence[Classifier], prepared: Sequence[Preparation | None], data: Data, views: int, batch_size: int
) -> list[Iterator[Array]]:
    """The tensors for each model; models whose pictures are prepared alike share them.

    The streams must be read in lockstep: what one has read waits in memory for the others.
    """
    size = max([batch_size, *(one.fixed for one in opened if one.fixed is not None)])
    keys = [(one.element_type, None if how is None else how.key) for one, how in zip(opened, prepared, strict=True)]
    shared = {}
    for key, one, how in zip(keys, opened, prepared, strict=True):
        if key not in shared:
            shared[key] = iter(tee(batches_of(data, one, how, views, size), keys.count(key)))
    return [next(shared[key]) for key in keys]


def _common_classes(opened: Sequence[Classifier], answers: Sequence[Answers]) -> int:
    wanted: int = answers[0].scores.shape[1]
    for one, answer in zip(opened, answers, strict=True):
        if answer.scores.shape[1] != wanted:
            raise UsageError("the models score different classes", file=one.name,
                             expected=f"{wanted} scores as {opened[0].name} has",
                             found=answer.scores.shape[1])  # fmt: skip
    return wanted


def _say(progress: Progress | None, what: str, done: int, total: int) -> None:
    if progress is not None:
        progress(what, done, total)
