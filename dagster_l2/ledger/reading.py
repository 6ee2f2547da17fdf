"""What the ledger answers: present states, histories, annotations, and the export of transitions.

Nothing here writes. Ranking and overdue are the warehouse's.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterable, Iterator

import sqlalchemy as sa

from dagster_l2.ledger.base import (
    Base,
    as_present,
    as_transition,
    known,
    latest_flags,
    present_or_none,
)
from dagster_l2.ledger.records import Annotation, Present, Transition
from dagster_l2.ledger.tables import op_annotations, op_transitions

_IDS_PER_QUERY = 5_000  # SQLite takes 32 766 parameters at most


class Reading(Base):
    """The questions a ledger answers."""

    def present(self, op_id: str) -> Present:
        """Where an OP stands; raises `UnknownOp` for one without history."""
        with self._database.reading() as connection:
            return known(present_or_none(connection, op_id), op_id)

    def present_all(self) -> dict[str, Present]:
        """Where each OP stands, in the order of ids."""
        latest = (
            sa.select(op_transitions.c.op_id, sa.func.max(op_transitions.c.seq).label("seq"))
            .group_by(op_transitions.c.op_id)
            .subquery()
        )
        is_latest = (op_transitions.c.op_id == latest.c.op_id) & (op_transitions.c.seq == latest.c.seq)
        query = sa.select(op_transitions).join(latest, is_latest)
        with self._database.reading() as connection:
            flags = latest_flags(connection)
            rows = [as_transition(row) for row in connection.execute(query)]
        rows.sort(key=lambda row: row.op_id)
        return {row.op_id: as_present(row, flags.get(row.op_id)) for row in rows}

    def history(self, op_id: str) -> list[Transition]:
        """All transitions of an OP, oldest first; raises `UnknownOp` for one without."""
        query = (
            sa.select(op_transitions).where(op_transitions.c.op_id == op_id).order_by(op_transitions.c.seq)
        )
        with self._database.reading() as connection:
            rows = [as_transition(row) for row in connection.execute(query)]
        if not rows:
            known(None, op_id)
        return rows

    def transition_ids(self, after: int = 0) -> array[int]:
        """The ids of all transitions above ``after``, ascending, as 64-bit integers.

        On PostgreSQL a lower id can become visible after a higher one, so an exporter compares these
        with the ids it has, instead of remembering the highest.
        """
        ids = array("q")
        query = (
            sa.select(op_transitions.c.transition_id)
            .where(op_transitions.c.transition_id > after)
            .order_by(op_transitions.c.transition_id)
        )
        with self._database.reading() as connection:
            result = connection.execution_options(yield_per=100_000).execute(query)
            for part in result.scalars().partitions():
                ids.extend(part)
        return ids

    def transitions(
        self, after: int = 0, ids: Iterable[int] | None = None, chunk: int = 50_000
    ) -> Iterator[list[Transition]]:
        """Transitions in lists of ``chunk`` at most, by ascending id.

        Parameters
        ----------
        after : int
            Only ids above this one.
        ids : iterable of int, optional
            Only these; ids the ledger doesn't have are passed over.
        """
        query = sa.select(op_transitions).order_by(op_transitions.c.transition_id)
        column = op_transitions.c.transition_id
        if ids is not None:
            wanted = sorted({number for number in ids if number > after})
            for start in range(0, len(wanted), chunk):
                part = wanted[start : start + chunk]
                found: list[Transition] = []
                for first in range(0, len(part), _IDS_PER_QUERY):
                    found += self._rows(query.where(column.in_(part[first : first + _IDS_PER_QUERY])))
                if found:
                    yield found
            return
        while rows := self._rows(query.where(column > after).limit(chunk)):
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

    def _rows(self, query: sa.Select[tuple[object, ...]]) -> list[Transition]:
        with self._database.reading() as connection:
            return [as_transition(row) for row in connection.execute(query)]
