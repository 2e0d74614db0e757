"""Caffe's layers of one value each: ONNX Runtime against Caffe's formulas in numpy."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mobilemodel.errors import LimitExceededError, MalformedSourceError, UnsupportedSourceError
from mobilemodel.model import Role
from mobilemodel_converters.caffe.net import new_layer
from mobilemodel_converters.caffe.translate import translate
from tests.caffe_layers import (
    Array,
    assert_close,
    legacy,
    make_layer,
    net_of,
    restored,
    roles_of,
    run_layer,
    run_net,
    translate_layer,
)

MISTAKES = (MalformedSourceError, UnsupportedSourceError, LimitExceededError)
SHAPES = st.lists(st.integers(1, 4), min_size=1, max_size=5).map(tuple)
SEEDS = st.integers(0, 99)
SMALL = st.floats(-2, 2, width=32)
Shape = tuple[int, ...]


def normal(seed: int, shape: Shape) -> Array:
    return (np.random.default_rng(seed).normal(size=shape) * 3).astype(np.float32)


def sigmoid(x: Array) -> Array:
    return np.asarray(1 / (1 + np.exp(-x)))


PLAIN: dict[str, Callable[[Array], Array]] = {
    "ReLU": lambda x: np.maximum(x, 0),
    "ReLU6": lambda x: np.minimum(np.maximum(x, 0), 6),
    "Sigmoid": sigmoid,
    "TanH": np.tanh,
    "AbsVal": np.abs,
    "BNLL": lambda x: np.where(x > 0, x + np.log1p(np.exp(-np.abs(x))), np.log1p(np.exp(-np.abs(x)))),
    "ELU": lambda x: np.where(x > 0, x, np.expm1(np.minimum(x, 0))),
    "Swish": lambda x: x * sigmoid(x),
    "Threshold": lambda x: (x > 0).astype(np.float32),
    "Power": lambda x: x,
    "Exp": np.exp,
    "Dropout": lambda x: x,
    "Split": lambda x: x,
}


@pytest.mark.parametrize("kind", PLAIN)
@given(SHAPES, SEEDS)
def test_without_parameters_a_layer_takes_the_defaults_of_caffe(kind: str, shape: Shape, seed: int) -> None:
    x = normal(seed, shape)
    x.reshape(-1)[0] = 0
    assert_close(run_layer(make_layer(kind), [x])[0], PLAIN[kind](x))


@given(SHAPES, SMALL, SEEDS)
def test_a_slope_below_zero(shape: Shape, slope: float, seed: int) -> None:
    """max(x, 0) + slope min(x, 0)."""
    x = normal(seed, shape)
    layer = make_layer("ReLU", relu_param={"negative_slope": slope})
    assert_close(run_layer(layer, [x])[0], np.maximum(x, 0) + slope * np.minimum(x, 0))


@given(st.lists(st.integers(1, 4), min_size=2, max_size=5).map(tuple), st.booleans(), st.booleans(), SEEDS)
def test_prelu_has_a_slope_for_each_channel_or_one_for_all(shape: Shape, shared: bool, old: bool, seed: int) -> None:
    x, slope = normal(seed, shape), normal(seed + 1, () if shared else (shape[1],))
    layer = make_layer("PReLU", [legacy(slope) if old else slope], prelu_param={"channel_shared": shared})
    aligned = slope.reshape(-1, *(1,) * (len(shape) - 2))
    assert_close(run_layer(layer, [x])[0], np.maximum(x, 0) + aligned * np.minimum(x, 0))
    assert roles_of(translate_layer(layer, [shape])) == {"layer.slope": Role.OTHER}


@given(SHAPES, SMALL, SEEDS)
def test_parameters_of_one_number(shape: Shape, number: float, seed: int) -> None:
    x = normal(seed, shape)
    for layer, expected in (
        (make_layer("ELU", elu_param={"alpha": number}), np.maximum(x, 0) + number * np.expm1(np.minimum(x, 0))),
        (make_layer("Swish", swish_param={"beta": number}), x * sigmoid(number * x)),
        (make_layer("Threshold", threshold_param={"threshold": number}), (x > np.float32(number)).astype(np.float32)),
        (make_layer("Clip", clip_param={"min": -1, "max": number + 1}), np.clip(x, -1, number + 1)),
    ):
        assert_close(run_layer(layer, [x])[0], expected)


@given(SHAPES, st.sampled_from([0.0, 1.0, 2.0, 3.0, -1.0, 0.5]), st.sampled_from([0.0, 1.0, -0.5, 2.0]),
       st.sampled_from([0.0, 1.5, -1.0]), SEEDS)  # fmt: skip
def test_power_is_the_constant_where_the_input_counts_for_nothing(
    shape: Shape, power: float, scale: float, shift: float, seed: int
) -> None:
    """(shift + scale x)^power; power or scale 0 gives shift^power, 1 where the power is 0."""
    x = normal(seed, shape)
    layer = make_layer("Power", power_param={"power": power, "scale": scale, "shift": shift})
    with np.errstate(all="ignore"):
        expected = np.power(np.float32(shift) + np.float32(scale) * x, np.float32(power))
    assert_close(run_layer(layer, [x])[0], expected.astype(np.float32), relative=1e-4)


def test_a_power_of_zero_does_not_look_at_its_input() -> None:
    x = np.array([[np.nan, np.inf, 1]], np.float32)
    for parameters, value in (({"power": 0}, 1), ({"scale": 0, "shift": 3, "power": 2}, 9)):
        (y,) = run_layer(make_layer("Power", power_param=parameters), [x])
        assert_close(y, np.full((1, 3), value, np.float32))


BASES = st.sampled_from([-1.0, 2.0, 10.0, 0.5])


@given(SHAPES, BASES, st.sampled_from([1.0, -0.5, 0.0]), st.sampled_from([0.0, 1.5]), SEEDS)
def test_exp_is_a_base_to_the_power_of_shift_and_scale(
    shape: Shape, base: float, scale: float, shift: float, seed: int
) -> None:
    x = normal(seed, shape)
    layer = make_layer("Exp", exp_param={"base": base, "scale": scale, "shift": shift})
    expected = (np.e if base == -1 else base) ** (shift + scale * x.astype(np.float64))
    assert_close(run_layer(layer, [x])[0], expected, relative=1e-4)


@given(SHAPES, BASES, st.sampled_from([1.0, 0.5]), st.sampled_from([0.0, 1.5]), SEEDS)
def test_log_is_to_a_base(shape: Shape, base: float, scale: float, shift: float, seed: int) -> None:
    x = np.abs(normal(seed, shape)) + np.float32(0.1)
    layer = make_layer("Log", log_param={"base": base, "scale": scale, "shift": shift})
    expected = np.log(shift + scale * x.astype(np.float64)) / np.log(np.e if base == -1 else base)
    assert_close(run_layer(layer, [x])[0], expected, relative=1e-4)


@pytest.mark.parametrize(
    ("kind", "parameters"),
    [("Exp", {"base": 0}), ("Exp", {"base": -2}), ("Log", {"base": 0}), ("Log", {"base": 1}),
     ("Log", {"base": np.inf}), ("Exp", {"base": np.nan}), ("Clip", {}), ("Clip", {"min": 1}), ("Clip", {"max": 1}),
     ("Clip", {"min": 2, "max": 1}), ("Clip", {"min": np.nan, "max": 1}), ("PReLU", {})],
)  # fmt: skip
def test_numbers_without_a_meaning_are_malformed(kind: str, parameters: dict[str, Any]) -> None:
    message: dict[str, Any] = {f"{kind.lower()}_param": parameters}
    layer = make_layer(kind, **message)
    with pytest.raises(MalformedSourceError, match="'layer'"):
        translate_layer(layer, [(1, 3, 2, 2)])


ANY_FLOAT = st.floats(width=32)


@given(ANY_FLOAT, ANY_FLOAT, ANY_FLOAT)
def test_no_number_makes_more_than_an_error_of_ours(a: float, b: float, c: float) -> None:
    """Infinities, NaN and numbers that overflow are numbers of the file like others."""
    for layer in (
        make_layer("Power", power_param={"power": a, "scale": b, "shift": c}),
        make_layer("Exp", exp_param={"base": a, "scale": b, "shift": c}),
        make_layer("Log", log_param={"base": a, "scale": b, "shift": c}),
        make_layer("Clip", clip_param={"min": a, "max": b}),
        make_layer("ReLU", relu_param={"negative_slope": a}),
        make_layer("ELU", elu_param={"alpha": a}),
        make_layer("Swish", swish_param={"beta": a}),
        make_layer("Threshold", threshold_param={"threshold": a}),
        make_layer("LRN", lrn_param={"alpha": a, "beta": b, "k": c}),
    ):
        with contextlib.suppress(*MISTAKES):
            translate_layer(layer, [(1, 3, 2, 2)])


def operators(*layers: Any) -> list[str]:
    net = net_of(*layers, inputs={"x": (1, 3)})
    return [node.op_type for node in restored(translate(net, sources=())).graph.node]


@pytest.mark.parametrize(
    ("layer", "nodes"),
    [(new_layer("p", "Power", ("x",), ("y",), power_param={"scale": 2}), ["Mul"]),
     (new_layer("p", "Power", ("x",), ("y",), power_param={"shift": 2}), ["Add"]),
     (new_layer("p", "Power", ("x",), ("y",), power_param={"power": 2}), ["Pow"]),
     (new_layer("p", "Exp", ("x",), ("y",)), ["Exp"]),
     (new_layer("p", "Log", ("x",), ("y",)), ["Log"]),
     (new_layer("p", "ReLU", ("x",), ("y",)), ["Relu"]),
     (new_layer("p", "Swish", ("x",), ("y",)), ["Sigmoid", "Mul"])],
)  # fmt: skip
def test_what_changes_nothing_is_left_out(layer: Any, nodes: list[str]) -> None:
    assert operators(layer) == nodes


def test_identities_pass_their_input_on_and_silence_drops_it() -> None:
    x = normal(0, (2, 3))
    split = new_layer("s", "Split", ("x",), ("a", "b"))
    dropout = new_layer("d", "Dropout", ("a",), ("a",))
    relu = new_layer("r", "ReLU", ("a",), ("y",))
    silence = new_layer("q", "Silence", ("b",), ())
    assert operators(split, dropout, relu, silence) == ["Relu"]
    found = run_net(net_of(split, dropout, relu, silence, inputs={"x": x.shape}), {"x": x})
    assert set(found) == {"y"}
    assert_close(found["y"], np.maximum(x, 0))


@pytest.mark.parametrize("kind", ["ReLU", "PReLU", "Power", "Clip", "LRN", "Pooling", "InnerProduct", "MVN"])
@pytest.mark.parametrize(("bottoms", "tops"), [(0, 1), (1, 0), (2, 1), (1, 2)])
def test_a_layer_of_one_value_takes_one_and_makes_one(kind: str, bottoms: int, tops: int) -> None:
    layer = make_layer(kind, [np.ones(3)] if kind == "PReLU" else [], bottoms=bottoms, tops=tops)
    with pytest.raises(MISTAKES, match="layer"):
        translate_layer(layer, [(1, 3, 2, 2)] * bottoms)
