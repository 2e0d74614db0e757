"""Derivatives of ONNX graphs against central finite differences."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from onnx import ModelProto, helper, numpy_helper
from onnx.reference import ReferenceEvaluator

from mobilemodel.gradients.backward import Backward
from mobilemodel.gradients.paths import operations, paths
from mobilemodel.runtime.session import run, session
from tests.models import Array, model, value

Evaluate = Callable[[Mapping[str, Array]], dict[str, Array]]


def numbers(seed: int, *shape: int) -> Array:
    """Standard normal values."""
    return np.asarray(np.random.default_rng(seed).standard_normal(shape), np.float32)


def apart(seed: int, *shape: int) -> Array:
    """Values in a random order, no two of which are closer than 0.1."""
    return np.float32(0.1) * np.random.default_rng(seed).permutation(math.prod(shape)).reshape(shape).astype(np.float32)


def check_operator(
    operator: str, inputs: Sequence[Array | None], *, by: Sequence[int] = (0,), outputs: int = 1, opset: int = 17,
    step: float = 0, tolerance: float = 2e-4, **attributes: Any,
) -> None:  # fmt: skip
    """Differentiate one node by the inputs ``by`` and compare; floats are inputs of the graph, the rest constants.

    The differences are those of onnx's reference evaluator in float64. With a ``step`` they are those of ONNX Runtime
    in float32: exact where the operator is linear that far, and where the reference evaluator has faults.
    """
    names = [f"x{number}" if given is not None else "" for number, given in enumerate(inputs)]
    given = {name: array for name, array in zip(names, inputs, strict=True) if array is not None}
    results = [f"y{number}" for number in range(outputs)]
    node = helper.make_node(operator, names, results, **attributes)
    floats = {name: array for name, array in given.items() if array.dtype == np.float32}
    constants = [numpy_helper.from_array(array, name) for name, array in given.items() if name not in floats]
    made = model(
        [node], [value(name, [None] * array.ndim) for name, array in floats.items()], constants, opset=opset,
        outputs=[value(name) for name in results],
    )  # fmt: skip
    evaluate = exactly(made) if not step else _by_runtime(made)
    random = np.random.default_rng(3)
    starts = {name: numbers(4, *np.shape(found)) for name, found in evaluate(floats).items()}

    def loss(moved: Mapping[str, Array]) -> float:
        return sum(float((starts[name] * y.astype(np.float64)).sum()) for name, y in evaluate(moved).items())

    for name, gradient in gradients(made, floats, [names[index] for index in by], starts).items():
        found = gradient.astype(np.float64)
        assert found.shape == floats[name].shape
        for _ in range(2):
            direction = np.asarray(random.uniform(-1, 1, found.shape))
            ahead, behind = (
                loss({**floats, name: np.asarray(floats[name] + sign * (step or 1e-6) * direction, np.float64)})
                for sign in (1, -1)
            )
            difference = (ahead - behind) / (2 * (step or 1e-6))
            scale = float(np.sqrt((found**2).sum())) + 1e-2
            assert abs((found * direction).sum() - difference) <= tolerance * scale, f"{operator} by {name}"


def gradients(
    made: ModelProto, feeds: Mapping[str, Array], wanted: Sequence[str], starts: Mapping[str, Array]
) -> dict[str, Array]:
    """Of the sum of ``starts`` times the outputs, with respect to the ``wanted`` values, all of which are reached."""
    nodes = operations(made)
    ways = paths(nodes, wanted, starts)
    assert ways.unreached == {}
    copied = type(made).FromString(made.SerializeToString())
    backward = Backward(copied, nodes, ways, [], {})
    found = dict(backward.back(backward.forward(feeds), dict(starts)))
    assert set(found) == set(wanted)
    return found


def exactly(made: ModelProto) -> Evaluate:
    """Onnx's reference evaluator, in float64."""
    doubled = type(made).FromString(made.SerializeToString())
    for item in doubled.graph.initializer:
        if item.data_type == item.FLOAT:
            item.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(item).astype(np.float64), item.name))
    evaluator = ReferenceEvaluator(doubled)

    def evaluate(feeds: Mapping[str, Array]) -> dict[str, Array]:
        doubles = {name: array.astype(np.float64) for name, array in feeds.items()}
        found: Any = evaluator.run(None, doubles)
        return dict(zip(evaluator.output_names, found, strict=True))

    return evaluate


def _by_runtime(made: ModelProto) -> Evaluate:
    opened = session(made.SerializeToString())
    return lambda feeds: run(opened, {name: np.asarray(array, np.float32) for name, array in feeds.items()})
