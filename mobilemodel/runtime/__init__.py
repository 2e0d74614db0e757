"""Running what was converted: pictures, data, ONNX Runtime sessions, accuracy and differences."""

from mobilemodel.runtime.data import Data, read_data
from mobilemodel.runtime.evaluate import Difference, Evaluation, compare, difference, evaluate
from mobilemodel.runtime.picture import PictureLimits, crop, prepare, read_picture, resize
from mobilemodel.runtime.session import open_model, random_inputs, run, session

__all__ = [
    "Data", "Difference", "Evaluation", "PictureLimits", "compare", "crop", "difference", "evaluate", "open_model",
    "prepare", "random_inputs", "read_data", "read_picture", "resize", "run", "session",
]  # fmt: skip
