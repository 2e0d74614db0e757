"""Labelled data: arrays, tables and folders; hostile files are refused before anything large is made."""

from __future__ import annotations

import io
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from mobilemodel.errors import LimitExceededError, MalformedSourceError, MobileModelError, UsageError
from mobilemodel.runtime import Data, prepare, read_data
from mobilemodel.v1 import bundle_pb2 as pb
from tests.strategies import damaged

PICTURES = np.random.default_rng(0).integers(0, 256, (7, 5, 4, 3), np.uint8)
CLASSES = np.array([0, 1, 2, 0, 1, 2, 0])


def plain(pictures: npt.NDArray[np.uint8]) -> npt.NDArray[Any]:
    return prepare(pictures, pb.Preprocessing(layout=pb.LAYOUT_NHWC))


def save_picture(path: Path, index: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(PICTURES[index]).save(path)


def npz(path: Path, **arrays: npt.NDArray[Any]) -> Path:
    np.savez_compressed(path, **arrays)  # type: ignore[arg-type]
    return path


@pytest.mark.parametrize("size", [1, 3, 7, 64])
def test_pictures_of_an_npz_come_in_batches_and_in_order(tmp_path: Path, size: int) -> None:
    data = read_data(npz(tmp_path / "a.npz", x=PICTURES, y=CLASSES))
    assert len(data) == 7
    assert not data.ready
    assert data.classes is not None
    assert data.classes.tolist() == CLASSES.tolist()
    found = list(data.batches(size, plain))
    assert max(map(len, found)) <= size
    assert np.array_equal(np.concatenate(found), PICTURES.astype(np.float32))


def test_float32_data_are_tensors_as_the_network_takes_them(tmp_path: Path) -> None:
    x = np.random.default_rng(0).standard_normal((5, 9)).astype(np.float32)
    data = read_data(npz(tmp_path / "a.npz", x=x, y=np.arange(5, dtype=np.uint8)))
    assert data.ready

    def fail(pictures: object) -> npt.NDArray[Any]:
        raise AssertionError("ready tensors are not prepared")

    assert np.array_equal(np.concatenate(list(data.batches(2, fail))), x)


def test_arrays_in_fortran_order_are_read(tmp_path: Path) -> None:
    data = read_data(npz(tmp_path / "a.npz", x=np.asfortranarray(PICTURES)))
    assert np.array_equal(np.concatenate(list(data.batches(3, plain))), PICTURES)
    assert data.classes is None


def test_labels_tsv(tmp_path: Path) -> None:
    save_picture(tmp_path / "b.png", 0)
    save_picture(tmp_path / "images" / "a.png", 1)
    save_picture(tmp_path / "deep" / "c.png", 2)
    (tmp_path / "labels.tsv").write_text("b.png\t2\tfox\r\na.png\t0\tsea lion\n\ndeep/c.png\t7\n", "utf-8")
    data = read_data(tmp_path)
    assert data.classes is not None
    assert data.classes.tolist() == [2, 0, 7]
    assert data.names == ("sea lion", "1", "fox")
    assert np.array_equal(np.concatenate(list(data.batches(2, plain))), PICTURES[:3])


@pytest.mark.parametrize(
    "name",
    [
        "/etc/passwd", "../secret.png", "a/../../secret.png", "a\\..\\..\\secret.png", "C:\\secret.png", "C:secret.png",
        "\\\\host\\secret.png", "//host/secret.png", "", "a\0.png",
    ],
)  # fmt: skip
def test_names_in_labels_tsv_do_not_escape_the_folder(tmp_path: Path, name: str) -> None:
    """The file they mean exists: only the rule keeps it from being read."""
    save_picture(tmp_path / "secret.png", 0)
    inner = tmp_path / "data"
    (inner / "a").mkdir(parents=True)
    (inner / "labels.tsv").write_text(f"{name}\t0\tx\n", "utf-8")
    with pytest.raises(MalformedSourceError, match=r"labels\.tsv, line 1: (the name leads|not a name)"):
        read_data(inner)


@pytest.mark.parametrize(
    "line", ["a.png", "a.png\tone\tx", "a.png\t-1\tx", "a.png\t1\tx\ty", "a.png\t²\tx", "a.png\t9999999999\tx"]
)
def test_lines_that_are_no_labels_are_named(tmp_path: Path, line: str) -> None:
    save_picture(tmp_path / "a.png", 0)
    (tmp_path / "labels.tsv").write_text(f"a.png\t0\tx\n{line}\n", "utf-8")
    with pytest.raises(MalformedSourceError, match=r"labels\.tsv, line 2: expected file<TAB>class"):
        read_data(tmp_path)


def test_a_picture_that_labels_tsv_names_must_be_there(tmp_path: Path) -> None:
    (tmp_path / "labels.tsv").write_text("a\x1b[2J.png\t0\tx\n", "utf-8")
    with pytest.raises(MalformedSourceError, match=r"no such picture: found a\\x1b\[2J\.png"):
        read_data(tmp_path)


def test_labels_that_are_not_utf8_or_empty_or_huge(tmp_path: Path) -> None:
    (tmp_path / "labels.tsv").write_bytes(b"a.png\t0\t\xff\n")
    with pytest.raises(MalformedSourceError, match="not UTF-8"):
        read_data(tmp_path)
    (tmp_path / "labels.tsv").write_bytes(b"\n")
    with pytest.raises(UsageError, match="names no picture"):
        read_data(tmp_path)
    with (tmp_path / "labels.tsv").open("wb") as table:
        table.truncate(2**24 + 1)
    with pytest.raises(LimitExceededError):
        read_data(tmp_path)


def test_a_huge_class_index_names_nothing(tmp_path: Path) -> None:
    save_picture(tmp_path / "a.png", 0)
    (tmp_path / "labels.tsv").write_text("a.png\t999999999\tx\n", "utf-8")
    assert read_data(tmp_path).names == ()


def test_a_folder_for_each_class(tmp_path: Path) -> None:
    for index, name in enumerate(["wolf/2.png", "wolf/1.PNG", "ant/x.png"]):
        save_picture(tmp_path / name, index)
    (tmp_path / "bee").mkdir()
    (tmp_path / ".cache").mkdir()
    (tmp_path / "ant" / "notes.txt").write_text("not a picture")
    (tmp_path / "ant" / ".hidden.png").write_text("not a picture")
    data = read_data(tmp_path)
    assert data.names == ("ant", "bee", "wolf")
    assert data.classes is not None
    assert data.classes.tolist() == [0, 2, 2]
    assert np.array_equal(np.concatenate(list(data.batches(9, plain))), PICTURES[[2, 1, 0]])


def test_a_folder_of_pictures_has_no_classes(tmp_path: Path) -> None:
    save_picture(tmp_path / "a.png", 0)
    data = read_data(tmp_path)
    assert data.classes is None
    assert len(data) == 1


def test_where_there_is_nothing(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="holds no pictures"):
        read_data(tmp_path)
    with pytest.raises(UsageError, match="cannot open"):
        read_data(tmp_path / "none.npz")
    with pytest.raises(UsageError, match="the data are empty"):
        read_data(npz(tmp_path / "a.npz", x=PICTURES[:0]))


def test_pictures_are_read_when_they_are_asked_for(tmp_path: Path) -> None:
    save_picture(tmp_path / "a.png", 0)
    (tmp_path / "b.png").write_bytes(b"no picture")
    batches = read_data(tmp_path).batches(1, plain)
    assert np.array_equal(next(batches)[0], PICTURES[0])
    with pytest.raises(MalformedSourceError, match=r"b\.png: not a picture"):
        next(batches)


def test_pictures_of_different_sizes_need_a_resize(tmp_path: Path) -> None:
    save_picture(tmp_path / "a.png", 0)
    Image.new("RGB", (9, 9)).save(tmp_path / "b.png")
    data = read_data(tmp_path)
    with pytest.raises(UsageError, match="differ in size"):
        next(data.batches(2, plain))
    step = pb.Preprocessing(resize=pb.Resize(mode=pb.Resize.MODE_WARP, height=3, width=3))
    assert next(data.batches(2, lambda pictures: prepare(pictures, step))).shape == (2, 3, 3, 3)


def test_an_error_while_preparing_names_the_picture(tmp_path: Path) -> None:
    save_picture(tmp_path / "a.png", 0)
    with pytest.raises(UsageError, match=r"a\.png: a picture is smaller than its crop"):
        next(read_data(tmp_path).batches(1, lambda p: prepare(p, pb.Preprocessing(crop_height=9, crop_width=9))))


@given(count=st.integers(1, 200), limit=st.integers(1, 250))
def test_a_limit_is_spread_evenly(count: int, limit: int) -> None:
    data = Data(np.arange(count, dtype=np.float32), np.arange(count)).spread(limit)
    assert data.classes is not None
    assert len(data) == min(count, limit)
    assert data.classes[0] == 0
    gaps = np.diff([*data.classes, count])
    assert gaps.min() >= 1
    assert gaps.max() - gaps.min() <= 1
    assert np.array_equal(next(data.batches(count, plain)), data.classes)


def test_limits_and_batches_below_one_are_refused() -> None:
    data = Data(np.zeros((3, 1), np.float32))
    with pytest.raises(UsageError, match="limit"):
        data.spread(0)
    with pytest.raises(UsageError, match="batch size"):
        next(data.batches(0, plain))


# Hostile .npz files


def zip_of(path: Path, members: dict[str, bytes], method: int = zipfile.ZIP_DEFLATED) -> Path:
    with zipfile.ZipFile(path, "w", method) as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return path


def npy(array: npt.NDArray[Any], **options: Any) -> bytes:
    out = io.BytesIO()
    np.save(out, array, **options)
    return out.getvalue()


def header(shape: str, descr: str = "|u1") -> bytes:
    text = f"{{'descr': '{descr}', 'fortran_order': False, 'shape': {shape}, }}".encode()
    text += b" " * (-(len(text) + 11) % 64) + b"\n"
    return b"\x93NUMPY\x01\x00" + len(text).to_bytes(2, "little") + text


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (npy(np.array([{}], object), allow_pickle=True), "another size than its header says"),
        (header("(1000000, 1000, 1000, 3)"), "another size than its header says"),
        (header("(-1, 2, 2, 3)") + bytes(12), "another size|no .npy file"),
        (npy(PICTURES)[:-1], "another size than its header says"),
        (npy(PICTURES) + b"\0", "another size than its header says"),
        (b"\x93NUMPY\x09\x00" + npy(PICTURES)[8:], "no .npy file of version 1 or 2"),
        (b"no array", "no .npy file"),
        (b"", "no .npy file"),
        (header("[" * 500), "no .npy file"),
        (npy(PICTURES.astype(np.float64)), "array x: expected uint8"),
        (npy(PICTURES[..., :2]), "array x: expected uint8"),
        (npy(PICTURES[0]), "array x: expected uint8"),
    ],
)
def test_broken_arrays_are_refused(tmp_path: Path, content: bytes, message: str) -> None:
    with pytest.raises(MalformedSourceError, match=message):
        read_data(zip_of(tmp_path / "a.npz", {"x.npy": content}))


@pytest.mark.parametrize(
    "y", [CLASSES[:-1], CLASSES.astype(np.float32), CLASSES - 1, CLASSES + 2**31, CLASSES[:, None], CLASSES > 0]
)
def test_classes_must_be_one_number_for_each_picture(tmp_path: Path, y: npt.NDArray[Any]) -> None:
    with pytest.raises(MalformedSourceError):
        read_data(npz(tmp_path / "a.npz", x=PICTURES, y=y))


def test_an_archive_without_x_says_what_it_holds(tmp_path: Path) -> None:
    with pytest.raises(MalformedSourceError, match=r"no array x: found images\.npy"):
        read_data(npz(tmp_path / "a.npz", images=PICTURES))


def test_other_packings_are_refused(tmp_path: Path) -> None:
    path = zip_of(tmp_path / "a.npz", {"x.npy": npy(PICTURES)}, zipfile.ZIP_LZMA)
    with pytest.raises(MalformedSourceError, match="numpy does not use"):
        read_data(path)


def test_a_size_over_the_limit_is_refused_before_reading(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mobilemodel.runtime.data.LARGEST_ARRAY", PICTURES.nbytes)
    with pytest.raises(LimitExceededError, match="array x: expected at most 420 bytes, found 548"):
        read_data(zip_of(tmp_path / "a.npz", {"x.npy": npy(PICTURES)}))


def test_what_is_no_archive_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.npz").write_bytes(npy(PICTURES))
    with pytest.raises(MalformedSourceError, match=r"a\.npz: not a .npz file"):
        read_data(tmp_path / "a.npz")


@given(st.data())
def test_damaged_archives_are_refused_or_read(tmp_path_factory: pytest.TempPathFactory, data: st.DataObject) -> None:
    path = npz(tmp_path_factory.mktemp("damaged") / "a.npz", x=PICTURES, y=CLASSES)
    path.write_bytes(data.draw(damaged(path.read_bytes())))
    try:
        found = read_data(path)
    except MobileModelError:
        return
    assert len(found) == 7
