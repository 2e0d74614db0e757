"""What a bundle would weigh under other settings, from samples of its own payloads."""

from __future__ import annotations

from mobilemodel import layout
from mobilemodel.bundle import Bundle
from mobilemodel.container import Spool
from mobilemodel.encodings.matrix import Effort
from mobilemodel.encodings.payloads import Family, PayloadWriter, read_bytes, read_matrix
from mobilemodel.v1 import bundle_pb2 as pb


def baseline_size(bundle: Bundle) -> int:
    """Predicted bytes of the same bundle packed for baseline readers (zlib and PNG instead of zstd).

    Of each tensor the first payload is packed anew; its ratio stands for the others. Payloads that several tensors
    share, the graph and the report are packed in whole.
    """
    container = bundle.container
    writer = PayloadWriter(Spool(), Family.BASELINE)
    growth = 0.0
    done: set[int] = set()
    for tensor in bundle.values():
        plan = layout.tensor_layout(tensor.message)
        uses = [use for use in plan.uses if container.entry(use.payload).codec == pb.CODEC_ZSTD]
        done.update(use.payload for use in plan.uses)
        if not uses:
            continue
        stored = sum(container.entry(use.payload).stored_size for use in uses)
        first = container.entry(uses[0].payload)
        if plan.codes is None:
            size = len(writer.encode_bytes(read_bytes(container, uses[0].payload), Effort.QUICK)[1])
        else:
            shape = plan.codes.plane_shape(0) if plan.codes.split else plan.codes.plain_shape(0)
            size = len(writer.encode_matrix(read_matrix(container, uses[0].payload, shape), shape, Effort.QUICK)[1])
        growth += stored * (size / first.stored_size - 1)
    for index, entry in enumerate(bundle.manifest.payloads):
        if index not in done and entry.codec == pb.CODEC_ZSTD:
            size = len(writer.encode_bytes(read_bytes(container, index), Effort.THOROUGH)[1])
            growth += size - entry.stored_size
    return round(bundle.size + growth)
