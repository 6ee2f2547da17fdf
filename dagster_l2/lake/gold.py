"""Gold: what analysts open. One DuckDB file and a parquet file per mart, each replaced by one rename.

It copies what a passed build has left in the warehouse; it decides and renames nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import duckdb

from dagster_l2.files import fsync_file, fsync_folder
from dagster_l2.lake.views import quoted


@dataclass(frozen=True, slots=True)
class Gold:
    """What was written: rows per mart, and the size of the file in bytes."""

    rows: dict[str, int]
    bytes: int


def write_gold(
    warehouse: Path, database: Path, parquet_folder: Path, marts: Sequence[str], macros_sql: str
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
    comments = connection.execute(
        "select column_name, comment from duckdb_columns() where database_name = 'warehouse'"
        " and schema_name = 'main' and table_name = ? and comment is not null",
        [mart],
    ).fetchall()
    for column, comment in comments:
        connection.execute(f'comment on column "{mart}"."{column}" is {quoted(comment)}')
    table = connection.execute(
        "select comment from duckdb_tables() where database_name = 'warehouse'"
        " and schema_name = 'main' and table_name = ? and comment is not null",
        [mart],
    ).fetchone()
    if table:
        connection.execute(f'comment on table "{mart}" is {quoted(table[0])}')
    return int(connection.execute(f'select count(*) from "{mart}"').fetchone()[0])


def _write_parquet(connection: Any, mart: str, folder: Path) -> tuple[Path, Path]:
    folder.mkdir(parents=True, exist_ok=True)
    temporary = folder / f".{mart}.parquet.tmp"
    connection.execute(f'copy "{mart}" to {quoted(temporary)} (format parquet, compression zstd)')
    fsync_file(temporary)
    return temporary, folder / f"{mart}.parquet"
