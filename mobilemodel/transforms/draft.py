"""A model's graph while a transform changes it: nodes, tensors, who uses what, and the new Model at the end.

Only nodes of the main graph change. Graphs within nodes (If, Loop) count as users of what they take from outside.
Values in Constant nodes and subgraphs that may be hoisted are outside of the graph while it changes; where no scheme
wants them they are put back as initializers of the main graph, which means the same.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import cached_property, partial
from typing import TYPE_CHECKING

from mobilemodel.errors import LimitExceededError
from mobilemodel.graphs import captured, is_standard, standard_opset
from mobilemodel.limits import FORMAT_LIMITS
from mobilemodel.model import GRAPH_LOCATION, Model, Role, SourceTensor
from mobilemodel.transforms.names import all_names
from mobilemodel.transforms.report import Change, Kept, Transformed

if TYPE_CHECKING:
    import onnx

Shape = tuple[int | None, ...]
SMALLEST_OPSET = 7
"""of the standard operators: arithmetic broadcast in another way before"""
INSIDE = -1
"""position of a use by a graph within the node"""
_MOST_STEPS = 64
_TAIL = 16
"""bytes that a name keeps free for the number that makes it unique"""


@dataclass(frozen=True)
class Use:
    """An input of a node of the main graph, or a use somewhere within it."""

    node: onnx.NodeProto
    position: int


@dataclass(frozen=True)
class Reference:
    """A tensor as a node's input sees it: axis i of the input is axis ``axes[i]`` of the tensor."""

    tensor: SourceTensor
    axes: tuple[int, ...]

    @property
    def shape(self) -> tuple[int, ...]:
        return tuple(self.tensor.dims[axis] for axis in self.axes)


class Draft:
    """A graph under change. Nodes are compared by identity; call ``changed`` after nodes came, went or were rewired."""

    def __init__(self, model: Model) -> None:
        import onnx

        self.source = model
        self._proto = onnx.ModelProto.FromString(
            model.build_graph(frozenset(tensor.name for tensor in model.tensors if tensor.hoisted))
        )
        graph = self._proto.graph
        self.tensors = {tensor.name: tensor for tensor in model.tensors}
        self.initializers = {proto.name: proto for proto in graph.initializer}
        self.nodes: list[onnx.NodeProto] = list(graph.node)
        self.inputs = [value.name for value in graph.input]
        self.outputs = frozenset(value.name for value in graph.output)
        self.listed = frozenset(self.inputs) & self.initializers.keys()
        """initializers that are inputs of the graph too"""
        self.reshaped: set[str] = set()
        """values whose shapes are no longer what the graph says"""
        self._known_names = frozenset(all_names(graph))
        self._names = set(self._known_names)

    @property
    def functions(self) -> list[onnx.FunctionProto]:
        """The model's own functions, which no transform touches."""
        return list(self._proto.functions)

    @cached_property
    def opset(self) -> int:
        """Version of the standard operators."""
        return standard_opset(self._proto)

    @cached_property
    def obstacle(self) -> str:
        """Why this model can't be transformed at all; empty where it can."""
        if self._proto.training_info:
            return "the model holds training information, which may use any value"
        if self.opset < SMALLEST_OPSET:
            return f"operators of version {self.opset}; from version {SMALLEST_OPSET} on their rules are known"
        return ""

    @cached_property
    def replaceable(self) -> frozenset[str]:
        """Initializers that are meant as defaults of inputs: no constants.

        Where every initializer is listed as an input, the listing says nothing: IR versions before 4 asked for it and
        exporters kept the habit.
        """
        habit = self._proto.ir_version < 4 or len(self.listed) == len(self._proto.graph.initializer)
        return frozenset() if habit else self.listed

    @cached_property
    def producers(self) -> dict[str, onnx.NodeProto]:
        """The node of the main graph that makes each value."""
        return {name: node for node in self.nodes for name in node.output if name}

    @cached_property
    def uses(self) -> dict[str, list[Use]]:
        """All uses of each value but as an output of the graph."""
        found: defaultdict[str, list[Use]] = defaultdict(list)
        for node in self.nodes:
            for position, name in enumerate(node.input):
                if name:
                    found[name].append(Use(node, position))
            for name in sorted(captured(node)):
                found[name].append(Use(node, INSIDE))
        found.default_factory = None
        return found

    @cached_property
    def shapes(self) -> dict[str, Shape]:
        """What is known of the shapes of the original graph's values; None: an axis of unknown size."""
        import onnx

        found: dict[str, Shape] = {}
        try:
            inferred = onnx.shape_inference.infer_shapes(self._serialised())
        except Exception:  # onnx has no error of its own; without shapes less can be done
            inferred = self._proto
        for value in (*inferred.graph.input, *inferred.graph.value_info, *inferred.graph.output):
            if value.type.tensor_type.HasField("shape"):
                dims = value.type.tensor_type.shape.dim
                found[value.name] = tuple(dim.dim_value if dim.HasField("dim_value") else None for dim in dims)
        return found

    def set_inputs(self, node: onnx.NodeProto, first: int, names: Iterable[str]) -> None:
        """Give a node these inputs from position ``first`` on instead of those that it has there."""
        for name in node.input[first:]:
            if name:
                self.uses_of(name)[:] = [
                    use for use in self.uses_of(name) if use.node is not node or use.position < first
                ]
        del node.input[first:]
        for position, name in enumerate(names, first):
            node.input.append(name)
            self.uses.setdefault(name, []).append(Use(node, position))

    def forget(self, name: str) -> bool:
        """Remove a tensor or an initializer; whether there was one."""
        known = self.tensors.pop(name, None) is not None
        return self.initializers.pop(name, None) is not None or known

    def changed(self) -> None:
        """Forget what was known of nodes and their uses."""
        for name in ("producers", "uses"):
            self.__dict__.pop(name, None)

    def uses_of(self, name: str) -> list[Use]:
        return self.uses.get(name, [])

    def only_use(self, name: str) -> Use | None:
        """The one use of a value; None where it has none or several, or is an output of the graph."""
        uses = self.uses_of(name)
        return uses[0] if len(uses) == 1 and name not in self.outputs and uses[0].position != INSIDE else None

    def reference(self, name: str) -> Reference | str:
        """The tensor behind an input, through Identity and Transpose; or why it can't be changed."""
        axes: tuple[int, ...] | None = None
        for _ in range(_MOST_STEPS):
            if name in self.tensors:
                return self._checked(self.tensors[name], axes)
            node = self.producers.get(name)
            if node is None or not _passes_on(node):
                break
            name = node.input[0]
            if node.op_type == "Transpose":
                perm = _permutation(node)
                source = self.tensors.get(name)
                if not perm and source is not None:
                    perm = tuple(reversed(range(len(source.dims))))
                if sorted(perm) != list(range(len(axes or perm))) or not perm:
                    break
                axes = perm if axes is None else tuple(perm[axis] for axis in axes)
        return "its weight is no tensor of its own: it is computed, or has to stay in the graph"

    def _checked(self, tensor: SourceTensor, axes: tuple[int, ...] | None) -> Reference | str:
        if tensor.name in self.replaceable:
            return f"a caller may replace '{tensor.name}': it is the default of an input"
        if tensor.quantized is not None:
            return f"'{tensor.name}' is quantized in the source"
        axes = tuple(range(len(tensor.dims))) if axes is None else axes
        if sorted(axes) != list(range(len(tensor.dims))):
            return f"the way to '{tensor.name}' cannot be followed"
        return Reference(tensor, axes)

    def final_uses(self, name: str) -> list[Use] | None:
        """The inputs that a tensor reaches through Identity and Transpose; None where an output of the graph is one."""
        found: list[Use] = []
        waiting = [name]
        for _ in range(len(self.nodes) + 1):
            if not waiting:
                return found
            name = waiting.pop()
            if name in self.outputs:
                return None
            for use in self.uses_of(name):
                if use.position == 0 and _passes_on(use.node):
                    waiting.append(use.node.output[0])
                else:
                    found.append(use)
        return None

    def fresh(self, wish: str) -> str:
        """A name that nothing has yet."""
        wish = wish.encode()[: FORMAT_LIMITS.name - _TAIL].decode(errors="ignore")
        name, number = wish, 1
        while name in self._names:
            number += 1
            name = f"{wish}_{number}"
        self._names.add(name)
        return name

    def add_tensor(self, tensor: SourceTensor, *, after: str = "") -> None:
        """Add a tensor, or replace the one of its name; a new one stands after the tensor ``after``."""
        if tensor.name in self.tensors or after not in self.tensors:
            self.tensors[tensor.name] = tensor
            return
        entries = []
        for name, known in self.tensors.items():
            entries.append((name, known))
            if name == after:
                entries.append((tensor.name, tensor))
        self.tensors = dict(entries)

    def insert_behind(self, node: onnx.NodeProto, added: onnx.NodeProto) -> None:
        """Put a node behind another one of the graph."""
        place = next(index for index, other in enumerate(self.nodes) if other is node)
        self.nodes.insert(place + 1, added)

    def insert_before(self, node: onnx.NodeProto, added: onnx.NodeProto) -> None:
        """Put a node before another one of the graph."""
        self.nodes.insert(next(index for index, other in enumerate(self.nodes) if other is node), added)

    def remove_nodes(self, nodes: Iterable[onnx.NodeProto]) -> None:
        gone = {id(node) for node in nodes}
        self.nodes = [node for node in self.nodes if id(node) not in gone]
        self.changed()

    def remove_unused(self, names: Iterable[str]) -> list[str]:
        """Remove constants among these values that nothing uses any more, and the nodes that only they needed.

        Returns the names of the tensors and initializers that are gone.
        """
        counts = {name: len(uses) for name, uses in self.uses.items()}
        gone: list[str] = []
        nodes: dict[int, onnx.NodeProto] = {}
        waiting = list(names)
        while waiting:
            name = waiting.pop()
            if not name or counts.get(name) or name in self.outputs or name in self.replaceable:
                continue
            if self.forget(name):
                gone.append(name)
            producer = self.producers.get(name)
            if producer is None or id(producer) in nodes or any(map(counts.get, producer.output)):
                continue
            if not self.outputs.isdisjoint(producer.output):
                continue
            nodes[id(producer)] = producer
            for needed in (*filter(None, producer.input), *captured(producer)):
                counts[needed] -= 1
                waiting.append(needed)
        self.remove_nodes(nodes.values())
        return gone

    def finish(self, transform: str, changes: Iterable[Change], kept: Iterable[Kept]) -> Transformed:
        """The changed model; the old one where nothing changed. Raises LimitExceededError for a graph too large."""
        made = list(changes)
        if not made:
            return Transformed(self.source, (), tuple(kept))
        if self.listed - self.replaceable:
            made += self._unlist(transform)
        tensors = tuple(_ranked(self.tensors.values()))
        hoisted = {tensor.name: tensor for tensor in tensors if tensor.hoisted}
        graph = self._serialised()
        gone = self._known_names - set(all_names(graph.graph))
        model = replace(
            self.source,
            build_graph=partial(_build, graph.SerializeToString(deterministic=True), hoisted),
            tensors=tensors,
            inline=tuple(item for item in self.source.inline if item.name not in gone),
        )
        return Transformed(model, tuple(made), tuple(kept))

    def _unlist(self, transform: str) -> list[Change]:
        count = len(self.listed - self.replaceable)
        self.inputs = [name for name in self.inputs if name not in self.listed]
        if self._proto.ir_version < 4:
            self._proto.ir_version = 4
            return []
        what = f"{count} initializers were inputs too, as old exporters had it: a caller can no longer replace them"
        return [Change(transform, "", what, exact=True)]

    def _serialised(self) -> onnx.ModelProto:
        """The graph as it is now, its tensors outside."""
        model = type(self._proto)()
        model.CopyFrom(self._proto)
        graph = model.graph
        graph.ClearField("node")
        graph.node.extend(self.nodes)
        graph.ClearField("initializer")
        inside = (proto for name, proto in self.initializers.items() if name not in self.tensors)
        graph.initializer.extend(inside)
        graph.initializer.extend(_external(tensor) for tensor in self.tensors.values())
        wanted = set(self.inputs)
        inputs = [value for value in self._proto.graph.input if value.name in wanted]
        graph.ClearField("input")
        graph.input.extend(inputs)
        made = {name for node in self.nodes for name in node.output} - self.reshaped
        known = [value for value in self._proto.graph.value_info if value.name in made]
        graph.ClearField("value_info")
        graph.value_info.extend(known)
        return model


def _passes_on(node: onnx.NodeProto) -> bool:
    """Whether a node gives its input's values, perhaps with other axes."""
    known = node.op_type in ("Identity", "Transpose") and is_standard(node)
    return known and len(node.input) == 1 and len(node.output) == 1


def _permutation(node: onnx.NodeProto) -> tuple[int, ...]:
    return next((tuple(a.ints) for a in node.attribute if a.name == "perm"), ())


def _external(tensor: SourceTensor) -> onnx.TensorProto:
    """An initializer whose value is the tensor of its name (spec/graph.md §3)."""
    import onnx

    proto = onnx.TensorProto(name=tensor.name, data_type=tensor.dtype, dims=tensor.dims)
    proto.data_location = onnx.TensorProto.EXTERNAL
    for key, value in (("location", GRAPH_LOCATION), ("offset", "0"), ("length", str(tensor.raw_bytes))):
        proto.external_data.add(key=key, value=value)
    return proto


def _build(graph: bytes, hoisted: Mapping[str, SourceTensor], wanted: frozenset[str]) -> bytes:
    """The graph, with the values of hoisted tensors inside but for the ``wanted`` ones."""
    import onnx

    if hoisted.keys() <= wanted:
        return graph
    model = onnx.ModelProto.FromString(graph)
    for proto in model.graph.initializer:
        if proto.name in hoisted and proto.name not in wanted:
            proto.ClearField("external_data")
            proto.ClearField("data_location")
            proto.raw_data = bytes(hoisted[proto.name].read())
    size = model.ByteSize()
    if size > FORMAT_LIMITS.graph:
        raise LimitExceededError("the graph", expected=f"at most {FORMAT_LIMITS.graph} bytes", found=size)
    return model.SerializeToString(deterministic=True)


def _ranked(tensors: Iterable[SourceTensor]) -> Iterator[SourceTensor]:
    """Number the tensors of each role anew; they stand in the order of the graph."""
    ranks: Counter[Role] = Counter()
    for tensor in tensors:
        yield tensor if tensor.rank_in_role == ranks[tensor.role] else replace(tensor, rank_in_role=ranks[tensor.role])
        ranks[tensor.role] += 1
