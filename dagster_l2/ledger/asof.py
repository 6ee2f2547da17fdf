"""The queries for where OPs stand, now or as of a moment: what was true then, what was known then.

Both times of an OP rise with ``seq``, so its state as of then is the highest ``seq`` that had occurred and
was recorded. Only the queries are here; ``reading`` runs them.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any, Self

import sqlalchemy as sa

from dagster_l2.ledger.columns import utc
from dagster_l2.ledger.tables import op_annotations, op_transitions


@dataclass(frozen=True, slots=True)
class AsOf:
    """A moment to look back to, in UTC; None for the present.

    ``at`` is about what had happened (``occurred_at``), ``known_at`` about what was recorded by then.
    """

    at: datetime | None
    known_at: datetime | None

    @classmethod
    def of(cls, at: datetime | None, known_at: datetime | None) -> Self:
        """Of two times with a zone; `InvalidRecord` for one that says none."""
        return cls(None if at is None else utc(at), None if known_at is None else utc(known_at))

    def __str__(self) -> str:
        parts = []
        if self.at is not None:
            parts.append(f"at {self.at:%Y-%m-%d %H:%M:%S} UTC")
        if self.known_at is not None:
            parts.append(f"as known at {self.known_at:%Y-%m-%d %H:%M:%S} UTC")
        return ", ".join(parts) or "now"

    def transitions(self, table: sa.FromClause = op_transitions) -> list[sa.ColumnElement[bool]]:
        """The conditions on a transition that had occurred and was known."""
        bounds = ((table.c.occurred_at, self.at), (table.c.recorded_at, self.known_at))
        return [column <= moment for column, moment in bounds if moment is not None]

    def annotations(self) -> list[sa.ColumnElement[bool]]:
        """The conditions on an annotation; it happens when it is recorded."""
        moments = [moment for moment in (self.at, self.known_at) if moment is not None]
        return [op_annotations.c.recorded_at <= min(moments)] if moments else []


def latest_of_one(op_id: str, kind: str, as_of: AsOf) -> sa.Select[Any]:
    """The latest transition of an OP, with the details of its latest annotation of ``kind`` as ``flag``."""
    flag = (
        sa.select(op_annotations.c.details)
        .where(op_annotations.c.kind == kind, op_annotations.c.op_id == op_id, *as_of.annotations())
        .order_by(op_annotations.c.annotation_id.desc())
        .limit(1)
        .scalar_subquery()
        .label("flag")
    )
    return (
        sa.select(op_transitions, flag)
        .where(op_transitions.c.op_id == op_id, *as_of.transitions())
        .order_by(op_transitions.c.seq.desc())
        .limit(1)
    )


def latest_of_all(as_of: AsOf, *columns: sa.ColumnElement[Any]) -> sa.Select[Any]:
    """``columns`` of the latest transition of each OP, all of them unless given.

    It walks the unique index from OP to OP and looks up one row of each. Grouping would read every entry
    of the index, and as of a moment every row.
    """
    latest = op_transitions.alias("latest")
    later = op_transitions.alias("later")
    ops = sa.select(sa.func.min(op_transitions.c.op_id).label("op_id")).cte("ops", recursive=True)
    following = sa.select(sa.func.min(later.c.op_id)).where(later.c.op_id > ops.c.op_id).scalar_subquery()
    ops = ops.union_all(sa.select(following).where(ops.c.op_id.is_not(None)))
    newest = (
        sa.select(latest.c.transition_id)
        .where(latest.c.op_id == ops.c.op_id, *as_of.transitions(latest))
        .order_by(latest.c.seq.desc())
        .limit(1)
        .scalar_subquery()
    )
    return sa.select(*(columns or (op_transitions,))).select_from(
        ops.join(op_transitions, op_transitions.c.transition_id == newest)
    )


def latest_annotations(kind: str, as_of: AsOf) -> sa.Select[Any]:
    """The latest annotation of ``kind`` of each OP that has one."""
    newest = (
        sa.select(sa.func.max(op_annotations.c.annotation_id))
        .where(op_annotations.c.kind == kind, *as_of.annotations())
        .group_by(op_annotations.c.op_id)
    )
    return sa.select(op_annotations.c.op_id, op_annotations.c.details).where(
        op_annotations.c.annotation_id.in_(newest)
    )
