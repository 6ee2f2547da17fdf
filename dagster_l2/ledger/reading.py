"""What the ledger answers: states now and as of any moment, histories with durations, annotations.

Nothing here writes; the queries as of a moment are in ``asof``. Ranking and overdue are the warehouse's.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import datetime
from typing import Any

import sqlalchemy as sa

from dagster_l2.ledger.asof import AsOf, latest_annotations, latest_of_all, latest_of_one
from dagster_l2.ledger.base import INPUTS_CHANGED, Base, as_present, as_transition, known, shown
from dagster_l2.ledger.errors import UnknownOp
from dagster_l2.ledger.records import Annotation, Present, Stay, Transition
from dagster_l2.ledger.states import NEW_INVERSION, State
from dagster_l2.ledger.tables import op_annotations, op_transitions


class Reading(Base):
    """The questions a ledger answers."""

    def present(self, op_id: str, *, at: datetime | None = None, known_at: datetime | None = None) -> Present:
        """Where an OP stands, or stood.

        Parameters
        ----------
        at : datetime, optional
            What was true then, by when it occurred; with a time zone.
        known_at : datetime, optional
            What was known then, by when it was recorded; with a time zone.

        Raises
        ------
        UnknownOp
            When it has no history, or had none then.
        InvalidRecord
            When a time says no zone.
        """
        as_of = AsOf.of(at, known_at)
        with self._database.reading() as connection:
            row = connection.execute(latest_of_one(op_id, INPUTS_CHANGED, as_of)).first()
            if row is None and as_of != AsOf(None, None):
                first = connection.execute(_history(op_id).limit(1)).first()
                if first is not None:
                    raise UnknownOp(
                        f"The ledger had no OP {shown(op_id)} {as_of}; its history begins at"
                        f" {first.occurred_at:%Y-%m-%d %H:%M:%S} UTC, recorded at"
                        f" {first.recorded_at:%Y-%m-%d %H:%M:%S} UTC."
                    )
        if row is None:
            return known(None, op_id)
        *values, flag = row
        return as_present(_transition(values), flag)

    def present_all(
        self, *, at: datetime | None = None, known_at: datetime | None = None
    ) -> dict[str, Present]:
        """Where each OP stands, or stood, see `present`; in the order of ids, those that were there."""
        as_of = AsOf.of(at, known_at)
        with self._database.reading(snapshot=True) as connection:
            flags: dict[str, Any] = {
                row.op_id: row.details
                for row in connection.execute(latest_annotations(INPUTS_CHANGED, as_of))
            }
            rows = [_transition(row) for row in connection.execute(latest_of_all(as_of))]
        rows.sort(key=lambda row: row.op_id)
        return {row.op_id: as_present(row, flags.get(row.op_id)) for row in rows}

    def count_states(
        self, *, at: datetime | None = None, known_at: datetime | None = None
    ) -> dict[State, int]:
        """How many OPs are in each state, or were, see `present`; states without any are left out."""
        latest = latest_of_all(AsOf.of(at, known_at), op_transitions.c.to_state).subquery()
        query = sa.select(latest.c.to_state, sa.func.count()).group_by(latest.c.to_state)
        with self._database.reading() as connection:
            found = dict(connection.execute(query).tuples().all())
        return {state: found[state] for state in State if state in found}

    def history(self, op_id: str) -> list[Transition]:
        """All transitions of an OP, oldest first; raises `UnknownOp` for one without."""
        with self._database.reading() as connection:
            rows = [_transition(row) for row in connection.execute(_history(op_id)).all()]
        if not rows:
            known(None, op_id)
        return rows

    def stays(self, op_id: str) -> list[Stay]:
        """The history of an OP with the time it spent in each state; raises `UnknownOp` for one without."""
        steps = self.history(op_id)
        ends = [*(step.occurred_at for step in steps[1:]), None]
        return [Stay(step, end) for step, end in zip(steps, ends, strict=True)]

    def transitions(self, after: int = 0, chunk: int = 50_000) -> Iterator[list[Transition]]:
        """All transitions with ids above ``after``, in lists of ``chunk`` at most, by ascending id."""
        query = sa.select(op_transitions).order_by(op_transitions.c.transition_id)
        while rows := self._rows(query.where(op_transitions.c.transition_id > after).limit(chunk)):
            yield rows
            after = rows[-1].transition_id

    def annotations(self, op_id: str | None = None, kind: str | None = None) -> list[Annotation]:
        """Annotations, oldest first, of one OP and one kind where given."""
        query = sa.select(op_annotations).order_by(op_annotations.c.annotation_id)
        if op_id is not None:
            query = query.where(op_annotations.c.op_id == op_id)
        if kind is not None:
            query = query.where(op_annotations.c.kind == kind)
        with self._database.reading() as connection:
            return [Annotation(**row._mapping) for row in connection.execute(query)]

    def latest_ids(self) -> tuple[int, int]:
        """The highest ids of transitions and annotations; what they were tells who has moved since."""
        newest = (
            sa.select(sa.func.max(column)).scalar_subquery()
            for column in (op_transitions.c.transition_id, op_annotations.c.annotation_id)
        )
        with self._database.reading() as connection:
            transition, annotation = connection.execute(sa.select(*newest)).one()
        return transition or 0, annotation or 0

    def ops_since(self, transition_id: int, annotation_id: int) -> set[str]:
        """The OPs with transitions or annotations above these ids."""
        moved = sa.select(op_transitions.c.op_id).where(op_transitions.c.transition_id > transition_id)
        said = sa.select(op_annotations.c.op_id).where(op_annotations.c.annotation_id > annotation_id)
        with self._database.reading() as connection:
            return set(connection.execute(sa.union(moved, said)).scalars())

    def op_of_inversion(self, inversion_id: str) -> str | None:
        """The OP that an inversion is of; None when the ledger has no such inversion."""
        columns = op_transitions.c
        query = sa.select(columns.op_id).where(
            columns.inversion_id == inversion_id,
            # The words of the index of new inversion ids, so that it is used.
            columns.to_state == sa.literal_column(f"'{State.WORKING}'"),
            columns.from_state.in_([sa.literal_column(f"'{state}'") for state in NEW_INVERSION]),
        )
        with self._database.reading() as connection:
            return connection.execute(query).scalar()

    def _rows(self, query: sa.Select[tuple[object, ...]]) -> list[Transition]:
        with self._database.reading() as connection:
            return [as_transition(row) for row in connection.execute(query)]


def _history(op_id: str) -> sa.Select[Any]:
    return sa.select(op_transitions).where(op_transitions.c.op_id == op_id).order_by(op_transitions.c.seq)


def _transition(row: Sequence[Any]) -> Transition:
    """A transition from the columns of its table in their order, which is that of its fields."""
    transition_id, op_id, seq, from_state, to_state, *others = row
    start = None if from_state is None else State(from_state)
    return Transition(transition_id, op_id, seq, start, State(to_state), *others)
