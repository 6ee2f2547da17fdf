"""The scan of the whole store: what it writes, what it marks, what it survives."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from dagster_l2.batch import read_attempts
from dagster_l2.lake import committed_files
from dagster_l2.ledger import Ledger
from dagster_l2.sources import ScanFailed, ScanTables
from dagster_l2.store import StoreClient, StoreError
from tests.conftest import DATES

from .conftest import World

Make = Callable[..., dict[str, Any]]


def datasets(world: World) -> pl.DataFrame:
    return ScanTables.under(world.lake).datasets.scan().sort("scanned_at").collect()


def missing(world: World) -> dict[str, bool]:
    rows = ScanTables.under(world.lake).missing.scan().collect().sort("scanned_at")
    newest = rows.unique("record_id", keep="last")
    return {row["record_id"]: row["missing_since"] is not None for row in newest.iter_rows(named=True)}


@pytest.mark.parametrize("options", [
    {},
    {"inclusive_bounds": False},
    {"unstable_ties": True},
    {"inclusive_bounds": False, "unstable_ties": True},
])  # fmt: skip
@pytest.mark.parametrize("kind", ["graphql", "public"])
@pytest.mark.parametrize("window_records", [3, 1000])
def test_every_record_arrives_once_however_the_store_behaves(
    world: World, record: Make, options: dict[str, Any], kind: str, window_records: int
) -> None:
    edges = [record(900 + i, createDate=f"2024-03-0{1 + i}T00:00:00") for i in range(4)]
    world.records = [*[record(7 * i) for i in range(32)], *edges]
    world.options, world.kind = options, kind
    world.sweep_options = {"window_records": window_records}
    report = world.scan()
    assert report.counts() == {"new": 36, "changed": 0, "unchanged": 0, "rejected": 0, "missing": 0}
    assert sorted(datasets(world)["dataset_id"]) == sorted(r["datasetId"] for r in world.records)


def test_a_second_scan_writes_no_parquet(world: World, record: Make) -> None:
    world.records = [record(i) for i in range(30)]
    world.scan()
    before = {path: path.stat().st_mtime_ns for path in world.lake.rglob("*.parquet")}
    world.records = [{**r, "updateDate": "2026-01-01T00:00:00"} for r in world.records]
    assert world.scan().counts()["unchanged"] == 30
    assert {path: path.stat().st_mtime_ns for path in world.lake.rglob("*.parquet")} == before


def test_a_change_is_counted_by_field_and_both_versions_stay(world: World, record: Make) -> None:
    world.records = [record(i) for i in range(5)]
    world.scan()
    world.records[2]["frameCount"] = 9
    world.records[3] |= {"isEmbargoed": True, "frameCount": 8}
    report = world.scan()
    assert report.counts() | {} == {"new": 0, "changed": 2, "unchanged": 3, "rejected": 0, "missing": 0}
    assert report.datasets.by_field == {"frame_count": 2, "is_embargoed": 1}
    assert datasets(world).filter(pl.col("dataset_id") == "D0002")["frame_count"].to_list() == [10, 9]


def test_one_bad_record_stops_no_other_and_is_kept_with_its_reason(world: World, record: Make) -> None:
    world.records = [record(i) for i in range(20)]
    world.scan()
    world.records[4] |= {"frameCount": "many"}
    world.records[5] |= {"createDate": "yesterday"}
    world.records.append(record(30))
    for _ in range(2):
        report = world.scan()
        assert (report.rejected, report.missing) == (2, 0)
    assert len(datasets(world)) == 21
    rejected = ScanTables.under(world.lake).rejected.scan().collect().sort("record_id")
    assert rejected["record_id"].to_list() == ["D0004", "D0005"]
    assert "frameCount" in rejected["reason"][0]
    assert json.loads(rejected["raw_json"][1])["createDate"] == "yesterday"


def test_a_record_no_longer_seen_is_marked_kept_and_taken_back(world: World, record: Make) -> None:
    world.records = [record(i) for i in range(30)]
    world.scan()
    lost = world.records.pop(7)
    assert world.scan().missing == 1
    assert world.scan().missing == 1
    assert missing(world) == {"D0007": True}
    assert len(ScanTables.under(world.lake).missing.scan().collect()) == 1
    world.records.append(lost)
    report = world.scan()
    assert (report.missing, report.counts()["new"], report.counts()["unchanged"]) == (0, 0, 30)
    assert missing(world) == {"D0007": False}


def test_a_tenth_gone_at_once_marks_nothing_and_says_so(world: World, record: Make) -> None:
    world.records = [record(i) for i in range(30)]
    world.scan()
    world.records = world.records[:20]
    with pytest.raises(ScanFailed, match=r"10 of 30 known datasets are missing .* --accept-missing"):
        world.scan()
    assert missing(world) == {}
    world.records = []
    with pytest.raises(ScanFailed, match="30 of 30"):
        world.scan()
    world.records = [record(i) for i in range(20)]
    world.sweep_options = {"accept_missing": True}
    assert world.scan().missing == 10


@pytest.mark.parametrize("kind", ["graphql", "public"])
def test_two_records_of_one_id_stop_no_other(world: World, kind: str) -> None:
    # The local store keeps one record an id, so the pages themselves are what repeats here.
    raw = [
        {"datasetId": name, "createDate": f"2024-01-0{day}T00:00:00", "primaryProposalId": "pid_1_1"}
        for name, day in (("A", 1), ("A", 2), ("B", 2), ("C", 3))
    ]

    class Repeating(StoreClient):
        def datasets(self, filters: Any = None, **page: Any) -> list[Any]:
            super().datasets(filters, **page)
            wanted = raw[::-1] if page.get("sort_column") == "-createDate" else raw
            if not filters:
                return wanted[: page.get("page_size") or 99]
            low, high = filters["createDateMin"], filters["createDateMax"]
            moments = [datetime.fromisoformat(record["createDate"]).replace(tzinfo=UTC) for record in raw]
            return [record for record, moment in zip(raw, moments, strict=True) if low <= moment <= high]

        def dataset_count(self, filters: Any = None) -> int:
            return len(self.datasets(filters))

        def counted_datasets(self, filters: Any) -> tuple[list[Any], int]:
            return self.datasets(filters), self.dataset_count(filters)

    world.client_type, world.kind = Repeating, kind
    assert world.scan().counts()["new"] == 3
    assert sorted(set(datasets(world)["dataset_id"])) == ["A", "B", "C"]


def test_a_failing_window_stops_no_other_and_the_next_scan_does_the_rest(world: World, record: Make) -> None:
    world.records = [record(i) for i in range(60)]
    world.sweep_options = {"window_records": 10}
    world.faults.add("graphql_errors", match="datasetInventories(", skip=4, times=1)
    with pytest.raises(ScanFailed, match=r"1 of .* windows could not be read"):
        world.scan()
    kept = len(datasets(world))
    assert 40 <= kept < 60
    world.faults.clear()
    counts = world.scan().counts()
    assert (counts["new"], counts["unchanged"]) == (60 - kept, kept)


def test_a_count_that_does_not_match_fails_the_window(world: World, record: Make) -> None:
    world.records = [record(i) for i in range(6)]
    world.faults.add("wrong_count", n=1)
    with pytest.raises(ScanFailed, match=r"counts 7 records created in .* and sends 6"):
        world.scan()
    assert missing(world) == {}
    with Ledger.open(f"sqlite:///{world.folder / 'l2.sqlite'}") as ledger:
        last = read_attempts(ledger.engine, but=set()).sort("attempt_id").row(-1, named=True)
    assert (last["status"], last["records"], last["expected_records"]) == ("FAILED", 6, 7)
    assert last["availability_pct"] == pytest.approx(600 / 7)


def test_an_empty_answer_is_no_outage_only_when_the_store_says_zero(world: World, record: Make) -> None:
    assert world.scan().counts()["new"] == 0
    world.records = [record(i) for i in range(6)]
    world.scan()
    world.faults.add("empty")
    with pytest.raises(ScanFailed, match="6 of 6 known datasets are missing"):
        world.scan()


def test_a_store_that_is_down_loses_nothing(world: World, record: Make) -> None:
    world.records = [record(i) for i in range(6)]
    world.scan()
    world.faults.add("status", status=503)
    with pytest.raises(StoreError, match="HTTP 503"):
        world.scan()
    world.faults.clear()
    assert world.scan().counts()["unchanged"] == 6


def test_the_real_dumps_in_order(world: World, real_records: Path) -> None:
    seen = []
    for date in DATES:
        world.records = [
            record
            for path in sorted((real_records / date).glob("*.json"))
            for record in json.loads(path.read_text())["data"]["datasetInventories"]
        ]
        for _ in range(2):
            counts = world.scan().counts()
            seen.append((counts["new"], counts["changed"]))
    assert seen == [(360, 0), (0, 0), (0, 213), (0, 0), (148, 360), (0, 0)]
    tables = ScanTables.under(world.lake)
    assert len(committed_files(tables.datasets.folder)) == 4
