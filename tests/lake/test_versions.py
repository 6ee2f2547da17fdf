"""Version logs in one sweep and over many: two records of one key, what is written, what was not seen."""

from __future__ import annotations

from datetime import datetime
from itertools import permutations
from pathlib import Path

import polars as pl
import pytest

from dagster_l2.lake import SCAN_COLUMNS, BronzeTable, Changes, VersionLog, committed_files

SCHEMA = {
    "id": pl.String(),
    "create_date": pl.Int64(),
    "update_date": pl.Int64(),
    "value": pl.Int64(),
    **SCAN_COLUMNS,
}

Row = tuple[str, int, int | None, int]
OLD, NEW, OTHER = ("A", 1, 5, 10), ("A", 2, 6, 20), ("B", 1, None, 30)


@pytest.fixture
def table(tmp_path: Path) -> BronzeTable:
    return BronzeTable(tmp_path, "things", SCHEMA)


def sweep(table: BronzeTable, *windows: list[Row], at: int, is_settled: bool = True) -> Changes:
    log = VersionLog(table, "id", home="create_date")
    total = Changes()
    moment = datetime(2026, 1, at)
    for number, rows in enumerate(windows):
        frame = pl.DataFrame(rows, schema=list(SCHEMA)[:4], orient="row").cast(
            {"update_date": pl.Int64, "value": pl.Int64}
        )
        hashes = pl.Series([f"h{row[1:]}" for row in rows], dtype=pl.String)
        total += log.write_changes(frame, hashes, scanned_at=moment, job_id=f"job{at}", part=str(number))
    if is_settled:
        total += log.settle(scanned_at=moment, job_id=f"job{at}")
    return total


def newest(table: BronzeTable) -> dict[str, int]:
    rows = table.scan().collect().sort("scanned_at").unique("id", keep="last")
    return dict(zip(rows["id"], rows["value"], strict=True))


def counts(changes: Changes) -> tuple[int, int, int]:
    return changes.new, changes.changed, changes.unchanged


@pytest.mark.parametrize("windows", list(permutations([[OLD], [NEW], [OTHER]])))
def test_of_two_records_of_one_key_the_newest_wins_and_no_later_sweep_writes(
    table: BronzeTable, windows: tuple[list[Row], ...]
) -> None:
    first = sweep(table, *windows, at=1)
    assert (first.new, first.changed + first.unchanged) == (2, 1)
    assert newest(table) == {"A": 20, "B": 30}
    files = committed_files(table.folder)
    for day, order in enumerate(permutations(windows), 2):
        assert counts(sweep(table, *order, at=day)) == (0, 0, 3)
    assert committed_files(table.folder) == files


def test_equal_dates_are_decided_by_content(table: BronzeTable) -> None:
    twins: list[Row] = [("A", 1, None, 10), ("A", 2, None, 20)]
    for day, order in enumerate([twins, twins[::-1], twins], 1):
        sweep(table, *[[row] for row in order], at=day)
        assert newest(table) == {"A": 20}
    assert len(table.scan().collect()) == 2


def test_when_the_newest_goes_the_other_is_current_again(table: BronzeTable) -> None:
    sweep(table, [OLD], [NEW], at=1)
    assert counts(sweep(table, [OLD], [OTHER], at=2)) == (1, 1, 0)
    assert newest(table)["A"] == 10
    assert counts(sweep(table, [OLD], [OTHER], at=3)) == (0, 0, 2)


def test_a_change_of_the_winner_is_a_change_wherever_it_comes(table: BronzeTable) -> None:
    sweep(table, [OLD], [NEW], at=1)
    changed: Row = ("A", 2, 6, 21)
    for day, order in enumerate([[[OLD], [changed]], [[changed], [OLD]]], 2):
        changes = sweep(table, *order, at=day)
        assert changes.changed == (day == 2)
        assert newest(table) == {"A": 21}


def test_what_a_killed_sweep_did_not_settle_the_next_one_does(table: BronzeTable) -> None:
    assert counts(sweep(table, [OLD], [NEW], at=1, is_settled=False)) == (1, 0, 0)
    assert newest(table) == {"A": 10}
    changes = sweep(table, [OLD], [NEW], at=2)
    assert counts(changes) == (0, 1, 1)
    assert changes.by_field == {"create_date": 1, "update_date": 1, "value": 1}
    assert newest(table) == {"A": 20}


def test_a_sweep_knows_whom_it_did_not_see(table: BronzeTable) -> None:
    sweep(table, [OLD, OTHER], at=1)
    log = VersionLog(table, "id", home="create_date")
    frame = pl.DataFrame([("A", 9, 9, 9), ("C", 1, 1, 1)], schema=list(SCHEMA)[:4], orient="row")
    log.write_changes(frame, pl.Series(["x", "y"]), scanned_at=datetime(2026, 1, 2), job_id="job2", part="0")
    assert log.unseen_keys.to_list() == ["B"]
    assert set(log.known_keys) == {"A", "B", "C"}


def test_many_changes_in_many_files_are_counted_by_field(table: BronzeTable) -> None:
    windows = [[(f"{window}-{i}", window, i, 0) for i in range(20)] for window in range(12)]
    assert counts(sweep(table, *windows, at=1)) == (240, 0, 0)
    grown = [[(key, home, day, value + 1) for key, home, day, value in rows] for rows in windows]
    changes = sweep(table, *grown, at=2)
    assert counts(changes) == (0, 240, 0)
    assert changes.by_field == {"value": 240}
    assert counts(sweep(table, *grown, at=3)) == (0, 0, 240)


@pytest.mark.parametrize("rows", [[OLD, NEW, OTHER], [NEW, OTHER, OLD]])
def test_two_records_of_one_key_may_come_at_once(table: BronzeTable, rows: list[Row]) -> None:
    assert sum(counts(sweep(table, rows, at=1))) == 3
    for day in (2, 3):
        assert counts(sweep(table, rows[::-1], at=day)) == (0, 0, 3)
        assert newest(table) == {"A": 20, "B": 30}


def test_a_log_that_is_asked_first_is_handed_only_what_differs(table: BronzeTable) -> None:
    sweep(table, [OLD], [NEW], [OTHER], at=1)
    files = committed_files(table.folder)
    rows = pl.DataFrame([OLD, NEW, OTHER, ("C", 1, 1, 1)], schema=list(SCHEMA)[:4], orient="row")
    hashes = pl.Series([f"h{row[1:]}" for row in rows.rows()])
    for is_told in (False, True):
        log = VersionLog(table, "id", home="create_date")
        asked = VersionLog(table, "id") if is_told else log
        differs = asked.differs(rows["id"], hashes)
        assert differs.to_list() == [True, False, False, True]
        if is_told:
            log.saw(rows["id"].filter(~differs))
        twin = rows.head(1)
        stamps = {"scanned_at": datetime(2026, 1, 2), "job_id": "job2"}
        assert counts(log.write_changes(twin, hashes.head(1), part="0", **stamps)) == (0, 0, 0)
        assert counts(log.settle(**stamps)) == (0, 0, 1)
        assert log.unseen_keys.is_empty()
    assert committed_files(table.folder) == files


def test_a_sweep_that_goes_on_keeps_what_it_settled_before(table: BronzeTable) -> None:
    sweep(table, [OLD, ("B", 1, 1, 1)], [NEW], at=1)
    changes = sweep(table, [OLD], [NEW], [("B", 2, 2, 2)], [("B", 1, 1, 1)], at=1)
    assert counts(changes) == (0, 1, 3)
    assert newest(table) == {"A": 20, "B": 2}
