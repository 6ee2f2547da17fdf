"""Gold: what analysts open. One DuckDB file and a parquet file per mart, each replaced by one rename.

It copies what a passed build has left in the warehouse; it decides and renames nothing.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import duckdb

from dagster_l2.base.files import fsync_file, fsync_folder
from dagster_l2.lake.views import quoted


@dataclass(frozen=True, slots=True)
class Gold:
    """What was written: rows per mart, and the size of the file in bytes."""

    rows: dict[str, int]
    bytes: int


@dataclass(frozen=True, slots=True)
class Description:
    """What a table is, and what its columns are."""

    text: str
    columns: Mapping[str, str]


def write_gold(
    warehouse: Path,
    database: Path,
    parquet_folder: Path,
    marts: Sequence[str],
    macros_sql: str,
    descriptions: Mapping[str, Description] | None = None,
) -> Gold:
    """Replace the analysts' file and the parquet files of the marts.

    Parameters
    ----------
    warehouse
        The pipeline's own DuckDB file, after a build whose tests have passed.
    database
        The analysts' file. Readers of the old one keep it until they open the new one.
    parquet_folder
        One ``<mart>.parquet`` each.
    marts
        Names of the tables to copy from the schema ``main``.
    macros_sql
        SQL statements that create the table macros.
    descriptions
        What to write into the file beside the tables, by name of mart.
    """
    database.parent.mkdir(parents=True, exist_ok=True)
    fresh = database.with_name(f".{database.name}.new")
    for leftover in (fresh, _wal(fresh)):
        leftover.unlink(missing_ok=True)
    connection = duckdb.connect(str(fresh))
    try:
        connection.execute("set TimeZone = 'UTC'")
        connection.execute(f"attach {quoted(warehouse)} as warehouse (read_only)")
        rows = {mart: _copy(connection, mart) for mart in marts}
        connection.execute("detach warehouse")
        for mart, description in (descriptions or {}).items():
            _describe(connection, mart, description)
        connection.execute(macros_sql)
        parts = [_write_parquet(connection, mart, parquet_folder) for mart in marts]
        connection.execute("checkpoint")
    finally:
        connection.close()
    fsync_file(fresh)
    # A write-ahead log left beside the target by a reader that died would be replayed into the new file.
    _wal(database).unlink(missing_ok=True)
    fresh.replace(database)
    for temporary, final in parts:
        temporary.replace(final)
    fsync_folder(database.parent)
    fsync_folder(parquet_folder)
    return Gold(rows, database.stat().st_size)


def _wal(path: Path) -> Path:
    return path.with_name(path.name + ".wal")


def _copy(connection: Any, mart: str) -> int:
    connection.execute(f'create table "{mart}" as select * from warehouse.main."{mart}"')
    return int(connection.execute(f'select count(*) from "{mart}"').fetchone()[0])


def _describe(connection: Any, mart: str, description: Description) -> None:
    connection.execute(f'comment on table "{mart}" is {quoted(description.text)}')
    for column, text in description.columns.items():
        connection.execute(f'comment on column "{mart}"."{column}" is {quoted(text)}')


def _write_parquet(connection: Any, mart: str, folder: Path) -> tuple[Path, Path]:
    folder.mkdir(parents=True, exist_ok=True)
    temporary = folder / f".{mart}.parquet.tmp"
    connection.execute(f'copy "{mart}" to {quoted(temporary)} (format parquet, compression zstd)')
    fsync_file(temporary)
    return temporary, folder / f"{mart}.parquet"
