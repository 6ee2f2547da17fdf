"""Science events: a scientist says that products are ready, and what became of that.

What products must look like is the caller's (``verify``); here is who may say ready, for which inversion,
and that the outcome and Inverted are recorded together or not at all.
"""

from __future__ import annotations

import uuid
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from typing import Any

import sqlalchemy as sa

from dagster_l2.ledger.base import (
    Base,
    described,
    insert,
    known,
    package_of,
    present_or_none,
    shown,
)
from dagster_l2.ledger.columns import as_details, readable, text, utc
from dagster_l2.ledger.errors import Conflict, IllegalTransition, InputsChanged, InvalidRecord
from dagster_l2.ledger.records import Outcome, Present, ReadyWord, ScienceEvent
from dagster_l2.ledger.states import State
from dagster_l2.ledger.tables import science_event_outcomes, science_events
from dagster_l2.ledger.work import check_claimer


class Events(Base):
    """The hand-over of products."""

    def submit_ready(
        self,
        op_id: str,
        *,
        products: str,
        commit_hash: str,
        actor: str,
        is_operator: bool = False,
        dataset_ids: Sequence[str] | None = None,
        inputs_changed_ok: bool = False,
        checksums: Mapping[str, str] | None = None,
    ) -> ScienceEvent:
        """Record that the products of an OP's present inversion are ready.

        Parameters
        ----------
        products : str
            Where they are.
        dataset_ids : sequence of str, optional
            What was inverted, of the input package's datasets; all of them unless given.
        inputs_changed_ok : bool
            Hand over although the inputs changed since they were claimed.
        checksums : mapping, optional
            SHA-256 by name of file, as the one who hands over computed it.

        Raises
        ------
        IllegalTransition
            When the OP is not in Working.
        NotAllowed
            When ``actor`` neither claimed it nor is an operator.
        InputsChanged
            When it is flagged and that was not accepted.
        InvalidRecord
            When a dataset is not of the package.
        """

        word = ReadyWord(
            event_id=str(uuid.uuid4()),
            op_id=op_id,
            products=str(products),
            commit_hash=commit_hash,
            actor=actor,
            dataset_ids=None if dataset_ids is None else tuple(dataset_ids),
            inputs_changed_ok=inputs_changed_ok,
            checksums=checksums,
        )

        def work(connection: sa.Connection, present: Present | None) -> ScienceEvent:
            return add_ready(connection, present, word, is_operator=is_operator)

        return self._write(op_id, work)

    def pending_events(self) -> list[ScienceEvent]:
        """Events without an outcome, oldest first; those of an OP in Error wait until it is retried."""
        query = (
            sa.select(science_events)
            .outerjoin(science_event_outcomes)
            .where(science_event_outcomes.c.event_id.is_(None))
            .order_by(science_events.c.received_at, science_events.c.event_id)
        )
        with self._database.reading() as connection:
            events = [ScienceEvent(**row._mapping) for row in connection.execute(query)]
            return [event for event in events if not _waits(present_or_none(connection, event.op_id), event)]

    def refused_events(self, since: datetime) -> list[tuple[ScienceEvent, Outcome]]:
        """Hand-overs that were refused since a moment, oldest first."""
        outcomes = science_event_outcomes
        query = (
            sa.select(outcomes)
            .where(outcomes.c.outcome == "refused", outcomes.c.recorded_at >= since)
            .order_by(outcomes.c.recorded_at, outcomes.c.event_id)
        )
        with self._database.reading() as connection:
            refused = [Outcome(**row._mapping) for row in connection.execute(query)]
            wanted = science_events.c.event_id.in_([outcome.event_id for outcome in refused])
            rows = connection.execute(sa.select(science_events).where(wanted))
            events = {row.event_id: ScienceEvent(**row._mapping) for row in rows}
        return [(events[outcome.event_id], outcome) for outcome in refused]

    def events(self, op_id: str) -> list[tuple[ScienceEvent, Outcome | None]]:
        """The events of an OP with their outcomes, oldest first."""
        query = (
            sa.select(science_events)
            .where(science_events.c.op_id == op_id)
            .order_by(science_events.c.received_at, science_events.c.event_id)
        )
        with self._database.reading() as connection:
            events = [ScienceEvent(**row._mapping) for row in connection.execute(query)]
            return [(event, _outcome(connection, event.event_id)) for event in events]

    def settle(
        self,
        event: ScienceEvent,
        verify: Callable[[ScienceEvent], Mapping[str, Any]],
        *,
        run_id: str | None,
        actor: str,
        refusals: tuple[type[Exception], ...] = (),
    ) -> Outcome:
        """Verify the products of an event once, and record what became of it.

        Parameters
        ----------
        verify : callable
            Gets the event and returns what goes into the details of Inverted (``products`` among it). It
            runs outside any transaction: it may take long.
        refusals : tuple of exception classes
            Raised by ``verify`` for products that are not right; their text becomes the reason. Any other
            exception goes through and leaves the event pending.

        Returns
        -------
        Outcome
            Accepted, with Inverted appended in the same transaction; or refused with the reason, the OP
            staying where it is. An event that has an outcome gives that one and nothing is done.

        Raises
        ------
        IllegalTransition
            When the OP is in Error: the event waits until it is retried.
        """
        with self._database.reading() as connection:
            stored = _stored(connection, event.event_id)
            if outcome := _outcome(connection, stored.event_id):
                return outcome
            present = known(present_or_none(connection, stored.op_id), stored.op_id)
        verified: Mapping[str, Any] = {}
        reason = _moved_on(present, stored)
        if reason is None:
            try:
                verified = verify(stored)
            except refusals as refusal:
                reason = readable(str(refusal)) or type(refusal).__name__

        def work(connection: sa.Connection, present: Present | None) -> Outcome:
            present = known(present, stored.op_id)
            return _settle(connection, present, stored, reason, verified, run_id, actor)

        try:
            return self._write(stored.op_id, work)
        except Conflict:
            # Only a writer past this class can come between; what it did is judged like anything else.
            return self._write(stored.op_id, work)


def add_ready(
    connection: sa.Connection, present: Present | None, word: ReadyWord, *, is_operator: bool
) -> ScienceEvent:
    """Append a science event inside the caller's transaction; raises as `Events.submit_ready`."""
    present = known(present, word.op_id)
    if present.state is not State.WORKING or present.inversion_id is None:
        raise IllegalTransition(f"{described(present)}; only a Working OP can be handed over.")
    check_claimer(present, word.actor, is_operator, "hand it over")
    if present.inputs_changed and not word.inputs_changed_ok:
        raise InputsChanged(
            f"The inputs of OP {shown(word.op_id)} changed since they were claimed; release it to prepare"
            " it anew, or hand over with inputs_changed_ok."
        )
    details: dict[str, Any] = {"inputs_changed_ok": word.inputs_changed_ok, "is_operator": is_operator}
    if word.sent_at is not None:
        details["sent_at"] = utc(word.sent_at).isoformat()
    if word.checksums is not None:
        details["checksums"] = dict(word.checksums)
    event = ScienceEvent(
        event_id=text(word.event_id, "event id"),
        op_id=word.op_id,
        inversion_id=present.inversion_id,
        products=text(word.products, "place of the products"),
        commit_hash=text(word.commit_hash, "commit"),
        dataset_ids=_inverted_datasets(present, word.dataset_ids),
        actor=text(word.actor, "actor"),
        received_at=datetime.now(UTC),
        details=as_details(details),
    )
    connection.execute(sa.insert(science_events).values(asdict(event)))
    return event


def _settle(
    connection: sa.Connection,
    present: Present,
    event: ScienceEvent,
    reason: str | None,
    verified: Mapping[str, Any],
    run_id: str | None,
    actor: str,
) -> Outcome:
    """Record the outcome of an event, with Inverted when nothing speaks against it."""
    if outcome := _outcome(connection, event.event_id):
        return outcome
    why = reason or _moved_on(present, event)
    if why is not None:
        return _record(connection, event, "refused", why, run_id, actor, {})
    insert(
        connection,
        present,
        event.op_id,
        State.INVERTED,
        actor=actor,
        cause="products verified",
        run_id=run_id,
        details=_inverted_details(present, event, verified),
    )
    return _record(connection, event, "accepted", None, run_id, actor, verified)


def _inverted_datasets(present: Present, dataset_ids: Sequence[str] | None) -> list[str]:
    package = list(present.details.get("dataset_ids", []))
    if dataset_ids is None:
        return package
    strangers = [dataset_id for dataset_id in dataset_ids if dataset_id not in package]
    if strangers or not dataset_ids:
        what = f"Dataset {shown(strangers[0])} is" if strangers else "No dataset is named that is"
        raise InvalidRecord(
            f"{what} {'not ' if strangers else ''}of the input package of OP {shown(present.op_id)};"
            f" name some of its {len(package)} datasets."
        )
    return [dataset_id for dataset_id in package if dataset_id in set(dataset_ids)]


def _inverted_details(present: Present, event: ScienceEvent, verified: Mapping[str, Any]) -> dict[str, Any]:
    return {
        **package_of(present),
        **verified,
        "claimed_by": present.claimed_by,
        "event_id": event.event_id,
        "dataset_ids": event.dataset_ids,
        "commit": event.commit_hash,
    }


def _waits(present: Present | None, event: ScienceEvent) -> bool:
    """Whether an event waits for its OP to be retried."""
    return (
        present is not None
        and present.state is State.ERROR
        and present.previous_state is State.WORKING
        and present.inversion_id == event.inversion_id
    )


def _moved_on(present: Present, event: ScienceEvent) -> str | None:
    """Why an event can't be taken any more, None when it can."""
    if _waits(present, event):
        raise IllegalTransition(f"{described(present)}; retry it, its hand-over waits until then.")
    if present.state is not State.WORKING:
        return f"{described(present)}, no longer Working."
    if present.inversion_id != event.inversion_id:
        return f"{described(present)} on inversion {present.inversion_id}, not {event.inversion_id}."
    return None


def _stored(connection: sa.Connection, event_id: str) -> ScienceEvent:
    row = connection.execute(sa.select(science_events).where(science_events.c.event_id == event_id)).first()
    if row is None:
        raise InvalidRecord(f"The ledger has no science event {shown(event_id)}; submit it first.")
    return ScienceEvent(**row._mapping)


def _outcome(connection: sa.Connection, event_id: str) -> Outcome | None:
    query = sa.select(science_event_outcomes).where(science_event_outcomes.c.event_id == event_id)
    row = connection.execute(query).first()
    return None if row is None else Outcome(**row._mapping)


def _record(
    connection: sa.Connection,
    event: ScienceEvent,
    outcome: str,
    reason: str | None,
    run_id: str | None,
    actor: str,
    details: Mapping[str, Any],
) -> Outcome:
    values: dict[str, Any] = {
        "event_id": event.event_id,
        "outcome": outcome,
        "reason": reason,
        "recorded_at": datetime.now(UTC),
        "actor": text(actor, "actor"),
        "run_id": run_id,
        "details": as_details(details),
    }
    connection.execute(sa.insert(science_event_outcomes).values(values))
    return Outcome(**values)
