"""Windows cover what they must, cost nothing where there is nothing, and stay where they are."""

from __future__ import annotations

import itertools
from datetime import UTC, datetime, timedelta

from hypothesis import given
from hypothesis import strategies as st

from dagster_l2.batch import DAY, Window, plan_windows

moments = st.lists(
    st.datetimes(datetime(2014, 1, 1), datetime(2027, 1, 1)).map(lambda m: m.replace(tzinfo=UTC)),
    min_size=1,
    max_size=60,
)


def plan(records: list[datetime], max_records: int) -> tuple[list[Window], int]:
    asked = 0

    def count(window: Window) -> int:
        nonlocal asked
        asked += 1
        return sum(window.start <= moment < window.end for moment in records)

    return list(plan_windows(min(records), max(records), count, max_records=max_records)), asked


@given(moments, st.integers(1, 10))
def test_every_record_lies_in_exactly_one_window(records: list[datetime], max_records: int) -> None:
    windows, _ = plan(records, max_records)
    for moment in records:
        assert sum(window.start <= moment < window.end for window in windows) == 1
    for left, right in itertools.pairwise(windows):
        assert left.end <= right.start
    for window in windows:
        inside = sum(window.start <= moment < window.end for moment in records)
        assert inside > 0
        assert inside <= max_records or window.end - window.start == DAY


@given(moments, st.integers(1, 10))
def test_a_source_that_counts_what_lies_on_a_bound_twice_loses_no_record(
    records: list[datetime], max_records: int
) -> None:
    # Midnights, where every bound is.
    records = [moment.replace(hour=0, minute=0, second=0, microsecond=0) for moment in records]

    def count(window: Window) -> int:
        return sum(window.start <= moment <= window.end for moment in records)

    windows = list(plan_windows(min(records), max(records), count, max_records=max_records))
    for moment in records:
        assert sum(window.start <= moment < window.end for window in windows) == 1


def test_a_half_is_not_asked_for_where_the_other_half_tells_it() -> None:
    records = [datetime(2020, 1, 1, tzinfo=UTC) + timedelta(days=i) for i in range(256)]
    windows, asked = plan(records, 1)
    assert len(windows) == 256
    assert asked <= 256 + 10


def test_an_empty_decade_costs_a_handful_of_questions() -> None:
    records = [datetime(2014, 3, 1, tzinfo=UTC), datetime(2024, 3, 1, tzinfo=UTC)]
    windows, asked = plan(records, 1)
    assert len(windows) == 2
    assert asked < 60


def test_more_records_leave_the_other_windows_where_they_were() -> None:
    early = [datetime(2020, 1, 1, tzinfo=UTC) + timedelta(days=3 * i) for i in range(40)]
    before, _ = plan(early, 5)
    after, _ = plan([*early, *[datetime(2020, 7, 1, tzinfo=UTC)] * 9], 5)
    assert set(before) - set(after) <= {before[-1]}
