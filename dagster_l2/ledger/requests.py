"""Requests that bear an idempotency key: the same one again writes nothing and gives what it wrote.

The key and what the request wrote are recorded in one transaction, so a crash leaves both or neither.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import sqlalchemy as sa

from dagster_l2.ledger.base import transition_of
from dagster_l2.ledger.columns import text
from dagster_l2.ledger.errors import KeyUsed
from dagster_l2.ledger.records import Annotation, Receipt, ScienceEvent, Transition
from dagster_l2.ledger.tables import (
    inbox_receipts,
    op_annotations,
    op_transitions,
    science_events,
    service_requests,
)

_Row = dict[str, Any]

_WRITTEN: dict[type, tuple[sa.Table, str, Callable[[_Row], Any]]] = {
    Transition: (op_transitions, "transition_id", transition_of),
    Annotation: (op_annotations, "annotation_id", lambda row: Annotation(**row)),
    Receipt: (inbox_receipts, "receipt_id", lambda row: Receipt(**row)),
    ScienceEvent: (science_events, "event_id", lambda row: ScienceEvent(**row)),
}
"""By what a request wrote: its table, its key, and how it is read back."""


@dataclass(frozen=True)
class Request:
    """One request of one person.

    Parameters
    ----------
    actor
        Whose key it is; two people may draw the same one.
    key
        Drawn by the client, the same for each try of one request.
    content
        What was asked for. The same key with another content is refused.
    """

    actor: str
    key: str
    content: str

    @property
    def request_id(self) -> str:
        """The key of the key."""
        said = json.dumps([self.actor, text(self.key, "idempotency key")])
        return hashlib.sha256(said.encode()).hexdigest()

    @property
    def digest(self) -> str:
        """A hash of the content."""
        return hashlib.sha256(self.content.encode()).hexdigest()


def written_before(connection: sa.Connection, request: Request) -> Any | None:
    """What this request wrote when it came first; None when it has not come yet.

    Raises
    ------
    KeyUsed
        When the key was used for another request.
    """
    query = sa.select(service_requests).where(service_requests.c.request_id == request.request_id)
    row = connection.execute(query).first()
    if row is None:
        return None
    if row.digest != request.digest:
        raise KeyUsed(
            f"The idempotency key {request.key[:60]!r} was used for another request at"
            f" {row.recorded_at:%Y-%m-%d %H:%M:%S} UTC; draw a new one."
        )
    for kind, (table, key, read) in _WRITTEN.items():
        if kind.__name__ == row.kind:
            column = table.c[key]
            value: Any = row.row_key if isinstance(column.type, sa.Text) else int(row.row_key)
            found = connection.execute(sa.select(table).where(column == value)).one()
            return read(dict(found._mapping))
    raise AssertionError(row.kind)


def record_request(connection: sa.Connection, request: Request, written: object) -> None:
    """Note what a request wrote, inside the transaction that wrote it.

    A refusal that came into the inbox is not noted: what was refused may be asked again.
    """
    if isinstance(written, Receipt) and not written.is_taken:
        return
    _table, key, _read = _WRITTEN[type(written)]
    values = {
        "request_id": request.request_id,
        "actor": text(request.actor, "actor"),
        "digest": request.digest,
        "kind": type(written).__name__,
        "row_key": str(getattr(written, key)),
        "recorded_at": datetime.now(UTC),
    }
    connection.execute(sa.insert(service_requests).values(values))
