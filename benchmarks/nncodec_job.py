"""NNCodec (ISO/IEC 15938-17) as a job, run by the interpreter that has it; the last line printed is JSON.

nncodec_job.py JOB.json

JOB holds ``weights`` (.npz), ``out`` (folder for the decoded weights), ``points`` (a list of NNCodec's own options, one
for each point of the curve), ``layers`` (``onnx_weights.layers``) and, for its data-driven options, ``data`` (a folder
of train.npz and val.npz: x float32 as the network takes it, y classes), ``epochs`` and ``learning_rate``.
Of each point: bitstream bytes, CPU seconds to encode and decode, and the file of decoded weights.
"""

from __future__ import annotations

import contextlib
import json
import os
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from nncodec import nn, nnc
from nncodec.framework.applications.utils import evaluation, train
from nncodec.framework.use_case_init import ModelSetting, use_cases

if TYPE_CHECKING:  # to a type checker this folder is a package; a script finds the files beside it
    from benchmarks.nncodec_network import Network
else:
    from nncodec_network import Network

Weights = dict[str, Any]
NETWORK_OPTIONS = ("ioq", "lsa", "bnf")
"""inference-optimised quantization and local scaling adaptation, which take data, and BatchNorm folding"""


def from_arrays(weights: Weights, options: dict[str, Any]) -> tuple[bytearray, Weights]:
    """NNCodec as it is: a dictionary of arrays, its defaults but for ``options``."""
    bitstream = nn.encode(dict(weights), {"verbose": False, **options})
    return bitstream, nn.decode(bitstream)


def from_network(job: dict[str, Any], weights: Weights, options: dict[str, Any]) -> tuple[bytearray, Weights]:
    """With the network as a PyTorch module, and data where ``ioq`` or ``lsa`` is on.

    ``nncodec.nn.encode`` does not hand all of these options on; its defaults are repeated here.
    """
    network = Network(job["layers"], weights)
    chosen = {name: bool(options.get(name)) for name in NETWORK_OPTIONS}
    bitstream = nnc.compress_model(
        network,
        bitstream_path=None,
        return_bitstream=True,
        verbose=False,
        row_skipping=True,
        block_id_and_param_type=network.blocks(scaled=chosen["lsa"]),
        use_case="benchmark",
        dataset_path=job["data"] if chosen["ioq"] or chosen["lsa"] else None,
        learning_rate=job.get("learning_rate", 1e-3),
        epochs=job.get("epochs", 1),
        batch_size=64,
        num_workers=0,
        **{"nonweight_qp": -75, **options},
    )
    decoded = nnc.decompress(bitstream, reconstruct_lsa=True)
    return bitstream, {network.names[name]: value for name, value in network.unfolded(decoded).items()}


def dataset(root: str, split: str) -> Any:
    """What NNCodec trains and validates with; its "test" pictures, which it only prints figures of, are the latter."""
    with np.load(Path(root, "train.npz" if split == "train" else "val.npz")) as data:
        return torch.utils.data.TensorDataset(torch.tensor(data["x"]), torch.tensor(data["y"].astype(np.int64)))


def run(job: dict[str, Any]) -> list[dict[str, Any]]:
    torch.set_num_threads(1)
    # NNCodec takes all three parts of torch's version for integers.
    torch.__version__ = torch.__version__.partition("+")[0]
    use_cases["benchmark"] = ModelSetting(
        None, evaluation.evaluate_classification_model, train.train_classification_model, dataset,
        torch.nn.CrossEntropyLoss(),
    )  # fmt: skip
    out = Path(job["out"])
    os.chdir(out)  # it writes each bitstream into the current folder
    with np.load(job["weights"]) as archive:
        weights = {name: archive[name] for name in archive.files}
    points = []
    for number, options in enumerate(job["points"]):
        started = time.process_time()
        if any(options.get(name) for name in NETWORK_OPTIONS):
            bitstream, decoded = from_network(job, weights, options)
        else:
            bitstream, decoded = from_arrays(weights, options)
        seconds = time.process_time() - started
        if set(decoded) != set(weights):
            raise ValueError(f"decoded other tensors than encoded: {sorted(set(decoded) ^ set(weights))}")
        path = out / f"decoded-{number}.npz"
        shaped: Weights = {name: np.reshape(value, weights[name].shape) for name, value in decoded.items()}
        np.savez(path, **shaped)
        points.append({"options": options, "bytes": len(bitstream), "cpu_seconds": seconds, "weights": str(path)})
    return points


if __name__ == "__main__":
    with contextlib.redirect_stdout(sys.stderr):
        found = run(json.loads(Path(sys.argv[1]).read_text()))
    print(json.dumps(found))
