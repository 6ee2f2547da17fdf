"""The tables of jobs: jobs, their tasks with leases, and the items that failed or are gone for good.

Only the tables live here. They are created by the migrations of the state database; the engine (and on
PostgreSQL the schema) is handed in by the caller.
"""

from __future__ import annotations

import sqlalchemy as sa

from dagster_l2.base.columns import UtcDateTime

metadata = sa.MetaData()

_IS_RUNNING = sa.text("status = 'RUNNING'")

batch_jobs = sa.Table(
    "batch_jobs",
    metadata,
    sa.Column("job_id", sa.Text, primary_key=True),
    sa.Column("name", sa.Text, nullable=False),
    # Hash of all that a job is to do: whoever starts the same while it runs joins it.
    sa.Column("identity", sa.Text, nullable=False),
    sa.Column("status", sa.Text, nullable=False),
    sa.Column("phase", sa.Text, nullable=False),
    # Counts the moves of the job, so that of two who want to move it from one state only one does.
    sa.Column("moves", sa.Integer, nullable=False),
    sa.Column("retry_round", sa.Integer, nullable=False),
    sa.Column("retry_until", UtcDateTime),
    sa.Column("submitted_at", UtcDateTime, nullable=False),
    sa.Column("finished_at", UtcDateTime),
    sa.CheckConstraint("status IN ('RUNNING', 'SUCCESS', 'FAILED')", name="ck_batch_jobs_status"),
    sa.CheckConstraint("phase IN ('initial', 'retry', 'aggregation')", name="ck_batch_jobs_phase"),
    sa.Index(
        "uq_batch_jobs_running_identity",
        "identity",
        unique=True,
        sqlite_where=_IS_RUNNING,
        postgresql_where=_IS_RUNNING,
    ),
)

batch_tasks = sa.Table(
    "batch_tasks",
    metadata,
    sa.Column("task_id", sa.Text, primary_key=True),
    sa.Column("job_id", sa.Text, sa.ForeignKey("batch_jobs.job_id"), nullable=False),
    sa.Column("seq", sa.Integer, nullable=False),
    sa.Column("role", sa.Text, nullable=False),
    sa.Column("phase", sa.Text, nullable=False),
    sa.Column("group", sa.Text, nullable=False),
    sa.Column("batch_id", sa.Text),
    sa.Column("previous_task_id", sa.Text),
    # Of a retry: the windows that it takes up from the task before it.
    sa.Column("windows", sa.JSON(none_as_null=True)),
    sa.Column("status", sa.Text, nullable=False),
    sa.Column("retries", sa.Integer, nullable=False),
    sa.Column("claims", sa.Integer, nullable=False),
    sa.Column("not_before", UtcDateTime, nullable=False),
    sa.Column("lease_holder", sa.Text),
    sa.Column("lease_until", UtcDateTime),
    sa.Column("has_output", sa.Boolean(create_constraint=False), nullable=False),
    sa.Column("failure_class", sa.Text),
    sa.Column("error", sa.Text),
    # The windows that a failed task did not bring home, each with its failure class.
    sa.Column("left_windows", sa.JSON(none_as_null=True)),
    sa.Column("metrics", sa.JSON(none_as_null=True)),
    sa.Column("started_at", UtcDateTime),
    sa.Column("finished_at", UtcDateTime),
    sa.CheckConstraint("status IN ('PENDING', 'RUNNING', 'SUCCESS', 'FAILED')", name="ck_batch_tasks_status"),
    # A running task without a lease would stay claimed for ever.
    sa.CheckConstraint(
        "(status = 'RUNNING') = (lease_holder IS NOT NULL AND lease_until IS NOT NULL)",
        name="ck_batch_tasks_lease",
    ),
    sa.UniqueConstraint("job_id", "seq", name="uq_batch_tasks_job_id_seq"),
    # With the order in which tasks are claimed: a claim must not walk over all that have ended.
    sa.Index("ix_batch_tasks_job_id_status_seq", "job_id", "status", "seq"),
)

batch_items = sa.Table(
    "batch_items",
    metadata,
    sa.Column("unit_id", sa.Text, primary_key=True),
    sa.Column("item_id", sa.Text, primary_key=True),
    sa.Column("job_id", sa.Text, nullable=False),
    sa.Column("task_id", sa.Text, nullable=False),
    sa.Column("source", sa.Text, nullable=False),
    sa.Column("failure_class", sa.Text, nullable=False),
    sa.Column("status", sa.Text, nullable=False),
    sa.Column("attempts", sa.Integer, nullable=False),
    sa.Column("error_type", sa.Text),
    sa.Column("error_message", sa.Text),
    sa.Column("first_at", UtcDateTime, nullable=False),
    sa.Column("last_at", UtcDateTime, nullable=False),
    sa.CheckConstraint("failure_class IN ('gone', 'passing', 'permanent')", name="ck_batch_items_class"),
    sa.CheckConstraint("status IN ('FAILED', 'REOPENED', 'GONE', 'DONE')", name="ck_batch_items_status"),
    sa.Index("ix_batch_items_job_id", "job_id"),
)
