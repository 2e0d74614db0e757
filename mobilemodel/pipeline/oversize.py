"""Will a model fit into a bundle at all? Asked before anything is written, of models over 2 GiB alone."""

from __future__ import annotations

from dataclasses import replace

from mobilemodel import dtypes
from mobilemodel.errors import LimitExceededError
from mobilemodel.limits import FORMAT_LIMITS, KIB
from mobilemodel.model import MatrixOrder, SourceTensor
from mobilemodel.quantize.apply import encode_tensor
from mobilemodel.quantize.rules import AFFINE, Rule
from mobilemodel.v1 import bundle_pb2 as pb
from mobilemodel.writer import BundleWriter

_RUNS = 16
_RUN_BYTES = 256 * KIB
_WORTH_SAMPLING = 64 * KIB


def refuse_oversize(chosen: list[tuple[SourceTensor, Rule]]) -> None:
    """Refuse a model whose bundle would exceed 2^31 - 1 bytes, with the predicted size.

    Raises LimitExceededError.
    """
    if sum(tensor.raw_bytes for tensor, _ in chosen) <= FORMAT_LIMITS.file:
        return
    predicted = round(sum(predicted_bytes(tensor, rule) for tensor, rule in chosen))
    if predicted > FORMAT_LIMITS.file:
        raise LimitExceededError(
            "the bundle would be too large", expected=f"at most {FORMAT_LIMITS.file:,} bytes",
            found=f"about {predicted:,}", advice="A scheme of fewer bits may fit, such as --scheme palette-8.",
        )  # fmt: skip


def predicted_bytes(tensor: SourceTensor, rule: Rule) -> float:
    """Bytes that a tensor will take: a sample of 16 runs of 256 KiB, evenly spread, is encoded by its rule."""
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
    with BundleWriter() as writer:
        encode_tensor(writer.payloads, pb.Tensor(), piece, rule)
        return writer.stored_bytes / len(sample) * len(raw)
