"""The door between bronze and SQL: views over exactly the files that count at this moment."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime
from pathlib import Path
from typing import Any

from dagster_l2.lake.bronze import SCHEMA_FILE, BronzeTable
from dagster_l2.lake.commit import committed_files


def quoted(text: str | Path) -> str:
    """A text as an SQL literal."""
    return "'" + str(text).replace("'", "''") + "'"


def register_views(
    connection: Any, tables: Iterable[BronzeTable], *, known_at: datetime | None = None
) -> dict[str, list[Path]]:
    """Create or replace ``bronze.<table>`` for each table, over its committed files.

    The list of files is written into the view, so a build reads one state of the lake from its start to
    its end, and a file without its manifest is never read.

    Parameters
    ----------
    known_at
        Leave out what was committed after this moment (with a time zone).

    Returns
    -------
    dict
        The files of each table.
    """
    connection.execute("create schema if not exists bronze")
    registered = {}
    for table in tables:
        table.ensure()
        registered[table.name] = committed_files(table.folder, known_at=known_at)
        files = ", ".join(quoted(path) for path in registered[table.name])
        # Where there has been one schema only, one file tells it; else each query would begin with all.
        schemas = sum(path.name.startswith(SCHEMA_FILE) for path in registered[table.name])
        connection.execute(
            f'create or replace view bronze."{table.name}" as'
            f" select * from read_parquet([{files}], union_by_name = {str(schemas > 1).lower()})"
        )
    return registered
