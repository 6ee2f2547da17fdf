"""The table of download attempts: one row per try of one window, never changed afterwards.

Only the table lives here. It is created, with the rule that nothing in it changes, by the migrations of
the state database; the engine (and on PostgreSQL the schema) is handed in by the caller.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import sqlalchemy as sa
from sqlalchemy.types import TypeDecorator

metadata = sa.MetaData()

ATTEMPT_STATUSES = ("PENDING", "DOWNLOADED", "SKIPPED_NO_DATA", "FAILED")


class UtcDateTime(TypeDecorator[datetime]):
    """An aware moment: ``timestamptz`` on PostgreSQL, ISO text of one width in UTC on SQLite."""

    impl = sa.DateTime(timezone=True)
    cache_ok = True

    def load_dialect_impl(self, dialect: sa.Dialect) -> sa.types.TypeEngine[Any]:
        """Text on SQLite, timestamptz elsewhere."""
        plain = sa.Text() if dialect.name == "sqlite" else sa.DateTime(timezone=True)
        return dialect.type_descriptor(plain)

    def process_bind_param(self, value: datetime | None, dialect: sa.Dialect) -> Any:
        """Refuse a naive time (ValueError), store UTC."""
        if value is None:
            return None
        if value.tzinfo is None:
            raise ValueError(f"The time {value} says no zone; give it in UTC.")
        moment = value.astimezone(UTC)
        return moment.isoformat(timespec="microseconds") if dialect.name == "sqlite" else moment

    def process_result_value(self, value: Any, _dialect: sa.Dialect) -> datetime | None:
        """Give back an aware UTC time."""
        if value is None:
            return None
        return (datetime.fromisoformat(value) if isinstance(value, str) else value).astimezone(UTC)


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
    sa.Column("query", sa.JSON(none_as_null=True)),
    sa.Column("window_start", UtcDateTime),
    sa.Column("window_end", UtcDateTime),
    sa.Column("status", sa.Text, nullable=False),
    sa.Column("records", sa.BigInteger),
    sa.Column("expected_records", sa.BigInteger),
    sa.Column("availability_pct", sa.Float(53)),
    sa.Column("seconds", sa.Float(53)),
    sa.Column("bytes", sa.BigInteger),
    sa.Column("artifact", sa.Text),
    sa.Column("error_type", sa.Text),
    sa.Column("error_message", sa.Text),
    sa.Column("started_at", UtcDateTime),
    sa.Column("finished_at", UtcDateTime),
    sa.Column("recorded_at", UtcDateTime, nullable=False),
    sa.CheckConstraint(
        "status IN ('PENDING', 'DOWNLOADED', 'SKIPPED_NO_DATA', 'FAILED')", name="ck_batch_attempts_status"
    ),
    sa.Index("ix_batch_attempts_job_id_unit_id", "job_id", "unit_id"),
    sqlite_autoincrement=True,
)
