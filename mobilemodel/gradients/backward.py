"""A batch forward through ONNX Runtime and back along the paths, from the outputs to the layers."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from mobilemodel.errors import CheckFailedError, MobileModelError, UnsupportedSourceError, UsageError
from mobilemodel.gradients.derivatives import Operation, Step
from mobilemodel.gradients.kernels import Kernels
from mobilemodel.gradients.likelihood import Target, deviation, random_signs, start
from mobilemodel.gradients.paths import Paths, Stage, constants, plain
from mobilemodel.runtime.session import run, session_of

if TYPE_CHECKING:
    from onnx import ModelProto
    from onnxruntime import InferenceSession

Array = npt.NDArray[Any]
Doubles = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Forward:
    """What one batch left behind for the way back."""

    values: Mapping[str, Array]
    shapes: Mapping[str, tuple[int, ...]]


class Backward:
    """Squared gradients of the layers in ``paths.reached``, batch by batch.

    It may be used by several threads at once; each call holds the intermediate values of its own batch only.
    """

    def __init__(
        self, model: ModelProto, nodes: Sequence[Operation], paths: Paths, targets: Sequence[Target],
        weights: Mapping[str, Array],
    ) -> None:  # fmt: skip
        """Change ``model`` so that it puts out what the way back needs, and nothing else, and open it.

        ``weights`` are the values of its external initializers.
        """
        from onnx import numpy_helper

        self._paths, self._targets = paths, targets
        tensors = constants(model, nodes)
        initializers = {item.name for item in model.graph.initializer}
        self._inputs = [item.name for item in model.graph.input if item.name not in initializers]
        values = {name for stage in paths.stages for name in stage.values()} | {target.told_by for target in targets}
        shapes = _shapes(paths.stages) - values
        given = {*tensors, *self._inputs}
        self._shapes = _with_outputs(model, sorted(values - given), sorted(shapes - given))
        self._session: InferenceSession = session_of(model.SerializeToString(), weights)
        used = (values | shapes) & set(tensors)
        self._constants = {
            name: plain(weights[name] if name in weights else numpy_helper.to_array(tensors[name]))
            for name in sorted(used)
        }
        self._kernels = Kernels()

    def samples(self, batch: Mapping[str, Array]) -> int:
        """How many samples a batch holds; raises UsageError where it holds none."""
        first = batch.get(self._inputs[0]) if self._inputs else None
        if first is None or first.ndim == 0 or len(first) == 0:
            raise UsageError(
                "a batch without samples", tensor=self._inputs[0] if self._inputs else None,
                expected="an array with the samples along its first axis",
            )  # fmt: skip
        return len(first)

    def deviations(self, batch: Mapping[str, Array]) -> dict[str, float]:
        """The standard deviation of each target that needs one."""
        if not any(target.needs_deviation for target in self._targets):
            return {}
        values = self.forward(batch).values
        return {target.name: deviation(target, values[target.told_by]) for target in self._targets}

    def squares(
        self, batch: Mapping[str, Array], first: int, axes: Mapping[str, int | None], deviations: Mapping[str, float],
        *, seed: int, draws: int,
    ) -> dict[str, Doubles]:  # fmt: skip
        """By layer and channel: the sum of its squared gradients over samples, positions and draws.

        ``first`` is the number of the batch's first sample among all.
        """
        samples = range(first, first + self.samples(batch))
        forward = self.forward(batch)
        found: dict[str, Doubles] = {}
        for draw in range(draws):
            starts = self._starts(forward, samples, deviations, seed=seed, draw=draw)
            for name, gradient in self.back(forward, starts):
                sums = _sum_of_squares(name, gradient, axes[name])
                found[name] = found[name] + sums if name in found else sums
        return found

    def forward(self, batch: Mapping[str, Array]) -> Forward:
        """Run a batch; raises CheckFailedError where ONNX Runtime cannot."""
        results = run(self._session, batch)
        values = self._constants | {name: plain(value) for name, value in batch.items()}
        values |= {name: plain(value) for name, value in results.items() if name not in self._shapes}
        shapes = {name: value.shape for name, value in values.items()}
        shapes |= {name: tuple(results[output].tolist()) for output, name in self._shapes.items()}
        return Forward(values, shapes)

    def _starts(
        self, forward: Forward, samples: range, deviations: Mapping[str, float], *, seed: int, draw: int
    ) -> dict[str, Array]:
        """The gradients at the targets; they add up where two outputs start at one value."""
        values = [forward.values[target.told_by] for target in self._targets]
        sizes = []
        for target, value in zip(self._targets, values, strict=True):
            if value.ndim == 0 or value.size % len(samples):
                raise UnsupportedSourceError(
                    "an output cannot be divided among the samples", layer=target.told_by,
                    expected=f"{len(samples)} samples", found=list(value.shape),
                )  # fmt: skip
            if not np.isfinite(value).all():
                raise CheckFailedError("an output is not finite", layer=target.told_by)
            sizes.append(value.size // len(samples))
        signs = random_signs(sizes, samples, seed=seed, draw=draw)
        found: dict[str, Array] = {}
        for target, value, sign in zip(self._targets, values, signs, strict=True):
            gradient = start(target, value, sign.reshape(value.shape), deviations.get(target.name, 1.0))
            found[target.name] = found[target.name] + gradient if target.name in found else gradient
        return found

    def back(self, forward: Forward, gradients: dict[str, Array]) -> Iterator[tuple[str, Array]]:
        """The gradient with respect to each reached layer, as soon as it is complete; none is kept."""
        reached = self._paths.reached
        for stage in self._paths.stages:
            names = enumerate(stage.operation.outputs)
            arrived = {index: gradients.pop(name) for index, name in names if name in gradients}
            complete = ((stage.operation.outputs[index], gradient) for index, gradient in arrived.items())
            yield from ((name, gradient) for name, gradient in complete if name in reached)
            for name, gradient in self._through(stage, arrived, forward) if arrived else ():
                gradients[name] = gradients[name] + gradient if name in gradients else gradient
        yield from ((name, gradient) for name, gradient in gradients.items() if name in reached)

    def _through(self, stage: Stage, arrived: dict[int, Array], forward: Forward) -> Iterable[tuple[str, Array]]:
        operation = stage.operation
        step = Step(operation, arrived, stage.wanted, forward.values, forward.shapes, self._kernels)
        try:
            with np.errstate(all="ignore"):  # what is not finite is found when it arrives at a layer
                found = stage.derivative.apply(step)
        except MobileModelError as error:
            raise error.within(layer=operation.described) from None
        except (ArithmeticError, AttributeError, LookupError, TypeError, ValueError) as error:
            raise UnsupportedSourceError(f"a derivative fails: {error}", layer=operation.described) from None
        for index in stage.wanted:
            name = operation.inputs[index]
            if found[index].shape != forward.shapes[name]:
                raise UnsupportedSourceError(
                    "a derivative has the wrong shape", layer=operation.described, expected=forward.shapes[name],
                    found=found[index].shape,
                )  # fmt: skip
            yield name, found[index]


def _shapes(stages: Iterable[Stage]) -> set[str]:
    """Names of the values whose shapes are needed, or to be compared with that of their gradient."""
    compared = {stage.operation.inputs[index] for stage in stages for index in stage.wanted}
    return compared.union(*(stage.shapes() for stage in stages))


def _with_outputs(model: ModelProto, values: Iterable[str], shapes: Iterable[str]) -> dict[str, str]:
    """Make values, and shapes of others, the only outputs of a model; for each output of a shape: whose it is."""
    from onnx import ValueInfoProto, helper

    taken = {name for node in model.graph.node for name in node.output}
    taken |= {item.name for item in model.graph.input} | {item.name for item in model.graph.initializer}
    made: dict[str, str] = {}
    for name in shapes:
        output = f"shape of {name}"
        while output in taken:
            output += "'"
        taken.add(output)
        made[output] = name
        model.graph.node.append(helper.make_node("Shape", [name], [output]))
    wanted = [*values, *made]
    if wanted:  # a session has to have outputs
        del model.graph.output[:]
        model.graph.output.extend(ValueInfoProto(name=name) for name in wanted)
    return made


def _sum_of_squares(name: str, gradient: Array, axis: int | None) -> Doubles:
    rank = gradient.ndim
    axis = (-1 if rank <= 2 else 1) if axis is None else axis
    if not -rank <= axis < rank:
        raise UsageError("a layer's channel axis", layer=name, expected=f"an axis of {rank}", found=axis)
    others = tuple(other for other in range(rank) if other != axis % rank)
    found: Doubles = np.square(gradient, dtype=np.float64).sum(axis=others)
    if not np.isfinite(found).all():
        raise CheckFailedError(
            "a gradient is not finite", layer=name, advice="Look for weights or data that are NaN or far too large."
        )
    return found
