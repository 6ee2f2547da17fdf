"""Why an OP is where it is, in words: what gold says of its verdict beside what the ledger says of its state.

The words themselves are columns of gold; here they are only chosen and put in order.
"""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

from dagster_l2.gold import Ask, NoGold, Row, read_gold
from dagster_l2.ledger import Ledger

WAITING = "not decided yet"
INVERTIBLE = "invertible"
NOT_INVERTIBLE = "not invertible"

_VERDICT = """
    select
        verdicts.op_id, verdicts.instrument, verdicts.is_complete, verdicts.is_invertible,
        verdicts.rule_version, verdicts.inputs_hash, programs.waits_for, programs.completeness
    from op_verdicts as verdicts
    inner join observing_programs as programs on verdicts.op_id = programs.op_id
    where verdicts.op_id = ?
"""
_CRITERIA = """
    select
        instrument, criterion, outcome, measured_value, measured_text, threshold, threshold_text,
        unit, margin, worst_dataset_id, failing_dataset_count, explanation
    from op_criteria
    where op_id = ?
    order by instrument, position
"""
_WARNINGS = """
    select
        instrument, unnest(warnings) as warning, unnest(warning_explanations) as explanation
    from op_qualification
    where op_id = ?
    order by instrument
"""


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
    return {**content, **verdict_in_words(partial(read_gold, gold), op_id)}


def verdict_in_words(ask: Ask, op_id: str) -> dict[str, Any]:
    """What gold says of the verdict of an OP, see `why`; empty lists where it has no verdict of it."""
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
    try:
        rows = ask(_VERDICT, [op_id])
    except NoGold:
        return {**content, "headline": "No verdict: gold has not been built yet, `l2 run` does it."}
    if not rows:
        return content
    verdict = rows[0]
    criteria = ask(_CRITERIA, [op_id])
    own = [row for row in criteria if row["instrument"] == verdict["instrument"]]
    failed = [row for row in own if row["outcome"] != "pass"]
    warnings = ask(_WARNINGS, [op_id])
    return {
        **content,
        "verdict": named_verdict(is_complete=verdict["is_complete"], is_invertible=verdict["is_invertible"]),
        "headline": _headline(verdict, failed),
        "instrument": verdict["instrument"],
        "rule_version": verdict["rule_version"],
        "waits_for": verdict["waits_for"],
        "failed": failed,
        "passed": [row for row in own if row["outcome"] == "pass"],
        "warnings": [row["explanation"] for row in warnings if row["instrument"] == verdict["instrument"]],
        "other_instruments": [
            row["explanation"]
            for row in criteria
            if row["instrument"] != verdict["instrument"] and row["outcome"] != "pass"
        ],
    }


def _headline(verdict: Row, failed: list[Row]) -> str:
    said = NOT_INVERTIBLE if failed else INVERTIBLE
    if not verdict["is_complete"]:
        so_far = f"what is there so far is {said}"
        reasons = f": {failed[0]['explanation']}" if failed else ""
        return f"{WAITING}: {verdict['waits_for']}; {so_far}{reasons}"
    if not failed:
        return f"{INVERTIBLE}: all criteria are met"
    more = f" (and {len(failed) - 1} more)" if len(failed) > 1 else ""
    return f"{NOT_INVERTIBLE}: {failed[0]['explanation']}{more}"
