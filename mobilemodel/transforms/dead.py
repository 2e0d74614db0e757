"""remove_dead(): what no output of the network depends on."""

from __future__ import annotations

from collections.abc import Iterator

from mobilemodel.graphs import reads, title
from mobilemodel.model import Model
from mobilemodel.transforms.draft import Draft
from mobilemodel.transforms.report import Change, Kept, Transformed
from mobilemodel.transforms.units import DeadUnits

_NAME = "remove_dead"
_MOST_ROUNDS = 16


def remove_dead(model: Model) -> Transformed:
    """Remove nodes and initializers that no output needs, and units of layers that make no difference.

    A unit (an output of an FC layer, a channel of a convolution) makes none where all weights that take it are zero.
    One whose own weights are all zero gives the same value everywhere: where that value reaches the next layer
    unchanged, it goes into that layer's bias. This is done between Conv (of one group), Gemm and MatMul with nothing
    but activations, pools and Flatten between. Exact for values that are finite; dead units that stay are among
    ``kept`` with the reason.
    """
    draft = Draft(model)
    if draft.obstacle:
        return Transformed(model, (), (Kept("", draft.obstacle),))
    changes = list(_remove_unneeded(draft))
    kept: list[Kept] = []
    for _ in range(_MOST_ROUNDS):
        units = DeadUnits(draft)
        units.run()
        kept = units.kept
        if not units.changes:
            break
        changes += units.changes
    return draft.finish(_NAME, changes, kept)


def _remove_unneeded(draft: Draft) -> Iterator[Change]:
    """Nodes first, from the outputs backwards, then initializers."""
    needed = set(draft.outputs)
    live: set[int] = set()
    waiting = list(draft.outputs)
    while waiting:
        node = draft.producers.get(waiting.pop())
        if node is None or id(node) in live:
            continue
        live.add(id(node))
        new = reads(node) - needed
        needed |= new
        waiting += new
    gone = [node for node in draft.nodes if id(node) not in live]
    draft.remove_nodes(gone)
    for node in gone:
        yield Change(_NAME, title(node), f"no output needs this {node.op_type}", exact=True, removed=tuple(node.output))
    for name in [*draft.initializers, *draft.tensors]:
        if name not in needed and name not in draft.replaceable and draft.forget(name):
            yield Change(_NAME, name, "nothing uses this value", exact=True, removed=(name,))
