"""Small files become large ones: each row once at every moment, whatever is killed, lost or refused."""

from __future__ import annotations

import json
import resource
import subprocess
import sys
import tempfile
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path

import duckdb
import polars as pl
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dagster_l2.base import files
from dagster_l2.lake import (
    BronzeTable,
    Claim,
    Compaction,
    GrowingTable,
    LakeError,
    committed_files,
    compact,
    compaction,
    read_manifest,
    register_views,
)
from tests.conftest import REPOSITORY

SCHEMA = {"number": pl.Int64(), "op_id": pl.String(), "at": pl.Datetime("us")}
MOMENT = datetime(2026, 3, 1, 12)


@pytest.fixture(autouse=True)
def _small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compaction, "FULL_ROWS", 10)
    monkeypatch.setattr(compaction, "OPEN_FILES", 4)
    monkeypatch.setattr(compaction, "KEPT_FOR", timedelta(0))


@pytest.fixture
def table(tmp_path: Path) -> BronzeTable:
    return BronzeTable(tmp_path, "things", SCHEMA)


class Source:
    """Numbers from 1 on, exported file by file as the ledger's rows are."""

    def __init__(self, table: BronzeTable) -> None:
        self.table, self.last, self.files = table, 0, 0

    def add(self, rows: int, *, beside: tuple[str, ...] = (), is_claimed: bool = True) -> Path:
        numbers = range(self.last + 1, self.last + rows + 1)
        frame = pl.DataFrame(
            {
                "number": numbers,
                "op_id": [f"op {-number % 3}" for number in numbers],
                "at": [MOMENT + timedelta(microseconds=number) for number in numbers],
            },
            schema=SCHEMA,
        )
        claim = Claim(self.last, self.last + rows, beside) if is_claimed else None
        self.table.append(frame, job_id="export", part=f"{self.files:03d}", claim=claim)
        self.last += rows
        self.files += 1
        return self.table.folder / f"export-{self.files - 1:03d}.parquet"

    def is_whole(self) -> bool:
        numbers = sorted(self.table.scan().collect()["number"])
        return numbers == list(range(1, self.last + 1))


def run(table: BronzeTable, job_id: str = "merge") -> Compaction:
    return compact(table, ("op_id", "number"), job_id=job_id)


def with_rows(table: BronzeTable) -> list[str]:
    return [path.stem for path in committed_files(table.folder) if not path.name.startswith("0-schema-")]


def on_the_disk(table: BronzeTable) -> set[str]:
    return {path.name for path in table.folder.iterdir() if not path.name.startswith("0-schema-")}


class Killed(BaseException):
    """Ends the work at a step as a kill would, without the process."""


def is_done_within(steps: int, work: Callable[[], object]) -> bool:
    """Let it take so many durable steps, and cut it off before the next one."""
    left = iter(range(steps))

    def watch(_name: str) -> None:
        if next(left, None) is None:
            raise Killed

    files.watch_steps(watch)
    try:
        work()
    except Killed:
        return False
    finally:
        files.watch_steps(None)
    return True


def test_small_files_become_one_with_the_same_rows_sorted(table: BronzeTable) -> None:
    source = Source(table)
    for rows in (2, 1, 3):
        source.add(rows)
    before = table.scan().collect()
    assert run(table) == Compaction()
    before = pl.concat([before, pl.read_parquet(source.add(2))])
    assert run(table) == Compaction(files=4, into=1, rows=8)
    assert with_rows(table) == ["merge-00000"]
    path = table.folder / "merge-00000.parquet"
    assert pl.read_parquet_schema(path) == pl.Schema(SCHEMA)
    assert pl.read_parquet(path).equals(before.sort("op_id", "number"))
    assert GrowingTable(table, "number").complete_through == source.last == 8


def test_full_files_are_left_alone(table: BronzeTable) -> None:
    source = Source(table)
    for _ in range(8):
        source.add(5)
    assert run(table) == Compaction(files=8, into=4, rows=40)
    full = with_rows(table)
    for _ in range(3):
        source.add(1)
    assert run(table, "second") == Compaction()
    source.add(1)
    assert run(table, "second") == Compaction(files=4, into=1, rows=4)
    assert with_rows(table) == [*full, "second-00000"]
    assert source.is_whole()


def test_a_file_that_is_not_full_goes_into_the_next(table: BronzeTable) -> None:
    source = Source(table)
    for number in range(12):
        source.add(1)
        run(table, f"merge{number:02d}")
        assert source.is_whole()
    assert with_rows(table) == ["export-010", "export-011", "merge09-00000"]


def test_parts_stay_for_builds_that_have_listed_them(
    table: BronzeTable, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(compaction, "KEPT_FOR", timedelta(hours=1))
    monkeypatch.setattr(compaction, "FULL_ROWS", 100)
    source = Source(table)
    for _ in range(4):
        source.add(2)
    with duckdb.connect() as build:
        register_views(build, [table])
        for number in range(3):
            run(table, f"merge{number}")
            assert build.execute("select count(*) from bronze.things").fetchall() == [(8,)]
            assert source.is_whole()
    # Merged once more within that time: what the first merge replaced must not come back with the second.
    for _ in range(3):
        source.add(1)
    assert run(table, "again") == Compaction(files=4, into=1, rows=11)
    assert source.is_whole()
    monkeypatch.setattr(compaction, "KEPT_FOR", timedelta(0))
    while not is_done_within(3, partial(run, table, "later")):
        assert source.is_whole()
    assert on_the_disk(table) == {"again-00000.parquet", "again-00000.done"}
    assert source.is_whole()


def test_what_a_moment_knew_is_what_counted_then(table: BronzeTable, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compaction, "KEPT_FOR", timedelta(hours=1))
    source = Source(table)
    for _ in range(4):
        source.add(2)
    moment = datetime.now(UTC)
    run(table)
    known = [path.stem for path in committed_files(table.folder, known_at=moment)]
    assert [name for name in known if not name.startswith("0-schema-")] == [f"export-00{n}" for n in range(4)]


def test_files_that_others_rely_on_and_files_without_a_claim_stay(table: BronzeTable) -> None:
    source = Source(table)
    source.add(2)
    late = source.add(1, is_claimed=False)
    source.last -= 1
    source.add(3, beside=(late.name,))
    for _ in range(4):
        source.add(1)
    rows = sorted(table.scan().collect()["number"])
    assert run(table) == Compaction(files=4, into=1, rows=4)
    assert sorted(table.scan().collect()["number"]) == rows
    assert GrowingTable(table, "number").complete_through == source.last
    assert {late.stem, "export-002"} < set(with_rows(table))


def test_columns_that_came_later_are_null_in_older_rows(table: BronzeTable) -> None:
    source = Source(table)
    for _ in range(3):
        source.add(1)
    wider = Source(BronzeTable(table.root, table.name, SCHEMA | {"more": pl.String()}))
    wider.table.ensure()
    wider.last, wider.files = source.last, source.files
    frame = pl.DataFrame(
        {"number": [4], "op_id": ["x"], "at": [MOMENT], "more": ["said"]}, wider.table.schema
    )
    wider.table.append(frame, job_id="export", part="new", claim=Claim(3, 4))
    assert run(wider.table).rows == 4
    assert wider.table.scan().collect().sort("number")["more"].to_list() == [None, None, None, "said"]


def test_a_kill_at_any_step_loses_and_doubles_nothing(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "tests.lake.kill_compaction", str(tmp_path)]
    done = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    kinds = {step.split()[0] for step in json.loads(done.stdout)}
    assert kinds == {"write", "fsync", "rename", "remove"}


def test_while_its_parts_are_there_a_damaged_merged_file_costs_nothing(
    table: BronzeTable, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(compaction, "KEPT_FOR", timedelta(hours=1))
    source = Source(table)
    for _ in range(4):
        source.add(2)
    run(table)
    path = table.folder / "merge-00000.parquet"
    path.write_bytes(path.read_bytes()[:-1])
    assert source.is_whole()
    assert GrowingTable(table, "number").complete_through == source.last


def test_a_damaged_part_is_named_and_changes_nothing(table: BronzeTable) -> None:
    """One that can still be read, too: merged, its damage would have a hash that fits."""
    source = Source(table)
    paths = [source.add(2) for _ in range(4)]
    content = bytearray(paths[1].read_bytes())
    content[-1] ^= 1
    paths[1].write_bytes(content)
    before = on_the_disk(table)
    with pytest.raises(LakeError, match=r"export-001\.parquet is not what its manifest says; remove it, and"):
        run(table)
    assert on_the_disk(table) == before


def test_a_disk_that_refuses_is_one_sentence_and_changes_nothing(table: BronzeTable) -> None:
    source = Source(table)
    for _ in range(4):
        source.add(2)
    table.ensure()
    before, limits = on_the_disk(table), resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (200, limits[1]))
    try:
        with pytest.raises(
            LakeError, match=r"things can't be merged, and stay as they are: .*too large"
        ) as caught:
            run(table)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert "\n" not in str(caught.value)
    assert on_the_disk(table) == before
    assert source.is_whole()


def test_row_groups_tell_which_programs_they_hold(
    table: BronzeTable, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What sorting is for: who asks for one OP reads the groups that can have it."""
    monkeypatch.setattr(compaction, "FULL_ROWS", 10_000)
    monkeypatch.setattr(compaction, "_GROUP_ROWS", 2_048)
    source = Source(table)
    for _ in range(4):
        source.add(2_500)
    run(table)
    metadata = pq.ParquetFile(table.folder / "merge-00000.parquet").metadata
    spans = [metadata.row_group(n).column(1).statistics for n in range(metadata.num_row_groups)]
    assert sum(span.min <= "op 0" <= span.max for span in spans) < len(spans)


@given(st.lists(st.one_of(st.integers(0, 7), st.just("merge"), st.just("lose")), max_size=40))
def test_whatever_the_order_each_row_is_there_once(doings: list[int | str]) -> None:
    """Exports of any size, merges in between, and merged files that are lost while their parts are there."""
    with tempfile.TemporaryDirectory() as folder:
        source = Source(BronzeTable(Path(folder), "things", SCHEMA))
        source.table.ensure()
        compaction.KEPT_FOR = timedelta(hours=1) if "lose" in doings else timedelta(0)
        for number, doing in enumerate(doings):
            if isinstance(doing, int):
                source.add(doing)
            elif doing == "merge":
                run(source.table, f"merge{number:02d}")
            else:
                merged = sorted(source.table.folder.glob("merge*.done"))
                for done in merged[-1:]:
                    done.unlink()
            assert source.is_whole()
            assert GrowingTable(source.table, "number").complete_through == source.last
        full = [
            m.row_count for p in committed_files(source.table.folder) if (m := read_manifest(p)) is not None
        ]
        assert max(full) < 10 + 9
