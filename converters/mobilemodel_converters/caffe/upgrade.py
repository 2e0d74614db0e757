"""Layers of older versions in the terms of V2: types by name, parameters where V2 has them.

Source: docs/formats/caffe.md §1.
"""

from __future__ import annotations

from typing import Any, NoReturn

from mobilemodel.errors import MalformedSourceError, UnsupportedSourceError
from mobilemodel_converters.caffe.schema import enum_name, message_class

# V2 writes most types as V1 does but for the case of letters and the underscores; these it writes in its own way.
_TYPES = {
    "BNLL": "BNLL", "HDF5_DATA": "HDF5Data", "HDF5_OUTPUT": "HDF5Output", "LRN": "LRN", "MVN": "MVN", "RELU": "ReLU",
    "SOFTMAX_LOSS": "SoftmaxWithLoss", "TANH": "TanH", "ARGMAX": "ArgMax", "ABSVAL": "AbsVal",
}  # fmt: skip
_MOVED = ("scale", "mean_file", "crop_size")
"""what a data layer's own parameters held before there was transform_param"""


def to_v2(layer: Any) -> Any:
    """A layer without blobs, of V1 or V2, as a LayerParameter of today.

    Raises UnsupportedSourceError for a V0 layer.
    """
    if layer.DESCRIPTOR.name == "V1LayerParameter":
        refuse_v0(layer)
        layer = _from_v1(layer)
    _move_transformation(layer)
    return layer


def _from_v1(old: Any) -> Any:
    new = message_class("LayerParameter")(name=old.name, type=v2_type(enum_name(old, "type")), bottom=old.bottom,
                                          top=old.top, include=old.include, exclude=old.exclude)  # fmt: skip
    for name in old.param:
        new.param.add(name=name)
    for field, value in old.ListFields():
        if field.name.endswith("_param"):
            getattr(new, field.name).CopyFrom(value)
    return new


def v2_type(name: str) -> str:
    """V2's type of a V1 type.

    >>> v2_type("INNER_PRODUCT"), v2_type("RELU"), v2_type("EUCLIDEAN_LOSS")
    ('InnerProduct', 'ReLU', 'EuclideanLoss')
    """
    return _TYPES.get(name) or "".join(word.capitalize() for word in name.split("_"))


def refuse_v0(old: Any) -> None:
    """Raise UnsupportedSourceError for a layer of 2013."""
    if old.HasField("layer"):
        raise UnsupportedSourceError(
            "the network is of Caffe's first format, V0 (2013)", layer=old.layer.name, expected="V1 or V2",
            advice="Caffe's own upgrade_net_proto_text and upgrade_net_proto_binary rewrite it.",
        )  # fmt: skip


def refuse_both() -> NoReturn:
    """Raise MalformedSourceError for a NetParameter with layers of both versions, as Caffe does."""
    raise MalformedSourceError("the network has layers of two versions", expected="'layer' or 'layers'", found="both")


def _move_transformation(layer: Any) -> None:
    """Let the old fields of a data layer's parameters stand in its transform_param, where that says nothing else."""
    for field, value in layer.ListFields():
        if field.name in ("data_param", "image_data_param", "window_data_param"):
            for name in _MOVED:
                if value.HasField(name) and not layer.transform_param.HasField(name):
                    setattr(layer.transform_param, name, getattr(value, name))
