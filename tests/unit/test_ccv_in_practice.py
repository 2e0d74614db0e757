"""ccv files and exports as they are met outside of tests: each case was wrong once, or nearly."""

from __future__ import annotations

import sqlite3
import struct
from collections.abc import Callable
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from onnx import TensorProto, helper, numpy_helper

import mobilemodel as mm
from mobilemodel.cli import main
from mobilemodel.errors import LimitExceededError, MalformedSourceError, OutputError
from mobilemodel.pipeline import verify
from mobilemodel_converters import load_model
from mobilemodel_converters.ccv import writer
from mobilemodel_converters.ccv.schema import LayerType
from tests.ccv_databases import Convnet, change, grey_png, load, png_chunk, write_store
from tests.convnets import convnet

Array = npt.NDArray[np.generic]
QX_4_BIT_FLOAT = 0x40000 | 4 << 8 | 4


def store_and_graph(folder: Path, data: bytes, codec: int = 0, datatype: int = 0x4000, block: int = 0) -> list[Path]:
    """x times w, 6 x 8: the graph has zeros for w, the store something else."""
    node = helper.make_node("MatMul", ["x", "w"], ["y"])
    ends = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [1, size]) for name, size in (("x", 6), ("y", 8))]
    graph = helper.make_graph([node], "g", ends[:1], ends[1:], [numpy_helper.from_array(np.zeros((6, 8), "<f4"), "w")])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8)
    (folder / "graph.onnx").write_bytes(model.SerializeToString())
    write_store(folder / "store.sqlite3", {"w": (codec, datatype, block, (6, 8), data)})
    return [folder / "graph.onnx", folder / "store.sqlite3"]


@pytest.mark.parametrize("kind", ["raw", "palette"])
@pytest.mark.parametrize("turned", [False, True])
def test_verify_runs_the_graph_with_the_stores_values(kind: str, turned: bool, tmp_path: Path) -> None:
    """``verify OUT --against`` takes the same files: outputs are those of the store, not of the ONNX file alone."""
    values = np.random.default_rng(1).standard_normal(64).astype("<f4")
    content = values[:48].tobytes() if kind == "raw" else values[:16].tobytes() + bytes(range(24))
    paths = store_and_graph(tmp_path, content, datatype=0x4000 if kind == "raw" else QX_4_BIT_FLOAT, block=48)
    sources = [str(path) for path in (paths[::-1] if turned else paths)]
    out = str(tmp_path / "out.mm")
    assert main(["convert", *sources, out, "--scheme", "lossless"]) == 0
    found = verify(out, sources)
    assert found.lossless
    assert [output.identical for output in found.outputs] == [True]


def test_broken_values_of_a_store_name_the_store(tmp_path: Path) -> None:
    model = load_model(store_and_graph(tmp_path, b"no zlib stream" * 9, codec=0x217))
    with pytest.raises(MalformedSourceError, match="zip data") as caught:
        model.tensors[0].read()
    model.close()
    assert caught.value.file == str(tmp_path / "store.sqlite3")
    assert caught.value.tensor == "w"


@pytest.mark.parametrize("missing", [1, 1000, 4095])
def test_a_database_that_ends_within_a_page_is_refused(missing: int, tmp_path: Path) -> None:
    """SQLite reads zeros there: the last row's values would end in them, and nothing would say so."""
    path = Convnet((5, 5, 3)).conv(4).full(3).write(tmp_path / "net.sqlite3", mean=bytes(300))
    path.write_bytes(path.read_bytes()[:-missing])
    with pytest.raises(MalformedSourceError, match="ends within a page"):
        load(path)


def test_partitions_that_are_null_are_those_of_older_files(tmp_path: Path) -> None:
    """A column that came later may be there and empty, and of a pool it says nothing at all."""
    path = Convnet((6, 6, 3)).conv(4).norm().pool(LayerType.MAX_POOL).full(3).write(tmp_path / "net.sqlite3")
    change(path, "UPDATE layer_params SET input_matrix_partition = NULL, output_partition = NULL")
    change(path, "UPDATE layer_params SET input_matrix_partition = 0 WHERE type = 3")
    load(path).close()


# Klaus's picture through a palette: his loader draws it in grey and takes the greys.

CODES = np.random.default_rng(5).integers(0, 16, (10, 12), np.uint8)
CODES[0, 0] = 15
ORDER = np.random.default_rng(6).permutation(16).astype(np.uint8)


def klaus(folder: Path, entries: int, samples: Array, palette: bytes) -> Array:
    """The weight of a full connect out of such a picture and the codebook 0, 1, 2...: the entries that it names."""
    path = Convnet((12, 1, 1)).full(10).write(folder / "net.sqlite3", codebooks={0: np.arange(entries)})
    plain = grey_png(samples.astype(np.uint8), 4, colour=3)
    unused = png_chunk(b"PLTE", bytes(48))
    assert unused in plain
    (folder / "layer-0.png").write_bytes(plain.replace(unused, palette))
    model = load(path)
    stored = next(tensor for tensor in model.tensors if tensor.name == "layer-0.weight")
    weight: Array = np.frombuffer(stored.read(), "<f4").reshape(10, 12)
    model.close()
    return weight


def greys(values: Array) -> bytes:
    return png_chunk(b"PLTE", np.repeat(values.astype(np.uint8), 3).tobytes())


def test_a_palette_of_greys_stands_for_the_greys(tmp_path: Path) -> None:
    """An optimizer writes 16 greys as a palette in an order of its own; the picture is the same."""
    sorted_out = np.argsort(ORDER)[CODES]
    assert np.array_equal(klaus(tmp_path, 16, sorted_out, greys(ORDER)), CODES)


def test_greys_that_are_spread_over_a_palette(tmp_path: Path) -> None:
    assert np.array_equal(klaus(tmp_path, 16, CODES, greys(np.arange(16) * 17)), CODES)


def test_greys_under_a_codebook_for_all_of_them(tmp_path: Path) -> None:
    assert np.array_equal(klaus(tmp_path, 256, CODES, greys(np.arange(16) * 17)), CODES.astype(int) * 17)


def test_a_palette_of_colours_says_nothing_of_indices(tmp_path: Path) -> None:
    assert np.array_equal(klaus(tmp_path, 16, CODES, png_chunk(b"PLTE", bytes(range(48)))), CODES)


def test_a_grey_that_the_palette_lacks(tmp_path: Path) -> None:
    with pytest.raises(MalformedSourceError, match=r"lacks a colour.*more than 15.*found 12"):
        klaus(tmp_path, 16, CODES, greys(np.arange(12)))


# The command line.


def test_two_pictures_of_one_layer_are_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Else the last one would win, and nobody would know."""
    path = Convnet((2, 2, 3)).full(4).write(tmp_path / "net.sqlite3", codebooks={0: np.arange(4)})
    pictures = ["--png", "0=a.png", "--png", "0=b.png"]
    assert main(["convert", str(path), str(tmp_path / "out.mm"), *pictures]) == 2
    assert "--png names a layer twice: found 0, 0" in capsys.readouterr().err


def test_a_full_disk_is_the_outputs_error(
    make_bundle: Callable[..., bytes], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not the bundle's, which was only read."""

    def fail(*_: object) -> None:
        raise sqlite3.OperationalError("database or disk is full")

    (tmp_path / "in.mm").write_bytes(make_bundle(convnet(), ("conv1.weight",)))
    monkeypatch.setattr(writer, "_write_params", fail)
    with pytest.raises(OutputError, match="disk is full") as caught:
        mm.export(tmp_path / "in.mm", tmp_path / "out.sqlite3")
    assert caught.value.file == str(tmp_path / "out.sqlite3")


def test_the_largest_pages_of_a_database(tmp_path: Path) -> None:
    """The header has 1 for it."""
    path = Convnet((5, 5, 3)).conv(4).full(3).write(tmp_path / "net.sqlite3")
    change(path, "PRAGMA page_size = 65536", "VACUUM")
    assert struct.unpack(">H", path.read_bytes()[16:18]) == (1,)
    load(path).close()


def test_many_pictures_together_are_bounded(tmp_path: Path) -> None:
    """Each may be small as a file, its codes are not, and those of all layers are held."""
    net = Convnet((4, 1, 1)).full(4, relu=True).full(4, relu=True).full(4)
    path = net.write(tmp_path / "net.sqlite3", codebooks={layer: np.arange(4) for layer in range(3)})
    # 4 x 2^24 and 2^24 x 5 codes: each below the limit, both above it.
    for layer, outputs in enumerate((2**24, 5)):
        change(path, f"UPDATE layer_params SET output_count = {outputs} WHERE layer = {layer}",
               f"UPDATE layer_params SET input_matrix_rows = {outputs}, input_node_count = {outputs} "
               f"WHERE layer = {layer + 1}")  # fmt: skip
    with pytest.raises(LimitExceededError, match="samples of all pictures"):
        load(path)
