"""The inbox: every ready event that came in by any door, and what became of it there. Append-only.

A receipt and the science event that it became are recorded together. How things come in is for ``intake``.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

import sqlalchemy as sa

from dagster_l2.ledger.base import Base, described, shown
from dagster_l2.ledger.columns import as_details, readable, text
from dagster_l2.ledger.database import Refused
from dagster_l2.ledger.errors import Conflict, IllegalTransition, LedgerError, LedgerUnavailable
from dagster_l2.ledger.events import add_ready
from dagster_l2.ledger.records import Delivery, Present, ReadyWord, Receipt, ReceiptOutcome
from dagster_l2.ledger.states import State
from dagster_l2.ledger.tables import inbox_receipts, op_transitions, science_events

_KEPT = 2_000  # characters of what could not be read


class _NotTaken(Exception):
    def __init__(self, outcome: ReceiptOutcome, reason: str) -> None:
        super().__init__(reason)
        self.outcome: ReceiptOutcome = outcome


class Inbox(Base):
    """What comes in by the doors."""

    def receive(self, word: ReadyWord, delivery: Delivery, *, is_operator: bool = False) -> Receipt:
        """Take a ready event in, or say why not; either is recorded, the same delivery once.

        Returns
        -------
        Receipt
            ``taken``; ``duplicate`` of an event that was taken before; ``unknown_op``; ``wrong_inversion``:
            one that the OP never had; ``out_of_order``: an inversion or a word that another has followed,
            or an OP that is not Working; ``refused``: by somebody who may not, or against the package.

        Raises
        ------
        LedgerUnavailable
            Nothing was recorded then.
        InvalidRecord
            When the delivery itself cannot be recorded.
        """

        def work(connection: sa.Connection, present: Present | None) -> Receipt:
            before = _met(connection, delivery)
            if before is not None:
                return before
            try:
                _check(connection, present, word)
                event = add_ready(connection, present, word, is_operator=is_operator)
            except _NotTaken as no:
                return _add(connection, delivery, no.outcome, str(no), word=word)
            except (Refused, LedgerUnavailable, Conflict):
                raise
            except LedgerError as error:
                outcome: ReceiptOutcome = (
                    "out_of_order" if isinstance(error, IllegalTransition) else "refused"
                )
                return _add(connection, delivery, outcome, str(error), word=word)
            return _add(connection, delivery, "taken", None, word=word, inversion_id=event.inversion_id)

        return self._write(word.op_id, work)

    def refuse_delivery(self, delivery: Delivery, reason: str, body: str) -> Receipt:
        """Record something that is no ready event; the same delivery once."""
        kept = {"body": readable(body)[:_KEPT]}
        try:
            with self._database.writing() as connection:
                before = _met(connection, delivery)
                return before or _add(connection, delivery, "malformed", reason, details=kept)
        except Refused:
            with self._database.reading() as connection:
                before = _met(connection, delivery)
            if before is None:
                raise
            return before  # another process was first

    def is_received(self, delivery_id: str) -> bool:
        """Whether a delivery has its receipt."""
        query = sa.select(sa.literal(1)).where(inbox_receipts.c.delivery_id == delivery_id)
        with self._database.reading() as connection:
            return connection.execute(query).first() is not None

    def receipts(
        self, *, op_id: str | None = None, since: datetime | None = None, limit: int | None = None
    ) -> list[Receipt]:
        """What came in, newest first; of one OP, or since a moment, where given."""
        query = sa.select(inbox_receipts).order_by(inbox_receipts.c.receipt_id.desc())
        if op_id is not None:
            query = query.where(inbox_receipts.c.op_id == op_id)
        if since is not None:
            query = query.where(inbox_receipts.c.received_at >= since)
        with self._database.reading() as connection:
            return [Receipt(**row._mapping) for row in connection.execute(query.limit(limit))]


def _check(connection: sa.Connection, present: Present | None, word: ReadyWord) -> None:
    """Raise `_NotTaken` where a word can't be taken for what it says by itself."""
    query = sa.select(science_events).where(science_events.c.event_id == word.event_id)
    if row := connection.execute(query).first():
        same = (row.op_id, row.products, row.commit_hash) == (word.op_id, word.products, word.commit_hash)
        when = f"{row.received_at:%Y-%m-%d %H:%M:%S} UTC"
        if same:
            raise _NotTaken("duplicate", f"Event {shown(word.event_id)} was taken already, at {when}.")
        raise _NotTaken(
            "refused",
            f"The event id {shown(word.event_id)} was used at {when} for another hand-over; draw a new one.",
        )
    if present is None:
        raise _NotTaken("unknown_op", f"The ledger has no OP {shown(word.op_id)}; check the id.")
    wanted = word.inversion_id
    if wanted is not None and wanted != present.inversion_id:
        had = sa.select(sa.literal(1)).where(
            op_transitions.c.op_id == word.op_id, op_transitions.c.inversion_id == wanted
        )
        if connection.execute(had.limit(1)).first():
            raise _NotTaken(
                "out_of_order",
                f"{described(present)}; its inversion {shown(wanted)} is over, claim it again.",
            )
        raise _NotTaken(
            "wrong_inversion",
            f"{described(present)}"
            + (f" on inversion {present.inversion_id}" if present.inversion_id else "")
            + f"; it never had an inversion {shown(wanted)}.",
        )
    if present.state is State.WORKING and word.sent_at is not None:
        _check_newest(connection, present, word)


def _check_newest(connection: sa.Connection, present: Present, word: ReadyWord) -> None:
    query = sa.select(science_events.c.details).where(
        science_events.c.op_id == word.op_id, science_events.c.inversion_id == present.inversion_id
    )
    sent = word.sent_at.astimezone(UTC).isoformat() if word.sent_at else ""
    for (details,) in connection.execute(query):
        other = str(details.get("sent_at") or "")
        if other and datetime.fromisoformat(other) > datetime.fromisoformat(sent):
            raise _NotTaken(
                "out_of_order",
                f"It was sent at {sent}, before another hand-over of {present.inversion_id} that is taken"
                f" already (sent at {other}).",
            )


def _met(connection: sa.Connection, delivery: Delivery) -> Receipt | None:
    query = sa.select(inbox_receipts).where(inbox_receipts.c.delivery_id == delivery.delivery_id)
    row = connection.execute(query).first()
    return None if row is None else Receipt(**row._mapping)


def _add(
    connection: sa.Connection,
    delivery: Delivery,
    outcome: ReceiptOutcome,
    reason: str | None,
    *,
    word: ReadyWord | None = None,
    inversion_id: str | None = None,
    details: Mapping[str, Any] | None = None,
) -> Receipt:
    said = {} if word is None else {"products": word.products, "commit": word.commit_hash}
    values: dict[str, Any] = {
        "delivery_id": text(delivery.delivery_id, "delivery"),
        "door": text(delivery.door, "door"),
        "source": text(readable(delivery.source), "source"),
        "event_id": word.event_id if word else None,
        "op_id": word.op_id if word else None,
        "inversion_id": inversion_id or (word.inversion_id if word else None),
        "outcome": outcome,
        "reason": None if reason is None else readable(reason),
        "received_at": datetime.now(UTC),
        "actor": word.actor if word else None,
        "details": as_details(details or said),
    }
    result = connection.execute(sa.insert(inbox_receipts).values(values))
    (receipt_id,) = result.inserted_primary_key or (0,)
    return Receipt(receipt_id=receipt_id, **values)
