"""Verdicts into transitions: what the warehouse says now against where each OP stands.

`moves` is the rule, without a database; `Deciding.decide` applies it. It is level-triggered: what was said
before doesn't matter, and saying the same again appends nothing.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple

import sqlalchemy as sa

from dagster_l2.ledger.base import (
    INPUTS_CHANGED,
    as_present,
    insert,
    last_in,
    latest_flag,
    latest_flags,
    shown,
)
from dagster_l2.ledger.errors import Conflict, InvalidRecord, LedgerError, LedgerUnavailable
from dagster_l2.ledger.reading import Reading
from dagster_l2.ledger.records import Decisions, FailedVerdict, Present, Transition, Verdict
from dagster_l2.ledger.states import HAS_INVERSION, State
from dagster_l2.ledger.work import add_annotation

NO_DATASETS = "no current datasets"
NOT_IN_VERDICTS = "not among the observing programs of the store any more"


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


def flag(present: Present, last: dict[str, Any] | None, verdict: Verdict | None) -> dict[str, Any] | None:
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


class Deciding(Reading):
    """The comparison of verdicts with the ledger."""

    def decide(self, verdicts: Iterable[Verdict], *, actor: str, run_id: str | None = None) -> Decisions:
        """Append what the verdicts change, one transaction an OP.

        Parameters
        ----------
        verdicts : iterable of Verdict
            One for each OP of the store: an OP of the ledger that is missing here has left the store.

        Raises
        ------
        InvalidRecord
            When there is no verdict at all while the ledger has OPs; nothing is moved then.
        LedgerUnavailable
            When the database can't be used; what was appended before stays, the next call goes on.
        """
        said, failed = _by_op(verdicts)
        present = self.present_all()
        if present and not said and not failed:
            raise InvalidRecord(
                f"There is no verdict at all while the ledger has {len(present)} OPs, so nothing was moved;"
                " check the warehouse."
            )
        counts: Counter[tuple[State | None, State]] = Counter()
        moved: list[str] = []
        flagged: list[str] = []
        refused = {failure.op_id for failure in failed}
        ops = sorted((said.keys() | present.keys()) - refused)
        with self._database.reading() as connection:
            flags = latest_flags(connection)
        for op_id in ops:
            here, verdict = present.get(op_id), said.get(op_id)
            if not _differs(here, flags.get(op_id), verdict):
                continue
            try:
                appended, is_flagged = self._settle_op(op_id, verdict, actor, run_id)
            except LedgerUnavailable:
                raise
            except LedgerError as error:
                failed.append(FailedVerdict(op_id, str(error)))
                refused.add(op_id)
                continue
            counts.update((row.from_state, row.to_state) for row in appended)
            moved += [op_id] if appended else []
            flagged += [op_id] if is_flagged else []
        unchanged = len(set(ops) - refused - set(moved) - set(flagged))
        return Decisions(dict(counts), moved, flagged, unchanged, failed)

    def _settle_op(
        self, op_id: str, verdict: Verdict | None, actor: str, run_id: str | None
    ) -> tuple[list[Transition], bool]:
        """Append what one OP needs, judged anew on its present state inside the transaction."""

        def work(connection: sa.Connection, present: Present | None) -> tuple[list[Transition], bool]:
            appended: list[Transition] = []
            here = present
            for move in moves(*_standing(present), verdict):
                row = insert(
                    connection,
                    here,
                    op_id,
                    move.to_state,
                    actor=actor,
                    cause=move.cause,
                    inputs_hash=verdict.inputs_hash if verdict else None,
                    rule_version=verdict.rule_version if verdict else None,
                    run_id=run_id,
                    details=_details(verdict),
                )
                appended.append(row)
                here = as_present(row, None)
            note = flag(present, latest_flag(connection, op_id), verdict) if present is not None else None
            if note is not None:
                package = last_in(connection, op_id, State.PREPROCESSED)
                note["changes"] = {} if note["restored"] else changes(package, verdict)
                note["run_id"] = run_id
                add_annotation(connection, op_id, INPUTS_CHANGED, actor, note)
            return appended, note is not None

        try:
            return self._write(op_id, work)
        except Conflict:
            return self._write(op_id, work)


def _by_op(verdicts: Iterable[Verdict]) -> tuple[dict[str, Verdict], list[FailedVerdict]]:
    said: dict[str, Verdict] = {}
    twice: dict[str, FailedVerdict] = {}
    for verdict in verdicts:
        if said.setdefault(verdict.op_id, verdict) is not verdict:
            reason = f"There are several verdicts for OP {shown(verdict.op_id)}; one is expected."
            twice[verdict.op_id] = FailedVerdict(verdict.op_id, reason)
    return {op_id: verdict for op_id, verdict in said.items() if op_id not in twice}, list(twice.values())


def _standing(present: Present | None) -> tuple[State | None, str | None]:
    return (None, None) if present is None else (present.state, present.inputs_hash)


def _differs(present: Present | None, last: dict[str, Any] | None, verdict: Verdict | None) -> bool:
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
