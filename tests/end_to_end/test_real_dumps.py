"""The real records of three dates, one after the other into one data folder."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest

from tests.conftest import DATES
from tests.end_to_end.kit import Pipeline

pytestmark = pytest.mark.xdist_group("real_dumps")

NEW_AND_CHANGED = {DATES[0]: (360, 0), DATES[1]: (0, 213), DATES[2]: (148, 360)}


def test_the_three_dates_in_order(l2: Pipeline, real_records: Path) -> None:
    """Only what is new or changed is written, and no date after the first moves an OP."""
    after_first = None
    for date in DATES:
        l2.settings = {"L2_STORE_RECORDS": str(real_records / date)}
        done = l2("run", "--json").json
        assert (done["scan"]["new"], done["scan"]["changed"]) == NEW_AND_CHANGED[date]
        assert (done["scan"]["rejected"], done["scan"]["missing"]) == (0, 0)
        assert done["failed"] == []
        assert done["published"] == []
        transitions = _transitions(l2)
        after_first = after_first or transitions
        assert transitions == after_first

        again = l2("run" if date == DATES[-1] else "scan", "--json").json
        counts = again["scan"] if date == DATES[-1] else again
        assert (counts["new"], counts["changed"], counts["rejected"]) == (0, 0, 0)
        assert counts["unchanged"] == sum(done["scan"][name] for name in ("new", "changed", "unchanged"))
    assert _transitions(l2) == after_first
    _verdicts_are_right(l2)
    replayed = l2.here("replay", "--all", "--json").json
    assert len(replayed) == 2 * 73
    assert all(row["is_equal"] and row["are_records_exact"] and row["are_rules_exact"] for row in replayed)


def _transitions(l2: Pipeline) -> list[tuple[object, ...]]:
    rows = l2.sql("select op_id, seq, to_state, occurred_at, actor from op_history order by all")
    return [tuple(row.values()) for row in rows]


def _verdicts_are_right(l2: Pipeline) -> None:
    rows = l2.sql(
        "select op_id, proposal_id, state, failed_criteria from observing_programs"
        " join op_latest_state using (op_id)"
        " join op_qualification using (op_id) where instrument = 'VISP'"
    )
    assert len(l2.states()) == len(rows) == 73
    assert Counter((row["proposal_id"], row["state"]) for row in rows) == {
        ("pid_1_118", "Preprocessed"): 17,
        ("pid_2_114", "Preprocessed"): 30,
        ("pid_2_114", "NotInvertible"): 26,
    }
    for row in rows:
        assert ("stokes" in row["failed_criteria"]) is (row["state"] == "NotInvertible"), row
        assert bool(row["failed_criteria"]) is (row["state"] == "NotInvertible"), row
    packages = list((l2.data / "inputs").glob("*/inputs.json"))
    assert len(packages) == 47
