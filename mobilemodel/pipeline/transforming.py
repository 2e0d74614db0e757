"""Transforms of a model's graph that a plan or the options ask for, in one order."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase

import numpy as np
import numpy.typing as npt

from mobilemodel.calibration.calibrate import gather, model_weights
from mobilemodel.calibration.layers import find_layers
from mobilemodel.calibration.samples import Samples
from mobilemodel.calibration.segments import read_graph
from mobilemodel.calibration.walk import Walk
from mobilemodel.errors import UsageError
from mobilemodel.model import WEIGHT_ROLES, Model
from mobilemodel.runtime.session import parse_model
from mobilemodel.search.recipe import Transforms, shares
from mobilemodel.transforms import (
    Transformed,
    fold,
    low_rank,
    low_rank_layers,
    order_units,
    prune,
    remove_dead,
    remove_duplicates,
)

MOMENT_SAMPLES = 4096
"""that the moments of a layer to be transformed are taken over"""


@dataclass(frozen=True)
class TransformedModel:
    """A model after all transforms, and what they did."""

    model: Model
    notes: tuple[str, ...]


def merged(planned: Transforms, asked: Transforms) -> Transforms:
    """What a plan and the options ask for together; of two amounts for one pattern that of the options."""
    return Transforms(
        planned.fold or asked.fold,
        planned.remove_duplicates or asked.remove_duplicates,
        planned.remove_dead or asked.remove_dead,
        planned.order_units or asked.order_units,
        {**planned.low_rank, **asked.low_rank},
        {**planned.sparsity, **asked.sparsity},
    )


def transform(model: Model, wanted: Transforms, samples: Samples | None) -> TransformedModel:
    """Fold, merge duplicates, prune, remove what is dead, order units, then split layers, in this order.

    ``samples`` make pruning and the split respect what the layers' inputs are like.

    Raises UsageError for a pattern that no layer answers to, and what the transforms raise.
    """
    notes: list[str] = []
    for asked, step in ((wanted.fold, fold), (wanted.remove_duplicates, remove_duplicates)):
        if asked:
            model = _noted(step(model), notes)
    if wanted.sparsity:
        shares_of = _sparsities(model, wanted.sparsity)
        found = {} if samples is None else {name: layer_moments(model, name, samples) for name in shares_of}
        moments_of = {name: moments for name, moments in found.items() if moments is not None}
        model = _noted(prune(model, shares_of, moments=moments_of), notes)
    if wanted.remove_dead:
        model = _noted(remove_dead(model), notes)
    if wanted.order_units:
        model = _noted(order_units(model), notes)
    for pattern, amount in wanted.low_rank.items():
        layers = [name for name in low_rank_layers(model) if fnmatchcase(name, pattern)]
        if not layers:
            raise UsageError("low rank of a layer that is not there", found=pattern,
                             expected=", ".join(low_rank_layers(model)[:20]))  # fmt: skip
        for layer in layers:
            moments = None if samples is None else layer_moments(model, layer, samples)
            rank, energy = (None, float(amount)) if shares(amount) else (int(amount), None)
            model = _noted(low_rank(model, layer, rank=rank, energy=energy, moments=moments), notes)
    return TransformedModel(model, tuple(notes))


def _sparsities(model: Model, wanted: Mapping[str, float]) -> dict[str, float]:
    """Share by the name of a weight; of several patterns that match the last decides."""
    weights = [tensor.name for tensor in model.tensors if tensor.role in WEIGHT_ROLES]
    found: dict[str, float] = {}
    for pattern, share in wanted.items():
        names = [name for name in weights if fnmatchcase(name, pattern)]
        if not names:
            raise UsageError("sparsity of a weight that is not there", found=pattern, expected=", ".join(weights[:20]))
        found |= dict.fromkeys(names, share)
    return found


def layer_moments(model: Model, name: str, samples: Samples) -> npt.NDArray[np.float64] | None:
    """E[x x^T] of a layer's inputs in the float network, groups x columns x columns; None where data cannot speak
    about the layer."""
    graph = read_graph(parse_model(model.build_graph(frozenset())))
    layer = next((layer for layer in find_layers(model, graph)[0] if layer.name == name), None)
    if layer is None:
        return None
    moments = gather(layer, Walk(graph, model_weights(model)), samples.limited(MOMENT_SAMPLES), 0)
    return moments.sum_xx / moments.count


def _noted(done: Transformed, notes: list[str]) -> Model:
    for change in done.changes:
        loss = "" if change.exact or change.loss is None else f", relative error {change.loss:.3g}"
        notes.append(f"{change.transform} of {change.layer}: {change.what}{loss}")
    notes += [f"left as it was: {kept.layer}: {kept.reason}" for kept in done.kept]
    return done.model
