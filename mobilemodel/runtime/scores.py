"""What scores of classes say: the class each picture gets, accuracy, agreement, divergence. Plain arithmetic.

Scores are N x classes, a row for each picture, larger for the likelier class: logits or probabilities. A row that holds
NaN says nothing: it finds no class, agrees with nothing, and is infinitely far from any other.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from mobilemodel.errors import MalformedSourceError, UsageError

Scores = npt.NDArray[Any]
Classes = npt.NDArray[np.int64]
Doubles = npt.NDArray[np.float64]

SUM_TOLERANCE = 1e-3
"""how far from 1 the sum of a row of probabilities may be"""
SMALLEST_PROBABILITY = 2.0**-126
"""where a probability is smaller, its logarithm is this one's: the smallest normal float32, 87.3 nats"""


def winners(scores: Scores) -> Classes:
    """The class that each row scores highest, of equal ones that of the smallest index; -1 for a row with NaN.

    >>> winners(np.array([[1.0, 3.0, 3.0], [1.0, np.nan, 0.0]])).tolist()
    [1, -1]
    """
    return np.where(np.isnan(scores).any(axis=1), -1, scores.argmax(axis=1)).astype(np.int64)


def ranks(scores: Scores, classes: Classes) -> Classes:
    """How many classes come before the right one, 0 at best: those that score higher, or equal with a smaller index.

    A row with NaN gets a rank of at least 5 and the number of classes. Raises MalformedSourceError for a class that has
    no score.
    """
    count = scores.shape[1]
    if int(classes.max(initial=0)) >= count:
        raise MalformedSourceError("a class is out of range", expected=f"below {count}", found=classes.max())
    right = np.take_along_axis(scores, classes[:, None], axis=1)
    before = (scores > right) | ((scores == right) & (np.arange(count) < classes[:, None]))
    found: Classes = before.sum(axis=1, dtype=np.int64)
    found[np.isnan(scores).any(axis=1)] = max(count, 5)
    return found


def top1(scores: Scores, classes: Classes) -> float:
    """Per cent of the rows whose winner is the right class.

    >>> top1(np.array([[0.9, 0.1], [0.2, 0.8]]), np.array([0, 0]))
    50.0
    """
    return _per_cent(winners(scores) == classes)


def agreement(a: Scores, b: Scores) -> float:
    """Per cent of the rows whose winners are the same class in both. Raises UsageError for other numbers of rows."""
    if len(a) != len(b):
        raise UsageError("scores of as many pictures", expected=len(a), found=len(b))
    return agreement_of_winners(winners(a), winners(b))


def agreement_of_winners(a: Classes, b: Classes) -> float:
    """``agreement`` of what ``winners`` gave; -1 agrees with nothing."""
    return _per_cent((a == b) & (a >= 0))


def are_probabilities(scores: Scores) -> bool | None:
    """Whether scores are probabilities: no value below 0, and each row sums to 1 within 1e-3.

    Rows with NaN are not asked; None where there is no other row.

    >>> are_probabilities(np.array([[0.25, 0.75]])), are_probabilities(np.array([[0.25, 0.70]]))
    (True, False)
    """
    rows = scores[~np.isnan(scores).any(axis=1)]
    return bool(_sound_rows(rows).all()) if len(rows) else None


def probabilities(scores: Scores, *, softmax: bool) -> Doubles:
    """A distribution in float64 for each row: its softmax, or the row itself.

    A row that has none is NaN altogether: it holds NaN or a positive infinity, or without ``softmax`` is none.
    """
    rows = scores.astype(np.float64)
    if not softmax:
        rows[~_sound_rows(rows)] = np.nan
        return rows
    with np.errstate(invalid="ignore"):
        powers = np.exp(rows - rows.max(axis=1, keepdims=True))
        made: Doubles = powers / powers.sum(axis=1, keepdims=True)
    return made


def divergences(p: Scores, q: Scores) -> Doubles:
    """The Kullback-Leibler divergence KL(p || q) = sum p log(p / q) of each row, in nats, float64; at least 0.

    Rows are brought to a sum of 1 first. A probability below 2^-126, 0 among them, has the logarithm of 2^-126, so
    that a class that q rules out counts 87.3 nats and no more. Where p or q holds NaN, the divergence is infinite.

    Raises UsageError for arrays of different shapes.

    >>> divergences(np.array([[0.5, 0.5]]), np.array([[0.25, 0.75]])).round(4).tolist()
    [0.1438]
    """
    if p.shape != q.shape:
        raise UsageError("distributions to compare", expected=list(p.shape), found=list(q.shape))
    with np.errstate(invalid="ignore", divide="ignore"):
        first = p / p.sum(axis=1, keepdims=True, dtype=np.float64)
        second = q / q.sum(axis=1, keepdims=True, dtype=np.float64)
        found = (first * (_log(first) - _log(second))).sum(axis=1)
    # Rounding can leave a divergence of nearly equal rows just below 0.
    return np.where(np.isnan(found), np.inf, np.maximum(found, 0.0))


def mean_divergence(p: Scores, q: Scores) -> float:
    """The mean of ``divergences`` over the rows, in nats: infinite where a single row holds NaN.

    >>> mean_divergence(np.array([[1.0, 0.0]]), np.array([[1.0, 0.0]]))
    0.0
    """
    return float(divergences(p, q).mean())


def _sound_rows(rows: Scores) -> npt.NDArray[np.bool_]:
    wide = rows.astype(np.float64, copy=False)
    with np.errstate(invalid="ignore"):
        close: npt.NDArray[np.bool_] = np.abs(wide.sum(axis=1) - 1.0) <= SUM_TOLERANCE
        return close & (wide >= 0).all(axis=1)


def _log(rows: Doubles) -> Doubles:
    logarithms: Doubles = np.log(np.maximum(rows, SMALLEST_PROBABILITY))
    return logarithms


def _per_cent(true: npt.NDArray[np.bool_]) -> float:
    return 100 * int(true.sum()) / len(true)
