"""The one way a transition is appended, and the present state it is appended to.

Every operation of the room goes through `Base._write` and `insert`. Who may do what is in the other modules.
"""

from __future__ import annotations

import secrets
import string
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import Any, TypeVar

import sqlalchemy as sa

from dagster_l2.ledger.asof import AsOf, latest_of_one
from dagster_l2.ledger.columns import Serialised, as_details, text, utc
from dagster_l2.ledger.database import REDO, Database, Refused
from dagster_l2.ledger.errors import Conflict, IllegalTransition, InvalidRecord, UnknownOp
from dagster_l2.ledger.records import Present, Transition
from dagster_l2.ledger.states import HAS_INVERSION, NEW_INVERSION, State, is_edge, successors
from dagster_l2.ledger.tables import op_transitions

T = TypeVar("T")

INPUTS_CHANGED = "inputs_changed"
"""The kind of annotation that flags an OP whose inputs changed since they were claimed."""

PACKAGE_KEYS = ("package", "instrument_program_id", "dataset_ids", "spectral_lines", "buckets")
"""What a claim copies from the details of Preprocessed, so that each later state carries it."""

_ALPHABET = string.ascii_uppercase + string.digits
_TRIES = 5
_FROM_VERDICT = (State.DISCOVERED, State.INVERTIBLE, State.NOT_INVERTIBLE)


def new_inversion_id() -> str:
    """``inv.`` and six of A–Z and 0–9, drawn at random."""
    return "inv." + "".join(secrets.choice(_ALPHABET) for _ in range(6))


def shown(op_id: str) -> str:
    """An id from outside, fit for one sentence."""
    return op_id if op_id.strip() and op_id.isprintable() and len(op_id) <= 100 else f"{op_id[:100]!a}"


def described(present: Present) -> str:
    """Who brought an OP where it is, and when."""
    since = f"{present.since:%Y-%m-%d %H:%M:%S} UTC"
    return f"OP {shown(present.op_id)} is {present.state} since {since} (by {shown(present.actor)})"


def conflict(present: Present, what: str) -> Conflict:
    """The error of one who came second."""
    return Conflict(
        f"{described(present)}: {what}",
        op_id=present.op_id,
        state=present.state,
        actor=present.actor,
        since=present.since,
    )


def package_of(present: Present) -> dict[str, Any]:
    """The input package's part of the details."""
    return {key: present.details[key] for key in PACKAGE_KEYS if key in present.details}


def as_transition(row: sa.Row[Any]) -> Transition:
    """A transition from a row of its table."""
    return transition_of(dict(row._mapping))


def transition_of(values: dict[str, Any]) -> Transition:
    """A transition from the values of its row; ``values`` is the caller's to give away."""
    if values["from_state"] is not None:
        values["from_state"] = State(values["from_state"])
    values["to_state"] = State(values["to_state"])
    return Transition(**values)


def as_present(latest: Transition, flag: Mapping[str, Any] | None) -> Present:
    """The present state from the latest transition and the latest flag of changed inputs, if any."""
    carried = latest.from_state if latest.to_state is State.ERROR else latest.to_state
    is_flagged = (
        flag is not None
        and carried in HAS_INVERSION
        and flag["claimed_inputs_hash"] == latest.inputs_hash
        and flag["inputs_hash"] != latest.inputs_hash
    )
    return Present(
        op_id=latest.op_id,
        state=latest.to_state,
        since=latest.occurred_at,
        seq=latest.seq,
        actor=latest.actor,
        cause=latest.cause,
        inputs_hash=latest.inputs_hash,
        rule_version=latest.rule_version,
        inversion_id=latest.inversion_id,
        previous_state=latest.from_state,
        details=latest.details,
        recorded_at=latest.recorded_at,
        inputs_changed=is_flagged,
    )


def present_or_none(connection: sa.Connection, op_id: str) -> Present | None:
    """The present state of an OP, None when the ledger doesn't know it."""
    row = connection.execute(latest_of_one(op_id, INPUTS_CHANGED, AsOf(None, None))).first()
    if row is None:
        return None
    values = dict(row._mapping)
    last_flag = values.pop("flag")
    return as_present(transition_of(values), last_flag)


def last_in(connection: sa.Connection, op_id: str, state: State) -> Transition | None:
    """The last transition of an OP into ``state``."""
    query = (
        sa.select(op_transitions)
        .where(op_transitions.c.op_id == op_id, op_transitions.c.to_state == state)
        .order_by(op_transitions.c.seq.desc())
        .limit(1)
    )
    row = connection.execute(query).first()
    return None if row is None else as_transition(row)


def known(present: Present | None, op_id: str) -> Present:
    """``present``, or `UnknownOp` when there is none."""
    if present is None:
        raise UnknownOp(f"The ledger has no OP {shown(op_id)}; check the id.")
    return present


def expect(present: Present, wanted: State, to_state: State, doing: str) -> None:
    """Raise unless the OP is in ``wanted``: `Conflict` if another was first, else `IllegalTransition`."""
    if present.state is wanted:
        return
    if present.state is to_state:
        raise conflict(present, f"there is nothing to be {doing}.")
    raise IllegalTransition(f"{described(present)}; only {_a(wanted)} OP can be {doing}.")


def _a(state: State) -> str:
    return f"{'an' if state.value[0] in 'AEIOU' else 'a'} {state}"


def insert(
    connection: sa.Connection,
    present: Present | None,
    op_id: str,
    to_state: State,
    *,
    actor: str,
    cause: str,
    occurred_at: datetime | None = None,
    inputs_hash: str | None = None,
    rule_version: str | None = None,
    inversion_id: str | None = None,
    run_id: str | None = None,
    details: Mapping[str, Any] | None = None,
) -> Transition:
    """Append one transition to ``present``, inside the caller's transaction.

    A step that no verdict caused keeps the inputs hash and rule version unless new ones are given. The
    inversion id is drawn on entering Working anew, kept until Published, and kept through an Error.

    Raises
    ------
    IllegalTransition
        When there is no such edge, or a retry doesn't return to the state before the Error.
    InvalidRecord
        When a text is empty or can't be stored, or a time is naive, before the last transition or to come.
    """
    values = next_row(
        present,
        op_id,
        to_state,
        actor=actor,
        cause=cause,
        occurred_at=occurred_at,
        inputs_hash=inputs_hash,
        rule_version=rule_version,
        inversion_id=inversion_id,
        run_id=run_id,
        details=as_details(details or {}),
    )
    result = connection.execute(sa.insert(op_transitions).values(values))
    (transition_id,) = result.inserted_primary_key or (0,)
    return Transition(transition_id=transition_id, **values)


def next_row(
    present: Present | None,
    op_id: str,
    to_state: State,
    *,
    actor: str,
    cause: str,
    details: dict[str, Any] | Serialised,
    occurred_at: datetime | None = None,
    inputs_hash: str | None = None,
    rule_version: str | None = None,
    inversion_id: str | None = None,
    run_id: str | None = None,
) -> dict[str, Any]:
    """The row that follows ``present``, judged but not written, with checked ``details``; see `insert`."""
    from_state = None if present is None else present.state
    _check_edge(present, op_id, to_state)
    if present is not None and (to_state not in _FROM_VERDICT or from_state is State.ERROR):
        inputs_hash = present.inputs_hash if inputs_hash is None else inputs_hash
        rule_version = present.rule_version if rule_version is None else rule_version
    now = datetime.now(UTC)
    # A clock that is behind the one that wrote last must not stop an OP: time stands still instead.
    recorded_at = now if present is None else max(now, present.recorded_at, present.since)
    return {
        "op_id": text(op_id, "OP id"),
        "seq": 1 if present is None else present.seq + 1,
        "from_state": from_state,
        "to_state": to_state,
        "occurred_at": _occurred_at(present, occurred_at, now, recorded_at),
        "recorded_at": recorded_at,
        "actor": text(actor, "actor"),
        "cause": text(cause, "cause", longest=None),
        "inputs_hash": _text_or_none(inputs_hash, "inputs hash"),
        "rule_version": _text_or_none(rule_version, "rule version"),
        "inversion_id": _text_or_none(inversion_id or _inversion_id(present, to_state), "inversion id"),
        "run_id": _text_or_none(run_id, "run id"),
        "details": details,
    }


def _occurred_at(
    present: Present | None, given: datetime | None, now: datetime, recorded_at: datetime
) -> datetime:
    if given is None:
        return now if present is None else max(now, present.since)
    moment = utc(given)
    if present is not None and moment < present.since:
        raise InvalidRecord(
            f"{described(present)}; a transition can't have occurred before that, correct its time."
        )
    if moment > recorded_at:
        raise InvalidRecord(
            f"The time {moment.isoformat(' ')} is still to come; give the one at which it occurred."
        )
    return moment


def _inversion_id(present: Present | None, to_state: State) -> str | None:
    if present is None:
        return None
    if to_state is State.WORKING and present.state in NEW_INVERSION:
        return new_inversion_id()
    return present.inversion_id if to_state in (*HAS_INVERSION, State.ERROR) else None


def _text_or_none(value: str | None, what: str) -> str | None:
    return None if value is None else text(value, what)


def _check_edge(present: Present | None, op_id: str, to_state: State) -> None:
    if present is None:
        if to_state is not State.DISCOVERED:
            known(None, op_id)
        return
    back = present.previous_state if present.state is State.ERROR else None
    if not is_edge(present.state, to_state) or (back is not None and to_state is not back):
        allowed = (back,) if back is not None else successors(present.state)
        raise IllegalTransition(
            f"{described(present)}; from there it goes to {', '.join(allowed)}, not to {to_state}."
        )


class Base:
    """The database of a ledger and the transaction in which one OP is changed."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def _write(self, op_id: str, work: Callable[[sa.Connection, Present | None], T]) -> T:
        """Run ``work`` on the present state of one OP in one transaction.

        Raises
        ------
        Conflict
            When the step is not possible because another writer moved the OP after this call began: while
            it waited for its turn, or past this class, so that a guard refused. It names the winner.

        An inversion id that was drawn before is drawn again; see docs/decisions/0008.
        """
        text(op_id, "OP id")
        began = self._last_seq(op_id)
        for attempt in range(_TRIES):
            before: Present | None = None
            try:
                with self._database.writing(op_id) as connection:
                    again: T | None = self._written_before(connection)
                    if again is not None:
                        return again
                    before = present_or_none(connection, op_id)
                    written = work(connection, before)
                    self._note_written(connection, written)
                    return written
            except IllegalTransition as error:
                if before is not None and before.seq != began:
                    raise conflict(before, "another writer was first; look at it and try again.") from error
                raise
            except Refused as refusal:
                self._judge(refusal, op_id, before, is_last=attempt == _TRIES - 1)
        raise AssertionError("unreachable")

    def _written_before(self, connection: sa.Connection) -> Any | None:  # noqa: ARG002
        """What the request at hand wrote when it came before; see ``requests``."""
        return None

    def _note_written(self, connection: sa.Connection, written: object) -> None:
        """Note what the request at hand wrote; see ``requests``."""

    def _judge(self, refusal: Refused, op_id: str, before: Present | None, *, is_last: bool) -> None:
        with self._database.reading() as connection:
            after = present_or_none(connection, op_id)
        if after is not None and (before is None or after.seq != before.seq):
            raise conflict(after, "another writer was first; look at it and try again.") from refusal
        if refusal.code not in REDO or is_last:
            raise InvalidRecord(str(refusal)) from refusal

    def _last_seq(self, op_id: str) -> int | None:
        query = sa.select(sa.func.max(op_transitions.c.seq)).where(op_transitions.c.op_id == op_id)
        with self._database.reading() as connection:
            return connection.execute(query).scalar()
