"""Alerts that were raised, once for each cause, and when each went out by which way."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import context, op

from dagster_l2.ledger import guards
from dagster_l2.ledger.migrations import kinds

revision = "0006"
down_revision = "0005"


def upgrade() -> None:
    schema = context.config.attributes["schema"]
    moment, number = kinds.moment(), kinds.number()
    op.create_table(
        "alerts",
        sa.Column("alert_id", number, sa.Identity(), nullable=False),
        sa.Column("cause", sa.Text(), nullable=False),
        sa.Column("kind", sa.Text(), nullable=False),
        sa.Column("raised_at", moment, nullable=False),
        sa.Column("details", sa.JSON(), nullable=False),
        sa.PrimaryKeyConstraint("alert_id", name="pk_alerts"),
        sa.UniqueConstraint("cause", name="uq_alerts_cause"),
        schema=schema,
        sqlite_autoincrement=True,
    )
    op.create_table(
        "alert_deliveries",
        sa.Column("delivery_id", number, sa.Identity(), nullable=False),
        sa.Column("alert_id", number, nullable=False),
        sa.Column("way", sa.Text(), nullable=False),
        sa.Column("delivered_at", moment, nullable=False),
        sa.PrimaryKeyConstraint("delivery_id", name="pk_alert_deliveries"),
        sa.UniqueConstraint("alert_id", "way", name="uq_alert_deliveries_alert_id_way"),
        sa.ForeignKeyConstraint(
            ["alert_id"],
            [f"{schema}.alerts.alert_id" if schema else "alerts.alert_id"],
            name="fk_alert_deliveries_alert_id",
        ),
        schema=schema,
        sqlite_autoincrement=True,
    )
    guards.install_more(op.get_bind(), schema, guards.OF_0006)
