"""ONNX Runtime sessions of bundles: the same outputs as the model they were made from, and no file is looked for."""

from __future__ import annotations

import builtins
import gc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from onnx import ModelProto, TensorProto, helper, numpy_helper

import mobilemodel
from mobilemodel.errors import (
    CheckFailedError,
    LimitExceededError,
    MalformedContentError,
    MalformedSourceError,
    MissingDependencyError,
    UnsupportedSourceError,
    UsageError,
)
from mobilemodel.runtime import open_model, random_inputs, run, session
from mobilemodel.v1 import bundle_pb2 as pb

MakeBundle = Callable[..., bytes]
X = {"x": np.random.default_rng(0).standard_normal((2, 4)).astype(np.float32)}


def model(nodes: list[Any], initializers: list[TensorProto], inputs: list[Any] | None = None) -> ModelProto:
    graph = helper.make_graph(
        nodes, "g", inputs or [value("x", TensorProto.FLOAT, [2, 4])], [value("y", TensorProto.FLOAT, None)],
        initializers,
    )  # fmt: skip
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 19)])
    made.ir_version = 9
    return made


def value(name: str, dtype: int, shape: list[Any] | None) -> Any:
    return helper.make_tensor_value_info(name, dtype, shape)


def weight(dtype: int = TensorProto.FLOAT, name: str = "w", rows: int = 4, columns: int = 3) -> TensorProto:
    numbers = np.random.default_rng(1).standard_normal(rows * columns) * (20 if dtype in (2, 3) else 1)
    if dtype in (TensorProto.UINT8, TensorProto.INT8):
        numbers = np.abs(numbers).astype(int)
    return helper.make_tensor(name, dtype, [rows, columns], numbers.tolist())


MATMUL = [helper.make_node("MatMul", ["x", "w"], ["y"])]
CAST_MATMUL = [
    helper.make_node("Cast", ["w"], ["f"], to=TensorProto.FLOAT),
    helper.make_node("MatMul", ["x", "f"], ["y"]),
]


@pytest.mark.parametrize("dtype", [1, 2, 3, 10, 11, 16, 17, 18, 19, 20], ids=TensorProto.DataType.Name)
def test_a_bundle_runs_like_its_model(make_bundle: MakeBundle, dtype: int) -> None:
    """Every type that spec/graph.md lets out of the graph: those that numpy lacks too."""
    made = model(CAST_MATMUL, [weight(dtype)])
    expected = run(session(made.SerializeToString()), X)["y"]
    found = run(session(make_bundle(made, {"w"})), X)["y"]
    assert found.tobytes() == expected.tobytes()


def test_a_bundle_as_handle_path_and_bytes(make_bundle: MakeBundle, tmp_path: Path) -> None:
    raw = make_bundle(model(MATMUL, [weight()]), {"w"})
    path = tmp_path / "out.mm"
    path.write_bytes(raw)
    with mobilemodel.open(path) as bundle:
        found = [run(session(given), X)["y"].tobytes() for given in (bundle, path, str(path), raw)]
        assert bundle["w"].numpy().shape == (4, 3), "the session closed a bundle that is not its own"
    assert len(set(found)) == 1


def test_an_onnx_model_as_path_and_bytes(tmp_path: Path) -> None:
    raw = model(MATMUL, [weight()]).SerializeToString()
    path = tmp_path / "a.onnx"
    path.write_bytes(raw)
    assert open_model(raw) is raw
    assert open_model(path) == str(path)
    assert run(session(path), X)["y"].tobytes() == run(session(raw), X)["y"].tobytes()


def test_tensors_live_as_long_as_the_session(make_bundle: MakeBundle) -> None:
    made = model(MATMUL, [weight(rows=4, columns=5000)])
    running = session(make_bundle(made, {"w"}))
    gc.collect()
    rubbish = [np.full(20_000, 7, np.float32) for _ in range(200)]
    expected = X["x"] @ numpy_helper.to_array(made.graph.initializer[0])
    np.testing.assert_allclose(run(running, X)["y"], expected, rtol=1e-5, atol=1e-6)
    assert rubbish


def test_scalars_and_empty_tensors_are_handed_over(make_bundle: MakeBundle) -> None:
    scalar = numpy_helper.from_array(np.array(2.5, np.float32), "s")
    empty = numpy_helper.from_array(np.zeros((0, 4), np.float32), "e")
    nodes = [helper.make_node("Add", ["x", "s"], ["t"]), helper.make_node("Concat", ["t", "e"], ["y"], axis=0)]
    found = run(session(make_bundle(model(nodes, [scalar, empty]), {"s", "e"})), X)["y"]
    assert np.array_equal(found, X["x"] + np.float32(2.5))


def test_tensors_that_the_graph_does_not_name_are_left_alone(make_bundle: MakeBundle) -> None:
    def forget(manifest: pb.Manifest) -> None:
        extra = pb.Tensor()
        extra.CopyFrom(manifest.tensors[0])
        extra.name = "z"
        manifest.tensors.append(extra)

    raw = make_bundle(model(MATMUL, [weight()]), {"w"}, forget)
    assert run(session(raw), X)["y"].shape == (2, 3)


def external(location: str) -> TensorProto:
    item = TensorProto(name="w", data_type=1, dims=[4, 3], data_location=TensorProto.EXTERNAL)
    item.external_data.add(key="location", value=location)
    return item


@pytest.mark.parametrize("location", ["../../secret", "weights.bin", "/etc/passwd", ""])
def test_a_bundle_never_leads_to_another_file(make_bundle: MakeBundle, location: str) -> None:
    """spec/graph.md: external means location ``mobilemodel``."""
    with pytest.raises(MalformedContentError, match="refers to a file outside"):
        session(make_bundle(model(MATMUL, [external(location)]), ()))


def test_external_tensors_elsewhere_in_the_graph_are_refused(make_bundle: MakeBundle) -> None:
    constant = helper.make_node("Constant", [], ["w"], value=external("mobilemodel"))
    branch = helper.make_graph([helper.make_node("MatMul", ["x", "w"], ["b"])], "b", [],
                               [value("b", 1, None)], [external("mobilemodel")])  # fmt: skip
    condition = helper.make_node("If", ["c"], ["y"], then_branch=branch, else_branch=branch)
    for made in (
        model([constant, *MATMUL], []),
        model([condition], [numpy_helper.from_array(np.array(True), "c")]),
    ):
        with pytest.raises(MalformedContentError, match="no initializer of the main graph"):
            session(make_bundle(made, ()))


def test_a_tensor_that_the_bundle_lacks_is_named(make_bundle: MakeBundle) -> None:
    with pytest.raises(MalformedContentError, match="tensor 'w': the graph names a tensor that the bundle lacks"):
        session(make_bundle(model(MATMUL, [external("mobilemodel")]), ()))


def test_graph_and_tensor_must_agree(make_bundle: MakeBundle) -> None:
    def turn(manifest: pb.Manifest) -> None:
        manifest.tensors[0].dims[:] = [3, 4]

    with pytest.raises(MalformedContentError, match=r"expected float32 \[4, 3\], found float32 \[3, 4\]"):
        session(make_bundle(model(MATMUL, [weight()]), {"w"}, turn))


def test_a_bundle_without_a_graph_does_not_run(make_bundle: MakeBundle) -> None:
    def drop(manifest: pb.Manifest) -> None:
        manifest.labels = manifest.graph
        manifest.ClearField("graph")

    with pytest.raises(UnsupportedSourceError, match="no graph"):
        session(make_bundle(model(MATMUL, [weight()]), {"w"}, drop))


def test_weights_beside_a_model_need_its_path() -> None:
    with pytest.raises(UnsupportedSourceError, match="Give the path"):
        session(model(MATMUL, [external("weights.bin")]).SerializeToString())


def test_what_onnx_runtime_refuses_is_one_line() -> None:
    unknown = model([helper.make_node("NoSuch\x1b[2JOperator", ["x"], ["y"])], [])
    with pytest.raises(UnsupportedSourceError, match="ONNX Runtime refuses the model") as caught:
        session(unknown.SerializeToString())
    assert "\x1b" not in str(caught.value)
    assert "\n" not in caught.value.message


@pytest.mark.parametrize("raw", [b"", b"\xff\xff garbage", b"\x08\x07"], ids=["empty", "garbage", "no graph"])
def test_bytes_that_are_no_model_are_refused(raw: bytes) -> None:
    with pytest.raises(mobilemodel.MobileModelError):
        session(raw)


def test_inputs_that_do_not_fit_fail_the_run() -> None:
    running = session(model(MATMUL, [weight()]).SerializeToString())
    with pytest.raises(CheckFailedError, match="ONNX Runtime could not run the model"):
        run(running, {"x": np.zeros((2, 5), np.float32)})
    with pytest.raises(CheckFailedError):
        run(running, {})


def test_a_missing_path_and_threads_below_one_are_usage_errors(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="cannot open"):
        session(tmp_path / "none.mm")
    with pytest.raises(UsageError, match="threads"):
        session(model(MATMUL, [weight()]).SerializeToString(), threads=0)


def test_missing_onnx_runtime_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    known = builtins.__import__

    def without(name: str, *arguments: Any, **options: Any) -> Any:
        if name == "onnxruntime":
            raise ImportError(name)
        return known(name, *arguments, **options)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(MissingDependencyError, match=r"mobilemodel\[runtime\]"):
        session(model(MATMUL, [weight()]).SerializeToString())


# Random inputs


def test_random_inputs_are_the_same_for_the_same_seed() -> None:
    raw = model(MATMUL, [weight()]).SerializeToString()
    assert random_inputs(raw, 3)["x"].tobytes() == random_inputs(raw, 3)["x"].tobytes()
    assert random_inputs(raw, 3)["x"].tobytes() != random_inputs(raw, 4)["x"].tobytes()


def test_unknown_dimensions_become_the_batch_or_one() -> None:
    inputs = [
        value("a", 1, ["n", 3, "h", None]), value("b", 1, [5, "n"]), value("c", 7, [None]), value("d", 1, []),
        value("e", 1, None),
    ]  # fmt: skip
    found = random_inputs(model(MATMUL, [], inputs).SerializeToString(), 0, batch=4)
    assert {name: array.shape for name, array in found.items()} == {
        "a": (4, 3, 1, 1), "b": (5, 4), "c": (4,), "d": (), "e": (),
    }  # fmt: skip


@pytest.mark.parametrize("dtype", [1, 2, 3, 4, 5, 6, 7, 9, 10, 11, 12, 13])
def test_every_plain_type_has_random_values(dtype: int) -> None:
    made = model([helper.make_node("Cast", ["x"], ["y"], to=1)], [], [value("x", dtype, [1000])])
    found = random_inputs(made.SerializeToString(), 0)["x"]
    assert found.dtype == helper.tensor_dtype_to_np_dtype(dtype)
    assert len(np.unique(found)) > 1
    assert np.isfinite(found.astype(float)).all()
    run(session(made.SerializeToString()), {"x": found})


def test_random_strings() -> None:
    made = model([helper.make_node("Identity", ["x"], ["y"])], [], [value("x", TensorProto.STRING, [2, 2])])
    made.graph.output[0].CopyFrom(value("y", TensorProto.STRING, None))
    found = random_inputs(made.SerializeToString(), 0)
    assert run(session(made.SerializeToString()), found)["y"].tolist() == found["x"].tolist()


def test_initializers_are_no_inputs() -> None:
    made = model(MATMUL, [weight()], [value("x", 1, [2, 4]), value("w", 1, [4, 3])])
    assert set(random_inputs(made.SerializeToString(), 0)) == {"x"}


def test_hostile_inputs_are_refused() -> None:
    huge = model(MATMUL, [], [value("x", 1, [2**40, 2**40])]).SerializeToString()
    with pytest.raises(LimitExceededError, match="tensor 'x': values of an input"):
        random_inputs(huge, 0)
    negative = model(MATMUL, [], [value("x", 1, [-3])]).SerializeToString()
    with pytest.raises(MalformedSourceError, match="negative"):
        random_inputs(negative, 0)
    narrow = model(MATMUL, [], [value("x", TensorProto.BFLOAT16, [3])]).SerializeToString()
    with pytest.raises(UnsupportedSourceError, match="bfloat16"):
        random_inputs(narrow, 0)
    sequence = model(MATMUL, [], [helper.make_tensor_sequence_value_info("x", 1, [3])]).SerializeToString()
    with pytest.raises(UnsupportedSourceError, match="no tensor"):
        random_inputs(sequence, 0)


@given(st.binary(max_size=80))
def test_random_bytes_are_no_model(raw: bytes) -> None:
    with pytest.raises(mobilemodel.MobileModelError):
        random_inputs(raw, 0)
