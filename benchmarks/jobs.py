"""Jobs of the benchmarks, each run in a process of its own; the last line printed is JSON.

jobs.py errors BUNDLE MODEL            squared error of each weight stored as a palette
jobs.py archive FOLDER                 bytes of the folder's files, and after zstd -19
jobs.py streams BUNDLE                 size and zeroth-order entropy of each palette's codes
jobs.py draw OUT.onnx LEVELS BITS      a network with one matrix of i.i.d. values of BITS entropy
jobs.py external FOLDER LAYERS WIDTH   a network with its FC weights in an external file
jobs.py listing BUNDLE                 open and list; what was read, what was imported
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

_ROWS = 256


def source_weights(model: str) -> Iterator[tuple[str, npt.NDArray[Any]]]:
    """Name and value of each initializer of an ONNX file."""
    import onnx
    from onnx import numpy_helper

    for tensor in onnx.load(model).graph.initializer:
        yield tensor.name, numpy_helper.to_array(tensor)


def squared_error(weights: npt.NDArray[Any], decoded: npt.NDArray[Any]) -> float:
    """Sum of (w - w')^2 in float64, some rows at a time."""
    total = 0.0
    for start in range(0, len(weights), _ROWS):
        rows = slice(start, start + _ROWS)
        difference = weights[rows].astype(np.float64) - decoded[rows].astype(np.float64)
        total += float(np.vdot(difference, difference))
    return total


def errors(bundle: str, model: str) -> dict[str, float]:
    import mobilemodel

    with mobilemodel.open(bundle) as opened:
        return {
            name: squared_error(weights, opened[name].numpy())
            for name, weights in source_weights(model)
            if opened[name].encoding == "palette"
        }


def archive(folder: str) -> dict[str, int]:
    import zstandard

    compressor = zstandard.ZstdCompressor(level=19)
    contents = [path.read_bytes() for path in sorted(Path(folder).rglob("*")) if path.is_file()]
    return {"bytes": sum(map(len, contents)), "zstd": sum(len(compressor.compress(each)) for each in contents)}


def streams(bundle: str) -> list[dict[str, Any]]:
    """Of each palette: codes, entropy in bits a code, stored bytes (its table among them), depth and split."""
    import mobilemodel

    rows = []
    with mobilemodel.open(bundle) as opened:
        for tensor in opened.values():
            if tensor.encoding != "palette":
                continue
            counts = np.bincount(tensor.indices().reshape(-1))
            share = counts[counts > 0] / counts.sum()
            codes = tensor.message.palette.codes
            rows.append({
                "name": tensor.name, "codes": int(counts.sum()), "entropy": float(-(share * np.log2(share)).sum()),
                "stored": tensor.stored_bytes, "depth": codes.depth, "split": codes.split,
            })  # fmt: skip
    return rows


def draw(out: str, levels: str, bits: str) -> dict[str, float]:
    """One MatMul of i.i.d. weights; from the middle, each level is less likely than the one before by one factor."""
    count, side = int(levels), 2048
    distance = np.abs(np.arange(count) - count // 2)
    low, high = 0.0, 30.0
    for _ in range(60):
        slope = (low + high) / 2
        share = np.exp(-slope * distance)
        share /= share.sum()
        low, high = (slope, high) if -(share * np.log2(share + 1e-300)).sum() > float(bits) else (low, slope)
    values = ((np.arange(count) - count // 2) / 64).astype(np.float32)
    codes = np.random.default_rng(7).choice(count, (side, side), p=share)
    _save_chain(out, [("layer1", values[codes])])
    return {"slope": slope}


def _save_chain(out: str, layers: list[tuple[str, npt.NDArray[np.float32]]]) -> None:
    from onnx import helper, numpy_helper, save

    initializers = [numpy_helper.from_array(weights, f"{name}.weight") for name, weights in layers]
    save(helper.make_model(_chain(initializers), opset_imports=[helper.make_opsetid("", 13)], ir_version=8), out)


def _chain(initializers: list[Any]) -> Any:
    """A graph of MatMul layers, one after the other."""
    from onnx import TensorProto, helper

    ends = ["data", *[weight.name.removesuffix(".weight") for weight in initializers]]
    nodes = [
        helper.make_node("MatMul", [before, weight.name], [after], name=after)
        for before, weight, after in zip(ends, initializers, ends[1:], strict=False)
    ]
    value = helper.make_tensor_value_info
    inputs = [value("data", TensorProto.FLOAT, [1, initializers[0].dims[0]])]
    outputs = [value(ends[-1], TensorProto.FLOAT, [1, initializers[-1].dims[1]])]
    return helper.make_graph(nodes, "chain", inputs, outputs, initializers)


def external(folder: str, layers: str, width: str) -> dict[str, Any]:
    """Write the weights row block by row block; this process never holds a whole tensor."""
    from onnx import TensorProto, helper, save

    side, rng = int(width), np.random.default_rng(11)
    size = 4 * side * side
    initializers = []
    with (Path(folder) / "weights.bin").open("wb") as file:
        for index in range(int(layers)):
            entries = {"location": "weights.bin", "offset": str(file.tell()), "length": str(size)}
            tensor = TensorProto(name=f"layer{index + 1}.weight", data_type=TensorProto.FLOAT, dims=(side, side))
            tensor.data_location = TensorProto.EXTERNAL
            for key, value in entries.items():
                tensor.external_data.add(key=key, value=value)
            initializers.append(tensor)
            for start in range(0, side, _ROWS):
                rows = rng.standard_normal((min(_ROWS, side - start), side), np.float32)
                rows *= np.float32(side**-0.5)
                file.write(rows.data)
    model = helper.make_model(_chain(initializers), opset_imports=[helper.make_opsetid("", 13)], ir_version=8)
    path = Path(folder) / "model.onnx"
    save(model, str(path))
    return {"model": str(path), "largest": size, "bytes": size * int(layers)}


def listing(bundle: str) -> dict[str, Any]:
    import mobilemodel
    from mobilemodel.listing import list_bundle

    before = _bytes_read()
    with mobilemodel.open(bundle) as opened:
        text = list_bundle(opened)
        touched = _touched(Path(bundle).resolve())
        tensors = len(opened)
    return {
        "read": _bytes_read() - before, "touched": touched, "tensors": tensors, "lines": len(text.splitlines()),
        "modules": sorted(sys.modules),
    }  # fmt: skip


def _bytes_read() -> int:
    found = re.search(r"^rchar: (\d+)$", Path("/proc/self/io").read_text(), re.MULTILINE)
    assert found is not None
    return int(found[1])


def _touched(path: Path) -> int:
    """Bytes of the file's mappings that were brought into this process."""
    total, ours = 0, False
    for line in Path("/proc/self/smaps").read_text().splitlines():
        if re.match(r"[0-9a-f]+-[0-9a-f]+ ", line):
            ours = line.endswith(str(path))
        elif ours and line.startswith("Rss:"):
            total += 1024 * int(line.split()[1])
    return total


_JOBS: dict[str, Callable[..., Any]] = {
    "errors": errors, "archive": archive, "streams": streams, "draw": draw, "external": external, "listing": listing,
}  # fmt: skip

if __name__ == "__main__":
    print(json.dumps(_JOBS[sys.argv[1]](*sys.argv[2:])))
