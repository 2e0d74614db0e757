"""Each derivative is that of its operator, whatever the shapes and attributes: against finite differences."""

from __future__ import annotations

from typing import Any

import numpy as np
from hypothesis import assume, given
from hypothesis import strategies as st

from mobilemodel.gradients.derivatives.step import unbroadcast, window
from tests.differences import apart, check_operator, numbers

SEEDS = st.integers(0, 1000)
SMALL = st.integers(1, 3)


@st.composite
def windows(draw: st.DrawFn, *, rule: bool = True, dilated: bool = True) -> tuple[list[int], dict[str, Any]]:
    """Spatial sizes, and attributes of windows that lie at least partly on such an input."""
    rank = draw(st.integers(1, 2))
    sizes = draw(st.lists(st.integers(5, 7), min_size=rank, max_size=rank))
    kernel, strides = (draw(st.lists(SMALL, min_size=rank, max_size=rank)) for _ in range(2))
    attributes: dict[str, Any] = {"kernel_shape": kernel, "strides": strides}
    if dilated:
        attributes["dilations"] = draw(st.lists(st.integers(1, 2), min_size=rank, max_size=rank))
    padding = draw(st.sampled_from(["pads", "SAME_UPPER", "SAME_LOWER", "VALID"] if rule else ["pads"]))
    if padding == "pads":
        attributes["pads"] = [draw(st.integers(0, size - 1)) for size in kernel * 2]
    else:
        attributes["auto_pad"] = padding
        attributes["dilations"] = [1] * rank
        if not dilated:
            del attributes["dilations"]
    return sizes, attributes


@given(windows(), SMALL, SMALL, SMALL, SEEDS)
def test_conv(shape: tuple[list[int], dict[str, Any]], groups: int, inner: int, outer: int, seed: int) -> None:
    sizes, attributes = shape
    x = numbers(seed, 2, groups * inner, *sizes)
    weights = numbers(seed + 1, groups * outer, inner, *attributes["kernel_shape"])
    check_operator("Conv", [x, weights, numbers(seed + 2, groups * outer)], group=groups, step=1, **attributes)


@given(windows(rule=False), SMALL, SMALL, SMALL, st.data())
def test_conv_transpose(
    shape: tuple[list[int], dict[str, Any]], groups: int, inner: int, outer: int, data: st.DataObject
) -> None:
    sizes, attributes = shape
    # Where the operator crops more than it has, nothing is left to differentiate.
    attributes["pads"] = [min(pad, 1) for pad in attributes["pads"]]
    attributes["output_padding"] = [data.draw(st.integers(0, stride - 1)) for stride in attributes["strides"]]
    x = numbers(5, 2, groups * inner, *sizes)
    weights = numbers(6, groups * inner, outer, *attributes["kernel_shape"])
    check_operator("ConvTranspose", [x, weights], group=groups, step=1, **attributes)


@given(windows(rule=False), st.booleans(), SEEDS)
def test_max_pool(shape: tuple[list[int], dict[str, Any]], ceil: bool, seed: int) -> None:
    sizes, attributes = shape
    assume(all(np.array(attributes["pads"]) < np.array(attributes["kernel_shape"] * 2)))
    check_operator("MaxPool", [apart(seed, 2, 2, *sizes)], ceil_mode=int(ceil), step=0.04, tolerance=1e-3, **attributes)


@given(windows(rule=False, dilated=False), st.booleans(), SEEDS)
def test_average_pool(shape: tuple[list[int], dict[str, Any]], padding: bool, seed: int) -> None:
    sizes, attributes = shape
    check_operator("AveragePool", [numbers(seed, 2, 2, *sizes)], count_include_pad=int(padding), step=1, **attributes)


@given(st.booleans(), st.booleans(), st.floats(0.5, 2), st.floats(0.5, 2), st.sampled_from([(3, 4), (4,), (1, 4)]))
def test_gemm(first: bool, second: bool, alpha: float, beta: float, bias: tuple[int, ...]) -> None:
    left, right = numbers(1, *((5, 3) if first else (3, 5))), numbers(2, *((4, 5) if second else (5, 4)))
    check_operator(
        "Gemm", [left, right, numbers(3, *bias)], by=(0, 1, 2), transA=int(first), transB=int(second), alpha=alpha,
        beta=beta,
    )  # fmt: skip


@given(st.sampled_from([
    ((3, 4), (4, 5)), ((2, 3, 4), (4, 5)), ((2, 3, 4), (2, 4, 5)), ((2, 1, 3, 4), (5, 4, 2)), ((1, 3, 4), (2, 4, 5)),
    ((4,), (4, 5)), ((3, 4), (4,)), ((2, 3, 4), (4,)), ((4,), (2, 4, 5)),
]))  # fmt: skip
def test_matmul(shapes: tuple[tuple[int, ...], tuple[int, ...]]) -> None:
    check_operator("MatMul", [numbers(1, *shapes[0]), numbers(2, *shapes[1])], by=(0, 1))


@st.composite
def broadcast(draw: st.DrawFn, operands: int) -> list[tuple[int, ...]]:
    """Shapes that numpy's rule makes one."""
    whole = draw(st.lists(SMALL, min_size=1, max_size=3))
    shapes = []
    for _ in range(operands):
        start = draw(st.integers(0, len(whole)))
        shapes.append(tuple(draw(st.sampled_from([1, size])) for size in whole[start:]))
    return [tuple(whole), *shapes[1:]] if draw(st.booleans()) else [*shapes[1:], tuple(whole)]


@given(broadcast(2), st.sampled_from(["Add", "Sub", "Mul", "Div", "Max", "Min", "Sum", "Mean"]))
def test_two_operands_with_broadcasting(shapes: list[tuple[int, ...]], operator: str) -> None:
    left, right = numbers(1, *shapes[0]), numbers(2, *shapes[1])
    right = np.asarray(np.where(np.abs(right) < 0.5, np.float32(1.5), right))  # a divisor near 0 tells nothing
    linear = operator in ("Add", "Mean", "Sub", "Sum")
    check_operator(operator, [left, right], by=(0, 1), step=1 if linear else 0)


@given(broadcast(2), SEEDS)
def test_a_choice_with_broadcasting(shapes: list[tuple[int, ...]], seed: int) -> None:
    condition = np.random.default_rng(seed).integers(0, 2, shapes[0]).astype(np.bool_)
    check_operator("Where", [condition, numbers(1, *shapes[1]), numbers(2, *shapes[0])], by=(1, 2))


@given(broadcast(2), st.sampled_from([0.0, 0.5, 1.0, 2.0, 3.0]))
def test_powers(shapes: list[tuple[int, ...]], exponent: float) -> None:
    check_operator("Pow", [np.asarray(np.abs(numbers(1, *shapes[0])) + 0.5), np.full(shapes[1], exponent, np.float32)])


@st.composite
def bounds(draw: st.DrawFn) -> tuple[int, int, int]:
    far = st.one_of(st.integers(-9, 9), st.sampled_from([-(2**63), 2**63 - 1]))
    return draw(far), draw(far), draw(st.sampled_from([1, 2, 3, -1, -2]))


@given(bounds(), st.sampled_from([0, 1, 2, -1]))
def test_slice(bound: tuple[int, int, int], axis: int) -> None:
    start, end, step = (np.array([number], np.int64) for number in bound)
    x = numbers(1, 5, 5, 5)
    check_operator("Slice", [x, start, end, np.array([axis], np.int64), step], step=1)


@given(st.lists(st.integers(-1, 2), min_size=4, max_size=4))
def test_pad(pads: list[int]) -> None:
    x = numbers(1, 2, 4, 4)
    check_operator("Pad", [x, np.array([0, *pads[:2], 0, *pads[2:]], np.int64)], step=1)


@given(st.sets(st.integers(0, 2)), st.booleans(), st.booleans(), st.sampled_from(["ReduceMean", "ReduceSum"]))
def test_reductions(axes: set[int], keep: bool, noop: bool, operator: str) -> None:
    given_axes = np.array([axis - 3 for axis in sorted(axes)], np.int64)
    check_operator(
        operator, [numbers(1, 2, 3, 4), given_axes if axes else None], opset=18, keepdims=int(keep),
        noop_with_empty_axes=int(noop),
    )  # fmt: skip


@given(st.lists(SMALL, min_size=1, max_size=4), st.integers(-3, 2))
def test_concat_and_split(sizes: list[int], axis: int) -> None:
    shapes = [[size if place == axis % 3 else 2 for place in range(3)] for size in sizes]
    parts = [numbers(number, *shape) for number, shape in enumerate(shapes)]
    check_operator("Concat", parts, by=range(len(parts)), axis=axis)
    whole = np.concatenate(parts, axis=axis)
    check_operator("Split", [whole, np.array(sizes, np.int64)], outputs=len(parts), axis=axis)


@given(st.sampled_from([1, 3, 5, 7]), st.integers(1, 6), st.floats(1e-3, 1), st.floats(0.3, 1.5), SEEDS)
def test_lrn(size: int, channels: int, alpha: float, beta: float, seed: int) -> None:
    x = numbers(seed, 2, channels, 2, 2)
    check_operator("LRN", [x], size=size, alpha=alpha, beta=beta, bias=1.5, step=1e-2, tolerance=2e-3)


@given(broadcast(2))
def test_unbroadcasting_is_the_transpose_of_broadcasting(shapes: list[tuple[int, ...]]) -> None:
    whole = np.broadcast_shapes(*shapes)
    operand, gradient = numbers(1, *shapes[1]).astype(np.float64), numbers(2, *whole).astype(np.float64)
    found = unbroadcast(gradient, operand.shape)
    assert found.shape == operand.shape
    np.testing.assert_allclose((found * operand).sum(), (gradient * np.broadcast_to(operand, whole)).sum(), atol=1e-9)


@given(st.lists(st.tuples(st.integers(-9, 9), st.integers(0, 9)), min_size=2, max_size=2))
def test_a_window_holds_what_lies_there(places: list[tuple[int, int]]) -> None:
    array = np.arange(1, 21).reshape(4, 5)
    starts, shape = zip(*places, strict=True)
    found = window(array, starts, shape)
    for index in np.ndindex(*shape):
        at = tuple(start + offset for start, offset in zip(starts, index, strict=True))
        inside = all(0 <= place < size for place, size in zip(at, array.shape, strict=True))
        assert found[index] == (array[at] if inside else 0)
