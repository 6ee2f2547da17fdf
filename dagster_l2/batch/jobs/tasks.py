"""Jobs and tasks in the state database: made, claimed under a lease, kept alive, ended, moved on.

Every change is one short transaction that begins with its write, so that two processes never both succeed.
What a task does is in ``worker``, which phase follows in ``phases``.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import sqlalchemy as sa

from dagster_l2.base.files import step
from dagster_l2.batch.job_tables import batch_jobs, batch_tasks
from dagster_l2.batch.jobs.holders import is_surely_dead
from dagster_l2.batch.jobs.model import (
    JobError,
    LeftWindow,
    Phase,
    Role,
    Status,
    Task,
    window_from_json,
    window_to_json,
)

_JOB, _TASK = batch_jobs.c, batch_tasks.c


@dataclass(frozen=True, slots=True)
class JobState:
    """Where a job stands. ``moves`` counts its moves; a move is made from a state that was read."""

    job_id: str
    name: str
    status: Status
    phase: Phase
    moves: int
    retry_round: int
    retry_until: datetime | None
    submitted_at: datetime
    finished_at: datetime | None


class AlreadyJoined(JobError):
    """The same job is running already; ``job_id`` says which."""

    def __init__(self, job_id: str) -> None:
        super().__init__(f"The same job is running as {job_id}; join it or wait for it to end.")
        self.job_id = job_id


class TaskStore:
    """The jobs and tasks of one state database."""

    def __init__(self, engine: sa.Engine) -> None:
        self.engine = engine

    @contextmanager
    def _writing(self, what: str) -> Iterator[sa.Connection]:
        with self.engine.begin() as connection:
            yield connection
            step(f"database: {what}")

    # -- jobs ---------------------------------------------------------------------------------------------

    def start_job(self, job_id: str, name: str, identity: str, tasks: Sequence[Task]) -> None:
        """Make a running job with its tasks.

        Raises
        ------
        AlreadyJoined
            When a job of this identity is running.
        """
        try:
            with self._writing("job") as connection:
                now = _now(connection)
                values = {"job_id": job_id, "name": name, "identity": identity, "moves": 0, "retry_round": 0}
                values |= {"status": Status.RUNNING, "phase": Phase.INITIAL, "submitted_at": now}
                connection.execute(sa.insert(batch_jobs).values(values))
                _insert(connection, tasks, now)
        except sa.exc.IntegrityError:
            other = self.running(identity)
            if other is None:
                raise
            raise AlreadyJoined(other) from None

    def running(self, identity: str) -> str | None:
        """The running job of this identity."""
        query = sa.select(_JOB.job_id).where(_JOB.identity == identity, _JOB.status == Status.RUNNING)
        with self.engine.connect() as connection:
            return connection.execute(query).scalar_one_or_none()

    def job(self, job_id: str) -> JobState:
        """Where a job stands.

        Raises
        ------
        JobError
            When there is none of this id.
        """
        found = self.jobs(_JOB.job_id == job_id)
        if not found:
            raise JobError(f"There is no job {job_id}; look at the list of jobs.")
        return found[0]

    def jobs(self, *conditions: sa.ColumnElement[bool]) -> list[JobState]:
        """The jobs, newest first."""
        query = sa.select(batch_jobs).where(*conditions).order_by(_JOB.submitted_at.desc(), _JOB.job_id)
        with self.engine.connect() as connection:
            rows = connection.execute(query).mappings().all()
        names = JobState.__slots__
        return [
            JobState(
                **{
                    **{n: row[n] for n in names},
                    "status": Status(row["status"]),
                    "phase": Phase(row["phase"]),
                }
            )
            for row in rows
        ]

    def move(
        self,
        job: JobState,
        *,
        phase: Phase | None = None,
        status: Status | None = None,
        retry_round: int | None = None,
        retry_until: datetime | None = None,
        tasks: Sequence[Task] = (),
        reset: Iterable[str] = (),
    ) -> bool:
        """Move a job from the state that was read; False when another process has moved it meanwhile.

        ``tasks`` are made, and the tasks in ``reset`` are to be done again, in the same transaction.
        """
        with self._writing(f"move to {status or phase}") as connection:
            now = _now(connection)
            values: dict[str, Any] = {"moves": job.moves + 1}
            values |= {"phase": phase} if phase else {}
            values |= {"retry_round": retry_round} if retry_round is not None else {}
            values |= {"retry_until": retry_until} if retry_until else {}
            if status:
                values |= {"status": status, "finished_at": None if status is Status.RUNNING else now}
            same = (_JOB.job_id == job.job_id, _JOB.moves == job.moves, _JOB.status == job.status)
            moved = connection.execute(sa.update(batch_jobs).where(*same).values(values)).rowcount
            if moved != 1:
                return False
            _insert(connection, tasks, now)
            again = list(reset)
            if again:
                connection.execute(
                    sa.update(batch_tasks).where(_TASK.task_id.in_(again)).values(_IDLE | {"not_before": now})
                )
            return True

    # -- tasks --------------------------------------------------------------------------------------------

    def tasks(self, job_id: str) -> list[Task]:
        """The tasks of a job, in their order."""
        query = sa.select(batch_tasks).where(_TASK.job_id == job_id).order_by(_TASK.seq)
        with self.engine.connect() as connection:
            return [_task(dict(row)) for row in connection.execute(query).mappings()]

    def count(self, job_id: str) -> int:
        """How many tasks a job has."""
        query = sa.select(sa.func.count()).where(_TASK.job_id == job_id)
        with self.engine.connect() as connection:
            return int(connection.execute(query).scalar_one())

    def progress(self, job_id: str) -> tuple[int, int, int]:
        """Of the tasks that work on batches: how many have ended, how many there are, their records."""
        has_ended = _TASK.status.in_([Status.SUCCESS, Status.FAILED])
        query = sa.select(
            sa.func.coalesce(sa.func.sum(sa.case((has_ended, 1), else_=0)), 0),
            sa.func.count(),
            sa.func.coalesce(
                sa.func.sum(sa.case((has_ended, _TASK.metrics["records"].as_integer()), else_=0)), 0
            ),
        ).where(_TASK.job_id == job_id, _TASK.batch_id.is_not(None))
        with self.engine.connect() as connection:
            ended, tasks, records = connection.execute(query).one()
        return int(ended), int(tasks), int(records)

    def has_open(self, job_id: str) -> bool:
        """Whether a task of the job waits or runs; cheap, as every worker asks it after every batch."""
        is_open = _TASK.status.in_([Status.PENDING, Status.RUNNING])
        query = sa.select(_TASK.task_id).where(_TASK.job_id == job_id, is_open).limit(1)
        with self.engine.connect() as connection:
            return connection.execute(query).first() is not None

    def has_claimable(self, job_id: str) -> bool:
        """Whether a task waits that nobody holds and that may start now; as cheap."""
        with self.engine.connect() as connection:
            query = sa.select(_first_free(job_id, _now(connection)))
            return connection.execute(query).scalar_one() is not None

    def claimable(self, job_id: str) -> list[Task]:
        """The tasks that nobody holds and that may start now."""
        with self.engine.connect() as connection:
            now = _now(connection)
            query = (
                sa.select(batch_tasks).where(_TASK.job_id == job_id, sa.or_(*_free(now))).order_by(_TASK.seq)
            )
            return [_task(dict(row)) for row in connection.execute(query).mappings()]

    def claim(self, job_id: str, holder: str, *, lease_s: float, batch_id: str | None = None) -> Task | None:
        """Take the next free task, of a batch if one is named; None when there is none.

        A running task whose lease has ended is free again.
        """
        with self._writing("claim") as connection:
            now = _now(connection)
            first = _first_free(job_id, now, batch_id, is_locked=True)
            values = {
                "status": Status.RUNNING,
                "lease_holder": holder,
                "lease_until": now + timedelta(seconds=lease_s),
                "claims": _TASK.claims + 1,
                "started_at": now,
            }
            query = sa.update(batch_tasks).where(_TASK.task_id == first).values(values).returning(batch_tasks)
            row = connection.execute(query).mappings().one_or_none()
            return _task(dict(row)) if row else None

    def keep(self, task_id: str, holder: str, *, lease_s: float) -> bool:
        """Make the lease last on; False when it is another's by now."""
        with self.engine.begin() as connection:
            until = _now(connection) + timedelta(seconds=lease_s)
            query = sa.update(batch_tasks).where(*_held(task_id, holder)).values(lease_until=until)
            return connection.execute(query).rowcount == 1

    def release(self, task_id: str, holder: str, *, is_dead: bool = False) -> None:
        """Give a task back undone; it was claimed in vain only if its holder died."""
        values = _IDLE | ({} if is_dead else {"claims": _TASK.claims - 1})
        with self.engine.begin() as connection:
            connection.execute(sa.update(batch_tasks).where(*_held(task_id, holder)).values(values))

    def finish(
        self,
        task_id: str,
        holder: str,
        status: Status,
        *,
        has_output: bool = False,
        left: Sequence[LeftWindow] = (),
        failure_class: str | None = None,
        error: str | None = None,
        metrics: Mapping[str, Any] | None = None,
    ) -> bool:
        """End a task; False when its lease is another's by now, and then nothing is changed."""
        with self._writing(f"task {status}") as connection:
            values = {
                "status": status,
                "lease_holder": None,
                "lease_until": None,
                "has_output": has_output,
                "left_windows": [window.to_json() for window in left] or None,
                "failure_class": failure_class,
                "error": error,
                "metrics": dict(metrics or {}),
                "finished_at": _now(connection),
            }
            query = sa.update(batch_tasks).where(*_held(task_id, holder)).values(values)
            return connection.execute(query).rowcount == 1

    def free_the_dead(self, job_id: str) -> int:
        """Free the tasks whose holder ran on this machine and is no more; how many."""
        query = sa.select(_TASK.task_id, _TASK.lease_holder).where(
            _TASK.job_id == job_id, _TASK.status == Status.RUNNING
        )
        with self.engine.connect() as connection:
            held = connection.execute(query).all()
        dead = [(task_id, holder) for task_id, holder in held if is_surely_dead(str(holder))]
        for task_id, holder in dead:
            self.release(task_id, holder, is_dead=True)
        return len(dead)


_IDLE = {"status": Status.PENDING, "lease_holder": None, "lease_until": None}


def _free(now: datetime) -> tuple[sa.ColumnElement[bool], sa.ColumnElement[bool]]:
    """The two ways to be free: to wait, and to be held by one whose lease has ended."""
    waits = sa.and_(_TASK.status == Status.PENDING, _TASK.not_before <= now)
    return waits, sa.and_(_TASK.status == Status.RUNNING, _TASK.lease_until < now)


def _first_free(
    job_id: str, now: datetime, batch_id: str | None = None, *, is_locked: bool = False
) -> sa.ColumnElement[str]:
    """The id of the next free task; a question for each way, as no index answers both at once."""
    asked = [
        sa.select(_TASK.task_id).where(_TASK.job_id == job_id, is_free).order_by(_TASK.seq).limit(1)
        for is_free in _free(now)
    ]
    if batch_id is not None:
        asked = [query.where(_TASK.batch_id == batch_id) for query in asked]
    if is_locked:
        asked = [query.with_for_update(skip_locked=True) for query in asked]
    return sa.func.coalesce(*(query.scalar_subquery() for query in asked))


def _held(task_id: str, holder: str) -> tuple[sa.ColumnElement[bool], ...]:
    return (_TASK.task_id == task_id, _TASK.lease_holder == holder, _TASK.status == Status.RUNNING)


def _now(connection: sa.Connection) -> datetime:
    """The database's own clock, where workers on several machines would each have another one."""
    if connection.dialect.name == "postgresql":
        moment: datetime = connection.execute(sa.select(sa.func.clock_timestamp())).scalar_one()
        return moment.astimezone(UTC)
    return datetime.now(UTC)


def _insert(connection: sa.Connection, tasks: Sequence[Task], now: datetime) -> None:
    rows = [
        {
            "task_id": task.task_id,
            "job_id": task.job_id,
            "seq": task.seq,
            "role": task.role,
            "phase": task.phase,
            "group": task.group,
            "batch_id": task.batch_id,
            "previous_task_id": task.previous_task_id,
            "windows": [window_to_json(window) for window in task.windows] or None,
            "status": task.status,
            "retries": task.retries,
            "claims": 0,
            "not_before": now + timedelta(seconds=task.wait_s),
            "has_output": False,
        }
        for task in tasks
    ]
    if rows:
        connection.execute(sa.insert(batch_tasks), rows)


def _task(row: Mapping[str, Any]) -> Task:
    return Task(
        task_id=row["task_id"],
        job_id=row["job_id"],
        role=Role(row["role"]),
        phase=Phase(row["phase"]),
        group=row["group"],
        seq=row["seq"],
        batch_id=row["batch_id"],
        status=Status(row["status"]),
        retries=row["retries"],
        claims=row["claims"],
        previous_task_id=row["previous_task_id"],
        windows=tuple(window_from_json(content) for content in row["windows"] or ()),
        failure_class=row["failure_class"],
        has_output=bool(row["has_output"]),
        left=tuple(LeftWindow.from_json(content) for content in row["left_windows"] or ()),
        error=row["error"],
        metrics=row["metrics"] or {},
    )
