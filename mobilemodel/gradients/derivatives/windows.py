"""Where the windows of convolutions and poolings lie."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from mobilemodel.gradients.derivatives.step import Array, Step


@dataclass(frozen=True)
class Windows:
    """Kernel, strides, dilations and padding of a step, one number for each spatial axis.

    Window ``o`` covers the input's positions ``o * stride - begin + k * dilation``, k < kernel (ONNX: Conv, MaxPool).
    """

    kernel: tuple[int, ...]
    strides: tuple[int, ...]
    dilations: tuple[int, ...]
    begins: tuple[int, ...]
    """padding before the first position"""
    ends: tuple[int, ...]
    """padding after the last position"""

    @classmethod
    def of(cls, step: Step, kernel: Sequence[int]) -> Windows:
        rank = len(kernel)
        strides = tuple(step.attribute("strides") or [1] * rank)
        dilations = tuple(step.attribute("dilations") or [1] * rank)
        rule = step.attribute("auto_pad", b"NOTSET")
        pads = list(step.attribute("pads") or [0] * 2 * rank)
        if rule == b"VALID":
            pads = [0] * 2 * rank
        elif rule in (b"SAME_UPPER", b"SAME_LOWER"):
            spans = [(size - 1) * dilation + 1 for size, dilation in zip(kernel, dilations, strict=True)]
            sizes = zip(step.shape()[2:], strides, spans, strict=True)
            totals = [max((-(-size // stride) - 1) * stride + span - size, 0) for size, stride, span in sizes]
            less, more = [total // 2 for total in totals], [total - total // 2 for total in totals]
            pads = less + more if rule == b"SAME_UPPER" else more + less
        return cls(tuple(kernel), strides, dilations, tuple(pads[:rank]), tuple(pads[rank:]))

    def reach(self, outputs: Sequence[int]) -> tuple[int, ...]:
        """Positions from the start of the first window to the end of the last, where there are so many windows."""
        sizes = zip(outputs, self.strides, self.kernel, self.dilations, strict=True)
        return tuple((count - 1) * stride + (size - 1) * dilation + 1 for count, stride, size, dilation in sizes)

    def places(self, outputs: Sequence[int]) -> Iterator[tuple[slice, ...]]:
        """For each place in the kernel, row by row: where all windows have it in an array N x C x ``reach``."""
        whole = slice(None)
        for place in np.ndindex(*self.kernel):
            sizes = zip(place, self.dilations, outputs, self.strides, strict=True)
            starts = ((at * dilation, count, stride) for at, dilation, count, stride in sizes)
            yield (whole, whole, *(slice(at, at + (count - 1) * stride + 1, stride) for at, count, stride in starts))

    def counts(self, inputs: Sequence[int], outputs: Sequence[int], *, padding: bool) -> Array:
        """How many positions each window covers inside of the input, or of the input with its ``padding``."""
        counts = np.ones((1,) * len(self.kernel))
        for axis, (size, count) in enumerate(zip(inputs, outputs, strict=True)):
            first = np.arange(count)[:, None] * self.strides[axis] - self.begins[axis]
            positions = first + np.arange(self.kernel[axis]) * self.dilations[axis]
            low, high = (-self.begins[axis], size + self.ends[axis]) if padding else (0, size)
            covered = ((positions >= low) & (positions < high)).sum(axis=1)
            counts = counts * covered.reshape([-1 if other == axis else 1 for other in range(len(self.kernel))])
        return counts.astype(np.float32)
