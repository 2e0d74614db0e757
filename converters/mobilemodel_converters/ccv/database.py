"""SQLite files as sources: opened so that nothing in them runs or is written, and read table by table.

A database is a program's input in more ways than one: views and triggers hold SQL, a journal beside it changes what
it says, and a damaged page sends the reader anywhere. So it is opened read-only and immutable, only plain tables and
columns are read, numbers and names come through one query with bounded work, and BLOBs are read alone, on demand,
after their length has been looked at. Source: sqlite.org, "Defense against the dark arts" and "URI filenames".
"""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from mobilemodel.errors import (
    LimitExceededError,
    MalformedSourceError,
    MobileModelError,
    UnsupportedSourceError,
    UsageError,
    escape,
)
from mobilemodel.files import Closing
from mobilemodel.limits import FORMAT_LIMITS
from mobilemodel_converters.sources import OpenedFile

HEADER = b"SQLite format 3\0"
_PAGE_SIZE_AT = len(HEADER)
"""where the header says how long a page is, in two bytes; 1 stands for 65536"""
_LONGEST_VALUE = 1 << 20
"""bytes of a schema entry, or of a row without its BLOBs"""
_STEPS = 100_000_000
"""steps of SQLite's machine that reading a file may take: a convnet takes some thousands, a second does 50 million"""
_STEPS_AT_ONCE = 100_000
_JOURNAL_HEAD = 32
_LIMITS = {
    sqlite3.SQLITE_LIMIT_LENGTH: _LONGEST_VALUE,
    sqlite3.SQLITE_LIMIT_SQL_LENGTH: _LONGEST_VALUE,
    sqlite3.SQLITE_LIMIT_EXPR_DEPTH: 100,
    sqlite3.SQLITE_LIMIT_ATTACHED: 0,
    sqlite3.SQLITE_LIMIT_TRIGGER_DEPTH: 1,
    sqlite3.SQLITE_LIMIT_WORKER_THREADS: 0,
}
_SETTINGS = ("trusted_schema = OFF", "cell_size_check = ON", "query_only = ON", "mmap_size = 0")


@dataclass(frozen=True)
class Blob:
    """A BLOB that has not been read: where it lies, and its length in bytes."""

    table: str
    column: str
    row: int
    size: int


@dataclass(frozen=True)
class OtherType:
    """What stands in a column that holds another type: ``text`` where a number is expected."""

    name: str

    def __str__(self) -> str:
        return self.name


Value = int | float | str | Blob | OtherType | None
Row = dict[str, Value]


def is_sqlite(path: Path) -> bool:
    """Whether a file begins as SQLite files do."""
    try:
        if not path.is_file():
            return False
        with path.open("rb") as file:
            return file.read(len(HEADER)) == HEADER
    except (OSError, ValueError):
        return False


class Database(Closing):
    """An SQLite file open for reading, with the plain tables that it has.

    Raises UsageError where it cannot be opened, MalformedSourceError where it is no whole SQLite database,
    UnsupportedSourceError where a journal beside it holds changes.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.file = OpenedFile(path)
        self._steps = 0
        self._connection: sqlite3.Connection | None = None
        try:
            if self.file.size < len(HEADER) or self.file.read(0, len(HEADER)) != HEADER:
                raise MalformedSourceError("not an SQLite database")
            _refuse_part_of_a_page(self.file)
            _refuse_journal(path)
            with self._guarded():
                self._connect()
                self.tables = self._find_tables()
        except BaseException as error:
            self.close()
            if isinstance(error, MobileModelError):
                error.within(file=str(path))
            raise

    def _connect(self) -> None:
        try:
            # Of the real path: a journal is looked for beside the file itself, not beside a link to it.
            place = Path(os.path.realpath(self.path)).as_uri()
            self._connection = sqlite3.connect(f"{place}?mode=ro&immutable=1", uri=True, isolation_level=None)
        except (OSError, ValueError) as error:
            raise UsageError(f"cannot open: {error}") from None
        for limit, value in _LIMITS.items():
            self._connection.setlimit(limit, value)
        self._connection.set_progress_handler(self._count_steps, _STEPS_AT_ONCE)
        for setting in _SETTINGS:
            self._connection.execute(f"PRAGMA {setting}")

    def _count_steps(self) -> int:
        self._steps += _STEPS_AT_ONCE
        return int(self._steps > _STEPS)

    @contextmanager
    def _guarded(self) -> Iterator[None]:
        """Whatever SQLite finds wrong becomes an error of ours."""
        try:
            yield
        except sqlite3.Error as error:
            if getattr(error, "sqlite_errorname", "") == "SQLITE_INTERRUPT":
                raise LimitExceededError("reading the database takes too much work", file=str(self.path),
                                         expected=f"at most {_STEPS} steps") from None  # fmt: skip
            raise MalformedSourceError("SQLite cannot read the database", file=str(self.path),
                                       found=escape(str(error))) from None  # fmt: skip
        except UnicodeError:
            # Also where SQLite's own message quotes bytes of the file.
            raise MalformedSourceError("text in the database is not UTF-8", file=str(self.path)) from None
        except MemoryError:
            raise LimitExceededError("reading the database takes too much memory", file=str(self.path)) from None

    @property
    def connection(self) -> sqlite3.Connection:
        """The open connection."""
        assert self._connection is not None, "the database is closed"
        return self._connection

    def _fetch(self, query: str, values: tuple[object, ...] = ()) -> list[tuple[object, ...]]:
        """All rows of a query. A cursor that an error keeps alive would keep the file open."""
        with closing(self.connection.execute(query, values)) as cursor:
            return cursor.fetchall()

    def _find_tables(self) -> dict[str, frozenset[str]]:
        """The plain tables by name in lower case, as SQL compares names, and the columns of each."""
        query = (
            "SELECT name FROM sqlite_master WHERE type = 'table' AND rootpage > 0 "
            "AND upper(substr(sql, 1, 13)) = 'CREATE TABLE ' AND length(name) <= ?"
        )
        names = [name for (name,) in self._fetch(query, (FORMAT_LIMITS.name,)) if isinstance(name, str)]
        return {name.lower(): self._columns(name) for name in names if not name.lower().startswith("sqlite_")}

    def _columns(self, table: str) -> frozenset[str]:
        rows = self._fetch("SELECT name, hidden FROM pragma_table_xinfo(?)", (table,))
        # Generated columns (hidden is not 0) hold SQL, not values.
        return frozenset(name.lower() for name, hidden in rows if isinstance(name, str) and hidden == 0)

    def columns(self, table: str, required: Sequence[str]) -> frozenset[str]:
        """The columns of a table that has to be there; raises MalformedSourceError naming what is missing."""
        if table not in self.tables:
            raise MalformedSourceError(f"the database has no table {table}", file=str(self.path), found=self.listing())
        missing = [column for column in required if column not in self.tables[table]]
        if missing:
            raise MalformedSourceError(f"the table {table} lacks columns", file=str(self.path),
                                       expected=", ".join(missing),
                                       found=", ".join(sorted(self.tables[table])))  # fmt: skip
        return self.tables[table]

    def listing(self) -> str:
        """The names of the tables, for people."""
        return ", ".join(escape(name, 40) for name in sorted(self.tables)[:20]) or "no tables"

    def rows(self, table: str, columns: Sequence[str], most: int) -> list[Row]:
        """All rows of a table, the named columns of each: numbers as they are, text up to a name's length, BLOBs
        unread.

        ``table`` and ``columns`` are names of ours, that the table has. Raises MalformedSourceError, and
        LimitExceededError for more than ``most`` rows.
        """
        selected = ", ".join(_selected(column) for column in columns)
        with self._guarded():
            fetched = self._fetch(f"SELECT rowid, {selected} FROM {table} LIMIT ?", (most + 1,))  # noqa: S608 - names of ours
        if len(fetched) > most:
            raise LimitExceededError(f"rows of the table {table}", file=str(self.path), expected=f"at most {most}")
        found = [_row(table, columns, values) for values in fetched]
        total = sum(value.size for row in found for value in row.values() if isinstance(value, Blob))
        if total > self.file.size:
            raise MalformedSourceError(f"the BLOBs of the table {table} are larger than the file",
                                       file=str(self.path), expected=f"at most {self.file.size} bytes",
                                       found=total)  # fmt: skip
        return found

    def read(self, blob: Blob) -> bytes:
        """All bytes of a BLOB. Raises MalformedSourceError where the file is damaged there."""
        with self._guarded():
            opened = self.connection.blobopen(blob.table, blob.column, blob.row, readonly=True)
            with opened:
                content = opened.read(blob.size)
        if len(content) != blob.size:
            raise MalformedSourceError("a BLOB has another length than its row says", file=str(self.path),
                                       expected=f"{blob.size} bytes", found=len(content))  # fmt: skip
        return content

    def close(self) -> None:
        """Close the file; reading BLOBs afterwards fails."""
        if self._connection is not None:
            with suppress(sqlite3.Error):
                self._connection.close()
            self._connection = None
        self.file.close()


def _selected(column: str) -> str:
    """What is fetched of a column: its type, and its value, of a BLOB only the length.

    ``length`` of a BLOB does not read it, and long text is not fetched.
    """
    return (
        f"typeof({column}), CASE typeof({column}) WHEN 'integer' THEN {column} WHEN 'real' THEN {column} "
        f"WHEN 'blob' THEN length({column}) "
        f"WHEN 'text' THEN CASE WHEN length({column}) <= {FORMAT_LIMITS.name} THEN {column} END END"
    )


def _row(table: str, columns: Sequence[str], values: Sequence[object]) -> Row:
    row: Row = {}
    for index, column in enumerate(columns):
        kind, value = values[1 + 2 * index], values[2 + 2 * index]
        if kind == "blob" and isinstance(value, int) and isinstance(values[0], int):
            row[column] = Blob(table, column, values[0], value)
        elif kind in ("integer", "real", "text") and isinstance(value, (int, float, str)):
            row[column] = value
        else:
            row[column] = None if kind == "null" else OtherType(f"long {kind}")
    return row


def _refuse_part_of_a_page(file: OpenedFile) -> None:
    """SQLite takes zeros for what is missing of the last page: weights could end in them."""
    page = int.from_bytes(file.read(_PAGE_SIZE_AT, 2), "big") if file.size >= _PAGE_SIZE_AT + 2 else 0
    page = 1 << 16 if page == 1 else page
    if page and file.size % page:
        raise MalformedSourceError("the database ends within a page", found=f"{file.size} bytes",
                                   expected=f"a multiple of {page} bytes")  # fmt: skip


def _refuse_journal(path: Path) -> None:
    """An immutable database is read without its journal: what that holds would be missing, so it is refused."""
    real = os.path.realpath(path)
    for suffix in ("-wal", "-journal"):
        if not os.path.lexists(real + suffix):
            continue
        with OpenedFile(Path(real + suffix)) as journal:
            # A journal that was put aside has an empty head.
            pending = any(journal.read(0, min(journal.size, _JOURNAL_HEAD)))
        if pending:
            raise UnsupportedSourceError(
                f"a journal beside the database holds changes that are not in it: {escape(path.name)}{suffix}",
                advice="Close the program that uses the database, or take a copy: sqlite3 FILE '.backup COPY'.",
            )
