"""Where an inversion is published, what holds it back, and what counts as the same record."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta, timezone
from typing import Any

import pytest

from dagster_l2.publishing import NoBucket, choose_bucket, differences, publish_blocker

NOW = datetime(2026, 1, 15, 12, tzinfo=UTC)


@pytest.mark.parametrize(
    ("shared", "default", "expected"),
    [
        (["data"], None, "data"),
        (["data"], "other", "data"),
        (["data", "data"], "other", "data"),
        (["data", "raw"], "other", "other"),
        ([], "other", "other"),
        ([""], "other", "other"),
    ],
)
def test_the_shared_bucket_comes_before_the_default(
    shared: list[str], default: str | None, expected: str
) -> None:
    assert choose_bucket(shared, default) == expected


@pytest.mark.parametrize(
    ("shared", "said"), [(["a", "b"], r"2 buckets \('a', 'b'\)"), ([], "name no bucket")]
)
@pytest.mark.parametrize("default", [None, ""])
def test_without_a_bucket_the_setting_is_named(shared: list[str], said: str, default: str | None) -> None:
    with pytest.raises(NoBucket, match=said) as refused:
        choose_bucket(shared, default)
    assert "L2_PUBLISH_BUCKET" in str(refused.value)


def blocker(**changes: Any) -> str | None:
    free: dict[str, Any] = {
        "mode": "auto",
        "approved": False,
        "is_embargoed": False,
        "embargo_end_date": None,
        "publish_embargoed": False,
        "now": NOW,
    }
    return publish_blocker(**{**free, **changes})


def test_nothing_holds_back_a_free_one() -> None:
    assert blocker() is None
    assert blocker(mode="approve", approved=True) is None


MARCH = datetime(2026, 3, 1, tzinfo=UTC)


@pytest.mark.parametrize(
    ("flag", "end", "expected"),
    [
        (True, MARCH, "embargoed until 2026-03-01"),
        (True, MARCH.replace(tzinfo=None), "embargoed until 2026-03-01"),
        (True, "2026-03-01T00:00:00", "embargoed until 2026-03-01"),
        (True, "2026-03-01T00:00:00Z", "embargoed until 2026-03-01"),
        (True, date(2026, 3, 1), "embargoed until 2026-03-01"),
        (True, MARCH + timedelta(hours=5), "embargoed until 2026-03-01 05:00 UTC"),
        (True, None, "embargoed (no end date)"),
        (True, "", "embargoed (no end date)"),
        (True, "next spring", "embargoed (no end date)"),
        (True, NOW, None),
        (True, NOW + timedelta(microseconds=1), "embargoed until 2026-01-15 12:00 UTC"),
        (True, datetime(2025, 3, 1, tzinfo=UTC), None),
        (False, MARCH, None),
        (None, None, None),
        (None, MARCH, "embargoed until 2026-03-01"),
        (None, datetime(2025, 3, 1, tzinfo=UTC), None),
    ],
)
def test_an_embargo_holds_back_until_it_ends(flag: bool | None, end: Any, expected: str | None) -> None:
    assert blocker(is_embargoed=flag, embargo_end_date=end) == expected
    assert blocker(is_embargoed=flag, embargo_end_date=end, publish_embargoed=True) is None


def test_the_end_is_compared_in_utc_wherever_now_is() -> None:
    east = timezone(timedelta(hours=9))
    end = datetime(2026, 1, 15, 12, tzinfo=UTC)
    before = datetime(2026, 1, 15, 20, 59, tzinfo=east)
    assert blocker(is_embargoed=True, embargo_end_date=end, now=before) is not None
    assert blocker(is_embargoed=True, embargo_end_date=end, now=before + timedelta(minutes=1)) is None


def test_approval_is_waited_for_but_lifts_no_embargo() -> None:
    assert blocker(mode="approve") == "waits for approval: l2 publish OP"
    assert (
        blocker(mode="approve", approved=True, is_embargoed=True, embargo_end_date=MARCH)
        == blocker(mode="approve", is_embargoed=True, embargo_end_date=MARCH)
        == "embargoed until 2026-03-01"
    )
    assert blocker(mode="approve", is_embargoed=True, publish_embargoed=True) is not None


RECORD = {
    "inversionId": "inv.ABC123",
    "bucket": "data",
    "asdfObjectKey": None,
    "datasetIds": ["B", "A"],
    "spectralLines": [],
}


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({}, []),
        ({"createDate": "2026-01-15T00:00:00", "extra": 1}, []),
        ({"datasetIds": ["A", "B"]}, []),
        ({"spectralLines": None}, []),
        ({"bucket": "other"}, ["bucket is 'other' there and 'data' here"]),
        ({"asdfObjectKey": "a.asdf"}, ["asdfObjectKey is 'a.asdf' there and None here"]),
        ({"datasetIds": ["A"]}, ["datasetIds is ['A'] there and ['A', 'B'] here"]),
        ({"datasetIds": ["A", "A", "B"]}, ["datasetIds is ['A', 'A', 'B'] there and ['A', 'B'] here"]),
        ({"datasetIds": "AB"}, ["datasetIds is 'AB' there and ['A', 'B'] here"]),
    ],
)
def test_every_field_is_compared_and_order_is_not(changes: dict[str, Any], said: list[str]) -> None:
    assert differences(RECORD, {**RECORD, **changes}) == said


def test_a_missing_field_differs_and_a_long_one_is_cut() -> None:
    theirs = {**RECORD, "datasetIds": ["x" * 5000]}
    del theirs["bucket"]
    first, second = differences(RECORD, theirs)
    assert first == "bucket is None there and 'data' here"
    assert len(second) < 400
