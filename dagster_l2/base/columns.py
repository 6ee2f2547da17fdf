"""Column types of the state database that mean the same on SQLite and PostgreSQL. No tables and no engine."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import sqlalchemy as sa
from sqlalchemy.types import TypeDecorator


class UtcDateTime(TypeDecorator[datetime]):
    """A moment in UTC: ``timestamptz`` on PostgreSQL, ISO text of one width on SQLite.

    The width is fixed (microseconds, ``+00:00``), so that SQLite's comparison of texts is one of times.
    """

    impl = sa.DateTime(timezone=True)
    cache_ok = True

    def load_dialect_impl(self, dialect: sa.Dialect) -> sa.types.TypeEngine[Any]:
        """Text on SQLite, timestamptz elsewhere."""
        if dialect.name == "sqlite":
            return dialect.type_descriptor(sa.Text())
        return dialect.type_descriptor(sa.DateTime(timezone=True))

    def process_bind_param(self, value: datetime | None, dialect: sa.Dialect) -> Any:
        """Refuse a naive time (ValueError), store UTC."""
        if value is None:
            return None
        if value.tzinfo is None:
            raise ValueError(f"The time {value} says no zone; give it in UTC.")
        moment = value.astimezone(UTC)
        return moment.isoformat(timespec="microseconds") if dialect.name == "sqlite" else moment

    def process_result_value(self, value: Any, _dialect: sa.Dialect) -> datetime | None:
        """Give back an aware UTC time."""
        if value is None:
            return None
        return (datetime.fromisoformat(value) if isinstance(value, str) else value).astimezone(UTC)
