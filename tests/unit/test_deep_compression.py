"""Deep Compression -> Model: sparse positions become dense codes, codebooks stay; what does not fit is refused."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import mobilemodel as mm
from mobilemodel.errors import (
    LimitExceededError,
    MalformedSourceError,
    MobileModelError,
    UnsupportedSourceError,
    UsageError,
)
from mobilemodel.model import Model
from mobilemodel.pipeline import verify
from mobilemodel.runtime import run, session
from mobilemodel_converters.deep_compression import DeepCompressionConverter
from mobilemodel_converters.deep_compression.file import Place, Values, read_layers
from mobilemodel_converters.sources import OpenedFile
from tests.deep_compression_files import PROTOTXT, SHAPES, Layer, layer, net_bytes, small_layers

PLACES = [Place(name, shape, shape[0]) for name, shape in SHAPES.items()]
FC = Place("fc", (3, 40), 3)


def read(folder: Path, content: bytes, places: list[Place]) -> list[Values]:
    path = folder / "small.net"
    path.write_bytes(content)
    with OpenedFile(path) as file:
        return read_layers(file, places)


def of_codes(codes: list[int], bits: int = 4) -> Layer:
    """A layer of FC's shape with these codes at its start, zeros after them."""
    template = layer(0, FC.dims, bits, 0)
    dense = np.zeros(120, np.uint8)
    dense[: len(codes)] = codes
    return Layer(dense.reshape(FC.dims), template.codebook, template.bias, bits)


def write(folder: Path, content: bytes, prototxt: str = PROTOTXT) -> list[Path]:
    (folder / "small.prototxt").write_text(prototxt)
    (folder / "small.net").write_bytes(content)
    return [folder / "small.prototxt", folder / "small.net"]


def load(paths: list[Path]) -> Model:
    return DeepCompressionConverter().load(paths)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("net")


@given(
    runs=st.lists(st.tuples(st.integers(0, 50), st.integers(1, 15)), max_size=8), trailing=st.integers(0, 40),
    bits=st.sampled_from([4, 8]),
)  # fmt: skip
def test_positions_come_back(folder: Path, runs: list[tuple[int, int]], trailing: int, bits: int) -> None:
    """docs/formats/deep_compression.md §3: gap g skips g zeros, fillers of gap 15 and code 0 bridge longer runs, and
    every position that is not listed is zero. Runs of any length, weights at the first and the last place, odd and
    even counts."""
    codes = [code for zeros, value in runs for code in (*[0] * zeros, value)] + [0] * trailing
    place = Place("conv" if bits == 8 else "fc", (1, max(1, len(codes))), 1)
    template = layer(0, (1, 1), bits, 0)
    stored = Layer(np.array(codes or [0], np.uint8).reshape(place.dims), template.codebook, template.bias, bits)
    (found,) = read(folder, net_bytes([stored]), [place])
    assert found.codes.tolist() == (codes or [0])
    assert found.codebook.tobytes() == stored.codebook.tobytes()
    assert found.bias.tobytes() == stored.bias.tobytes()
    assert found.notes == ()


@pytest.mark.parametrize(
    ("codes", "entries", "gaps"),
    [
        ([7], [7], [0]),
        ([0, 7], [7], [1]),
        ([0] * 15 + [7], [7], [15]),
        ([0] * 16 + [7], [0, 7], [15, 0]),
        ([0] * 40 + [7, 9], [0, 0, 7, 9], [15, 15, 8, 0]),
        ([3] + [0] * 100, [3], [0]),
        ([], [], []),
    ],
)
def test_entries_by_hand(folder: Path, codes: list[int], entries: list[int], gaps: list[int]) -> None:
    """The bytes, spelled out: entry 0 of two in the low half."""
    stored = of_codes(codes)
    assert stored.entries() == (entries, gaps)
    packed = [sum(value << 4 * place for place, value in enumerate(values[at : at + 2]))
              for values in (entries, gaps) for at in range(0, len(values), 2)]  # fmt: skip
    content = np.uint32(len(entries)).tobytes() + stored.codebook.tobytes() + stored.bias.tobytes() + bytes(packed)
    (found,) = read(folder, content, [FC])
    assert np.array_equal(found.codes, stored.codes.reshape(-1))


def test_the_name_tells_the_bits() -> None:
    """docs/formats/deep_compression.md §1: a name that contains conv has codes of 8 bits, any other of 4."""
    assert [Place(name, (1,), 1).bits for name in ("fire2/conv1x1_1", "fc6", "ip1", "convfc")] == [8, 4, 4, 8]


def test_a_network_is_converted_without_requantizing(tmp_path: Path) -> None:
    layers = small_layers()
    paths = write(tmp_path, net_bytes(list(layers.values())))
    mm.convert(paths, tmp_path / "out.mm", scheme="lossless")
    mm.convert(paths[::-1], tmp_path / "again.mm", scheme="lossless")
    assert (tmp_path / "out.mm").read_bytes() == (tmp_path / "again.mm").read_bytes()
    with mm.open(tmp_path / "out.mm") as bundle:
        for name, expected in layers.items():
            stored = bundle[f"{name}.weight"]
            assert np.array_equal(stored.indices().reshape(-1), expected.codes.reshape(-1))
            assert stored.tables().tobytes() == expected.codebook.tobytes()
            assert stored.numpy().tobytes() == expected.weight.tobytes()
            assert bundle[f"{name}.bias"].numpy().tobytes() == expected.bias.tobytes()
        assert {source.format for source in bundle.manifest.sources} == {"deep-compression", "caffe"}
        assert run(session(bundle), {"data": np.ones((2, 3, 6, 6), np.float32)})["fc3"].shape == (2, 5)
    assert verify(tmp_path / "out.mm", paths).lossless


def changed(change: dict[int, bytes]) -> bytes:
    """The network's file with bytes put elsewhere."""
    content = bytearray(net_bytes(list(small_layers().values())))
    for at, what in change.items():
        content[at : at + len(what)] = what
    return bytes(content)


BOOK = 4 * len(SHAPES)
BROKEN = [
    (lambda: changed({})[:-1], "size of the file, with 3 layers"),
    (lambda: changed({}) + b"\0", "size of the file, with 3 layers"),
    (lambda: changed({})[:7], "ends within"),
    (lambda: changed({0: b"\x6d\0\0\0"}), r"at most 108, for \[4, 3, 3, 3\], found 109"),
    (lambda: changed({8: b"\xff\xff\xff\xff"}), "found 4294967295"),
    (lambda: changed({BOOK: np.float32(0.5).tobytes()}), "codebook: expected finite values, the first of them 0"),
    (lambda: changed({BOOK + 8: np.float32(np.inf).tobytes()}), "codebook"),
]


@pytest.mark.parametrize(("make", "message"), BROKEN)
def test_files_that_break_the_format(tmp_path: Path, make: object, message: str) -> None:
    """docs/formats/deep_compression.md §6: what is malformed."""
    assert callable(make)
    paths = write(tmp_path, make())
    with pytest.raises(MalformedSourceError, match=message) as error:
        load(paths)
    assert error.value.file == str(paths[1])


def test_an_entry_past_the_end_is_refused(folder: Path) -> None:
    stored = of_codes([0] * 119 + [1])
    raw = bytearray(net_bytes([stored]))
    raw[-1] += 0x10  # the last gap, and with it the last position
    with pytest.raises(MalformedSourceError, match="position of the last entry: expected below 120, found 120"):
        read(folder, bytes(raw), [FC])


def test_what_a_writer_would_not_write_is_said(folder: Path) -> None:
    """An entry of code 0 that bridges nothing, and bits in the spare half of an odd count."""
    raw = bytearray(net_bytes([of_codes([1, 2, 3])]))
    raw[-4] &= 0xF0
    raw[-3] |= 0x50
    raw[-1] |= 0x30
    (found,) = read(folder, bytes(raw), [FC])
    assert found.codes[:4].tolist() == [0, 2, 3, 0]
    assert found.notes == (
        "fc: the spare bits of its codes are not zero; they were left out",
        "fc: 1 entries name the value 0 though they bridge no run of zeros",
        "fc: the spare bits of its gaps are not zero; they were left out",
    )


def test_a_small_file_cannot_ask_for_much_memory(folder: Path) -> None:
    """The weights are bounded by what the entries can reach, and a run of zeros at the end."""
    huge = Place("fc", (1 << 15, 1 << 15), 1)
    empty = Layer(np.zeros((1, 1), np.uint8), layer(0, (1,), 4, 0).codebook, np.zeros(1, np.float32), 4)
    with pytest.raises(LimitExceededError, match="weights of the layers"):
        read(folder, net_bytes([empty]), [huge])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (("conv2", "dense2"), "a .net file has none of it: expected a name that contains one of conv, fc, ip"),
        (("group: 2", "group: 2 bias_term: false"), "a weight and a bias of each layer"),
    ],
)
def test_layers_that_the_file_cannot_hold(tmp_path: Path, change: tuple[str, str], message: str) -> None:
    paths = write(tmp_path, changed({}), PROTOTXT.replace(*change))
    with pytest.raises(UnsupportedSourceError, match=message) as error:
        load(paths)
    assert error.value.layer == change[1].replace("group: 2 bias_term: false", "conv2")


def test_two_files_in_any_order_are_known(tmp_path: Path) -> None:
    converter = DeepCompressionConverter()
    paths = write(tmp_path, changed({}))
    assert converter.sniff(paths)
    assert converter.sniff(paths[::-1])
    assert not converter.sniff(paths[:1])
    assert not converter.sniff([paths[0], paths[0]])
    assert not converter.sniff([tmp_path, paths[0]])
    (tmp_path / "other").write_bytes(b"\x0a\x05small\x00" * 100)
    assert not converter.sniff([paths[0], tmp_path / "other"])
    for wrong in ([paths[0]], [paths[0], paths[0]], [paths[1], paths[1]]):
        with pytest.raises(UsageError):
            load(wrong)


@given(data=st.data())
def test_any_change_is_a_model_or_our_error(tmp_path_factory: pytest.TempPathFactory, data: st.DataObject) -> None:
    raw = bytearray(changed({}))
    for at, byte in data.draw(st.lists(st.tuples(st.integers(0, len(raw) - 1), st.integers(0, 255)), max_size=4)):
        raw[at] = byte
    prototxt = data.draw(st.sampled_from([PROTOTXT, PROTOTXT.replace("3", "0"), PROTOTXT.replace("4", "4000000")]))
    folder = tmp_path_factory.mktemp("fuzz")
    try:
        model = load(write(folder, bytes(raw), prototxt))
    except MobileModelError:
        return
    for tensor in model.tensors:
        assert len(tensor.read()) == tensor.raw_bytes
