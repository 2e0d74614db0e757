"""mobilemodel: small bundles of trained networks for phones, and the tools around them."""

from __future__ import annotations

from mobilemodel.bundle import Bundle, Tensor
from mobilemodel.bundle import open_bundle as open  # noqa: A004 - the verb users expect
from mobilemodel.errors import MobileModelError

__version__ = "0.1.0"
FORMAT_VERSION = "1.0"

__all__ = ["FORMAT_VERSION", "Bundle", "MobileModelError", "Tensor", "__version__", "open"]
