"""The log of attempts at windows: append only, two rows an attempt (started, ended).

The newest row of a window counts. Which windows there are and what they hold is known elsewhere.
"""

from __future__ import annotations

import enum
import hashlib
import json
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

import polars as pl
from sqlalchemy import Engine, insert, select

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
        inputs = [self.source, dict(self.query), self.window.start.isoformat(), self.window.end.isoformat()]
        return hashlib.sha256(json.dumps(inputs, sort_keys=True).encode()).hexdigest()[:32]


class Attempts:
    """Append to the log of attempts in the state database."""

    def __init__(self, engine: Engine, *, run_id: str | None = None, query: Mapping[str, Any] | None = None):
        self._engine = engine
        self._run_id = run_id
        self._query = dict(query or {})

    def start(self, job_id: str, source: str, window: Window) -> Attempt:
        """Log that a window is being fetched."""
        attempt = Attempt(self._run_id, job_id, source, window, self._query, datetime.now(UTC))
        self._append(attempt, AttemptStatus.PENDING)
        return attempt

    def finish(
        self,
        attempt: Attempt,
        status: AttemptStatus,
        *,
        records: int | None = None,
        expected_records: int | None = None,
        bytes: int | None = None,
        artifact: str | None = None,
        error: Exception | None = None,
    ) -> None:
        """Log how an attempt ended."""
        share = None
        if records is not None and expected_records is not None:
            share = 100.0 * records / expected_records if expected_records else 100.0
        self._append(
            attempt,
            status,
            records=records,
            expected_records=expected_records,
            availability_pct=share,
            bytes=bytes,
            artifact=artifact,
            error_type=type(error).__name__ if error else None,
            error_message=str(error) if error else None,
            seconds=time.monotonic() - attempt.started_s,
            finished_at=datetime.now(UTC),
        )

    def _append(self, attempt: Attempt, status: AttemptStatus, **values: Any) -> None:
        row = {
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
        with self._engine.begin() as connection:
            connection.execute(insert(batch_attempts).values(row))


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


def read_attempts(engine: Engine, *, but: set[int]) -> pl.DataFrame:
    """The rows of the log whose ids are not in ``but``, as columns of `ATTEMPT_SCHEMA`."""
    with engine.connect() as connection:
        ids = connection.execute(select(batch_attempts.c.attempt_id)).scalars().all()
        wanted = sorted(set(ids) - but)
        rows: list[dict[str, Any]] = []
        for start in range(0, len(wanted), 500):
            chunk = wanted[start : start + 500]
            query = select(batch_attempts).where(batch_attempts.c.attempt_id.in_(chunk))
            rows += [dict(row) for row in connection.execute(query).mappings()]
    for row in rows:
        row["query"] = json.dumps(row["query"], sort_keys=True)
        for name, value in row.items():
            if isinstance(value, datetime):
                row[name] = value.astimezone(UTC).replace(tzinfo=None)
    return pl.DataFrame(rows, schema=ATTEMPT_SCHEMA)
