"""A convnet of ccv -> graph: layers with the ReLU, flattening and softmax that the file leaves unsaid.

Values are called after their layers (``layer-3``), what lies within a layer ``layer-3.convolution``. Weights are read
layer by layer when they are asked for, and come in ONNX's order. Source: ccv's convnet storage code and its CPU
engine; every layer type was run against it.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import numpy as np
import numpy.typing as npt

from mobilemodel.errors import LimitExceededError, MalformedSourceError, MobileModelError, UsageError
from mobilemodel.model import Buffer, Model, QuantizedValue, SourceFile, SourceOptions
from mobilemodel_converters.ccv import klaus, schema
from mobilemodel_converters.ccv.database import Blob, Database
from mobilemodel_converters.ccv.layers import MOST_LAYERS, Layer, Size, integer, read_layers
from mobilemodel_converters.ccv.png import MOST_SAMPLES
from mobilemodel_converters.ccv.preprocessing import read_preprocessing
from mobilemodel_converters.ccv.schema import LAYER_TYPE_NAMES, LayerType
from mobilemodel_converters.network import NetworkBuilder

SOURCE_FORMAT = "ccv"
INPUT, OUTPUT, BATCH = "input", "output", "N"
_WEIGHT, _BIAS = "weight", "bias"
Floats = npt.NDArray[np.float32]


@dataclass(frozen=True)
class LayerData:
    """One row of ``layer_data``: BLOBs that have not been read; None where there is none."""

    blobs: dict[str, Blob | None]
    half: bool

    def size(self, count: int) -> int:
        """Bytes of ``count`` values."""
        return count * (2 if self.half else 4)


NO_DATA = LayerData({_WEIGHT: None, _BIAS: None}, half=False)


def load_convnet(database: Database, options: SourceOptions) -> Model:
    """Read a convnet; its weights stay in the file until they are asked for, and closing the model closes the file.

    Raises MalformedSourceError, UnsupportedSourceError, LimitExceededError; UsageError for pictures that no layer has
    a codebook for.
    """
    layers, notes = read_layers(database)
    parameters = _Parameters(database, options)
    parameters.check_pictures(layers)
    network = NetworkBuilder("convnet")
    size = layers[0].input
    value = network.input(INPUT, _dims(size))
    for layer in layers:
        try:
            value = _BUILDERS[layer.kind](network, layer, value, parameters)
        except MobileModelError as error:
            raise error.within(layer=layer.name) from None
    last = layers[-1]
    if last.kind is LayerType.FULL_CONNECT and not last.relu:
        # ccv's classifier applies it: the layer itself has none.
        value = network.add("Softmax", (value,), OUTPUT, axis=1)
    else:
        notes.append(f"no softmax at the end: {last.name}, a {LAYER_TYPE_NAMES[last.kind]}, is no classifier's output")
    connected = last.kind is LayerType.FULL_CONNECT
    network.output(value, (BATCH, last.output.rows) if connected else _dims(last.output))
    pictures = read_preprocessing(database, INPUT, size)
    return network.finish(
        sources=(database.file.record(SOURCE_FORMAT), *parameters.sources),
        preprocessing=() if pictures.step is None else (pictures.step,),
        mean_picture=pictures.mean_picture,
        notes=(*notes, *parameters.notes(), *pictures.notes),
        close=database.close,
    )


def _dims(size: Size) -> tuple[str | int, ...]:
    return (BATCH, size.channels, size.rows, size.cols)


class _Parameters:
    """The weights and biases of a convnet: in ``layer_data``, or a full connect's weight in a picture."""

    def __init__(self, database: Database, options: SourceOptions) -> None:
        self.database = database
        self.data = _read_layer_data(database)
        self.codebooks = klaus.read_codebooks(database)
        self.pictures = klaus.named_pictures(options.pictures)
        self.sources: list[SourceFile] = []
        self.unused: list[str] = []

    def check_pictures(self, layers: list[Layer]) -> None:
        """A picture is named, and a codebook stored, for full connects only; the codes of all are kept in memory."""
        connected = {layer.number for layer in layers if layer.kind is LayerType.FULL_CONNECT}
        for number in self.codebooks:
            if number not in connected:
                raise MalformedSourceError(f"the table {schema.LAYER_QUANT} has a codebook for what is no full connect",
                                           layer=schema.layer_name(number))  # fmt: skip
        samples = sum(math.prod(layer.weight_shape) for layer in layers if layer.number in self.codebooks)
        if samples > MOST_SAMPLES:
            raise LimitExceededError("samples of all pictures", expected=f"at most {MOST_SAMPLES}", found=samples)
        for number in self.pictures:
            if number not in self.codebooks:
                known = ", ".join(str(layer) for layer in sorted(self.codebooks)) or "none"
                raise UsageError(f"--png {number}: the layer has no codebook in the table {schema.LAYER_QUANT}",
                                 expected=f"one of the layers that have one: {known}")  # fmt: skip

    def notes(self) -> list[str]:
        """What the user should know about where weights came from."""
        notes = [f"the weight of {name} is the database's: its codebook has no picture" for name in self.unused]
        if self.sources:
            names = ", ".join(source.name for source in self.sources)
            notes.append(f"codes come from {names}, with the codebooks of {schema.LAYER_QUANT}, as they are")
        training = sorted(set(schema.TRAINING_TABLES) & set(self.database.tables))
        if training:
            notes.append(f"the trainer's tables were left out: {', '.join(training)}")
        return notes

    def weight(self, layer: Layer) -> tuple[Callable[[], Buffer], QuantizedValue | None]:
        """How the weight is read, in ONNX's order, and the codes of a weight that is stored as a picture."""
        codebook = self.codebooks.get(layer.number)
        if codebook is not None:
            path = self.pictures.get(layer.number) or klaus.find_picture(self.database.path.parent, layer.number)
            if path is not None:
                value, source = klaus.read_weight(layer, codebook, path)
                self.sources.append(source)
                return lambda: _channels_first(klaus.look_up(value), layer), value
        read = self._stored(layer, _WEIGHT, math.prod(layer.weight_shape))
        if codebook is not None:
            self.unused.append(layer.name)
        return lambda: _channels_first(read(), layer), None

    def bias(self, layer: Layer, count: int) -> Callable[[], Buffer]:
        """How the bias is read."""
        read = self._stored(layer, _BIAS, count)
        return lambda: read().data.cast("B")

    def _stored(self, layer: Layer, what: str, count: int) -> Callable[[], Floats]:
        """How the BLOB of a weight or bias is read. Raises MalformedSourceError where it has not ``count`` values."""
        data = self.data.get(layer.number, NO_DATA)
        blob = data.blobs[what]
        if blob is not None and blob.size == data.size(count):
            return partial(_read_values, self.database, blob, data.half)
        advice = "ccv itself would take zeros for it."
        if what == _WEIGHT and layer.kind is LayerType.FULL_CONNECT:
            advice += self._picture_advice(layer.number)
        kind = "half" if data.half else "single"
        raise MalformedSourceError(
            f"the {what} is not whole" if blob is not None else f"the {what} is missing", layer=layer.name,
            expected=f"{data.size(count)} bytes, {count} values of {kind} precision",
            found="none" if blob is None else f"{blob.size} bytes", advice=advice,
        )  # fmt: skip

    def _picture_advice(self, number: int) -> str:
        if number in self.codebooks:
            name = schema.picture_names(number)[0]
            return f" Its codebook is there: put its picture, {name}, beside the database, or give --png {number}=FILE."
        return f" A picture could hold its codes, but the table {schema.LAYER_QUANT} has no codebook for it."


def _read_layer_data(database: Database) -> dict[int, LayerData]:
    present = database.columns(schema.LAYER_DATA, ("layer", _WEIGHT, _BIAS))
    columns = [c for c in ("layer", _WEIGHT, _BIAS, "half_precision") if c in present]
    found: dict[int, LayerData] = {}
    for row in database.rows(schema.LAYER_DATA, columns, MOST_LAYERS):
        number = integer(row, "layer")
        if number in found:
            raise MalformedSourceError(f"two rows of the table {schema.LAYER_DATA}", layer=schema.layer_name(number))
        blobs: dict[str, Blob | None] = {}
        for what in (_WEIGHT, _BIAS):
            blob = row[what]
            if blob is not None and not isinstance(blob, Blob):
                raise MalformedSourceError(f"the {what} is no BLOB", layer=schema.layer_name(number))
            blobs[what] = blob
        half = integer(row, "half_precision", least=-(2**31)) != 0
        found[number] = LayerData(blobs, half)
    return found


def _read_values(database: Database, blob: Blob, half: bool) -> Floats:
    return np.frombuffer(database.read(blob), "<f2" if half else "<f4").astype("<f4", copy=False)


def _channels_first(values: Floats, layer: Layer) -> Buffer:
    """A weight in ONNX's order: channels before rows and columns."""
    return np.ascontiguousarray(values.reshape(layer.weight_shape).transpose(0, 3, 1, 2)).reshape(-1).data.cast("B")


def _add_convolution(network: NetworkBuilder, layer: Layer, value: str, parameters: _Parameters) -> str:
    filters, rows, cols, channels = layer.weight_shape
    read, _ = parameters.weight(layer)
    inputs = (
        value,
        network.weight(f"{layer.name}.{_WEIGHT}", (filters, channels, rows, cols), read),
        network.weight(f"{layer.name}.{_BIAS}", (filters,), parameters.bias(layer, filters)),
    )
    made = network.add("Conv", inputs, f"{layer.name}.convolution", kernel_shape=layer.kernel, group=layer.partition,
                       strides=(layer.strides,) * 2, pads=(layer.border,) * 4)  # fmt: skip
    return network.add("Relu", (made,), layer.name)


def _add_full_connect(network: NetworkBuilder, layer: Layer, value: str, parameters: _Parameters) -> str:
    outputs, inputs = layer.output.rows, layer.input.values
    read, quantized = parameters.weight(layer)
    weight = network.weight(f"{layer.name}.{_WEIGHT}", (outputs, inputs), read, quantized=quantized)
    bias = network.weight(f"{layer.name}.{_BIAS}", (outputs,), parameters.bias(layer, outputs))
    if layer.flattens:
        value = network.add("Flatten", (value,), f"{layer.name}.flat", axis=1)
    name = f"{layer.name}.sum" if layer.relu else layer.name
    made = network.add("Gemm", (value, weight, bias), name, transB=1)
    return network.add("Relu", (made,), layer.name) if layer.relu else made


def _add_pool(network: NetworkBuilder, layer: Layer, value: str, parameters: _Parameters) -> str:  # noqa: ARG001 - a builder
    shape = {"kernel_shape": layer.kernel, "strides": (layer.strides,) * 2, "pads": (layer.border,) * 4}
    if layer.kind is LayerType.MAX_POOL:
        return network.add("MaxPool", (value,), layer.name, **shape)
    # The average of the real pixels under the window.
    return network.add("AveragePool", (value,), layer.name, count_include_pad=0, **shape)


def _add_normalisation(network: NetworkBuilder, layer: Layer, value: str, parameters: _Parameters) -> str:  # noqa: ARG001 - a builder
    # ONNX divides alpha by the size of the window, ccv does not.
    numbers = {"size": layer.window, "alpha": layer.alpha * layer.window, "beta": layer.beta, "bias": layer.kappa}
    if layer.partition == 1:
        return network.add("LRN", (value,), layer.name, **numbers)
    # The window ends where its partition ends.
    wishes = [f"{layer.name}.part-{index}" for index in range(layer.partition)]
    parts = network.add_many("Split", (value,), wishes, axis=1)
    made = [network.add("LRN", (part,), f"{layer.name}.norm-{index}", **numbers) for index, part in enumerate(parts)]
    return network.add("Concat", made, layer.name, axis=1)


_BUILDERS: dict[LayerType, Callable[[NetworkBuilder, Layer, str, _Parameters], str]] = {
    LayerType.CONVOLUTIONAL: _add_convolution,
    LayerType.FULL_CONNECT: _add_full_connect,
    LayerType.MAX_POOL: _add_pool,
    LayerType.AVERAGE_POOL: _add_pool,
    LayerType.LOCAL_RESPONSE_NORM: _add_normalisation,
}
