"""REACH as a source, against the real server: what a day holds, chunk by chunk, whatever is sent."""

from __future__ import annotations

import logging
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from typing import Any

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dagster_l2.batch import Chunk, FetchedChunk, Window
from dagster_l2.sources.reach import Reach
from dagster_l2.sources.udl_errors import CountMismatch, UdlError, UdlUnreachable
from dagster_l2.store.server.reach_generate import ReachFleet
from dagster_l2.store.server.udl import Ask, HeldObservations
from tests.sources.reach_kit import COUNT, DAY, LIST, MINUTES, TOKEN, WINDOW, UdlWorld, held, row

MICROSECOND = timedelta(microseconds=1)
EARLIER = Window(DAY - timedelta(days=1), DAY)


@pytest.fixture
def udl(running: UdlWorld) -> UdlWorld:
    running.clear()
    return running


def reach(udl: UdlWorld, sensor: str | None = "REACH-101", *, client: Any = None, **options: Any) -> Reach:
    return Reach(udl.client(**(client or {})), sensor=sensor, **options)


def first(source: Reach) -> FetchedChunk:
    return source.fetch(source.chunks(WINDOW)[0])


def whole(source: Reach, *windows: Window) -> list[FetchedChunk]:
    return [source.fetch(chunk) for window in windows for chunk in source.chunks(window)]


def frame_of(fetched: list[FetchedChunk]) -> pl.DataFrame:
    return pl.concat([chunk.frame for chunk in fetched])


# -- what it says of itself -------------------------------------------------------------------------------


def test_a_day_is_288_chunks_of_all_and_4_of_one(udl: UdlWorld) -> None:
    assert len(reach(udl, None).chunks(WINDOW)) == len(reach(udl, "ALL").chunks(WINDOW)) == 288
    assert len(reach(udl).chunks(WINDOW)) == 4
    for source in (reach(udl, None), reach(udl)):
        chunks = source.chunks(WINDOW)
        assert (chunks[0].start, chunks[-1].end) == (WINDOW.start, WINDOW.end)
        assert all(one.end == other.start for one, other in pairwise(chunks))
        assert len({chunk.end - chunk.start for chunk in chunks}) == 1
        assert len({chunk.chunk_id for chunk in chunks}) == len(chunks)


def test_expected_records_are_the_samples_of_the_dosimeters(udl: UdlWorld) -> None:
    assert reach(udl, "ALL").expected_records(WINDOW) == 1_105_920
    assert reach(udl).expected_records(WINDOW) == 34_560
    assert reach(udl).expected_records(Window(DAY, DAY + timedelta(days=3))) == 3 * 34_560
    assert reach(udl, None, satellites=2, cadence_s=60).expected_records(WINDOW) == 2 * 2 * 1440


def test_a_window_changes_until_it_is_settled(udl: UdlWorld) -> None:
    source = reach(udl, settled_after_days=3)
    for days, changes in ((-1, True), (0, True), (2.99, True), (3, False), (30, False)):
        assert source.can_change(WINDOW, WINDOW.end + timedelta(days=days)) is changes, days


def test_the_query_tells_everything_that_is_asked_apart_and_no_secret(udl: UdlWorld) -> None:
    url = udl.url.replace("://", "://name:secret@")
    one = reach(udl, client={"url": url, "token": None})
    others = [reach(udl, "REACH-102"), reach(udl, None), reach(udl, descriptor="PROVISIONAL")]
    queries = [dict(source.query) for source in (one, *others)]
    assert all(queries.count(query) == 1 for query in queries)
    assert dict(reach(udl).query) == queries[0]
    assert queries[2]["sensor"] == "ALL"
    for source in (one, *others):
        shown = f"{dict(source.query)} {source!r}"
        assert udl.url in shown
        assert "secret" not in shown
        assert TOKEN not in shown


# -- failure 1: nothing but an empty list is empty --------------------------------------------------------


@pytest.mark.parametrize("fault", [
    {"kind": "html"}, {"kind": "html", "body": "{}"}, {"kind": "status", "status": 404, "body": "[]"},
])  # fmt: skip
def test_a_web_page_with_200_is_not_no_data(udl: UdlWorld, fault: dict[str, Any]) -> None:
    source = reach(udl, client={"budget_s": 0.0})
    empty = first(source)
    assert (len(empty.frame), empty.received, empty.rejected) == (0, 0, [])
    assert dict(empty.frame.schema) == dict(source.schema)
    udl.faults.add(**fault)
    with pytest.raises(UdlError, match="The UDL at"):
        first(source)


def test_an_unknown_key_costs_nothing_and_is_said_once(
    udl: UdlWorld, caplog: pytest.LogCaptureFixture
) -> None:
    udl.clear(held(row(DAY, 1, colour="red"), row(DAY + MINUTES, 2, mood="good")))
    source = reach(udl)
    with caplog.at_level(logging.WARNING):
        assert [first(source).frame["sat_no"].to_list() for _ in range(2)] == [[43_101, 43_102]] * 2
    assert [record.getMessage() for record in caplog.records] == [
        "Observations have keys that no column holds: colour, mood."
    ]


# -- failure 2: values stay in their columns --------------------------------------------------------------


def test_another_order_of_keys_or_a_missing_one_shifts_no_value(udl: UdlWorld) -> None:
    plain = row(DAY, 1)
    turned = dict(reversed(row(DAY + timedelta(hours=7), 1).items()))
    turned["seoList"] = [dict(reversed(part.items())) for part in turned["seoList"]]
    short = {key: value for key, value in row(DAY + timedelta(hours=13), 1).items() if key != "dataType"}
    udl.clear(held(plain, turned, short))
    chunks = whole(reach(udl), WINDOW)
    assert {chunk.frame.schema == chunks[0].frame.schema for chunk in chunks} == {True}
    one, other, third = frame_of(chunks).drop("id", "gen_time", "ob_time", "created_at").rows(named=True)
    assert one == other
    assert third == {**one, "data_type": None}


def test_every_key_has_its_typed_column(udl: UdlWorld) -> None:
    udl.clear(held(row(DAY, 1)))
    frame = first(reach(udl)).frame
    naive = DAY.replace(tzinfo=None)
    assert frame.rows(named=True) == [
        {
            "id": "id-1-2025-05-01T00:00:00.000000Z",
            "classification_marking": "U",
            "data_type": "DOSIMETER",
            "gen_time": naive + MINUTES,
            "id_on_orbit": "43101",
            "sat_no": 43_101,
            "id_sensor": "REACH-101",
            "orig_sensor_id": "101-A",
            "observatory_type": "LEO",
            "observatory_name": "REACH",
            "instrument_type": "DOSIMETER",
            "lat": 11.0,
            "lon": 21.0,
            "alt": 781.0,
            "sen_pos": [2.0, 2.0, 3.0],
            "ob_set_id": "REACH-101-2025-05-01",
            "particle_type": "ELECTRON",
            "ob_time": naive,
            "seo_list": [
                {
                    "ob_type": "Dose Rate",
                    "ob_uom": "rad/s",
                    "ob_value": 1.5,
                    "ob_quality": "good",
                    "ob_description": "Dosimeter A dose rate",
                }
            ],
            "descriptor": "QUICKLOOK",
            "created_at": naive + 5 * MINUTES,
            "created_by": "reach.ingest",
            "source": "Aerospace",
            "data_mode": "REAL",
            "orig_network": "OPS1",
            "duplicate_key": "Dosimeter A dose rate",
        }
    ]
    for name in ("gen_time", "ob_time", "created_at"):
        assert frame.schema[name] == pl.Datetime("us")


# -- failure 5, as far as fetching goes -------------------------------------------------------------------


def test_one_failing_chunk_fails_alone_and_is_asked_for_alone(udl: UdlWorld) -> None:
    udl.clear(ReachFleet(satellites=1, cadence_s=600))
    udl.faults.add("status", status=500, match="obTime=2025-05-01T06")
    source = reach(udl, client={"budget_s": 0.0})
    kept, failed = {}, []
    for chunk in source.chunks(WINDOW):
        try:
            kept[chunk] = source.fetch(chunk)
        except UdlUnreachable:
            failed.append(chunk)
    assert [chunk.start.hour for chunk in failed] == [6]
    udl.faults.clear()
    udl.app.state.requests.clear()
    again = source.fetch(failed[0])
    assert udl.paths == [LIST]
    undisturbed = whole(reach(udl), WINDOW)
    kept[failed[0]] = again
    assert frame_of([kept[chunk] for chunk in sorted(kept)]).equals(frame_of(undisturbed))


# -- failure 9: no hole and no overlap --------------------------------------------------------------------


@given(
    st.lists(st.integers(-86_400_000_000, 86_400_000_000), max_size=6),
    st.lists(
        st.tuples(st.integers(-4, 4), st.sampled_from([-1_000_000, -1000, -999, -500, -1, 0, 1, 1000])),
        max_size=8,
    ),
)
@settings(max_examples=20)
def test_every_instant_is_in_exactly_one_chunk_of_its_own_day(
    running: UdlWorld, anywhere: list[int], at_edges: list[tuple[int, int]]
) -> None:
    moments = {DAY + offset * MICROSECOND for offset in anywhere}
    moments |= {DAY + edge * timedelta(hours=6) + offset * MICROSECOND for edge, offset in at_edges}
    running.clear(held(*(row(moment) for moment in sorted(moments))))
    source = reach(running)
    got = {window: frame_of(whole(source, window))["ob_time"].to_list() for window in (EARLIER, WINDOW)}
    for window, times in got.items():
        wanted = [moment for moment in sorted(moments) if window.start <= moment < window.end]
        assert [time.replace(tzinfo=UTC) for time in times] == wanted


def test_all_sensors_in_5_minutes_lose_and_double_nothing(udl: UdlWorld) -> None:
    fleet = ReachFleet(satellites=2, cadence_s=60)
    udl.clear(fleet)
    fetched = whole(reach(udl, None), WINDOW)
    there = fleet.page(
        Ask(
            *(moment.replace(tzinfo=None) for moment in (DAY, WINDOW.end - MICROSECOND)),
            descriptor="QUICKLOOK",
        ),
        0,
        10**6,
    )
    assert sum(chunk.received for chunk in fetched) == len(there) > 5000
    kept = {
        (r["idSensor"], r["seoList"][0]["obDescription"] if r.get("seoList") else r["id"], r["obTime"])
        for r in there
    }
    frame = frame_of(fetched)
    assert len(kept) == len(frame) < len(there)
    assert set(frame["id"]) <= {record["id"] for record in there}
    assert {chunk.start.second for chunk in reach(udl, None).chunks(WINDOW)} == {0}
    for chunk, one in zip(reach(udl, None).chunks(WINDOW), fetched, strict=True):
        inside = one.frame["ob_time"].dt.replace_time_zone("UTC").is_between(chunk.start, chunk.end, "left")
        assert inside.all()
    assert not any(chunk.rejected for chunk in fetched)


def test_a_late_record_is_read_by_the_next_fetch(udl: UdlWorld) -> None:
    fleet = ReachFleet(satellites=1, cadence_s=60, now=DAY + timedelta(hours=6))
    udl.clear(fleet)
    source = reach(udl)
    before = first(source)
    fleet.now = DAY + timedelta(days=9)
    after = first(source)
    assert before.received < after.received
    assert set(before.frame["ob_time"]) < set(after.frame["ob_time"])


# -- duplicates and order ---------------------------------------------------------------------------------


def test_of_duplicates_the_one_created_last_stays(udl: UdlWorld) -> None:
    created = [f"2025-05-0{day}T00:00:00.000Z" for day in (2, 4, 3)]
    versions = [row(DAY, number, createdAt=text) for number, text in enumerate(created)]
    unknown = row(DAY, 7, createdAt=None)
    other = {"seoList": [{"obDescription": "Dosimeter B dose rate", "obValue": 9.0}]}
    both = {"seoList": [{"obDescription": "B"}, {"obDescription": "A"}]}
    turned = {"seoList": [{"obDescription": "A"}, {"obDescription": "B"}], "createdAt": created[1]}
    more = [row(DAY, 3, **other), row(DAY + MICROSECOND, 4), row(DAY, 5, **both), row(DAY, 6, **turned)]
    udl.clear(held(*versions, unknown, *more))
    fetched = first(reach(udl))
    assert fetched.frame["sat_no"].to_list() == [43_106, 43_101, 43_103, 43_104]
    assert (fetched.received, fetched.duplicates) == (8, 4)
    udl.clear(held(*reversed([*versions, unknown, *more])))
    assert first(reach(udl)).frame.equals(fetched.frame)


def test_without_a_description_nobody_knows_which_are_the_same(udl: UdlWorld) -> None:
    bare = [row(DAY, number, seoList=value) for number, value in enumerate([None, [], [{"obValue": 1.0}]])]
    missing = {key: value for key, value in row(DAY, 3).items() if key != "seoList"}
    udl.clear(held(*bare, missing, row(DAY, 4)))
    frame = first(reach(udl)).frame
    assert sorted(frame["sat_no"].to_list()) == [43_100, 43_101, 43_102, 43_103, 43_104]
    lists = dict(zip(frame["sat_no"].to_list(), frame["seo_list"].to_list(), strict=True))
    assert (lists[43_100], lists[43_101], lists[43_103]) == (None, [], None)
    assert lists[43_102][0]["ob_value"] == 1.0


def test_the_frame_is_sorted(udl: UdlWorld) -> None:
    udl.clear(ReachFleet(satellites=3, cadence_s=60))
    source = reach(udl, None)
    frame = frame_of([source.fetch(chunk) for chunk in source.chunks(WINDOW)[:3]])
    assert frame.equals(frame.sort(source.sort_by))
    assert frame.select(source.key).is_duplicated().sum() == 0


# -- bad records ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("changes", "reason"), [
    ({"lat": "north"}, 'lat is "north", expected a number'),
    ({"lat": True}, "lat is true, expected a number"),
    ({"satNo": 1.5}, "satNo is 1.5, expected a whole number"),
    ({"satNo": 2**70}, "satNo is 1.1805916207174113e+21, expected a whole number"),
    ({"idSensor": None}, "idSensor is missing"),
    ({"idSensor": 101}, "idSensor is 101, expected a text"),
    ({"obTime": "yesterday"}, 'obTime is "yesterday", expected a moment'),
    ({"obTime": 1746057600}, "obTime is 1746057600, expected a moment"),
    ({"obTime": None}, "obTime is missing"),
    ({"createdAt": "2025-13-01T00:00:00Z"}, 'createdAt is "2025-13-01T00:00:00Z", expected a moment'),
    ({"senPos": [1.0, 2.0]}, "senPos is [1.0, 2.0], expected three numbers"),
    ({"senPos": [1.0, "2", 3.0]}, 'senPos is [1.0, "2", 3.0], expected three numbers'),
    ({"senPos": {"x": 1}}, 'senPos is {"x": 1}, expected three numbers'),
    ({"seoList": "none"}, 'seoList is "none", expected a list of measurements'),
    ({"seoList": [7]}, "seoList is [7], expected a list of measurements"),
    ({"seoList": [{"obValue": "high"}]}, 'seoList is [{"obValue": "high"}], expected a list of measurements'),
    ({"id": "\ud800"}, 'id is "\\ud800", expected a text'),
    ({"lat": "n", "lon": "e"}, 'lat is "n", expected a number; lon is "e", expected a number'),
])  # fmt: skip
def test_a_bad_record_is_set_aside_with_its_reason(
    udl: UdlWorld, changes: dict[str, Any], reason: str
) -> None:
    good = [row(DAY + n * MINUTES, n) for n in (1, 2)]
    bad = row(DAY + 1.5 * MINUTES, 9, **changes)
    udl.clear(HeldObservations(zip([DAY + n * MINUTES for n in (1, 2, 1.5)], [*good, bad], strict=True)))
    fetched = first(reach(udl, None))
    assert fetched.received == 3
    ((said, raw),) = fetched.rejected
    assert said == reason
    assert bad["createdBy"] in raw
    udl.clear(held(*good))
    assert first(reach(udl)).frame.equals(fetched.frame)


def test_what_is_no_object_is_set_aside_and_odd_but_usable_values_stay(udl: UdlWorld) -> None:
    usable = [
        {"lat": 7, "satNo": 43_000.0},
        {"lat": float("nan"), "alt": float("inf")},
        {"genTime": "2025-05-01 02:00:00", "createdAt": "2025-05-01T03:00:00.123456789Z"},
        {"genTime": "2025-05-01T02:00:00+02:00"},
        {"senPos": [None, 1, 2.5], "seoList": [{"obValue": None}, {"obValue": 3}]},
    ]
    records = [row(DAY + n * MINUTES, n, **changes) for n, changes in enumerate(usable)]
    stock = HeldObservations((DAY + n * MINUTES, record) for n, record in enumerate(records))
    stock.add([(DAY, 7), (DAY, None), (DAY, ["x"])])
    udl.clear(stock)
    fetched = first(reach(udl))
    assert fetched.received == 8
    assert [raw for _, raw in fetched.rejected] == ["7", "null", '["x"]']
    assert {reason for reason, _ in fetched.rejected} == {"the record is no JSON object"}
    frame = fetched.frame
    assert frame["lat"][0] == 7.0
    assert frame["sat_no"][0] == 43_000
    assert frame["lat"].is_nan().to_list() == [False, True, False, False, False]
    assert frame["gen_time"].to_list()[2:4] == [datetime(2025, 5, 1, 2), datetime(2025, 5, 1)]
    assert frame["created_at"][2] == datetime(2025, 5, 1, 3, 0, 0, 123_456)
    assert frame["sen_pos"][4].to_list() == [None, 1.0, 2.5]
    assert [part["ob_value"] for part in frame["seo_list"][4]] == [None, 3.0]


def test_a_bad_record_on_the_far_end_is_left_to_the_next_chunk(udl: UdlWorld) -> None:
    edge = DAY + timedelta(hours=6)
    udl.clear(held(row(edge, 1, lat="north"), row(edge, 2)))
    chunks = whole(reach(udl), WINDOW)
    assert [chunk.received for chunk in chunks] == [0, 2, 0, 0]
    assert [len(chunk.rejected) for chunk in chunks] == [0, 1, 0, 0]


# -- the server's own count -------------------------------------------------------------------------------


def test_a_counted_chunk_says_what_was_expected_inside_it(udl: UdlWorld) -> None:
    udl.clear(ReachFleet(satellites=1, cadence_s=600, quirks=False))
    source = reach(udl, is_counted=True)
    fetched = whole(source, WINDOW)
    assert [(chunk.received, chunk.expected) for chunk in fetched] == [(72, 72)] * 4
    assert source.count(WINDOW) == 4 * 72
    assert source.count(Chunk(DAY, DAY + 10 * MINUTES)) == 2
    assert udl.paths.count(COUNT) >= 4
    udl.faults.add("wrong_count", n=1)
    with pytest.raises(CountMismatch):
        first(source)
