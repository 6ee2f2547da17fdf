"""The export to bronze: every row once, whatever was committed late, killed, lost or written before."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime, timedelta
from pathlib import Path

import polars as pl
import pytest
import sqlalchemy as sa

from dagster_l2.assets import export
from dagster_l2.assets.export import OtherLedger, compact_exported, export_rows, exported_table
from dagster_l2.lake import Compaction, GrowingTable, committed_files, compaction, done_path, read_manifest
from dagster_l2.ledger import Growing, Ledger, State
from dagster_l2.ledger.tables import op_annotations, op_transitions


@pytest.fixture(autouse=True)
def _small_files(monkeypatch):
    monkeypatch.setattr(export, "ROWS_PER_FILE", 4)


def discover(ledger: Ledger, *op_ids: str) -> None:
    for op_id in op_ids:
        ledger.append(op_id, State.DISCOVERED, actor="scan", cause="found", details={"n": op_id})


def bronze(lake: Path, name: Growing = "transitions") -> pl.DataFrame:
    return exported_table(lake, name).scan().collect()


def ids(lake: Path) -> list[int]:
    return sorted(bronze(lake)["transition_id"])


def files(lake: Path) -> list[Path]:
    """The files with rows or claims, oldest first."""
    found = {
        path: read_manifest(path) for path in committed_files(exported_table(lake, "transitions").folder)
    }
    rows = {path: manifest.written_at for path, manifest in found.items() if manifest.job_id != "schema"}
    return sorted(rows, key=rows.__getitem__)


def complete_through(lake: Path) -> int:
    return GrowingTable(exported_table(lake, "transitions"), "transition_id").complete_through


def naive(moment: datetime) -> datetime:
    return moment.replace(tzinfo=None)


def test_bronze_has_what_the_ledger_has(ledger, bring, tmp_path):
    for number in range(3):
        bring(ledger, f"op{number}", State.PUBLISHED)
    odd = {"text": 'é ☉ " \\ \n \0', "big": 2**70, "none": None, "list": [1.5, True]}
    ledger.append("op'; --", State.DISCOVERED, actor="é", cause="a\nb", details=odd)
    rows = [row for op_id in ledger.present_all() for row in ledger.history(op_id)]
    assert export_rows(ledger, tmp_path, "transitions") == len(rows)
    found = {row["transition_id"]: row for row in bronze(tmp_path).iter_rows(named=True)}
    assert len(found) == len(rows) == len(bronze(tmp_path))
    for row in rows:
        there = found[row.transition_id]
        assert json.loads(there.pop("details")) == row.details
        for name in ("occurred_at", "recorded_at"):
            assert there.pop(name) == naive(getattr(row, name))
        assert there == {name: getattr(row, name) for name in there}
    assert "é ☉" in "".join(bronze(tmp_path)["details"]), "analysts search letters, not escapes"
    assert dict(bronze(tmp_path).schema) == export.TRANSITION_SCHEMA


def test_a_second_export_writes_nothing_and_a_later_one_only_what_is_new(ledger, tmp_path):
    assert export_rows(ledger, tmp_path, "transitions") == 0
    assert files(tmp_path) == []
    discover(ledger, *"abcdefghi")
    assert export_rows(ledger, tmp_path, "transitions") == 9
    before = files(tmp_path)
    assert [len(pl.read_parquet(path)) for path in before] == [4, 4, 1]
    assert export_rows(ledger, tmp_path, "transitions") == 0
    assert files(tmp_path) == before
    discover(ledger, "later")
    assert export_rows(ledger, tmp_path, "transitions") == 1
    assert pl.read_parquet(files(tmp_path)[-1])["op_id"].to_list() == ["later"]
    assert complete_through(tmp_path) == max(ids(tmp_path))


def test_annotations_go_the_same_way(ledger, place, tmp_path):
    moment = datetime.fromisoformat("2026-03-01T12:00:00.000001+00:00")
    values = [
        {
            "op_id": f"op{n}",
            "kind": "note",
            "actor": "ann",
            "recorded_at": moment,
            "details": {"text": f"é {n}"},
        }
        for n in range(6)
    ]
    with ledger.engine.begin() as connection:
        connection.execute(sa.insert(op_annotations), values)
    assert export_rows(ledger, tmp_path, "annotations") == 6
    assert export_rows(ledger, tmp_path, "annotations") == 0
    found = bronze(tmp_path, "annotations").sort("annotation_id")
    assert dict(found.schema) == export.ANNOTATION_SCHEMA
    assert found.drop("annotation_id").row(3) == ("op3", "note", "ann", naive(moment), '{"text":"é 3"}')


@pytest.mark.parametrize("lost", [0, 1, 2])
@pytest.mark.parametrize("how", ["parquet", "manifest", "cut"])
def test_a_lost_file_is_written_again_and_nothing_twice(ledger, tmp_path, lost, how):
    discover(ledger, *"abcdefghi")
    export_rows(ledger, tmp_path, "transitions")
    everything, path = ids(tmp_path), files(tmp_path)[lost]
    held = len(pl.read_parquet(path))
    if how == "cut":
        path.write_bytes(path.read_bytes()[:-1])
    else:
        (path if how == "parquet" else done_path(path)).unlink()
    discover(ledger, "new")
    assert export_rows(ledger, tmp_path, "transitions") == held + 1
    assert ids(tmp_path) == [*everything, everything[-1] + 1]
    assert export_rows(ledger, tmp_path, "transitions") == 0
    assert complete_through(tmp_path) == everything[-1] + 1


def written_by_an_older_version(ledger: Ledger, lake: Path, rows: list[int]) -> None:
    """A file with these rows of the ledger and a manifest without a claim."""
    (batch,) = ledger.record_batches("transitions", rows=1000)
    frame = pl.DataFrame(batch)
    exported_table(lake, "transitions").append(frame[rows], job_id=f"export-2025-{rows[0]}", part="0")
    assert "claim" not in json.loads(done_path(files(lake)[-1]).read_text())


def test_files_of_older_versions_count_and_are_not_doubled(ledger, tmp_path):
    discover(ledger, *"abcdefghijkl")
    written_by_an_older_version(ledger, tmp_path, [0, 1, 2, 5, 9])
    written_by_an_older_version(ledger, tmp_path, [3, 6])
    assert export_rows(ledger, tmp_path, "transitions") == 5
    assert sorted(bronze(tmp_path)["op_id"]) == list("abcdefghijkl")
    assert complete_through(tmp_path) == max(ids(tmp_path))
    # A claim that relies on such a file falls with it.
    old = files(tmp_path)[0]
    old.unlink()
    assert complete_through(tmp_path) == 0
    assert export_rows(ledger, tmp_path, "transitions") == 5
    assert sorted(bronze(tmp_path)["op_id"]) == list("abcdefghijkl")


def test_a_long_stretch_of_older_files_is_compared_once(ledger, tmp_path):
    discover(ledger, *"abcdefghij")
    written_by_an_older_version(ledger, tmp_path, list(range(10)))
    assert export_rows(ledger, tmp_path, "transitions") == 0
    assert complete_through(tmp_path) == sorted(ids(tmp_path))[7]
    before = files(tmp_path)
    assert export_rows(ledger, tmp_path, "transitions") == 0
    assert files(tmp_path) == before


@pytest.fixture
def _merged_early(monkeypatch):
    monkeypatch.setattr(compaction, "OPEN_FILES", 4)
    monkeypatch.setattr(compaction, "FULL_ROWS", 12)
    monkeypatch.setattr(compaction, "KEPT_FOR", timedelta(0))


@pytest.mark.usefixtures("_merged_early")
def test_files_of_many_exports_are_merged_and_the_next_goes_on_after_them(ledger, tmp_path):
    found = []
    for number in range(9):
        discover(ledger, f"{number % 2} {number}", f"{number % 3} {number + 100}")
        assert export_rows(ledger, tmp_path, "transitions") == 2
        found.append(compact_exported(tmp_path, "transitions").files)
        assert ids(tmp_path) == list(range(1, 2 * number + 3))
        assert complete_through(tmp_path) == ids(tmp_path)[-1]
    assert found == [0, 0, 0, 4, 0, 0, 3, 0, 0], "the 8 rows of four files, then 12: full; the rest is open"
    assert compact_exported(tmp_path, "annotations") == Compaction()
    whole = bronze(tmp_path).sort("transition_id")
    assert whole["details"].to_list() == [f'{{"n":"{op_id}"}}' for op_id in whole["op_id"]]
    merged = pl.read_parquet(next(path for path in files(tmp_path) if path.name.startswith("merge-")))
    assert merged.equals(merged.sort("op_id", "seq"))
    assert dict(merged.schema) == export.TRANSITION_SCHEMA


@pytest.mark.usefixtures("_merged_early")
@pytest.mark.parametrize("how", ["parquet", "manifest", "cut"])
def test_a_lost_merged_file_is_written_again_and_nothing_twice(ledger, tmp_path, how):
    for op_id in "abcdef":
        discover(ledger, op_id)
        export_rows(ledger, tmp_path, "transitions")
    assert compact_exported(tmp_path, "transitions").files == 6
    compact_exported(tmp_path, "transitions")  # removes the parts
    (path,) = files(tmp_path)
    discover(ledger, "new")
    export_rows(ledger, tmp_path, "transitions")
    if how == "cut":
        path.write_bytes(path.read_bytes()[:-1])
    else:
        (path if how == "parquet" else done_path(path)).unlink()
    assert export_rows(ledger, tmp_path, "transitions") == 6
    assert sorted(bronze(tmp_path)["op_id"]) == [*"abcdef", "new"]
    for _ in range(2):
        compact_exported(tmp_path, "transitions")
        assert export_rows(ledger, tmp_path, "transitions") == 0
    assert sorted(bronze(tmp_path)["op_id"]) == [*"abcdef", "new"]


KILLED = """
import os, signal, sys
from pathlib import Path
from dagster_l2.assets import export
from dagster_l2.lake import commit
from dagster_l2.ledger import Ledger
export.ROWS_PER_FILE = 4
url, schema, lake, last = sys.argv[1:]
calls = 0
write_json = commit.write_json
def dying(*args):
    global calls
    calls += 1
    if calls == int(last):
        os.kill(os.getpid(), signal.SIGKILL)
    write_json(*args)
commit.write_json = dying
with Ledger.open(url, schema=schema) as ledger:
    export.export_rows(ledger, Path(lake), "transitions")
"""


@pytest.mark.parametrize("place", ["sqlite"], indirect=True)
@pytest.mark.parametrize("manifest", [1, 3])
def test_a_kill_between_parquet_and_manifest_loses_and_doubles_nothing(ledger, place, tmp_path, manifest):
    discover(ledger, *"abcdefghi")
    lake = tmp_path / "lake"
    command = [sys.executable, "-c", KILLED, place.url, place.schema, str(lake), str(manifest)]
    assert subprocess.run(command, check=False).returncode == -signal.SIGKILL
    folder = exported_table(lake, "transitions").folder
    assert len(list(folder.glob("*.parquet"))) == len(list(folder.glob("*.done"))) + 1
    export_rows(ledger, lake, "transitions")
    assert sorted(bronze(lake)["op_id"]) == list("abcdefghi")


def test_another_ledger_is_refused(ledger, tmp_path):
    discover(ledger, "a", "b", "c")
    export_rows(ledger, tmp_path / "lake", "transitions")
    with Ledger.open(f"sqlite:///{tmp_path / 'other.sqlite'}") as other:
        discover(other, "a")
        with pytest.raises(OtherLedger, match="ends at 1: it is another ledger or an old copy; bring back"):
            export_rows(other, tmp_path / "lake", "transitions")


@contextmanager
def inserting(ledger: Ledger, op_id: str) -> Iterator[sa.Connection]:
    """A transaction that has drawn an id and inserted its row, and is not committed."""
    moment = datetime.fromisoformat("2026-03-01T12:00:00+00:00")
    row = {"op_id": op_id, "seq": 1, "to_state": "Discovered", "occurred_at": moment, "recorded_at": moment}
    with ledger.engine.connect() as connection:
        connection.execute(sa.insert(op_transitions).values(**row, actor="t", cause="t", details={}))
        yield connection


@pytest.mark.parametrize("place", ["postgresql"], indirect=True)
def test_a_row_that_is_committed_late_comes_with_the_next_export(ledger, tmp_path):
    discover(ledger, "a")
    with inserting(ledger, "late") as late, inserting(ledger, "never"):
        discover(ledger, "b", "c")
        assert export_rows(ledger, tmp_path, "transitions", wait_s=0.1) == 3
        assert export_rows(ledger, tmp_path, "transitions", wait_s=0.1) == 0
        assert complete_through(tmp_path) == 0
        late.commit()
    assert export_rows(ledger, tmp_path, "transitions") == 1
    assert sorted(bronze(tmp_path)["op_id"]) == ["a", "b", "c", "late"]
    assert complete_through(tmp_path) == max(ids(tmp_path))
    # The claim relies on the file that was written while nothing could be claimed.
    files(tmp_path)[0].unlink()
    assert export_rows(ledger, tmp_path, "transitions") == 3
    assert sorted(bronze(tmp_path)["op_id"]) == ["a", "b", "c", "late"]


@pytest.mark.parametrize("place", ["postgresql"], indirect=True)
def test_an_export_waits_for_those_at_work_and_not_for_those_who_come_later(ledger, tmp_path):
    discover(ledger, "a")
    done: list[int] = []
    with inserting(ledger, "early") as early:
        thread = threading.Thread(
            target=lambda: done.append(export_rows(ledger, tmp_path, "transitions", wait_s=30))
        )
        thread.start()
        time.sleep(0.3)
        with inserting(ledger, "later") as later:
            early.commit()
            thread.join(10)
            assert done == [2]
            assert sorted(bronze(tmp_path)["op_id"]) == ["a", "early"]
            assert complete_through(tmp_path) == max(ids(tmp_path))
            later.commit()
    assert export_rows(ledger, tmp_path, "transitions") == 1


@pytest.mark.parametrize("place", ["postgresql"], indirect=True)
@pytest.mark.usefixtures("_merged_early")
def test_many_writers_and_an_exporter_beside_them(ledger, place, tmp_path, monkeypatch):
    """Transactions of all lengths, a third rolled back, exports and merges: in the end nothing differs."""
    monkeypatch.setattr(export, "ROWS_PER_FILE", 1000)
    monkeypatch.setattr(compaction, "FULL_ROWS", 100)
    deadline = time.monotonic() + 2.0

    def write(writer: int) -> None:
        with place.open() as own:
            for number in range(10_000):
                if time.monotonic() > deadline:
                    return
                with inserting(own, f"{writer}-{number}") as connection:
                    time.sleep((writer * number % 7) / 200)
                    if (writer + number) % 3:
                        connection.commit()

    threads = [threading.Thread(target=write, args=(writer,)) for writer in range(4)]
    for thread in threads:
        thread.start()
    merged = 0
    while any(thread.is_alive() for thread in threads):
        export_rows(ledger, tmp_path, "transitions", wait_s=0.05)
        merged += compact_exported(tmp_path, "transitions").files
    for thread in threads:
        thread.join()
    export_rows(ledger, tmp_path, "transitions")
    assert merged > 4
    assert ids(tmp_path) == [row.transition_id for part in ledger.transitions() for row in part]
    assert complete_through(tmp_path) == max(ids(tmp_path))
