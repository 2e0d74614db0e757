"""remove_duplicates(): tensors that hold the same bytes become one, and nodes that compute the same do too."""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING

from mobilemodel.graphs import is_standard, subgraphs, title
from mobilemodel.model import WEIGHT_ROLES, Buffer, Model, Role
from mobilemodel.transforms.draft import Draft
from mobilemodel.transforms.names import defined_inside, rename_inside
from mobilemodel.transforms.report import Change, Kept, Size, Transformed

if TYPE_CHECKING:
    import onnx

_NAME = "remove_duplicates"
_RANDOM = frozenset((
    "RandomNormal", "RandomNormalLike", "RandomUniform", "RandomUniformLike", "Bernoulli", "Multinomial",
))  # fmt: skip


def remove_duplicates(model: Model) -> Transformed:
    """Let one tensor stand for all of its type, dims and bytes, and one node for all of its operator, inputs and
    attributes.

    The tensor that stays is a weight rather than none, of an FC layer rather than another, and the first of these in
    the graph. Tensors that the source holds quantized and defaults of inputs are left alone; values inside the graph
    are compared among themselves, as they may have to stay there. Exact.
    """
    draft = Draft(model)
    if draft.obstacle:
        return Transformed(model, (), (Kept("", draft.obstacle),))
    kept = [
        Kept(tensor.name, "quantized in the source: its codes were not compared")
        for tensor in model.tensors
        if tensor.quantized is not None
    ]
    changes = [*_merge_values(draft), *_merge_nodes(draft)]
    return draft.finish(_NAME, changes, kept)


def _merge_values(draft: Draft) -> Iterator[Change]:
    """Tensors first, then initializers inside the graph."""
    place = {name: index for index, name in enumerate(draft.tensors)}
    fixed = draft.replaceable | draft.outputs | _inner_names(draft)
    tensors = [
        (name, (tensor.dtype, tensor.dims), tensor.read)
        for name, tensor in draft.tensors.items()
        if tensor.quantized is None and name not in fixed
    ]
    inside = [
        (name, (proto.data_type, tuple(proto.dims)), partial(_content, proto))
        for name, proto in draft.initializers.items()
        if name not in draft.tensors and name not in fixed
    ]
    names: dict[str, str] = {}
    for same in _same(tensors):
        first = min(same, key=lambda name: _preference(draft, name, place))
        draft.add_tensor(replace(draft.tensors[first], hoisted=all(draft.tensors[name].hoisted for name in same)))
        names |= {name: first for name in same if name != first}
    for same in _same(inside):
        names |= dict.fromkeys(same[1:], same[0])
    for gone, stays in names.items():
        elements = draft.tensors[gone].elements if gone in draft.tensors else 0
        before, after = (Size(2 * elements), Size(elements)) if elements else (None, None)
        what = f"the same values as '{stays}', which takes its place"
        yield Change(_NAME, gone, what, exact=True, tensors=(stays,), removed=(gone,), before=before, after=after)
    _rename(draft.nodes, names)
    for gone in names:
        draft.tensors.pop(gone, None)
        draft.initializers.pop(gone, None)
    draft.changed()


def _same(
    values: Iterable[tuple[str, tuple[int, tuple[int, ...]], Callable[[], Buffer]]],
) -> Iterator[list[str]]:
    """Names of equal values, in order; only values of a type and dims that others have are read."""
    by_shape: defaultdict[tuple[int, tuple[int, ...]], list[tuple[str, Callable[[], Buffer]]]] = defaultdict(list)
    for name, shape, read in values:
        by_shape[shape].append((name, read))
    for candidates in by_shape.values():
        by_content: defaultdict[bytes, list[str]] = defaultdict(list)
        if len(candidates) > 1:
            for name, read in candidates:
                by_content[hashlib.sha256(read()).digest()].append(name)
        yield from (names for names in by_content.values() if len(names) > 1)


def _preference(draft: Draft, name: str, place: dict[str, int]) -> tuple[bool, bool, int]:
    """The tensor whose description an importer would give to the one that all uses share."""
    role = draft.tensors[name].role
    return (role not in WEIGHT_ROLES, role is not Role.FC, place[name])


def _content(proto: onnx.TensorProto) -> bytes:
    plain = type(proto)()
    plain.CopyFrom(proto)
    plain.ClearField("name")
    plain.ClearField("doc_string")
    return plain.SerializeToString(deterministic=True)


def _inner_names(draft: Draft) -> set[str]:
    """Names that graphs within nodes define or give: they are not renamed, and nothing takes their names."""
    return set().union(*map(defined_inside, draft.nodes))


def _rename(nodes: Iterable[onnx.NodeProto], names: dict[str, str]) -> None:
    for node in nodes:
        for position, name in enumerate(node.input):
            if name in names:
                node.input[position] = names[name]
        rename_inside(node, names)


def _merge_nodes(draft: Draft) -> Iterator[Change]:
    """Merge in the order of the graph: what follows two equal nodes may be equal once these are one."""
    inner = _inner_names(draft)
    known: dict[bytes, onnx.NodeProto] = {}
    names: dict[str, str] = {}
    gone: list[onnx.NodeProto] = []
    for node in draft.nodes:
        _rename([node], names)
        if not inner.isdisjoint(node.output):
            continue
        key = _key(node)
        twin = known.setdefault(key, node) if key else node
        if twin is node:
            continue
        names |= {old: new for old, new in zip(node.output, twin.output, strict=True) if old}
        if not draft.outputs.isdisjoint(node.output):
            continue
        gone.append(node)
        what = f"computes what '{title(twin)}' does, which takes its place"
        yield Change(_NAME, title(node), what, exact=True, removed=tuple(filter(None, node.output)))
    draft.remove_nodes(gone)


def _key(node: onnx.NodeProto) -> bytes:
    """Equal for nodes that compute the same; empty for one that may not be merged."""
    standard = is_standard(node) and not node.overload
    trains = node.op_type == "Dropout" and any(node.input[2:])
    if not standard or trains or node.op_type in _RANDOM or any(subgraphs(node)):
        return b""
    plain = type(node)()
    plain.CopyFrom(node)
    for name in ("name", "doc_string", "metadata_props", "output"):
        plain.ClearField(name)
    plain.output.extend("x" if name else "" for name in node.output)
    attributes = sorted(node.attribute, key=lambda attribute: attribute.name)
    del plain.attribute[:]
    plain.attribute.extend(attributes)
    for attribute in plain.attribute:
        attribute.ClearField("doc_string")
        if attribute.HasField("t"):
            attribute.t.ClearField("name")
    return plain.SerializeToString(deterministic=True)
