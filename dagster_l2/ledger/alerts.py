"""Alerts: raised once for each cause, and recorded as delivered by each way once. Append-only.

What is worth an alert is for the caller to say, and how it is sent, too.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

import sqlalchemy as sa

from dagster_l2.ledger.base import Base
from dagster_l2.ledger.columns import LONGEST_ID, as_details, readable, text
from dagster_l2.ledger.database import Refused
from dagster_l2.ledger.records import RaisedAlert
from dagster_l2.ledger.tables import alert_deliveries, alerts


class Alerts(Base):
    """What was raised and what went out."""

    def raise_alert(self, cause: str, *, kind: str, ways: Sequence[str], details: Mapping[str, Any]) -> bool:
        """Record that people are to be told; False when that was recorded before for the same cause.

        Parameters
        ----------
        cause
            What tells this alert from all others.
        ways
            By which it is to go out; one that is added later does not repeat the past.
        """
        cause = _key(cause)
        values = {
            "cause": cause,
            "kind": text(kind, "kind of the alert"),
            "raised_at": datetime.now(UTC),
            "details": as_details({**_said(details), "ways": sorted(ways)}),
        }
        try:
            with self._database.writing() as connection:
                known = sa.select(alerts.c.alert_id).where(alerts.c.cause == cause)
                if connection.execute(known).first() is not None:
                    return False
                connection.execute(sa.insert(alerts).values(values))
        except Refused as refusal:
            if refusal.code not in ("exists", "unique"):
                raise
            return False  # another process was first
        return True

    def alert_causes(self) -> set[str]:
        """The causes of all alerts that were raised."""
        with self._database.reading() as connection:
            return set(connection.execute(sa.select(alerts.c.cause)).scalars())

    def alerts(self, *, kind: str | None = None, limit: int | None = None) -> list[RaisedAlert]:
        """What was raised, newest first, and what of it went out; of one kind where given."""
        query = sa.select(alerts).order_by(alerts.c.alert_id.desc()).limit(limit)
        if kind is not None:
            query = query.where(alerts.c.kind == kind)
        with self._database.reading() as connection:
            rows = connection.execute(query).all()
            sent = connection.execute(sa.select(alert_deliveries)).all()
        return [
            _raised(row, {one.way: one.delivered_at for one in sent if one.alert_id == row.alert_id})
            for row in rows
        ]

    def undelivered(self, way: str, *, limit: int) -> list[RaisedAlert]:
        """What is still to go out by a way, oldest first."""
        gone = sa.select(alert_deliveries.c.alert_id).where(alert_deliveries.c.way == way)
        query = sa.select(alerts).where(alerts.c.alert_id.not_in(gone)).order_by(alerts.c.alert_id)
        with self._database.reading() as connection:
            rows = [_raised(row, {}) for row in connection.execute(query)]
        return [row for row in rows if way in row.details["ways"]][:limit]

    def record_alert_delivery(self, alert_id: int, way: str) -> None:
        """Record that an alert went out by a way."""
        values = {"alert_id": alert_id, "way": way, "delivered_at": datetime.now(UTC)}
        with self._database.writing() as connection:
            connection.execute(sa.insert(alert_deliveries).values(values))


def _raised(row: sa.Row[Any], delivered: Mapping[str, datetime]) -> RaisedAlert:
    return RaisedAlert(**row._mapping, delivered=dict(delivered))


def _key(cause: str) -> str:
    """A cause that both databases store, whatever ids are in it: an alert must not stop all others."""
    kept = readable(cause)
    if kept == cause and len(cause.encode()) <= LONGEST_ID:
        return cause
    return f"{kept[:60]}~{hashlib.sha256(cause.encode('utf-8', 'surrogatepass')).hexdigest()}"


def _said(details: Mapping[str, Any]) -> dict[str, Any]:
    return {
        name: readable(said) if isinstance(said, str) else _said(said) if isinstance(said, Mapping) else said
        for name, said in details.items()
    }
