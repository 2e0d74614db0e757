"""What each Caffe layer is in ONNX: one module for a family of layers, each with a table of type names and rules.

A rule gets a Scope, reads its inputs, and adds the nodes whose values are the layer's tops.
"""

from __future__ import annotations

from collections.abc import Callable

from mobilemodel_converters.caffe.layers import (
    activation,
    convolution,
    detection,
    elementwise,
    inner_product,
    lookup,
    normalization,
    placing,
    pooling,
    prior_box,
    reduction,
    shaping,
)
from mobilemodel_converters.caffe.scope import Scope

Rule = Callable[[Scope], None]
RULES: dict[str, Rule] = {
    **activation.RULES,
    **convolution.RULES,
    **detection.RULES,
    **elementwise.RULES,
    **inner_product.RULES,
    **lookup.RULES,
    **normalization.RULES,
    **placing.RULES,
    **pooling.RULES,
    **prior_box.RULES,
    **reduction.RULES,
    **shaping.RULES,
}
"""type of a layer, as V2 files write it -> its rule"""
WHY_NOT: dict[str, str] = {
    "Python": "runs code that is not in the file",
    "RNN": "recurrent layers are not converted",
    "LSTM": "recurrent layers are not converted",
    "Recurrent": "recurrent layers are not converted",
    "BatchReindex": "its output depends on the values of its input",
    "Filter": "its output depends on the values of its input",
    "HDF5Output": "it writes a file",
}
"""types that are known and not converted, and why"""
