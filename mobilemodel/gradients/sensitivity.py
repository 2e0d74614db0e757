"""How much a network's output changes with each channel of a layer: the diagonal of the Fisher information, from data.

Reverse-mode differentiation of an ONNX graph: ONNX Runtime runs it forward, ``derivatives`` lead back.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

import numpy as np
import numpy.typing as npt

from mobilemodel.errors import UnsupportedSourceError, UsageError
from mobilemodel.gradients.backward import Backward
from mobilemodel.gradients.likelihood import targets
from mobilemodel.gradients.paths import operations, paths
from mobilemodel.runtime.session import parse_model

Array = npt.NDArray[Any]
Doubles = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Sensitivity:
    """The diagonal of the Fisher information with respect to layers' outputs, summed over positions."""

    weights: dict[str, Doubles]
    """by value, for each channel: the mean over samples of the sum over positions of the squared gradient"""
    samples: int
    unreached: dict[str, str]
    """values without weights, and why: no path to an output, or an operation without a derivative on one of them"""

    @property
    def traces(self) -> dict[str, float]:
        """By value: the sum over its channels."""
        return {name: float(weights.sum()) for name, weights in self.weights.items()}


def output_sensitivity(
    model: bytes,
    values: Sequence[str] | Mapping[str, int],
    batches: Iterable[Mapping[str, Array]],
    *,
    seed: int,
    draws: int = 1,
    threads: int = 1,
    logits: Collection[str] = (),
    weights: Mapping[str, Array] = MappingProxyType({}),
) -> Sensitivity:
    """Estimate E[(dL/dy)^2] of each channel of layers' outputs y, summed over positions.

    L = -log p(class), with the class drawn from the network's own probabilities: no labels are needed, and the
    estimate is the diagonal of the Fisher information F (= Gauss-Newton). A change d of y changes the network's
    output by a Kullback-Leibler divergence of about d^T F d / 2 (Martens 2020, arXiv 1412.1193). Instead of a class,
    random signs are drawn: the gradient starts at a square root of the output's own F times these, which has the same
    second moments and scatters less where the network is sure of itself (Hutchinson's estimator).

    What the outputs are is read from the graph: behind a Softmax or LogSoftmax probabilities of classes, behind a
    Sigmoid independent probabilities, otherwise values with independent Gaussian errors, whose standard deviation is
    that of the output over the first batch (of which the result then depends); an output in ``logits`` counts as
    logits of classes along axis 1. Several outputs are taken together, as independent of one another.

    ``model`` is a serialised ONNX model, ``weights`` hold the values of its external initializers. ``values`` names
    values inside its graph: outputs of Conv, Gemm or MatMul, before or after their bias; a mapping also gives the
    channel axis, which otherwise is the last of rank 2 and axis 1 of higher ranks. ``batches`` hold arrays by name of
    input, samples along the first axis of each.
    ``draws`` gradients are averaged for each sample. The same ``seed`` gives the same signs for a sample however the
    samples are batched, and the same result for any number of ``threads``, each of which works on a batch of its own
    (so memory is that of the intermediate values of as many batches).

    Raises UsageError for a call that is wrong (an unknown value, no samples), CheckFailedError with the layer's name
    where a gradient is not finite or where ONNX Runtime fails, MalformedSourceError and UnsupportedSourceError where
    the model cannot be read or run.
    """
    for name, number, least in (("seed", seed, 0), ("draws", draws, 1), ("threads", threads, 1)):
        if not least <= number < 2**32:
            raise UsageError(name, expected=f"at least {least} and below 2^32", found=number)
    axes: dict[str, int | None] = dict(values) if isinstance(values, Mapping) else dict.fromkeys(values)
    parsed = parse_model(model)
    nodes = operations(parsed)
    known = {name for node in nodes for name in node.outputs} | {item.name for item in parsed.graph.input}
    for name in [*axes, *logits]:
        if name not in known or not name:
            raise UsageError("the graph has no such value", tensor=name)
    starts = targets(parsed, nodes, logits)
    found = paths(nodes, axes, [target.name for target in starts])
    if not found.reached:
        return Sensitivity({}, 0, found.unreached)
    used = [target for target in starts if target.name in found.active]
    backward = Backward(parsed, nodes, found, used, weights)
    del parsed, nodes
    totals, samples = _totals(_in_order(backward, batches, axes, seed=seed, draws=draws, threads=threads))
    return Sensitivity({name: totals[name] / (samples * draws) for name in found.reached}, samples, found.unreached)


def _totals(batches: Iterable[tuple[int, dict[str, Doubles]]]) -> tuple[dict[str, Doubles], int]:
    """Sums over all batches, and the number of samples."""
    totals: dict[str, Doubles] = {}
    samples = 0
    for count, squares in batches:
        samples += count
        for name, channels in squares.items():
            if totals.setdefault(name, np.zeros(len(channels))).shape != channels.shape:
                raise UnsupportedSourceError("the number of channels changes from batch to batch", layer=name)
            totals[name] += channels
    if samples == 0:
        raise UsageError("no samples to measure sensitivities on")
    return totals, samples


def _in_order(
    backward: Backward, batches: Iterable[Mapping[str, Array]], axes: Mapping[str, int | None], *, seed: int,
    draws: int, threads: int,
) -> Iterator[tuple[int, dict[str, Doubles]]]:  # fmt: skip
    """For each batch its samples and sums of squares, in the order of the batches; ``threads`` are under way."""
    waiting: deque[tuple[int, Future[dict[str, Doubles]]]] = deque()
    deviations: dict[str, float] | None = None
    first = 0
    with ThreadPoolExecutor(threads) as pool:
        for batch in batches:
            if deviations is None:
                deviations = backward.deviations(batch)
            samples = backward.samples(batch)
            work = pool.submit(backward.squares, batch, first, axes, deviations, seed=seed, draws=draws)
            waiting.append((samples, work))
            first += samples
            if len(waiting) == threads:
                count, work = waiting.popleft()
                yield count, work.result()
        for count, work in waiting:
            yield count, work.result()
