"""A classifier from ``onnx_weights.layers`` as a PyTorch module, for the peer's own data-driven options."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import nn

Layer = dict[str, Any]
Weights = dict[str, Any]
_SUFFIXES = {
    "Conv": ("weight", "bias"),
    "Gemm": ("weight", "bias"),
    "BatchNormalization": ("weight", "bias", "running_mean", "running_var"),
}
_TYPES = {"weight": "bn.gamma", "bias": "bn.beta", "running_mean": "bn.mean", "running_var": "bn.var"}


class Network(nn.Module):  # type: ignore[misc]
    """The layers as modules; ``names`` maps the state dictionary's names to the ONNX file's."""

    def __init__(self, layers: list[Layer], weights: Weights) -> None:
        super().__init__()
        self.layers = layers
        self.names: dict[str, str] = {}
        for number, layer in enumerate(layers):
            module = _module(layer, weights)
            if module is None:
                continue
            self.add_module(f"layer{number}", module)
            for suffix, name in zip(_SUFFIXES[layer["op"]], layer["parameters"], strict=False):
                self.names[f"layer{number}.{suffix}"] = name
        state = {ours: torch.tensor(weights[name]) for ours, name in self.names.items()}
        self.load_state_dict(state, strict=False)

    def forward(self, x: Any) -> Any:
        values = {self.layers[0]["inputs"][0]: x}
        for number, layer in enumerate(self.layers):
            inputs = [values[name] for name in layer["inputs"]]
            module = getattr(self, f"layer{number}", None)
            values[layer["output"]] = module(*inputs) if module is not None else _compute(layer, inputs)
        return values[self.layers[-1]["output"]]

    def blocks(self, scaled: bool) -> dict[str, dict[str, str | None]]:
        """What each parameter is, and which belong together: a weight, its bias, scaling and BatchNorm."""
        types: dict[str, str] = {}
        blocks: dict[str, str | None] = {}
        owner: dict[str, str] = {}
        for number, layer in enumerate(self.layers):
            prefix = f"layer{number}"
            if layer["op"] == "BatchNormalization":
                block = owner[layer["inputs"][0]]
                types |= {f"{prefix}.{suffix}": kind for suffix, kind in _TYPES.items()}
                blocks |= {f"{prefix}.{suffix}": block for suffix in _TYPES}
            elif layer["op"] in _SUFFIXES:
                owner[layer["output"]] = prefix
                kinds = {"weight": "weight", **({"weight_scaling": "weight.ls"} if scaled else {})}
                if len(layer["parameters"]) > 1:
                    kinds["bias"] = "bias"
                types |= {f"{prefix}.{suffix}": kind for suffix, kind in kinds.items()}
                blocks |= {f"{prefix}.{suffix}": prefix for suffix in kinds}
        return {"parameter_type": dict(types), "block_identifier": blocks}

    def unfolded(self, decoded: Weights) -> Weights:
        """Decoded values with each folded BatchNorm written as one that only adds the bias it was folded into."""
        found = dict(decoded)
        owner: dict[str, str] = {}
        for number, layer in enumerate(self.layers):
            prefix = f"layer{number}"
            if layer["op"] in ("Conv", "Gemm"):
                owner[layer["output"]] = prefix
            elif layer["op"] == "BatchNormalization" and f"{prefix}.weight" not in found:
                bias = found.pop(f"{owner[layer['inputs'][0]]}.weight.bias")
                variance = np.full_like(bias, 1 - layer["attributes"].get("epsilon", 1e-5))
                values = (np.ones_like(bias), bias, np.zeros_like(bias), variance)
                found |= {f"{prefix}.{suffix}": value for suffix, value in zip(_TYPES, values, strict=True)}
        return found


def _module(layer: Layer, weights: Weights) -> nn.Module | None:
    if layer["op"] not in _SUFFIXES:
        return None
    shape = weights[layer["parameters"][0]].shape
    attributes, has_bias = layer["attributes"], len(layer["parameters"]) > 1
    if layer["op"] == "Conv":
        pads, groups = attributes.get("pads", [0] * 4), attributes.get("group", 1)
        if pads[:2] != pads[2:] or attributes.get("auto_pad", "NOTSET") != "NOTSET":
            raise ValueError(f"{layer['output']}: uneven padding")
        return nn.Conv2d(
            shape[1] * groups, shape[0], shape[2:], attributes.get("strides", [1, 1]), pads[:2],
            attributes.get("dilations", [1, 1]), groups, has_bias,
        )  # fmt: skip
    if layer["op"] == "Gemm":
        if attributes.get("transB") != 1 or attributes.get("alpha", 1.0) != 1.0 or attributes.get("beta", 1.0) != 1.0:
            raise ValueError(f"{layer['output']}: not a plain FC layer")
        return nn.Linear(shape[1], shape[0], has_bias)
    return nn.BatchNorm2d(shape[0], eps=attributes.get("epsilon", 1e-5))


def _compute(layer: Layer, inputs: list[Any]) -> Any:
    op, attributes = layer["op"], layer["attributes"]
    if op == "Relu":
        return torch.relu(inputs[0])
    if op == "Clip":
        return torch.clamp(inputs[0], attributes["min"], attributes["max"])
    if op == "Add":
        return inputs[0] + inputs[1]
    if op == "Flatten":
        return torch.flatten(inputs[0], attributes.get("axis", 1))
    if op == "GlobalAveragePool":
        return inputs[0].mean((2, 3), keepdim=True)
    if op == "MaxPool" and not attributes.get("ceil_mode", 0):
        pads = attributes.get("pads", [0] * 4)
        if pads[:2] == pads[2:]:
            return nn.functional.max_pool2d(inputs[0], attributes["kernel_shape"], attributes["strides"], pads[:2])
    raise ValueError(f"{layer['output']}: {op} is not known here")
