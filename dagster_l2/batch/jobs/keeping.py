"""The jobs that have ended, as JSON lines for a backup, and back into tables that are empty.

Running jobs are left out: what they had fetched lies in their scratch, which no backup holds, so a new job
asks for the same. Attempts are append-only and go with the ledger's own dump.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from datetime import datetime
from typing import Any

import sqlalchemy as sa

from dagster_l2.base.columns import UtcDateTime
from dagster_l2.batch.job_tables import batch_items, batch_jobs, batch_tasks
from dagster_l2.batch.jobs.model import Status

_TABLES = {table.name: table for table in (batch_jobs, batch_tasks, batch_items)}
_AT_ONCE = 1_000


def kept_jobs(engine: sa.Engine) -> Iterator[bytes]:
    """A line for each ended job, each task of one, and each item of one that failed or is gone for good."""
    ended = sa.select(batch_jobs.c.job_id).where(batch_jobs.c.status != Status.RUNNING)
    with engine.connect() as connection:
        for name, table in _TABLES.items():
            query = sa.select(table).where(table.c.job_id.in_(ended)).order_by(*table.primary_key)
            for row in connection.execute(query).mappings():
                values = {key: _plain(value) for key, value in row.items()}
                yield json.dumps({"table": name, "row": values}, sort_keys=True).encode() + b"\n"


def take_jobs(engine: sa.Engine, lines: Iterable[bytes]) -> int:
    """Take the lines of `kept_jobs` in, all or nothing; 0 when there are jobs already, which stay.

    Raises
    ------
    ValueError
        When a line is not one of `kept_jobs`.
    """
    with engine.begin() as connection:
        if connection.execute(sa.select(batch_jobs.c.job_id).limit(1)).first() is not None:
            return 0
        rows: dict[str, list[dict[str, Any]]] = {name: [] for name in _TABLES}
        for line in lines:
            said = json.loads(line)
            if not isinstance(said, dict) or said.get("table") not in _TABLES:
                raise ValueError("a line names no table of jobs")
            rows[said["table"]].append(_typed(_TABLES[said["table"]], said["row"]))
        for name, found in rows.items():
            for first in range(0, len(found), _AT_ONCE):
                connection.execute(sa.insert(_TABLES[name]), found[first : first + _AT_ONCE])
    return sum(map(len, rows.values()))


def _plain(value: Any) -> Any:
    return value.isoformat(timespec="microseconds") if isinstance(value, datetime) else value


def _typed(table: sa.Table, row: dict[str, Any]) -> dict[str, Any]:
    if row.keys() != {column.name for column in table.c}:
        raise ValueError(f"a row has not the columns of {table.name}")
    times = [column.name for column in table.c if isinstance(column.type, UtcDateTime)]
    return row | {name: datetime.fromisoformat(row[name]) for name in times if row[name] is not None}
