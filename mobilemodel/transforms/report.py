"""What a transform did, what it left alone and why."""

from __future__ import annotations

from dataclasses import dataclass

from mobilemodel.model import Model


@dataclass(frozen=True)
class Size:
    """What a layer, or a part of a graph, holds and costs."""

    parameters: int
    multiply_adds: int | None = None
    """for one run with a batch of 1; None: the sizes are not known"""


@dataclass(frozen=True)
class Change:
    """One thing that a transform did."""

    transform: str
    """``fold``, ``remove_dead``, ``remove_duplicates``, ``order_units``, ``low_rank`` or ``prune``"""
    layer: str
    """the node, by its name or else by its first output; of a tensor alone, the tensor"""
    what: str
    """one sentence without a full stop"""
    exact: bool
    """True: the network computes the same function but for rounding"""
    tensors: tuple[str, ...] = ()
    """tensors that were made or whose values changed"""
    removed: tuple[str, ...] = ()
    """tensors, and nodes by their outputs, that are gone"""
    loss: float | None = None
    """relative error, a ratio of root mean squares: of the layer's response where ``exact`` is False (see ``what``),
    else of rounding the new values to the tensor's type; None: no value was computed"""
    before: Size | None = None
    after: Size | None = None


@dataclass(frozen=True)
class Kept:
    """Something that a transform is for and that it left as it was."""

    layer: str
    reason: str


@dataclass(frozen=True)
class Transformed:
    """A model after a transform; the very same object where nothing was done.

    Reading the new model's tensors may read those of the old one: ``close`` of either closes the source.
    """

    model: Model
    changes: tuple[Change, ...] = ()
    kept: tuple[Kept, ...] = ()
