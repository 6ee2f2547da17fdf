"""The table of download attempts: one row per try of one window, never changed afterwards.

Only the table lives here. It is created, with the rule that nothing in it changes, by the migrations of
the state database; the engine (and on PostgreSQL the schema) is handed in by the caller.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import sqlalchemy as sa
from sqlalchemy.types import TypeDecorator

from dagster_l2.columns import UtcDateTime

metadata = sa.MetaData()


class _Lenient(TypeDecorator[Any]):
    """What can't be read is None: a torn row of the log must not stop every run that comes across it."""

    __abstract__ = True
    cache_ok = True

    def result_processor(self, dialect: sa.Dialect, coltype: Any) -> Callable[[Any], Any]:
        """See `sqlalchemy.types.TypeDecorator`."""
        process = super().result_processor(dialect, coltype)

        def read(value: Any) -> Any:
            try:
                return process(value) if process else value
            except (TypeError, ValueError):
                return None

        return read


class _Moment(_Lenient, UtcDateTime):
    cache_ok = True


class _Query(_Lenient):
    impl = sa.JSON(none_as_null=True)
    cache_ok = True


class _Count(_Lenient):
    impl = sa.BigInteger
    cache_ok = True

    def process_result_value(self, value: Any, _dialect: sa.Dialect) -> int | None:
        return None if value is None else int(value)


class _Real(_Lenient):
    impl = sa.Float(53)
    cache_ok = True

    def process_result_value(self, value: Any, _dialect: sa.Dialect) -> float | None:
        return None if value is None else float(value)


ATTEMPT_STATUSES = ("PENDING", "DOWNLOADED", "SKIPPED_NO_DATA", "FAILED")


batch_attempts = sa.Table(
    "batch_attempts",
    metadata,
    sa.Column(
        "attempt_id",
        sa.BigInteger().with_variant(sa.Integer(), "sqlite"),
        sa.Identity(),
        primary_key=True,
    ),
    sa.Column("run_id", sa.Text),
    sa.Column("job_id", sa.Text, nullable=False),
    sa.Column("unit_id", sa.Text, nullable=False),
    sa.Column("source", sa.Text, nullable=False),
    sa.Column("query", _Query()),
    sa.Column("window_start", _Moment()),
    sa.Column("window_end", _Moment()),
    sa.Column("status", sa.Text, nullable=False),
    sa.Column("records", _Count()),
    sa.Column("expected_records", _Count()),
    sa.Column("availability_pct", _Real()),
    sa.Column("seconds", _Real()),
    sa.Column("bytes", _Count()),
    sa.Column("artifact", sa.Text),
    sa.Column("error_type", sa.Text),
    sa.Column("error_message", sa.Text),
    sa.Column("started_at", _Moment()),
    sa.Column("finished_at", _Moment()),
    sa.Column("recorded_at", _Moment(), nullable=False),
    sa.CheckConstraint(
        "status IN ('PENDING', 'DOWNLOADED', 'SKIPPED_NO_DATA', 'FAILED')", name="ck_batch_attempts_status"
    ),
    sa.Index("ix_batch_attempts_job_id_unit_id", "job_id", "unit_id"),
    # The log only grows, and each window of each run asks for its own rows.
    sa.Index("ix_batch_attempts_unit_id_attempt_id", "unit_id", "attempt_id"),
    sqlite_autoincrement=True,
)
