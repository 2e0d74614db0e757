"""From a source model to a bundle, and back to ask whether the bundle is right."""

from mobilemodel.pipeline.convert import ConvertOptions, convert
from mobilemodel.pipeline.preprocessing import PreprocessingOptions
from mobilemodel.pipeline.verify import TensorCheck, Verification, verify

__all__ = ["ConvertOptions", "PreprocessingOptions", "TensorCheck", "Verification", "convert", "verify"]
