"""What people say about an OP: how urgent it is, who should take it, remarks; and the latest of each.

All of it is appended to the annotations and moves nothing. What follows from it is the queue's.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import sqlalchemy as sa

from dagster_l2.ledger.base import Base, known
from dagster_l2.ledger.columns import as_details, text
from dagster_l2.ledger.errors import InvalidRecord
from dagster_l2.ledger.records import Annotation, Present
from dagster_l2.ledger.tables import op_annotations
from dagster_l2.ledger.work import add_annotation

PRIORITY = "priority"
"""Kind of annotation: a person set the priority; details ``level, reason``."""

NOTE = "note"
"""Kind of annotation: a remark; details ``text``."""

ASSIGNED = "assigned"
"""Kind of annotation: who should take the OP; details ``to``, None for nobody."""

PRIORITY_LEVELS = range(-9, 10)
"""The priorities that a person can set; 0 is what an OP has that nobody set one for."""


class People(Base):
    """What people say, and the latest of it for every OP."""

    def prioritize(self, op_id: str, level: int, *, reason: str, actor: str) -> Annotation:
        """Set the priority of an OP, from -9 to 9; 0 is that of any other.

        Raises
        ------
        UnknownOp
            When the ledger has no such OP.
        InvalidRecord
            When the level is another, or the reason or the name is empty.
        """
        if isinstance(level, bool) or not isinstance(level, int) or level not in PRIORITY_LEVELS:
            raise InvalidRecord(
                f"The priority {level!r} is none; give a whole number from {PRIORITY_LEVELS[0]} to"
                f" {PRIORITY_LEVELS[-1]}."
            )
        details = {"level": level, "reason": text(reason, "reason", longest=None)}
        return self._say(op_id, PRIORITY, actor, details)

    def note(self, op_id: str, remark: str, *, actor: str) -> Annotation:
        """Add a remark to an OP; raises `UnknownOp`, and `InvalidRecord` for an empty text or name."""
        return self._say(op_id, NOTE, actor, {"text": text(remark, "text of the note", longest=None)})

    def assign(self, op_id: str, to: str | None, *, actor: str) -> Annotation:
        """Say who should take an OP, None for nobody; raises `UnknownOp`, and `InvalidRecord` for no name."""
        details = {"to": None if to is None else text(to, "name of the one it is assigned to").strip()}
        return self._say(op_id, ASSIGNED, actor, details)

    def assigned_to(self, op_id: str) -> str | None:
        """Who should take an OP, None for nobody."""
        latest = self.latest_annotations([ASSIGNED], op_id).get(op_id, {})
        name: str | None = latest[ASSIGNED].details.get("to") if latest else None
        return name

    def latest_annotations(
        self, kinds: Sequence[str], op_id: str | None = None
    ) -> dict[str, dict[str, Annotation]]:
        """The latest annotation of each of these kinds: by OP, then by kind; of one OP where given.

        One query, however many OPs there are. An OP without any is not in it.
        """
        newest = (
            sa.select(sa.func.max(op_annotations.c.annotation_id))
            .where(op_annotations.c.kind.in_(kinds))
            .group_by(op_annotations.c.op_id, op_annotations.c.kind)
        )
        if op_id is not None:
            newest = newest.where(op_annotations.c.op_id == op_id)
        query = sa.select(op_annotations).where(op_annotations.c.annotation_id.in_(newest))
        latest: dict[str, dict[str, Annotation]] = {}
        with self._database.reading() as connection:
            for row in connection.execute(query):
                annotation = Annotation(*row)
                latest.setdefault(annotation.op_id, {})[annotation.kind] = annotation
        return latest

    def _say(self, op_id: str, kind: str, actor: str, details: Mapping[str, Any]) -> Annotation:
        """Append an annotation, unless the same person said the same last: then that one is given."""
        content = as_details(details)

        def work(connection: sa.Connection, present: Present | None) -> Annotation:
            known(present, op_id)
            query = (
                sa.select(op_annotations)
                .where(op_annotations.c.op_id == op_id, op_annotations.c.kind == kind)
                .order_by(op_annotations.c.annotation_id.desc())
                .limit(1)
            )
            row = connection.execute(query).first()
            if row is not None and (row.actor, row.details) == (actor, content):
                return Annotation(**row._mapping)
            return add_annotation(connection, op_id, kind, actor, content)

        return self._write(op_id, work)
