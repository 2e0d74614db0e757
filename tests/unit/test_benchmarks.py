"""The arithmetic that benchmarks compare with: what a peer is said to reach must be what it reaches."""

from __future__ import annotations

import importlib
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import numpy as np
import onnx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper

FOLDER = Path(__file__).resolve().parents[2] / "benchmarks"


@pytest.fixture(scope="module", autouse=True)
def _beside() -> Iterator[None]:
    """Scripts of that folder find the files beside them."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(FOLDER))
        yield


def script(name: str) -> ModuleType:
    return importlib.import_module(name)


@given(bits=st.integers(2, 4), size=st.sampled_from((32, 128)), seed=st.integers(0, 99))
def test_gptq_with_inputs_that_are_not_correlated_rounds_to_nearest(bits: int, size: int, seed: int) -> None:
    """With H a multiple of the identity no error is handed on."""
    weights = np.random.default_rng(seed).normal(size=(5, 192)).astype(np.float32)
    quantized, _ = script("gptq_job").quantize(weights, 3.0 * np.eye(192), bits, size)
    for start in range(0, 192, size):
        group = weights[:, start : start + size].astype(np.float64)
        scale, zero = (value[:, None] for value in script("gptq_job").grid(group, bits))
        nearest = scale * (np.clip(np.rint(group / scale + zero), 0, 2**bits - 1) - zero)
        np.testing.assert_allclose(quantized[:, start : start + size], nearest, rtol=1e-6)


def test_gptq_has_a_smaller_response_error_than_rounding() -> None:
    generator = np.random.default_rng(1)
    x = generator.normal(size=(4000, 24)) @ generator.normal(size=(24, 128)) + 0.1 * generator.normal(size=(4000, 128))
    weights = generator.normal(size=(16, 128)).astype(np.float32)
    module = script("gptq_job")
    ours, _ = module.quantize(weights, x.T @ x / len(x), 3, 64)
    rounded, _ = module.quantize(weights, np.eye(128), 3, 64)
    assert np.square(x @ (ours - weights).T).sum() < 0.6 * np.square(x @ (rounded - weights).T).sum()


def test_gptq_counts_every_bit_that_it_needs() -> None:
    codes = np.array([[0, 1, 2, 3], [7, 6, 5, 4]], np.uint8)
    assert script("gptq_job").packed(codes, 3).tobytes() == bytes((0b00000101, 0b00111111, 0b10101100))


def test_decoded_weights_go_back_into_the_graph() -> None:
    """An exporter shares equal tensors by an Identity; a peer changes each of them by itself."""
    module = script("onnx_weights")
    nodes = [helper.make_node("Identity", ["a"], ["b"]), helper.make_node("Gemm", ["x", "a", "b"], ["y"], transB=1)]
    value = numpy_helper.from_array(np.ones((2, 2), np.float32), "a")
    ends = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [2, 2]) for name in ("x", "y")]
    model = helper.make_model(helper.make_graph(nodes, "g", ends[:1], ends[1:], [value]))
    module.separate(model)
    onnx.checker.check_model(model)
    module.put_back(model, {"b": np.zeros((2, 2), np.float32)})
    assert {name: values.tolist() for name, values in module.weights(model).items()} == {
        "a": [[1.0, 1.0], [1.0, 1.0]],
        "b": [[0.0, 0.0], [0.0, 0.0]],
    }
    with pytest.raises(ValueError, match=r"a: \(3,\)"):
        module.put_back(model, {"a": np.zeros(3, np.float32)})


def test_a_comparison_names_the_side_that_lost() -> None:
    lab, networks = script("accuracy_lab"), script("accuracy_networks")
    entries = [lab.Entry(label, "none", Path(label), size) for label, size in (("ours", 990_000), ("peer", 1_000_000))]
    judged = [
        lab.Judged(entry, top1, 0.0, 0.0, 0.0, 0.0, 0.0) for entry, top1 in zip(entries, (80.0, 81.5), strict=True)
    ]
    assert list(networks.compared("without data", judged, 1)) == [
        "without data: 0.990 MB 80.00 %, peer 1.000 MB 81.50 %: 1.50 points BELOW"
    ]
