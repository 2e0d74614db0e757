"""What data say about a model: samples as its network takes them, and its layers quantized to its own responses."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from mobilemodel import dtypes
from mobilemodel.calibration.arithmetic import one_thread
from mobilemodel.calibration.calibrate import (
    Calibrated,
    LayerResult,
    Quantized,
    Quantizer,
    Settings,
    calibrate,
    model_weights,
)
from mobilemodel.calibration.layers import Layer, find_layers
from mobilemodel.calibration.remainder import remainders
from mobilemodel.calibration.samples import Samples
from mobilemodel.calibration.segments import read_graph
from mobilemodel.dtypes import DType
from mobilemodel.errors import UnsupportedSourceError, UsageError
from mobilemodel.gradients.sensitivity import output_sensitivity
from mobilemodel.model import WEIGHT_ROLES, Model
from mobilemodel.pipeline.options import FittingOptions
from mobilemodel.quantize import rules
from mobilemodel.quantize.apply import Chosen
from mobilemodel.quantize.feedback import priced_rounding
from mobilemodel.quantize.plan import Plan, fc_weight_count
from mobilemodel.quantize.products import product_value, product_words, tensor_product
from mobilemodel.quantize.response import Float64, Response
from mobilemodel.quantize.rules import Rule
from mobilemodel.quantize.scaled import scaled_palette
from mobilemodel.runtime.data import Data
from mobilemodel.runtime.picture import prepare
from mobilemodel.runtime.session import parse_model
from mobilemodel.v1 import bundle_pb2 as pb

SENSITIVITY_SAMPLES = 2048
SHRINKING_SAMPLES = 50
"""of which SqueezeNet needed as many as half of its 100 pictures: agreement rose from 85 to 92 % of unseen ones"""
_PICTURE_TYPES = frozenset((DType.FLOAT, DType.FLOAT16, DType.UINT8))
PriceOf = Callable[[Layer], float]


@dataclass(frozen=True)
class Fitted:
    """Values found from data by the name of their tensor, and what the user should know."""

    chosen: Mapping[str, Chosen]
    notes: tuple[str, ...]


def make_samples(
    model: Model, step: pb.Preprocessing | None, mean_picture: bytes, data: Data, *, mirror: bool
) -> Samples:
    """Data as the model's only input takes them; pictures are mirrored too where ``mirror`` asks for it.

    Raises UnsupportedSourceError for a model of several inputs, UsageError where nothing says how pictures become its
    input.
    """
    if len(model.inputs) != 1:
        raise UnsupportedSourceError("calibration of a model with another number of inputs than one",
                                     found=len(model.inputs))  # fmt: skip
    name, dtype, fixed = model.inputs[0].name, model.inputs[0].dtype, _fixed_batch(model.inputs[0])
    if fixed is not None and not 1 <= fixed <= len(data):
        raise UsageError("the model takes batches of one size, and there are fewer samples", tensor=name,
                         expected=fixed, found=len(data))  # fmt: skip
    if data.ready:
        return Samples(data, lambda ready: ready, name, None, fixed)
    if step is None:
        raise UsageError(
            "nothing says how pictures become the model's input", tensor=name,
            advice="Give preprocessing (--mean, --scale, --channels, --resize, --crop), or float32 data of its shape.",
        )  # fmt: skip
    if dtype not in _PICTURE_TYPES:
        raise UnsupportedSourceError("pictures for an input of this type", tensor=name, found=dtypes.name(dtype))
    known, picture = step, _mean_picture(step, mean_picture)
    axis = None if not mirror else 2 if known.layout == pb.LAYOUT_NHWC else 3
    return Samples(data, lambda pictures: prepare(pictures, known, picture, dtype=dtype), name, axis, fixed)


def _fixed_batch(source: pb.ValueInfo) -> int | None:
    """The size of an input's first axis where the model says one."""
    first = source.shape.dimensions[:1]
    return int(first[0].size) if first and first[0].HasField("size") else None


def _mean_picture(step: pb.Preprocessing, raw: bytes) -> npt.NDArray[np.float32] | None:
    if not raw:
        return None
    shape = (step.mean_picture.height, step.mean_picture.width, -1)
    return np.frombuffer(raw, "<f4").reshape(shape)


def fit(model: Model, plan: Plan, samples: Samples, options: FittingOptions) -> Fitted:
    """Quantize the layers whose rule is a price to the float network's responses on the samples.

    A price is in nats of divergence that a bit for each weight of the network is worth. Weights that data cannot speak
    about are left to the plan's rule, and a note says why.

    Raises MissingDependencyError without what calibration needs, UsageError where no layer is to be fitted.
    """
    with one_thread():
        return _fit(model, plan, samples, options)


def _fit(model: Model, plan: Plan, samples: Samples, options: FittingOptions) -> Fitted:
    graph = read_graph(parse_model(model.build_graph(frozenset())))
    layers, refused = find_layers(model, graph)
    count = fc_weight_count(model.tensors)
    wanted = {tensor.name: plan.rule(tensor, count) for tensor in model.tensors}
    refused |= {layer.name: "its rule is an SQNR of the weights" for layer in layers if wanted[layer.name].sqnr}
    fitted = {layer.name: wanted[layer.name] for layer in layers if _is_fitted(wanted[layer.name])}
    layers = [layer for layer in layers if layer.name in fitted]
    if not layers:
        raise UsageError("the plan quantizes no layer that data can speak about", advice="Use --scheme auto.")
    weights = sum(tensor.elements for tensor in model.tensors if tensor.role in WEIGHT_ROLES)
    costs, notes = _sensitivities(model, layers, samples, options)
    left = remainders(graph, layers)
    costs = {name: left[name] * cost for name, cost in costs.items()}
    settings = Settings(damping=options.damping, seed=options.seed, threads=options.threads)
    found = calibrate(model, samples, costs, _by_rule(fitted, weights, options.seed), settings,
                      only=frozenset(fitted))  # fmt: skip
    refused |= {name: why for name, why in found.refused.items() if name in fitted}
    notes += [f"{name} is quantized without data: {why}" for name, why in sorted(refused.items())
              if wanted[name].encoding in rules.FITTED]  # fmt: skip
    return Fitted(_chosen(layers, found), (*notes, *found.notes))


def _is_fitted(rule: Rule) -> bool:
    return rule.encoding == rules.PRODUCT or rule.price > 0


def _by_rule(fitted: Mapping[str, Rule], weights: int, seed: int) -> Quantizer:
    """What chooses a layer's codes: product codebooks, or levels by a price that is shared out among ``weights``."""

    def quantize(layer: Layer, response: Response) -> Quantized:
        rule = fitted[layer.name]
        if rule.encoding == rules.PRODUCT:
            product = tensor_product(layer.weight, rule, response, seed=seed)
            return Quantized(product_value(product, layer.weight.order), product.decoded, product_words(product))
        rounded = priced_rounding(response, rule.price / weights)
        value = scaled_palette(rounded, layer.weight.order)
        assert value.tables is not None
        return Quantized(value, rounded.weights, f"{value.tables.size} levels by price, a step for each row")

    return quantize


def _sensitivities(
    model: Model, layers: list[Layer], samples: Samples, options: FittingOptions
) -> tuple[dict[str, Float64], list[str]]:
    """What an error of each output channel costs the network's output, by the name of the layer's weight."""
    axes = {layer.response: layer.channel_axis for layer in layers}
    few = samples.plain().limited(SENSITIVITY_SAMPLES)
    batches = ({samples.input: batch} for batch in few.batches())
    # Scores of classes that no softmax follows are logits, as users export them.
    logits = [output.name for output in model.outputs] if samples.data.classes is not None else []
    found = output_sensitivity(model.build_graph(frozenset()), axes, batches, seed=options.seed,
                               threads=options.threads, logits=logits, weights=model_weights(model))  # fmt: skip
    notes = [f"{name}: the output's sensitivity is not known ({why}); all its channels count alike"
             for name, why in sorted(found.unreached.items())]  # fmt: skip
    return {
        layer.name: shrunk(found.weights[layer.response], found.samples)
        for layer in layers
        if layer.response in found.weights
    }, notes


def shrunk(weights: Float64, samples: int) -> Float64:
    """Row weights drawn towards their mean, as if so many more samples had been like the average: few samples do not
    reach every class, and what they never touch is not without worth.

    >>> shrunk(np.array([0.0, 2.0]), SHRINKING_SAMPLES).tolist()
    [0.5, 1.5]
    """
    share = samples / (samples + SHRINKING_SAMPLES)
    return np.asarray(share * weights + (1 - share) * weights.mean())


def _chosen(layers: list[Layer], found: Calibrated) -> dict[str, Chosen]:
    chosen = {}
    for layer in layers:
        result = found.layers.get(layer.name)
        if result is None:
            continue
        decoded = np.ascontiguousarray(layer.from_matrix(result.quantized.weights), np.float32)
        finite = math.isfinite(result.response_db)
        chosen[layer.name] = Chosen(decoded, _how(result), result.quantized.value,
                                    result.response_db if finite else None)  # fmt: skip
    for name, bias in found.biases.items():
        halves = np.array_equal(bias, bias.astype(np.float16))
        chosen[name] = Chosen(bias, f"corrected from data{', rounded to float16' if halves else ''}")
    return chosen


def _how(result: LayerResult) -> str:
    return f"{result.quantized.how}; response {result.response_db:.1f} dB"

