"""The service's tokens, and what its requests with an idempotency key wrote."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import context, op

from dagster_l2.ledger import guards
from dagster_l2.ledger.migrations import kinds

revision = "0005"
down_revision = "0004"


def upgrade() -> None:
    schema = context.config.attributes["schema"]
    moment = kinds.moment()
    op.create_table(
        "service_tokens",
        sa.Column("token_id", sa.Text(), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("role", sa.Text(), nullable=False),
        sa.Column("digest", sa.Text(), nullable=False),
        sa.Column("added_at", moment, nullable=False),
        sa.Column("actor", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("token_id", name="pk_service_tokens"),
        sa.CheckConstraint("role IN ('reader', 'scientist', 'operator')", name="ck_service_tokens_role"),
        schema=schema,
    )
    op.create_table(
        "service_token_revocations",
        sa.Column("token_id", sa.Text(), nullable=False),
        sa.Column("revoked_at", moment, nullable=False),
        sa.Column("actor", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("token_id", name="pk_service_token_revocations"),
        sa.ForeignKeyConstraint(
            ["token_id"],
            [f"{schema}.service_tokens.token_id" if schema else "service_tokens.token_id"],
            name="fk_service_token_revocations_token_id",
        ),
        schema=schema,
    )
    op.create_table(
        "service_requests",
        sa.Column("request_id", sa.Text(), nullable=False),
        sa.Column("actor", sa.Text(), nullable=False),
        sa.Column("digest", sa.Text(), nullable=False),
        sa.Column("kind", sa.Text(), nullable=False),
        sa.Column("row_key", sa.Text(), nullable=False),
        sa.Column("recorded_at", moment, nullable=False),
        sa.PrimaryKeyConstraint("request_id", name="pk_service_requests"),
        schema=schema,
    )
    guards.install_more(op.get_bind(), schema, guards.OF_0005)
