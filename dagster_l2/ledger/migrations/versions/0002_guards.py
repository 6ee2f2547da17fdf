"""Guards: nothing is recorded before it occurred or out of order, no row taken that could not be read back.

They look at new rows only: what was recorded before stays as it is.
"""

from __future__ import annotations

from alembic import context, op

from dagster_l2.ledger import guards
from dagster_l2.ledger.migrations import guards_0001

revision = "0002"
down_revision = "0001"


def upgrade() -> None:
    schema = context.config.attributes["schema"]
    guards_0001.remove(op.get_bind(), schema)
    guards.install(op.get_bind(), schema)
