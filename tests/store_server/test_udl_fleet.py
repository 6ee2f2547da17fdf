"""The generated fleet: every sample in its place, and the quirks that a reader has to stand."""

from __future__ import annotations

from collections import Counter
from datetime import UTC, datetime, timedelta
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dagster_l2.store.server.reach_generate import ReachFleet, Row
from dagster_l2.store.server.udl import Ask

KEYS = [
    *("id", "classificationMarking", "dataType", "genTime", "idOnOrbit", "satNo", "idSensor", "origSensorId"),
    *("observatoryType", "observatoryName", "instrumentType", "lat", "lon", "alt", "senPos", "obSetId"),
    *("particleType", "obTime", "seoList", "descriptor", "createdAt", "createdBy", "source", "dataMode"),
    "origNetwork",
]
DAY = datetime(2025, 5, 1)
MICROSECOND = timedelta(microseconds=1)
DAYS_END = DAY + timedelta(days=1) - MICROSECOND


def day(sensor: str | None = None, descriptor: str | None = "QUICKLOOK") -> Ask:
    return Ask(DAY, DAYS_END, sensor=sensor, descriptor=descriptor)


@pytest.fixture(scope="module")
def rows() -> list[Row]:
    """A day of one sensor at full cadence."""
    return ReachFleet().page(day("REACH-110"), 0, 10**6)


def test_without_quirks_every_sample_is_there_once() -> None:
    fleet = ReachFleet(quirks=False)
    assert fleet.count(day("REACH-101")) == 34_560
    assert fleet.count(day()) == 1_105_920
    assert fleet.count(day(descriptor=None)) == 2 * 1_105_920
    made = fleet.page(Ask(DAY, DAY + timedelta(minutes=5) - MICROSECOND, descriptor="QUICKLOOK"), 0, 10**6)
    assert len({(row["idSensor"], row["particleType"], row["obTime"]) for row in made}) == len(made) == 3840
    assert {row["idSensor"] for row in made} == {f"REACH-{number}" for number in range(101, 133)}
    assert all(list(row) == KEYS for row in made)


def test_the_same_seed_gives_the_same_records(rows: list[Row]) -> None:
    part = Ask(DAY, DAY + timedelta(hours=1), sensor="REACH-110", descriptor="QUICKLOOK")
    again = ReachFleet().page(part, 0, 10**6)
    assert again == rows[: len(again)]
    assert ReachFleet(seed=2).page(part, 0, 10**6) != again


def test_a_day_has_every_quirk(rows: list[Row]) -> None:
    assert 33_500 < len(rows) < 34_560
    assert len({row["id"] for row in rows}) == len(rows)
    measured = Counter("seoList" in row for row in rows)
    assert 10 < measured[False] < 500
    for name in ("genTime", "satNo", "lat", "senPos"):
        assert 10 < sum(row[name] is None for row in rows) < 500, name
    assert any(part["obQuality"] is None for row in rows for part in row.get("seoList", ()))
    assert len({tuple(row) for row in rows}) > 3
    assert {name for row in rows for name in row} == set(KEYS)
    times = [datetime.fromisoformat(row["obTime"]) for row in rows]
    assert times == sorted(times)
    gaps = [later - earlier for earlier, later in pairwise(times)]
    assert timedelta(minutes=9) < max(gaps) < timedelta(minutes=31)
    assert sum(time.minute % 5 == time.second == time.microsecond == 0 for time in times) > 400
    last = Counter(time.microsecond for time in times if (time + timedelta(milliseconds=1)).second == 0)
    assert last[999_000] > 10
    assert last[999_999] > 10


def test_a_duplicate_was_created_later_and_says_something_of_its_own(rows: list[Row]) -> None:
    versions: dict[tuple[str, str], list[Row]] = {}
    for row in rows:
        versions.setdefault((row["obTime"], row["particleType"]), []).append(row)
    pairs = [found for found in versions.values() if len(found) > 1]
    assert len(pairs) > 50
    for first, second in pairs:
        assert first["createdAt"] < second["createdAt"]
        assert first["id"] != second["id"]


def test_late_records_come_later() -> None:
    fleet = ReachFleet(satellites=2, now=datetime(2025, 5, 2, tzinfo=UTC))
    counts = []
    for hours in (0, 2, 60):
        fleet.now = datetime(2025, 5, 2, tzinfo=UTC) + timedelta(hours=hours)
        counts.append(fleet.count(day()))
    assert counts[0] < counts[1] < counts[2]
    assert fleet.count(Ask(DAY - timedelta(days=2000), DAY - timedelta(days=1300))) == 0
    fleet.now = DAY.replace(tzinfo=UTC)
    assert fleet.count(day()) == 0


@given(st.lists(st.integers(0, 86_400_000_000), max_size=4), st.integers(50, 400))
@settings(max_examples=8)
def test_a_day_is_the_sum_of_its_parts_however_it_is_cut(cuts: list[int], page: int) -> None:
    fleet = ReachFleet(satellites=2, cadence_s=300, seed=3)
    edges = [DAY, *(DAY + cut * MICROSECOND for cut in sorted(cuts)), DAY + timedelta(days=1)]
    parts = [Ask(start, end - MICROSECOND) for start, end in pairwise(edges) if start < end]
    whole = fleet.page(Ask(DAY, DAYS_END), 0, 10**6)
    assert [row for part in parts for row in fleet.page(part, 0, 10**6)] == whole
    assert sum(map(fleet.count, parts)) == len(whole) > 1000
    across = Ask(DAY - timedelta(days=1), DAY + timedelta(hours=3))
    pages = [row for first in range(0, fleet.count(across), page) for row in fleet.page(across, first, page)]
    assert pages == fleet.page(across, 0, 10**6)
