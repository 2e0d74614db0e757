"""Q-CNN's files: tensors, packed indices, and the folder they are found in; broken ones are refused by name."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mobilemodel.errors import MalformedSourceError, UnsupportedSourceError, UsageError
from mobilemodel_converters.qcnn.file import Folder, read_codes, read_dims, read_floats
from mobilemodel_converters.sources import OpenedFile
from tests.qcnn_files import CHUNK, bin_bytes, cbn_bytes, header, write


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("qcnn")


def read(folder: Path, name: str, content: bytes, rank: int) -> np.ndarray[tuple[int, ...], np.dtype[np.uint8]]:
    """The indices of a file of assignments, whose spare bits are 0."""
    codes, clean = read_marked(folder, name, content, rank)
    assert clean
    return codes


def read_marked(
    folder: Path, name: str, content: bytes, rank: int
) -> tuple[np.ndarray[tuple[int, ...], np.dtype[np.uint8]], bool]:
    (folder / name).write_bytes(content)
    with OpenedFile(folder / name) as file:
        return read_codes(file, read_dims(file, rank))


def indices(content: bytes, start: int, bits: int, wanted: range) -> Iterator[int]:
    """The rule, one index at a time: each chunk of 4096 bytes is a number, and its indices stand from the top down."""
    each = 8 * CHUNK // bits
    for index in wanted:
        chunk, place = divmod(index, each)
        raw = int.from_bytes(content[start + CHUNK * chunk : start + CHUNK * (chunk + 1)], "big")
        yield raw >> (8 * CHUNK - bits * (place + 1)) & ((1 << bits) - 1)


@given(bits=st.integers(1, 8), chunks=st.integers(0, 2), more=st.integers(-2, 40), seed=st.integers(0, 2**32))
def test_the_bits_of_packed_indices_start_anew_at_every_chunk(
    folder: Path, bits: int, chunks: int, more: int, seed: int
) -> None:
    """docs/formats/qcnn.md §2: chunks of 4096 bytes, floor(32768 / b) indices each, the first in the high bits."""
    count = max(1, chunks * (8 * CHUNK // bits) + more)
    codes = np.random.default_rng(seed).integers(0, 1 << bits, count, np.uint8)
    content = cbn_bytes(codes, bits)
    assert len(content) == 12 + CHUNK * -(-count // (8 * CHUNK // bits))
    assert read(folder, "n.asmtLst.01.cbn", content, 1).tolist() == codes.tolist()
    for some in (range(min(50, count)), range(max(0, count - 50), count)):
        assert list(indices(content, 12, bits, some)) == codes[some.start : some.stop].tolist()


def test_many_chunks(folder: Path) -> None:
    codes = np.random.default_rng(0).integers(0, 128, (600, 4700), np.uint8)
    assert np.array_equal(read(folder, "n.asmtLst.01.cbn", cbn_bytes(codes, 7), 2), codes)


def test_raw_assignments_count_from_one_and_wrap(folder: Path) -> None:
    """docs/formats/qcnn.md §2: a raw uint8 file is 1-based, and 256 wraps to 0."""
    stored = np.array([[1, 2, 255, 0]], np.uint8)
    assert read(folder, "n.asmtLst.01.bin", bin_bytes(stored), 2).tolist() == [[0, 1, 254, 255]]


@pytest.mark.parametrize(
    "at", [-1, 12 + CHUNK + 17, 12 + CHUNK - 1], ids=["last byte", "after the last index", "spare bit"]
)
def test_bits_that_belong_to_no_index_are_left_out_and_noticed(folder: Path, at: int) -> None:
    codes = np.full(4700, 5, np.uint8)
    content = bytearray(cbn_bytes(codes, 7))
    content[at] |= 1
    found, clean = read_marked(folder, "n.asmtLst.01.cbn", bytes(content), 1)
    assert not clean
    assert found.tolist() == codes.tolist()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"\1\0", "ends within"),
        (header([4]), "bits of an index|ends within"),
        (header([2, 2]), r"number of dimensions: expected 1, found 2"),
        (header([0]), "dimensions: expected at least 1"),
        (header([-3]), "dimensions: expected at least 1"),
        (header([5]) + b"\0\0\0\0" + bytes(CHUNK), r"bits of an index: expected 1 to 8, found 0"),
        (header([5]) + b"\x09\0\0\0" + bytes(CHUNK), "found 9"),
        (header([5]) + b"\xff\xff\xff\xff" + bytes(CHUNK), "found -1"),
        (header([5]) + b"\5\0\0\0" + bytes(CHUNK - 1), r"expected 4108 bytes, found 4107 bytes"),
        (header([5]) + b"\5\0\0\0" + bytes(CHUNK + 1), "found 4109 bytes"),
        (header([2**31 - 1]) + b"\1\0\0\0" + bytes(CHUNK), "size of a file of dimensions"),
    ],
)
def test_broken_packed_files(folder: Path, content: bytes, message: str) -> None:
    with pytest.raises(MalformedSourceError, match=message) as error:
        read(folder, "n.asmtLst.01.cbn", content, 1)
    assert error.value.file == str(folder / "n.asmtLst.01.cbn")


def test_a_tensor_has_exactly_the_size_that_its_dimensions_say(folder: Path) -> None:
    values = np.arange(6, dtype="<f4").reshape(2, 3)
    for more, message in ((b"", ""), (b"\0", "expected 36 bytes, found 37"), (None, "expected 36 bytes, found 35")):
        raw = bin_bytes(values)[:-1] if more is None else bin_bytes(values) + more
        (folder / "n.biasVec.01.bin").write_bytes(raw)
        with OpenedFile(folder / "n.biasVec.01.bin") as file:
            dims = read_dims(file, 2)
            if not message:
                assert np.array_equal(read_floats(file, dims), values)
                continue
            with pytest.raises(MalformedSourceError, match=message):
                read_floats(file, dims)


@given(data=st.data())
def test_any_bytes_are_indices_or_refused(folder: Path, data: st.DataObject) -> None:
    """No exception outside of our tree, whatever stands in the file."""
    content = bytearray(cbn_bytes(np.arange(100, dtype=np.uint8).reshape(10, 10), 7))
    for at, byte in data.draw(st.lists(st.tuples(st.integers(0, 15), st.integers(0, 255)), max_size=4)):
        content[at] = byte
    cut = data.draw(st.sampled_from([len(content), 3, 11, 15, 16, 4000]))
    name = data.draw(st.sampled_from(["n.asmtLst.01.cbn", "n.asmtLst.01.bin"]))
    try:
        read_marked(folder, name, bytes(content[:cut]), 2)
    except MalformedSourceError:
        return


def test_files_are_found_by_their_names_alone(tmp_path: Path) -> None:
    """``<prefix>.<kind>.<NN>.<ext>``; whatever else lies in the folder is not looked at."""
    names = ["a.b.ctrdLst.01.bin", "a.b.asmtLst.01.cbn", "a.b.biasVec.12.bin"]
    others = ["a.b.ctrdLst.1.bin", "c.ctrdLst.01.cbn", "c.asmtLst.01.cbn.part", "readme.txt", "c.lablVec.01.bin"]
    with Folder(write(tmp_path, dict.fromkeys(names + others, b""))) as found:
        assert found.prefix == "a.b"
        assert found.places() == {1: found.places()[1], 12: "a.b.biasVec.12.bin"}
        assert found.has("asmtLst", 1)
        assert not found.has("asmtLst", 12)
        assert found.missing_name("asmtLst", 12) == "a.b.asmtLst.12.cbn"
        assert found.missing_name("ctrdLst", 12) == "a.b.ctrdLst.12.bin"


def test_two_networks_in_a_folder(tmp_path: Path) -> None:
    write(tmp_path, {"a.ctrdLst.01.bin": b"", "b.ctrdLst.01.bin": b""})
    with pytest.raises(MalformedSourceError, match="files of two networks: expected a, found b"):
        Folder(tmp_path)


def test_the_same_assignments_twice(tmp_path: Path) -> None:
    write(tmp_path, {"a.asmtLst.01.bin": b"", "a.asmtLst.01.cbn": b""})
    with pytest.raises(MalformedSourceError, match=r"found a\.asmtLst\.01\.bin and a\.asmtLst\.01\.cbn"):
        Folder(tmp_path)


def test_what_is_no_folder_of_such_files(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no folder of Q-CNN files"):
        Folder(tmp_path)
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(UsageError, match="cannot read the folder"):
        Folder(tmp_path / "file")


def test_links_out_of_the_folder_pipes_and_folders_are_refused(tmp_path: Path) -> None:
    inside = tmp_path / "model"
    inside.mkdir()
    (tmp_path / "secret").write_bytes(b"secret")
    (inside / "data").write_bytes(b"data")
    (inside / "a.ctrdLst.01.bin").symlink_to(tmp_path / "secret")
    (inside / "a.ctrdLst.02.bin").symlink_to("data")
    (inside / "a.ctrdLst.03.bin").symlink_to("a.ctrdLst.03.bin")
    os.mkfifo(inside / "a.ctrdLst.04.bin")
    (inside / "a.ctrdLst.05.bin").mkdir()
    with Folder(inside) as found:
        with pytest.raises(UnsupportedSourceError, match="leads out of the folder"):
            found.open("ctrdLst", 1)
        assert found.open("ctrdLst", 2).read(0, 4) == b"data"
        for place in (3, 4, 5):
            with pytest.raises(UsageError):
                found.open("ctrdLst", place)
        assert [record.name for record in found.records()] == ["a.ctrdLst.02.bin"]
