"""The ledger's tables, the same on SQLite and PostgreSQL. All but ``op_edges`` are append-only.

The schema on PostgreSQL is put in by the engine (``database``), the rules by triggers (``guards``).
"""

from __future__ import annotations

import sqlalchemy as sa

from dagster_l2.base.columns import UtcDateTime

metadata = sa.MetaData(
    naming_convention={
        "pk": "pk_%(table_name)s",
        "uq": "uq_%(table_name)s_%(column_0_N_name)s",
        "fk": "fk_%(table_name)s_%(column_0_N_name)s",
        "ck": "ck_%(table_name)s_%(constraint_name)s",
    }
)

_NUMBER = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
_JSON = sa.JSON(none_as_null=True)

op_transitions = sa.Table(
    "op_transitions",
    metadata,
    sa.Column("transition_id", _NUMBER, sa.Identity(), primary_key=True),
    sa.Column("op_id", sa.Text, nullable=False),
    sa.Column("seq", sa.Integer, nullable=False),
    sa.Column("from_state", sa.Text),
    sa.Column("to_state", sa.Text, nullable=False),
    sa.Column("occurred_at", UtcDateTime, nullable=False),
    sa.Column("recorded_at", UtcDateTime, nullable=False),
    sa.Column("actor", sa.Text, nullable=False),
    sa.Column("cause", sa.Text, nullable=False),
    sa.Column("inputs_hash", sa.Text),
    sa.Column("rule_version", sa.Text),
    sa.Column("inversion_id", sa.Text),
    sa.Column("run_id", sa.Text),
    sa.Column("details", _JSON, nullable=False),
    sa.UniqueConstraint("op_id", "seq"),
    sqlite_autoincrement=True,
)

NEW_INVERSION_INDEX = "uq_op_transitions_new_inversion"
"""Each inversion id enters Working anew once, so it belongs to one OP; made by ``guards`` from EDGES."""

op_edges = sa.Table(
    "op_edges",
    metadata,
    sa.Column("from_state", sa.Text, primary_key=True),
    sa.Column("to_state", sa.Text, primary_key=True),
)

science_events = sa.Table(
    "science_events",
    metadata,
    sa.Column("event_id", sa.Text, primary_key=True),
    sa.Column("op_id", sa.Text, nullable=False),
    sa.Column("inversion_id", sa.Text, nullable=False),
    sa.Column("products", sa.Text, nullable=False),
    sa.Column("commit_hash", sa.Text, nullable=False),
    sa.Column("dataset_ids", _JSON, nullable=False),
    sa.Column("actor", sa.Text, nullable=False),
    sa.Column("received_at", UtcDateTime, nullable=False),
    sa.Column("details", _JSON, nullable=False),
    sa.Index("ix_science_events_op_id", "op_id"),
)

science_event_outcomes = sa.Table(
    "science_event_outcomes",
    metadata,
    sa.Column("event_id", sa.Text, sa.ForeignKey(science_events.c.event_id), primary_key=True),
    sa.Column("outcome", sa.Text, nullable=False),
    sa.Column("reason", sa.Text),
    sa.Column("recorded_at", UtcDateTime, nullable=False),
    sa.Column("actor", sa.Text, nullable=False),
    sa.Column("run_id", sa.Text),
    sa.Column("details", _JSON, nullable=False),
    sa.CheckConstraint("outcome IN ('accepted', 'refused')", name="outcome"),
)

op_annotations = sa.Table(
    "op_annotations",
    metadata,
    sa.Column("annotation_id", _NUMBER, sa.Identity(), primary_key=True),
    sa.Column("op_id", sa.Text, nullable=False),
    sa.Column("kind", sa.Text, nullable=False),
    sa.Column("actor", sa.Text, nullable=False),
    sa.Column("recorded_at", UtcDateTime, nullable=False),
    sa.Column("details", _JSON, nullable=False),
    sa.Index("ix_op_annotations_kind_op_id", "kind", "op_id"),
    sqlite_autoincrement=True,
)

inversion_steps = sa.Table(
    "inversion_steps",
    metadata,
    sa.Column("record_id", _NUMBER, sa.Identity(), primary_key=True),
    sa.Column("op_id", sa.Text, nullable=False),
    sa.Column("inversion_id", sa.Text, nullable=False),
    sa.Column("subject", sa.Text, nullable=False),
    sa.Column("step", sa.Text, nullable=False),
    sa.Column("recorded_at", UtcDateTime, nullable=False),
    sa.Column("actor", sa.Text, nullable=False),
    sa.Column("run_id", sa.Text),
    sa.Column("details", _JSON, nullable=False),
    sa.UniqueConstraint("subject", "step"),
    sa.Index("ix_inversion_steps_inversion_id", "inversion_id"),
    sqlite_autoincrement=True,
)
"""What was done with an inversion, once each: ``subject`` is a science event (its products come home) or the
inversion (it is published)."""

inbox_receipts = sa.Table(
    "inbox_receipts",
    metadata,
    sa.Column("receipt_id", _NUMBER, sa.Identity(), primary_key=True),
    sa.Column("delivery_id", sa.Text, nullable=False, unique=True),
    sa.Column("door", sa.Text, nullable=False),
    sa.Column("source", sa.Text, nullable=False),
    sa.Column("event_id", sa.Text),
    sa.Column("op_id", sa.Text),
    sa.Column("inversion_id", sa.Text),
    sa.Column("outcome", sa.Text, nullable=False),
    sa.Column("reason", sa.Text),
    sa.Column("received_at", UtcDateTime, nullable=False),
    sa.Column("actor", sa.Text),
    sa.Column("details", _JSON, nullable=False),
    sa.CheckConstraint(
        "outcome IN ('taken', 'duplicate', 'malformed', 'unknown_op', 'wrong_inversion',"
        " 'out_of_order', 'refused')",
        name="outcome",
    ),
    sa.Index("ix_inbox_receipts_event_id", "event_id"),
    sqlite_autoincrement=True,
)
"""Everything that came in by one of the doors, with what became of it there."""
service_tokens = sa.Table(
    "service_tokens",
    metadata,
    sa.Column("token_id", sa.Text, primary_key=True),
    sa.Column("name", sa.Text, nullable=False),
    sa.Column("role", sa.Text, nullable=False),
    sa.Column("digest", sa.Text, nullable=False),
    sa.Column("added_at", UtcDateTime, nullable=False),
    sa.Column("actor", sa.Text, nullable=False),
    sa.CheckConstraint("role IN ('reader', 'scientist', 'operator')", name="role"),
)
"""Who may speak to the service, and as what; of the token itself only a hash is kept."""

service_token_revocations = sa.Table(
    "service_token_revocations",
    metadata,
    sa.Column("token_id", sa.Text, sa.ForeignKey(service_tokens.c.token_id), primary_key=True),
    sa.Column("revoked_at", UtcDateTime, nullable=False),
    sa.Column("actor", sa.Text, nullable=False),
)

service_requests = sa.Table(
    "service_requests",
    metadata,
    sa.Column("request_id", sa.Text, primary_key=True),
    sa.Column("actor", sa.Text, nullable=False),
    sa.Column("digest", sa.Text, nullable=False),
    sa.Column("kind", sa.Text, nullable=False),
    sa.Column("row_key", sa.Text, nullable=False),
    sa.Column("recorded_at", UtcDateTime, nullable=False),
)
"""What a request with an idempotency key wrote, so that the same request again writes nothing more."""

alerts = sa.Table(
    "alerts",
    metadata,
    sa.Column("alert_id", _NUMBER, sa.Identity(), primary_key=True),
    sa.Column("cause", sa.Text, nullable=False, unique=True),
    sa.Column("kind", sa.Text, nullable=False),
    sa.Column("raised_at", UtcDateTime, nullable=False),
    sa.Column("details", _JSON, nullable=False),
    sqlite_autoincrement=True,
)
"""What people are to be told, once for each cause."""

alert_deliveries = sa.Table(
    "alert_deliveries",
    metadata,
    sa.Column("delivery_id", _NUMBER, sa.Identity(), primary_key=True),
    sa.Column("alert_id", _NUMBER, sa.ForeignKey(alerts.c.alert_id), nullable=False),
    sa.Column("way", sa.Text, nullable=False),
    sa.Column("delivered_at", UtcDateTime, nullable=False),
    sa.UniqueConstraint("alert_id", "way"),
    sqlite_autoincrement=True,
)
