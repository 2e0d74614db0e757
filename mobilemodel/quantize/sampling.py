"""How many bytes a tensor will take, from a sample of it that is encoded and thrown away."""

from __future__ import annotations

from dataclasses import replace

from mobilemodel import dtypes
from mobilemodel.encodings.payloads import Family, PayloadWriter
from mobilemodel.limits import KIB
from mobilemodel.model import MatrixOrder, SourceTensor
from mobilemodel.quantize.apply import encode_tensor
from mobilemodel.quantize.rules import AFFINE, Rule
from mobilemodel.v1 import bundle_pb2 as pb

_RUNS = 16
_RUN_BYTES = 256 * KIB
_WORTH_SAMPLING = 64 * KIB


class _Counter:
    """A sink that keeps nothing but the number of bytes."""

    def __init__(self) -> None:
        self.stored_bytes = 0

    def add(self, stored: bytes, codec: int, raw_size: int) -> int:  # noqa: ARG002 - the sink's protocol
        self.stored_bytes += len(stored)
        return 0


def predicted_bytes(tensor: SourceTensor, rule: Rule) -> float:
    """Bytes that a tensor will take: a sample of 16 runs of 256 KiB or more, evenly spread, is encoded by its rule."""
    if tensor.raw_bytes <= _WORTH_SAMPLING or tensor.quantized is not None:
        return tensor.raw_bytes
    if rule.encoding == AFFINE and tensor.dtype in dtypes.QUANTIZABLE:
        # Codes with a scale for each row need the rows; their entropy is about nine tenths of their bits.
        return 0.9 * rule.bits * tensor.elements / 8
    raw = memoryview(tensor.read()).cast("B")
    step = max(len(raw) // _RUNS // _RUN_BYTES, 1) * _RUN_BYTES
    sample = b"".join(raw[start : start + _RUN_BYTES] for start in range(0, len(raw), step))
    elements = 8 * len(sample) // dtypes.bits(tensor.dtype)
    piece = replace(tensor, dims=(elements,), read=lambda: sample, order=MatrixOrder(row_axes=0))
    counter = _Counter()
    writer = PayloadWriter(counter, Family.FULL)
    encode_tensor(writer, pb.Tensor(), piece, rule)
    writer.flush()
    return counter.stored_bytes / len(sample) * len(raw)
