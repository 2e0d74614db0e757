"""SQLite files as hostile sources: what is opened and how, what is refused, and that no bytes end in a traceback."""

from __future__ import annotations

import os
import sqlite3
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mobilemodel.errors import (
    LimitExceededError,
    MalformedSourceError,
    MobileModelError,
    UnsupportedSourceError,
    UsageError,
)
from mobilemodel_converters import find_converter
from mobilemodel_converters.ccv import CcvConverter
from mobilemodel_converters.ccv import database as databases
from mobilemodel_converters.ccv.database import Blob, Database, OtherType
from tests.ccv_databases import Convnet, change, error_of, load


def small(folder: Path, name: str = "net.sqlite3") -> Path:
    """A convnet of three layers, some KB."""
    net = Convnet((5, 5, 3)).conv(4).full(6, relu=True).full(3)
    return net.write(folder / name, codebooks={1: np.arange(4)})


def test_values_come_with_their_types_and_blobs_unread(tmp_path: Path) -> None:
    path = change(tmp_path / "a.db", "CREATE TABLE t (a, b, c, d, e)",
                  "INSERT INTO t VALUES (7, 1.5, 'text', x'0102', NULL)")  # fmt: skip
    with Database(path) as database:
        (row,) = database.rows("t", ("a", "b", "c", "d", "e"), 10)
        assert row == {"a": 7, "b": 1.5, "c": "text", "d": Blob("t", "d", 1, 2), "e": None}
        assert isinstance(row["d"], Blob)
        assert database.read(row["d"]) == b"\x01\x02"


def test_long_text_is_not_fetched(tmp_path: Path) -> None:
    path = change(tmp_path / "a.db", "CREATE TABLE t (a)", "INSERT INTO t VALUES (printf('%90000c', 'x'))")
    with Database(path) as database:
        assert database.rows("t", ("a",), 10) == [{"a": OtherType("long text")}]


def test_more_rows_than_allowed_are_refused(tmp_path: Path) -> None:
    path = change(tmp_path / "a.db", "CREATE TABLE t (a)", *["INSERT INTO t VALUES (1)"] * 4)
    with Database(path) as database, pytest.raises(LimitExceededError, match="at most 3"):
        database.rows("t", ("a",), 3)


def test_names_are_compared_as_sql_compares_them(tmp_path: Path) -> None:
    path = small(tmp_path)
    change(path, "ALTER TABLE layer_params RENAME TO tmp_params", "ALTER TABLE tmp_params RENAME TO Layer_Params",
           "ALTER TABLE Layer_Params RENAME COLUMN output_relu TO Output_ReLU")  # fmt: skip
    load(path).close()


@pytest.mark.parametrize("name", ["a b?c#d%20e.db", "größe & mehr.sqlite3", "quote'\".db", "-.db"])
def test_any_file_name_opens(name: str, tmp_path: Path) -> None:
    load(small(tmp_path, name)).close()


def test_nothing_is_written_and_no_lock_is_needed(tmp_path: Path) -> None:
    path = change(small(tmp_path), "PRAGMA journal_mode = WAL", "PRAGMA wal_checkpoint(TRUNCATE)")
    (tmp_path / "net.sqlite3-wal").unlink(missing_ok=True)
    (tmp_path / "net.sqlite3-shm").unlink(missing_ok=True)
    before = path.read_bytes()
    path.chmod(0o400)
    with Database(path) as database:
        with pytest.raises(sqlite3.OperationalError):
            database.connection.execute("INSERT INTO layer_quant VALUES (9, x'00')")
        with pytest.raises(sqlite3.OperationalError):
            database.connection.execute("ATTACH 'other.db' AS other")
    assert path.read_bytes() == before
    assert os.listdir(tmp_path) == ["net.sqlite3"]


@pytest.mark.parametrize("suffix", ["-wal", "-journal"])
def test_a_journal_with_changes_is_refused(suffix: str, tmp_path: Path) -> None:
    path = small(tmp_path)
    journal = tmp_path / f"net.sqlite3{suffix}"
    journal.write_bytes(b"")  # a journal that was put aside: nothing is missing
    load(path).close()
    journal.write_bytes(bytes(4096))
    load(path).close()
    journal.write_bytes(b"\xd9\xd5\x05\xf9" + bytes(512))
    with pytest.raises(UnsupportedSourceError, match="journal beside the database") as caught:
        load(path)
    assert ".backup" in str(caught.value)
    (tmp_path / "elsewhere").mkdir()
    link = tmp_path / "elsewhere" / "link.sqlite3"
    link.symlink_to(path)
    with pytest.raises(UnsupportedSourceError, match="journal beside the database"):
        load(link)


def test_a_pipe_as_a_journal_does_not_wait(tmp_path: Path) -> None:
    path = small(tmp_path)
    os.mkfifo(tmp_path / "net.sqlite3-wal")
    with pytest.raises(UsageError, match="not a regular file"):
        load(path)


def test_only_plain_tables_count(tmp_path: Path) -> None:
    """A view runs SQL and a virtual table runs code; a generated column is SQL too."""
    path = small(tmp_path)
    change(path, "ALTER TABLE layer_params RENAME TO hidden_params",
           "CREATE VIEW layer_params AS SELECT * FROM hidden_params")  # fmt: skip
    with pytest.raises(UnsupportedSourceError, match="neither a ccv convnet"):
        load(path)
    other = change(tmp_path / "other.db", "CREATE TABLE t (a, b AS (a + 1), c AS (a + 2) STORED)")
    with Database(other) as database:
        assert database.tables == {"t": frozenset("a")}


def test_a_table_that_is_a_view_in_disguise_is_refused(tmp_path: Path) -> None:
    path = change(small(tmp_path), "PRAGMA writable_schema = ON",
                  "UPDATE sqlite_master SET sql = 'CREATE VIEW layer_params AS SELECT 1 AS layer' "
                  "WHERE name = 'layer_params'")  # fmt: skip
    with pytest.raises(MobileModelError):
        load(path)


def test_bytes_that_are_no_text_are_an_error_of_the_source(tmp_path: Path) -> None:
    """SQLite quotes a broken schema in its message, byte by byte; and names may be no UTF-8 themselves."""
    for column, text in (("sql", "CREATE TABLE t (\x80 % )"), ("name", "t\x80")):
        path = change(tmp_path / f"{column}.db", "CREATE TABLE t (a)", "PRAGMA writable_schema = ON",
                      (f"UPDATE sqlite_master SET {column} = CAST(? AS TEXT)", (text.encode("latin-1"),)))  # fmt: skip
        with pytest.raises(MobileModelError) as caught:
            load(path)
        assert caught.value.file == str(path)


def test_work_is_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = change(tmp_path / "a.db", "CREATE TABLE t (a)",
                  "WITH RECURSIVE n(i) AS (VALUES (1) UNION ALL SELECT i + 1 FROM n WHERE i < 300000) "
                  "INSERT INTO t SELECT i FROM n")  # fmt: skip
    monkeypatch.setattr(databases, "_STEPS", 1_000_000)
    with Database(path) as database, pytest.raises(LimitExceededError, match="too much work"):
        database.rows("t", ("a",), 10**9)


def test_face_cascades_are_refused_by_name(tmp_path: Path) -> None:
    path = change(
        tmp_path / "face.sqlite3", "CREATE TABLE cascade_params (id INTEGER)", "CREATE TABLE feature_params (a)"
    )
    assert find_converter([path]).name == "ccv"
    with pytest.raises(UnsupportedSourceError, match="SURF cascade"):
        load(path)


def test_an_unrelated_database_is_told_by_its_tables(tmp_path: Path) -> None:
    path = change(tmp_path / "a.db", 'CREATE TABLE "contacts\x1b[2J" (a)', "CREATE TABLE photos (a)")
    assert CcvConverter().sniff([path])
    with pytest.raises(UnsupportedSourceError, match="photos") as caught:
        load(path)
    assert "layer_params" in str(caught.value)
    assert "\x1b" not in str(caught.value)


def test_an_empty_database_has_no_tables(tmp_path: Path) -> None:
    path = change(tmp_path / "a.db", "CREATE TABLE t (a)", "DROP TABLE t")
    with pytest.raises(UnsupportedSourceError, match="no tables"):
        load(path)


def test_what_is_no_database_is_not_claimed(tmp_path: Path) -> None:
    path = tmp_path / "a.sqlite3"
    path.write_bytes(b"SQLite format 2\0" + bytes(100))
    assert not CcvConverter().sniff([path])
    assert not CcvConverter().sniff([tmp_path])
    assert not CcvConverter().sniff([tmp_path / "none"])
    with pytest.raises(UnsupportedSourceError, match="not an SQLite database"):
        load(path)


def test_files_that_do_not_go_together(tmp_path: Path) -> None:
    path = small(tmp_path)
    other = tmp_path / "model.onnx"
    other.write_bytes(b"")
    with pytest.raises(UsageError, match="graph of its own"):
        CcvConverter().load([other, path])
    with pytest.raises(UsageError, match="one SQLite file"):
        CcvConverter().load([path, path])


def test_the_recorded_file_is_the_databases(tmp_path: Path) -> None:
    from hashlib import sha256

    path = small(tmp_path)
    model = load(path)
    assert model.sources[0].sha256 == sha256(path.read_bytes()).digest()
    model.close()
    model.close()


def attempt(content: bytes, folder: Path) -> None:
    """Load, and read every value: either works, or it ends in one of our errors that names the file."""
    path = folder / "net.sqlite3"
    path.write_bytes(content)
    error = error_of(lambda: _read_all(path))
    assert error is None or error.file is not None
    assert all(character.isprintable() or character == "\n" for character in str(error))


def _read_all(path: Path) -> None:
    model = load(path)
    try:
        for tensor in model.tensors:
            assert len(tensor.read()) == tensor.raw_bytes
    finally:
        model.close()


@pytest.fixture(scope="module")
def content(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    return small(tmp_path_factory.mktemp("small")).read_bytes()


@given(st.data())
def test_damaged_bytes(content: bytes, tmp_path_factory: pytest.TempPathFactory, data: st.DataObject) -> None:
    damaged = bytearray(content)
    for _ in range(data.draw(st.integers(1, 20))):
        # Half of the damage goes to the heads of pages, where it does most.
        page = data.draw(st.integers(0, len(content) // 4096 - 1)) * 4096
        place = page + data.draw(st.one_of(st.integers(0, 127), st.integers(0, 4095)))
        damaged[place] = data.draw(st.sampled_from((0, 1, 5, 13, 127, 128, 255)) | st.integers(0, 255))
    attempt(bytes(damaged), tmp_path_factory.mktemp("damaged"))


@given(st.integers(0, 40_000))
def test_truncated_files(content: bytes, tmp_path_factory: pytest.TempPathFactory, size: int) -> None:
    attempt(content[:size], tmp_path_factory.mktemp("short"))


@given(st.integers(0, 10), st.integers(0, 10))
def test_pages_that_stand_elsewhere(
    content: bytes, tmp_path_factory: pytest.TempPathFactory, first: int, second: int
) -> None:
    """Trees that share pages or run in circles."""
    pages = [content[at : at + 4096] for at in range(0, len(content), 4096)]
    pages[first % len(pages)] = pages[second % len(pages)]
    attempt(b"".join(pages), tmp_path_factory.mktemp("pages"))


def test_a_damaged_tree_is_an_error_of_the_source(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "net.sqlite3"
    path.write_bytes(content[:100] + b"\xff" * 60 + content[160:])
    with pytest.raises(MalformedSourceError, match="SQLite cannot read the database"):
        load(path)
