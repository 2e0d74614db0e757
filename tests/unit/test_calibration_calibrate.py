"""Calibrating whole networks, layer by layer."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import numpy as np
import pytest
from onnx import ModelProto, helper

from mobilemodel.calibration.calibrate import Calibrated, Quantized, Quantizer, Settings, calibrate
from mobilemodel.calibration.layers import Layer
from mobilemodel.calibration.segments import make_segment
from mobilemodel.errors import CheckFailedError
from mobilemodel.quantize.response import Float32, Float64, Response
from tests.calibrating import Read, pictures, read, residual_net, rounded, samples_of, untouched
from tests.models import Array, Net, model, tensor, value

NAMES = ("conv1.weight", "depthwise.weight", "project.weight", "fc1.weight", "fc2.weight")
FINE = Settings(damping=1e-5)


def coarse(layer: Layer, response: Response) -> Quantized:
    """To few levels."""
    plain = untouched(layer, response)
    return replace(plain, weights=rounded(response.target, 0.5 * float(response.target.std())), how="coarse")


def calibrated(
    found: Read, x: Array, quantizer: Quantizer = untouched, settings: Settings = FINE,
    costs: Mapping[str, Float64] | None = None, only: frozenset[str] | None = None,
) -> Calibrated:  # fmt: skip
    wanted = frozenset(found.layers) if only is None else only
    return calibrate(found.model, samples_of(x), costs or {}, quantizer, settings, only=wanted)


def outputs(found: Read, x: Array, result: Calibrated | None = None, *, biases: bool = True) -> Array:
    """The last layer's response: of the float network, or of what calibration made of it."""
    weights = dict(found.walk.exact)
    if result is not None:
        for name, layer in result.layers.items():
            weights[name] = found.layers[name].from_matrix(layer.quantized.weights)
        weights |= result.biases if biases else {}
    output = found.layers["fc2.weight"].response
    return make_segment(found.graph, weights, ["x"], [output]).run({"x": x})[output]


def test_weights_that_need_no_change_come_back() -> None:
    found = read(residual_net())
    result = calibrated(found, pictures(600))
    assert tuple(result.layers) == NAMES
    for name, layer in found.layers.items():
        matrix = layer.to_matrix(found.walk.exact[name])
        assert np.abs(result.layers[name].quantized.weights - matrix).max() < 0.02 * np.abs(matrix).max()
        assert result.layers[name].response_db > 50
    for name, bias in result.biases.items():
        np.testing.assert_allclose(bias, found.walk.exact[name], atol=2e-2)
    assert (dict(result.refused), result.notes) == ({}, ())


def test_layers_make_up_for_what_those_before_have_lost() -> None:
    """The refit and the corrected bias lower the error of the network, on data that were not seen too."""
    found, unseen = read(residual_net()), pictures(400, seed=1)
    exact = outputs(found, unseen)

    def plain(layer: Layer, response: Response) -> Quantized:
        made = coarse(layer, response)
        return replace(made, weights=rounded(weights[layer.name], 0.5 * float(weights[layer.name].std())))

    weights = {name: layer.to_matrix(found.walk.exact[name]) for name, layer in found.layers.items()}
    fitted, unfitted = calibrated(found, pictures(800), coarse), calibrated(found, pictures(800), plain)
    errors = [float(np.square(made - exact).mean()) for made in (
        outputs(found, unseen, fitted), outputs(found, unseen, fitted, biases=False),
        outputs(found, unseen, unfitted, biases=False),
    )]  # fmt: skip
    assert errors[0] < 0.9 * errors[1]
    assert errors[0] < 0.7 * errors[2]
    assert [layer.quantized.how for layer in fitted.layers.values()] == ["coarse"] * 5


def test_the_response_is_told_as_it_is_on_the_data() -> None:
    """The last layer's own response, in the network as it was quantized: nothing of its error is left out."""
    found, x = read(residual_net()), pictures(500)
    result = calibrated(found, x, coarse)
    made = outputs(found, x, result)
    exact = outputs(found, x)
    measured = 10 * np.log10(exact.var(axis=0).sum() / np.square(made - exact).mean(axis=0).sum())
    assert result.layers["fc2.weight"].response_db == pytest.approx(measured, abs=0.05)
    assert result.layers["fc2.weight"].response_db < 30


def test_each_layer_is_fitted_to_the_inputs_of_the_quantized_network() -> None:
    found, seen = read(residual_net()), dict[str, Float32]()

    def looking(layer: Layer, response: Response) -> Quantized:
        seen[layer.name] = response.moments
        return coarse(layer, response)

    calibrated(found, pictures(500), looking)
    behind_quantized = seen["fc1.weight"]
    calibrated(found, pictures(500), looking, only=frozenset(("fc1.weight",)))
    assert np.abs(behind_quantized - seen["fc1.weight"]).max() > 0.01 * np.abs(behind_quantized).max()


def test_only_what_is_named_is_touched() -> None:
    result = calibrated(read(residual_net()), pictures(300), only=frozenset(("fc1.weight",)))
    assert set(result.layers) == {"fc1.weight"}
    assert set(result.biases) == {"fc1.bias"}


def test_what_an_error_costs_the_output_gets_to_the_quantizer() -> None:
    found, seen = read(residual_net()), dict[str, Float64]()

    def looking(layer: Layer, response: Response) -> Quantized:
        seen[layer.name] = response.row_weights
        return untouched(layer, response)

    costs = {"fc2.weight": np.array([0.0, *range(1, 10)]), "fc1.weight": np.zeros(48)}
    result = calibrated(found, pictures(300), looking, costs=costs)
    np.testing.assert_allclose(seen["fc2.weight"], [0.0045, *range(1, 10)])
    np.testing.assert_array_equal(seen["fc1.weight"], np.ones(48))
    np.testing.assert_array_equal(seen["conv1.weight"], np.ones(8))
    assert ["fc1.weight: the output does not hear" in note for note in result.notes] == [True]


def test_too_few_samples_are_told_with_numbers_and_damped_more() -> None:
    found = read(residual_net())
    result = calibrated(found, pictures(64), settings=Settings(damping=0.01))
    layers = result.layers
    assert layers["conv1.weight"].damping == 0.01  # each sample has many places
    assert layers["fc1.weight"].rows_seen == 64
    assert layers["fc1.weight"].damping == pytest.approx(0.04)
    told = [note for note in result.notes if note.startswith("fc1.weight: ")]
    assert told == ["fc1.weight: 64 rows of calibration data for 128 columns; damping raised to 0.04; give more data"]
    assert calibrated(found, pictures(300)).layers["fc1.weight"].damping == FINE.damping


def test_convolutions_look_at_fewer_samples() -> None:
    found = read(residual_net())
    layers = calibrated(found, pictures(300), settings=Settings(samples=200, window_samples=100)).layers
    assert layers["conv1.weight"].rows_seen == 100 * 48
    assert layers["fc1.weight"].rows_seen == 200


def test_the_bits_do_not_depend_on_threads_but_on_the_seed() -> None:
    found = read(residual_net())
    one, two, other = (calibrated(found, pictures(200), coarse, settings)
                       for settings in (FINE, replace(FINE, threads=2), replace(FINE, seed=1)))  # fmt: skip
    for name in NAMES:
        np.testing.assert_array_equal(one.layers[name].quantized.weights, two.layers[name].quantized.weights)
        assert one.layers[name].response_db == two.layers[name].response_db
    for name in one.biases:
        np.testing.assert_array_equal(one.biases[name], two.biases[name])
    apart = one.layers["conv1.weight"].quantized.weights != other.layers["conv1.weight"].quantized.weights
    assert apart.any()


def shared_bias() -> ModelProto:
    nodes = [helper.make_node("Gemm", ["x", "w", "b"], ["h"]), helper.make_node("Gemm", ["h", "v", "b"], ["y"])]
    eye = np.eye(4, dtype=np.float32)
    return model(nodes, [value("x", ["N", 4])], [tensor("w", eye), tensor("v", eye), tensor("b", eye[0])])


def test_a_layer_with_a_bias_of_others_is_left_with_the_reason() -> None:
    result = calibrated(read(shared_bias()), pictures(20).reshape(-1, 64)[:, :4])
    assert result.layers == {}
    assert dict(result.refused) == dict.fromkeys("wv", "its bias belongs to other layers too, or is no float32 vector")


def dying(operator: str) -> ModelProto:
    net = Net(1)
    x = net.node(operator, net.gemm("first", "x", 4, 4))
    net.gemm("second", net.node("Relu", net.node("Neg", net.node("Abs", x))), 3, 4, "y")
    return net.done(value("x", ["N", 4]))


def test_a_layer_that_nothing_reaches_is_named() -> None:
    with pytest.raises(CheckFailedError, match=r"layer 'second\.weight'.*zero on all") as caught:
        calibrated(read(dying("Identity")), pictures(20).reshape(-1, 64)[:, :4])
    assert "preprocessing" in str(caught.value.advice)


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_data_that_are_not_finite_name_the_layer(bad: float) -> None:
    x = pictures(100)
    x[77, 0, 3, 3] = bad
    with pytest.raises(CheckFailedError, match=r"layer 'conv1\.weight'.*not finite"):
        calibrated(read(residual_net()), x)


def test_an_error_of_the_arithmetic_names_the_layer(monkeypatch: pytest.MonkeyPatch) -> None:
    def failing(*_: object, **__: object) -> None:
        raise CheckFailedError("moments are not positive definite")

    monkeypatch.setattr("mobilemodel.calibration.calibrate.make_problem", failing)
    with pytest.raises(CheckFailedError, match=r"layer 'conv1\.weight'.*positive definite"):
        calibrated(read(residual_net()), pictures(50))


def test_a_layer_that_no_output_needs_does_no_harm() -> None:
    made = residual_net()
    made.graph.node.append(helper.make_node("Gemm", ["v8", "spare"], ["unused"]))
    made.graph.initializer.append(tensor("spare", np.ones((128, 3), np.float32)))
    found = read(made)
    assert found.refused == {"spare": "no output of the network needs its layer"}
    assert tuple(calibrated(found, pictures(200)).layers) == NAMES
