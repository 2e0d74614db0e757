"""What people who have used Caffe for years expect of a conversion, and would not forgive: found by trying."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mobilemodel.errors import MalformedSourceError, UsageError
from mobilemodel.pipeline import ConvertOptions, PreprocessingOptions, convert
from mobilemodel.v1 import bundle_pb2 as pb
from mobilemodel_converters import find_converter
from mobilemodel_converters.caffe import CaffeConverter
from tests.caffe_files import blob, layer, load, net, pair, small, text, values, weights_of, write


def ip(name: str, bottom: str, top: str, inputs: int, outputs: int) -> Any:
    return layer(name, "InnerProduct", bottom, top, [values(outputs, inputs)],
                 inner_product_param={"num_output": outputs, "bias_term": False})  # fmt: skip


def conv(name: str, bottom: str, top: str) -> Any:
    return layer(name, "Convolution", bottom, top, [values(2, 2, 1, 1), values(2)],
                 convolution_param={"num_output": 2, "kernel_size": [1]})  # fmt: skip


def output_of(made: Any, folder: Path) -> Any:
    """The one output of a caffemodel."""
    model = load(write(folder, "net.caffemodel", made))
    model.close()
    (output,) = model.outputs
    return output


def test_an_output_keeps_its_name_where_a_layer_before_has_it(tmp_path: Path) -> None:
    """An application asks for ``prob``: a layer of that name that works in place elsewhere does not take it."""
    made = net(
        ip("ip", "data", "ip", 6, 4), layer("prob", "ReLU", "ip", "ip"), layer("sigmoid", "Sigmoid", "ip", "ip"),
        layer("out", "Softmax", "ip", "prob"), shape=(1, 6),
    )  # fmt: skip
    assert output_of(made, tmp_path).name == "prob"


def test_an_output_called_like_the_input_is_said(tmp_path: Path) -> None:
    """A last layer that works in place on ``data``: a graph cannot give an input and an output the same name."""
    model = load(write(tmp_path, "net.caffemodel", net(conv("conv", "data", "data"), shape=(1, 2, 3, 3))))
    model.close()
    assert [output.name for output in model.outputs] == ["data_2"]
    assert [note for note in model.notes if "'data' is called 'data_2'" in note]


def test_layers_without_a_name(tmp_path: Path) -> None:
    """Their values are called after their type and their place in the network."""
    made = net(layer("", "ReLU", "data", "a"), conv("", "a", "b"), conv("named", "b", "c"), shape=(1, 2, 3, 3))
    model = load(write(tmp_path, "net.caffemodel", made))
    assert set(weights_of(model)) == {"Convolution-1.weight", "Convolution-1.bias", "named.weight", "named.bias"}


def test_layers_of_one_name_keep_the_values_they_hold(tmp_path: Path) -> None:
    """In a caffemodel alone each layer has its own blobs; by a prototxt, both get those of the first, which is said."""
    made = net(ip("ip", "data", "a", 4, 4), ip("ip", "a", "b", 4, 4), shape=(1, 4))
    first, second = (np.float32(item.blobs[0].data).tobytes() for item in made.layer)
    alone = load(write(tmp_path, "alone.caffemodel", made))
    assert not alone.notes
    assert [value.tobytes() for value in weights_of(alone).values()] == [first, second]
    model = load(*pair(tmp_path, made, made))
    assert [note for note in model.notes if "same name" in note and note.endswith("ip")]
    assert [value.tobytes() for value in weights_of(model).values()] == [first, first]


def test_a_matrix_the_other_way_round_is_refused(tmp_path: Path) -> None:
    """As many values, but in another order: Caffe refuses to copy such blobs too."""
    described = net(ip("ip", "data", "ip", 6, 4), shape=(1, 6))
    turned = net(layer("ip", "InnerProduct", "data", "ip", [values(6, 4)]))
    with pytest.raises(MalformedSourceError, match=r"layer 'ip'.*blob 0: expected the shape \(4, 6\), found \(6, 4\)"):
        load(*pair(tmp_path, described, turned))


@pytest.mark.parametrize("stored", [(4, 6), (1, 1, 4, 6), (4, 3, 2, 1), (24,), (4, 1, 6)])
def test_the_same_order_in_other_axes_is_taken(stored: tuple[int, ...], tmp_path: Path) -> None:
    """Files of old have four axes, and weights of FC layers come from convolutions and go to them."""
    described = net(ip("ip", "data", "ip", 6, 4), shape=(1, 6))
    weighted = net(layer("ip", "InnerProduct", "data", "ip", [values(*stored)]))
    assert weights_of(load(*pair(tmp_path, described, weighted)))["ip.weight"].shape == (4, 6)


@pytest.mark.parametrize(("said", "size"), [("", 3), ("ceil_mode: true", 3), ("ceil_mode: false", 2)])
def test_the_ceil_mode_of_forks(said: str, size: int, tmp_path: Path) -> None:
    """Forks of Caffe have a flag of this name where Caffe has round_mode; a text says which one it means."""
    topology = f"""input: "data" input_shape {{ dim: 1 dim: 2 dim: 6 dim: 6 }}
        layer {{ name: "c" type: "Convolution" bottom: "data" top: "c"
                 convolution_param {{ num_output: 2 kernel_size: 1 }} }}
        layer {{ name: "p" type: "Pooling" bottom: "c" top: "p"
                 pooling_param {{ kernel_size: 3 stride: 2 {said} }} }}"""
    model = load(write(tmp_path, "net.prototxt", topology.encode()),
                 write(tmp_path, "net.caffemodel", net(conv("c", "data", "c"))))  # fmt: skip
    model.close()
    assert [dim.size for dim in model.outputs[0].shape.dimensions][2:] == [size, size]


def test_comments_in_any_encoding(tmp_path: Path) -> None:
    made = small()
    commented = "# 训练\n".encode("gbk") + b'name: "a # b" # r\xe9seau "\n' + text(made).split(b"\n", 1)[1]
    model = load(write(tmp_path, "net.prototxt", commented), write(tmp_path, "net.caffemodel", made))
    assert len(weights_of(model)) == 4


def test_an_empty_file_is_named(tmp_path: Path) -> None:
    topology, empty = write(tmp_path, "net.prototxt", text(small())), write(tmp_path, "net.caffemodel", b"")
    with pytest.raises(MalformedSourceError, match=r"net\.caffemodel: the file is empty"):
        CaffeConverter().load([topology, empty])
    with pytest.raises(UsageError, match=r"net\.prototxt with .*net\.caffemodel: no converter knows these files"):
        find_converter([topology, empty])


def test_a_mean_of_caffe_is_blue_green_red(tmp_path: Path) -> None:
    """Caffe's tools write mean pictures as OpenCV has its colours; who knows better says --channels."""
    path = write(tmp_path, "mean.binaryproto", blob(values(1, 3, 5, 5), legacy=True))
    for said, meant in ((None, pb.COLOUR_ORDER_BGR), ("rgb", pb.COLOUR_ORDER_RGB)):
        step, _ = PreprocessingOptions(mean=str(path), channels=said).message()
        assert step.colour_order == meant
    np.save(tmp_path / "mean.npy", np.zeros((5, 5, 3)))
    assert PreprocessingOptions(mean=f"{tmp_path}/mean.npy").message()[0].colour_order == pb.COLOUR_ORDER_RGB


def test_preprocessing_that_options_replace_is_said(tmp_path: Path) -> None:
    """A crop given on the command line is not added to what the file says: it takes its place."""
    kernel = layer("c", "Convolution", "data", "c", [values(2, 3, 1, 1)],
                   convolution_param={"num_output": 2, "kernel_size": [1], "bias_term": False})  # fmt: skip
    data = layer("data", "Data", "", "data", transform_param={"mean_value": [104, 117, 123], "crop_size": 8})
    weights = write(tmp_path, "net.caffemodel", net(data, kernel))
    step, _ = PreprocessingOptions(crop="8").message()
    report = convert(weights, tmp_path / "net.mm", options=ConvertOptions(preprocessing=step))
    assert [note for note in report.notes if "replaces" in note and "bgr; minus 104, 117, 123" in note]


def test_a_mean_file_comes_with_the_options_that_go_with_it(tmp_path: Path) -> None:
    data = layer("data", "Data", "", "data", transform_param={"mean_file": "a/m.binaryproto", "crop_size": 8,
                                                              "scale": 0.5})  # fmt: skip
    kernel = layer("c", "Convolution", "data", "c", [values(2, 3, 1, 1)],
                   convolution_param={"num_output": 2, "kernel_size": [1], "bias_term": False})  # fmt: skip
    model = load(write(tmp_path, "net.caffemodel", net(data, kernel)))
    model.close()
    assert [note for note in model.notes if note.endswith("--mean FILE.binaryproto --crop 8 --scale 0.5")]
