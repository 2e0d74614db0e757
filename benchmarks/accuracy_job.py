"""Jobs of accuracy.py, each run in a process of its own; the last line printed is JSON.

accuracy_job.py take DATA.npz OUT START STOP             some of the pictures of a .npz file
accuracy_job.py prepare DATA.npz OUT MEAN SCALE          pictures as float32 N x C x H x W, for peers that take tensors
accuracy_job.py part FOLDER CALIBRATION REST EVERY       a folder of labelled pictures, split in two
accuracy_job.py draw OUT COUNT SIZE                      pictures of noise
accuracy_job.py describe MODEL WEIGHTS.npz               the weights; prints the layers
accuracy_job.py assemble MODEL WEIGHTS.npz OUT.onnx      the model with other weights
accuracy_job.py sqnr MODEL OTHER                         weight SQNR by tensor
accuracy_job.py responses MODEL DATA.npz OTHER...        response error by layer, of models with the same layers
accuracy_job.py operators MODEL.onnx                     how many nodes of each type
accuracy_job.py outputs MODEL OTHER                      largest difference of an output
"""

from __future__ import annotations

import contextlib
import json
import math
import shutil
import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:  # to a type checker this folder is a package; a script finds the files beside it
    from benchmarks import jobs, onnx_weights
else:
    import jobs
    import onnx_weights

Array = npt.NDArray[Any]
_BATCH = 64


def take(data: str, out: str, start: str, stop: str) -> int:
    with np.load(data) as archive:
        x, y = (archive[name][int(start) : int(stop)] for name in ("x", "y"))
    np.savez(out, x=x, y=y)
    return len(x)


def prepare(data: str, out: str, mean: str, scale: str) -> int:
    """(x - mean) * scale, channels first: what ``--mean`` and ``--scale`` say, for RGB."""
    with np.load(data) as archive:
        x, y = archive["x"], archive["y"]
    mean_of = np.array([float(part) for part in mean.split(",")], np.float32)
    tensors = (x.astype(np.float32) - mean_of) * np.float32(scale)
    np.savez(out, x=np.ascontiguousarray(tensors.transpose(0, 3, 1, 2)), y=y)
    return len(x)


def part(folder: str, calibration: str, rest: str, every: str) -> dict[str, int]:
    """Every n-th line of labels.tsv goes to the first folder, the others to the second."""
    lines = Path(folder, "labels.tsv").read_text("utf-8").splitlines()
    counts = {}
    for out, chosen in (
        (Path(calibration), lines[:: int(every)]),
        (Path(rest), [line for number, line in enumerate(lines) if number % int(every)]),
    ):
        (out / "images").mkdir(parents=True)
        (out / "labels.tsv").write_text("\n".join(chosen) + "\n", "utf-8")
        for line in chosen:
            name = line.split("\t")[0]
            place = next(path for path in (Path(folder, name), Path(folder, "images", name)) if path.is_file())
            shutil.copyfile(place, out / "images" / Path(name).name)
        counts[out.name] = len(chosen)
    return counts


def draw(out: str, count: str, size: str) -> int:
    """Even noise, uint8 RGB: activations that mean nothing, as many and as wide as real ones."""
    shape = (int(count), int(size), int(size), 3)
    np.savez(out, x=np.random.default_rng(0).integers(0, 256, shape, np.uint8))
    return int(count)


def describe(model: str, weights: str) -> list[dict[str, Any]]:
    loaded = onnx_weights.load(model)
    np.savez(weights, **onnx_weights.weights(loaded))
    return onnx_weights.layers(loaded)


def assemble(model: str, weights: str, out: str) -> int:
    loaded = onnx_weights.load(model)
    with np.load(weights) as archive:
        onnx_weights.put_back(loaded, {name: archive[name] for name in archive.files})
    return Path(out).write_bytes(loaded.SerializeToString())


def sqnr(model: str, other: str) -> dict[str, float]:
    """10 log10(sum w^2 / sum (w - w')^2) of each initializer with at least two axes; the other may be a bundle."""
    import mobilemodel

    found = {}
    with contextlib.ExitStack() as stack:
        decoded: Callable[[str], Array]
        if other.endswith(".onnx"):
            decoded = dict(jobs.source_weights(other)).__getitem__
        else:
            opened = stack.enter_context(mobilemodel.open(other))
            decoded = lambda name: opened[name].numpy()  # noqa: E731
        for name, weights in jobs.source_weights(model):
            if weights.ndim < 2 or weights.dtype != np.float32:
                continue
            error = jobs.squared_error(weights, decoded(name))
            energy = float(np.vdot(weights.astype(np.float64), weights.astype(np.float64)))
            found[name] = 10 * math.log10(energy / error) if error else math.inf
    return found


def responses(model: str, data: str, *others: str) -> list[dict[str, float]]:
    """Of each other model and each of its FC and conv layers: sum (Y - Y')^2 / sum Y^2 over the data.

    Y is the layer's output in ``model``, Y' what the other model's weight and bias make of the same input.
    """
    import onnx
    from onnx import numpy_helper

    loaded = onnx_weights.load(model)
    weights = [onnx_weights.weights(onnx_weights.load(other)) for other in others]
    with np.load(data) as archive:
        pictures = archive["x"]
    found: list[dict[str, float]] = [{} for _ in others]
    for node in [node for node in loaded.graph.node if node.op_type in ("Conv", "Gemm")]:
        inputs = _run(loaded, node.input[0], pictures)
        layer = onnx.helper.make_model(
            onnx.helper.make_graph(
                [node], "layer", [onnx.helper.make_tensor_value_info(node.input[0], onnx.TensorProto.FLOAT, None)],
                [onnx.helper.make_tensor_value_info(node.output[0], onnx.TensorProto.FLOAT, None)],
                [item for item in loaded.graph.initializer if item.name in node.input],
            ), opset_imports=loaded.opset_import, ir_version=loaded.ir_version,
        )  # fmt: skip
        expected = _run(layer, node.output[0], inputs)
        for row, decoded in zip(found, weights, strict=True):
            other = onnx.ModelProto.FromString(layer.SerializeToString())
            for item in other.graph.initializer:
                item.CopyFrom(numpy_helper.from_array(decoded[item.name], item.name))
            difference = _run(other, node.output[0], inputs) - expected
            energy = np.vdot(expected, expected)
            row[node.input[1]] = float(np.vdot(difference, difference) / energy)
    return found


def _run(model: Any, tensor: str, inputs: Array) -> Array:
    """One tensor of a model with one input, over all the data."""
    import onnx
    import onnxruntime

    cut = onnx.ModelProto.FromString(model.SerializeToString())
    del cut.graph.output[:]
    cut.graph.output.append(onnx.helper.make_tensor_value_info(tensor, onnx.TensorProto.FLOAT, None))
    if tensor == cut.graph.input[0].name:
        return inputs
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 4
    session = onnxruntime.InferenceSession(cut.SerializeToString(), options, providers=["CPUExecutionProvider"])
    name = session.get_inputs()[0].name
    return np.concatenate([
        session.run([tensor], {name: inputs[start : start + _BATCH]})[0] for start in range(0, len(inputs), _BATCH)
    ])  # fmt: skip


def operators(model: str) -> dict[str, int]:
    import onnx

    return dict(Counter(node.op_type for node in onnx.load(model, load_external_data=False).graph.node))


def outputs(model: str, other: str) -> float:
    """Over the outputs of both for the same random inputs."""
    from mobilemodel import runtime

    inputs = runtime.random_inputs(Path(model).read_bytes(), seed=0)
    return max(each.largest_absolute for each in runtime.compare(model, other, inputs))


if __name__ == "__main__":
    known: dict[str, Callable[..., Any]] = {
        function.__name__: function
        for function in (take, prepare, part, draw, describe, assemble, sqnr, responses, operators, outputs)
    }
    print(json.dumps(known[sys.argv[1]](*sys.argv[2:])))
