"""nnc tensor stores: values by name into an ONNX graph, palettes without requantizing, and what is refused."""

from __future__ import annotations

import zlib
from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st
from onnx import ModelProto, TensorProto, helper, numpy_helper

import mobilemodel as mm
from mobilemodel.errors import MalformedSourceError, MobileModelError, UnsupportedSourceError
from mobilemodel.layout import CodesLayout, codes_layout
from mobilemodel.limits import FORMAT_LIMITS
from mobilemodel.v1 import bundle_pb2 as pb
from mobilemodel_converters.ccv import CcvConverter, schema
from mobilemodel_converters.ccv.tensors import _arranged
from tests.ccv_databases import change, error_of, peak_memory, write_store

Array = npt.NDArray[Any]
Entry = tuple[int, int, int, Sequence[int], bytes]
CODES = {"u1": 0x1000, "<i4": 0x2000, "<f4": 0x4000, "<i8": 0x8000, "<f8": 0x10000, "<f2": 0x20000}
QNP = {4: 0x8A1E4B, 5: 0x8A1E5B, 6: 0x8A1E6B, 7: 0x8A1E7B, 8: 0x8A1E8B}


def graph(weights: Mapping[str, Array], *, constant: bool = False) -> ModelProto:
    """x times each weight in turn; with ``constant`` the last weight is the value of a Constant node."""
    nodes, value = [], "x"
    for name in weights:
        nodes.append(helper.make_node("MatMul", [value, name], [f"{name}.out"]))
        value = f"{name}.out"
    protos = [numpy_helper.from_array(array, name) for name, array in weights.items()]
    if constant:
        last = protos.pop()
        nodes.insert(0, helper.make_node("Constant", [], [last.name], value=last))
    kind = helper.np_dtype_to_tensor_dtype(next(iter(weights.values())).dtype)
    made = helper.make_graph(
        nodes, "g", [helper.make_tensor_value_info("x", kind, [1, None])],
        [helper.make_tensor_value_info(value, kind, None)], protos,
    )  # fmt: skip
    return helper.make_model(made, opset_imports=[helper.make_opsetid("", 13)], ir_version=8)


def raw(array: Array) -> Entry:
    return (
        0,
        CODES[array.dtype.newbyteorder("<").str if array.dtype.itemsize > 1 else "u1"],
        0,
        array.shape,
        array.tobytes(),
    )


@dataclass
class PaletteData:
    """A palette tensor as nnc stores it, and what it holds."""

    content: bytes
    values: Array
    indices: Array
    codebooks: Array


def palettes(dims: Sequence[int], bits: int, block: int, kind: str = "<f2", seed: int = 0) -> PaletteData:
    """Blocks of a codebook and indices, the first in the high bits."""
    generator = np.random.default_rng(seed)
    count = int(np.prod(dims))
    indices = generator.integers(0, 1 << bits, count)
    codebooks = generator.standard_normal((-(-count // block), 1 << bits)).astype("<f2").astype(kind)
    content, values = b"", np.empty(count, kind)
    for number, codebook in enumerate(codebooks):
        part = indices[number * block : (number + 1) * block]
        spelled = "".join(f"{index:0{bits}b}" for index in part)
        spelled += "0" * (-len(spelled) % 8)
        content += codebook.tobytes() + bytes(int(spelled[at : at + 8], 2) for at in range(0, len(spelled), 8))
        values[number * block : (number + 1) * block] = codebook[part]
    return PaletteData(content, values.reshape(dims), indices, codebooks)


def qx(dims: Sequence[int], bits: int, block: int, data: PaletteData, kind: str = "<f2") -> Entry:
    return 0, 0x40000 | bits << 8 | CODES[kind] >> 12, block, dims, data.content


def convert(model: ModelProto, store: Mapping[str, Entry], folder: Path, scheme: str = "lossless") -> Path:
    """model.onnx and store.sqlite3 -> out.mm."""
    (folder / "model.onnx").write_bytes(model.SerializeToString())
    (folder / "store.sqlite3").unlink(missing_ok=True)
    write_store(folder / "store.sqlite3", store)
    options = mm.ConvertOptions(force=True)
    mm.convert([folder / "model.onnx", folder / "store.sqlite3"], folder / "out.mm", scheme=scheme, options=options)
    return folder / "out.mm"


def values_of(path: Path) -> dict[str, Array]:
    with mm.open(path) as bundle:
        return {name: tensor.numpy() for name, tensor in bundle.items()}


def square(size: int = 8, kind: str = "<f4") -> Array:
    return np.random.default_rng(1).standard_normal((size, size)).astype(kind)


def test_raw_values_replace_the_graphs_by_name(tmp_path: Path) -> None:
    first, second, third = square(), square() * 2, square() * 3
    model = graph({"a": first, "b": first, "c": first})
    out = convert(model, {"a": raw(second), "__model__[b]": raw(third), "d": raw(third)}, tmp_path)
    found = values_of(out)
    assert np.array_equal(found["a"], second)
    assert np.array_equal(found["b"], third)
    assert np.array_equal(found["c"], first)
    loaded = CcvConverter().load([tmp_path / "store.sqlite3", tmp_path / "model.onnx"])  # in either order
    assert any("2 of the graph's 3 tensors" in note for note in loaded.notes)
    assert any("no tensor for 1 of the store's names: d" in note for note in loaded.notes)
    assert [source.format for source in loaded.sources] == ["onnx", "ccv nnc tensors"]
    loaded.close()


def test_a_constant_that_the_store_replaces_is_replaced_under_every_scheme(tmp_path: Path) -> None:
    model = graph({"a": square(), "b": square()}, constant=True)
    out = convert(model, {"b": raw(square() * 5)}, tmp_path)
    with mm.open(out) as bundle:
        session = mm.session(bundle)
        x = np.ones((1, 8), "f4")
        np.testing.assert_allclose(session.run(None, {"x": x})[0], x @ square() @ (square() * 5), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("kind", ["<f2", "<f8"])
def test_exact_values_of_another_float_type_are_taken(kind: str, tmp_path: Path) -> None:
    exact = square().astype("<f2").astype(kind)
    assert np.array_equal(values_of(convert(graph({"a": square()}), {"a": raw(exact)}, tmp_path))["a"], exact)


def test_bfloat16_is_widened(tmp_path: Path) -> None:
    bits = (square().view("<u4") >> 16).astype("<u2")
    out = convert(graph({"a": square()}), {"a": (0, 0x80000, 0, (8, 8), bits.tobytes())}, tmp_path)
    assert np.array_equal(values_of(out)["a"].view("<u4"), bits.astype("<u4") << 16)


def test_zip_is_inflated_within_its_size(tmp_path: Path) -> None:
    wanted = square() * 2
    content = zlib.compress(wanted.tobytes())
    out = convert(graph({"a": square()}), {"a": (0x217, 0x4000, 0, (8, 8), content)}, tmp_path)
    assert np.array_equal(values_of(out)["a"], wanted)
    for wrong in (content[:-1], zlib.compress(bytes(257)), zlib.compress(bytes(255)), b"", b"xx"):
        with pytest.raises(MalformedSourceError, match="zip data"):
            convert(graph({"a": square()}), {"a": (0x217, 0x4000, 0, (8, 8), wrong)}, tmp_path)


def test_zip_that_inflates_to_more_takes_no_memory(tmp_path: Path) -> None:
    bomb = zlib.compress(bytes(1 << 26))
    (tmp_path / "model.onnx").write_bytes(graph({"a": square()}).SerializeToString())
    write_store(tmp_path / "store.sqlite3", {"a": (0x217, 0x4000, 0, (8, 8), bomb)})
    error_of(partial(_read_all, tmp_path))
    assert peak_memory(lambda: error_of(partial(_read_all, tmp_path))) < 1 << 22


# Palettes: the same indices under the same codebooks.

_SHAPES = [
    ((8, 8), 64, "one block"), ((8, 8), 1000, "a block larger than the tensor"), ((4, 64), 16, "blocks within rows"),
    ((16, 8), 32, "rows within blocks"), ((10, 8), 32, "a short last block"), ((6, 10), 16, "neither divides"),
    ((9, 7), 8, "a short last block that ends within a byte"),
]  # fmt: skip


@pytest.mark.parametrize("shape", _SHAPES, ids=lambda shape: shape[2])
@pytest.mark.parametrize("bits", [4, 5, 6, 7, 8])
def test_palettes_come_through_as_they_are(shape: tuple[tuple[int, int], int, str], bits: int, tmp_path: Path) -> None:
    dims, block, _ = shape
    data = palettes(dims, bits, block)
    out = convert(graph({"a": np.zeros(dims, "f4")}), {"a": qx(dims, bits, block, data)}, tmp_path)
    with mm.open(out) as bundle:
        tensor = bundle["a"]
        assert np.array_equal(tensor.indices().reshape(-1), data.indices)
        assert np.array_equal(tensor.tables()[:, :, 0], data.codebooks)
        assert tensor.tables().dtype == np.float16
        assert np.array_equal(tensor.numpy(), data.values)


@pytest.mark.parametrize("bits", QNP)
def test_qnp_holds_its_block_length(bits: int, tmp_path: Path) -> None:
    data = palettes((16, 24), bits, 128)
    entry = QNP[bits], 0x20000, 0, (16, 24), (128).to_bytes(4, "little") + data.content
    found = values_of(convert(graph({"a": np.zeros((16, 24), "f4")}), {"a": entry}, tmp_path))
    assert np.array_equal(found["a"], data.values)


@pytest.mark.parametrize("kind", ["<f4", "<f8"])
def test_codebooks_keep_their_values(kind: str, tmp_path: Path) -> None:
    data = palettes((8, 8), 4, 32, kind)
    out = convert(graph({"a": np.zeros((8, 8), "f4")}), {"a": qx((8, 8), 4, 32, data, kind)}, tmp_path)
    with mm.open(out) as bundle:
        assert bundle["a"].tables().dtype == np.float32
        assert np.array_equal(bundle["a"].numpy(), data.values)


def test_float16_graphs_take_palettes_that_are_exact(tmp_path: Path) -> None:
    data = palettes((8, 8), 4, 32)
    out = convert(graph({"a": np.zeros((8, 8), "<f2")}), {"a": qx((8, 8), 4, 32, data)}, tmp_path)
    assert np.array_equal(values_of(out)["a"], data.values)


@given(st.lists(st.integers(1, 50), min_size=1, max_size=4), st.integers(1, 400), st.sampled_from((4, 8)))
def test_every_arrangement_gives_each_code_the_table_of_its_block(dims: list[int], block: int, bits: int) -> None:
    """t = (r div Gr) ceil(S / Gc) + s div Gc has to be the block that the flat position lies in."""
    count = int(np.prod(dims))
    block = min(block, count)
    layout, by = arranged(count, block, bits)
    flat = np.arange(count).reshape(layout.rows, layout.codes_per_row)
    row_group, col_group = layout.group_sizes(by)
    across = -(-layout.subvectors // col_group)
    rows, columns = np.indices(flat.shape)
    assert np.array_equal(rows // row_group * across + columns // col_group, flat // block)
    assert layout.tables(by) == -(-count // block)


def arranged(count: int, block: int, bits: int) -> tuple[CodesLayout, pb.Grouping]:
    """The matrix of codes as the format sees it, and which of them share a table."""
    view, (row_group, col_group) = _arranged(count, block)
    codes = pb.Codes(view=view, row_axes=1, vector=1, depth=bits, rows_per_block=1)
    return codes_layout(codes, (count,)), pb.Grouping(row_group=row_group, col_group=col_group)


@pytest.mark.parametrize(
    ("count", "block"),
    [(2**26 + 2**10, 512), (2**26 + 16, 1024), (2**26, 2**26), (3 * 2**25, 100), (2**31 - 1, 2**31 - 1)],
)
def test_rows_stay_within_the_formats_16_mib(count: int, block: int) -> None:
    layout, by = arranged(count, block, 8)
    assert layout.plain_shape(0).row_bytes <= FORMAT_LIMITS.block
    assert layout.tables(by) == -(-count // block)


def test_rows_of_blocks_are_short_enough_to_read_few_at_a_time(tmp_path: Path) -> None:
    """A reader holds a row at least; the whole tensor as one row would cost it several words for each code."""
    data = palettes((512, 1024), 4, 1280)
    out = convert(graph({"a": np.zeros((512, 1024), "f4")}), {"a": qx((512, 1024), 4, 1280, data)}, tmp_path)
    with mm.open(out) as bundle:
        codes = bundle["a"].message.palette.codes
        assert list(codes.view) == [2048, 256]
        assert np.array_equal(bundle["a"].numpy(), data.values)


# What is refused.


def refused(store: Mapping[str, Entry], folder: Path, weight: Array | None = None) -> MobileModelError:
    with pytest.raises(MobileModelError) as caught:
        convert(graph({"a": square() if weight is None else weight}), store, folder)
    return caught.value


def _entry(codec: int, datatype: int, block: int, content: bytes, dims: Sequence[int] = (8, 8)) -> dict[str, Entry]:
    return {"a": (codec, datatype, block, dims, content)}


_FLOAT = 0x4000
_REFUSED = {
    "other dims": (_entry(0, _FLOAT, 0, bytes(256), (4, 16)), "other dims"),
    "a short value": (_entry(0, _FLOAT, 0, bytes(255)), "not whole"),
    "another type": (_entry(0, 0x2000, 0, bytes(256)), "found int32"),
    "an unknown type": (_entry(0, 0x3000, 0, bytes(256)), "unknown type"),
    "ezm7": (_entry(0x511, 0x20000, 0, bytes(256)), "found ezm7"),
    "fpzip": (_entry(0xF7217, _FLOAT, 0, bytes(256)), "found fpzip"),
    "i8x": (_entry(0x8A1E9B, 0x20000, 0, bytes(256)), "found i8x"),
    "a K-quant": (_entry(0x8A1EAB, 0x20000, 0, bytes(256)), "K-quant"),
    "data elsewhere": (_entry(0x511 | 1 << 28, 0x20000, 0, bytes(16)), "file of their own"),
    "3 bits": (_entry(0, 0x40000 | 3 << 8 | 0x20, 64, bytes(40)), "bits of a palette"),
    "blocks that end within a byte": (_entry(0, 0x40000 | 5 << 8 | 0x20, 12, bytes(40)), "block length"),
    "blocks of nothing": (_entry(0, 0x40000 | 4 << 8 | 0x20, 0, bytes(64)), "block length"),
    "an integer codebook": (_entry(0, 0x40000 | 4 << 8 | 0x02, 64, bytes(96)), "type of a codebook"),
    "a short palette": (_entry(0, 0x40000 | 4 << 8 | 0x20, 64, bytes(63)), "not whole"),
    "no block length": (_entry(0x8A1E4B, 0x20000, 0, bytes(3)), "block length"),
    "a codebook with NaN": (_entry(0, 0x40000 | 4 << 8 | 0x20, 64, b"\xff" * 64), "not finite"),
    "dims of nothing": (_entry(0, _FLOAT, 0, bytes(256), ()), "dims of a tensor"),
    "negative dims": (_entry(0, _FLOAT, 0, bytes(256), (-8, -8)), "dims of a tensor"),
    "dims beyond the format": (_entry(0, _FLOAT, 0, bytes(256), (2**30, 2**30)), "values of a tensor"),
    "other names": ({"b": raw(square())}, "no tensor of the graph's names"),
    "a tensor twice": ({"a": raw(square()), "__model__[a]": raw(square())}, "twice"),
    "no tensors": ({}, "is empty"),
}  # fmt: skip


@pytest.mark.parametrize("case", _REFUSED)
def test_a_store_that_does_not_fit_is_refused(case: str, tmp_path: Path) -> None:
    store, expected = _REFUSED[case]
    error = refused(store, tmp_path)
    assert expected in str(error)
    assert error.file == str(tmp_path / "store.sqlite3")


def test_values_that_are_not_exact_are_refused(tmp_path: Path) -> None:
    error = refused({"a": raw(square(kind="<f8"))}, tmp_path)
    assert "not exact in the graph's float32" in str(error)
    data = palettes((8, 8), 4, 32, "<f8")
    codebook = np.frombuffer(data.content[:128], "<f8") + 1e-12
    content = codebook.tobytes() + data.content[128:]
    assert "not exact" in str(refused(_entry(0, 0x40000 | 4 << 8 | 0x10, 32, content), tmp_path))


def test_channels_last_are_refused(tmp_path: Path) -> None:
    weight = np.zeros((3, 3, 3, 3), "f4")
    model = graph({"a": weight})
    (tmp_path / "model.onnx").write_bytes(model.SerializeToString())
    store = write_store(tmp_path / "store.sqlite3", {"a": raw(weight)})
    change(store, "UPDATE tensors SET format = 2")
    with pytest.raises(UnsupportedSourceError, match="channels last"):
        CcvConverter().load([store, tmp_path / "model.onnx"])


def test_a_value_that_stays_in_the_graph_is_not_replaced_silently(tmp_path: Path) -> None:
    shape = np.array([1, 8], "<i8")
    made = helper.make_graph(
        [helper.make_node("Reshape", ["x", "shape"], ["y"]), helper.make_node("MatMul", ["y", "a"], ["z"])], "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [8])],
        [helper.make_tensor_value_info("z", TensorProto.FLOAT, None)],
        [numpy_helper.from_array(shape, "shape"), numpy_helper.from_array(square(), "a")],
    )  # fmt: skip
    model = helper.make_model(made, opset_imports=[helper.make_opsetid("", 13)], ir_version=8)
    with pytest.raises(UnsupportedSourceError, match="stays inside the graph") as caught:
        convert(model, {"shape": raw(shape)}, tmp_path)
    assert caught.value.tensor == "shape"


def test_a_store_alone_has_no_topology(tmp_path: Path) -> None:
    path = write_store(tmp_path / "store.sqlite3", {"a": raw(square())})
    with pytest.raises(UnsupportedSourceError, match="no topology") as caught:
        mm.convert(path, tmp_path / "out.mm")
    assert "model.onnx" in str(caught.value)


@given(st.data())
def test_any_row_ends_in_our_errors(tmp_path_factory: pytest.TempPathFactory, data: st.DataObject) -> None:
    folder = tmp_path_factory.mktemp("rows")
    (folder / "model.onnx").write_bytes(graph({"a": square()}).SerializeToString())
    good = palettes((8, 8), 4, 32)
    odd = st.sampled_from((None, 0, -1, 1 << 62, "text", b"", 1.5))
    types = st.sampled_from([codec << 32 | 1 for codec in (0, 0x217, 0x511, *QNP.values())])
    kinds = st.sampled_from([32 << 32 | 0x40000 | bits << 8 | 0x20 for bits in (4, 5, 8)] + [0x4000, 0x20000])
    blobs = st.sampled_from([good.content, np.array([8, 8, 0], "<i4").tobytes(), bytes(256)]) | st.binary(max_size=300)
    row = ("a", data.draw(types | odd), 1, data.draw(kinds | odd), data.draw(blobs | odd), data.draw(blobs | odd))
    change(folder / "store.sqlite3", schema.CREATE_TENSORS, ("INSERT INTO tensors VALUES (?, ?, ?, ?, ?, ?)", row))
    error = error_of(partial(_read_all, folder))
    assert error is None or error.file == str(folder / "store.sqlite3")


def _read_all(folder: Path) -> None:
    with closing(CcvConverter().load([folder / "model.onnx", folder / "store.sqlite3"])) as model:
        for tensor in model.tensors:
            assert len(bytes(tensor.read())) == tensor.raw_bytes
