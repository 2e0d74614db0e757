"""ONNX networks that ccv can express."""

from __future__ import annotations

from onnx import ModelProto, helper

from tests.models import Net, value


def convnet() -> ModelProto:
    """Every kind of layer, two partitions in the middle, and FC layers written as Gemm and as MatMul and Add."""
    net = Net(11)
    inputs = ["x", net.weight("conv1.weight", 8, 3, 5, 5), net.weight("conv1.bias", 8)]
    net.node("Conv", *inputs, name="conv1", strides=[2, 2], pads=[1] * 4)
    net.node("Relu", "conv1", name="relu1")
    net.nodes.append(helper.make_node("Split", ["relu1"], ["a", "b"], axis=1))
    for part in "ab":
        net.node("LRN", part, name=f"lrn.{part}", size=5, alpha=0.5, beta=0.75, bias=2.0)
    net.node("Concat", "lrn.a", "lrn.b", name="norm1", axis=1)
    net.node("MaxPool", "norm1", name="pool1", kernel_shape=[2, 2], strides=[2, 2], pads=[1] * 4)
    inputs = ["pool1", net.weight("conv2.weight", 16, 4, 3, 3), net.weight("conv2.bias", 16)]
    net.node("Conv", *inputs, name="conv2", group=2, kernel_shape=[3, 3], pads=[1] * 4)
    net.node("Relu", "conv2", name="relu2")
    net.node("AveragePool", "relu2", name="pool2", kernel_shape=[4, 4], strides=[2, 2], pads=[1] * 4)
    net.node("Flatten", "pool2", name="flat")
    net.gemm("fc1", "flat", 12, 144, "fc1")
    net.node("Relu", "fc1", name="relu3")
    net.node("Dropout", "relu3", name="drop")
    net.node("MatMul", "drop", net.weight("fc2.weight", 12, 5), name="fc2")
    net.node("Add", "fc2", net.weight("fc2.bias", 5), name="sum2")
    net.node("Softmax", "sum2", name="y", axis=1)
    return net.done(value("x", ["N", 3, 21, 21]))


def classifier() -> ModelProto:
    """FC layers in the sizes of real ones, 9216 x 512 and 512 x 200, behind one convolution."""
    net = Net(12)
    net.node("Relu", net.conv("conv1", "x", 256, 3, 3, strides=[2, 2]), name="relu1")
    net.node("MaxPool", "relu1", name="pool1", kernel_shape=[3, 3], strides=[2, 2])
    net.node("Flatten", "pool1", name="flat")
    net.node("Relu", net.gemm("fc1", "flat", 512, 9216, "fc1"), name="relu2")
    net.node("MatMul", "relu2", net.weight("fc2.weight", 512, 200), name="fc2")
    net.node("Add", "fc2", net.weight("fc2.bias", 200), name="sum2")
    net.node("Softmax", "sum2", name="y", axis=1)
    return net.done(value("x", ["N", 3, 25, 25]))
