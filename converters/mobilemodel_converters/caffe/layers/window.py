"""Windows that move over a picture: their measures, and what Caffe makes of them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from mobilemodel.errors import LimitExceededError
from mobilemodel.limits import FORMAT_LIMITS
from mobilemodel_converters.caffe.scope import Scope

Pair = tuple[int, int]
"""along the height, along the width"""


@dataclass(frozen=True)
class Window:
    """Measures of a window along height and width, in pixels; ``pad`` is put on both sides."""

    kernel: Pair
    stride: Pair = (1, 1)
    pad: Pair = (0, 0)
    dilation: Pair = (1, 1)

    def check(self, scope: Scope) -> None:
        """Raises MalformedSourceError for a size of 0, LimitExceededError for a window larger than any picture."""
        if not all((*self.kernel, *self.stride, *self.dilation)):
            scope.malformed("a window whose kernel_size, stride or dilation is 0", found=self)
        largest = max(*self.extent, *self.stride, *self.pad)
        if largest > FORMAT_LIMITS.picture_side:
            raise LimitExceededError(f"{scope.layer.type}: a window's measure", found=largest,
                                     expected=f"at most {FORMAT_LIMITS.picture_side} pixels")  # fmt: skip

    @property
    def extent(self) -> Pair:
        """Pixels from the first to the last that the window sees, both included."""
        (height, width), (down, across) = self.kernel, self.dilation
        return (height - 1) * down + 1, (width - 1) * across + 1

    def places(self, size: int, axis: int, overhang: int = 0) -> int:
        """How often the window fits along an axis of this size: height 0, width 1; at the end it may hang over by so
        many pixels.
        """
        return (size + 2 * self.pad[axis] + overhang - self.extent[axis]) // self.stride[axis] + 1

    def reach(self, places: int, axis: int) -> int:
        """The size of an axis that so many places of the window cover, the padding cut off."""
        return self.stride[axis] * (places - 1) + self.extent[axis] - 2 * self.pad[axis]

    def attributes(self) -> dict[str, Any]:
        """The window as attributes of an ONNX convolution."""
        return {"kernel_shape": self.kernel, "strides": self.stride, "pads": self.pad * 2, "dilations": self.dilation}
