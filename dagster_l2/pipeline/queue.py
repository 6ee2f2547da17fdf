"""The work queue as it is now: merit and rules from gold; state, claimer and what people say from the ledger.

It is ranked anew each time, so what was said a second ago counts. How merit is measured is in the warehouse.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

from dagster_l2.ledger import ASSIGNED, NOTE, PRIORITY, PRIORITY_LEVELS, Annotation, Ledger, Present, State
from dagster_l2.pipeline.gold import Ask, BadQuery, NoGold, Row, read_gold
from dagster_l2.pipeline.holds import APPROVED, WAITS, is_embargo, waits_for

SAID = (PRIORITY, ASSIGNED, NOTE, WAITS, APPROVED)
"""The kinds of annotation that the queue is made with."""


class OldGold(NoGold):
    """Gold was built by an earlier version."""


@dataclass(frozen=True, slots=True)
class Merits:
    """What gold knows: merit by OP, rules by state, the parts of the score and what a level counts."""

    merits: dict[str, Row]
    rules: dict[str, Row]
    parts: list[str]
    level_weight: float


def live_queue(gold: Path, ledger: Ledger) -> list[Row]:
    """The OPs that wait for a person or a step, best first, with their rank among all.

    An OP whose state has moved since gold was built shows its state of now. One that gold has no merit for
    comes after those of the same priority.

    Raises
    ------
    NoGold
        Before the first pass; `OldGold` before the first one of this version.
    """
    merits = read_merits(partial(read_gold, gold))
    said = ledger.latest_annotations(SAID)
    presents = ledger.present_all().values()
    rows = (queue_row(present, merits, said.get(present.op_id, {})) for present in presents)
    return put_in_order([row for row in rows if row is not None])


def queue_row(present: Present, merits: Merits, said: Mapping[str, Annotation]) -> Row | None:
    """The row of one OP, without its rank; None when it waits for nobody."""
    if not merits.rules[present.state.value]["is_queued"]:
        return None
    return _row(present, merits, said, datetime.now(UTC))


def put_in_order(rows: list[Row]) -> list[Row]:
    """The same rows, best first, each with its rank."""
    rows.sort(
        key=lambda row: (-row["priority_score"], -row["priority"], row["merit_score"] is None, row["op_id"])
    )
    for rank, row in enumerate(rows, start=1):
        row["rank"] = rank
    return rows


def part_columns(row: Row) -> list[str]:
    """The columns of a row of the queue that the merit is made of."""
    return [name for name in row if name.endswith("_score") and name not in ("priority_score", "merit_score")]


def by_responsible(rows: Iterable[Row]) -> dict[str, int]:
    """How many of these rows wait for whom; the most first."""
    counts = Counter(str(row["responsible"]) for row in rows)
    return dict(sorted(counts.items(), key=lambda item: (-item[1], item[0])))


def named(counts: Mapping[str, int]) -> str:
    """Counts by name in one line: ``ann 2, operator 1``."""
    return ", ".join(f"{name if name.isprintable() else ascii(name)} {n}" for name, n in counts.items())


def read_merits(ask: Ask) -> Merits:
    """What gold knows of the queue; raises as `live_queue`."""
    merits = {row["op_id"]: row for row in ask("select * from work_queue")}
    rules = {row["state"]: row for row in ask("select * from state_rules")}
    try:
        parts = {row["part"]: row for row in ask("select * from priority_parts")}
    except BadQuery:
        raise OldGold("Gold was built by an earlier version: `l2 run` builds it anew.") from None
    weight = parts.pop(PRIORITY)["weight"]
    return Merits(merits, rules, [f"{part}_score" for part in parts], weight)


def _row(present: Present, known: Merits, said: Mapping[str, Annotation], now: datetime) -> Row:
    merit, rule = known.merits.get(present.op_id, {}), known.rules[present.state.value]
    days = (now - present.since).total_seconds() / 86400
    limit = rule["limit_days"]
    is_held, reason = _hold(present, merit, said, now)
    level = _level(said.get(PRIORITY))
    assigned_to = said[ASSIGNED].details.get("to") if ASSIGNED in said else None
    return {
        "rank": None,
        "op_id": present.op_id,
        "state": present.state.value,
        "responsible": _person(present, rule, assigned_to) or rule["responsible"],
        "reason": reason or _reason(present) or rule["waiting_for"],
        "days_in_state": round(days, 2),
        "limit_days": limit,
        "is_overdue": limit is not None and days > limit and not is_held,
        "is_held_by_embargo": is_held,
        "priority_score": round((merit.get("merit_score") or 0.0) + known.level_weight * level, 6),
        "priority": level,
        "merit_score": merit.get("merit_score"),
        **{part: merit.get(part) for part in known.parts},
        "assigned_to": assigned_to,
        "claimed_by": present.claimed_by,
        "inputs_changed": present.inputs_changed,
        "note": said[NOTE].details.get("text") if NOTE in said else None,
    }


def _level(said: Annotation | None) -> int:
    level = said.details.get("level") if said else 0
    return min(max(level, PRIORITY_LEVELS[0]), PRIORITY_LEVELS[-1]) if isinstance(level, int) else 0


def _person(present: Present, rule: Row, assigned_to: str | None) -> str | None:
    """Who stands in the role's place by name, as the rule of the state has it."""
    by = {"claim": present.claimed_by or present.actor, "assignment": assigned_to}
    return by.get(rule["named_by"])


def _hold(
    present: Present, merit: Row, said: Mapping[str, Annotation], now: datetime
) -> tuple[bool, str | None]:
    """Whether an embargo holds an Inverted OP, and what it waits for.

    What was noted when publishing was last tried is the store's word of then; before any try gold tells.
    """
    if present.state is not State.INVERTED:
        return False, None
    noted = waits_for(present, said)
    if noted is not None:
        return is_embargo(noted), noted
    until = merit.get("embargo_end_date")
    is_held = bool(merit.get("is_held_by_embargo")) and (until is None or until.replace(tzinfo=UTC) > now)
    return is_held, merit["reason"] if is_held else None


def _reason(present: Present) -> str | None:
    """What the ledger itself says of why it waits."""
    if present.state is State.ERROR:
        step, message = present.details.get("step"), present.details.get("message")
        failed = f"failed in {step or 'an unknown step'}"
        return f"{failed}: {message}" if message else failed
    if present.state is State.WORKING and present.inputs_changed:
        return "its inputs have changed since it was claimed"
    return None
