"""The tables of rates that are shared: one row a server and purpose, one row a lease that is out.

Only the tables live here. They are created by the migrations of the state database; the engine (and on
PostgreSQL the schema) is handed in by the caller.
"""

from __future__ import annotations

import sqlalchemy as sa

from dagster_l2.base.columns import UtcDateTime

metadata = sa.MetaData()

rate_limits = sa.Table(
    "rate_limits",
    metadata,
    sa.Column("key", sa.Text, primary_key=True),
    # What decides is in ``state``; the other columns say it to people and to SQL.
    sa.Column("state", sa.JSON(none_as_null=True)),
    sa.Column("requests_per_second", sa.Float(53)),
    sa.Column("quota_requests", sa.BigInteger),
    sa.Column("quota_seconds", sa.Float(53)),
    sa.Column("congestion_events", sa.BigInteger),
    sa.Column("pause_until", UtcDateTime),
    sa.Column("version", sa.BigInteger, nullable=False),
    sa.Column("updated_at", UtcDateTime),
)

rate_leases = sa.Table(
    "rate_leases",
    metadata,
    sa.Column("lease_id", sa.Text, primary_key=True),
    sa.Column("key", sa.Text, nullable=False),
    sa.Column("holder", sa.Text, nullable=False),
    sa.Column("tokens", sa.Integer, nullable=False),
    sa.Column("granted_at", UtcDateTime, nullable=False),
    sa.Column("expires_at", UtcDateTime, nullable=False),
    sa.Index("ix_rate_leases_key_expires_at", "key", "expires_at"),
)
