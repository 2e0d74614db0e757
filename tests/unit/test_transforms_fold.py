"""fold(): what goes into a layer, what stays and why, and the real networks."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from onnx import ModelProto, TensorProto, helper, numpy_helper

from mobilemodel.model import Model, QuantizedValue
from mobilemodel.transforms import fold
from mobilemodel.v1 import bundle_pb2 as pb
from mobilemodel_converters import load_model
from tests.models import Net, model, tensor, value
from tests.transforming import check_descriptions, imported, largest_difference, operators, plain

NONE: dict[str, int] = {}
PICTURE = value("x", ["N", 2, 6, 6])


def normalized(
    *followers: tuple[str, str, str], taps: tuple[str, ...] = (), opset: int = 15, attributes: dict[str, int] = NONE
) -> ModelProto:
    """conv -> c; then a normalization ``(input, its name, its output)`` for each follower."""
    net = Net(1)
    net.conv("conv", "x", 3, 2, 3)
    net.nodes[-1].output[0] = "c"
    for x, name, output in followers:
        net.norm(name, x, 3)
        net.nodes[-1].output[0] = output
        net.nodes[-1].attribute.extend(helper.make_attribute(key, item) for key, item in attributes.items())
    outs = [value(name, ["N", 3, 6, 6]) for name in (*taps, *(output for _, _, output in followers))]
    return model(net.nodes, [PICTURE], net.initializers, opset=opset, outputs=outs)


def reasons(made: ModelProto) -> list[str]:
    """Why what is left is left; the network must be as it was."""
    loaded = imported(made)
    transformed = fold(loaded)
    assert transformed.model is loaded
    assert not transformed.changes
    return [item.reason for item in transformed.kept]


def test_a_normalization_goes_into_the_convolution_before_it() -> None:
    made = normalized(("c", "bn", "y"))
    old = imported(made)
    transformed = fold(old)
    assert operators(transformed.model) == ["Conv"]
    assert largest_difference(made, plain(transformed.model)) < 1e-6
    assert {item.name for item in transformed.model.tensors} == {"conv.weight", "conv.bias"}
    (change,) = transformed.changes
    assert change.exact
    assert change.tensors == ("conv.weight", "conv.bias")
    assert change.removed == ("y",)
    assert change.loss is not None
    assert 0 < change.loss < 6e-8
    assert (change.before, change.after) != (None, None)
    assert change.before is not None
    assert change.after is not None
    assert change.before.parameters - change.after.parameters == 4 * 3
    assert change.before.multiply_adds == change.after.multiply_adds + 3 * 6 * 6  # type: ignore[operator]
    # The old model is as it was.
    assert operators(old) == ["Conv", "BatchNormalization"]
    assert largest_difference(made, plain(old)) == 0
    check_descriptions(transformed.model)


def test_a_convolution_that_something_else_takes_too_stays() -> None:
    assert reasons(normalized(("c", "bn", "y"), taps=("c",))) == [
        "no convolution or FC layer alone makes or takes its values"
    ]
    two = normalized(("c", "bn1", "y1"), ("c", "bn2", "y2"))
    assert len(reasons(two)) == 2


@pytest.mark.parametrize(("opset", "attributes"), [(15, {"training_mode": 1}), (7, {"spatial": 0})])
def test_another_form_of_normalization_stays(opset: int, attributes: dict[str, int]) -> None:
    assert reasons(normalized(("c", "bn", "y"), opset=opset, attributes=attributes)) == [
        "it normalizes by the batch: it is in its training form"
    ]


def test_a_normalization_of_five_outputs_stays() -> None:
    made = normalized(("c", "bn", "y"), opset=9)
    made.graph.node[-1].output.extend(["mean", "variance", "saved_mean", "saved_variance"])
    assert reasons(made) == ["it normalizes by the batch: it is in its training form"]


def test_an_early_opset_is_left_alone() -> None:
    made = normalized(("c", "bn", "y"), opset=6)
    assert reasons(made) == ["operators of version 6; from version 7 on their rules are known"]


def test_factors_that_are_not_finite_stay() -> None:
    made = normalized(("c", "bn", "y"))
    variance = next(item for item in made.graph.initializer if item.name == "bn.variance")
    variance.CopyFrom(tensor("bn.variance", np.array([1, -2, 1], np.float32)))
    assert reasons(made) == ["its factors are not finite"]


def shared(same: bool) -> ModelProto:
    """Two convolutions by one weight, each with a normalization; ``same``: the same one."""
    net = Net(2)
    net.weight("w", 3, 2, 1, 1)
    for index in range(2):
        x = net.node("Conv", f"x{index}", "w", name=f"c{index}")
        net.norm(f"bn{index}", x, 3)
        if same:
            net.nodes[-1].input[1:] = ["bn0.scale", "bn0.shift", "bn0.mean", "bn0.variance"]
        net.nodes[-1].output[0] = f"y{index}"
    inputs = [value(f"x{index}", ["N", 2, 4, 4]) for index in range(2)]
    return model(net.nodes, inputs, net.initializers, outputs=[value(f"y{i}", ["N", 3, 4, 4]) for i in range(2)])


def test_a_shared_weight_is_folded_where_all_uses_agree() -> None:
    made = shared(same=True)
    transformed = fold(imported(made))
    assert operators(transformed.model) == ["Conv", "Conv"]
    assert largest_difference(made, plain(transformed.model)) < 1e-6
    check_descriptions(transformed.model)
    assert reasons(shared(same=False)) == ["'w' belongs to several layers, which would scale it differently"] * 2


def test_a_weight_that_is_used_unscaled_too_stays() -> None:
    made = shared(same=True)
    made.graph.output[1].CopyFrom(value("c1", ["N", 3, 4, 4]))
    del made.graph.node[3]
    assert reasons(made) == ["'w' is used elsewhere too, where it is not scaled alike"]


@pytest.mark.parametrize("operator", ["Conv", "ConvTranspose"])
def test_each_group_has_its_own_factors(operator: str) -> None:
    """Before and behind a layer of 3 groups with 2 inputs and 4 outputs each; without pads, as it adds before."""
    net = Net(7)
    x = net.norm("before", "x", 6) if operator == "Conv" else net.node("Mul", "x", net.weight("before", 6, 1, 1))
    shape = (12, 2, 3, 3) if operator == "Conv" else (6, 4, 3, 3)
    x = net.node(operator, x, net.weight("w", *shape), group=3)
    net.norm("behind", x, 12)
    net.nodes[-1].output[0] = "y"
    outs = [value("y", ["N", 12, None, None])]
    made = model(net.nodes, [value("x", ["N", 6, 5, 5])], net.initializers, outputs=outs)
    transformed = fold(imported(made))
    assert operators(transformed.model) == [operator]
    assert largest_difference(made, plain(transformed.model)) < 1e-6
    check_descriptions(transformed.model)


def test_what_adds_before_padding_stays_and_what_multiplies_does_not() -> None:
    """Zeros that a convolution pads with meet a factor unharmed, a summand not."""
    net = Net(3)
    x = net.node("Sub", "x", net.constant("mean", np.array([[[1.0]], [[2.0]]], np.float32)))
    x = net.node("Div", x, net.constant("scale", np.array(64, np.float32)))
    net.conv("conv", x, 3, 2, 3)
    net.nodes[-1].output[0] = "y"
    made = model(net.nodes, [PICTURE], net.initializers, outputs=[value("y", ["N", 3, 6, 6])])
    transformed = fold(imported(made))
    assert operators(transformed.model) == ["Sub", "Conv"]
    assert largest_difference(made, plain(transformed.model)) < 1e-6


def test_defaults_of_inputs_are_no_constants() -> None:
    """Some initializers are inputs too: a caller may replace these."""
    made = normalized(("c", "bn", "y"))
    made.graph.input.append(value("bn.scale", [3]))
    assert reasons(made) == ["its parameters are no constants"]
    made = normalized(("c", "bn", "y"))
    made.graph.input.append(value("conv.weight", [3, 2, 3, 3]))
    assert reasons(made) == ["a caller may replace 'conv.weight': it is the default of an input"]


@pytest.mark.parametrize("ir_version", [3, 4])
def test_where_all_initializers_are_inputs_it_is_habit(ir_version: int) -> None:
    """IR version 3 asks for it, and exporters kept doing so."""
    made = normalized(("c", "bn", "y"), opset=8)
    made.ir_version = ir_version
    made.graph.input.extend(value(item.name, list(item.dims)) for item in made.graph.initializer)
    transformed = fold(imported(made))
    new = plain(transformed.model)
    assert [item.name for item in new.graph.input] == ["x"]
    assert new.ir_version == 4
    assert largest_difference(made, new) < 1e-6
    said = [change.what for change in transformed.changes if not change.layer]
    assert said == ([] if ir_version == 3 else [
        "6 initializers were inputs too, as old exporters had it: a caller can no longer replace them"
    ])  # fmt: skip
    assert transformed.model.inputs == imported(made).inputs


def test_weights_in_constant_nodes_go_back_inside_where_nobody_wants_them() -> None:
    """A hoisted tensor moves only if a scheme wants it."""
    made = normalized(("c", "bn", "y"))
    weight = made.graph.initializer[0]
    assert weight.name == "conv.weight"
    node = helper.make_node("Constant", [], ["conv.weight"], value=weight)
    made.graph.node.insert(0, node)
    del made.graph.initializer[0]
    transformed = fold(imported(made))
    assert operators(transformed.model) == ["Conv"]
    assert [item.name for item in transformed.model.tensors if item.hoisted] == ["conv.weight"]
    for hoisted in (frozenset[str](), frozenset(("conv.weight",))):
        graph = ModelProto.FromString(transformed.model.build_graph(hoisted)).graph
        outside = {item.name for item in graph.initializer if item.data_location == TensorProto.EXTERNAL}
        assert outside == {"conv.bias"} | hoisted
        assert largest_difference(made, plain(transformed.model, hoisted)) < 1e-6


def test_what_the_source_holds_quantized_is_left_alone() -> None:
    old = imported(normalized(("c", "bn", "y")))
    value_ = QuantizedValue(pb.Palette(), np.zeros((3, 18), np.uint8))
    tensors = tuple(replace(t, quantized=value_) if t.name == "conv.weight" else t for t in old.tensors)
    transformed = fold(replace(old, tensors=tensors))
    assert not transformed.changes
    assert [item.reason for item in transformed.kept] == ["'conv.weight' is quantized in the source"]


def in_branches(captured: str) -> ModelProto:
    """conv -> c -> normalization -> y, and an If whose branches take ``captured`` and normalize it."""
    made = normalized(("c", "bn", "y"))
    branches = [
        helper.make_graph(
            [helper.make_node("BatchNormalization", [captured, *made.graph.node[1].input[1:]], [f"{name}_out"])],
            name, [], [value(f"{name}_out", ["N", 3, 6, 6])],
        )
        for name in ("then", "else")
    ]  # fmt: skip
    made.graph.initializer.append(numpy_helper.from_array(np.array(True), "yes"))
    made.graph.node.append(helper.make_node("If", ["yes"], ["z"], then_branch=branches[0], else_branch=branches[1]))
    made.graph.output.append(value("z", ["N", 3, 6, 6]))
    return made


def test_graphs_within_nodes_count_as_uses_and_stay() -> None:
    inner = ["it lies in a graph within a node (If)"] * 2
    assert reasons(in_branches("c")) == ["no convolution or FC layer alone makes or takes its values", *inner]
    made = in_branches("y")
    transformed = fold(imported(made))
    assert operators(transformed.model) == ["Conv", "If"]
    assert [item.reason for item in transformed.kept] == inner
    assert largest_difference(made, plain(transformed.model)) < 1e-6
    assert {"bn.scale", "bn.variance"} <= {item.name for item in transformed.model.tensors}


def halves(scale: float) -> Model:
    """conv and normalization in float16, the latter with this scale."""
    made = normalized(("c", "bn", "y"))
    for item in made.graph.initializer:
        array = numpy_helper.to_array(item) * (scale if item.name == "bn.scale" else 1)
        item.CopyFrom(tensor(item.name, array.astype(np.float16)))
    for end in (*made.graph.input, *made.graph.output):
        end.type.tensor_type.elem_type = TensorProto.FLOAT16
    return imported(made)


def test_halves_stay_halves() -> None:
    old = halves(1)
    transformed = fold(old)
    assert operators(transformed.model) == ["Conv"]
    assert {item.dtype for item in transformed.model.tensors} == {TensorProto.FLOAT16}
    (change,) = transformed.changes
    assert change.loss is not None
    assert 1e-5 < change.loss < 5e-4
    assert largest_difference(plain(old), plain(transformed.model)) < 5e-3
    (kept,) = fold(halves(1e-5)).kept
    assert kept.reason.startswith("float16 is too coarse for 'conv.weight' once it is scaled: relative error ")


@pytest.mark.parametrize("name", ["ultraface/version-RFB-320.onnx", "cifar-resnet/model.onnx"])
def test_real_networks_lose_all_normalizations(name: str, zoo: Path) -> None:
    """No BatchNormalization left, outputs within 1e-5 (issue 5)."""
    old = load_model([zoo / name])
    transformed = fold(old)
    assert "BatchNormalization" in operators(old)
    assert "BatchNormalization" not in operators(transformed.model)
    assert not transformed.kept
    assert largest_difference(plain(old), plain(transformed.model)) < 1e-5
    check_descriptions(transformed.model)
    old.close()
