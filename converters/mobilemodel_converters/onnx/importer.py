"""ONNX file -> Model: which tensors leave the graph, as what, and which stay inside and why."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

from mobilemodel import dtypes, graphs
from mobilemodel.dtypes import DType
from mobilemodel.errors import (
    LimitExceededError,
    MalformedSourceError,
    MobileModelError,
    UnsupportedSourceError,
    escape,
)
from mobilemodel.layout import elements_of
from mobilemodel.limits import FORMAT_LIMITS
from mobilemodel.model import InlineTensor, Model, Role, SourceFile, SourceTensor
from mobilemodel.v1 import bundle_pb2 as pb
from mobilemodel_converters.onnx import build, roles, structure, tensors, uses
from mobilemodel_converters.onnx.file import ModelFile, open_model
from mobilemodel_converters.sources import file_sha256, plain_name

if TYPE_CHECKING:
    import onnx

EXTERNAL_DTYPES = frozenset((
    DType.FLOAT, DType.UINT8, DType.INT8, DType.FLOAT16, DType.DOUBLE, DType.BFLOAT16, DType.FLOAT8E4M3FN,
    DType.FLOAT8E4M3FNUZ, DType.FLOAT8E5M2, DType.FLOAT8E5M2FNUZ,
))  # fmt: skip
"""what ONNX Runtime takes from outside of a graph (spec/graph.md §2)"""
_WORTH_NAMING = 1024
"""bytes from which a constant inside the graph is named in the report"""


@dataclass(frozen=True)
class Candidate:
    """A tensor somewhere in the model that may leave its graph."""

    proto: onnx.TensorProto
    name: str
    hoisted: bool
    obstacle: str = ""
    """why it can't leave, whatever its uses"""


@dataclass
class OnnxSource:
    """The open files of one model and its graph without large values."""

    file: ModelFile
    external: tensors.ExternalFiles

    def read(self, proto: onnx.TensorProto) -> bytes:
        """A tensor's value, checked when the model was loaded."""
        return tensors.read_value(proto, self.file, self.external)

    def close(self) -> None:
        """Close all files."""
        self.file.close()
        self.external.close()


def load_model(path: Path) -> Model:
    """Read an ONNX model (see ``OnnxConverter.load``)."""
    source = OnnxSource(open_model(path), tensors.ExternalFiles(path.parent))
    try:
        return _load(source)
    except BaseException:
        source.close()
        raise


def _load(source: OnnxSource) -> Model:
    model = source.file.model
    structure.check_model(model)
    for proto in structure.all_tensors(model):
        try:
            tensors.check_value(proto, source.file, source.external)
        except MobileModelError as error:
            raise error.within(tensor=proto.name) from None
    stripped = build.strip_private(model)
    found, inline = _split(source, model)
    # Before any file is read to its end: what cannot become a graph is refused.
    inside = sum(item.raw_bytes for item in inline)
    if inside > FORMAT_LIMITS.graph:
        most = f"at most {FORMAT_LIMITS.graph} bytes"
        raise LimitExceededError("values that stay in the graph", expected=most, found=inside)
    return Model(
        build_graph=partial(build.build_graph, source, frozenset(t.name for t in found if not t.hoisted)),
        tensors=tuple(found),
        inline=tuple(inline),
        inputs=tuple(value_info(v) for v in _free_inputs(model.graph)),
        outputs=tuple(value_info(v) for v in model.graph.output),
        sources=_sources(source),
        notes=_notes(model, stripped),
        close=source.close,
    )


def _candidates(model: onnx.ModelProto) -> Iterator[Candidate]:
    counts = structure.definitions(model.graph)
    hoist_obstacle = "" if model.ir_version >= 4 else "ir_version below 4 makes every initializer an input"
    for graph in graphs.all_graphs(model.graph):
        main = graph is model.graph
        for proto in graph.initializer:
            obstacle = "" if counts[proto.name] == 1 else "its name is defined more than once"
            if not main and any(value.name == proto.name for value in graph.input):
                obstacle = "it is the default of a subgraph's input"
            yield Candidate(proto, proto.name, not main, obstacle or ("" if main else hoist_obstacle))
        for node in graph.node:
            value = graphs.constant_value(node)
            if value is not None:
                name = node.output[0]
                obstacle = hoist_obstacle if counts[name] == 1 else "its name is defined more than once"
                yield Candidate(value, name, True, obstacle)


def _constants(model: onnx.ModelProto) -> dict[str, onnx.TensorProto]:
    """The tensors of the model whose names are defined once."""
    counts = structure.definitions(model.graph)
    found: dict[str, onnx.TensorProto] = {}
    for graph in graphs.all_graphs(model.graph):
        found.update((proto.name, proto) for proto in graph.initializer)
        for node in graph.node:
            value = graphs.constant_value(node)
            if value is not None:
                found[node.output[0]] = value
    return {name: proto for name, proto in found.items() if counts[name] == 1}


def _split(source: OnnxSource, model: onnx.ModelProto) -> tuple[list[SourceTensor], list[InlineTensor]]:
    index = uses.index_uses(model)
    network = roles.Network(index, roles.producers(model.graph), _constants(model))
    found: list[tuple[int, SourceTensor]] = []
    inline: list[InlineTensor] = []
    for candidate in _candidates(model):
        proto, dims = candidate.proto, tuple(candidate.proto.dims)
        reached = uses.final_uses(index, candidate.name)
        weight = roles.classify(reached or [], dims, network)
        reason = candidate.obstacle or _format_obstacle(candidate.name, proto) or uses.may_leave(reached)
        size = tensors.raw_bytes(proto) or sum(map(len, proto.string_data))
        if candidate.hoisted and reason is None and weight.role is Role.OTHER:
            reason = "a constant that is no weight"
        if reason is None:
            tensor = SourceTensor(
                candidate.name, proto.data_type, dims, partial(source.read, proto), weight.role, weight.operator,
                weight.order, hoisted=candidate.hoisted,
            )  # fmt: skip
            found.append((weight.place, tensor))
        elif not candidate.hoisted or weight.role is not Role.OTHER or size >= _WORTH_NAMING:
            inline.append(
                InlineTensor(candidate.name, proto.data_type, dims, size, reason, weight.role, weight.operator)
            )
    inline += _other_inline(model)
    return ranked(found), inline


def _format_obstacle(name: str, proto: onnx.TensorProto) -> str | None:
    if proto.data_type not in EXTERNAL_DTYPES:
        kind = dtypes.name(proto.data_type) if proto.data_type != tensors.STRING else "string"
        return f"{kind} values stay in the graph"
    if not 1 <= len(name.encode()) <= FORMAT_LIMITS.name or "\0" in name:
        return "its name does not fit the format"
    if len(proto.dims) > FORMAT_LIMITS.rank or elements_of([d for d in proto.dims if d]) > FORMAT_LIMITS.elements:
        return "its dims do not fit the format"
    return None


def _other_inline(model: onnx.ModelProto) -> Iterator[InlineTensor]:
    for graph in graphs.all_graphs(model.graph):
        for sparse in graph.sparse_initializer:
            size = tensors.raw_bytes(sparse.values) + tensors.raw_bytes(sparse.indices)
            dims = tuple(sparse.dims)
            reason = "a sparse initializer stays as it is"
            yield InlineTensor(sparse.values.name, sparse.values.data_type, dims, size, reason)
    for node in graphs.all_nodes(model.graph):
        yield from _plain_constants(node)
    for function in model.functions:
        for node in function.node:
            value = graphs.constant_value(node)
            if value is not None and tensors.raw_bytes(value) >= _WORTH_NAMING:
                name = f"{function.name}/{node.output[0]}"
                size = tensors.raw_bytes(value)
                yield InlineTensor(name, value.data_type, tuple(value.dims), size, "a constant within a model function")


def _plain_constants(node: onnx.NodeProto) -> Iterator[InlineTensor]:
    """Constants given as lists or as sparse tensors: they have no TensorProto that could move."""
    if node.op_type != "Constant" or graphs.domain(node.domain) or not node.output:
        return
    for attribute in node.attribute:
        count = len(attribute.floats) + len(attribute.ints)
        size = 4 * len(attribute.floats) + 8 * len(attribute.ints)
        dtype = int(dtypes.DType.FLOAT if attribute.floats else dtypes.DType.INT64)
        if attribute.HasField("sparse_tensor"):
            sparse = attribute.sparse_tensor
            size = tensors.raw_bytes(sparse.values) + tensors.raw_bytes(sparse.indices)
            count, dtype = elements_of(sparse.dims), sparse.values.data_type
        if size >= _WORTH_NAMING:
            yield InlineTensor(node.output[0], dtype, (count,), size, "a constant that is no plain tensor")


def _notes(model: onnx.ModelProto, stripped: int) -> tuple[str, ...]:
    """What the user should know about privacy: what was left out, and what was kept as its author's words."""
    notes = [f"doc strings and node metadata were left out ({stripped} of them)"] if stripped else []
    kept = [entry.key for entry in model.metadata_props] + (["doc_string"] if model.doc_string else [])
    if kept:
        notes.append(f"the model's own metadata stay in the graph; see that nothing private is in: {', '.join(kept)}")
    return tuple(notes)


def ranked(found: list[tuple[int, SourceTensor]]) -> list[SourceTensor]:
    """Number the weights of each role in the order of the graph."""
    ranks: Counter[Role] = Counter()
    out = []
    for _, tensor in sorted(found, key=lambda item: item[0]):
        out.append(replace(tensor, rank_in_role=ranks[tensor.role]))
        ranks[tensor.role] += 1
    return out


def _free_inputs(graph: onnx.GraphProto) -> Iterator[onnx.ValueInfoProto]:
    initialized = {tensor.name for tensor in graph.initializer}
    initialized |= {sparse.values.name for sparse in graph.sparse_initializer}
    for value in graph.input:
        if value.name not in initialized:
            yield value


def value_info(value: onnx.ValueInfoProto) -> pb.ValueInfo:
    """An input or output of a graph as the manifest lists it.

    Raises UnsupportedSourceError for a name, MalformedSourceError for an element type, that the format cannot hold.
    """
    if not 1 <= len(value.name.encode()) <= FORMAT_LIMITS.name:
        raise UnsupportedSourceError("the name of an input or output does not fit the format", found=escape(value.name))
    out = pb.ValueInfo(name=value.name)
    if value.type.WhichOneof("value") != "tensor_type":
        return out
    if value.type.tensor_type.elem_type < 0:
        raise MalformedSourceError("the element type of an input or output", found=value.type.tensor_type.elem_type)
    out.dtype = value.type.tensor_type.elem_type
    if value.type.tensor_type.HasField("shape"):
        out.shape.SetInParent()
        for dim in value.type.tensor_type.shape.dim:
            entry = out.shape.dimensions.add()
            if dim.WhichOneof("value") == "dim_value" and dim.dim_value >= 0:
                entry.size = dim.dim_value
            elif dim.WhichOneof("value") == "dim_param" and len(dim.dim_param.encode()) <= FORMAT_LIMITS.string:
                entry.symbol = dim.dim_param
    return out


def _sources(source: OnnxSource) -> tuple[SourceFile, ...]:
    path = source.file.path
    files = [SourceFile("onnx", plain_name(path.name), file_sha256(source.file.descriptor), path)]
    for location, descriptor in sorted(source.external.descriptors.items()):
        name = plain_name(PurePosixPath(location).name)
        files.append(SourceFile("onnx external data", name, file_sha256(descriptor), path.parent / location))
    return tuple(files)
