"""Verdicts into transitions: what the warehouse says now against where each OP stands.

`moves` is the rule, without a database; `Deciding.decide` applies it. It is level-triggered: what was said
before doesn't matter, and saying the same again appends nothing.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import sqlalchemy as sa

from dagster_l2.ledger.asof import AsOf, latest_annotations, latest_of_all
from dagster_l2.ledger.base import INPUTS_CHANGED, as_present, as_transition, last_in, next_row, shown
from dagster_l2.ledger.columns import Serialised, serialised, text
from dagster_l2.ledger.errors import (
    Conflict,
    IllegalTransition,
    InvalidRecord,
    LedgerError,
    LedgerUnavailable,
)
from dagster_l2.ledger.reading import Reading
from dagster_l2.ledger.records import Decisions, FailedVerdict, Present, Transition, Verdict
from dagster_l2.ledger.states import HAS_INVERSION, State
from dagster_l2.ledger.tables import op_annotations, op_transitions
from dagster_l2.ledger.work import add_annotation

NO_DATASETS = "no current datasets"
NOT_IN_VERDICTS = "not among the observing programs of the store any more"

_OPS_PER_TRANSACTION = 1_000
_STATES = {str(state): state for state in State}
_NOW = AsOf(None, None)
_FLAGS = latest_annotations(INPUTS_CHANGED, _NOW)


class Move(NamedTuple):
    """One transition to append."""

    to_state: State
    cause: str


def moves(state: State | None, package_hash: str | None, verdict: Verdict | None) -> list[Move]:
    """The transitions that bring an OP to where the verdict wants it.

    Parameters
    ----------
    state : State or None
        Where it stands; None for an OP without history.
    package_hash : str or None
        The inputs hash of its latest transition; counts in Preprocessed.
    verdict : Verdict or None
        None when the OP is absent from the verdicts.
    """
    return list(_moves(state, package_hash, verdict))


def _moves(state: State | None, package_hash: str | None, verdict: Verdict | None) -> Iterator[Move]:
    if state is None:
        yield Move(State.DISCOVERED, "found by the scan")
        state = State.DISCOVERED
    if state is State.NOT_INVERTIBLE:
        if verdict is not None and verdict.has_datasets and verdict.is_complete and verdict.is_invertible:
            yield Move(State.INVERTIBLE, "all criteria passed")
        return
    if state not in (State.DISCOVERED, State.INVERTIBLE, State.PREPROCESSED):
        return
    if verdict is None:
        yield Move(State.NOT_INVERTIBLE, NOT_IN_VERDICTS)
    elif not verdict.has_datasets:
        yield Move(State.NOT_INVERTIBLE, NO_DATASETS)
    elif state is State.DISCOVERED and not verdict.is_complete:
        return
    elif not verdict.is_invertible:
        failed = ", ".join(verdict.failed_criteria) or "not said which"
        yield Move(State.NOT_INVERTIBLE, f"failed criteria: {failed}")
    elif state is State.DISCOVERED:
        yield Move(State.INVERTIBLE, "all criteria passed")
    elif state is State.PREPROCESSED and verdict.inputs_hash != package_hash:
        yield Move(State.INVERTIBLE, "the input package is out of date")


def flag(
    present: Present | Standing, last: dict[str, Any] | None, verdict: Verdict | None
) -> dict[str, Any] | None:
    """The ``inputs_changed`` annotation an OP from Working on needs now, None when there is nothing new.

    Parameters
    ----------
    last : dict or None
        The latest such annotation. One about another package than the claimed one doesn't count.
    """
    if present.state not in HAS_INVERSION:
        return None
    claimed = present.inputs_hash
    current = verdict.inputs_hash if verdict is not None and verdict.has_datasets else None
    said = claimed if last is None or last["claimed_inputs_hash"] != claimed else last["inputs_hash"]
    if current == said:
        return None
    return {
        "inputs_hash": current,
        "claimed_inputs_hash": claimed,
        "restored": current == claimed,
    }


def changes(package: Transition | None, verdict: Verdict | None) -> dict[str, list[str]]:
    """Which datasets came and went since ``package``, the last Preprocessed; empty when not told.

    Not compared with the present details: Inverted and Published have only what was inverted.
    """
    claimed = set(package.details.get("dataset_ids", [])) if package is not None else set()
    if verdict is None or not verdict.has_datasets:
        return {"added": [], "removed": sorted(claimed)}
    current = verdict.details.get("dataset_ids")
    if current is None:
        return {}
    return {"added": sorted(set(current) - claimed), "removed": sorted(claimed - set(current))}


class Standing(NamedTuple):
    """What of an OP's present state a verdict is compared with."""

    state: State
    inputs_hash: str | None


class _Case(NamedTuple):
    """An OP to settle, with the details its transitions get, written as JSON once."""

    op_id: str
    verdict: Verdict | None
    details: Serialised


class _Settled(NamedTuple):
    """What became of a case."""

    op_id: str
    moves: list[tuple[State | None, State]]
    is_flagged: bool = False
    failure: str | None = None


class Deciding(Reading):
    """The comparison of verdicts with the ledger."""

    def decide(
        self,
        verdicts: Iterable[Verdict],
        *,
        actor: str,
        run_id: str | None = None,
        details: Mapping[str, Any] | None = None,
    ) -> Decisions:
        """Append what the verdicts change, some thousand OPs a transaction.

        A verdict that can't be recorded is reported alone. A pass that is cut short has settled some OPs
        and not the others; the next one goes on.

        Parameters
        ----------
        verdicts : iterable of Verdict
            One for each OP of the store: an OP of the ledger that is missing here has left the store.
        details : mapping, optional
            What each transition of this pass gets in its details beside its verdict's.

        Raises
        ------
        InvalidRecord
            When there is no verdict at all while the ledger has OPs; nothing is moved then.
        LedgerUnavailable
            When the database can't be used; what was appended before stays, the next call goes on.
        """
        said, failed = _by_op(verdicts)
        standings, flags = self._standings()
        if standings and not said and not failed:
            raise InvalidRecord(
                f"There is no verdict at all while the ledger has {len(standings)} OPs, so nothing was moved;"
                " check the warehouse."
            )
        counts: Counter[tuple[State | None, State]] = Counter()
        moved: list[str] = []
        flagged: list[str] = []
        ops = sorted((said.keys() | standings.keys()) - {failure.op_id for failure in failed})
        differing = [op for op in ops if _differs(standings.get(op), flags.get(op), said.get(op))]
        unchanged = len(ops) - len(differing)
        for start in range(0, len(differing), _OPS_PER_TRANSACTION):
            for done in self._settle_all(
                differing[start : start + _OPS_PER_TRANSACTION], said, actor, run_id, details or {}
            ):
                counts.update(done.moves)
                if done.failure is not None:
                    failed.append(FailedVerdict(done.op_id, done.failure))
                elif done.is_flagged:
                    flagged.append(done.op_id)
                elif done.moves:
                    moved.append(done.op_id)
                else:
                    unchanged += 1
        return Decisions(dict(counts), moved, flagged, unchanged, failed)

    def _standings(self) -> tuple[dict[str, Standing], dict[str, dict[str, Any]]]:
        """Where each OP stands, and the latest flag of those that have one; the details are not read."""
        columns = (op_transitions.c.op_id, op_transitions.c.to_state, op_transitions.c.inputs_hash)
        with self._database.reading(snapshot=True) as connection:
            flags = {row.op_id: row.details for row in connection.execute(_FLAGS)}
            rows = connection.execute(latest_of_all(_NOW, *columns))
            return {op_id: Standing(_STATES[state], hash_) for op_id, state, hash_ in rows}, flags

    def _settle_all(
        self,
        op_ids: Sequence[str],
        said: Mapping[str, Verdict],
        actor: str,
        run_id: str | None,
        details: Mapping[str, Any],
    ) -> Iterator[_Settled]:
        cases: list[_Case] = []
        # What needs no database is done before the transaction: SQLite has one writer at a time.
        for op_id in op_ids:
            try:
                told = {**_details(said.get(op_id)), **details}
                case = _Case(text(op_id, "OP id"), said.get(op_id), serialised(told))
            except InvalidRecord as error:
                yield _Settled(op_id, [], failure=str(error))
            else:
                cases.append(case)
        yield from self._settle(cases, actor, run_id)

    def _settle(self, cases: Sequence[_Case], actor: str, run_id: str | None) -> list[_Settled]:
        """Settle ``cases`` in one transaction; if that is refused each half alone, down to the bad one.

        No locks are taken on PostgreSQL: when another writer moves one of the OPs meanwhile, the unique
        (op_id, seq) refuses. The cases are in the order of their ids, so that two such passes don't wait
        for each other in a circle.
        """
        if len(cases) < 2:
            return [self._settle_one(case, actor, run_id) for case in cases]
        try:
            with self._database.writing() as connection:
                presents = _presents(connection, [case.op_id for case in cases])
                return _append(connection, cases, presents, actor, run_id)
        except LedgerUnavailable:
            raise
        except LedgerError:
            middle = len(cases) // 2
            halves = cases[:middle], cases[middle:]
            return [done for half in halves for done in self._settle(half, actor, run_id)]

    def _settle_one(self, case: _Case, actor: str, run_id: str | None) -> _Settled:
        def work(connection: sa.Connection, present: Present | None) -> _Settled:
            presents = {} if present is None else {case.op_id: present}
            (done,) = _append(connection, [case], presents, actor, run_id)
            return done

        try:
            try:
                return self._write(case.op_id, work)
            except Conflict:
                return self._write(case.op_id, work)  # judged anew on what the other writer left
        except LedgerUnavailable:
            raise
        except LedgerError as error:
            return _Settled(case.op_id, [], failure=str(error))


def _append(
    connection: sa.Connection,
    cases: Sequence[_Case],
    presents: Mapping[str, Present],
    actor: str,
    run_id: str | None,
) -> list[_Settled]:
    """Append what the cases need, judged on their present states inside the caller's transaction."""
    rows: list[dict[str, Any]] = []
    settled: list[_Settled] = []
    flags = _flags(connection, presents)
    for case in cases:
        present = presents.get(case.op_id)
        try:
            new = _rows(present, case, actor, run_id)
            is_flagged = present is not None and _note(
                connection, present, flags.get(case.op_id), case.verdict, actor, run_id
            )
        except (InvalidRecord, IllegalTransition) as error:
            settled.append(_Settled(case.op_id, [], failure=str(error)))
            continue
        rows += new
        moved = [(row["from_state"], row["to_state"]) for row in new]
        settled.append(_Settled(case.op_id, moved, is_flagged))
    if rows:
        connection.execute(sa.insert(op_transitions), rows)
    return settled


def _rows(present: Present | None, case: _Case, actor: str, run_id: str | None) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = []
    verdict, here = case.verdict, present
    for move in moves(*_standing(present), verdict):
        row = next_row(
            here,
            case.op_id,
            move.to_state,
            actor=actor,
            cause=move.cause,
            inputs_hash=verdict.inputs_hash if verdict else None,
            rule_version=verdict.rule_version if verdict else None,
            run_id=run_id,
            details=case.details,
        )
        rows.append(row)
        here = as_present(Transition(transition_id=0, **row), None)
    return rows


def _note(
    connection: sa.Connection,
    present: Present,
    last: dict[str, Any] | None,
    verdict: Verdict | None,
    actor: str,
    run_id: str | None,
) -> bool:
    """Flag changed inputs where there is something new to say of them."""
    note = flag(present, last, verdict)
    if note is None:
        return False
    package = last_in(connection, present.op_id, State.PREPROCESSED)
    note["changes"] = {} if note["restored"] else changes(package, verdict)
    note["run_id"] = run_id
    add_annotation(connection, present.op_id, INPUTS_CHANGED, actor, note)
    return True


def _presents(connection: sa.Connection, op_ids: Sequence[str]) -> dict[str, Present]:
    """The present states of those OPs that the ledger knows, without their flags."""
    latest = (
        sa.select(op_transitions.c.op_id, sa.func.max(op_transitions.c.seq).label("seq"))
        .where(op_transitions.c.op_id.in_(op_ids))
        .group_by(op_transitions.c.op_id)
        .subquery()
    )
    is_latest = (op_transitions.c.op_id == latest.c.op_id) & (op_transitions.c.seq == latest.c.seq)
    rows = connection.execute(sa.select(op_transitions).join(latest, is_latest))
    return {row.op_id: as_present(as_transition(row), None) for row in rows}


def _flags(connection: sa.Connection, presents: Mapping[str, Present]) -> dict[str, dict[str, Any]]:
    """The latest flags of those OPs that can be flagged."""
    carrying = [op_id for op_id, present in presents.items() if present.state in HAS_INVERSION]
    if not carrying:
        return {}
    rows = connection.execute(_FLAGS.where(op_annotations.c.op_id.in_(carrying)))
    return {row.op_id: row.details for row in rows}


def _by_op(verdicts: Iterable[Verdict]) -> tuple[dict[str, Verdict], list[FailedVerdict]]:
    said: dict[str, Verdict] = {}
    twice: dict[str, FailedVerdict] = {}
    for verdict in verdicts:
        if said.setdefault(verdict.op_id, verdict) is not verdict:
            reason = f"There are several verdicts for OP {shown(verdict.op_id)}; one is expected."
            twice[verdict.op_id] = FailedVerdict(verdict.op_id, reason)
    return {op_id: verdict for op_id, verdict in said.items() if op_id not in twice}, list(twice.values())


def _standing(present: Present | Standing | None) -> tuple[State | None, str | None]:
    return (None, None) if present is None else (present.state, present.inputs_hash)


def _differs(present: Standing | None, last: dict[str, Any] | None, verdict: Verdict | None) -> bool:
    if moves(*_standing(present), verdict):
        return True
    return present is not None and flag(present, last, verdict) is not None


def _details(verdict: Verdict | None) -> dict[str, Any]:
    if verdict is None:
        return {"failed_criteria": [], "warnings": []}
    return {
        **verdict.details,
        "failed_criteria": list(verdict.failed_criteria),
        "warnings": list(verdict.warnings),
    }
