"""Running Caffe layers in ONNX Runtime: a layer or a net is translated, its weights put back in, and run.

    layer = make_layer("PReLU", [np.array([0.1, 0.2], np.float32)], prelu_param={"channel_shared": False})
    (y,) = run_layer(layer, [x])
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import onnxruntime
from onnx import ModelProto, checker

from mobilemodel.model import Model, QuantizedValue, Role, SourceTensor
from mobilemodel_converters.caffe.net import Blob, Input, Layer, Net, Shape, new_layer
from mobilemodel_converters.caffe.translate import translate
from mobilemodel_converters.onnx.build import restore

Array = npt.NDArray[Any]


def blob(values: Array, shape: Sequence[int] | None = None, quantized: QuantizedValue | None = None) -> Blob:
    """A learned value; ``shape`` as stored, where it is another than the array's."""
    stored = np.asarray(values, np.float32)
    return Blob(tuple(stored.shape if shape is None else shape), lambda: stored.reshape(-1), quantized)


def legacy(values: Array) -> Blob:
    """A learned value as files of old hold it: four axes, right-aligned."""
    return blob(values, (1,) * (4 - np.ndim(values)) + np.shape(values))


def make_layer(
    kind: str, blobs: Sequence[Array | Blob] = (), *, bottoms: int = 1, tops: int = 1, **params: Any
) -> Layer:
    """A layer called ``layer``, its bottoms ``x0``, ``x1``..., its tops ``y0``, ``y1``..."""
    held = tuple(item if isinstance(item, Blob) else blob(item) for item in blobs)
    return new_layer("layer", kind, tuple(f"x{i}" for i in range(bottoms)), tuple(f"y{i}" for i in range(tops)), held,
                     **params)  # fmt: skip


def net_of(*layers: Layer, inputs: dict[str, Shape], outputs: Sequence[str] = ()) -> Net:
    """A net of these layers, fed by ``inputs``."""
    free = tuple(Input(name, shape) for name, shape in inputs.items())
    return Net("net", free, tuple(layers), tuple(outputs))


def restored(model: Model) -> ModelProto:
    """The model's graph with the values of its tensors inside; ONNX's own checker has seen it."""
    values = {tensor.name: tensor.read for tensor in model.tensors}
    graph = restore(model.build_graph(frozenset()), lambda name: values[name]())
    checker.check_model(graph, full_check=True)
    return graph


def run_model(model: Model, inputs: dict[str, Array]) -> dict[str, Array]:
    """Each output by name. Output shapes that the translation declares must be those that come out."""
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    session = onnxruntime.InferenceSession(restored(model).SerializeToString(), options)
    found = dict(zip([out.name for out in session.get_outputs()], session.run(None, inputs), strict=True))
    for declared in model.outputs:
        got = found[declared.name].shape
        said = [dim.size if dim.HasField("size") else None for dim in declared.shape.dimensions]
        assert len(said) == len(got), (declared.name, said, got)
        assert all(a in (None, b) for a, b in zip(said, got, strict=True)), (declared.name, said, got)
    return found


def run_net(net: Net, inputs: dict[str, Array]) -> dict[str, Array]:
    """Translate a net and run it; each output by the name of its blob."""
    return run_model(translate(net, sources=()), inputs)


def run_layer(layer: Layer, inputs: Sequence[Array], *, free: bool = False) -> list[Array]:
    """Translate and run one layer on its inputs; ``free``: translated without knowing height and width."""
    return [run_translated(translate_layer(layer, [x.shape for x in inputs], free=free), inputs)[top]
            for top in layer.tops]  # fmt: skip


def translate_layer(layer: Layer, shapes: Sequence[Sequence[int]], *, free: bool = False) -> Model:
    """Translate one layer for inputs of these shapes; ``free``: without knowing their height and width."""
    known = [tuple(shape[:2]) + (None,) * (len(shape) - 2) if free else tuple(shape) for shape in shapes]
    net = net_of(layer, inputs=dict(zip(layer.bottoms, known, strict=True)), outputs=layer.tops)
    return translate(net, sources=())


def run_translated(model: Model, inputs: Sequence[Array]) -> dict[str, Array]:
    """Run a translated layer on its inputs in order."""
    names = [value.name for value in model.inputs]
    return run_model(model, {name: np.asarray(x, np.float32) for name, x in zip(names, inputs, strict=True)})


def tensor_of(model: Model, name: str) -> SourceTensor:
    """The model's tensor of this name."""
    return next(tensor for tensor in model.tensors if tensor.name == name)


def roles_of(model: Model) -> dict[str, Role]:
    """The role of each of the model's tensors."""
    return {tensor.name: tensor.role for tensor in model.tensors}


def assert_close(found: Array, expected: Array, *, absolute: float = 1e-4, relative: float = 1e-5) -> None:
    """Same shape, and values within tolerances that leave room for another order of summation."""
    assert found.shape == expected.shape, (found.shape, expected.shape)
    np.testing.assert_allclose(found, expected, rtol=relative, atol=absolute)
