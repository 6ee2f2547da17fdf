"""Reading gold: the analysts' DuckDB file, opened read only and closed at once."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import duckdb

from dagster_l2.errors import L2Error, WrongUse

Row = dict[str, Any]


class NoGold(L2Error):
    """No pass has published gold yet."""


class BadQuery(WrongUse):
    """DuckDB refused the query."""


def read_gold(gold: Path, query: str, parameters: Sequence[Any] = ()) -> list[Row]:
    """The rows of a query.

    Raises
    ------
    NoGold
        When the file is not there yet.
    BadQuery
        When DuckDB refuses the query.
    """
    if not gold.exists():
        raise NoGold(f"There is no {gold} yet: `l2 run` makes it.")
    try:
        with duckdb.connect(str(gold), read_only=True) as connection:
            cursor = connection.execute(query, list(parameters))
            names = [column[0] for column in cursor.description or ()]
            return [dict(zip(names, row, strict=True)) for row in cursor.fetchall()]
    except duckdb.Error as error:
        raise BadQuery(f"DuckDB refused the query: {' '.join(str(error).split())}") from None
