"""Caffe's LRN, BatchNorm, Scale, Bias, MVN and SSD's Normalize: ONNX Runtime against Caffe's formulas in numpy."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mobilemodel.errors import LimitExceededError, MalformedSourceError, UnsupportedSourceError
from mobilemodel_converters.caffe.net import Layer, new_layer
from mobilemodel_converters.caffe.translate import translate
from tests.caffe_layers import (
    Array,
    assert_close,
    blob,
    legacy,
    make_layer,
    net_of,
    restored,
    run_layer,
    run_net,
    translate_layer,
)

MISTAKES = (MalformedSourceError, UnsupportedSourceError, LimitExceededError)
SEEDS = st.integers(0, 99)
PICTURES = st.tuples(st.integers(1, 2), st.integers(1, 6), st.integers(1, 5), st.integers(1, 5))
SHAPES = st.lists(st.integers(1, 4), min_size=2, max_size=4).map(tuple)
Shape = tuple[int, ...]


def normal(seed: int, shape: Shape) -> Array:
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def per_channel(values: Array, rank: int) -> Array:
    """One value for each index of axis 1, next to an input of this rank."""
    return values.reshape(-1, *(1,) * (rank - 2))


@given(PICTURES, st.sampled_from([1, 3, 5, 9]), st.floats(2**-13, 2, width=32), st.floats(0.25, 1.5, width=32),
       st.sampled_from([1.0, 2.0]), SEEDS)  # fmt: skip
def test_lrn_across_channels(shape: Shape, size: int, alpha: float, beta: float, k: float, seed: int) -> None:
    """x / (k + alpha/size sum over size channels of x^2)^beta, zero beyond the ends."""
    x = normal(seed, shape)
    layer = make_layer("LRN", lrn_param={"local_size": size, "alpha": alpha, "beta": beta, "k": k})
    expected = np.empty_like(x)
    for channel in range(shape[1]):
        near = x[:, max(channel - size // 2, 0) : channel + size // 2 + 1]
        expected[:, channel] = x[:, channel] / (k + alpha / size * (near**2).sum(1)) ** beta
    assert_close(run_layer(layer, [x])[0], expected)


@given(PICTURES, st.sampled_from([1, 3, 5, 7]), st.floats(0, 2, width=32), st.floats(0.25, 1.5, width=32), SEEDS,
       st.booleans())  # fmt: skip
def test_lrn_within_a_channel(shape: Shape, size: int, alpha: float, beta: float, seed: int, free: bool) -> None:
    """x (1 + alpha A)^-beta, A the sum of x^2 over a square divided by size^2 always; k is left alone."""
    x = normal(seed, shape)
    layer = make_layer("LRN", lrn_param={
        "norm_region": "WITHIN_CHANNEL", "local_size": size, "alpha": alpha, "beta": beta, "k": 3.0,
    })  # fmt: skip
    padded = np.pad(x**2, ((0, 0), (0, 0), (size // 2, size // 2), (size // 2, size // 2)))
    mean = sum(padded[:, :, a : a + shape[2], b : b + shape[3]] for a in range(size) for b in range(size)) / size**2
    assert_close(run_layer(layer, [x], free=free)[0], x * (1 + alpha * mean) ** -beta)


def test_lrn_writes_the_defaults_of_caffe() -> None:
    """local_size 5, alpha 1, beta 0.75, k 1: ONNX's own defaults are others."""
    x = normal(0, (1, 1, 2, 2))
    assert_close(run_layer(make_layer("LRN"), [x])[0], x / (1 + x**2 / 5) ** 0.75)


@pytest.mark.parametrize(
    ("change", "shape"),
    [({"local_size": 4}, (1, 3, 4, 4)), ({"local_size": 0}, (1, 3, 4, 4)), ({"local_size": 2**32 - 1}, (1, 3, 4, 4)),
     ({}, (1, 3)), ({}, (1, 3, 4, 4, 4)), ({"alpha": np.nan}, (1, 3, 4, 4)), ({"beta": np.inf}, (1, 3, 4, 4))],
)  # fmt: skip
@pytest.mark.parametrize("region", ["ACROSS_CHANNELS", "WITHIN_CHANNEL"])
def test_lrn_takes_odd_sizes_and_four_axes(change: dict[str, Any], shape: Shape, region: str) -> None:
    with pytest.raises(MISTAKES, match="layer"):
        translate_layer(make_layer("LRN", lrn_param={"norm_region": region, **change}), [shape])


@pytest.mark.parametrize("change", [{"alpha": 0}, {"alpha": -1}, {"beta": 0}])
def test_an_lrn_that_onnx_runtime_would_not_load_is_refused(change: dict[str, float]) -> None:
    with pytest.raises(UnsupportedSourceError, match=r"'layer'.*above 0"):
        translate_layer(make_layer("LRN", lrn_param=change), [(1, 3, 4, 4)])


def statistics(seed: int, channels: int) -> tuple[Array, Array]:
    random = np.random.default_rng(seed)
    return random.normal(size=channels).astype(np.float32), random.uniform(0.1, 4, channels).astype(np.float32)


@given(SHAPES, st.sampled_from([0.0, 1.0, 0.5, 999.98236]), st.sampled_from([1e-5, 0.1]), SEEDS, st.booleans())
def test_batch_norm_divides_its_statistics_by_their_factor(
    shape: Shape, factor: float, eps: float, seed: int, old: bool
) -> None:
    """mean = blob0 / f, var = blob1 / f, both 0 where f is 0; y = (x - mean)/sqrt(var + eps)."""
    x, (mean, variance) = normal(seed, shape), statistics(seed, shape[1])
    blobs: list[Array] = [mean * factor, variance * factor, np.array([factor], np.float32)]
    layer = make_layer("BatchNorm", [legacy(item) if old else item for item in blobs], batch_norm_param={"eps": eps})
    if factor == 0:
        mean, variance = mean * 0, variance * 0
    expected = (x - per_channel(mean, len(shape))) / np.sqrt(per_channel(variance, len(shape)) + np.float32(eps))
    assert_close(run_layer(layer, [x])[0], expected, relative=1e-4)
    model = translate_layer(layer, [x.shape])
    assert {tensor.name for tensor in model.tensors} == {f"layer.{s}" for s in ("scale", "shift", "mean", "variance")}


def test_batch_norm_without_a_factor_takes_its_statistics_as_they_are_and_says_so() -> None:
    x, (mean, variance) = normal(1, (2, 3, 4, 4)), statistics(1, 3)
    layer = make_layer("BatchNorm", [mean, variance])
    expected = (x - mean[:, None, None]) / np.sqrt(variance[:, None, None] + 1e-5)
    assert_close(run_layer(layer, [x])[0], expected)
    assert "'layer' holds no factor" in translate_layer(layer, [x.shape]).notes[0]


@pytest.mark.parametrize("count", [0, 1, 4, 5])
def test_batch_norms_of_other_blobs_are_refused(count: int) -> None:
    layer = make_layer("BatchNorm", [np.ones(3, np.float32)] * count)
    with pytest.raises(MISTAKES, match="layer"):
        translate_layer(layer, [(1, 3, 4, 4)])


@pytest.mark.parametrize(
    ("shape", "parameters", "sizes"),
    [((3,), {}, (3, 3, 1)), ((1, 3, 4, 4), {"use_global_stats": False}, (3, 3, 1)), ((1, 4, 4, 4), {}, (3, 3, 1)),
     ((1, 3, 4, 4), {}, (3, 3, 3)), ((1, 3, 4, 4), {}, (3, 4, 1))],
)  # fmt: skip
def test_batch_norms_that_do_not_fit_are_refused(shape: Shape, parameters: dict[str, Any], sizes: Shape) -> None:
    layer = make_layer("BatchNorm", [np.ones(size, np.float32) for size in sizes], batch_norm_param=parameters)
    with pytest.raises(MISTAKES, match="layer"):
        translate_layer(layer, [shape])


@given(SHAPES, SEEDS)
def test_the_bn_layer_of_forks_is_a_factor_and_a_summand_for_each_channel(shape: Shape, seed: int) -> None:
    x, (shift, scale) = normal(seed, shape), statistics(seed, shape[1])
    (y,) = run_layer(make_layer("BN", [scale, shift]), [x])
    assert_close(y, x * per_channel(scale, len(shape)) + per_channel(shift, len(shape)))
    with pytest.raises(UnsupportedSourceError, match=r"'layer'.*4 blobs"):
        translate_layer(make_layer("BN", [scale] * 4), [shape])


@st.composite
def covered(draw: st.DrawFn) -> tuple[Shape, int, int, Shape]:
    """An input's shape; axis and num_axes; the shape of what they cover."""
    shape = draw(st.lists(st.integers(1, 4), min_size=1, max_size=5).map(tuple))
    first = draw(st.integers(0, len(shape) - 1))
    axis = draw(st.sampled_from([first, first - len(shape)]))
    count = draw(st.integers(-1, len(shape) - first))
    inner = shape[first:] if count == -1 else shape[first : first + count]
    return shape, axis, count, inner


def aligned(values: Array, shape: Shape, axis: int) -> Array:
    """``values`` with axes of 1 behind them, so that they begin at ``axis`` of ``shape``."""
    behind = len(shape) - axis % len(shape) - values.ndim
    return values.reshape(*values.shape, *(1,) * behind) if values.ndim else values


@given(covered(), SEEDS, st.booleans(), st.booleans(), st.booleans())
def test_scale_and_bias_cover_num_axes_from_axis_on(
    case: tuple[Shape, int, int, Shape], seed: int, bias_term: bool, second: bool, old: bool
) -> None:
    """A blob, or a second bottom, broadcast from ``axis``; -1 is to the end, 0 one value for all."""
    shape, axis, count, inner = case
    x, factor, bias = normal(seed, shape), normal(seed + 1, inner), normal(seed + 2, inner)
    keep = legacy if old and len(inner) <= 4 else blob
    inputs, blobs = ([x, factor], []) if second else ([x], [keep(factor)])
    blobs += [keep(bias)] * bias_term
    layer = make_layer("Scale", blobs, bottoms=len(inputs),
                       scale_param={"axis": axis, "num_axes": count, "bias_term": bias_term})  # fmt: skip
    expected = x * aligned(factor, shape, axis) + (aligned(bias, shape, axis) if bias_term else 0)
    assert_close(run_layer(layer, inputs)[0], expected)
    layer = make_layer("Bias", [] if second else [keep(factor)], bottoms=len(inputs),
                       bias_param={"axis": axis, "num_axes": count})  # fmt: skip
    assert_close(run_layer(layer, inputs)[0], x + aligned(factor, shape, axis))


def test_a_scale_over_the_batch_fixes_it_and_no_other() -> None:
    values = np.ones((2, 3), np.float32)
    for axis, count, size in ((0, 2, (2, 3)), (1, 1, (3,)), (0, 0, ())):
        layer = make_layer("Scale", [values.reshape(-1)[: math.prod(size)].reshape(size)],
                           scale_param={"axis": axis, "num_axes": count})  # fmt: skip
        first = translate_layer(layer, [(2, 3, 4, 4)]).inputs[0].shape.dimensions[0]
        assert first.HasField("size") == (size == (2, 3))


HUGE = 2**31 - 1


@pytest.mark.parametrize(
    ("parameters", "shapes", "size"),
    [({"axis": 4}, [(1, 3, 4, 4)], 3), ({"axis": -5}, [(1, 3, 4, 4)], 3), ({"num_axes": 4}, [(1, 3, 4, 4)], 48),
     ({"num_axes": -2}, [(1, 3, 4, 4)], 3), ({"num_axes": HUGE}, [(1, 3, 4, 4)], 3),
     ({"axis": HUGE}, [(1, 3, 4, 4)], 3), ({"axis": -HUGE - 1}, [(1, 3, 4, 4)], 3), ({}, [(1, 3, 4, 4)], 4),
     ({}, [], 3), ({}, [(1, 3)] * 3, 3),
     ({}, [(1, 3, 4, 4), (4,)], 0), ({}, [(1, 3, 4, 4), (3, 4, 4, 1)], 0), ({"axis": 0}, [(1, 3), (1, 3, 4)], 0)],
)  # fmt: skip
@pytest.mark.parametrize("kind", ["Scale", "Bias"])
def test_operands_that_do_not_fit_are_refused(
    kind: str, parameters: dict[str, Any], shapes: list[Shape], size: int
) -> None:
    message: dict[str, Any] = {f"{kind.lower()}_param": parameters}
    layer = make_layer(kind, [np.ones(size, np.float32)] * (size > 0), bottoms=len(shapes), **message)
    with pytest.raises(MISTAKES, match="layer"):
        translate_layer(layer, shapes)


def norm_and_scale(*, bias_term: bool = True, **change: Any) -> tuple[Layer, Layer]:
    """BatchNorm from x to ``middle``, and Scale from there to y, of three channels."""
    (mean, variance), (shift, scale) = statistics(7, 3), statistics(8, 3)
    norm = new_layer("bn", "BatchNorm", ("x",), ("middle",),
                     tuple(blob(item) for item in (mean, variance, np.ones(1))))  # fmt: skip
    blobs = tuple(blob(item) for item in (scale, shift)[: 1 + bias_term])
    return norm, new_layer("scale", "Scale", ("middle",), ("y",), blobs, scale_param={"bias_term": bias_term, **change})


def operators(net: Any) -> list[str]:
    return [node.op_type for node in restored(translate(net, sources=())).graph.node]


X = normal(3, (2, 3, 3, 3))


def expected_y(*, bias_term: bool = True) -> Array:
    mean, variance, shift, scale = (item[:, None, None] for item in (*statistics(7, 3), *statistics(8, 3)))
    return np.asarray((X - mean) / np.sqrt(variance + 1e-5) * scale + bias_term * shift)


@pytest.mark.parametrize("bias_term", [True, False])
def test_a_scale_right_behind_a_batch_norm_is_folded_into_it(bias_term: bool) -> None:
    net = net_of(*norm_and_scale(bias_term=bias_term), inputs={"x": X.shape})
    assert operators(net) == ["BatchNormalization"]
    assert_close(run_net(net, {"x": X})["y"], expected_y(bias_term=bias_term))


def test_a_folded_pair_may_work_in_place() -> None:
    layers = [new_layer(item.name, item.type, ("x",), ("x",), item.blobs, **{
        "scale_param": {"bias_term": True}} if item.type == "Scale" else {}) for item in norm_and_scale()]  # fmt: skip
    start = new_layer("start", "Power", ("data",), ("x",))
    net = net_of(start, *layers, new_layer("relu", "ReLU", ("x",), ("x",)), inputs={"data": X.shape})
    assert operators(net) == ["BatchNormalization", "Relu"]
    assert_close(run_net(net, {"data": X})["x"], np.maximum(expected_y(), 0))


def test_a_value_that_something_else_sees_is_not_folded_away() -> None:
    norm, scale = norm_and_scale()
    other = new_layer("other", "ReLU", ("middle",), ("z",))
    unfolded = ["BatchNormalization", "Mul", "Add"]
    seen_later = net_of(norm, scale, other, inputs={"x": X.shape})
    assert operators(seen_later) == [*unfolded, "Relu"]
    wanted = net_of(norm, scale, inputs={"x": X.shape}, outputs=("middle", "y"))
    assert operators(wanted) == unfolded
    for net in (seen_later, wanted):
        assert_close(run_net(net, {"x": X})["y"], expected_y())
    written_anew = new_layer("new", "ReLU", ("x",), ("middle",))
    assert operators(net_of(norm, scale, written_anew, other, inputs={"x": X.shape})) == [
        "BatchNormalization", "Relu", "Relu"]  # fmt: skip


@pytest.mark.parametrize("change", [{"num_axes": -1}, {"axis": 0}, {"axis": 2, "num_axes": 1}])
def test_only_a_scale_of_channels_is_folded(change: dict[str, Any]) -> None:
    net = net_of(*norm_and_scale(**change), inputs={"x": (3, 3, 3, 3)})
    if change == {"num_axes": -1}:
        with pytest.raises(MalformedSourceError, match=r"'scale'.*expected 27 values"):
            translate(net, sources=())
    else:
        assert operators(net) == ["BatchNormalization", "Mul", "Add"]


def test_a_folded_scale_is_checked_under_its_own_name() -> None:
    norm, scale = norm_and_scale()
    for blobs, message in (((), "blob 0 is missing"), (scale.blobs[:1], "blob 1 is missing"),
                           ((*scale.blobs, blob(np.ones(3))), "blobs: expected 2, found 3"),
                           ((blob(np.ones(4)),), "expected 3 values")):  # fmt: skip
        wrong = Layer("scale", "Scale", scale.bottoms, scale.tops, scale.message, blobs)
        with pytest.raises(MalformedSourceError, match=rf"'scale'.*{message}"):
            translate(net_of(norm, wrong, inputs={"x": X.shape}), sources=())


@given(st.lists(st.integers(2, 4), min_size=3, max_size=4).map(tuple), st.booleans(), st.booleans(),
       st.sampled_from([1e-9, 0.1]), SEEDS)  # fmt: skip
def test_mvn_adds_eps_outside_of_the_root(shape: Shape, across: bool, normalize: bool, eps: float, seed: int) -> None:
    """Mean over H, W (or C, H, W), divided by (std + eps)."""
    x = normal(seed, shape)
    axes = tuple(range(1 if across else 2, len(shape)))
    expected = x - x.mean(axes, keepdims=True)
    if normalize:
        expected = expected / (x.std(axes, keepdims=True) + np.float32(eps))
    layer = make_layer("MVN", mvn_param={"across_channels": across, "normalize_variance": normalize, "eps": eps})
    assert_close(run_layer(layer, [x])[0], expected, relative=1e-4)


@given(SHAPES, st.booleans(), st.booleans(), st.sampled_from([1e-10, 0.5]), SEEDS)
def test_normalize_divides_by_the_length_of_a_pixel_or_a_picture(
    shape: Shape, across: bool, shared: bool, eps: float, seed: int
) -> None:
    """x / sqrt(sum x^2 + eps) over C, or over C, H, W, times one value or one for each channel."""
    x, scale = normal(seed, shape), normal(seed + 1, (1 if shared else shape[1],))
    total = (x**2).sum(tuple(range(1, len(shape))) if across else 1, keepdims=True) + np.float32(eps)
    layer = make_layer("Normalize", [scale],
                       norm_param={"across_spatial": across, "channel_shared": shared, "eps": eps})  # fmt: skip
    assert_close(run_layer(layer, [x])[0], x / np.sqrt(total) * per_channel(scale, len(shape)))
    assert [tensor.name for tensor in translate_layer(layer, [shape]).tensors] == ["layer.scale"]


def test_inputs_without_the_axes_to_normalise_over_are_refused() -> None:
    for kind, shape in (("MVN", (1, 3)), ("MVN", (1, 3, 2, 2, 2)), ("MVN", (3,)), ("Normalize", (3,)), ("BN", (3,))):
        with pytest.raises(UnsupportedSourceError, match="layer"):
            translate_layer(make_layer(kind), [shape])
