"""Reading gold: the analysts' DuckDB file, read only; closed at once, or kept open by who reads all day.

Nothing here writes to it; `lake.gold` replaces it.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol

import duckdb

from dagster_l2.base.errors import L2Error, WrongUse
from dagster_l2.base.files import write_durably

Row = dict[str, Any]

_ROWS_AT_ONCE = 10_000


class Ask(Protocol):
    """Whatever gives the rows of a query on gold: `read_gold` with its file, or `OpenGold.read`."""

    def __call__(self, query: str, parameters: Sequence[Any] = ()) -> list[Row]:
        """The rows of a query."""


class NoGold(L2Error):
    """No pass has published gold yet."""


class BadQuery(WrongUse):
    """DuckDB refused the query."""


class Answer:
    """What a query gives: the names of its columns, and its rows, which can be read once."""

    def __init__(self, cursor: Any) -> None:
        self._cursor = cursor
        self.names: list[str] = [column[0] for column in cursor.description or ()]

    def __iter__(self) -> Iterator[tuple[Any, ...]]:
        """The rows, some thousands in memory at a time."""
        while rows := self._cursor.fetchmany(_ROWS_AT_ONCE):
            yield from rows

    def rows(self) -> Iterator[Row]:
        """The rows by name of column."""
        return (dict(zip(self.names, row, strict=True)) for row in self)


@contextmanager
def ask_gold(gold: Path, query: str, parameters: Sequence[Any] = ()) -> Iterator[Answer]:
    """The answer to a query, for the time of a block.

    Raises
    ------
    NoGold
        When the file is not there yet.
    BadQuery
        When DuckDB refuses the query.
    """
    with _opened(gold) as connection:
        yield Answer(connection.execute(query, list(parameters)))


def read_gold(gold: Path, query: str, parameters: Sequence[Any] = ()) -> list[Row]:
    """The rows of a query.

    Raises
    ------
    NoGold
        When the file is not there yet.
    BadQuery
        When DuckDB refuses the query.
    """
    with ask_gold(gold, query, parameters) as answer:
        return list(answer.rows())


def gold_to_parquet(gold: Path, query: str, path: Path) -> None:
    """Write the answer to a query as a parquet file, by one rename.

    Raises
    ------
    NoGold
        When the file is not there yet.
    BadQuery
        When DuckDB refuses the query, or it gives no table.
    """
    with _opened(gold) as connection:
        relation = connection.sql(query)
        if relation is None:
            raise BadQuery("The query gives no table to write.")
        write_durably(path, lambda temporary: relation.write_parquet(str(temporary), compression="zstd"))


@contextmanager
def _opened(gold: Path) -> Iterator[Any]:
    if not gold.exists():
        raise _missing(gold)
    try:
        with duckdb.connect(str(gold), read_only=True) as connection:
            # Else `now()` is of the reader's own zone, and hours away from the moments in the file.
            connection.execute("set TimeZone = 'UTC'")
            yield connection
    except duckdb.Error as error:
        raise _refused(error) from None


def _missing(gold: Path) -> NoGold:
    return NoGold(f"There is no {gold} yet: `l2 run` makes it.")


def _refused(error: duckdb.Error) -> BadQuery:
    return BadQuery(f"DuckDB refused the query: {' '.join(str(error).split())}")


class OpenGold:
    """Gold kept open for many readers at once; a file that took its place is noticed at the next query.

    In one process DuckDB opens a path once: as long as one reader holds the old file, others get it too. So
    a reader who sees a new one waits until those of the old one are done, and who uses this opens gold by
    nothing else.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._turn = threading.Condition()
        self._readers = 0
        self._connection: Any = None
        self._version: tuple[int, ...] | None = None

    @property
    def version(self) -> tuple[int, ...] | None:
        """What tells one file from the one that takes its place; None while there is none."""
        try:
            status = self.path.stat()
        except FileNotFoundError:
            return None
        return status.st_ino, status.st_mtime_ns, status.st_size

    def read(self, query: str, parameters: Sequence[Any] = ()) -> list[Row]:
        """The rows of a query; raises `NoGold` and `BadQuery` as `read_gold`."""
        with self._cursor() as cursor:
            try:
                return list(Answer(cursor.execute(query, list(parameters))).rows())
            except duckdb.Error as error:
                raise _refused(error) from None

    def read_arrow(self, query: str) -> Any:
        """The answer to a query as an Arrow table; raises as `read`."""
        with self._cursor() as cursor:
            try:
                return cursor.execute(query).to_arrow_table()
            except duckdb.Error as error:
                raise _refused(error) from None

    def close(self) -> None:
        """Give the file back."""
        with self._turn:
            self._turn.wait_for(lambda: not self._readers)
            self._open(None)

    @contextmanager
    def _cursor(self) -> Iterator[Any]:
        with self._turn:
            self._turn.wait_for(lambda: self._version == self.version or not self._readers)
            version = self.version
            if self._version != version or self._connection is None:
                self._open(version)
            if self._connection is None:
                raise _missing(self.path)
            cursor = self._connection.cursor()
            self._readers += 1
        try:
            yield cursor
        finally:
            cursor.close()
            with self._turn:
                self._readers -= 1
                self._turn.notify_all()

    def _open(self, version: tuple[int, ...] | None) -> None:
        if self._connection is not None:
            self._connection.close()
        self._connection, self._version = None, None
        if version is not None:
            try:
                # Small questions of many at once: more threads for each would only wait for each other.
                self._connection = duckdb.connect(str(self.path), read_only=True)
                self._connection.execute("set threads = 1")
                self._connection.execute("set global TimeZone = 'UTC'")  # also of the cursors
            except duckdb.Error as error:
                raise _refused(error) from None
            self._version = version
