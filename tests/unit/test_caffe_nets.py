"""From what a Caffe file says to a network for inference: phases, inputs, pruning, weights."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mobilemodel.errors import MalformedSourceError, MobileModelError, UnsupportedSourceError, UsageError
from mobilemodel.model import NO_OPTIONS, Model, SourceOptions
from mobilemodel_converters.caffe.importer import read_topology
from mobilemodel_converters.caffe.net import Net
from tests import caffe_files as files
from tests.caffe_files import layer, load, net, pair, values, weights_of, write


def topology(made: Any, folder: Path, shape: tuple[int | None, ...] = ()) -> Net:
    """What a network is for inference, read from its text."""
    path = write(folder, "net.prototxt", files.text(made))
    return read_topology(path, SourceOptions(input_shape=shape) if shape else NO_OPTIONS)


def names(found: Net) -> list[str]:
    return [item.name for item in found.layers]


def relu(name: str, bottom: str, top: str, **fields: Any) -> Any:
    return layer(name, "ReLU", bottom, top, **fields)


def ip(name: str, bottom: str, top: str, inputs: int = 6, outputs: int = 4, **fields: Any) -> Any:
    """An InnerProduct without bias."""
    return layer(name, "InnerProduct", bottom, top, [values(outputs, inputs)],
                 inner_product_param={"num_output": outputs, "bias_term": False}, **fields)  # fmt: skip


TRAIN, TEST = 0, 1
RULES = [
    ({}, True),
    ({"phase": TRAIN}, True),
    ({"include": [{"phase": TEST}]}, True),
    ({"include": [{"phase": TRAIN}]}, False),
    ({"include": [{"phase": TRAIN}, {"phase": TEST}]}, True),
    ({"exclude": [{"phase": TRAIN}]}, True),
    ({"exclude": [{"phase": TEST}]}, False),
    ({"include": [{"min_level": 1}]}, False),
    ({"include": [{"min_level": 0, "max_level": 0}]}, True),
    ({"include": [{"max_level": -1}]}, False),
    ({"include": [{"stage": ["deploy"]}]}, False),
    ({"exclude": [{"stage": ["deploy"]}]}, True),
    ({"include": [{"not_stage": ["deploy"]}]}, True),
    ({"exclude": [{"not_stage": ["deploy"]}]}, False),
    ({"include": [{"phase": TEST, "stage": ["deploy"]}]}, False),
    ({"exclude": [{}]}, False),
]


@pytest.mark.parametrize(("rules", "there"), RULES)
def test_phase_rules(rules: dict[str, Any], there: bool, tmp_path: Path) -> None:
    """docs/formats/caffe.md §1: phase TEST, level 0, no stages; without include a layer is there unless an exclude rule
    matches, with include if one of them matches. ``layer.phase`` is what was stamped at saving, and no rule."""
    found = topology(net(relu("a", "data", "a"), relu("b", "a", "b", **rules), shape=(1, 2)), tmp_path)
    assert names(found) == (["a", "b"] if there else ["a"])


def test_the_file_s_own_state(tmp_path: Path) -> None:
    """As in Caffe, its level and stages count; its phase does not."""
    state = {"phase": TRAIN, "level": 2, "stage": ["deploy"]}
    made = net(
        relu("a", "data", "a", include=[{"stage": ["deploy"], "min_level": 2}]),
        relu("b", "a", "b", include=[{"phase": TRAIN}]),
        relu("c", "a", "c", include=[{"not_stage": ["deploy"]}]),
        shape=(1, 2), state=state,
    )  # fmt: skip
    assert names(topology(made, tmp_path)) == ["a"]


def test_include_and_exclude_together(tmp_path: Path) -> None:
    made = net(relu("a", "data", "a", include=[{}], exclude=[{}]), shape=(1, 2))
    with pytest.raises(MalformedSourceError, match=r"net\.prototxt: layer 'a': .*both include and exclude"):
        topology(made, tmp_path)


def one_relu(**fields: Any) -> Any:
    return net(relu("a", "data", "a"), **fields)


def source(kind: str, tops: str = "data label", **fields: Any) -> Any:
    """A data layer."""
    return layer("source", kind, "", tops, **fields)


def shaped(*sizes: int) -> dict[str, Any]:
    return {"dim": sizes}


INPUTS = [
    (one_relu(input=["data"], input_dim=[1, 3, 8, 9]), (1, 3, 8, 9)),
    (one_relu(input=["data"], input_shape=[shaped(2, 5)]), (2, 5)),
    (net(source("Input", "data", input_param={"shape": [shaped(4, 3)]}), relu("a", "data", "a")), (4, 3)),
    (net(source("Input", "x data", input_param={"shape": [shaped(4, 3)]}), relu("a", "data", "a")), (4, 3)),
    (net(source("Input", "x data", input_param={"shape": [shaped(4), shaped(7)]}), relu("a", "data", "a")), (7,)),
    (net(source("DummyData", dummy_data_param={"shape": [shaped(4, 3)]}), relu("a", "data", "a")), (4, 3)),
    (net(source("DummyData", dummy_data_param={"num": [1, 2], "channels": [3, 4], "height": [5, 6], "width": [7, 8]}),
         relu("a", "data", "a")), (1, 3, 5, 7)),
    (net(source("MemoryData", memory_data_param={"batch_size": 64, "channels": 3, "height": 8, "width": 9}),
         relu("a", "data", "a")), (1, 3, 8, 9)),
    (net(source("Data", transform_param={"crop_size": 8, "mean_value": [1, 2, 3]}), relu("a", "data", "a")),
     (1, 3, 8, 8)),
    (net(source("Data", transform_param={"crop_size": 8, "force_gray": True}), relu("a", "data", "a")), (1, 1, 8, 8)),
    (net(source("ImageData", transform_param={"crop_size": 8, "force_color": True}), relu("a", "data", "a")),
     (1, 3, 8, 8)),
]  # fmt: skip


@pytest.mark.parametrize(("made", "shape"), INPUTS)
def test_what_comes_in(made: Any, shape: tuple[int, ...], tmp_path: Path) -> None:
    found = topology(made, tmp_path)
    assert [(item.name, item.shape) for item in found.inputs] == [("data", shape)]
    said = (9, *(None,) * (len(shape) - 1))
    assert topology(made, tmp_path, said).inputs[0].shape == said


@pytest.mark.parametrize(
    ("made", "kind", "said"),
    [
        (one_relu(input=["data"]), UsageError, "--input-shape"),
        (net(source("HDF5Data"), relu("a", "data", "a")), UsageError, r"input 'data' of layer 'source' \(HDF5Data\)"),
        (net(source("Data", transform_param={"crop_size": 8}), relu("a", "data", "a")), UsageError, "--input-shape"),
        (one_relu(input=["data"], input_dim=[1, 3, 8]), MalformedSourceError, "4 sizes for each of 1 inputs"),
        (one_relu(input=["data"], input_dim=[1, 3, 0, 8]), MalformedSourceError, "sizes of 1 to"),
        (one_relu(input=["data"], input_shape=[shaped(1, -3)]), MalformedSourceError, "sizes of 1 to"),
        (one_relu(input=["data"], input_shape=[shaped(1, 2**40)]), MalformedSourceError, "sizes of 1 to"),
        (one_relu(input=["data"], input_shape=[shaped(1), shaped(2)]), MalformedSourceError, "input_shape"),
        (one_relu(input=["data"], input_shape=[shaped(1)], input_dim=[1, 2, 3, 4]), MalformedSourceError, "both"),
        (net(source("Input", "a b c", input_param={"shape": [shaped(1), shaped(2)]}), relu("r", "a", "r")),
         MalformedSourceError, "layer 'source'"),
        (net(layer("d", "Data", "x", "data"), relu("a", "data", "a")), MalformedSourceError, "takes no bottoms"),
        (net(ip("a", "data", "a"), layer("s", "Silence", "a"), shape=(1, 6)), UnsupportedSourceError, "no layer of"),
    ],
)  # fmt: skip
def test_inputs_that_cannot_be(made: Any, kind: type[MobileModelError], said: str, tmp_path: Path) -> None:
    with pytest.raises(kind, match=said) as caught:
        topology(made, tmp_path)
    assert caught.value.file == str(tmp_path / "net.prototxt")


def test_a_bottom_from_nowhere(tmp_path: Path) -> None:
    with pytest.raises(UnsupportedSourceError, match=r"layer 'a': bottom 'data' is made by no layer"):
        load(write(tmp_path, "net.caffemodel", net(ip("a", "data", "a"))))


def test_a_given_shape_fits_one_input_of_its_rank(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="does not fit the input"):
        topology(one_relu(input=["data"], input_dim=[1, 3, 8, 8]), tmp_path, (1, 3, 8))
    with pytest.raises(UsageError, match="sizes of 1 to"):
        topology(one_relu(input=["data"]), tmp_path, (1, 0))
    two = net(layer("sum", "Eltwise", "data other", "sum"), input=["data", "other"], input_dim=[1, 3, 8, 8] * 2)
    with pytest.raises(UsageError, match="networks of one input: found data, other"):
        topology(two, tmp_path, (1, 3, 8, 8))


def test_the_data_layer_of_phase_test_counts(tmp_path: Path) -> None:
    """Training files have one for each phase, under one name; what is excluded counts where there is no other."""
    layers = [
        source("Data", include=[{"phase": phase}], transform_param={"crop_size": size, "force_color": True})
        for phase, size in ((TRAIN, 8), (TEST, 9))
    ]
    assert topology(net(*layers, relu("a", "data", "a")), tmp_path).inputs[0].shape == (1, 3, 9, 9)
    assert topology(net(layers[0], relu("a", "data", "a")), tmp_path).inputs[0].shape == (1, 3, 8, 8)


def test_channels_by_the_first_convolution(tmp_path: Path) -> None:
    """A crop without channels: the convolution's weights have them, in groups, whatever Splits stand between."""
    made = net(
        source("Data", transform_param={"crop_size": 8}),
        layer("data_split", "Split", "data", "data_0 data_1"),
        layer("conv", "Convolution", "data_1", "conv", [values(4, 3, 3, 3), values(4)],
              convolution_param={"num_output": 4, "kernel_size": [3], "group": 2}),
    )  # fmt: skip
    model = load(write(tmp_path, "net.caffemodel", made))
    assert [[d.size for d in value.shape.dimensions][1:] for value in model.inputs] == [[6, 8, 8]]
    model.close()


def snapshot(**data: Any) -> Any:
    """What a solver saves, as in MTCNN: labels come first and are sliced, Splits stand everywhere, phase TRAIN."""
    return net(
        layer("source", "HDF5Data", "", "label data", include=[{"phase": TRAIN}], phase=TRAIN, **data),
        layer("slicer", "Slice", "label", "label1 label2 label3", slice_param={"slice_point": [1, 5]}),
        layer("label1_split", "Split", "label1", "label1_split_0 label1_split_1"),
        layer("silence", "Silence", "label3"),
        ip("ip", "data", "ip"), relu("relu", "ip", "ip"), layer("drop", "Dropout", "ip", "ip"),
        layer("ip_relu_0_split", "Split", "ip", "ip_relu_0_split_0 ip_relu_0_split_1 ip_relu_0_split_2"),
        ip("class", "ip_relu_0_split_0", "class", 4, 3),
        layer("class_split", "Split", "class", "class_split_0 class_split_1"),
        ip("box", "ip_relu_0_split_1", "box", 4, 2),
        ip("score", "ip_relu_0_split_2", "score", 4, 5),
        layer("loss1", "SoftmaxWithLoss", "class_split_0 label1_split_0", "loss1", softmax_param={"axis": -1}),
        layer("loss2", "EuclideanLoss", "box label2", "loss2"),
        layer("loss3", "SigmoidCrossEntropyLoss", "score label2", "loss3"),
        layer("accuracy", "Accuracy", "class_split_1 label1_split_1", "accuracy"),
        name="snapshot",
    )  # fmt: skip


def test_a_snapshot_of_training(tmp_path: Path) -> None:
    """Labels, losses and measures go; a SoftmaxWithLoss leaves its Softmax, a SigmoidCrossEntropyLoss its Sigmoid."""
    found = topology(snapshot(), tmp_path, (1, 6))
    assert [item.name for item in found.inputs] == ["data"]
    assert [item.name for item in found.layers if item.type != "Split"] == [
        "ip", "relu", "drop", "class", "box", "score", "loss1", "loss3",
    ]  # fmt: skip
    assert found.outputs == ("box", "class_softmax", "score_sigmoid")
    assert found.layers[-2].type == "Softmax"
    assert found.layers[-2].message.softmax_param.axis == -1
    said = " ".join(found.notes)
    for word in ("'loss1' (SoftmaxWithLoss) became a Softmax", "'accuracy' (Accuracy)", "'slicer' (Slice)",
                 "'silence' (Silence)", "'loss2' (EuclideanLoss)", "data layer 'source'"):  # fmt: skip
        assert word in said


def run(model: Model, folder: Path, x: Any) -> dict[str, Any]:
    from mobilemodel.runtime import run as run_session
    from mobilemodel.runtime import session
    from mobilemodel_converters.onnx.build import restore

    read = {tensor.name: tensor.read for tensor in model.tensors}
    graph = restore(model.build_graph(frozenset()), lambda name: bytes(read[name]()))
    model.close()
    return run_session(session(graph.SerializeToString()), {"data": x})


def test_a_snapshot_runs(tmp_path: Path) -> None:
    made = snapshot()
    x = values(2, 6)
    kernels = {item.name: np.array(item.blobs[0].data).reshape(item.blobs[0].shape.dim)
               for item in made.layer if len(item.blobs)}  # fmt: skip
    found = run(load(write(tmp_path, "net.caffemodel", made), shape=(1, 6)), tmp_path, x)
    hidden = np.maximum(x @ kernels["ip"].T, 0)
    scores = np.exp(hidden @ kernels["class"].T)
    assert list(found) == ["box", "class_softmax", "score_sigmoid"]
    np.testing.assert_allclose(found["class_softmax"], scores / scores.sum(1, keepdims=True), rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(found["box"], hidden @ kernels["box"].T, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(found["score_sigmoid"], 1 / (1 + np.exp(-hidden @ kernels["score"].T)), rtol=1e-4,
                               atol=1e-6)  # fmt: skip


PRUNED = [
    # A measure alone takes the last blob: it is the output.
    ([ip("ip", "data", "ip"), layer("accuracy", "Accuracy", "ip label", "accuracy")], ("ip",)),
    # The loss has the output of its softmax as a second top.
    ([ip("ip", "data", "ip"), layer("loss", "SoftmaxWithLoss", "ip label", "loss prob")], ("prob",)),
    # An in-place layer after a loss writes the name anew: the loss takes the value before.
    ([ip("ip", "data", "ip"), layer("loss", "EuclideanLoss", "ip label", "loss"), relu("relu", "ip", "ip")],
     ("ip_of_ip", "ip")),
    # Both bottoms of a loss are the network's own.
    ([ip("a", "data", "a"), ip("b", "data", "b"), layer("loss", "ContrastiveLoss", "a b label", "loss")], ("a", "b")),
    # A blob that another layer takes too is an output where a loss takes it.
    ([ip("a", "data", "a"), layer("loss", "HingeLoss", "a label", "loss"), ip("b", "a", "b", 4)], ("a", "b")),
    # What is silenced is no output.
    ([ip("a", "data", "a"), ip("b", "data", "b"), layer("silence", "Silence", "a", "")], ("b",)),
    # Nor is a label that is left when another one is silenced.
    ([ip("ip", "data", "ip"), layer("slice", "Slice", "label", "x y"), layer("silence", "Silence", "x", "")], ("ip",)),
    # A network in use keeps all that no layer takes, learned or not.
    ([relu("a", "data", "a"), layer("s", "Split", "data", "x y"), relu("b", "y", "b")], ("a", "b")),
    # A name that is there already.
    ([ip("ip", "data", "ip"), relu("r", "ip", "ip_softmax"), layer("loss", "SoftmaxWithLoss", "ip label", "l")],
     ("ip_softmax", "ip_softmax_2")),
]  # fmt: skip


@pytest.mark.parametrize(("layers", "outputs"), PRUNED)
def test_outputs(layers: list[Any], outputs: tuple[str, ...], tmp_path: Path) -> None:
    made = net(*layers, input=["data", "label"], input_shape=[shaped(1, 6), shaped(1)])
    assert topology(made, tmp_path).outputs == outputs


def test_an_overwritten_output_keeps_its_value(tmp_path: Path) -> None:
    made = net(ip("ip", "data", "ip"), layer("loss", "EuclideanLoss", "ip label", "loss"), relu("relu", "ip", "ip"),
               input=["data", "label"], input_shape=[shaped(1, 6), shaped(1)])  # fmt: skip
    found = run(load(write(tmp_path, "net.caffemodel", made)), tmp_path, values(20, 6))
    assert (found["ip"] == np.maximum(found["ip_of_ip"], 0)).all()
    assert (found["ip_of_ip"] < 0).any()


def test_weights_by_name(tmp_path: Path) -> None:
    """The prototxt decides, the model gives values by name; the first of a name counts, others are named in a note."""
    described = net(ip("a", "data", "x"), ip("b", "x", "y", 4), shape=(1, 6))
    weighted = net(ip("b", "q", "q", 4), ip("a", "q", "q"), ip("a", "q", "q"), ip("odd\x1b", "q", "q"))
    weighted.layer.insert(0, relu("a", "q", "q"))
    model = load(*pair(tmp_path, described, weighted))
    assert [note for note in model.notes if r"odd\x1b" in note]
    found = weights_of(model)
    assert found["a.weight"].tobytes() == np.float32(weighted.layer[2].blobs[0].data).tobytes()
    assert found["b.weight"].tobytes() == np.float32(weighted.layer[1].blobs[0].data).tobytes()


def test_missing_weights_are_named(tmp_path: Path) -> None:
    described = net(ip("a", "data", "x"), ip("b", "x", "y", 4), shape=(1, 6))
    with pytest.raises(MalformedSourceError, match=r"net\.caffemodel: layer 'b': the file has no weights"):
        load(*pair(tmp_path, described, net(ip("a", "q", "q"))))
    with pytest.raises(MalformedSourceError, match=r"layer 'b': .*blob 0: expected 16 values, found 12"):
        load(*pair(tmp_path, described, net(ip("a", "q", "q"), ip("b", "q", "q", 3))))


@pytest.mark.parametrize(
    ("needs", "made"),
    [
        (True, layer("x", "Scale", "data", "x")),
        (False, layer("x", "Scale", "data data", "x", scale_param={"axis": 0})),
        (True, layer("x", "Scale", "data data", "x", scale_param={"axis": 0, "bias_term": True})),
        (True, layer("x", "Bias", "data", "x")),
        (False, layer("x", "Bias", "data data", "x", bias_param={"axis": 0})),
        (True, layer("x", "BatchNorm", "data", "x")),
        (True, layer("x", "PReLU", "data", "x")),
        (True, layer("x", "Deconvolution", "data", "x",
                     convolution_param={"num_output": 3, "kernel_size": [4], "stride": [2], "bias_term": False})),
        (False, layer("x", "Deconvolution", "data", "x",
                      convolution_param={"num_output": 3, "kernel_size": [4], "stride": [2], "group": 3,
                                         "bias_term": False, "weight_filler": {"type": "bilinear"}})),
        (False, layer("x", "Pooling", "data", "x", pooling_param={"kernel_size": 2})),
    ],
)  # fmt: skip
def test_which_layers_need_weights(needs: bool, made: Any, tmp_path: Path) -> None:
    """Where a bilinear Deconvolution has no blobs, its filler makes them."""
    described = net(made, ip("other", "data", "y", 48), shape=(1, 3, 4, 4))
    paths = pair(tmp_path, described, net(ip("other", "q", "q", 48)))
    if needs:
        with pytest.raises(MalformedSourceError, match="layer 'x': the file has no weights"):
            load(*paths)
    else:
        load(*paths).close()


def test_shared_weights(tmp_path: Path) -> None:
    """A layer without values of its own takes those of the first layer that names them."""
    shared = [{"name": "w"}]
    described = net(ip("a", "data", "x", 4, 4, param=shared), ip("b", "x", "y", 4, 4, param=shared), shape=(1, 4))
    found = weights_of(load(*pair(tmp_path, described, net(ip("a", "q", "q", 4, 4)))))
    assert found["b.weight"].tobytes() == found["a.weight"].tobytes()
    old = net(
        files.old_layer("a", "INNER_PRODUCT", "data", "x", [values(4, 4)], param=["w"],
                        inner_product_param={"num_output": 4, "bias_term": False}),
        files.old_layer("b", "INNER_PRODUCT", "x", "y", param=["w"],
                        inner_product_param={"num_output": 4, "bias_term": False}),
        shape=(1, 4),
    )  # fmt: skip
    found = weights_of(load(write(tmp_path, "old.caffemodel", old)))
    assert found["b.weight"].tobytes() == found["a.weight"].tobytes()
