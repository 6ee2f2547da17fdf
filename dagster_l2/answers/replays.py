"""Deciding again, from the records that were known then and by the rules of then: is the answer the same.

The records are bronze's, the rules are the kept ones, the comparison with the state of then is the ledger's.
Nothing is written.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

from dagster_l2.answers.what_if import rules_in_force
from dagster_l2.base.errors import WrongUse
from dagster_l2.ledger import EDGES, Ledger, Transition, moves
from dagster_l2.pipeline.deciding import FACTS, Basis, files_fingerprint, is_decision, verdict_of
from dagster_l2.rules import Judged, RuleBook, judge, kept_books
from dagster_l2.sources import ScanTables

Row = dict[str, Any]


class NoDecision(WrongUse):
    """There is no such step, or no verdict made it."""


@dataclass(frozen=True, slots=True)
class Replayed:
    """A decision and what came out when it was made again.

    ``then`` and ``again`` have ``to_state, cause, inputs_hash, rule_version``, the criteria that failed, the
    warnings and the facts of the verdict; ``today`` is what today's rules say of the same records (None where
    they were applied anyway). ``differences`` names what is not the same. ``are_records_exact`` and
    ``are_rules_exact`` say whether these were certainly those of then; ``remarks`` say why not.
    """

    op_id: str
    seq: int
    from_state: str | None
    decided_at: datetime
    known_at: datetime
    then: Row
    again: Row
    today: Row | None
    are_records_exact: bool
    are_rules_exact: bool
    remarks: list[str] = field(default_factory=list)

    @property
    def differences(self) -> list[str]:
        """The names of what came out differently; not the version of rules that could not be applied."""
        names = self.then if self.are_rules_exact else self.then.keys() - {"rule_version"}
        return sorted(name for name in names if self.then[name] != self.again[name])

    @property
    def is_equal(self) -> bool:
        """Whether all of it is the same."""
        return not self.differences


@dataclass(frozen=True, slots=True)
class _Step:
    """A transition, and the one before it."""

    step: Transition
    before: Transition | None


def replay(ledger: Ledger, lake: Path, op_id: str, seq: int | None = None) -> list[Replayed]:
    """Make the decision ``seq`` of an OP again, or all of its decisions.

    Raises
    ------
    UnknownOp
        When the ledger has no such OP.
    NoDecision
        When it has no such step, or the step was made by something else than a verdict.
    NoRules
        When no rules are kept yet.
    """
    steps = _with_before(ledger.history(op_id))
    if seq is None:
        return _replay(lake, [step for step in steps if is_decision(step.step)])
    wanted = next((step for step in steps if step.step.seq == seq), None)
    if wanted is None:
        raise NoDecision(f"OP {op_id!a} has {len(steps)} steps; there is no {seq}.")
    if not is_decision(wanted.step):
        raise NoDecision(_what_it_is(wanted.step))
    return _replay(lake, [wanted])


def replay_all(ledger: Ledger, lake: Path) -> list[Replayed]:
    """Make every decision of the ledger again; the verdicts of one moment are judged once."""
    latest: dict[str, Transition] = {}
    steps = []
    for chunk in ledger.transitions():
        for step in chunk:
            if is_decision(step):
                steps.append(_Step(step, latest.get(step.op_id)))
            latest[step.op_id] = step
    return _replay(lake, steps)


def _with_before(history: list[Transition]) -> list[_Step]:
    return [_Step(step, before) for step, before in zip(history, [None, *history[:-1]], strict=True)]


def _what_it_is(step: Transition) -> str:
    who = next(
        edge.who for edge in EDGES if (edge.from_state, edge.to_state) == (step.from_state, step.to_state)
    )
    made = f"{step.from_state} → {step.to_state} by {step.actor}"
    return f"Step {step.seq} of OP {step.op_id!a} ({made}) is no verdict of the rules: {who} ({step.cause})."


def _replay(lake: Path, steps: Iterable[_Step]) -> list[Replayed]:
    today = rules_in_force(lake)
    books = {book.rule_version: book for book in [*kept_books(lake), today]}
    groups: dict[tuple[datetime, str | None], list[_Step]] = {}
    for each in steps:
        basis = Basis.from_details(each.step.details)
        known_at = basis.known_at if basis else each.step.recorded_at
        version = basis.rule_version if basis else each.step.rule_version
        groups.setdefault((known_at, version), []).append(each)
    found = []
    for (known_at, version), group in groups.items():
        book = books.get(str(version), today)
        tables = ScanTables.under(lake).all()
        judged = judge(book, tables, known_at=known_at)
        new = judge(today, tables, known_at=known_at) if today is not book else None
        found += [_again(each, known_at, version, book, judged, new) for each in group]
    return sorted(found, key=lambda replayed: (replayed.op_id, replayed.seq))


def _again(
    each: _Step, known_at: datetime, version: str | None, book: RuleBook, judged: Judged, new: Judged | None
) -> Replayed:
    step = each.step
    basis = Basis.from_details(step.details)
    are_records_exact = basis is not None and basis.files == files_fingerprint(judged.files, book.sources)
    are_rules_exact = version in (None, book.rule_version)
    remarks = []
    if basis is None:
        remarks.append(
            "The ledger does not say from which records this was decided; taken are those that were there"
            " when it was recorded."
        )
    elif not are_records_exact:
        remarks.append("The files of bronze that were read then are not the ones that are there now.")
    if not are_rules_exact:
        remarks.append(f"The rules {version} are not kept; {book.rule_version}, today's, were applied.")
    elif new is not None:
        remarks.append(f"The rules have changed since: {version} then, others today.")
    return Replayed(
        op_id=step.op_id,
        seq=step.seq,
        from_state=step.from_state.value if step.from_state else None,
        decided_at=step.occurred_at,
        known_at=known_at,
        then=_answer(
            step.to_state.value, step.cause, step.inputs_hash, step.rule_version, step.details, step.details
        ),
        again=_decided(each, judged.verdicts.get(step.op_id)),
        today=None if new is None else _decided(each, new.verdicts.get(step.op_id)),
        are_records_exact=are_records_exact,
        are_rules_exact=are_rules_exact,
        remarks=remarks,
    )


def _decided(each: _Step, row: Row | None) -> Row:
    """What the ledger would have appended where the OP stood then."""
    verdict = None if row is None else verdict_of(row)
    before = each.before
    steps = moves(before.to_state if before else None, before.inputs_hash if before else None, verdict)
    to_state, cause = (steps[0].to_state.value, steps[0].cause) if steps else (None, "stays where it is")
    if verdict is None:
        return _answer(to_state, cause, None, None, {"failed_criteria": [], "warnings": []}, {})
    said = {"failed_criteria": list(verdict.failed_criteria), "warnings": list(verdict.warnings)}
    return _answer(to_state, cause, verdict.inputs_hash, verdict.rule_version, said, verdict.details)


def _answer(
    to_state: str | None,
    cause: str,
    inputs_hash: str | None,
    rule_version: str | None,
    said: Mapping[str, Any],
    facts: Mapping[str, Any],
) -> Row:
    measured = facts.get("measured")
    return {
        "to_state": to_state,
        "cause": cause,
        "inputs_hash": inputs_hash,
        "rule_version": rule_version,
        "failed_criteria": said["failed_criteria"],
        "warnings": said["warnings"],
        **{name: facts.get(name) for name in FACTS if name != "measured"},
        "measured": json.loads(measured) if measured else None,
    }
