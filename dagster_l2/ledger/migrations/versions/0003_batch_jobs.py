"""Jobs with their tasks and items, and the rates that processes share. None of it is history: rows change."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import context, op

from dagster_l2.ledger.migrations import kinds
from dagster_l2.ledger.migrations.kinds import Kind

revision = "0003"
down_revision = "0002"


def upgrade() -> None:
    schema = context.config.attributes["schema"]
    moment = kinds.moment()
    _jobs(schema, moment)
    _tasks(schema, moment)
    _items(schema, moment)
    _rates(schema, moment)


def _jobs(schema: str | None, moment: Kind) -> None:
    op.create_table(
        "batch_jobs",
        sa.Column("job_id", sa.Text(), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("identity", sa.Text(), nullable=False),
        sa.Column("status", sa.Text(), nullable=False),
        sa.Column("phase", sa.Text(), nullable=False),
        sa.Column("moves", sa.Integer(), nullable=False),
        sa.Column("retry_round", sa.Integer(), nullable=False),
        sa.Column("retry_until", moment),
        sa.Column("submitted_at", moment, nullable=False),
        sa.Column("finished_at", moment),
        sa.PrimaryKeyConstraint("job_id", name="pk_batch_jobs"),
        sa.CheckConstraint("status IN ('RUNNING', 'SUCCESS', 'FAILED')", name="ck_batch_jobs_status"),
        sa.CheckConstraint("phase IN ('initial', 'retry', 'aggregation')", name="ck_batch_jobs_phase"),
        schema=schema,
    )
    op.create_index(
        "uq_batch_jobs_running_identity",
        "batch_jobs",
        ["identity"],
        unique=True,
        schema=schema,
        sqlite_where=sa.text("status = 'RUNNING'"),
        postgresql_where=sa.text("status = 'RUNNING'"),
    )


def _tasks(schema: str | None, moment: Kind) -> None:
    op.create_table(
        "batch_tasks",
        sa.Column("task_id", sa.Text(), nullable=False),
        sa.Column("job_id", sa.Text(), nullable=False),
        sa.Column("seq", sa.Integer(), nullable=False),
        sa.Column("role", sa.Text(), nullable=False),
        sa.Column("phase", sa.Text(), nullable=False),
        sa.Column("group", sa.Text(), nullable=False),
        sa.Column("batch_id", sa.Text()),
        sa.Column("previous_task_id", sa.Text()),
        sa.Column("windows", sa.JSON()),
        sa.Column("status", sa.Text(), nullable=False),
        sa.Column("retries", sa.Integer(), nullable=False),
        sa.Column("claims", sa.Integer(), nullable=False),
        sa.Column("not_before", moment, nullable=False),
        sa.Column("lease_holder", sa.Text()),
        sa.Column("lease_until", moment),
        sa.Column("has_output", sa.Boolean(create_constraint=False), nullable=False),
        sa.Column("failure_class", sa.Text()),
        sa.Column("error", sa.Text()),
        sa.Column("left_windows", sa.JSON()),
        sa.Column("metrics", sa.JSON()),
        sa.Column("started_at", moment),
        sa.Column("finished_at", moment),
        sa.PrimaryKeyConstraint("task_id", name="pk_batch_tasks"),
        sa.ForeignKeyConstraint(
            ["job_id"],
            [f"{schema}.batch_jobs.job_id" if schema else "batch_jobs.job_id"],
            name="fk_batch_tasks_job_id",
        ),
        sa.CheckConstraint(
            "status IN ('PENDING', 'RUNNING', 'SUCCESS', 'FAILED')", name="ck_batch_tasks_status"
        ),
        sa.CheckConstraint(
            "(status = 'RUNNING') = (lease_holder IS NOT NULL AND lease_until IS NOT NULL)",
            name="ck_batch_tasks_lease",
        ),
        sa.UniqueConstraint("job_id", "seq", name="uq_batch_tasks_job_id_seq"),
        schema=schema,
    )
    op.create_index("ix_batch_tasks_job_id_status", "batch_tasks", ["job_id", "status"], schema=schema)


def _items(schema: str | None, moment: Kind) -> None:
    op.create_table(
        "batch_items",
        sa.Column("unit_id", sa.Text(), nullable=False),
        sa.Column("item_id", sa.Text(), nullable=False),
        sa.Column("job_id", sa.Text(), nullable=False),
        sa.Column("task_id", sa.Text(), nullable=False),
        sa.Column("source", sa.Text(), nullable=False),
        sa.Column("failure_class", sa.Text(), nullable=False),
        sa.Column("status", sa.Text(), nullable=False),
        sa.Column("attempts", sa.Integer(), nullable=False),
        sa.Column("error_type", sa.Text()),
        sa.Column("error_message", sa.Text()),
        sa.Column("first_at", moment, nullable=False),
        sa.Column("last_at", moment, nullable=False),
        sa.PrimaryKeyConstraint("unit_id", "item_id", name="pk_batch_items"),
        sa.CheckConstraint("failure_class IN ('gone', 'passing', 'permanent')", name="ck_batch_items_class"),
        sa.CheckConstraint("status IN ('FAILED', 'REOPENED', 'GONE', 'DONE')", name="ck_batch_items_status"),
        schema=schema,
    )
    op.create_index("ix_batch_items_job_id", "batch_items", ["job_id"], schema=schema)


def _rates(schema: str | None, moment: Kind) -> None:
    op.create_table(
        "rate_limits",
        sa.Column("key", sa.Text(), nullable=False),
        sa.Column("state", sa.JSON()),
        sa.Column("requests_per_second", sa.Float(53)),
        sa.Column("quota_requests", sa.BigInteger()),
        sa.Column("quota_seconds", sa.Float(53)),
        sa.Column("congestion_events", sa.BigInteger()),
        sa.Column("pause_until", moment),
        sa.Column("version", sa.BigInteger(), nullable=False),
        sa.Column("updated_at", moment),
        sa.PrimaryKeyConstraint("key", name="pk_rate_limits"),
        schema=schema,
    )
    op.create_table(
        "rate_leases",
        sa.Column("lease_id", sa.Text(), nullable=False),
        sa.Column("key", sa.Text(), nullable=False),
        sa.Column("holder", sa.Text(), nullable=False),
        sa.Column("tokens", sa.Integer(), nullable=False),
        sa.Column("granted_at", moment, nullable=False),
        sa.Column("expires_at", moment, nullable=False),
        sa.PrimaryKeyConstraint("lease_id", name="pk_rate_leases"),
        schema=schema,
    )
    op.create_index("ix_rate_leases_key_expires_at", "rate_leases", ["key", "expires_at"], schema=schema)
