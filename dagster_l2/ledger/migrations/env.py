"""Alembic's entry: runs the revisions on the connection that ``ledger.migrate`` hands over.

It opens nothing itself; the transaction and the lock around it are the caller's.
"""

from __future__ import annotations

from alembic import context

from dagster_l2.ledger.migrate import VERSION_TABLE
from dagster_l2.ledger.tables import metadata

context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=metadata,
    version_table=VERSION_TABLE,
    version_table_schema=context.config.attributes["schema"],
)
with context.begin_transaction():
    context.run_migrations()
