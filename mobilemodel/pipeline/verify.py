"""Is a bundle whole, and is it still the model it was made from?"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from mobilemodel import dtypes
from mobilemodel.bundle import Bundle, Tensor
from mobilemodel.errors import CheckFailedError, MalformedContentError, MissingDependencyError, UnsupportedSourceError
from mobilemodel.model import Model, SourceTensor
from mobilemodel.quantize.loss import CHUNK, measure
from mobilemodel.runtime import Difference, difference, random_inputs, run, session

SQNR_TOLERANCE_DB = 0.01
_SEED = 0


@dataclass(frozen=True)
class TensorCheck:
    """A tensor of the bundle beside the source's."""

    name: str
    identical: bool
    sqnr_db: float | None
    """measured now; None without error"""
    recorded_db: float | None
    """as the bundle records it"""


@dataclass(frozen=True)
class Verification:
    """What ``verify`` found; everything that is simply wrong was raised instead."""

    tensors: int
    checks: tuple[TensorCheck, ...] = ()
    outputs: tuple[Difference, ...] = ()
    outputs_skipped: str = ""
    """why no outputs were compared; empty where they were"""
    lossless: bool = True
    """every tensor compared is bit-identical to the source"""


def verify(
    bundle: Bundle, against: Sequence[str | os.PathLike[str]] = (), *, converter: str | None = None,
    tolerance: float | None = None,
) -> Verification:  # fmt: skip
    """Read every byte of a bundle and check it; then compare it with the model it was made from, if one is given.

    Every tensor's recorded loss must be what is measured against the source, within 0.01 dB; a tensor without one
    must be bit-identical. Then ONNX Runtime runs both on the same random inputs: where all tensors are identical the
    outputs must be too; else ``tolerance``, where given, bounds the largest difference of an output relative to its
    largest value.

    Raises the first failure: CheckFailedError, or the errors of reading.
    """
    bundle.verify()
    graph = bundle.graph()
    if graph is not None:
        check_graph(bundle, graph)
    if not against:
        return Verification(len(bundle))
    from mobilemodel_converters import find_converter

    paths = [Path(path) for path in against]
    model = find_converter(paths, converter).load(paths)
    try:
        checks = tuple(_check_tensor(tensor, bundle) for tensor in model.tensors if tensor.name in bundle)
        missing = [t.name for t in model.tensors if t.name not in bundle and not t.hoisted]
        extra = set(bundle) - {tensor.name for tensor in model.tensors}
        if missing or extra:
            raise CheckFailedError("the source has other tensors", tensor=next(iter(missing or sorted(extra))))
        lossless = all(check.identical for check in checks)
        outputs, skipped = _compare_outputs(bundle, graph, model, paths)
    finally:
        model.close()
    for found in outputs:
        if lossless and not found.identical and found.largest_absolute != 0:
            raise CheckFailedError(f"output '{found.output}' differs though every tensor is identical",
                                   found=found.largest_absolute)  # fmt: skip
        if tolerance is not None and found.largest_relative > tolerance:
            raise CheckFailedError(f"output '{found.output}' is too far from the source's", expected=f"at most {tolerance:g}",
                                   found=f"{found.largest_relative:.3g}")  # fmt: skip
    return Verification(len(bundle), checks, outputs, skipped, lossless)


def check_graph(bundle: Bundle, graph: bytes) -> None:
    """Check that graph and tensors agree: each reference has a tensor of its dims and type (spec/graph.md §3)."""
    from mobilemodel_converters.onnx import build

    for proto in build.references(graph):
        tensor = bundle.get(proto.name)
        if tensor is None:
            raise MalformedContentError("the graph refers to a tensor that the bundle lacks", file=bundle.file, tensor=proto.name)
        if tensor.shape != tuple(proto.dims) or tensor.dtype_number != proto.data_type:
            raise MalformedContentError(
                "graph and bundle disagree on a tensor", file=bundle.file, tensor=proto.name,
                expected=f"{list(proto.dims)} {dtypes.name(proto.data_type)}",
                found=f"{list(tensor.shape)} {dtypes.name(tensor.dtype_number)}",
            )  # fmt: skip


def _check_tensor(source: SourceTensor, bundle: Bundle) -> TensorCheck:
    tensor = bundle[source.name]
    if tensor.shape != source.dims or tensor.dtype_number != source.dtype:
        raise CheckFailedError("dims or type differ from the source's", tensor=source.name,
                               expected=f"{list(source.dims)} {dtypes.name(source.dtype)}",
                               found=f"{list(tensor.shape)} {dtypes.name(tensor.dtype_number)}")  # fmt: skip
    if tensor.loss is None:
        if bytes(tensor.raw()) != bytes(source.read()):
            raise CheckFailedError("the tensor is not bit-identical to the source's, but records no loss", tensor=source.name)
        return TensorCheck(source.name, True, None, None)
    return _check_loss(source, tensor)


def _check_loss(source: SourceTensor, tensor: Tensor) -> TensorCheck:
    recorded = tensor.loss
    assert recorded is not None
    kind = tensor.dtype
    decoded = np.frombuffer(tensor.raw(), kind)
    weights = np.frombuffer(source.read(), kind)
    loss = measure(weights, (decoded[i : i + CHUNK] for i in range(0, decoded.size, CHUNK)))
    measured = loss.sqnr_db
    stated = recorded.sqnr_millidb / 1000 if recorded.HasField("sqnr_millidb") else None
    if (measured is None) != (stated is None) or (
        measured is not None and stated is not None and abs(measured - stated) > SQNR_TOLERANCE_DB
    ):
        raise CheckFailedError("the recorded loss is not the one measured", tensor=source.name,
                               expected=f"{stated} dB", found=f"{measured} dB")  # fmt: skip
    return TensorCheck(source.name, loss.identical, measured, stated)


def _compare_outputs(
    bundle: Bundle, graph: bytes | None, model: Model, paths: list[Path]
) -> tuple[tuple[Difference, ...], str]:
    """Run both graphs on the same random inputs; where that cannot be done, say why."""
    if graph is None:
        return (), "the bundle has no graph"
    try:
        inputs = random_inputs(graph, _SEED)
        first = run(session(_runnable_source(model, paths)), inputs)
        second = run(session(bundle), inputs)
    except (MissingDependencyError, UnsupportedSourceError) as error:
        return (), str(error).splitlines()[0]
    return tuple(difference(name, first[name], second[name]) for name in first), ""


def _runnable_source(model: Model, paths: list[Path]) -> Path | bytes:
    """An ONNX source is run as it lies on disk; another format as the graph that its converter made."""
    from mobilemodel_converters.onnx import build

    if model.sources and model.sources[0].format == "onnx":
        return paths[0]
    values = {tensor.name: tensor.read for tensor in model.tensors}
    restored = build.restore(model.build_graph(frozenset()), lambda name: values[name]())
    return bytes(restored.SerializeToString())
