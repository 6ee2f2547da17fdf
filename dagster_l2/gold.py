"""Reading gold: the analysts' DuckDB file, opened read only and closed at once.

Nothing here writes to it; `lake.gold` replaces it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import duckdb

from dagster_l2.errors import L2Error, WrongUse
from dagster_l2.files import write_durably

Row = dict[str, Any]

_ROWS_AT_ONCE = 10_000


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
        raise NoGold(f"There is no {gold} yet: `l2 run` makes it.")
    try:
        with duckdb.connect(str(gold), read_only=True) as connection:
            # Else `now()` is of the reader's own zone, and hours away from the moments in the file.
            connection.execute("set TimeZone = 'UTC'")
            yield connection
    except duckdb.Error as error:
        raise BadQuery(f"DuckDB refused the query: {' '.join(str(error).split())}") from None
