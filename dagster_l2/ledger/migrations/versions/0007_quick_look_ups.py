"""Indexes for what is asked once for each window and each task, however long the log of attempts is."""

from __future__ import annotations

from alembic import context, op

revision = "0007"
down_revision = "0006"


def upgrade() -> None:
    schema = context.config.attributes["schema"]
    op.create_index(
        "ix_batch_attempts_unit_id_attempt_id", "batch_attempts", ["unit_id", "attempt_id"], schema=schema
    )
    op.drop_index("ix_batch_tasks_job_id_status", "batch_tasks", schema=schema)
    op.create_index(
        "ix_batch_tasks_job_id_status_seq", "batch_tasks", ["job_id", "status", "seq"], schema=schema
    )
