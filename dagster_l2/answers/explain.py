"""Why an OP is where it is, in words: what gold says of its verdict beside what the ledger says of its state.

The words themselves are columns of gold; here they are only chosen and put in order.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from dagster_l2.ledger import Ledger
from dagster_l2.pipeline.gold import Ask, NoGold, Row, read_gold

WAITING = "not decided yet"
INVERTIBLE = "invertible"
NOT_INVERTIBLE = "not invertible"

_CRITERION = (
    "instrument",
    "criterion",
    "outcome",
    "measured_value",
    "measured_text",
    "threshold",
    "threshold_text",
    "unit",
    "margin",
    "worst_dataset_id",
    "failing_dataset_count",
    "explanation",
)


@dataclass(frozen=True)
class Judged:
    """What gold has on an OP and its verdict: its rows of the marts, of which some may be missing."""

    program: Row | None
    verdict: Row | None
    criteria: list[Row]
    qualification: list[Row]


def read_judged(ask: Ask, op_id: str) -> Judged:
    """The rows of an OP; raises `NoGold` before the first pass."""
    program = ask("select * from observing_programs where op_id = ?", [op_id])
    verdict = ask("select * from op_verdicts where op_id = ?", [op_id])
    criteria = ask("select * from op_criteria where op_id = ? order by instrument, position", [op_id])
    qualification = ask("select * from op_qualification where op_id = ? order by instrument", [op_id])
    # First the instrument that can be inverted: that another one cannot be is no news. Gold that an earlier
    # version built does not tell which it is.
    supported = {row["instrument"] for row in qualification if row.get("is_supported")}
    criteria.sort(key=lambda row: row["instrument"] not in supported)
    return Judged(program[0] if program else None, verdict[0] if verdict else None, criteria, qualification)


def named_verdict(*, is_complete: bool, is_invertible: bool) -> str:
    """A verdict in words; an OP that is not complete has none yet, as far as the ledger goes."""
    if not is_complete:
        return WAITING
    return INVERTIBLE if is_invertible else NOT_INVERTIBLE


def why(ledger: Ledger, gold: Path, op_id: str) -> dict[str, Any]:
    """The verdict of an OP with all its reasons.

    Returns
    -------
    dict
        ``op_id, state, since, cause``; ``verdict, headline, instrument, rule_version, waits_for``; and the
        lists ``failed, passed`` (rows of ``op_criteria`` of the instrument that speaks for the OP),
        ``warnings`` and ``other_instruments`` (sentences).

    Raises
    ------
    UnknownOp
        When neither ledger nor gold know it.
    """
    present = ledger.present(op_id)
    content: dict[str, Any] = {
        "op_id": op_id,
        "state": present.state.value,
        "since": present.since,
        "cause": present.cause,
    }
    try:
        judged = read_judged(partial(read_gold, gold), op_id)
    except NoGold:
        judged = None
    return {**content, **verdict_in_words(judged)}


def verdict_in_words(judged: Judged | None) -> dict[str, Any]:
    """What gold says of the verdict of an OP, see `why`; empty lists where it has no verdict of it.

    Parameters
    ----------
    judged
        What gold has; None: it is not there yet.
    """
    content: dict[str, Any] = {
        "verdict": None,
        "headline": "No verdict: none of its datasets is current any more.",
        "instrument": None,
        "rule_version": None,
        "waits_for": None,
        "failed": [],
        "passed": [],
        "warnings": [],
        "other_instruments": [],
    }
    if judged is None:
        return {**content, "headline": "No verdict: gold has not been built yet, `l2 run` does it."}
    verdict, program = judged.verdict, judged.program
    if verdict is None or program is None:
        return content
    instrument, waits_for = verdict["instrument"], program["waits_for"]
    criteria = [{name: row[name] for name in _CRITERION} for row in judged.criteria]
    own = [row for row in criteria if row["instrument"] == instrument]
    failed = [row for row in own if row["outcome"] != "pass"]
    return {
        **content,
        "verdict": named_verdict(is_complete=verdict["is_complete"], is_invertible=verdict["is_invertible"]),
        "headline": _headline(verdict, waits_for, failed),
        "instrument": instrument,
        "rule_version": verdict["rule_version"],
        "waits_for": waits_for,
        "failed": failed,
        "passed": [row for row in own if row["outcome"] == "pass"],
        "warnings": [
            explanation
            for row in judged.qualification
            if row["instrument"] == instrument
            for explanation in row["warning_explanations"] or ()
        ],
        "other_instruments": [
            row["explanation"]
            for row in criteria
            if row["instrument"] != instrument and row["outcome"] != "pass"
        ],
    }


def _headline(verdict: Row, waits_for: str | None, failed: list[Row]) -> str:
    said = NOT_INVERTIBLE if failed else INVERTIBLE
    if not verdict["is_complete"]:
        so_far = f"what is there so far is {said}"
        reasons = f": {failed[0]['explanation']}" if failed else ""
        return f"{WAITING}: {waits_for}; {so_far}{reasons}"
    if not failed:
        return f"{INVERTIBLE}: all criteria are met"
    more = f" (and {len(failed) - 1} more)" if len(failed) > 1 else ""
    return f"{NOT_INVERTIBLE}: {failed[0]['explanation']}{more}"
