"""The counter of multiply-adds: each operator by hand, what is not known, and real networks."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from onnx import ModelProto, TensorProto, helper

from mobilemodel.audit.multiply_adds import count_multiply_adds
from mobilemodel.errors import MalformedContentError, UsageError
from mobilemodel_converters import load_model
from tests.models import NETWORKS, in_function, in_if, model, tensor, value


def one(
    operator: str, inputs: dict[str, list[Any]], weights: dict[str, tuple[int, ...]], **attributes: Any
) -> ModelProto:
    """One node whose inputs are the graph's, then weights of these dims without values."""
    node = helper.make_node(operator, [*inputs, *weights], ["y"], **attributes)
    made = model([node], [value(name, shape) for name, shape in inputs.items()], [])
    for name, dims in weights.items():
        outside = TensorProto(name=name, data_type=1, dims=dims, data_location="EXTERNAL")
        outside.external_data.add(key="location", value="mobilemodel")
        made.graph.initializer.append(outside)
    return made


@pytest.mark.parametrize(
    ("made", "expected"),
    [
        # 5 channels of 3 x 4 positions, each of 3 channels x 3 x 2 weights.
        (one("Conv", {"x": [1, 6, 7, 8]}, {"w": (5 * 2, 3, 3, 2)}, group=2, strides=[2, 2], pads=[0, 0, 0, 0]),
         10 * 3 * 4 * 3 * 3 * 2),
        (one("ConvTranspose", {"x": [1, 6, 7, 8]}, {"w": (6, 5, 3, 3)}, strides=[2, 2]), 6 * 7 * 8 * 5 * 9),
        (one("Gemm", {"x": [2, 20]}, {"w": (12, 20)}, transB=1), 2 * 20 * 12),
        (one("Gemm", {"x": [20, 2]}, {"w": (20, 12)}, transA=1), 2 * 20 * 12),
        (one("MatMul", {"x": [2, 7, 20]}, {"w": (20, 12)}), 2 * 7 * 20 * 12),
        (one("MatMul", {"x": [2, 3, 4, 5], "z": [3, 5, 6]}, {}), 2 * 3 * 4 * 5 * 6),
        (one("MatMul", {"x": [5], "z": [5]}, {}), 5),
        (one("Einsum", {"x": [2, 3, 4]}, {"w": (4, 5)}, equation="bij,jk->bik"), 2 * 3 * 4 * 5),
        (one("Einsum", {"x": [3, 4]}, {}, equation="ij->ji"), 0),
        (one("LSTM", {"x": [5, 2, 8]}, {"w": (1, 24, 8), "r": (1, 24, 6)}, hidden_size=6), 5 * 2 * 24 * (8 + 6)),
        (one("GRU", {"x": [5, 2, 8]}, {"w": (2, 18, 8), "r": (2, 18, 6)}, hidden_size=6, direction="bidirectional"),
         5 * 2 * 2 * 18 * (8 + 6)),
        (one("BatchNormalization", {"x": [1, 3, 4, 5]}, {"s": (3,), "b": (3,), "m": (3,), "v": (3,)}), 60),
    ],
)  # fmt: skip
def test_each_operator_by_hand(made: ModelProto, expected: int) -> None:
    counted = count_multiply_adds(made.SerializeToString())
    assert not counted.unknown
    assert counted.total == expected


def test_a_free_batch_counts_as_one_and_other_sizes_are_the_callers() -> None:
    raw = one("Gemm", {"x": ["N", 20]}, {"w": (20, 12)}).SerializeToString()
    assert count_multiply_adds(raw).total == 240
    assert count_multiply_adds(raw, {"x": (7, 20)}).total == 7 * 240
    raw = one("Conv", {"x": [None, 3, "H", "W"]}, {"w": (4, 3, 3, 3)}).SerializeToString()
    (unknown,) = count_multiply_adds(raw).unknown
    assert (unknown.operator, unknown.reason) == ("Conv", "the sizes of the output are not known")
    assert count_multiply_adds(raw).total == 0
    assert count_multiply_adds(raw, {"x": (1, 3, 10, 12)}).total == 4 * 8 * 10 * 27


def test_a_symbol_that_is_known_is_known_everywhere() -> None:
    raw = one("MatMul", {"x": ["N", 4], "z": [4, "N"]}, {}).SerializeToString()
    assert count_multiply_adds(raw, {"x": (6, 4)}).total == 6 * 4 * 6


@pytest.mark.parametrize(
    "sizes", [{"z": (1, 20)}, {"x": (1,)}, {"x": (1, 21)}, {"x": (-1, 20)}, {"x": (2**40, 20)}, {"w": (20, 12)}]
)
def test_sizes_that_do_not_fit_are_usage_errors(sizes: dict[str, tuple[int, ...]]) -> None:
    with pytest.raises(UsageError):
        count_multiply_adds(one("Gemm", {"x": ["N", 20]}, {"w": (20, 12)}).SerializeToString(), sizes)


@pytest.mark.parametrize("made", [in_if(), in_function(inside=True)])
def test_what_runs_nobody_knows_how_often_is_unknown(made: ModelProto) -> None:
    counted = count_multiply_adds(made.SerializeToString())
    assert [node.reason for node in counted.unknown] == ["nothing says how often its inner graph runs"]


def test_what_is_not_counted_is_named() -> None:
    counted = count_multiply_adds(NETWORKS["alexnet"]().SerializeToString())
    assert counted.others == (("Flatten", 1), ("MaxPool", 2), ("Relu", 4))
    assert [node.operator for node in counted.nodes] == ["Conv", "Conv", "Gemm", "Gemm", "Gemm"]
    assert [node.name for node in counted.nodes][-1] == "y"


@pytest.mark.parametrize("raw", [b"\x0a\xff", b"not a model", b"\x3a\x05\x0a\x03\x0a\x09\xff"])
def test_broken_bytes_are_malformed(raw: bytes) -> None:
    with pytest.raises(MalformedContentError):
        count_multiply_adds(raw)


def test_names_that_are_no_text_are_malformed() -> None:
    raw = NETWORKS["alexnet"]().SerializeToString()
    with pytest.raises(MalformedContentError, match="not UTF-8"):
        count_multiply_adds(raw.replace(b"MaxPool", b"Max\xffool"))


def test_what_onnx_cannot_infer_is_unknown() -> None:
    made = one("Gemm", {"x": ["N", 20]}, {"w": (12, 20)})
    made.graph.initializer.append(tensor("b", np.zeros((9, 9, 9), np.float32)))
    made.graph.node[0].input.append("b")
    assert count_multiply_adds(made.SerializeToString()).total == 0


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        # 32 x 32 positions of 64 x 75, 16 x 16 of 128 x 576, 8 x 8 of 256 x 576, and the FC weights once.
        ("cifar-alexnet/model.onnx", 1024 * 64 * 75 + 256 * 128 * 576 + 64 * 256 * 576 + 2048 * 4096 + 2048 * 2048
         + 20480),
        ("squeezenet-dc/squeezenet.onnx", 861_339_936),
    ],
)  # fmt: skip
def test_real_networks(name: str, expected: int, zoo: Path) -> None:
    loaded = load_model([zoo / name])
    counted = count_multiply_adds(loaded.build_graph(frozenset()))
    assert not counted.unknown
    assert counted.total == expected
    loaded.close()
