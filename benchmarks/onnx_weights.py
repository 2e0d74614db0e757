"""The weights and the layers of an ONNX classifier, for peers that know nothing of ONNX.

A peer gets the float32 initializers as a .npz file and, where it computes gradients or accuracy of its own, the layers
as JSON. What it decodes is put back into the graph, so that one judge runs every model in ONNX Runtime.
"""

from __future__ import annotations

from typing import Any

import numpy as np

Weights = dict[str, Any]
"""name -> array"""


def load(path: str) -> Any:
    """The model of a file, each initializer used by one layer only."""
    import onnx

    model = onnx.load(path)
    separate(model)
    return model


def separate(model: Any) -> None:
    """Give every initializer that reaches a layer through an Identity a copy of its own.

    An exporter that finds two equal tensors keeps one and an Identity; a peer that folds or scales one of them has to
    have both.
    """
    from onnx import numpy_helper

    graph = model.graph
    values = {item.name: numpy_helper.to_array(item) for item in graph.initializer}
    for node in [node for node in graph.node if node.op_type == "Identity" and node.input[0] in values]:
        graph.initializer.append(numpy_helper.from_array(values[node.input[0]], node.output[0]))
        graph.node.remove(node)


def weights(model: Any) -> Weights:
    """Each float32 initializer by name."""
    from onnx import numpy_helper

    values = {item.name: numpy_helper.to_array(item) for item in model.graph.initializer}
    return {name: value for name, value in values.items() if value.dtype == np.float32}


def put_back(model: Any, decoded: Weights) -> None:
    """Replace initializers; every name must be one of the model's, of the same shape."""
    from onnx import numpy_helper

    items = {item.name: item for item in model.graph.initializer}
    for name, value in decoded.items():
        if tuple(items[name].dims) != value.shape:
            raise ValueError(f"{name}: {value.shape} where the model has {tuple(items[name].dims)}")
        items[name].CopyFrom(numpy_helper.from_array(value.astype(np.float32), name))


def layers(model: Any) -> list[dict[str, Any]]:
    """The nodes in order: ``op``, ``inputs``, ``output``, ``parameters`` (names of its initializers) and attributes.

    Clip's bounds become attributes; the Softmax at the end is left out, since losses are computed from logits.
    """
    from onnx import helper, numpy_helper

    graph = model.graph
    tensors = {item.name for item in graph.initializer}
    constants = {
        node.output[0]: numpy_helper.to_array(node.attribute[0].t) for node in graph.node if node.op_type == "Constant"
    }
    found = []
    for node in graph.node:
        if node.op_type in ("Constant", "Softmax"):
            continue
        attributes = {item.name: _plain(helper.get_attribute_value(item)) for item in node.attribute}
        if node.op_type == "Clip":
            attributes |= {"min": float(constants[node.input[1]]), "max": float(constants[node.input[2]])}
        found.append({
            "op": node.op_type, "output": node.output[0], "attributes": attributes,
            "inputs": [name for name in node.input if name not in tensors and name not in constants],
            "parameters": [name for name in node.input if name in tensors],
        })  # fmt: skip
    return found


def _plain(value: Any) -> Any:
    if isinstance(value, bytes):
        return value.decode()
    return list(value) if isinstance(value, (list, tuple)) or hasattr(value, "append") else value
