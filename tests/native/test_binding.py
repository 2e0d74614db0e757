"""``mobilemodel.native``: arrays and errors are those of the Python reader, whatever library there is or is not."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st

import mobilemodel
from mobilemodel import native
from mobilemodel.errors import MobileModelError, UsageError
from tests.conformance.write_vectors import VECTORS, committed
from tests.native.builds import LIBRARY, Build
from tests.native.expected import Decoded, same
from tests.native.wild import wild_bundles
from tests.strategies import bundles, damaged

files = bundles().map(lambda built: built.data) | wild_bundles()
SONAME = "libmobilemodel.0.dylib" if sys.platform == "darwin" else "libmobilemodel.so.0"


@contextmanager
def looking(named: str | None) -> Iterator[None]:
    """MOBILEMODEL_NATIVE is this (None: not set), and the library is looked for anew."""
    before = os.environ.pop("MOBILEMODEL_NATIVE", None)
    if named is not None:
        os.environ["MOBILEMODEL_NATIVE"] = named
    native.library.cache_clear()
    try:
        yield
    finally:
        os.environ.pop("MOBILEMODEL_NATIVE", None)
        if before is not None:
            os.environ["MOBILEMODEL_NATIVE"] = before
        native.library.cache_clear()


@pytest.fixture(scope="session")
def library_file(built: Callable[[Build], Path]) -> Path:
    """The shared library, as it is installed."""
    return built(LIBRARY) / SONAME


@pytest.fixture
def library(library_file: Path) -> Iterator[Path]:
    """The shared library, in use."""
    with looking(str(library_file)):
        assert native.library() is not None
        yield library_file


Answer = tuple[npt.NDArray[Any] | None, str]


def answers(data: bytes) -> list[Answer]:
    """The array of each tensor, or what its error says; what opening says, where the file does not open."""
    out: list[Answer] = []
    try:
        with mobilemodel.open(data) as bundle:
            for tensor in bundle.values():
                try:
                    out.append((tensor.numpy(), ""))
                except MobileModelError as error:
                    out.append((None, f"{type(error)} {error}"))
    except MobileModelError as error:
        out.append((None, f"{type(error)} {error}"))
    return out


def check_same(data: bytes) -> None:
    """By the library and by Python alone."""
    ours = answers(data)
    with looking(""):
        theirs = answers(data)
        assert len(ours) == len(theirs)
        tensors = list(mobilemodel.open(data).values()) if len(theirs) and theirs[0][0] is not None else []
        for (array, error), (wanted, reason) in zip(ours, theirs, strict=True):
            assert error == reason
            assert (array is None) == (wanted is None)
            if array is not None and wanted is not None:
                assert (array.shape, array.dtype, array.flags.c_contiguous) == (wanted.shape, wanted.dtype, True)
        for tensor, (array, _), (wanted, _) in zip(tensors, ours, theirs, strict=False):
            if array is not None and wanted is not None:
                assert same(array.tobytes(), wanted.tobytes(), Decoded(tensor, tensor.dtype_number).made)


@pytest.mark.parametrize("entry", committed(), ids=lambda entry: entry["id"])
def test_vectors(library: Path, entry: dict[str, Any]) -> None:
    check_same((VECTORS / entry["file"]).read_bytes())


@given(data=files)
def test_arrays_are_those_of_the_reference(library_file: Path, data: bytes) -> None:
    with looking(str(library_file)):
        check_same(data)
        with mobilemodel.open(data) as bundle:
            decoder = native.Decoder(bundle.container)
            for tensor in bundle.values():
                assert decoder.decode(tensor.name, tensor.dtype_number) is not None


@given(data=files.flatmap(damaged))
def test_errors_are_those_of_the_reference(library_file: Path, data: bytes) -> None:
    """The library says only that something is wrong; file, tensor, offset and what was found come from Python."""
    with looking(str(library_file)):
        check_same(data)


@given(data=wild_bundles(), count=st.integers(2, 8))
def test_threads_share_a_bundle(library_file: Path, data: bytes, count: int) -> None:
    with looking(str(library_file)), mobilemodel.open(data) as bundle, ThreadPoolExecutor(count) as pool:
        wanted = [tensor.numpy().tobytes() for tensor in bundle.values()]
        found = pool.map(lambda tensor: tensor.numpy().tobytes(), list(bundle.values()) * count)
        assert list(found) == wanted * count


def test_a_mapped_file_is_let_go(library: Path) -> None:
    """Arrays stay valid behind the bundle, which is closed at once and then says so."""
    with mobilemodel.open(VECTORS / "valid" / "palette-split-4.mm") as bundle:
        mapping = bundle.container._mapping
        tensor = next(iter(bundle.values()))
        values = tensor.numpy()
    assert mapping is not None
    assert mapping.closed
    assert np.isfinite(values).all()
    with pytest.raises(UsageError, match="closed"):
        tensor.numpy()


def test_a_library_of_another_version_is_not_used(library: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mobilemodel, "__version__", "99.0")
    with looking(str(library)), pytest.warns(RuntimeWarning, match="MOBILEMODEL_NATIVE"):
        assert native.library() is None


def test_the_library_is_found_beside_the_package(
    library_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copy(library_file, tmp_path / SONAME)
    monkeypatch.setattr(native, "__file__", str(tmp_path / "native.py"))
    with looking(None):
        assert native.library() is not None


def test_the_current_folder_is_no_place_for_libraries(library_file: Path, tmp_path: Path) -> None:
    """Bundles lie where anyone may write; nothing beside one is ever loaded."""
    copy = tmp_path / SONAME
    shutil.copy(library_file, copy)
    shutil.copy(VECTORS / "valid" / "palette-split-4.mm", tmp_path / "a.mm")
    code = "import mobilemodel\nfrom mobilemodel import native\n"
    code += "with mobilemodel.open('a.mm') as bundle: [tensor.numpy() for tensor in bundle.values()]\n"
    code += "print(native.library() is None)"
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("MOBILEMODEL", "LD_"))}
    environment["PYTHONPATH"] = str(Path(mobilemodel.__file__).parents[1])

    def python_alone() -> bool:
        command = [sys.executable, "-c", code]
        return subprocess.check_output(command, cwd=tmp_path, env=environment).strip() == b"True"

    found = python_alone()
    copy.unlink()
    assert found == python_alone()
