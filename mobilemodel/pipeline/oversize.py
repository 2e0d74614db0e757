"""Will a model fit into a bundle at all? Asked before anything is written, of models over 2 GiB alone."""

from __future__ import annotations

from mobilemodel.errors import LimitExceededError
from mobilemodel.limits import FORMAT_LIMITS
from mobilemodel.model import SourceTensor
from mobilemodel.quantize.rules import Rule
from mobilemodel.quantize.sampling import predicted_bytes


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
