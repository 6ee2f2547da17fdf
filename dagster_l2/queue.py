"""The work queue as it is now: rank and rules from gold, state and claimer live from the ledger."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from dagster_l2.gold import Row, read_gold
from dagster_l2.holds import waiting_reason
from dagster_l2.ledger import Ledger, Present, State


def live_queue(gold: Path, ledger: Ledger) -> list[Row]:
    """The OPs that wait for a person or a step, best first.

    An OP whose state has moved since gold was built shows its state of now; one that gold has no rank for
    comes last.

    Raises
    ------
    NoGold
        Before the first pass.
    """
    ranked = {row["op_id"]: row for row in read_gold(gold, "select * from work_queue")}
    rules = {row["state"]: row for row in read_gold(gold, "select * from state_rules")}
    rows = [
        _row(ledger, present, ranked.get(present.op_id, {}), rules[present.state.value])
        for present in ledger.present_all().values()
        if rules[present.state.value]["is_queued"]
    ]
    rows.sort(key=lambda row: (row["rank"] is None, row["rank"], row["op_id"]))
    return rows


def _row(ledger: Ledger, present: Present, ranked: Row, rule: Row) -> Row:
    days = (datetime.now(UTC) - present.since).total_seconds() / 86400
    limit = rule["limit_days"]
    responsible = rule["responsible"]
    if present.state is State.WORKING:
        responsible = present.claimed_by or responsible
    return {
        "rank": ranked.get("rank"),
        "op_id": present.op_id,
        "state": present.state.value,
        "responsible": responsible,
        "reason": _reason(ledger, present, rule),
        "days_in_state": round(days, 2),
        "is_overdue": limit is not None and days > limit,
        "priority_score": ranked.get("priority_score"),
        "claimed_by": present.claimed_by,
        "inputs_changed": present.inputs_changed,
    }


def _reason(ledger: Ledger, present: Present, rule: Row) -> Any:
    if present.state is State.INVERTED:
        return waiting_reason(ledger, present) or rule["waiting_for"]
    if present.state is State.ERROR:
        return present.details.get("message") or rule["waiting_for"]
    if present.inputs_changed:
        return "its inputs have changed since it was claimed"
    return rule["waiting_for"]
