"""From a source model to a bundle, and back to ask whether the bundle is right."""

from mobilemodel.pipeline.convert import convert, convert_scheme
from mobilemodel.pipeline.formats import SourceFormat, source_formats
from mobilemodel.pipeline.options import ConvertOptions, FittingOptions
from mobilemodel.pipeline.preprocessing import PreprocessingOptions
from mobilemodel.pipeline.searching import Goal, Searching, convert_within
from mobilemodel.pipeline.verify import TensorCheck, Verification, verify

__all__ = [
    "ConvertOptions", "FittingOptions", "Goal", "PreprocessingOptions", "Searching", "SourceFormat", "TensorCheck",
    "Verification", "convert", "convert_scheme", "convert_within", "source_formats", "verify",
]  # fmt: skip
