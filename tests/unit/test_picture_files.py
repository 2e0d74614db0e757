"""Reading picture files: modes, orientation, limits, and what is damaged or no picture."""

from __future__ import annotations

import struct
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from mobilemodel.errors import LimitExceededError, MalformedSourceError, UnsupportedSourceError, UsageError
from mobilemodel.runtime.picture import PictureLimits, read_picture
from tests.pictures import noise
from tests.strategies import damaged


def save(path: Path, image: Image.Image, **options: Any) -> Path:
    image.save(path, **options)
    return path


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA"])
def test_modes_become_rgb(tmp_path: Path, mode: str) -> None:
    image = Image.fromarray(noise(5, 6)).convert(mode)
    found = read_picture(save(tmp_path / "a.png", image))
    assert found.dtype == np.uint8
    assert np.array_equal(found, np.asarray(image.convert("RGB")))


def test_alpha_is_dropped_not_blended(tmp_path: Path) -> None:
    found = read_picture(save(tmp_path / "a.png", Image.new("RGBA", (2, 1), (10, 20, 30, 0))))
    assert found.tolist() == [[[10, 20, 30]] * 2]


def test_a_picture_is_turned_upright(tmp_path: Path) -> None:
    """spec/preprocessing.md: an application SHOULD turn the picture upright as its orientation tag says."""
    exif = Image.Exif()
    exif[0x0112] = 6
    pixels = noise(3, 5)
    found = read_picture(save(tmp_path / "a.png", Image.fromarray(pixels), exif=exif))
    assert np.array_equal(found, np.rot90(pixels, -1))


def test_more_than_8_bits_are_refused(tmp_path: Path) -> None:
    deep = Image.fromarray(np.arange(12, dtype=np.uint16).reshape(3, 4))
    with pytest.raises(UnsupportedSourceError, match=r"a\.png: a picture of more than 8 bits"):
        read_picture(save(tmp_path / "a.png", deep))


def png_that_claims(width: int, height: int) -> bytes:
    def chunk(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    head = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(b"\0")) + chunk(b"IEND", b"")


@pytest.mark.parametrize("side", [9_000, 11_000, 60_000])
def test_bombs_are_refused_by_their_header(tmp_path: Path, side: int) -> None:
    (tmp_path / "a.png").write_bytes(png_that_claims(side, side))
    with pytest.raises(LimitExceededError, match="at most 67108864 pixels"):
        read_picture(tmp_path / "a.png")


def test_limits_can_be_lowered(tmp_path: Path) -> None:
    path = save(tmp_path / "a.png", Image.fromarray(noise(5, 6)))
    with pytest.raises(LimitExceededError, match="5 x 6"):
        read_picture(path, PictureLimits(pixels=29))
    with pytest.raises(LimitExceededError, match="picture file"):
        read_picture(path, PictureLimits(file=10))


def test_a_missing_file_is_a_usage_error(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="cannot open"):
        read_picture(tmp_path / "none.png")


def test_what_is_no_picture_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n")
    with pytest.raises(MalformedSourceError, match="not a picture"):
        read_picture(tmp_path / "a.png")


@given(st.data())
@pytest.mark.parametrize("suffix", ["png", "jpg", "bmp", "gif", "webp", "tif"])
def test_damaged_files_are_refused_or_read_but_nothing_else(
    tmp_path_factory: pytest.TempPathFactory, suffix: str, data: st.DataObject
) -> None:
    path = tmp_path_factory.mktemp("damaged") / f"a.{suffix}"
    Image.fromarray(noise(12, 12)).save(path)
    path.write_bytes(data.draw(damaged(path.read_bytes())))
    try:
        found = read_picture(path)
    except (MalformedSourceError, LimitExceededError, UnsupportedSourceError):
        return
    assert found.dtype == np.uint8
    assert found.shape[2] == 3


def test_a_truncated_file_is_named(tmp_path: Path) -> None:
    path = save(tmp_path / "a.png", Image.fromarray(noise(30, 30)))
    path.write_bytes(path.read_bytes()[:1000])
    with pytest.raises(MalformedSourceError, match=r"a damaged picture: found .*truncated"):
        read_picture(path)
