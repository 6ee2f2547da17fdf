"""The log of attempts at windows: append only, two rows an attempt (started, ended).

The newest row of a window counts. Which windows there are and what they hold is known elsewhere.
"""

from __future__ import annotations

import enum
import hashlib
import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

import polars as pl
from sqlalchemy import Engine, func, insert, select

from dagster_l2.base.files import step
from dagster_l2.batch.decide import LastAttempt
from dagster_l2.batch.readable import READABLE, readable
from dagster_l2.batch.tables import batch_attempts
from dagster_l2.batch.windows import Window


class AttemptStatus(enum.StrEnum):
    """What became of a window."""

    PENDING = "PENDING"
    DOWNLOADED = "DOWNLOADED"
    SKIPPED_NO_DATA = "SKIPPED_NO_DATA"
    FAILED = "FAILED"


@dataclass(frozen=True, slots=True)
class Attempt:
    """One attempt that was started."""

    run_id: str | None
    job_id: str
    source: str
    window: Window
    query: Mapping[str, Any]
    started_at: datetime
    started_s: float = field(default_factory=time.monotonic)

    @property
    def unit_id(self) -> str:
        """Identity of the unit of work: a hash of all that goes into it, never its date alone."""
        return unit_id(self.source, self.query, self.window)


def unit_id(source: str, query: Mapping[str, Any], window: Window) -> str:
    """The hash of a unit of work over all its inputs.

    ``query`` holds whatever decides what comes out beside the window: what is asked for, format, schema
    version, and the sweep where the records of a window can still become others.
    """
    inputs = [source, dict(query), window.start.isoformat(), window.end.isoformat()]
    return hashlib.sha256(json.dumps(inputs, sort_keys=True).encode()).hexdigest()[:32]


class Attempts:
    """Append to the log of attempts in the state database."""

    def __init__(self, engine: Engine, *, run_id: str | None = None, query: Mapping[str, Any] | None = None):
        self._engine = engine
        self._run_id = run_id
        self._query = dict(query or {})

    def start(self, job_id: str, source: str, windows: Sequence[Window]) -> list[Attempt]:
        """Log that windows are being fetched, in one transaction."""
        now = datetime.now(UTC)
        attempts = [Attempt(self._run_id, job_id, source, window, self._query, now) for window in windows]
        self._append([_row(attempt, AttemptStatus.PENDING) for attempt in attempts])
        return attempts

    def finish(self, ended: Sequence[Ended]) -> None:
        """Log how attempts ended, in one transaction."""
        self._append([one.row() for one in ended])

    def _append(self, rows: Sequence[Mapping[str, Any]]) -> None:
        if not rows:
            return
        with self._engine.begin() as connection:
            connection.execute(insert(batch_attempts), list(rows))
            step(f"database: attempt {' and '.join(sorted({row['status'] for row in rows}))}")


@dataclass(frozen=True, slots=True)
class Ended:
    """How one attempt ended."""

    attempt: Attempt
    status: AttemptStatus
    records: int | None = None
    expected_records: int | None = None
    bytes: int | None = None
    artifact: str | None = None
    error: Exception | None = None

    def row(self) -> dict[str, Any]:
        """As it lies in the log."""
        share = None
        if self.records is not None and self.expected_records is not None:
            share = 100.0 * self.records / self.expected_records if self.expected_records else 100.0
        return _row(
            self.attempt,
            self.status,
            records=self.records,
            expected_records=self.expected_records,
            availability_pct=share,
            bytes=self.bytes,
            artifact=self.artifact,
            error_type=type(self.error).__name__ if self.error else None,
            error_message=str(self.error) if self.error else None,
            seconds=time.monotonic() - self.attempt.started_s,
            finished_at=datetime.now(UTC),
        )


def _row(attempt: Attempt, status: AttemptStatus, **values: Any) -> dict[str, Any]:
    return {
        "run_id": attempt.run_id,
        "job_id": attempt.job_id,
        "unit_id": attempt.unit_id,
        "source": attempt.source,
        "query": dict(attempt.query),
        "window_start": attempt.window.start,
        "window_end": attempt.window.end,
        "status": status.value,
        "started_at": attempt.started_at,
        "recorded_at": datetime.now(UTC),
        **values,
    }


ATTEMPT_SCHEMA: dict[str, pl.DataType] = {
    "attempt_id": pl.Int64(),
    "run_id": pl.String(),
    "job_id": pl.String(),
    "unit_id": pl.String(),
    "source": pl.String(),
    "query": pl.String(),
    "window_start": pl.Datetime("us"),
    "window_end": pl.Datetime("us"),
    "status": pl.String(),
    "records": pl.Int64(),
    "expected_records": pl.Int64(),
    "availability_pct": pl.Float64(),
    "seconds": pl.Float64(),
    "bytes": pl.Int64(),
    "artifact": pl.String(),
    "error_type": pl.String(),
    "error_message": pl.String(),
    "started_at": pl.Datetime("us"),
    "finished_at": pl.Datetime("us"),
    "recorded_at": pl.Datetime("us"),
}


def latest_attempts(
    engine: Engine, unit_ids: Sequence[str], *, jobs: Sequence[str] | None = None
) -> dict[str, LastAttempt]:
    """The newest row of each unit that has one; what can't be read in a row is left out of it.

    Parameters
    ----------
    jobs
        Look at the rows of these jobs alone.
    """
    columns = batch_attempts.c
    out: dict[str, LastAttempt] = {}
    with engine.connect() as connection:
        for start in range(0, len(unit_ids), 500):
            newest = (
                select(func.max(columns.attempt_id))
                .where(columns.unit_id.in_(unit_ids[start : start + 500]))
                .group_by(columns.unit_id)
            )
            if jobs is not None:
                newest = newest.where(columns.job_id.in_(jobs))
            query = select(
                columns.unit_id,
                columns.status,
                columns.job_id,
                columns.artifact,
                readable(columns.availability_pct),
                readable(columns.started_at),
            ).where(columns.attempt_id.in_(newest))
            for row in connection.execute(query).mappings():
                out[row["unit_id"]] = LastAttempt(
                    status=str(row["status"]),
                    job_id=row["job_id"],
                    artifact=row["artifact"],
                    availability_pct=row["availability_pct"],
                    started_at=row["started_at"],
                )
    return out


def jobs_without_result(engine: Engine, unit_id: str) -> set[str]:
    """The jobs that tried a unit and did not bring it home."""
    columns = batch_attempts.c
    query = select(columns.job_id, columns.status).where(columns.unit_id == unit_id)
    with engine.connect() as connection:
        rows = connection.execute(query).all()
    ended = {job_id for job_id, status in rows if status in ("DOWNLOADED", "SKIPPED_NO_DATA")}
    return {job_id for job_id, _status in rows} - ended


def read_attempts(engine: Engine, *, but: set[int]) -> pl.DataFrame:
    """The rows of the log whose ids are not in ``but``, as columns of `ATTEMPT_SCHEMA`."""
    with engine.connect() as connection:
        ids = connection.execute(select(batch_attempts.c.attempt_id)).scalars().all()
        wanted = sorted(set(ids) - but)
        rows: list[dict[str, Any]] = []
        for start in range(0, len(wanted), 500):
            chunk = wanted[start : start + 500]
            query = select(*READABLE).where(batch_attempts.c.attempt_id.in_(chunk))
            rows += [dict(row) for row in connection.execute(query).mappings()]
    for row in rows:
        row["query"] = json.dumps(row["query"], sort_keys=True)
        for name, value in row.items():
            if isinstance(value, datetime):
                row[name] = value.astimezone(UTC).replace(tzinfo=None)
    return pl.DataFrame(rows, schema=ATTEMPT_SCHEMA)
