"""Jobs in short, for a list of them: status, counts of tasks, rows. Only reading; one question for all."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

import sqlalchemy as sa

from dagster_l2.batch.job_tables import batch_jobs, batch_tasks
from dagster_l2.batch.jobs.model import Role, Status

_ENDED = (Status.SUCCESS, Status.FAILED)


@dataclass(frozen=True, slots=True)
class JobInShort:
    """One job. ``rows`` are those that its tasks brought home, before those that two of them have are one."""

    job_id: str
    name: str
    status: str
    phase: str
    tasks_done: int
    tasks: int
    tasks_failed: int
    rows: int
    submitted_at: datetime
    finished_at: datetime | None


def jobs_in_short(engine: sa.Engine, *, limit: int | None = None) -> Sequence[JobInShort]:
    """The jobs, newest first, with the counts of the tasks that work on batches."""
    job, task = batch_jobs.c, batch_tasks.c
    is_worker = task.role.in_((Role.WORKER, Role.RETRY))

    def count(*wanted: sa.ColumnElement[bool]) -> sa.ColumnElement[int]:
        return sa.func.coalesce(sa.func.sum(sa.case((sa.and_(is_worker, *wanted), 1), else_=0)), 0)

    rows = sa.case((is_worker, task.metrics["rows"].as_integer()), else_=0)
    names = ("job_id", "name", "status", "phase", "submitted_at", "finished_at")
    newest = sa.select(batch_jobs).order_by(job.submitted_at.desc(), job.job_id).limit(limit).subquery()
    query = (
        sa.select(
            *(newest.c[name] for name in names),
            count(task.status.in_(_ENDED)).label("tasks_done"),
            count().label("tasks"),
            count(task.status == Status.FAILED).label("tasks_failed"),
            sa.func.coalesce(sa.func.sum(rows), 0).label("rows"),
        )
        .select_from(newest.outerjoin(batch_tasks, task.job_id == newest.c.job_id))
        .group_by(*newest.c)
        .order_by(newest.c.submitted_at.desc(), newest.c.job_id)
    )
    with engine.connect() as connection:
        return [JobInShort(**row) for row in connection.execute(query).mappings()]
