"""Walking from layer to layer: the same values come out however much of the network is kept in between."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from onnx import ModelProto, TensorProto, helper, numpy_helper

from mobilemodel.calibration import samples as samples_module
from mobilemodel.calibration import walk as walk_module
from mobilemodel.calibration.segments import make_segment, needed_nodes
from mobilemodel.errors import CheckFailedError, UnsupportedSourceError, UsageError
from mobilemodel.runtime.data import Data
from mobilemodel.runtime.session import run, session
from tests.calibrating import Read, pictures, read, residual_net, rounded, samples_of
from tests.models import Array, Net, model, tensor, value
from tests.transforming import plain

Batches = dict[str, list[tuple[Array, Array]]]


def branches() -> ModelProto:
    """Three branches from one value; the input itself and integers computed early are read at the end."""
    net = Net(3)
    net.initializers.append(tensor("tail", np.array([-1], np.int64)))
    shape = net.node("Shape", "x", end=1)
    x = net.node("Relu", net.gemm("a", "x", 12, 16))
    parts = [net.node("Relu", net.gemm(name, x, 16, 12)) for name in ("b", "c")]
    y = net.node("Add", net.node("Add", *parts), "x")
    y = net.node("Reshape", y, net.node("Concat", shape, "tail", axis=0))
    net.gemm("d", y, 5, 16, "y")
    return net.done(value("x", ["N", 16]))


def conditional() -> ModelProto:
    """A graph within reads a value that was made long before."""
    net = Net(4)
    net.initializers.append(tensor("yes", np.array(True)))
    x = net.node("Relu", net.gemm("a", "x", 16, 16))
    y = net.node("Relu", net.gemm("b2", net.node("Relu", net.gemm("b", x, 16, 16)), 16, 16))
    inner = [
        helper.make_graph([helper.make_node(kind, [x, x], ["i"])], kind, [], [value("i")]) for kind in ("Add", "Mul")
    ]
    z = net.node("If", "yes", then_branch=inner[0], else_branch=inner[1])
    net.gemm("c", net.node("Add", y, z), 5, 16, "y")
    return net.done(value("x", ["N", 16]))


def loop() -> ModelProto:
    """A loop's body reads a value of the outer graph."""
    net = Net(5)
    net.initializers += [numpy_helper.from_array(np.array(3), "trips"), numpy_helper.from_array(np.array(True), "on")]
    x = net.node("Relu", net.gemm("a", "x", 16, 16))
    y = net.node("Relu", net.gemm("b2", net.node("Relu", net.gemm("b", x, 16, 16)), 16, 16))
    body = helper.make_graph(
        [helper.make_node("Identity", ["on_in"], ["on_out"]), helper.make_node("Add", ["sum_in", x], ["sum_out"])],
        "body", [value("trip", [], TensorProto.INT64), value("on_in", [], TensorProto.BOOL), value("sum_in")],
        [value("on_out", [], TensorProto.BOOL), value("sum_out")],
    )  # fmt: skip
    z = net.node("Loop", "trips", "on", y, body=body)
    net.gemm("c", z, 5, 16, "y")
    return net.done(value("x", ["N", 16]))


NETWORKS: dict[str, Callable[[], ModelProto]] = {
    "residual": residual_net, "branches": branches, "conditional": conditional, "loop": loop,
}  # fmt: skip


def data_for(name: str) -> Array:
    return pictures(150) if name == "residual" else pictures(150).reshape(150, -1)[:, :16]


def walked(found: Read, x: Array) -> Batches:
    """Every layer's batches, where each layer is rounded after its visit."""
    walk, batches = found.walk, {}
    for name, layer in found.layers.items():
        batches[name] = [(source.copy(), response.copy()) for source, response in walk.visit(layer, samples_of(x))]
        walk.changed[name] = rounded(walk.exact[name], 0.2)
    return batches


def same(one: Batches, other: Batches) -> None:
    assert one.keys() == other.keys()
    for name in one:
        for left, right in zip(one[name], other[name], strict=True):
            np.testing.assert_allclose(left[0], right[0], atol=1e-5)
            np.testing.assert_allclose(left[1], right[1], atol=1e-5)


@pytest.mark.parametrize("name", NETWORKS)
def test_the_same_batches_come_out_with_and_without_room(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    found, x = read(NETWORKS[name]()), data_for(name)
    with_room = walked(found, x)
    for held, inputs in ((0, 0), (40_000, 1 << 20), (1 << 30, 0)):
        monkeypatch.setattr(walk_module, "HELD_BYTES", held)
        monkeypatch.setattr(walk_module, "INPUT_BYTES", inputs)
        same(with_room, walked(found, x))


@pytest.mark.parametrize("name", NETWORKS)
def test_each_layer_sees_the_quantized_networks_input_and_the_float_networks_response(name: str) -> None:
    """«the layer's input in the quantized network and its response in the float network»: as whole networks say."""
    found, x = read(NETWORKS[name]()), data_for(name)
    batches = walked(found, x)
    changed = dict(found.walk.exact)
    for layer in found.layers.values():
        values = [(layer.source, changed), (layer.response, found.walk.exact)]
        whole = [x if name == "x" else make_segment(found.graph, weights, ["x"], [name]).run({"x": x})[name]
                 for name, weights in values]  # fmt: skip
        for side in (0, 1):
            seen = np.concatenate([pair[side] for pair in batches[layer.name]])
            np.testing.assert_allclose(seen, whole[side], atol=1e-4)
        changed[layer.name] = rounded(changed[layer.name], 0.2)


def test_what_is_held_stays_within_the_budget(monkeypatch: pytest.MonkeyPatch) -> None:
    found, x = read(residual_net()), pictures(300)
    monkeypatch.setattr(walk_module, "HELD_BYTES", 100_000)
    walk = found.walk
    largest = max(batch.nbytes for layer in found.layers.values() for batch in next(walk.visit(layer, samples_of(x))))
    for layer in found.layers.values():
        for _ in walk.visit(layer, samples_of(x)):
            kept = walk._held
            bytes_held = sum(a.nbytes for side in (kept.exact, kept.changed) for step in side for a in step.values())
            assert bytes_held == kept.size <= 100_000 + 4 * largest


def test_other_samples_do_not_start_from_what_was_held() -> None:
    found, x = read(residual_net()), pictures(200)
    walk, samples = found.walk, samples_of(x)
    for limit, name in ((100, "conv1.weight"), (200, "depthwise.weight"), (100, "fc1.weight")):
        sources = [source for source, _ in walk.visit(found.layers[name], samples.limited(limit))]
        assert sum(map(len, sources)) == limit


def test_a_segment_hands_through_what_is_known() -> None:
    found = read(residual_net())
    segment = make_segment(found.graph, found.walk.exact, ["x"], ["x"])
    x = pictures(2)
    assert segment.run({"x": x})["x"] is x


def test_a_value_that_nothing_makes_is_an_error_that_names_it() -> None:
    found = read(residual_net())
    with pytest.raises(UnsupportedSourceError, match="'nowhere'"):
        needed_nodes(found.graph, ["x"], ["nowhere"])


def test_values_that_are_not_finite_name_the_layer() -> None:
    made = model(
        [helper.make_node("Log", ["x"], ["l"]), helper.make_node("MatMul", ["l", "w"], ["y"])], [value("x", ["N", 4])],
        [tensor("w", np.ones((4, 3), np.float32))],
    )  # fmt: skip
    found = read(made)
    x = np.full((5, 4), -1, np.float32)
    with pytest.raises(CheckFailedError, match=r"layer 'w'.*not finite") as caught:
        list(found.walk.visit(found.layers["w"], samples_of(x)))
    assert "preprocessing" in str(caught.value.advice)


def test_samples_are_mirrored_batch_by_batch() -> None:
    x = np.arange(70 * 6, dtype=np.float32).reshape(70, 1, 2, 3)
    samples = samples_of(x)
    mirrored = type(samples)(samples.data, samples.prepare, "x", 3)
    assert (len(samples), len(mirrored), len(mirrored.plain())) == (70, 140, 70)
    batches = list(mirrored.batches())
    assert [len(batch) for batch in batches] == [64, 64, 6, 6]
    np.testing.assert_array_equal(batches[1], batches[0][..., ::-1])
    assert len(mirrored.limited(10)) == 10
    assert len(mirrored.limited(1)) == 2
    with pytest.raises(UsageError, match="axis of columns"):
        list(type(samples)(Data(x[:, 0, 0]), samples.prepare, "x", 3).batches())


def test_large_samples_come_in_smaller_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    x = np.arange(70 * 6, dtype=np.float32).reshape(70, 1, 2, 3)
    samples = samples_of(x)
    for most, sizes in ((24 * 25, [25, 25, 14, 6]), (24 * 64, [64, 6]), (23, [1] * 70)):
        monkeypatch.setattr(samples_module, "BATCH_BYTES", most)
        batches = list(samples.batches())
        assert [len(batch) for batch in batches] == sizes
        np.testing.assert_array_equal(np.concatenate(batches), x)
    mirrored = type(samples)(samples.data, samples.prepare, "x", 3)
    for plain_batch, flipped in zip(*[iter(mirrored.batches())] * 2, strict=True):
        np.testing.assert_array_equal(flipped, plain_batch[..., ::-1])
    fixed = type(samples)(samples.data, samples.prepare, "x", None, 35)
    assert [len(batch) for batch in fixed.batches()] == [35, 35]


def test_the_networks_of_these_tests_run() -> None:
    for name, make in NETWORKS.items():
        made = plain(read(make()).model)
        assert run(session(made.SerializeToString()), {"x": data_for(name)})["y"].shape[0] == 150
