"""Looking for the C reader: what is not there, or is something else, is passed over."""

from __future__ import annotations

import ctypes
import ctypes.util
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import mobilemodel
from mobilemodel import native

VECTOR = Path(__file__).resolve().parents[2] / "spec" / "vectors" / "valid" / "palette-split-4.mm"


@pytest.fixture(autouse=True)
def looked_for_anew() -> Iterator[None]:
    native.library.cache_clear()
    yield
    native.library.cache_clear()


def decoded() -> list[bytes]:
    with mobilemodel.open(VECTOR) as bundle:
        return [tensor.numpy().tobytes() for tensor in bundle.values()]


def test_an_empty_name_means_python_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MOBILEMODEL_NATIVE", "")
    assert native.library() is None
    assert all(decoded())


@pytest.mark.parametrize("kind", ["missing", "text", "other library"])
def test_what_is_named_and_useless_is_warned_of_once(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "text").write_text("no library")
    other = ctypes.util.find_library("c")
    if kind == "other library" and other is None:
        pytest.skip("no C library is found")
    monkeypatch.setenv("MOBILEMODEL_NATIVE", str(other) if kind == "other library" else str(tmp_path / kind))
    with pytest.warns(RuntimeWarning, match="MOBILEMODEL_NATIVE: no mobilemodel library"):
        first = decoded()
    assert decoded() == first


def test_without_a_name_the_usual_places_are_tried(monkeypatch: pytest.MonkeyPatch) -> None:
    tried: list[str] = []
    monkeypatch.delenv("MOBILEMODEL_NATIVE", raising=False)
    monkeypatch.setattr(ctypes, "CDLL", tried.append)
    for platform, count in (("linux", 2), ("darwin", 1), ("win32", 1)):
        monkeypatch.setattr(sys, "platform", platform)
        tried.clear()
        native.library.cache_clear()
        assert native.library() is None
        assert len(tried) == count
        assert Path(tried[0]).parent == Path(native.__file__).parent
        # A plain name is looked for in the system's places alone, on systems whose loaders keep to them.
        assert tried[1:] == ["libmobilemodel.so.0"][: count - 1]
