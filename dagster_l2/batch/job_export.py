"""Ended jobs into bronze: a row for each task with what it did, so that the warehouse can be asked about it.

A file for each job, replaced when the job was retried since. What tasks count is said in ``jobs.work``.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import polars as pl
import sqlalchemy as sa

from dagster_l2.batch.job_tables import batch_jobs, batch_tasks
from dagster_l2.lake import BronzeTable, read_manifest

_COUNTS: dict[str, pl.DataType] = {
    "windows": pl.Int64(),
    "items": pl.Int64(),
    "items_reused": pl.Int64(),
    "records": pl.Int64(),
    "rejected": pl.Int64(),
    "rows": pl.Int64(),
    "api_requests": pl.Int64(),
    "turned_down": pl.Int64(),
    "received_bytes": pl.Int64(),
    "token_wait_s": pl.Float64(),
    "seconds": pl.Float64(),
}

JOB_TASKS_SCHEMA: dict[str, pl.DataType] = {
    "job_id": pl.String(),
    "job_name": pl.String(),
    "job_status": pl.String(),
    "submitted_at": pl.Datetime("us"),
    "job_finished_at": pl.Datetime("us"),
    "task_id": pl.String(),
    "role": pl.String(),
    "task_group": pl.String(),
    "batch_id": pl.String(),
    "status": pl.String(),
    "failure_class": pl.String(),
    "error": pl.String(),
    "started_at": pl.Datetime("us"),
    "finished_at": pl.Datetime("us"),
    **_COUNTS,
    "retries": pl.String(),
    "over_time": pl.String(),
}


def job_tasks_table(lake: Path) -> BronzeTable:
    """Bronze's table of the tasks of ended jobs; ``retries`` and ``over_time`` are JSON by cause and time."""
    return BronzeTable(lake, "job_tasks", JOB_TASKS_SCHEMA)


def export_job_tasks(lake: Path, engine: sa.Engine) -> int:
    """Export the jobs that ended since they were exported last; how many that were."""
    table, columns = job_tasks_table(lake), batch_tasks.c
    table.ensure()
    with engine.connect() as connection:
        counts = sa.select(columns.job_id, sa.func.count()).group_by(columns.job_id)
        task_counts: dict[str, int] = dict(connection.execute(counts).tuples().all())
        ended = sa.select(batch_jobs).where(batch_jobs.c.finished_at.is_not(None))
        jobs = [
            job
            for job in connection.execute(ended.order_by(batch_jobs.c.job_id)).mappings()
            if not _is_exported(table, job["job_id"], task_counts[job["job_id"]])
        ]
        for job in jobs:
            query = sa.select(batch_tasks).where(columns.job_id == job["job_id"]).order_by(columns.seq)
            rows = [_row(dict(job), dict(task)) for task in connection.execute(query).mappings()]
            frame = pl.DataFrame(rows, schema=JOB_TASKS_SCHEMA, orient="row")
            table.append(frame, job_id=job["job_id"], part="tasks")
    return len(jobs)


def _is_exported(table: BronzeTable, job_id: str, tasks: int) -> bool:
    """Whether a file says how the job ended; one that was retried, or merged anew, has more tasks since."""
    manifest = read_manifest(table.folder / f"{job_id}-tasks.parquet")
    return manifest is not None and manifest.row_count == tasks


def _row(job: Mapping[str, Any], task: Mapping[str, Any]) -> dict[str, Any]:
    metrics = task["metrics"] if isinstance(task["metrics"], dict) else {}
    retries = {
        name.removeprefix("retries_"): int(number)
        for name, number in metrics.items()
        if name.startswith("retries_")
    }
    return {
        "job_id": job["job_id"],
        "job_name": job["name"],
        "job_status": job["status"],
        "submitted_at": _naive(job["submitted_at"]),
        "job_finished_at": _naive(job["finished_at"]),
        **{name: task[name] for name in ("task_id", "role", "batch_id", "status", "failure_class", "error")},
        "task_group": task["group"],
        "started_at": _naive(task["started_at"]),
        "finished_at": _naive(task["finished_at"]),
        **{name: metrics.get(name) for name in _COUNTS},
        "retries": json.dumps(retries, sort_keys=True) if retries else None,
        "over_time": json.dumps(over_time) if (over_time := metrics.get("over_time")) else None,
    }


def _naive(moment: datetime | None) -> datetime | None:
    return moment.astimezone(UTC).replace(tzinfo=None) if moment else None
