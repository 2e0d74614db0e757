"""From a source model to a bundle, and back to ask whether the bundle is right."""

from mobilemodel.pipeline.convert import ConvertOptions, convert
from mobilemodel.pipeline.formats import SourceFormat, source_formats
from mobilemodel.pipeline.preprocessing import PreprocessingOptions
from mobilemodel.pipeline.verify import TensorCheck, Verification, verify

__all__ = [
    "ConvertOptions", "PreprocessingOptions", "SourceFormat", "TensorCheck", "Verification", "convert",
    "source_formats", "verify",
]  # fmt: skip
