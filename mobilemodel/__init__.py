"""mobilemodel: small bundles of trained networks for phones, and the tools around them.

    import mobilemodel as mm

    report = mm.convert("alexnet.onnx", "out.mm", scheme="mixed-4-8")
    with mm.open("out.mm") as bundle:
        weights = bundle["fc6.weight"].numpy()

Reading needs numpy, protobuf and zstandard; what converts and runs is imported when it is first used.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from mobilemodel.bundle import Bundle, Tensor, parse_bundle
from mobilemodel.bundle import open_bundle as open  # noqa: A004 - the verb users expect
from mobilemodel.errors import MobileModelError
from mobilemodel.limits import Limits

if TYPE_CHECKING:
    from mobilemodel.exporter import export
    from mobilemodel.pipeline.convert import convert
    from mobilemodel.pipeline.options import ConvertOptions, FittingOptions
    from mobilemodel.pipeline.preprocessing import PreprocessingOptions
    from mobilemodel.pipeline.searching import Goal, convert_within
    from mobilemodel.pipeline.verify import verify
    from mobilemodel.runtime.comparison import evaluate_models
    from mobilemodel.runtime.data import read_data
    from mobilemodel.runtime.drawn import drawn_data
    from mobilemodel.runtime.evaluate import evaluate
    from mobilemodel.runtime.session import session

__version__ = "0.1.0"
FORMAT_VERSION = "1.0"

_LAZY = {
    "ConvertOptions": "mobilemodel.pipeline", "FittingOptions": "mobilemodel.pipeline",
    "Goal": "mobilemodel.pipeline", "PreprocessingOptions": "mobilemodel.pipeline",
    "convert": "mobilemodel.pipeline", "convert_within": "mobilemodel.pipeline", "drawn_data": "mobilemodel.runtime",
    "evaluate": "mobilemodel.runtime", "evaluate_models": "mobilemodel.runtime",
    "export": "mobilemodel.exporter", "read_data": "mobilemodel.runtime",
    "session": "mobilemodel.runtime", "verify": "mobilemodel.pipeline",
}  # fmt: skip

__all__ = [
    "FORMAT_VERSION", "Bundle", "ConvertOptions", "FittingOptions", "Goal", "Limits", "MobileModelError",
    "PreprocessingOptions", "Tensor", "__version__", "convert", "convert_within", "drawn_data", "evaluate",
    "evaluate_models", "export", "open", "parse_bundle", "read_data", "session", "verify",
]  # fmt: skip


def __getattr__(name: str) -> Any:
    if name in _LAZY:
        return getattr(import_module(_LAZY[name]), name)
    raise AttributeError(f"module 'mobilemodel' has no attribute '{name}'")
