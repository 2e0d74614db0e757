"""Hostile caffemodels and prototxts: whatever they hold, the answer is a model or one clear error of ours."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

import mobilemodel as mm
from mobilemodel.errors import LimitExceededError, MalformedSourceError, MobileModelError
from mobilemodel_converters.caffe.sniff import is_caffe
from tests import caffe_files as files
from tests.caffe_files import around, both_versions, field, small, write
from tests.conversions import check_error

SHAPE = field(7, field(1, bytes([2, 3])))


def attempt(content: bytes, folder: Path) -> MobileModelError | None:
    """Convert as Caffe; None where it works, else the error."""
    source = write(folder, "hostile.onnx", content)
    is_caffe(source)
    try:
        mm.convert(source, folder / "out.mm", scheme="lossless",
                   options=mm.ConvertOptions(force=True, converter="caffe"))  # fmt: skip
    except MobileModelError as error:
        check_error(error)
        return error
    return None


def test_truncated_at_every_length(tmp_path: Path) -> None:
    raw = small().SerializeToString()
    assert attempt(raw, tmp_path) is None
    for length in range(len(raw)):
        attempt(raw[:length], tmp_path)


@given(data=st.data())
def test_changed_bytes(data: st.DataObject, tmp_path_factory: pytest.TempPathFactory) -> None:
    """A model or an error of ours; never another exception."""
    raw = bytearray(both_versions()[data.draw(st.integers(0, 1))].SerializeToString())
    for _ in range(data.draw(st.integers(1, 4))):
        raw[data.draw(st.integers(0, len(raw) - 1))] = data.draw(st.integers(0, 255))
    attempt(bytes(raw), tmp_path_factory.getbasetemp())


@given(data=st.data())
def test_changed_text(data: st.DataObject, tmp_path_factory: pytest.TempPathFactory) -> None:
    raw = bytearray(files.text(both_versions()[data.draw(st.integers(0, 1))]))
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(st.integers(0, len(raw) - 1))
        raw[at : at + data.draw(st.integers(0, 3))] = data.draw(st.binary(max_size=3))
    attempt(bytes(raw), tmp_path_factory.getbasetemp())


@pytest.mark.parametrize(
    "content",
    [
        b"\xa2\x06\x00" * 400_000,
        b"\x0a\x00" * 400_000,
        field(100, field(2, b"ReLU") + b"\x1a\x00" * 400_000),
        field(100, field(2, b"ReLU") + field(1, bytes(2**20))),
        around(SHAPE + (b"\x2d\0\0\0\0" * 2 + b"\x35\0\0\0\0") * 200_000),
        around(SHAPE + b"\x2a\x04\0\0\0\0" * 400_000),
        b"unknown: [" + b"-inf,\n" * 130_000 + b"0]",
        b"unknown: 1\n" * 90_000,
        b"#\n" * 300_000,
    ],
    ids=["layers", "fields", "bottoms", "name", "values between diffs", "pieces", "numbers", "unknown", "comments"],
)
def test_too_much_of_anything(content: bytes, tmp_path: Path) -> None:
    error = attempt(content, tmp_path)
    assert isinstance(error, LimitExceededError)


def test_names_that_are_not_utf8(tmp_path: Path) -> None:
    error = attempt(field(100, field(1, b"\xff\xfe") + field(2, b"ReLU")), tmp_path)
    assert isinstance(error, MalformedSourceError)
    assert "not UTF-8" in str(error)
    error = attempt(field(1, b"\xff") + small().SerializeToString(), tmp_path)
    assert error is None  # the last name of the network counts
