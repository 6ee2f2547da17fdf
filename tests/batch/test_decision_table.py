"""What a rerun does with a window: the whole table, the exceptions from it, and the limit."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dagster_l2.batch import Action, LastAttempt, Wishes, decide
from dagster_l2.batch.decide import limited
from dagster_l2.batch.jobs.summary import summarize

from .job_kit import days

NOTHING, RETRY, RECHECK, FLOOR = (
    Wishes(),
    Wishes(retry_failed=True),
    Wishes(recheck_empty=True),
    Wishes(availability_floor=90.0),
)


@pytest.mark.parametrize(("status", "intact", "could_change", "wishes", "action"), [
    (None, False, False, NOTHING, "run"),
    ("PENDING", False, False, NOTHING, "run"),
    ("PENDING", True, False, NOTHING, "run"),
    ("DONE", True, False, NOTHING, "run"),
    ("\x00\x00torn", True, False, NOTHING, "run"),
    ("", True, False, NOTHING, "run"),
    ("DOWNLOADED", True, False, NOTHING, "skip_existing"),
    ("DOWNLOADED", False, False, NOTHING, "run"),
    ("DOWNLOADED", True, True, NOTHING, "run"),
    ("DOWNLOADED", True, False, RETRY, "skip_existing"),
    ("DOWNLOADED", True, False, RECHECK, "skip_existing"),
    ("DOWNLOADED", True, False, FLOOR, "run"),
    ("DOWNLOADED", True, False, Wishes(availability_floor=80.0), "skip_existing"),
    ("SKIPPED_NO_DATA", False, False, NOTHING, "skip_terminal"),
    ("SKIPPED_NO_DATA", False, False, RETRY, "skip_terminal"),
    ("SKIPPED_NO_DATA", False, False, RECHECK, "run"),
    ("SKIPPED_NO_DATA", False, True, NOTHING, "run"),
    ("FAILED", False, False, NOTHING, "skip_failed"),
    ("FAILED", False, True, NOTHING, "skip_failed"),
    ("FAILED", False, False, RECHECK, "skip_failed"),
    ("FAILED", False, False, RETRY, "run"),
])  # fmt: skip
def test_the_table(status: str | None, intact: bool, could_change: bool, wishes: Wishes, action: str) -> None:
    latest = None if status is None else LastAttempt(status, availability_pct=85.0)
    assert decide(latest, is_artifact_intact=intact, could_change=could_change, wishes=wishes) == action


def test_an_availability_that_nobody_knows_is_not_under_the_floor() -> None:
    latest = LastAttempt("DOWNLOADED", availability_pct=None)
    assert decide(latest, is_artifact_intact=True, could_change=False, wishes=FLOOR) == "skip_existing"


def test_the_limit_counts_windows_that_are_still_to_do() -> None:
    fates = [Action.SKIP_FAILED] * 5 + [Action.SKIP_EXISTING] * 3 + [Action.RUN] * 4
    planned = limited(zip(days(12), fates, strict=True), 2)
    assert planned.of(Action.RUN) == days(12)[8:10]
    assert len(planned.of(Action.SKIP_FAILED)) == 5
    assert planned.beyond_limit == tuple(days(12)[10:])


@given(
    st.lists(st.sampled_from(["DOWNLOADED", "SKIPPED_NO_DATA", "FAILED", "PENDING", None])),
    st.dictionaries(st.sampled_from(list(Action)), st.integers(0, 50)),
)
def test_the_summary_adds_up(statuses: list[str | None], skipped: dict[Action, int]) -> None:
    summary = summarize(run_id=None, job_id=None, statuses=statuses, skipped=skipped, output=None)
    parts = summary.downloaded + summary.skipped_existing + summary.skipped_no_data + summary.failed
    assert summary.planned == parts
    assert summary.attempted <= len(statuses)
    assert summary.exit_code == (1 if summary.failed else 0)
