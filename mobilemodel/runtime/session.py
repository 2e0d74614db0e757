"""ONNX Runtime on a bundle or an ONNX model: sessions, runs and random inputs.

A bundle's graph names its weights as external data at the location ``mobilemodel`` (spec/graph.md); they are decoded
and handed over in memory, so no file is written and none is looked for.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
import numpy.typing as npt

from mobilemodel import dtypes
from mobilemodel.bundle import Bundle, Tensor, open_bundle
from mobilemodel.dtypes import DType
from mobilemodel.errors import (
    CheckFailedError,
    LimitExceededError,
    MalformedContentError,
    MalformedSourceError,
    MissingDependencyError,
    MobileModelError,
    NotABundleError,
    UnsupportedEncodingError,
    UnsupportedSourceError,
    UsageError,
    escape,
)
from mobilemodel.model import GRAPH_LOCATION

if TYPE_CHECKING:
    from onnx import GraphProto, ModelProto, TensorProto, ValueInfoProto
    from onnxruntime import InferenceSession

Array = npt.NDArray[Any]
ModelLike = Bundle | str | os.PathLike[str] | bytes
"""an open bundle, the path of a bundle or of an ONNX file, or the bytes of either"""
T = TypeVar("T")

LARGEST_INPUT = 2**27
"""values of one random input"""
_FATAL = 4
"""ONNX Runtime's severity from which on it may write to stderr: what fails is raised as an error instead"""


def open_model(model: ModelLike) -> Bundle | str | bytes:
    """Tell bundles from ONNX models by their first bytes: an open bundle, or else the path or the bytes.

    A bundle that was given as a path or as bytes is the caller's to close.
    """
    if isinstance(model, Bundle):
        return model
    try:
        return open_bundle(model)
    except NotABundleError:
        return model if isinstance(model, bytes) else os.fspath(model)


def session(model: ModelLike, *, threads: int = 1) -> InferenceSession:
    """Make an onnxruntime.InferenceSession on the CPU, deterministic for one machine and number of ``threads``.

    The decoded tensors of a bundle live as long as the session; the bundle itself may be closed.

    Raises MissingDependencyError without ONNX Runtime, MalformedContentError where graph and tensors disagree,
    UnsupportedSourceError where ONNX Runtime refuses the model.

        with mobilemodel.open("out.mm") as bundle:
            probabilities, = mobilemodel.session(bundle).run(None, {"data": pictures})
    """
    opened = open_model(model)
    if not isinstance(opened, Bundle):
        return _make_session(opened, threads, {})
    try:
        graph = opened.graph()
        if graph is None:
            raise UnsupportedSourceError("the bundle has no graph to run")
        values = {item.name: _external_value(opened, item) for item in _externals(parse_model(graph))}
        return _make_session(graph, threads, values)
    except MobileModelError as error:
        raise error.within(file=opened.file) from None
    finally:
        if opened is not model:
            opened.close()


def run(session: InferenceSession, inputs: Mapping[str, Array]) -> dict[str, Array]:
    """Run a session once: each output by name.

    Raises CheckFailedError with ONNX Runtime's reason where it refuses inputs or computation, UnsupportedSourceError
    for an output that is no tensor.
    """
    names = [output.name for output in session.get_outputs()]
    found = _trying(lambda: session.run(names, dict(inputs)), CheckFailedError, "ONNX Runtime could not run the model")
    for name, value in zip(names, found, strict=True):
        if not isinstance(value, np.ndarray):
            raise UnsupportedSourceError("an output is no tensor", tensor=name, found=type(value).__name__)
    return dict(zip(names, found, strict=True))


def random_inputs(model: bytes, seed: int, batch: int = 1, size: int = 1) -> dict[str, Array]:
    """Make one array for each input of a serialised ModelProto; the same seed gives the same arrays.

    An unknown first dimension becomes ``batch`` (as does its symbol elsewhere), other unknown dimensions ``size``.
    Floats are standard normal, 8-bit integers take their whole range, wider ones 0 to 7, booleans and strings are
    drawn evenly.

    Raises UnsupportedSourceError for an input that is no tensor or of a type that numpy lacks, LimitExceededError for
    one of more than 2^27 values.
    """
    graph = parse_model(model).graph
    initializers = {item.name for item in graph.initializer}
    inputs = [value for value in graph.input if value.name not in initializers]
    for value in inputs:
        if not value.type.HasField("tensor_type"):
            raise UnsupportedSourceError("an input is no tensor", tensor=value.name)
    first = [value.type.tensor_type.shape.dim[0] for value in inputs if value.type.tensor_type.shape.dim]
    batched = {dim.dim_param for dim in first if dim.dim_param}
    generator = np.random.default_rng(seed)
    return {value.name: _random_array(value, generator, batch, size, batched) for value in inputs}


def parse_model(model: bytes) -> ModelProto:
    """Parse a serialised onnx.ModelProto; raises MalformedSourceError where it is none."""
    import onnx
    from google.protobuf.message import DecodeError

    try:
        parsed = onnx.load_model_from_string(model)
    except DecodeError:
        raise MalformedSourceError("not an ONNX model: it is no protobuf message") from None
    if not parsed.HasField("graph"):
        raise MalformedSourceError("not an ONNX model: it has no graph")
    return parsed


def session_of(graph: bytes, values: Mapping[str, Array], *, threads: int = 1) -> InferenceSession:
    """Make a session of a graph whose external initializers have these ``values``, by name.

    The arrays live as long as the session. Raises as ``session`` does.
    """
    kind = onnxruntime().OrtValue
    held = {name: kind.ortvalue_from_numpy(np.ascontiguousarray(value)) for name, value in values.items()}
    return _make_session(graph, threads, held)


def _make_session(model: str | bytes, threads: int, values: Mapping[str, Any]) -> InferenceSession:
    if threads < 1:
        raise UsageError("threads", expected="at least 1", found=threads)
    if isinstance(model, bytes) and not values and any(_is_external(item) for item in _tensors(parse_model(model))):
        raise UnsupportedSourceError(
            "the model's weights lie in other files", advice="Give the path of the model, not its bytes."
        )
    ort = onnxruntime()
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.execution_mode = ort.ExecutionMode.ORT_SEQUENTIAL
    options.use_deterministic_compute = True
    options.log_severity_level = _FATAL
    if values:
        options.add_external_initializers(list(values), list(values.values()))
    make = lambda: ort.InferenceSession(model, options, providers=["CPUExecutionProvider"])  # noqa: E731
    made: InferenceSession = _trying(make, UnsupportedSourceError, "ONNX Runtime refuses the model")
    # ONNX Runtime does not own the memory behind these values.
    made._mobilemodel_values = values
    return made


def onnxruntime() -> Any:
    """The module onnxruntime, its telemetry off unless the user's ORT_DISABLE_TELEMETRY says otherwise.

    Raises MissingDependencyError with what to install.
    """
    # Read once, when it is imported: official builds (1.31 does) report to their maker and mark the machine.
    os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
    try:
        import onnxruntime
    except ImportError:
        raise MissingDependencyError(
            "ONNX Runtime is not installed", advice='Install it with: pip install "mobilemodel[runtime]"'
        ) from None
    return onnxruntime


def _trying(work: Callable[[], T], kind: type[MobileModelError], message: str) -> T:
    """ONNX Runtime's errors share no base class but Exception."""
    try:
        return work()
    except Exception as error:
        first_line = (str(error).splitlines() or [type(error).__name__])[0]
        raise kind(f"{message}: {escape(first_line)}") from None


def external_files(model: ModelProto) -> set[str]:
    """The locations, as the model writes them, of the files that hold its external tensors."""
    entries = (entry for item in _tensors(model) if _is_external(item) for entry in item.external_data)
    return {entry.value for entry in entries if entry.key == "location"}


def _is_external(item: TensorProto) -> bool:
    return bool(item.data_location == item.EXTERNAL)


def _tensors(model: ModelProto) -> Iterator[TensorProto]:
    """Every tensor of a model: initializers and attributes, also of subgraphs and functions."""
    waiting: list[GraphProto] = [model.graph]
    nodes = [node for function in model.functions for node in function.node]
    while waiting or nodes:
        if waiting:
            graph = waiting.pop()
            yield from graph.initializer
            for sparse in graph.sparse_initializer:
                yield from (sparse.values, sparse.indices)
            nodes.extend(graph.node)
        while nodes:
            for attribute in nodes.pop().attribute:
                yield from (attribute.t, *attribute.tensors)
                for sparse in (attribute.sparse_tensor, *attribute.sparse_tensors):
                    yield from (sparse.values, sparse.indices)
                waiting.extend((attribute.g, *attribute.graphs))


def _externals(model: ModelProto) -> list[TensorProto]:
    """The initializers of a bundle's graph whose values are tensors of the bundle.

    Nothing else may be external: ONNX Runtime would look for a file (spec/graph.md).
    """
    found = [item for item in model.graph.initializer if _is_external(item)]
    if sum(map(_is_external, _tensors(model))) != len(found):
        raise MalformedContentError("the graph holds an external tensor that is no initializer of the main graph")
    for item in found:
        location = {entry.key: entry.value for entry in item.external_data}.get("location", "")
        if location != GRAPH_LOCATION:
            raise MalformedContentError(
                "the graph refers to a file outside of the bundle", tensor=item.name, expected=GRAPH_LOCATION,
                found=location,
            )  # fmt: skip
    return found


def _external_value(bundle: Bundle, item: TensorProto) -> Any:
    """Decode the tensor that an external initializer names to an OrtValue."""
    if item.name not in bundle:
        raise MalformedContentError("the graph names a tensor that the bundle lacks", tensor=item.name)
    tensor = bundle[item.name]
    if (tensor.dtype_number, tensor.shape) != (item.data_type, tuple(item.dims)):
        raise MalformedContentError(
            "graph and bundle disagree about a tensor", tensor=item.name,
            expected=f"{dtypes.name(item.data_type)} {list(item.dims)}",
            found=f"{dtypes.name(tensor.dtype_number)} {list(tensor.shape)}",
        )  # fmt: skip
    return _ort_value(tensor)


def _ort_value(tensor: Tensor) -> Any:
    kind = onnxruntime().OrtValue
    if dtypes.bits(tensor.dtype_number) < 8:
        raise UnsupportedEncodingError("a tensor of less than 8 bits cannot be external", tensor=tensor.name)
    values = np.ascontiguousarray(tensor.numpy()).reshape(tensor.shape)
    if dtypes.is_native(tensor.dtype_number):
        return kind.ortvalue_from_numpy(values)
    # numpy lacks the type: its bits travel as unsigned integers.
    plain = values.view(np.uint16 if values.dtype.itemsize == 2 else np.uint8)
    return kind.ortvalue_from_numpy_with_onnx_type(plain, tensor.dtype_number)


def _random_array(
    value: ValueInfoProto, generator: np.random.Generator, batch: int, size: int, batched: set[str]
) -> Array:
    kind = value.type.tensor_type
    shape = tuple(
        dim.dim_value if dim.HasField("dim_value") else batch if axis == 0 or dim.dim_param in batched else size
        for axis, dim in enumerate(kind.shape.dim)
    )
    if any(dim < 0 for dim in shape):
        raise MalformedSourceError("an input has a negative dimension", tensor=value.name, found=list(shape))
    elements = 1
    for dim in shape:
        elements *= dim
    if elements > LARGEST_INPUT:
        raise LimitExceededError(
            "values of an input", tensor=value.name, expected=f"at most {LARGEST_INPUT}", found=elements
        )
    if kind.elem_type == _STRING:
        return np.array([f"text {number}" for number in generator.integers(8, size=elements)], object).reshape(shape)
    plain = (DType.FLOAT, DType.FLOAT16, DType.DOUBLE, DType.BOOL, *_INTEGERS)
    if kind.elem_type not in plain:
        raise UnsupportedSourceError("no random values for an input's type", tensor=value.name,
                                     found=dtypes.name(kind.elem_type))  # fmt: skip
    dtype = dtypes.numpy_dtype(kind.elem_type)
    if dtype.kind == "f":
        return generator.standard_normal(shape).astype(dtype)
    if dtype.kind == "b":
        return generator.integers(2, size=shape).astype(dtype)
    limits = np.iinfo(dtype) if dtype.itemsize == 1 else None
    low, high = (limits.min, limits.max) if limits is not None else (0, 7)
    return np.asarray(generator.integers(low, high, size=shape, dtype=dtype, endpoint=True))


_STRING = 8
"""onnx.TensorProto.STRING"""
_INTEGERS = (DType.UINT8, DType.INT8, DType.UINT16, DType.INT16, DType.INT32, DType.INT64, DType.UINT32, DType.UINT64)
