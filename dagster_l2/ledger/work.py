"""What people and steps do with one OP: claim, release, prepare, publish, re-open, withdraw.

Each is one transaction and one transition. The hand-over of products is in ``events``, failing and retrying
in ``recovery``.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

import sqlalchemy as sa

from dagster_l2.ledger.base import (
    Base,
    conflict,
    described,
    expect,
    insert,
    known,
    last_in,
    package_of,
    shown,
)
from dagster_l2.ledger.columns import as_details, text
from dagster_l2.ledger.errors import NotAllowed
from dagster_l2.ledger.records import Annotation, Present, Transition
from dagster_l2.ledger.recovery import details_again
from dagster_l2.ledger.states import State
from dagster_l2.ledger.tables import op_annotations


def check_claimer(present: Present, actor: str, is_operator: bool, doing: str) -> None:
    """Raise `NotAllowed` unless ``actor`` claimed the OP or is an operator."""
    if not is_operator and present.claimed_by != actor:
        raise NotAllowed(
            f"{described(present)} and claimed by {present.claimed_by}: only {present.claimed_by} or an"
            f" operator can {doing}."
        )


def add_annotation(
    connection: sa.Connection, op_id: str, kind: str, actor: str, details: Mapping[str, Any]
) -> Annotation:
    """Append one annotation inside the caller's transaction."""
    values: dict[str, Any] = {
        "op_id": op_id,
        "kind": text(kind, "kind of annotation"),
        "actor": text(actor, "actor"),
        "recorded_at": datetime.now(UTC),
        "details": as_details(details),
    }
    result = connection.execute(sa.insert(op_annotations).values(values))
    (annotation_id,) = result.inserted_primary_key or (0,)
    return Annotation(annotation_id=annotation_id, **values)


class Work(Base):
    """The steps of one OP that a person or a step of the pipeline takes."""

    def record_preprocessed(
        self, op_id: str, *, inputs_hash: str, details: Mapping[str, Any], run_id: str | None, actor: str
    ) -> Transition:
        """Invertible → Preprocessed: the input package with this hash is written."""

        def work(connection: sa.Connection, present: Present | None) -> Transition:
            present = known(present, op_id)
            expect(present, State.INVERTIBLE, State.PREPROCESSED, "prepared")
            return insert(
                connection,
                present,
                op_id,
                State.PREPROCESSED,
                actor=actor,
                cause="input package written",
                inputs_hash=text(inputs_hash, "inputs hash"),
                run_id=run_id,
                details=details,
            )

        return self._write(op_id, work)

    def claim(
        self,
        op_id: str,
        *,
        actor: str,
        role: str = "scientist",
        details: Mapping[str, Any] | None = None,
    ) -> Transition:
        """Preprocessed → Working with a new inversion id, for ``actor``.

        Raises
        ------
        Conflict
            When it is claimed already; names by whom and since when.
        IllegalTransition
            When the OP is in any other state.
        """

        def work(connection: sa.Connection, present: Present | None) -> Transition:
            present = known(present, op_id)
            if present.state is State.WORKING and present.claimed_by:
                # Who moved it last may be another: an operator who retried it, the pipeline.
                own = f"it is yours already, as {present.inversion_id}."
                another = f"{shown(present.claimed_by)} has claimed it; ask for its release."
                raise conflict(present, own if present.claimed_by == actor else another)
            expect(present, State.PREPROCESSED, State.WORKING, "claimed")
            claimed = {**(details or {}), **package_of(present), "claimed_by": actor, "role": role}
            return insert(
                connection,
                present,
                op_id,
                State.WORKING,
                actor=actor,
                cause=f"claimed by {actor}",
                details=claimed,
            )

        return self._write(op_id, work)

    def release(self, op_id: str, *, actor: str, is_operator: bool = False) -> Transition:
        """Working → Preprocessed, by the claimer or an operator (else `NotAllowed`)."""

        def work(connection: sa.Connection, present: Present | None) -> Transition:
            present = known(present, op_id)
            expect(present, State.WORKING, State.PREPROCESSED, "released")
            check_claimer(present, actor, is_operator, "release it")
            return insert(
                connection,
                present,
                op_id,
                State.PREPROCESSED,
                actor=actor,
                cause=f"released by {actor}",
                details=package_of(present),
            )

        return self._write(op_id, work)

    def published(
        self,
        op_id: str,
        *,
        inversion_id: str,
        details: Mapping[str, Any],
        actor: str,
        run_id: str | None,
    ) -> Transition:
        """Inverted → Published: the store has this inversion, read back.

        Raises
        ------
        Conflict
            When it is Published already, or the OP has another inversion by now.
        """

        def work(connection: sa.Connection, present: Present | None) -> Transition:
            present = known(present, op_id)
            expect(present, State.INVERTED, State.PUBLISHED, "published")
            if present.inversion_id != inversion_id:
                raise conflict(present, f"its inversion is {present.inversion_id}, not {inversion_id}.")
            return insert(
                connection,
                present,
                op_id,
                State.PUBLISHED,
                actor=actor,
                cause="published and read back",
                run_id=run_id,
                details=details,
            )

        return self._write(op_id, work)

    def reopen(self, op_id: str, *, actor: str, reason: str) -> Transition:
        """Published → Invertible, by a person, with a reason; what is published stays published."""

        def work(connection: sa.Connection, present: Present | None) -> Transition:
            present = known(present, op_id)
            expect(present, State.PUBLISHED, State.INVERTIBLE, "re-opened")
            before = last_in(connection, op_id, State.INVERTIBLE)
            verdict = {"failed_criteria": [], "warnings": [], **details_again(before)}
            return insert(
                connection,
                present,
                op_id,
                State.INVERTIBLE,
                actor=actor,
                cause=f"re-opened: {text(reason, 'reason', longest=None)}",
                details={**verdict, "reason": reason},
            )

        return self._write(op_id, work)

    def withdraw(self, op_id: str, *, actor: str, reason: str, is_operator: bool = True) -> Transition:
        """Inverted → Working for the same claimer, with a new inversion id and a reason.

        By the claimer or an operator (else `NotAllowed`).
        """

        def work(connection: sa.Connection, present: Present | None) -> Transition:
            present = known(present, op_id)
            expect(present, State.INVERTED, State.WORKING, "withdrawn")
            check_claimer(present, actor, is_operator, "withdraw it")
            before = last_in(connection, op_id, State.WORKING)
            return insert(
                connection,
                present,
                op_id,
                State.WORKING,
                actor=actor,
                cause=f"products withdrawn: {text(reason, 'reason', longest=None)}",
                details={
                    **details_again(before),
                    "reason": reason,
                    "withdrawn_inversion_id": present.inversion_id,
                },
            )

        return self._write(op_id, work)

    def annotate(self, op_id: str, *, kind: str, actor: str, details: Mapping[str, Any]) -> Annotation:
        """Add a remark to an OP; it moves nothing and is never changed."""

        def work(connection: sa.Connection, present: Present | None) -> Annotation:
            known(present, op_id)
            return add_annotation(connection, op_id, kind, actor, details)

        return self._write(op_id, work)
