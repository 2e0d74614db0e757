"""Layer by layer: gather moments on the quantized network's inputs, refit, quantize, correct the bias, go on."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from mobilemodel import dtypes
from mobilemodel.calibration.layers import Layer, find_layers, layer_columns, layer_rows, own_bias
from mobilemodel.calibration.moments import Moments, Places, check_moments, layer_rows_of
from mobilemodel.calibration.refit import Problem, as_float32, make_problem
from mobilemodel.calibration.samples import Samples
from mobilemodel.calibration.segments import read_graph
from mobilemodel.calibration.walk import Walk
from mobilemodel.errors import MobileModelError
from mobilemodel.graphs import reads
from mobilemodel.model import Model, QuantizedValue
from mobilemodel.quantize.response import Float32, Float64, Response
from mobilemodel.runtime.session import parse_model

Array = npt.NDArray[Any]
SMALLEST_ROW_WEIGHT = 1e-3
"""of the mean: rows that the output hardly hears are coarse, but not without bound"""


@dataclass(frozen=True)
class Settings:
    """How calibration is done; each has its place in a plan's [calibration] table."""

    samples: int = 16_384
    """at most, mirrored ones included"""
    window_samples: int = 2_048
    """at most, for convolutions: each has many places"""
    damping: float = 0.01
    """share of the mean diagonal of the moments"""
    seed: int = 0
    threads: int = 1


@dataclass(frozen=True)
class Quantized:
    """A layer's quantized weights as a quantizer returns them, rows x columns of the matrix of codes."""

    value: QuantizedValue
    weights: Float32
    how: str
    """in words, for the report"""


Quantizer = Callable[[Layer, Response], Quantized]


@dataclass(frozen=True)
class LayerResult:
    """What calibration made of one layer."""

    quantized: Quantized
    bias: Float32 | None
    """corrected; None where the layer has none of its own"""
    response_db: float
    """signal to error of the layer's response on calibration data, decibel; infinite without error"""
    rows_seen: int
    """of inputs"""
    damping: float


@dataclass(frozen=True)
class Calibrated:
    """Results by the name of the weight, new biases by their name, and why other weights were left."""

    layers: Mapping[str, LayerResult]
    biases: Mapping[str, Float32]
    refused: Mapping[str, str]
    notes: tuple[str, ...]


def calibrate(
    model: Model, samples: Samples, row_weights: Mapping[str, Float64], quantizer: Quantizer, settings: Settings,
    *, only: frozenset[str],
) -> Calibrated:  # fmt: skip
    """Quantize a model's layers to its own responses on data: those whose weights ``only`` names.

    ``row_weights`` holds for the name of each layer's weight what an error of each output channel costs the network's
    output; layers that it lacks count all channels alike.

    Raises CheckFailedError naming the layer for values or moments that are not finite.
    """
    graph = read_graph(parse_model(model.build_graph(frozenset())))
    weights = model_weights(model)
    layers, refused = find_layers(model, graph)
    uses = Counter(name for node in graph.model.graph.node for name in reads(node))
    walk = Walk(graph, weights, threads=settings.threads)
    results: dict[str, LayerResult] = {}
    biases: dict[str, Float32] = {}
    notes: list[str] = []
    for layer in layers:
        if layer.name not in only:
            continue
        bias = layer.bias if own_bias(layer, uses[layer.bias or ""], weights) else None
        if layer.bias is not None and bias is None:
            refused[layer.name] = "its bias belongs to other layers too, or is no float32 vector"
            continue
        try:
            result = _calibrate_layer(layer, bias, walk, samples, row_weights, quantizer, settings, notes)
        except MobileModelError as error:
            raise error.within(layer=layer.name) from None
        results[layer.name] = result
        walk.changed[layer.name] = as_float32(layer.from_matrix(result.quantized.weights))
        if bias is not None and result.bias is not None:
            walk.changed[bias] = biases[bias] = near_halves(result.bias)
    return Calibrated(results, biases, refused, tuple(notes))


def near_halves(bias: Float32) -> Float32:
    """A bias rounded to float16 where that is fine enough, to 1/1024 of its largest value; else as it is.

    >>> near_halves(np.float32([0.1, 70000.0])).tolist()[1]
    70000.0
    """
    with np.errstate(over="ignore"):
        halves = bias.astype(np.float16).astype(np.float32)
    fine = np.abs(halves - bias).max(initial=0.0) <= np.abs(bias).max(initial=0.0) / 1024
    return halves if fine else bias


def model_weights(model: Model) -> dict[str, Array]:
    """The value of every tensor that lies outside of the graph."""
    return {
        tensor.name: dtypes.from_raw(tensor.read(), tensor.dtype, tensor.dims)
        for tensor in model.tensors
        if not tensor.hoisted
    }


def _calibrate_layer(
    layer: Layer, bias: str | None, walk: Walk, samples: Samples, row_weights: Mapping[str, Float64],
    quantizer: Quantizer, settings: Settings, notes: list[str],
) -> LayerResult:  # fmt: skip
    moments = gather(layer, walk, samples.limited(_enough_samples(layer, settings)), settings.seed)
    columns = moments.sum_x.shape[1]
    damping = settings.damping
    if moments.count < 2 * columns:
        damping *= 2 * columns / moments.count
        notes.append(
            f"{layer.name}: {moments.count} rows of calibration data for {columns} columns; damping raised to "
            f"{damping:.3g}; give more data"
        )
    rows = layer_rows(layer)
    given = row_weights.get(layer.name)
    if given is not None and not given.any():
        notes.append(f"{layer.name}: the output does not hear this layer on these data; all its channels count alike")
        given = None
    costs = np.ones(rows) if given is None else np.maximum(given, SMALLEST_ROW_WEIGHT * given.mean())
    exact = as_float32(layer.to_matrix(walk.exact[layer.name]))
    problem = make_problem(moments, exact, costs, damping=damping, biased=bias is not None)
    quantized = quantizer(layer, problem.response)
    corrected = problem.bias(quantized.weights) if bias is not None else None
    found_db = _response_db(problem, quantized.weights, exact)
    return LayerResult(quantized, corrected, found_db, moments.count, damping)


def _enough_samples(layer: Layer, settings: Settings) -> int:
    """Several for each column of the moments; a convolution sees many places of each sample."""
    columns = layer_columns(layer)
    if layer.window is None:
        return min(settings.samples, max(2048, 16 * columns))
    return min(settings.samples, settings.window_samples, max(1024, 2 * columns))


def gather(layer: Layer, walk: Walk, samples: Samples, seed: int) -> Moments:
    """Sum the moments of a layer over samples."""
    rows = layer_rows(layer)
    columns = layer.weight.elements // rows
    moments = Moments(layer.groups, columns, rows // layer.groups)
    places = Places(seed)
    for batch, (source, response) in enumerate(walk.visit(layer, samples)):
        moments.add(*layer_rows_of(layer, source, response, places, batch))
    moments.flush()
    check_moments(moments, layer)
    return moments


def _response_db(problem: Problem, weights: Float32, exact: Float32) -> float:
    noise = float(problem.errors(weights, exact).sum())
    signal = float((problem.variance_y * problem.response.row_weights).sum())
    return 10 * np.log10(signal / noise) if noise > 0 and signal > 0 else np.inf
