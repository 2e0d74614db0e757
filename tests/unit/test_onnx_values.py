"""Every element type and every field that holds values comes back bit for bit (spec/graph.md)."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from onnx import ModelProto, TensorProto, helper, numpy_helper

import mobilemodel as mm
from mobilemodel import dtypes
from mobilemodel.wire import varint
from tests.conversions import convert, exported
from tests.models import model, tensor, value

KNOWN = [number for number in range(1, 30) if dtypes.is_known(number)]
OUTSIDE = {1, 2, 3, 10, 11, 16, 17, 18, 19, 20}
"""spec/graph.md §2, rule 1"""


def raw_of(proto: TensorProto) -> bytes:
    return proto.raw_data or numpy_helper.to_array(proto).tobytes()


def every_pattern(dtype: int, dims: tuple[int, ...]) -> TensorProto:
    """A tensor of random bytes: NaN payloads, signalling ones too, subnormals, infinities."""
    size = dtypes.raw_size(dtype, int(np.prod(dims)))
    raw = np.random.default_rng(dtype).integers(0, 2 if dtype == 9 else 256, size, np.uint8).tobytes()
    return TensorProto(name="w", data_type=dtype, dims=dims, raw_data=raw)


def gather(proto: TensorProto) -> ModelProto:
    """Any type can be gathered from."""
    nodes = [helper.make_node("Gather", ["w", "ids"], ["y"])]
    return model(nodes, [value("ids", [2], TensorProto.INT64)], [proto], outputs=[value("y", None, proto.data_type)])


@pytest.mark.parametrize("dims", [(6, 40), (600, 50)], ids=["small", "left in the file"])
@pytest.mark.parametrize("dtype", KNOWN, ids=dtypes.name)
def test_every_type_comes_back_bit_for_bit(dtype: int, dims: tuple[int, ...], tmp_path: Path) -> None:
    proto = every_pattern(dtype, dims)
    row = convert(gather(proto), tmp_path)["w"]
    assert (row.encoding != "graph") == (dtype in OUTSIDE)
    assert raw_of(exported(tmp_path).graph.initializer[0]) == proto.raw_data
    if dtype in OUTSIDE:
        with mm.open(tmp_path / "out.mm") as bundle:
            assert bytes(bundle["w"].raw()) == proto.raw_data


@pytest.mark.parametrize("scheme", ["fp16", "int8", "kmeans-4", "mixed-4-8"])
@pytest.mark.parametrize("dtype", [number for number in KNOWN if number not in (1, 10)], ids=dtypes.name)
def test_types_that_no_scheme_quantizes_come_back_bit_for_bit(dtype: int, scheme: str, tmp_path: Path) -> None:
    proto = every_pattern(dtype, (6, 40))
    row = convert(gather(proto), tmp_path, scheme)["w"]
    assert row.reason
    assert raw_of(exported(tmp_path).graph.initializer[0]) == proto.raw_data


# What a TensorProto may hold outside of raw_data, as its own bytes: the float fields keep signalling NaNs.
SIGNALLING = [0x7F800001, 0xFFBFFFFF, 0x7FC12345, 0x00000001, 0x80000000, 0x3F800000] * 4


def test_signalling_nans_in_float_data_keep_their_payload(tmp_path: Path) -> None:
    raw = np.array(SIGNALLING, "<u4").tobytes()
    proto = TensorProto(name="w", data_type=1, dims=[4, 6])
    proto.MergeFromString(b"\x22" + bytes([len(raw)]) + raw)
    assert not proto.HasField("raw_data")
    convert(gather(proto), tmp_path)
    with mm.open(tmp_path / "out.mm") as bundle:
        assert bytes(bundle["w"].raw()) == raw


@pytest.mark.parametrize("dtype", [2, 3, 10, 11, 16, 17, 18, 19, 20], ids=dtypes.name)
def test_values_in_typed_fields(dtype: int, tmp_path: Path) -> None:
    """int32_data holds the bits of halves and bytes."""
    raw = every_pattern(dtype, (5, 8)).raw_data
    if dtype == 11:
        raw = np.random.default_rng(0).standard_normal((5, 8)).tobytes()
        proto = TensorProto(name="w", data_type=dtype, dims=[5, 8], double_data=np.frombuffer(raw, "<f8"))
    else:
        kind = {2: "u1", 3: "i1"}.get(dtype, "<u2" if dtype in (10, 16) else "u1")
        proto = TensorProto(name="w", data_type=dtype, dims=[5, 8], int32_data=np.frombuffer(raw, kind))
    convert(gather(proto), tmp_path)
    with mm.open(tmp_path / "out.mm") as bundle:
        assert bytes(bundle["w"].raw()) == raw


@pytest.mark.parametrize("large", [False, True], ids=["small", "left in the file"])
def test_unpacked_float_data(large: bool, tmp_path: Path) -> None:
    """Each value a field of its own, as old writers did: protobuf takes both forms."""
    values = np.random.default_rng(0).standard_normal((200, 100) if large else (4, 5)).astype("<f4")
    unpacked = b"".join(b"\x25" + item.tobytes() for item in values.reshape(-1))
    proto = TensorProto(name="w", data_type=1, dims=values.shape).SerializeToString() + unpacked
    frame = gather(tensor("w", values))
    del frame.graph.initializer[:]
    graph = frame.graph.SerializeToString() + b"\x2a" + varint(len(proto)) + proto
    frame.ClearField("graph")
    source = tmp_path / "model.onnx"
    source.write_bytes(frame.SerializeToString() + b"\x3a" + varint(len(graph)) + graph)
    mm.convert(source, tmp_path / "out.mm", scheme="lossless")
    with mm.open(tmp_path / "out.mm") as bundle:
        assert np.array_equal(bundle["w"].numpy(), values)


def test_scalars_and_empty_tensors(tmp_path: Path) -> None:
    for dims in ((), (0, 4), (4, 0), (1,), (1, 1)):
        proto = tensor("w", np.ones(dims, np.float32))
        made = model([helper.make_node("Add", ["x", "w"], ["y"])], [value("x", list(dims))], [proto])
        for scheme in ("lossless", "fp16", "kmeans-4", "int8"):
            assert list(convert(made, tmp_path, scheme)) == ["w"]
            assert raw_of(exported(tmp_path).graph.initializer[0]) == raw_of(proto)
