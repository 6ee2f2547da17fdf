"""Error and the way out of it: a step failed, and a person or the next pass has it tried again.

How often a step was tried is counted from the history; there is no other counter. Which failures may pass
by themselves is the caller's to say.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal

import sqlalchemy as sa

from dagster_l2.ledger.asof import AsOf, latest_of_all
from dagster_l2.ledger.base import Base, as_transition, conflict, described, insert, known, last_in
from dagster_l2.ledger.columns import readable, text
from dagster_l2.ledger.errors import Conflict, IllegalTransition, InvalidRecord
from dagster_l2.ledger.records import Present, Retries, Transition
from dagster_l2.ledger.states import CAN_FAIL, State
from dagster_l2.ledger.tables import op_transitions

ErrorClass = Literal["transient", "permanent"]

_AUTOMATIC = "automatic"


def tries(history: Sequence[Transition], step: str) -> int:
    """How often a step has failed since the OP last made progress or a person last had it retried.

    Parameters
    ----------
    history
        All transitions of one OP, oldest first.
    """
    count = 0
    for row in reversed(history):
        if row.to_state is State.ERROR:
            count += row.details.get("step") == step
        elif row.from_state is not State.ERROR or not row.details.get(_AUTOMATIC):
            break
    return count


def details_again(before: Transition | None) -> dict[str, Any]:
    """The details of an earlier transition for one that repeats it."""
    details: Mapping[str, Any] = before.details if before else {}
    return {key: value for key, value in details.items() if key != _AUTOMATIC}


class Recovery(Base):
    """Failing and retrying."""

    def fail(
        self,
        op_id: str,
        *,
        step: str,
        error_class: ErrorClass,
        message: str,
        actor: str,
        run_id: str | None,
        seen: int | None = None,
    ) -> Transition:
        """Any state but Published → Error: a step failed, by itself passing (transient) or not.

        Parameters
        ----------
        seen : int, optional
            The ``seq`` at which the step took the OP up; one that has moved on since did not fail.

        Raises
        ------
        Conflict
            When it is in Error already, or has moved on.
        """
        if error_class not in ("transient", "permanent"):
            raise InvalidRecord(f"The error class {error_class!r} is not known; take transient or permanent.")

        def work(connection: sa.Connection, present: Present | None) -> Transition:
            present = known(present, op_id)
            if present.state is State.ERROR:
                raise conflict(present, "it is in Error already; retry it first.")
            if seen is not None and present.seq != seen:
                raise conflict(present, f"it moved on while {step} was at it, so it has not failed.")
            if present.state not in CAN_FAIL:
                raise IllegalTransition(f"{described(present)}; a {present.state} OP can't go to Error.")
            what = {
                "step": text(step, "step"),
                "class": error_class,
                "message": readable(message),
                "previous_state": present.state,
                "tries": tries(_history(connection, op_id), step) + 1,
            }
            cause = f"{step} failed ({error_class})"
            return insert(
                connection, present, op_id, State.ERROR, actor=actor, cause=cause, run_id=run_id, details=what
            )

        return self._write(op_id, work)

    def retry(self, op_id: str, *, actor: str) -> Transition:
        """Error → the state before it, with the details that state had; the counting of tries begins anew.

        Raises
        ------
        IllegalTransition
            When the OP is not in Error.
        """

        def work(connection: sa.Connection, present: Present | None) -> Transition:
            present = known(present, op_id)
            if present.state is not State.ERROR:
                raise IllegalTransition(f"{described(present)}; only an OP in Error can be retried.")
            return _bring_back(connection, present, actor=actor, run_id=None, is_automatic=False)

        return self._write(op_id, work)

    def retry_transient(self, limit: int, *, actor: str, run_id: str | None) -> Retries:
        """Bring back every OP whose step failed transiently, unless it was tried ``limit`` times.

        Doing it again at once, or twice at a time, brings back nothing more. One that a person retries at
        the same moment is left to that person.
        """
        retried: list[Transition] = []
        exhausted: list[Transition] = []
        for error in self.errors(error_class="transient"):
            with self._database.reading() as connection:
                history = _history(connection, error.op_id)
            if tries(history[: error.seq], str(error.details.get("step"))) >= limit:
                exhausted.append(error)
                continue
            try:
                row = self._write(error.op_id, _back_from(error, actor, run_id))
            except Conflict:
                continue
            retried += [row] if row else []
        return Retries(retried, exhausted)

    def errors(self, *, step: str | None = None, error_class: ErrorClass | None = None) -> list[Transition]:
        """The Error that each OP in Error is in, by OP id; of one step and one class where given."""
        query = latest_of_all(AsOf(None, None)).where(op_transitions.c.to_state == State.ERROR)
        with self._database.reading() as connection:
            rows = [as_transition(row) for row in connection.execute(query)]
        return [
            row
            for row in sorted(rows, key=lambda row: row.op_id)
            if step in (None, row.details.get("step")) and error_class in (None, row.details.get("class"))
        ]


def _back_from(
    error: Transition, actor: str, run_id: str | None
) -> Callable[[sa.Connection, Present | None], Transition | None]:
    """Bring an OP back by itself from this Error, and from no other that came since."""

    def work(connection: sa.Connection, present: Present | None) -> Transition | None:
        if present is None or present.seq != error.seq:
            return None
        return _bring_back(connection, present, actor=actor, run_id=run_id, is_automatic=True)

    return work


def _bring_back(
    connection: sa.Connection, present: Present, *, actor: str, run_id: str | None, is_automatic: bool
) -> Transition:
    back = State(str(present.previous_state))
    who = "itself" if is_automatic else actor
    return insert(
        connection,
        present,
        present.op_id,
        back,
        actor=actor,
        cause=f"retried by {who} after: {present.cause}",
        run_id=run_id,
        details={
            **details_again(last_in(connection, present.op_id, back)),
            **({_AUTOMATIC: True} if is_automatic else {}),
        },
    )


def _history(connection: sa.Connection, op_id: str) -> list[Transition]:
    query = sa.select(op_transitions).where(op_transitions.c.op_id == op_id).order_by(op_transitions.c.seq)
    return [as_transition(row) for row in connection.execute(query)]
