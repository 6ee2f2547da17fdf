"""The ledger: transitions, edges, science events, annotations, batch attempts, and their guards."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import context, op

from dagster_l2.ledger.migrations import guards_0001, kinds
from dagster_l2.ledger.migrations.kinds import Kind

revision = "0001"
down_revision = None


def upgrade() -> None:
    schema = context.config.attributes["schema"]
    moment, number = kinds.moment(), kinds.number()
    _transitions(schema, moment, number)
    _events(schema, moment)
    _annotations(schema, moment, number)
    _batch_attempts(schema, moment, number)
    guards_0001.install(op.get_bind(), schema)


def _transitions(schema: str | None, moment: Kind, number: Kind) -> None:
    op.create_table(
        "op_transitions",
        sa.Column("transition_id", number, sa.Identity()),
        sa.Column("op_id", sa.Text(), nullable=False),
        sa.Column("seq", sa.Integer(), nullable=False),
        sa.Column("from_state", sa.Text()),
        sa.Column("to_state", sa.Text(), nullable=False),
        sa.Column("occurred_at", moment, nullable=False),
        sa.Column("recorded_at", moment, nullable=False),
        sa.Column("actor", sa.Text(), nullable=False),
        sa.Column("cause", sa.Text(), nullable=False),
        sa.Column("inputs_hash", sa.Text()),
        sa.Column("rule_version", sa.Text()),
        sa.Column("inversion_id", sa.Text()),
        sa.Column("run_id", sa.Text()),
        sa.Column("details", sa.JSON(), nullable=False),
        sa.PrimaryKeyConstraint("transition_id", name="pk_op_transitions"),
        sa.UniqueConstraint("op_id", "seq", name="uq_op_transitions_op_id_seq"),
        schema=schema,
        sqlite_autoincrement=True,
    )
    op.create_table(
        "op_edges",
        sa.Column("from_state", sa.Text(), nullable=False),
        sa.Column("to_state", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("from_state", "to_state", name="pk_op_edges"),
        schema=schema,
    )


def _events(schema: str | None, moment: Kind) -> None:
    op.create_table(
        "science_events",
        sa.Column("event_id", sa.Text(), nullable=False),
        sa.Column("op_id", sa.Text(), nullable=False),
        sa.Column("inversion_id", sa.Text(), nullable=False),
        sa.Column("products", sa.Text(), nullable=False),
        sa.Column("commit_hash", sa.Text(), nullable=False),
        sa.Column("dataset_ids", sa.JSON(), nullable=False),
        sa.Column("actor", sa.Text(), nullable=False),
        sa.Column("received_at", moment, nullable=False),
        sa.Column("details", sa.JSON(), nullable=False),
        sa.PrimaryKeyConstraint("event_id", name="pk_science_events"),
        schema=schema,
    )
    op.create_index("ix_science_events_op_id", "science_events", ["op_id"], schema=schema)
    op.create_table(
        "science_event_outcomes",
        sa.Column("event_id", sa.Text(), nullable=False),
        sa.Column("outcome", sa.Text(), nullable=False),
        sa.Column("reason", sa.Text()),
        sa.Column("recorded_at", moment, nullable=False),
        sa.Column("actor", sa.Text(), nullable=False),
        sa.Column("run_id", sa.Text()),
        sa.Column("details", sa.JSON(), nullable=False),
        sa.PrimaryKeyConstraint("event_id", name="pk_science_event_outcomes"),
        sa.ForeignKeyConstraint(
            ["event_id"],
            [f"{schema}.science_events.event_id" if schema else "science_events.event_id"],
            name="fk_science_event_outcomes_event_id",
        ),
        sa.CheckConstraint("outcome IN ('accepted', 'refused')", name="ck_science_event_outcomes_outcome"),
        schema=schema,
    )


def _annotations(schema: str | None, moment: Kind, number: Kind) -> None:
    op.create_table(
        "op_annotations",
        sa.Column("annotation_id", number, sa.Identity()),
        sa.Column("op_id", sa.Text(), nullable=False),
        sa.Column("kind", sa.Text(), nullable=False),
        sa.Column("actor", sa.Text(), nullable=False),
        sa.Column("recorded_at", moment, nullable=False),
        sa.Column("details", sa.JSON(), nullable=False),
        sa.PrimaryKeyConstraint("annotation_id", name="pk_op_annotations"),
        schema=schema,
        sqlite_autoincrement=True,
    )
    op.create_index("ix_op_annotations_kind_op_id", "op_annotations", ["kind", "op_id"], schema=schema)


def _batch_attempts(schema: str | None, moment: Kind, number: Kind) -> None:
    op.create_table(
        "batch_attempts",
        sa.Column("attempt_id", number, sa.Identity()),
        sa.Column("run_id", sa.Text()),
        sa.Column("job_id", sa.Text(), nullable=False),
        sa.Column("unit_id", sa.Text(), nullable=False),
        sa.Column("source", sa.Text(), nullable=False),
        sa.Column("query", sa.JSON()),
        sa.Column("window_start", moment),
        sa.Column("window_end", moment),
        sa.Column("status", sa.Text(), nullable=False),
        sa.Column("records", sa.BigInteger()),
        sa.Column("expected_records", sa.BigInteger()),
        sa.Column("availability_pct", sa.Float(53)),
        sa.Column("seconds", sa.Float(53)),
        sa.Column("bytes", sa.BigInteger()),
        sa.Column("artifact", sa.Text()),
        sa.Column("error_type", sa.Text()),
        sa.Column("error_message", sa.Text()),
        sa.Column("started_at", moment),
        sa.Column("finished_at", moment),
        sa.Column("recorded_at", moment, nullable=False),
        sa.PrimaryKeyConstraint("attempt_id", name="pk_batch_attempts"),
        sa.CheckConstraint(
            "status IN ('PENDING', 'DOWNLOADED', 'SKIPPED_NO_DATA', 'FAILED')",
            name="ck_batch_attempts_status",
        ),
        schema=schema,
        sqlite_autoincrement=True,
    )
    op.create_index(
        "ix_batch_attempts_job_id_unit_id", "batch_attempts", ["job_id", "unit_id"], schema=schema
    )
