"""SQLite databases changed by SQL, so that the file stays whole and says something else; and page by page."""

from __future__ import annotations

import sqlite3
import struct
from collections.abc import Callable
from contextlib import closing
from random import Random

_VALUES: tuple[object, ...] = (
    None, 0, 1, -1, 2, 7, 255, 2**31 - 1, 2**31, 2**32, 2**63 - 1, -(2**63), 0.5, -0.0, 1e-320, 1e308, float("inf"),
    "", "0", "12abc", "a" * 1025, "x" * 100_000, "\0", "\x1b[2J", "\u202eabc", "../../etc/passwd", b"", b"\0",
    b"\xff" * 7, b"\0" * 4096, struct.pack("<4f", float("nan"), float("inf"), 1e38, -0.0),
    struct.pack("<4i", 2**31 - 1, -1, 0, 1), struct.pack("<4i", 46_341, 46_341, 1, 0),
)  # fmt: skip
_ARITHMETIC = (
    '"{0}" + 1', '"{0}" - 1', '"{0}" * 2', '"{0}" * 65536', '-"{0}"', 'CAST("{0}" AS TEXT)', '"{0}" + 0.5',
)  # fmt: skip
_PAGE = 4096


def mutate_database(content: bytes, random: Random) -> bytes:
    """One change of a database; plain damage where SQLite no longer opens it."""
    if random.randrange(5) == 0:
        return damage_page(content, random)
    try:
        with closing(sqlite3.connect(":memory:", isolation_level=None)) as connection:
            connection.deserialize(content)
            # The changes are meant to end up in the schema as they are.
            connection.execute("PRAGMA writable_schema = ON")
            random.choice(_CHANGES)(connection, random)
            return connection.serialize()
    except (sqlite3.Error, UnicodeError, OverflowError, MemoryError):
        return damage_page(content, random)


def damage_page(content: bytes, random: Random) -> bytes:
    """Bytes at the head of a page: its kind, its cells' number and places; or a page that stands for another one."""
    if len(content) < _PAGE:
        return content[: random.randint(0, len(content))]
    pages = len(content) // _PAGE
    start = _PAGE * random.randrange(pages)
    if random.randrange(3) == 0:
        other = _PAGE * random.randrange(pages)
        return content[:start] + content[other : other + _PAGE] + content[start + _PAGE :]
    at = start + random.randrange(random.choice((12, 100, 160, _PAGE)))
    word = random.choice((b"\0", b"\xff", b"\x05", b"\x0d", b"\0\1", b"\xff\xff", b"\x81\x80\x80\x80\x00", b"\0\0\0\1"))
    return content[:at] + word + content[at + len(word) :]


def _tables(connection: sqlite3.Connection) -> list[str]:
    found = connection.execute("SELECT name FROM sqlite_master WHERE type = 'table' ORDER BY name").fetchall()
    return [str(name) for (name,) in found if not str(name).startswith("sqlite_")] or ["tensors"]


def _columns(connection: sqlite3.Connection, table: str) -> list[str]:
    return [str(row[1]) for row in connection.execute(f'PRAGMA table_info("{table}")')] or ["layer"]


def _place(connection: sqlite3.Connection, random: Random) -> tuple[str, str, int]:
    """A table, one of its columns, and a row."""
    table = random.choice(_tables(connection))
    rows = [int(row[0]) for row in connection.execute(f'SELECT rowid FROM "{table}" LIMIT 100')] or [0]
    return table, random.choice(_columns(connection, table)), random.choice(rows)


def _set_value(connection: sqlite3.Connection, random: Random) -> None:
    table, column, row = _place(connection, random)
    where = "" if random.randrange(8) == 0 else f" WHERE rowid = {row}"
    connection.execute(f'UPDATE OR REPLACE "{table}" SET "{column}" = ?{where}', (random.choice(_VALUES),))


def _change_number(connection: sqlite3.Connection, random: Random) -> None:
    """What is there, a little more or less, or many times."""
    table, column, row = _place(connection, random)
    how = random.choice(_ARITHMETIC)
    connection.execute(f'UPDATE OR REPLACE "{table}" SET "{column}" = {how.format(column)} WHERE rowid = {row}')


def _change_blob(connection: sqlite3.Connection, random: Random) -> None:
    """A BLOB, longer or shorter, or with other bytes in front."""
    table, column, row = _place(connection, random)
    found = connection.execute(f'SELECT "{column}" FROM "{table}" WHERE rowid = {row}').fetchone()
    if found is None or not isinstance(found[0], bytes):
        return
    old, word = found[0], random.choice([value for value in _VALUES if isinstance(value, bytes)])
    new = random.choice((old + word, word + old[len(word) :], old[: len(old) // 2], old[:-1], old * 2))
    connection.execute(f'UPDATE "{table}" SET "{column}" = ? WHERE rowid = {row}', (new,))


def _remove_row(connection: sqlite3.Connection, random: Random) -> None:
    table, _, row = _place(connection, random)
    connection.execute(f'DELETE FROM "{table}"' + ("" if random.randrange(4) == 0 else f" WHERE rowid = {row}"))


def _add_row(connection: sqlite3.Connection, random: Random) -> None:
    """A row of hostile values, or one that is there once more under another number."""
    table, _, row = _place(connection, random)
    columns = _columns(connection, table)
    copied = random.randrange(2)
    values = [f'"{column}"' if copied and index else "?" for index, column in enumerate(columns)]
    given = [random.choice(_VALUES) for value in values if value == "?"]
    query = f'INSERT OR REPLACE INTO "{table}" SELECT {", ".join(values)}'
    connection.execute(f'{query} FROM "{table}" WHERE rowid = {row}' if copied else query, given)


def _change_table(connection: sqlite3.Connection, random: Random) -> None:
    """A table or column is gone, renamed, or something else of the same name."""
    table, column, _ = _place(connection, random)
    connection.execute(random.choice((
        f'DROP TABLE "{table}"',
        f'ALTER TABLE "{table}" RENAME TO "{random.choice(("tensors", "layer_params", "layer_data", "x"))}"',
        f'ALTER TABLE "{table}" RENAME COLUMN "{column}" TO "{random.choice(("weight", "layer", "x y"))}"',
        f'ALTER TABLE "{table}" DROP COLUMN "{column}"',
        f'ALTER TABLE "{table}" ADD COLUMN "more" GENERATED ALWAYS AS (randomblob(1000000000)) VIRTUAL',
        f'CREATE TRIGGER t AFTER INSERT ON "{table}" BEGIN DELETE FROM "{table}"; END',
        f'CREATE INDEX i ON "{table}" ("{column}")',
    )))  # fmt: skip


def _replace_table(connection: sqlite3.Connection, random: Random) -> None:
    """A table becomes a view, one without rowid, or one that is computed."""
    table, _, _ = _place(connection, random)
    columns = _columns(connection, table)
    names = ", ".join(f'"{column}"' for column in columns)
    connection.execute(f'ALTER TABLE "{table}" RENAME TO "moved"')
    endless = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n)"
    connection.execute(random.choice((
        f'CREATE VIEW "{table}" AS SELECT * FROM "moved"',
        f'CREATE VIEW "{table}" ({names}) AS {endless} SELECT {", ".join("i" for _ in columns)} FROM n',
        f'CREATE TABLE "{table}" ({names}, PRIMARY KEY ("{columns[0]}")) WITHOUT ROWID',
        f'CREATE TABLE "{table}" ({names})',
    )))  # fmt: skip
    if random.randrange(2):
        connection.execute(f'INSERT OR REPLACE INTO "{table}" SELECT {names} FROM "moved"')


def _change_schema(connection: sqlite3.Connection, random: Random) -> None:
    """The text of the schema, or where it says that a table begins."""
    table, _, _ = _place(connection, random)
    connection.execute(random.choice((
        "UPDATE sqlite_master SET rootpage = ? WHERE name = ?",
        "UPDATE sqlite_master SET sql = 'CREATE TABLE x(' || ? || ')' WHERE name = ?",
        "UPDATE sqlite_master SET sql = replace(sql, 'INTEGER', 'TEXT') WHERE ? IS NOT NULL AND name = ?",
        "UPDATE sqlite_master SET type = ? WHERE name = ?",
    )), (random.choice((0, 1, 2, 3, 2**31, -1, "view", "trigger", "layer, weight", "a" * 5000)), table))  # fmt: skip


_CHANGES: tuple[Callable[[sqlite3.Connection, Random], None], ...] = (
    _set_value, _set_value, _set_value, _change_number, _change_number, _change_blob, _change_blob, _remove_row,
    _add_row, _change_table, _replace_table, _change_schema,
)  # fmt: skip
