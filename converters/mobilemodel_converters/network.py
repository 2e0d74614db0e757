"""An ONNX graph built node by node, its weights outside: what the importers of other formats make.

    network = NetworkBuilder("lenet")
    x = network.input("data", ("N", 1, 28, 28))
    w = network.weight("ip.weight", (10, 784), read)
    y = network.add("Gemm", (network.add("Flatten", (x,), "flat"), w), "scores", transB=1)
    network.output(y, ("N", 10))
    model = network.finish(sources=...)
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from mobilemodel.dtypes import DType
from mobilemodel.errors import LimitExceededError, UnsupportedSourceError, escape
from mobilemodel.layout import elements_of
from mobilemodel.limits import FORMAT_LIMITS, MIB
from mobilemodel.model import Buffer, InlineTensor, Model, QuantizedValue, SourceFile, SourceTensor
from mobilemodel.v1 import bundle_pb2 as pb
from mobilemodel_converters.onnx import build, roles, structure, uses
from mobilemodel_converters.onnx.importer import ranked, value_info

Dim = int | str | None
"""size of an axis of an input or output: a number, the name of one that may vary, or None: not known"""
OPSET = 13
_IR_VERSION = 8
_TAIL = 16
"""bytes that a name keeps free for the number that makes it unique"""
_MOST_CONSTANT = 64 * MIB
"""bytes of all constants: they lie in memory, and a few words in a file may ask for many; SSD512's boxes are 0.8 MB"""


@dataclass(frozen=True)
class _Weight:
    dtype: int
    dims: tuple[int, ...]
    read: Callable[[], Buffer]
    quantized: QuantizedValue | None


class NetworkBuilder:
    """A graph under construction; names given to it are wishes and become unique."""

    def __init__(self, name: str) -> None:
        import onnx

        self._model = onnx.ModelProto(ir_version=_IR_VERSION, producer_name="mobilemodel")
        self._model.opset_import.add(domain="", version=OPSET)
        self._graph = self._model.graph
        self._graph.name = name or "network"
        self._names: dict[str, int] = {}
        self._node_names: dict[str, int] = {}
        self._weights: dict[str, _Weight] = {}
        self._constants: dict[str, str] = {}
        self._constant_bytes = 0

    def input(self, name: str, dims: Sequence[Dim], dtype: int = DType.FLOAT) -> str:
        """Add an input of the network; returns its name. Raises LimitExceededError for dims that no tensor may have."""
        name = _unique(name, self._names)
        _check_dims("an input's dims", name, dims)
        _declare(self._graph.input.add(), name, dims, dtype)
        return name

    def output(self, value: str, dims: Sequence[Dim] | None, dtype: int = DType.FLOAT, *, name: str = "") -> str:
        """Make a value an output of the network and return its name; one of another ``name`` is made by an Identity."""
        wanted = name or value
        if wanted != value:
            value = self.add("Identity", (value,), wanted)
        _declare(self._graph.output.add(), value, dims, dtype)
        return value

    def vary_batch(self, symbol: str) -> None:
        """Let the first axis of all inputs and outputs be of any size, under this name."""
        for value in (*self._graph.input, *self._graph.output):
            dims = value.type.tensor_type.shape.dim
            if dims:
                dims[0].dim_param = symbol

    def add(self, operator: str, inputs: Sequence[str], output: str, **attributes: Any) -> str:
        """Add a node of one output, wished to be called ``output``; returns what it is called."""
        return self.add_many(operator, inputs, (output,), **attributes)[0]

    def add_many(
        self, operator: str, inputs: Sequence[str], outputs: Sequence[str], **attributes: Any
    ) -> tuple[str, ...]:
        """Add a node of several outputs; returns what they are called."""
        from onnx import helper

        names = tuple(_unique(output, self._names) for output in outputs)
        node = helper.make_node(operator, list(inputs), list(names), name=_unique(names[0], self._node_names),
                                **attributes)  # fmt: skip
        self._graph.node.append(node)
        return names

    def constant(self, name: str, values: npt.NDArray[Any], reason: str = "a constant that the layer needs") -> str:
        """Add a value that stays inside the graph, such as a shape; ``reason`` says why it does.

        Raises LimitExceededError where all constants together are too large.
        """
        from onnx import numpy_helper

        name = _unique(name, self._names)
        self._constant_bytes += values.nbytes
        if self._constant_bytes > _MOST_CONSTANT:
            raise LimitExceededError("the graph's constants", tensor=name, expected=f"at most {_MOST_CONSTANT} bytes")
        self._graph.initializer.append(numpy_helper.from_array(np.array(values, order="C"), name))
        self._constants[name] = reason
        return name

    def weight(
        self,
        name: str,
        dims: Sequence[int],
        read: Callable[[], Buffer],
        *,
        dtype: int = DType.FLOAT,
        quantized: QuantizedValue | None = None,
    ) -> str:
        """Add a value that lies outside the graph; ``read`` gives its raw bytes, also where it is ``quantized``.

        It must be a data input of the nodes that take it (spec/graph.md §2). Raises LimitExceededError for dims that
        the format does not hold.
        """
        name = _unique(name, self._names)
        dims = tuple(dims)
        _check_dims("a tensor's dims", name, dims)
        self._weights[name] = _Weight(dtype, dims, read, quantized)
        self._graph.initializer.append(build.external_reference(name, dtype, dims))
        return name

    def finish(
        self,
        *,
        sources: Sequence[SourceFile],
        preprocessing: Sequence[pb.Preprocessing] = (),
        mean_picture: bytes = b"",
        labels: Sequence[str] = (),
        notes: Sequence[str] = (),
        close: Callable[[], None] = lambda: None,
    ) -> Model:
        """The network as a Model: roles, orders and ranks of its weights are told from the graph.

        Raises LimitExceededError for a graph that is too large.
        """
        structure.check_model(self._model)
        graph = self._model.SerializeToString(deterministic=True)
        if len(graph) > FORMAT_LIMITS.graph:
            raise LimitExceededError("the graph", expected=f"at most {FORMAT_LIMITS.graph} bytes", found=len(graph))
        return Model(
            build_graph=lambda hoisted: graph,  # noqa: ARG005 - nothing here is hoisted
            tensors=tuple(self._tensors()),
            inline=tuple(self._inline()),
            inputs=tuple(value_info(value) for value in self._graph.input),
            outputs=tuple(value_info(value) for value in self._graph.output),
            sources=tuple(sources),
            preprocessing=tuple(preprocessing),
            mean_picture=mean_picture,
            labels=tuple(labels),
            notes=tuple(notes),
            close=close,
        )

    def _tensors(self) -> list[SourceTensor]:
        index = uses.index_uses(self._model)
        inside = {proto.name: proto for proto in self._graph.initializer if proto.name in self._constants}
        network = roles.Network(index, roles.producers(self._graph), inside)
        found = []
        for name, weight in self._weights.items():
            reached = uses.final_uses(index, name)
            obstacle = uses.may_leave(reached)
            assert obstacle is None, f"{name}: {obstacle}"
            kind = roles.classify(reached or [], weight.dims, network)
            tensor = SourceTensor(name, weight.dtype, weight.dims, weight.read, kind.role, kind.operator, kind.order,
                                  quantized=weight.quantized)  # fmt: skip
            found.append((kind.place, tensor))
        return ranked(found)

    def _inline(self) -> list[InlineTensor]:
        from onnx import numpy_helper

        return [
            InlineTensor(proto.name, proto.data_type, tuple(proto.dims), numpy_helper.to_array(proto).nbytes,
                         self._constants[proto.name])
            for proto in self._graph.initializer
            if proto.name in self._constants
        ]  # fmt: skip


def _unique(wish: str, taken: dict[str, int]) -> str:
    """The wish itself, or with a number behind it; remembers what it gives.

    Raises UnsupportedSourceError for a name that the format cannot hold.
    """
    if len(wish.encode("utf-8", "surrogatepass")) > FORMAT_LIMITS.name - _TAIL or "\0" in wish:
        raise UnsupportedSourceError("a name does not fit the format", found=escape(wish),
                                     expected=f"at most {FORMAT_LIMITS.name - _TAIL} bytes without NUL")  # fmt: skip
    name = wish = wish or "unnamed"
    while name in taken:
        taken[wish] += 1
        name = f"{wish}_{taken[wish]}"
    taken[name] = 1
    return name


def _check_dims(what: str, name: str, dims: Sequence[Dim]) -> None:
    """Raises LimitExceededError for dims that no tensor of the format has."""
    known = [dim for dim in dims if isinstance(dim, int) and dim]
    if len(dims) > FORMAT_LIMITS.rank or elements_of(known) > FORMAT_LIMITS.elements:
        raise LimitExceededError(what, tensor=name, found=tuple(dims),
                                 expected=f"at most {FORMAT_LIMITS.elements} values")  # fmt: skip


def _declare(value: Any, name: str, dims: Sequence[Dim] | None, dtype: int) -> None:
    from onnx import helper

    value.CopyFrom(helper.make_tensor_value_info(name, dtype, None if dims is None else list(dims)))
