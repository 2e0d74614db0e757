"""Pictures drawn by chance: the same ones from a seed, of the sizes asked for, readable as data."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mobilemodel.errors import LimitExceededError, OutputExistsError, UsageError
from mobilemodel.runtime import drawn_data, read_data
from mobilemodel.runtime.drawn import write_drawn


def pictures(count: int, height: int, width: int, seed: int = 1) -> npt.NDArray[Any]:
    x = drawn_data(count, height, width, seed=seed).x
    assert isinstance(x, np.ndarray)
    return x


@given(st.integers(1, 3), st.integers(1, 40), st.integers(1, 40))
def test_any_size(count: int, height: int, width: int) -> None:
    x = pictures(count, height, width)
    assert x.shape == (count, height, width, 3)
    assert x.dtype == np.uint8


def test_a_seed_decides_and_a_picture_does_not_depend_on_how_many_there_are() -> None:
    x = pictures(6, 16, 12)
    np.testing.assert_array_equal(pictures(3, 16, 12), x[:3])
    assert len({picture.tobytes() for picture in x}) == 6
    assert (pictures(6, 16, 12, seed=2) != x).any(axis=(1, 2, 3)).all()


def test_their_statistics_are_those_of_photographs() -> None:
    """Neighbours are alike, brightness varies more than colour does, and few pixels are clipped."""
    x = pictures(200, 32, 32).astype(np.float64)
    assert 100 < x.mean() < 140
    assert 45 < x.std() < 80
    assert 100 * np.isin(x, (0, 255)).mean() < 15
    neighbours = np.corrcoef(x[:, :, 1:].ravel(), x[:, :, :-1].ravel())[0, 1]
    assert 0.85 < neighbours < 0.99
    brightness = x.mean(axis=3, keepdims=True)
    assert brightness.std() > 1.5 * (x - brightness).std()


def test_written_they_are_data_and_the_same_bytes_again(tmp_path: Path) -> None:
    write_drawn(tmp_path / "a.npz", 5, 8, 8)
    write_drawn(tmp_path / "b.npz", 5, 8, 8)
    assert (tmp_path / "a.npz").read_bytes() == (tmp_path / "b.npz").read_bytes()
    data = read_data(tmp_path / "a.npz")
    np.testing.assert_array_equal(data.x, pictures(5, 8, 8))
    assert data.classes is None


def test_refusals(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="at least one"):
        drawn_data(0, 8, 8)
    with pytest.raises(UsageError, match="seed"):
        drawn_data(1, 8, 8, seed=-1)
    with pytest.raises(LimitExceededError, match="a side"):
        drawn_data(1, 8, 4096)
    with pytest.raises(LimitExceededError, match="bytes"):
        drawn_data(10**6, 2048, 2048)
    with pytest.raises(UsageError, match="npz"):
        write_drawn(tmp_path / "a.mm", 1, 8, 8)
    write_drawn(tmp_path / "a.npz", 1, 8, 8)
    with pytest.raises(OutputExistsError):
        write_drawn(tmp_path / "a.npz", 1, 8, 8)
