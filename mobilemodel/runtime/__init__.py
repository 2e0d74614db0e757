"""Running what was converted: pictures, data, ONNX Runtime sessions, accuracy and differences."""

from mobilemodel.runtime.comparison import Beside, Comparison, ModelEvaluation, class_scores, evaluate_models
from mobilemodel.runtime.data import Data, read_data
from mobilemodel.runtime.drawn import drawn_data
from mobilemodel.runtime.evaluate import Difference, Evaluation, compare, difference, evaluate
from mobilemodel.runtime.paired import PairedDifference, mcnemar, paired_difference, paired_interval
from mobilemodel.runtime.picture import PictureLimits, crop, prepare, read_picture, resize
from mobilemodel.runtime.scores import agreement, mean_divergence, top1
from mobilemodel.runtime.session import open_model, random_inputs, run, session

__all__ = [
    "Beside", "Comparison", "Data", "Difference", "Evaluation", "ModelEvaluation", "PairedDifference", "PictureLimits",
    "agreement", "class_scores", "compare", "crop", "difference", "drawn_data", "evaluate", "evaluate_models",
    "mcnemar", "mean_divergence", "open_model", "paired_difference", "paired_interval", "prepare", "random_inputs",
    "read_data", "read_picture", "resize", "run", "session", "top1",
]  # fmt: skip
