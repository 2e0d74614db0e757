"""Shapes of values whose sizes may not all be known: what several families of layers ask of them."""

from __future__ import annotations

from collections.abc import Iterable

from mobilemodel.layout import elements_of
from mobilemodel_converters.caffe.net import Shape
from mobilemodel_converters.caffe.scope import Scope, Value


def count(sizes: Iterable[int | None]) -> int | None:
    """How many values there are; None where a size may vary.

    >>> count((2, 3, 4)), count((2, None))
    (24, None)
    """
    known = tuple(sizes)
    return None if None in known else elements_of([size for size in known if size is not None])


def several(scope: Scope, fewest: int) -> tuple[Value, ...]:
    """The inputs of a layer that takes several; raises MalformedSourceError where there are fewer."""
    if len(scope.inputs) < fewest:
        scope.malformed("bottoms", expected=f"at least {fewest}", found=len(scope.inputs))
    return scope.inputs


def channels_of(scope: Scope, value: Value) -> int:
    """The size of axis 1; refuses the layer where there is none, or it may vary."""
    if len(value.shape) < 2:
        scope.refuse(f"an input of shape {value.shape} has no channels")
    return scope.known(value.shape[1])[0]


def per_channel(scope: Scope, value: Value) -> tuple[int, ...]:
    """Dims of one number for each channel, next to the value."""
    return (channels_of(scope, value), *(1,) * (len(value.shape) - 2))


def agreed(scope: Scope, shapes: Iterable[Shape], but: int = -1) -> Shape:
    """The shape that all have, the axis ``but`` aside, which becomes the sum; what one of them knows is known.

    Raises MalformedSourceError where they differ: Caffe never broadcasts.
    """
    first, *others = shapes
    sizes = list(first)
    for shape in others:
        if len(shape) != len(sizes):
            scope.malformed("shapes of the bottoms differ", expected=first, found=shape)
        for axis, size in enumerate(shape):
            mine = sizes[axis]
            if axis == but:
                sizes[axis] = None if mine is None or size is None else mine + size
            elif mine is None:
                sizes[axis] = size
            elif size not in (None, mine):
                scope.malformed("shapes of the bottoms differ", expected=first, found=shape)
    return tuple(sizes)
