"""The networks of Q-CNN: its files hold values alone, numbered by the rows of these tables.

Every layer is a row, also those without values; its number, from 1 on, is the NN in the names of its files. The rows
are those of Q-CNN's own tables, written as Caffe layers.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from mobilemodel.errors import UsageError
from mobilemodel_converters.caffe.net import Input, Layer, Net, new_layer

INPUT = "data"
CONVOLUTION, INNER_PRODUCT = "Convolution", "InnerProduct"


@dataclass(frozen=True)
class Row:
    """One layer; its input is the row before."""

    name: str
    type: str
    parameters: dict[str, dict[str, Any]] = field(default_factory=dict)

    @property
    def weighted(self) -> bool:
        """Whether it has a weight and a bias."""
        return self.type in (CONVOLUTION, INNER_PRODUCT)


@dataclass(frozen=True)
class Topology:
    """A network that takes pictures of three channels, ``side`` pixels high and wide."""

    name: str
    side: int
    rows: tuple[Row, ...]

    def net(self) -> Net:
        """The network as Caffe layers without values."""
        layers: list[Layer] = []
        value = INPUT
        for row in self.rows:
            layers.append(new_layer(row.name, row.type, (value,), (row.name,), (), **row.parameters))
            value = row.name
        return Net(self.name, (Input(INPUT, (1, 3, self.side, self.side)),), tuple(layers))


def _conv(name: str, outputs: int, kernel: int, *, pad: int = 0, stride: int = 1, group: int = 1) -> tuple[Row, Row]:
    sizes = {"num_output": outputs, "kernel_size": [kernel], "pad": [pad], "stride": [stride], "group": group}
    return Row(name, CONVOLUTION, {"convolution_param": sizes}), _relu(name)


def _relu(name: str) -> Row:
    return Row(name.replace("conv", "relu").replace("fc", "relu"), "ReLU")


def _norm(name: str, alpha: float = 1e-4, k: float = 1.0) -> Row:
    return Row(name, "LRN", {"lrn_param": {"local_size": 5, "alpha": alpha, "beta": 0.75, "k": k}})


def _pool(name: str, kernel: int, stride: int) -> Row:
    return Row(name, "Pooling", {"pooling_param": {"kernel_size": kernel, "stride": stride}})


def _full(name: str, outputs: int) -> Row:
    return Row(name, INNER_PRODUCT, {"inner_product_param": {"num_output": outputs}})


def _classifier(width: int = 4096, classes: int = 1000) -> tuple[Row, ...]:
    return (
        _full("fc6", width), _relu("fc6"), Row("drop6", "Dropout"),
        _full("fc7", width), _relu("fc7"), Row("drop7", "Dropout"),
        _full("fc8", classes), Row("prob", "Softmax"),
    )  # fmt: skip


def _block(number: int, outputs: int, count: int) -> tuple[Row, ...]:
    """A block of VGG-16: 3x3 convolutions, then half the size."""
    rows = [row for i in range(count) for row in _conv(f"conv{number}_{i + 1}", outputs, 3, pad=1)]
    return (*rows, _pool(f"pool{number}", 2, 2))


_ALEXNET_TAIL = (
    *_conv("conv3", 384, 3, pad=1), *_conv("conv4", 384, 3, pad=1, group=2), *_conv("conv5", 256, 3, pad=1, group=2),
    _pool("pool5", 3, 2), *_classifier(),
)  # fmt: skip
_ALL = (
    Topology("alexnet", 227, (
        *_conv("conv1", 96, 11, stride=4), _norm("norm1"), _pool("pool1", 3, 2),
        *_conv("conv2", 256, 5, pad=2, group=2), _norm("norm2"), _pool("pool2", 3, 2),
        *_ALEXNET_TAIL,
    )),
    Topology("caffenet", 227, (
        *_conv("conv1", 96, 11, stride=4), _pool("pool1", 3, 2), _norm("norm1"),
        *_conv("conv2", 256, 5, pad=2, group=2), _pool("pool2", 3, 2), _norm("norm2"),
        *_ALEXNET_TAIL,
    )),
    Topology("vgg-cnn-s", 224, (
        *_conv("conv1", 96, 7, stride=2), _norm("norm1", 5e-4, 2.0), _pool("pool1", 3, 3),
        *_conv("conv2", 256, 5, pad=1), _pool("pool2", 2, 2),
        *_conv("conv3", 512, 3, pad=1), *_conv("conv4", 512, 3, pad=1), *_conv("conv5", 512, 3, pad=1),
        _pool("pool5", 3, 3), *_classifier(),
    )),
    Topology("vgg16", 224, (
        *_block(1, 64, 2), *_block(2, 128, 2), *_block(3, 256, 3), *_block(4, 512, 3), *_block(5, 512, 3),
        *_classifier(),
    )),
)  # fmt: skip
TOPOLOGIES = {topology.name: topology for topology in _ALL}


def find_topology(name: str) -> Topology:
    """The table called ``name``; raises UsageError that lists them where there is none.

    >>> find_topology("alexnet").rows[15].name
    'fc6'
    """
    if name not in TOPOLOGIES:
        raise UsageError(
            "Q-CNN files do not say which network they are of", expected=", ".join(TOPOLOGIES), found=name or "nothing",
            advice="Name it: --topology alexnet",
        )  # fmt: skip
    return TOPOLOGIES[name]
