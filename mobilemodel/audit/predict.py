"""What a bundle would weigh under other settings, from samples of its own payloads."""

from __future__ import annotations

from mobilemodel import layout
from mobilemodel.bundle import Bundle
from mobilemodel.container import Spool
from mobilemodel.encodings.payloads import Effort, Family, PayloadWriter, read_bytes, read_matrix
from mobilemodel.v1 import bundle_pb2 as pb


def baseline_size(bundle: Bundle) -> int:
    """Predicted bytes of the same bundle packed for baseline readers (zlib and PNG instead of zstd).

    Of each tensor the first payload is packed anew; its ratio stands for the others. Payloads that several tensors
    share, the graph and the report are packed in whole.
    """
    with Spool() as spool:
        return _repacked_size(bundle, PayloadWriter(spool, Family.BASELINE))


def _repacked_size(bundle: Bundle, writer: PayloadWriter) -> int:
    container = bundle.container
    growth = 0.0
    done: set[int] = set()
    for tensor in bundle.values():
        plan = layout.tensor_layout(tensor.message)
        done.update(use.payload for use in plan.uses)
        for stream in _streams(plan):
            packed = [index for index in stream if container.entry(index).codec == pb.CODEC_ZSTD]
            if packed:
                stored = sum(container.entry(index).stored_size for index in packed)
                size = _repacked_payload(bundle, writer, plan.codes, packed[0])
                growth += stored * (size / container.entry(packed[0]).stored_size - 1)
    for index, entry in enumerate(bundle.manifest.payloads):
        if index not in done and entry.codec == pb.CODEC_ZSTD:
            size = len(writer.encode_bytes(read_bytes(container, index), Effort.THOROUGH)[1])
            growth += size - entry.stored_size
    return round(bundle.size + growth)


def _streams(plan: layout.TensorLayout) -> list[list[int]]:
    """The payloads of a tensor by kind: the planes of split blocks and their other codes compress differently."""
    payloads = [use.payload for use in plan.uses]
    split = plan.codes is not None and plan.codes.split
    return [payloads[0::2], payloads[1::2]] if split else [payloads]


def _repacked_payload(bundle: Bundle, writer: PayloadWriter, codes: layout.CodesLayout | None, index: int) -> int:
    container = bundle.container
    if codes is None:
        return len(writer.encode_bytes(read_bytes(container, index), Effort.QUICK)[1])
    shape = _shape(codes, index, container.entry(index).raw_size)
    return len(writer.encode_matrix(read_matrix(container, index, shape), shape, Effort.QUICK)[1])


def _shape(codes: layout.CodesLayout, index: int, raw_size: int) -> layout.MatrixShape:
    """Shape of the matrix in a payload. Of the other codes of a split block only the bytes matter: one row of them."""
    position = index - codes.first_payload
    if not codes.split:
        return codes.plain_shape(position)
    return layout.MatrixShape(1, raw_size, 8) if position % 2 else codes.plane_shape(position // 2)
