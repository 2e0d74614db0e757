"""Which layers a network has when it is used: the phase rules in the state TEST (docs/formats/caffe.md §1)."""

from __future__ import annotations

from typing import Any

from mobilemodel.errors import MalformedSourceError
from mobilemodel_converters.caffe.net import Layer, StoredNet
from mobilemodel_converters.caffe.schema import enum_name


def by_phase(stored: StoredNet) -> tuple[list[Layer], list[Layer]]:
    """The layers that are there in phase TEST, and the others.

    As in Caffe the level and stages of the file's own NetState count, and its phase does not. A layer's own ``phase``
    is no rule: files that were saved in training have TRAIN on all layers.

    Raises MalformedSourceError for a layer with both ``include`` and ``exclude``.
    """
    level, stages = stored.parameter.state.level, frozenset(stored.parameter.state.stage)
    there: list[Layer] = []
    absent: list[Layer] = []
    for layer in stored.layers:
        (there if _is_there(layer, level, stages) else absent).append(layer)
    return there, absent


def _is_there(layer: Layer, level: int, stages: frozenset[str]) -> bool:
    include, exclude = layer.message.include, layer.message.exclude
    if len(include) and len(exclude):
        raise MalformedSourceError("a layer has both include and exclude rules", layer=layer.name)
    if len(include):
        return any(_matches(rule, level, stages) for rule in include)
    return not any(_matches(rule, level, stages) for rule in exclude)


def _matches(rule: Any, level: int, stages: frozenset[str]) -> bool:
    """Whether all that the rule sets is so."""
    return (
        not (rule.HasField("phase") and enum_name(rule, "phase") != "TEST")
        and not (rule.HasField("min_level") and level < rule.min_level)
        and not (rule.HasField("max_level") and level > rule.max_level)
        and all(stage in stages for stage in rule.stage)
        and not any(stage in stages for stage in rule.not_stage)
    )
