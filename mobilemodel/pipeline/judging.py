"""How a finished bundle answers beside the float model, on samples that nothing was fitted to."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from mobilemodel.bundle import Bundle
from mobilemodel.calibration.calibrate import model_weights
from mobilemodel.calibration.samples import Samples
from mobilemodel.pipeline.convert import Prepared
from mobilemodel.runtime.classifier import Answers, Classifier
from mobilemodel.runtime.scores import divergences, ranks
from mobilemodel.runtime.session import session, session_of
from mobilemodel.search import Outcome, paired_drop


def judged(prepared: Prepared, bundle: Bundle) -> Outcome:
    """The bundle's size; with held-out samples its divergence from the float model, and with their classes the points
    of top-1 that it loses."""
    sizes = {tensor.name: tensor.stored_bytes for tensor in bundle.values()}
    if prepared.held_out is None:
        return Outcome(bundle.size, tensor_bytes=sizes)
    model = prepared.source  # a transform may lose something, too
    weights = model_weights(model)
    exact = Classifier(session_of(model.build_graph(frozenset()), weights), "the float model", 0)
    stored = Classifier(session(bundle), "the candidate", bundle.size)
    samples = prepared.held_out
    nats, lost, gained, seen = 0.0, 0, 0, 0
    for first, second in zip(_answers(exact, samples), _answers(stored, samples), strict=True):
        count = len(first.scores)
        apart = divergences(first.probabilities, second.probabilities)
        nats += float(apart.sum())
        if samples.data.classes is not None:
            classes = samples.data.classes[seen : seen + count]
            right, still = (ranks(answer.scores, classes) == 0 for answer in (first, second))
            lost += int(np.count_nonzero(right & ~still))
            gained += int(np.count_nonzero(still & ~right))
        seen += count
    if samples.data.classes is None:
        return Outcome(bundle.size, divergence=nats / seen, tensor_bytes=sizes)
    drop, error = paired_drop(lost, gained, seen)
    return Outcome(bundle.size, drop, error, nats / seen, sizes)


def _answers(classifier: Classifier, samples: Samples) -> Iterator[Answers]:
    return classifier.answers(samples.batches())
