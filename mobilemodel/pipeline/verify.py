"""Is a bundle whole, and is it still the model it was made from?"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from mobilemodel import dtypes
from mobilemodel.bundle import Bundle, Tensor, open_bundle
from mobilemodel.errors import (
    CheckFailedError,
    LimitExceededError,
    MalformedContentError,
    MissingDependencyError,
    MobileModelError,
    UnsupportedSourceError,
    UsageError,
)
from mobilemodel.model import NO_OPTIONS, Model, SourceOptions, SourceTensor
from mobilemodel.pipeline.options import Progress, silent
from mobilemodel.quantize.loss import measure
from mobilemodel.quantize.pieces import pieces
from mobilemodel.runtime import Difference, difference, random_inputs, run, session

SQNR_TOLERANCE_DB = 0.01
_SEED = 0
_UNKNOWN_SIZES = (1, 32, 224)
Arrays = dict[str, npt.NDArray[Any]]


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
    made: tuple[str, ...] = ()
    """the checks that were made, one line each"""
    checks: tuple[TensorCheck, ...] = ()
    outputs: tuple[Difference, ...] = ()
    outputs_skipped: str = ""
    """why no outputs were compared; empty where they were, or where there is no source"""
    lossless: bool | None = None
    """every tensor is bit-identical to the source's; None without a source"""


def verify(
    bundle: Bundle | str | os.PathLike[str],
    against: Sequence[str | os.PathLike[str]] = (),
    *,
    converter: str | None = None,
    options: SourceOptions = NO_OPTIONS,
    tolerance: float | None = None,
    progress: Progress = silent,
) -> Verification:
    """Read every byte of a bundle, open or by its path, and check it; then compare it with the model it was made from,
    if one is given.

    The graph must be the source's, values inside it included. Every tensor's recorded loss must be what is measured
    against the source, within 0.01 dB; a tensor without one must be bit-identical. Then ONNX Runtime runs both on the
    same random inputs: where all tensors are identical the outputs must be too; else ``tolerance``, where given, bounds
    the largest difference of an output relative to its largest value.

    Raises the first failure: CheckFailedError, or the errors of reading; UsageError for a tolerance without a source.
    """
    if not isinstance(bundle, Bundle):
        with open_bundle(bundle) as opened:
            return verify(opened, against, converter=converter, options=options, tolerance=tolerance,
                          progress=progress)  # fmt: skip
    if tolerance is not None and not against:
        raise UsageError("a tolerance needs a source to compare with", advice="Add --against SRC.")
    progress("reading", 0, 0)
    bundle.verify()
    made = [
        f"frames and CRC-32 of {len(bundle.manifest.payloads)} payloads",
        f"{len(bundle)} tensors decode and keep the writer's rules",
    ]
    graph = bundle.graph()
    if graph is not None:
        references = check_graph(bundle, graph)
        made.append(f"graph: names, order, no cycles; {references} references to tensors, with their dims and types")
    if not against:
        return Verification(len(bundle), tuple(made))
    from mobilemodel_converters import load_model

    paths = [Path(path) for path in against]
    model = load_model(paths, converter, options)
    try:
        checks = _check_tensors(bundle, model, progress)
        if graph is not None:
            _check_same_graph(bundle, graph, model)
            made.append("the graph against the source's, with the values inside it")
        lossless = all(check.identical for check in checks)
        progress("running", 0, 0)
        outputs, skipped = _compare_outputs(bundle, graph, model, paths)
    finally:
        model.close()
    made.append(f"{len(checks)} tensors against the source, with the losses that the bundle records")
    if outputs:
        made.append(f"{len(outputs)} outputs of ONNX Runtime on the same random inputs")
    _judge(outputs, skipped, lossless, tolerance)
    return Verification(len(bundle), tuple(made), checks, outputs, skipped, lossless)


def _judge(outputs: tuple[Difference, ...], skipped: str, lossless: bool, tolerance: float | None) -> None:
    if tolerance is not None and skipped:
        raise CheckFailedError("outputs could not be compared with the tolerance", found=skipped)
    for found in outputs:
        if lossless and found.largest_absolute != 0:
            raise CheckFailedError("an output differs though every tensor is identical", tensor=found.output,
                                   found=found.largest_absolute)  # fmt: skip
        if tolerance is not None and found.largest_relative > tolerance:
            raise CheckFailedError(
                "an output is too far from the source's", tensor=found.output, expected=f"at most {tolerance:g}",
                found=f"{found.largest_relative:.3g}",
            )  # fmt: skip


def _check_same_graph(bundle: Bundle, graph: bytes, model: Model) -> None:
    """The bundle's graph is the one that the converter makes of the source today, moved constants included."""
    from mobilemodel_converters.onnx import build

    hoisted = frozenset(tensor.name for tensor in model.tensors if tensor.hoisted and tensor.name in bundle)
    expected = model.build_graph(hoisted)
    # Bytes first: a NaN among the attributes is not equal to itself.
    if expected != graph and build.parse_graph(expected) != build.parse_graph(graph):
        raise CheckFailedError(
            "the source's graph is another one", file=bundle.file,
            advice="Its nodes, or values that stay inside it, differ from those of the bundle.",
        )  # fmt: skip


def check_graph(bundle: Bundle, graph: bytes) -> int:
    """Check that the graph is sound and that its references have tensors of their dims and types (spec/graph.md §3).

    Returns the number of references. Raises MalformedError naming node or tensor.
    """
    from mobilemodel_converters.onnx import build

    try:
        references = build.references(graph)
    except MobileModelError as error:
        raise error.within(file=bundle.file) from None
    for proto in references:
        tensor = bundle.get(proto.name)
        if tensor is None:
            raise MalformedContentError(
                "the graph refers to a tensor that the bundle lacks", file=bundle.file, tensor=proto.name
            )
        if tensor.shape != tuple(proto.dims) or tensor.dtype_number != proto.data_type:
            raise MalformedContentError(
                "graph and bundle disagree on a tensor", file=bundle.file, tensor=proto.name,
                expected=f"{list(proto.dims)} {dtypes.name(proto.data_type)}",
                found=f"{list(tensor.shape)} {dtypes.name(tensor.dtype_number)}",
            )  # fmt: skip
    return len(references)


def _check_tensors(bundle: Bundle, model: Model, progress: Progress) -> tuple[TensorCheck, ...]:
    """Compare each tensor with the source's, in the bundle's order; neither may have one that the other lacks."""
    sources = {tensor.name: tensor for tensor in model.tensors}
    missing = [t.name for t in model.tensors if t.name not in bundle and not t.hoisted]
    extra = [name for name in bundle if name not in sources]
    if missing:
        raise CheckFailedError("the source has a tensor that the bundle lacks", file=bundle.file, tensor=missing[0])
    if extra:
        raise CheckFailedError("the source lacks a tensor of the bundle", file=bundle.file, tensor=extra[0])
    total = sum(tensor.decoded_bytes for tensor in bundle.values())
    done = 0
    checks = []
    for name, tensor in bundle.items():
        progress(f"comparing {name}", done, total)
        try:
            checks.append(_check_tensor(sources[name], tensor))
        except MobileModelError as error:
            raise error.within(file=bundle.file, tensor=name) from None
        done += tensor.decoded_bytes
    return tuple(checks)


def _check_tensor(source: SourceTensor, tensor: Tensor) -> TensorCheck:
    if tensor.shape != source.dims or tensor.dtype_number != source.dtype:
        raise CheckFailedError("dims or type differ from the source's",
                               expected=f"{list(source.dims)} {dtypes.name(source.dtype)}",
                               found=f"{list(tensor.shape)} {dtypes.name(tensor.dtype_number)}")  # fmt: skip
    if tensor.loss is None:
        if not np.array_equal(np.frombuffer(tensor.raw(), np.uint8), np.frombuffer(source.read(), np.uint8)):
            raise CheckFailedError("the tensor is not bit-identical to the source's, but records no loss")
        return TensorCheck(source.name, True, None, None)
    return _check_loss(source, tensor)


def _check_loss(source: SourceTensor, tensor: Tensor) -> TensorCheck:
    recorded = tensor.loss
    assert recorded is not None
    if tensor.dtype_number not in dtypes.QUANTIZABLE:
        raise CheckFailedError("the tensor records a loss though its type is never quantized",
                               expected="float32 or float16", found=dtypes.name(tensor.dtype_number))  # fmt: skip
    weights = dtypes.from_raw(source.read(), source.dtype, source.dims)
    loss = measure(weights, pieces(tensor.numpy()))
    measured = loss.sqnr_db
    stated = recorded.sqnr_millidb / 1000 if recorded.HasField("sqnr_millidb") else None
    if (measured is None) != (stated is None) or (
        measured is not None and stated is not None and abs(measured - stated) > SQNR_TOLERANCE_DB
    ):
        raise CheckFailedError("the recorded loss is not the one measured",
                               expected=_decibels(stated), found=_decibels(measured))  # fmt: skip
    return TensorCheck(source.name, loss.identical, measured, stated)


def _decibels(value: float | None) -> str:
    return "no ratio" if value is None else f"{value:.3f} dB"


def _compare_outputs(
    bundle: Bundle, graph: bytes | None, model: Model, paths: list[Path]
) -> tuple[tuple[Difference, ...], str]:
    """Run both graphs on the same random inputs; where the source cannot be run, say why."""
    if graph is None:
        return (), "the bundle has no graph"
    try:
        inputs, first = _run_source(graph, model, paths)
    except (MissingDependencyError, UnsupportedSourceError, LimitExceededError, CheckFailedError) as error:
        return (), f"the source: {str(error).splitlines()[0]}"
    second = run(session(bundle), inputs)
    if set(first) != set(second):
        raise CheckFailedError("outputs of bundle and source", expected=", ".join(first), found=", ".join(second))
    found = tuple(difference(name, first[name], second[name]) for name in first)
    if not all(item.identical for item in found):
        # In a new session: within one, random operators go on where they were.
        again = run(session(_runnable_source(model, paths)), inputs)
        if not all(difference(name, first[name], again[name]).identical for name in first):
            return (), "the source gives other outputs each time it is run"
    return found, ""


def _run_source(graph: bytes, model: Model, paths: list[Path]) -> tuple[Arrays, Arrays]:
    """Random inputs that the source can be run on, and its outputs; unknown sizes grow until they fit its windows."""
    running = session(_runnable_source(model, paths))
    for size in _UNKNOWN_SIZES:
        inputs = random_inputs(graph, _SEED, size=size)
        try:
            return inputs, run(running, inputs)
        except CheckFailedError:
            if size == _UNKNOWN_SIZES[-1]:
                raise
    raise AssertionError


def _runnable_source(model: Model, paths: list[Path]) -> Path | bytes:
    """An ONNX file alone is run as it lies on disk; anything else as the graph that its converter made."""
    from mobilemodel_converters.onnx import build

    if len(paths) == 1 and model.sources and model.sources[0].format == "onnx":
        return paths[0]
    values = {tensor.name: tensor.read for tensor in model.tensors}
    restored = build.restore(model.build_graph(frozenset()), lambda name: values[name]())
    return bytes(restored.SerializeToString())
