"""What the verdicts in the warehouse were made from: noted beside them by the build, read by who decides."""

from collections.abc import Mapping
from datetime import datetime
from pathlib import Path
from typing import Any

from dagster_duckdb import DuckDBResource

from dagster_l2.pipeline.deciding import Basis, files_fingerprint
from dagster_l2.resources import rows_of
from dagster_l2.rules import keep_book, read_book


def drop_basis(warehouse: DuckDBResource) -> None:
    """Forget it before a build begins: what that build leaves when it fails is of no single moment."""
    with warehouse.get_connection() as connection:
        connection.execute("drop table if exists verdict_basis")


def keep_basis(
    lake: Path,
    manifest: Mapping[str, Any],
    warehouse: DuckDBResource,
    known_at: datetime,
    files: Mapping[str, list[Path]],
) -> None:
    """Keep the rules that were applied, and note by which of them and of which files the verdicts are.

    Not for a build of some of the models: then no single moment and no single set of rules made them.
    """
    with warehouse.get_connection() as connection:
        book = read_book(manifest, connection)
        if book is None:
            return
        keep_book(lake, book)
        connection.execute(
            "create table verdict_basis as select ? as known_at, ? as files, ? as rule_version",
            [known_at.isoformat(), files_fingerprint(files, book.sources), book.rule_version],
        )


def read_basis(warehouse: DuckDBResource) -> Basis | None:
    """What the verdicts in the warehouse were made from; None where no whole build made them."""
    if not rows_of(warehouse, "select 1 from duckdb_tables() where table_name = 'verdict_basis'"):
        return None
    (row,) = rows_of(warehouse, "select * from verdict_basis")
    return Basis(datetime.fromisoformat(row["known_at"]), row["files"], row["rule_version"])
