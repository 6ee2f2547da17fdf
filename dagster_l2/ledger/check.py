"""A check of a whole ledger: the database is as this code would make it, and every history replays.

It opens the database as it is and changes nothing. The schema and the guards are compared in ``shape``, the
histories in ``replay``; here they are read and put together.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import sqlalchemy as sa

from dagster_l2.base.columns import UtcDateTime
from dagster_l2.ledger.database import reach_database
from dagster_l2.ledger.migrate import head, revision
from dagster_l2.ledger.replay import Finding, Replay, Step
from dagster_l2.ledger.shape import has_columns, shape_findings
from dagster_l2.ledger.states import NEW_INVERSION, State
from dagster_l2.ledger.tables import (
    op_annotations,
    op_transitions,
    science_event_outcomes,
    science_events,
)

KEPT_FINDINGS = 1_000
_PAGE = 10_000

Progress = Callable[[int, int], None]
"""Called now and then with the rows done and about how many there are."""


@dataclass
class Report:
    """What a check found. Of very many findings the first `KEPT_FINDINGS` are kept, all are counted."""

    place: str
    revision: str | None
    ops: int = 0
    transitions: int = 0
    findings: list[Finding] = field(default_factory=list)
    found: int = 0
    remarks: list[Finding] = field(default_factory=list)
    remarked: int = 0

    def add(self, finding: Finding) -> None:
        """Take in a finding or a remark."""
        if finding.is_remark:
            self.remarked += 1
        else:
            self.found += 1
        kept = self.remarks if finding.is_remark else self.findings
        if len(kept) < KEPT_FINDINGS:
            kept.append(finding)

    @property
    def is_in_order(self) -> bool:
        """Whether nothing was found; remarks don't count."""
        return not self.found


def check_database(
    url: str,
    *,
    schema: str = "l2",
    others: Sequence[sa.Table] = (),
    progress: Progress | None = None,
) -> Report:
    """Check the ledger at ``url``: revision, schema, guards, edges, and every row against the others.

    Parameters
    ----------
    others : sequence of Table
        The tables of other rooms that lie in the same database.
    progress : callable, optional
        Called with the transitions replayed so far, and about how many there are.

    Raises
    ------
    LedgerUnavailable
        When there is no database, or it can't be read.
    """
    database = reach_database(url, schema, only_look=True)
    try:
        with database.reading(snapshot=True) as connection:
            report = Report(database.place, revision(connection, database.schema))
            if report.revision != head():
                report.add(_wrong_revision(report.revision))
                return report
            for sentence in shape_findings(connection, database.schema, others):
                report.add(Finding(sentence))
            if has_columns(connection, database.schema, op_transitions.metadata.sorted_tables):
                _check_rows(connection, report, progress or (lambda _done, _all: None))
            return report
    finally:
        database.engine.dispose()


def _check_rows(connection: sa.Connection, report: Report, progress: Progress) -> None:
    replay = Replay()
    for finding in itertools.chain(
        _replayed(connection, replay, progress),
        _inversions(connection),
        _hand_overs(connection),
        _strangers(connection),
    ):
        report.add(finding)
    report.ops, report.transitions = replay.ops, replay.steps


def _wrong_revision(found: str | None) -> Finding:
    if found is None:
        return Finding("The database has no ledger in it; `l2 db upgrade` makes one.")
    return Finding(
        f"The database is at revision {found}, this version works with {head()}; `l2 db upgrade` brings it"
        " there, or install the version that made it."
    )


def _replayed(connection: sa.Connection, replay: Replay, progress: Progress) -> Iterator[Finding]:
    t = op_transitions.c
    about = connection.execute(sa.select(sa.func.max(t.transition_id))).scalar() or 0
    is_sqlite = connection.dialect.name == "sqlite"

    def stored(column: sa.Column[Any]) -> sa.ColumnElement[Any]:
        # As text: what is no time must be found, not stop the check.
        return (
            sa.type_coerce(column, sa.Text) if is_sqlite and isinstance(column.type, UtcDateTime) else column
        )

    columns = (t.op_id, t.seq, t.from_state, t.to_state, t.occurred_at, t.recorded_at, t.inversion_id)
    is_json = sa.func.json_valid(t.details) if is_sqlite else sa.true()
    query = sa.select(*map(stored, columns), is_json).order_by(t.op_id, t.seq)
    # For this query alone: on the connection the option would stay.
    result = connection.execute(query, execution_options={"yield_per": _PAGE})
    for page in result.partitions():
        yield from replay.run(map(Step._make, page))
        progress(replay.steps, max(about, replay.steps))


def _inversions(connection: sa.Connection) -> Iterator[Finding]:
    """Inversion ids that entered Working anew more than once."""
    t = op_transitions.c
    is_new = (t.to_state == State.WORKING) & t.from_state.in_(NEW_INVERSION)
    twice = (
        sa.select(t.inversion_id)
        .where(is_new)
        .group_by(t.inversion_id)
        .having(sa.func.count() > 1)
        .subquery()
    )
    query = (
        sa.select(t.op_id, t.seq, t.inversion_id)
        .where(is_new, t.inversion_id.in_(sa.select(twice.c.inversion_id)))
        .order_by(t.inversion_id, t.transition_id)
    )
    for row in connection.execute(query):
        yield Finding(f"its inversion id {row.inversion_id} was given more than once", row.op_id, row.seq)


def _hand_overs(connection: sa.Connection) -> Iterator[Finding]:
    """Accepted outcomes and the steps to Inverted that belong together, and those that stand alone."""
    t, e, o = op_transitions.c, science_events.c, science_event_outcomes.c
    event_id = t.details["event_id"].as_string()
    if connection.dialect.name == "sqlite":
        event_id = sa.case((sa.func.json_valid(t.details) == 1, event_id))
    became_inverted = (t.to_state == State.INVERTED) & (t.from_state == State.WORKING)
    belongs = (
        (t.op_id == e.op_id) & (t.inversion_id == e.inversion_id) & (event_id == e.event_id) & became_inverted
    )
    accepted = sa.select(e.event_id, e.op_id).join(science_event_outcomes, e.event_id == o.event_id)
    accepted = accepted.where(o.outcome == "accepted")
    for row in connection.execute(accepted.where(~sa.exists().where(belongs)).order_by(e.event_id)):
        yield Finding(f"hand-over {row.event_id} was accepted, but no step to Inverted names it", row.op_id)
    is_accepted = sa.exists().where(belongs, e.event_id == o.event_id, o.outcome == "accepted")
    alone = sa.select(t.op_id, t.seq).where(became_inverted, ~is_accepted.correlate(op_transitions))
    for row in connection.execute(alone.order_by(t.op_id, t.seq)):
        yield Finding("it became Inverted without an accepted hand-over", row.op_id, row.seq)
    lost = sa.select(o.event_id).where(~sa.exists().where(e.event_id == o.event_id)).order_by(o.event_id)
    for row in connection.execute(lost):
        yield Finding(f"The outcome of hand-over {row.event_id} is there, but not the hand-over.")


def _strangers(connection: sa.Connection) -> Iterator[Finding]:
    """Annotations and events of OPs without history, events on inversions that their OP never had."""
    t, e, a = op_transitions.c, science_events.c, op_annotations.c
    query = sa.select(a.annotation_id, a.op_id).where(~sa.exists().where(t.op_id == a.op_id))
    for row in connection.execute(query.order_by(a.annotation_id)):
        yield Finding(f"annotation {row.annotation_id} is about it, but it has no history", row.op_id)
    has_inversion = sa.exists().where(t.op_id == e.op_id, t.inversion_id == e.inversion_id)
    query = sa.select(e.event_id, e.op_id, e.inversion_id).where(~has_inversion).order_by(e.event_id)
    for row in connection.execute(query):
        yield Finding(
            f"hand-over {row.event_id} is about inversion {row.inversion_id}, which it never had", row.op_id
        )
