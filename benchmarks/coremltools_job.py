"""Jobs for the peer coremltools, each run in a process of its own; the last line printed is JSON.

coremltools_job.py build MODEL PACKAGE          the network as a float16 ML program
coremltools_job.py palettize PACKAGE OUT BITS   k-means palettes for the FC layers, BITS as 4,4,4
coremltools_job.py errors PACKAGE MODEL         squared error of each FC layer's weights
"""

from __future__ import annotations

import json
import resource
import sys
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:  # to a type checker this folder is a package; a script finds the files beside it
    from benchmarks import jobs
else:
    import jobs

_FC = ("fc6", "fc7", "fc8")


def cpu_seconds() -> float:
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_utime + usage.ru_stime


def build(model: str, package: str) -> dict[str, float]:
    """Write AlexNet with the model's weights as a float16 ML program: what palettization starts from."""
    import coremltools

    imported = cpu_seconds()
    program = _alexnet(dict(jobs.source_weights(model)))
    converted = coremltools.convert(
        program, convert_to="mlprogram", compute_precision=coremltools.precision.FLOAT16,
        minimum_deployment_target=coremltools.target.iOS16, skip_model_load=True,
    )  # fmt: skip
    converted.save(package)
    return {"import": imported, "build": cpu_seconds() - imported}


def _alexnet(weights: dict[str, npt.NDArray[Any]]) -> Any:
    import coremltools
    from coremltools.converters.mil import Builder

    def convolution(x: Any, name: str, groups: int, pad: int, stride: int) -> Any:
        kernel = {"weight": weights[f"{name}.weight"], "bias": weights[f"{name}.bias"], "name": name}
        x = Builder.conv(x=x, groups=groups, pad_type="custom", pad=[pad] * 4, strides=[stride] * 2, **kernel)
        return Builder.relu(x=x)

    def normalize(x: Any) -> Any:
        return Builder.local_response_norm(x=x, size=5, alpha=1e-4, beta=0.75, k=1.0)

    def pool(x: Any) -> Any:
        return Builder.max_pool(x=x, kernel_sizes=[3, 3], strides=[2, 2], pad_type="valid")

    specification = Builder.TensorSpec(shape=(1, 3, 227, 227))

    @Builder.program(input_specs=[specification], opset_version=coremltools.target.iOS16)  # type: ignore[untyped-decorator]
    def program(data: Any) -> Any:
        x = pool(normalize(convolution(data, "conv1", 1, 0, 4)))
        x = pool(normalize(convolution(x, "conv2", 2, 2, 1)))
        x = convolution(x, "conv3", 1, 1, 1)
        x = convolution(x, "conv4", 2, 1, 1)
        x = pool(convolution(x, "conv5", 2, 1, 1))
        x = Builder.reshape(x=x, shape=[1, -1])
        for name in _FC:
            x = Builder.linear(x=x, weight=weights[f"{name}.weight"], bias=weights[f"{name}.bias"], name=name)
            if name != _FC[-1]:
                x = Builder.relu(x=x)
        return Builder.softmax(x=x, axis=-1, name="prob")

    return program


def palettize(package: str, out: str, bits: str) -> dict[str, float]:
    """Palettize the FC layers and save; CPU seconds of the import and of all that follows."""
    import coremltools
    from coremltools.optimize import coreml

    imported = cpu_seconds()
    model = coremltools.models.MLModel(package, skip_model_load=True)
    names = [_name(op.inputs["weight"]) for op in _operations(model.get_spec(), "linear")]
    configs = {
        name: coreml.OpPalettizerConfig(mode="kmeans", nbits=int(each))
        for name, each in zip(names, bits.split(","), strict=True)
    }
    coreml.palettize_weights(model, coreml.OptimizationConfig(op_name_configs=configs)).save(out)
    return {"import": imported, "palettize": cpu_seconds() - imported}


def errors(package: str, model: str) -> dict[str, float]:
    """The squared error of each FC layer, with tables and indices read back from the saved package."""
    from coremltools.converters.mil.mil.ops.defs.iOS16 import constexpr_lut_to_dense
    from coremltools.libmilstoragepython import _BlobStorageReader
    from coremltools.models.utils import load_spec

    reader = _BlobStorageReader(f"{package}/Data/com.apple.CoreML/weights/weight.bin")
    found: dict[str, npt.NDArray[Any]] = {}
    # The operations stand in the order of the network.
    for name, op in zip(_FC, _operations(load_spec(package), "constexpr_lut_to_dense"), strict=True):
        table = np.array(reader.read_fp16_data(op.attributes["lut"].blobFileValue.offset), np.uint16).view(np.float16)
        indices = np.array(reader.read_uint8_data(op.attributes["indices"].blobFileValue.offset), np.uint8)
        shape = np.frombuffer(op.attributes["shape"].immediateValue.tensor.bytes.values, np.uint32)
        found[f"{name}.weight"] = constexpr_lut_to_dense.decompress(table, indices, shape)
    return {name: jobs.squared_error(w, found[name]) for name, w in jobs.source_weights(model) if name in found}


def _operations(specification: Any, kind: str) -> list[Any]:
    blocks = specification.mlProgram.functions["main"].block_specializations.values()
    return [op for block in blocks for op in block.operations if op.type == kind]


def _name(argument: Any) -> str:
    name: str = argument.arguments[0].name
    return name


if __name__ == "__main__":
    jobs_by_name: dict[str, Callable[..., Any]] = {"build": build, "palettize": palettize, "errors": errors}
    print(json.dumps(jobs_by_name[sys.argv[1]](*sys.argv[2:])))
