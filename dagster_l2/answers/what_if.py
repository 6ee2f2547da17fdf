"""What another threshold would do: the verdicts as they are beside the verdicts as they would be.

Nothing is decided: the rules run in memory over bronze, and the ledger is only read.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dagster_l2.answers.explain import named_verdict
from dagster_l2.base.errors import L2Error
from dagster_l2.ledger import Ledger, Present, moves
from dagster_l2.pipeline.deciding import verdict_of
from dagster_l2.rules import Judged, RuleBook, judge_changed, kept_books
from dagster_l2.sources import ScanTables

Row = dict[str, Any]


class NoRules(L2Error):
    """No pass has kept its rules yet."""


@dataclass(frozen=True, slots=True)
class WhatIf:
    """What would be.

    ``thresholds`` has name, value in force and value tried; ``moved`` a row for each OP with another
    verdict; ``other_reasons`` counts those whose verdict stays and whose failed criteria do not.
    """

    rule_version: str
    thresholds: list[Row]
    judged: int
    counts: list[Row]
    moved: list[Row]
    other_reasons: int


def rules_in_force(lake: Path) -> RuleBook:
    """The rules of the last build.

    Raises
    ------
    NoRules
        Before the first one.
    """
    books = kept_books(lake)
    if not books:
        raise NoRules("No rules have been applied yet: `l2 run` does it and keeps them.")
    return books[-1]


def what_if(ledger: Ledger, lake: Path, changes: Mapping[str, str]) -> WhatIf:
    """Which OPs other thresholds would move, over all that bronze holds now.

    Parameters
    ----------
    changes
        Threshold (the name of a criterion, or of a column of ``qualification_rules``) to its value as text.

    Raises
    ------
    NoRules, UnknownThreshold, ImpossibleThreshold
        See `rules_in_force` and `rules.judge_changed`.
    """
    book = rules_in_force(lake)
    changed = judge_changed(book, ScanTables.under(lake).all(), changes)
    before, after = changed.before, changed.after
    presents = ledger.present_all()
    moved, other_reasons = [], 0
    for op_id, row in before.verdicts.items():
        new = after.verdicts[op_id]
        if _named(row) != _named(new):
            moved.append(_moved(op_id, before, after, presents.get(op_id)))
        elif row["failed_criteria"] != new["failed_criteria"]:
            other_reasons += 1
    counts = Counter((row["from"], row["to"]) for row in moved)
    return WhatIf(
        rule_version=book.rule_version,
        thresholds=[
            {"threshold": name, "now": now, "tried": tried} for name, now, tried in changed.thresholds
        ],
        judged=len(before.verdicts),
        counts=[{"from": start, "to": end, "OPs": count} for (start, end), count in counts.items()],
        moved=moved,
        other_reasons=other_reasons,
    )


def _named(row: Row) -> str:
    return named_verdict(is_complete=row["is_complete"], is_invertible=row["is_invertible"])


def _moved(op_id: str, before: Judged, after: Judged, present: Present | None) -> Row:
    old, new = before.verdicts[op_id], after.verdicts[op_id]
    failed, fails = set(old["failed_criteria"]), set(new["failed_criteria"])
    gone = [before.reasons[op_id][name] for name in old["failed_criteria"] if name not in fails]
    come = [after.reasons[op_id][name] for name in new["failed_criteria"] if name not in failed]
    return {
        "op_id": op_id,
        "from": _named(old),
        "to": _named(new),
        "by": sorted(failed ^ fails) or ["completeness"],
        "because": [*come, *gone],
        "state": None if present is None else present.state.value,
        "next_state": _next_state(present, new),
    }


def _next_state(present: Present | None, row: Row) -> str | None:
    """Where the ledger would move the OP by that verdict; None where it would stay."""
    state, package_hash = (None, None) if present is None else (present.state, present.inputs_hash)
    steps = moves(state, package_hash, verdict_of(row))
    return steps[-1].to_state.value if steps else None
