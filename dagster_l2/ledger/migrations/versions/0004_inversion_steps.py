"""The recorded steps of taking home and publishing an inversion, and the inbox of ready events."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import context, op

from dagster_l2.ledger import guards
from dagster_l2.ledger.migrations import kinds

revision = "0004"
down_revision = "0003"


def upgrade() -> None:
    schema = context.config.attributes["schema"]
    moment, number = kinds.moment(), kinds.number()
    op.create_table(
        "inversion_steps",
        sa.Column("record_id", number, sa.Identity(), nullable=False),
        sa.Column("op_id", sa.Text(), nullable=False),
        sa.Column("inversion_id", sa.Text(), nullable=False),
        sa.Column("subject", sa.Text(), nullable=False),
        sa.Column("step", sa.Text(), nullable=False),
        sa.Column("recorded_at", moment, nullable=False),
        sa.Column("actor", sa.Text(), nullable=False),
        sa.Column("run_id", sa.Text()),
        sa.Column("details", sa.JSON(), nullable=False),
        sa.PrimaryKeyConstraint("record_id", name="pk_inversion_steps"),
        sa.UniqueConstraint("subject", "step", name="uq_inversion_steps_subject_step"),
        schema=schema,
        sqlite_autoincrement=True,
    )
    op.create_index("ix_inversion_steps_inversion_id", "inversion_steps", ["inversion_id"], schema=schema)
    op.create_table(
        "inbox_receipts",
        sa.Column("receipt_id", number, sa.Identity(), nullable=False),
        sa.Column("delivery_id", sa.Text(), nullable=False),
        sa.Column("door", sa.Text(), nullable=False),
        sa.Column("source", sa.Text(), nullable=False),
        sa.Column("event_id", sa.Text()),
        sa.Column("op_id", sa.Text()),
        sa.Column("inversion_id", sa.Text()),
        sa.Column("outcome", sa.Text(), nullable=False),
        sa.Column("reason", sa.Text()),
        sa.Column("received_at", moment, nullable=False),
        sa.Column("actor", sa.Text()),
        sa.Column("details", sa.JSON(), nullable=False),
        sa.PrimaryKeyConstraint("receipt_id", name="pk_inbox_receipts"),
        sa.UniqueConstraint("delivery_id", name="uq_inbox_receipts_delivery_id"),
        sa.CheckConstraint(
            "outcome IN ('taken', 'duplicate', 'malformed', 'unknown_op', 'wrong_inversion',"
            " 'out_of_order', 'refused')",
            name="ck_inbox_receipts_outcome",
        ),
        schema=schema,
        sqlite_autoincrement=True,
    )
    op.create_index("ix_inbox_receipts_event_id", "inbox_receipts", ["event_id"], schema=schema)
    guards.install_more(op.get_bind(), schema, guards.OF_0004)
