"""The table of download attempts: one row per try of one window, never changed afterwards.

Only the table lives here. It is created, with the rule that nothing in it changes, by the migrations of
the state database; the engine (and on PostgreSQL the schema) is handed in by the caller.
"""

from __future__ import annotations

import sqlalchemy as sa

from dagster_l2.base.columns import UtcDateTime

metadata = sa.MetaData()

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
    # The log only grows, and each window of each run asks for its own rows.
    sa.Index("ix_batch_attempts_unit_id_attempt_id", "unit_id", "attempt_id"),
    sqlite_autoincrement=True,
)
