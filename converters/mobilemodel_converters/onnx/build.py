"""Writing graphs: a bundle's graph with its weights outside, and a plain ONNX model with them back inside."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING

from mobilemodel import dtypes, graphs
from mobilemodel.errors import LimitExceededError, MalformedContentError, escape
from mobilemodel.layout import elements_of
from mobilemodel.limits import FORMAT_LIMITS
from mobilemodel.model import GRAPH_LOCATION
from mobilemodel_converters.onnx import structure
from mobilemodel_converters.onnx.tensors import EXTERNAL, raw_bytes

if TYPE_CHECKING:
    import onnx

    from mobilemodel_converters.onnx.importer import OnnxSource

    _Documented = onnx.NodeProto | onnx.TensorProto | onnx.ValueInfoProto | onnx.GraphProto | onnx.FunctionProto


def external_reference(name: str, dtype: int, dims: Iterable[int]) -> onnx.TensorProto:
    """An initializer whose value is the bundle's tensor of the same name (spec/graph.md §3)."""
    import onnx

    proto = onnx.TensorProto(name=name, data_type=dtype, dims=list(dims))
    proto.data_location = onnx.TensorProto.EXTERNAL
    length = dtypes.raw_size(dtype, elements_of(proto.dims))
    for key, value in (("location", GRAPH_LOCATION), ("offset", "0"), ("length", str(length))):
        proto.external_data.add(key=key, value=value)
    return proto


def strip_private(model: onnx.ModelProto) -> int:
    """Take doc strings and metadata off nodes, values and tensors: exporters put folders and stack traces there.

    The model's own doc string and metadata stay. Returns how many were taken.
    """
    graphs, nodes = structure.all_parts(model)
    items: list[_Documented] = [*graphs, *nodes, *model.functions, *structure.all_tensors(model)]
    for graph in graphs:
        items += (*graph.input, *graph.output, *graph.value_info)
    for function in model.functions:
        items += function.value_info
    count = sum(map(_strip, items))
    for node in nodes:
        for attribute in node.attribute:
            count += bool(attribute.doc_string)
            attribute.ClearField("doc_string")
    return count


def _strip(item: _Documented) -> int:
    had = bool(item.doc_string or item.metadata_props)
    item.ClearField("doc_string")
    item.ClearField("metadata_props")
    return int(had)


def build_graph(source: OnnxSource, external: frozenset[str], hoisted: frozenset[str]) -> bytes:
    """Serialise the model: initializers in ``external`` refer to the bundle, constants in ``hoisted`` have become
    such initializers, and every other value is inside.

    Raises LimitExceededError when what stays inside is larger than a graph may be.
    """
    import onnx

    model = onnx.ModelProto()
    model.CopyFrom(source.file.model)
    _empty(model.graph, external)
    _take_out(model, hoisted)
    # Before there are references: a source may call a file of its own as we call the bundle.
    _embed_all(model, source)
    outside = external | hoisted
    for proto in model.graph.initializer:
        if proto.name in outside:
            proto.CopyFrom(external_reference(proto.name, proto.data_type, proto.dims))
    return _serialise(model)


def _empty(graph: onnx.GraphProto, names: frozenset[str]) -> None:
    for proto in graph.initializer:
        if proto.name in names:
            proto.CopyFrom(_without_value(proto.name, proto))


def _without_value(name: str, proto: onnx.TensorProto) -> onnx.TensorProto:
    import onnx

    return onnx.TensorProto(name=name, data_type=proto.data_type, dims=proto.dims)


def _take_out(model: onnx.ModelProto, names: frozenset[str]) -> None:
    """Move initializers of subgraphs and Constant nodes to the main graph's initializers, without their values."""
    if not names:
        return
    taken: dict[str, onnx.TensorProto] = {}
    for graph in graphs.all_graphs(model.graph):
        if graph is not model.graph:
            for index in reversed(range(len(graph.initializer))):
                proto = graph.initializer[index]
                if proto.name in names:
                    taken[proto.name] = _without_value(proto.name, proto)
                    del graph.initializer[index]
        for index in reversed(range(len(graph.node))):
            node = graph.node[index]
            value = graphs.constant_value(node)
            if value is not None and node.output[0] in names:
                taken[node.output[0]] = _without_value(node.output[0], value)
                del graph.node[index]
    model.graph.initializer.extend(taken[name] for name in sorted(taken))


def _embed_all(model: onnx.ModelProto, source: OnnxSource) -> None:
    inside = 0
    for proto in structure.all_tensors(model):
        if proto.data_location == EXTERNAL:
            inside += raw_bytes(proto)
            if inside > FORMAT_LIMITS.graph:
                most = f"at most {FORMAT_LIMITS.graph} bytes"
                raise LimitExceededError("values that stay in the graph", expected=most)
            embed(proto, source.read(proto))


def is_reference(proto: onnx.TensorProto) -> bool:
    """Whether a tensor of a bundle's graph stands for a tensor of the bundle."""
    return proto.data_location == EXTERNAL and any(
        entry.key == "location" and entry.value == GRAPH_LOCATION for entry in proto.external_data
    )


def embed(proto: onnx.TensorProto, raw: bytes | bytearray | memoryview) -> None:
    """Put a value into its tensor."""
    proto.ClearField("external_data")
    proto.ClearField("data_location")
    proto.raw_data = bytes(raw)


def _serialise(model: onnx.ModelProto) -> bytes:
    size = model.ByteSize()
    if size > FORMAT_LIMITS.graph:
        raise LimitExceededError("the graph", expected=f"at most {FORMAT_LIMITS.graph} bytes", found=size)
    return model.SerializeToString(deterministic=True)


def references(graph: bytes) -> list[onnx.TensorProto]:
    """The initializers of a bundle's graph that stand for tensors of the bundle.

    Raises MalformedContentError for bytes that are no model, and for external data elsewhere.
    """
    model = parse_graph(graph)
    return [proto for proto in model.graph.initializer if is_reference(proto)]


def parse_graph(graph: bytes) -> onnx.ModelProto:
    """Parse a bundle's graph and check that nothing in it is outside but by reference to the bundle."""
    import onnx
    from google.protobuf.message import DecodeError

    try:
        model = onnx.ModelProto.FromString(graph)
    except DecodeError:
        raise MalformedContentError("the graph is no ONNX model") from None
    structure.check_model(model)
    main = {proto.name for proto in model.graph.initializer if is_reference(proto)}
    for proto in structure.all_tensors(model):
        if proto.data_location == EXTERNAL and not (is_reference(proto) and proto.name in main):
            raise MalformedContentError("the graph refers to data outside of the bundle", found=escape(proto.name))
    return model


def restore(graph: bytes, read: Callable[[str], bytes | bytearray | memoryview]) -> onnx.ModelProto:
    """The graph as a plain model: ``read`` gives the ``raw_data`` of each tensor that it refers to.

    Raises MalformedContentError for a reference whose size is another than the tensor's.
    """
    model = parse_graph(graph)
    for proto in model.graph.initializer:
        if is_reference(proto):
            raw = read(proto.name)
            if len(raw) != dtypes.raw_size(proto.data_type, elements_of(proto.dims)):
                raise MalformedContentError("the graph and the bundle disagree on a tensor's size", tensor=proto.name)
            embed(proto, raw)
    return model
