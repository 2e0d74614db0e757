"""Plain GPTQ (Frantar et al., arXiv 2210.17323) of a classifier's FC layers, as a job; the last line printed is JSON.

gptq_job.py MODEL DATA.npz OUT BITS GROUP

DATA holds x, float32 as the network takes it. Layer by layer, each on the inputs that the network has with the layers
before it quantized already: H = X^T X, damped by 1 % of its mean diagonal, columns in order, the rounding error of each
handed on to those that follow. A group of GROUP columns of a row has its own scale and zero point (asymmetric, from the
least and the largest weight). The size is that of the codes, packed, of scales (float16) and zero points (one code
each), and of everything else in float16, all together after zstd -19: no graph.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:  # to a type checker this folder is a package; a script finds the files beside it
    from benchmarks import onnx_weights
else:
    import onnx_weights

Floats = npt.NDArray[np.float64]
Array = npt.NDArray[Any]
_BATCH = 64
_BLOCK = 128
"""columns after which the errors are handed on to all that follow"""
_DAMPING = 0.01


def second_moments(model: Any, tensor: str, pictures: Array) -> Floats:
    """H = mean of x x^T over the rows that ``tensor`` has for the pictures."""
    import onnx
    import onnxruntime

    cut = onnx.ModelProto.FromString(model.SerializeToString())
    del cut.graph.output[:]
    cut.graph.output.append(onnx.helper.make_tensor_value_info(tensor, onnx.TensorProto.FLOAT, None))
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 4
    session = onnxruntime.InferenceSession(cut.SerializeToString(), options, providers=["CPUExecutionProvider"])
    total: Floats | None = None
    for start in range(0, len(pictures), _BATCH):
        (x,) = session.run([tensor], {session.get_inputs()[0].name: pictures[start : start + _BATCH]})
        product = (x.T @ x).astype(np.float64)
        total = product if total is None else total + product
    assert total is not None
    return total / len(pictures)


def grid(group: Floats, bits: int) -> tuple[Floats, Floats]:
    """Scale and zero point of each row of a group, the scale as float16 keeps it."""
    low, high = np.minimum(group.min(1), 0), np.maximum(group.max(1), 0)
    scale = np.maximum((high - low) / (2**bits - 1), 2.0**-14).astype(np.float16).astype(np.float64)
    return scale, np.clip(np.rint(-low / scale), 0, 2**bits - 1)


def quantize(weights: Array, moments: Floats, bits: int, size: int) -> tuple[Array, list[Array]]:
    """The quantized weights, and what is to be stored: codes, scales, zero points."""
    w = weights.astype(np.float64)
    damped = moments + _DAMPING * np.mean(np.diag(moments)) * np.eye(len(moments))
    unused = np.diag(moments) == 0
    w[:, unused] = 0
    # Row i of the upper factor of H^-1 holds how column i's error is handed on (the paper's step 3).
    upper = np.linalg.cholesky(np.linalg.inv(damped)).T
    columns = w.shape[1]
    codes = np.empty(w.shape, np.uint8)
    scales, zeros = [], []
    for start in range(0, columns, _BLOCK):
        stop = min(start + _BLOCK, columns)
        errors = np.empty((len(w), stop - start))
        for column in range(start, stop):
            if column % size == 0:
                scale, zero = grid(w[:, column : column + size], bits)
                scales.append(scale.astype(np.float16))
                zeros.append(zero.astype(np.uint8))
            code = np.clip(np.rint(w[:, column] / scale + zero), 0, 2**bits - 1)
            rounded = scale * (code - zero)
            error = (w[:, column] - rounded) / upper[column, column]
            w[:, column + 1 : stop] -= np.outer(error, upper[column, column + 1 : stop])
            errors[:, column - start] = error
            codes[:, column], w[:, column] = code.astype(np.uint8), rounded
        w[:, stop:] -= errors @ upper[start:stop, stop:]
    return w.astype(np.float32), [packed(codes, bits), np.array(scales), packed(np.array(zeros), bits)]


def packed(codes: Array, bits: int) -> Array:
    """Codes as a stream of bits."""
    plane = np.unpackbits(codes.reshape(-1, 1), axis=1)[:, 8 - bits :]
    return np.packbits(plane)


def dense_layers(model: Any) -> Iterator[tuple[str, str]]:
    """Input and weight of each FC layer, in the order of the network."""
    for node in model.graph.node:
        if node.op_type == "Gemm":
            yield node.input[0], node.input[1]


def main(path: str, data: str, out: str, bits: str, size: str) -> dict[str, Any]:
    import zstandard

    started = time.process_time()
    model = onnx_weights.load(path)
    with np.load(data) as archive:
        pictures = archive["x"]
    values = onnx_weights.weights(model)
    stored: list[Array] = []
    decoded: onnx_weights.Weights = {}
    for source, name in dense_layers(model):
        moments = second_moments(model, source, pictures)
        decoded[name], parts = quantize(values[name], moments, int(bits), int(size))
        onnx_weights.put_back(model, {name: decoded[name]})
        stored += parts
    for name, value in values.items():
        if name not in decoded:
            decoded[name] = value.astype(np.float16)
            stored.append(decoded[name])
    np.savez(out, **decoded)
    size_bytes = len(zstandard.ZstdCompressor(level=19).compress(b"".join(part.tobytes() for part in stored)))
    return {"bytes": size_bytes, "cpu_seconds": time.process_time() - started, "weights": str(Path(out))}


if __name__ == "__main__":
    print(json.dumps(main(*sys.argv[1:])))
