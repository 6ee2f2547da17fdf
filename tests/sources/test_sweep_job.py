"""The scan as a job: gone on with after a kill, tried again, told in manifests; the look at what is new."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import polars as pl
import pytest
import sqlalchemy as sa

from dagster_l2.base.errors import WrongUse
from dagster_l2.batch import batch_jobs, read_attempts
from dagster_l2.ledger import Ledger
from dagster_l2.settings import REPOSITORY
from dagster_l2.sources import ScanReport, ScanTables

from .conftest import World

Make = Callable[..., dict[str, Any]]


def killed(world: World, step: str, count: int) -> None:
    """A scan that dies at the n-th step of this name."""
    with world.served() as client:
        command = [sys.executable, "-m", "tests.sources.sweep_process", str(world.folder), client.url]
        died = subprocess.run([*command, step, str(count)], cwd=REPOSITORY, capture_output=True, check=False)
    assert died.returncode == -signal.SIGKILL, died.stderr.decode()


def attempts(world: World) -> pl.DataFrame:
    with Ledger.open(f"sqlite:///{world.folder / 'l2.sqlite'}") as ledger:
        return read_attempts(ledger.engine, but=set()).sort("attempt_id")


def bronze(world: World) -> pl.DataFrame:
    return ScanTables.under(world.lake).datasets.scan().collect().sort("dataset_id")


def set_back(world: World, by: timedelta) -> None:
    """Let every scan so far be older."""
    with (
        Ledger.open(f"sqlite:///{world.folder / 'l2.sqlite'}") as ledger,
        ledger.engine.begin() as connection,
    ):
        connection.execute(sa.update(batch_jobs).values(submitted_at=datetime.now(UTC) - by))


def recent(world: World) -> ScanReport:
    with world.served() as client, Ledger.open(f"sqlite:///{world.folder / 'l2.sqlite'}") as ledger:
        return world.sweep(client, ledger).recent()


@pytest.mark.parametrize(("step", "count"), [
    ("database: task SUCCESS", 3),
    ("fsync the folder of scan-", 4),
    ("write sweep.json", 1),
])  # fmt: skip
def test_a_killed_scan_is_gone_on_with_and_what_was_finished_is_not_read_again(
    world: World, record: Make, step: str, count: int
) -> None:
    world.records = [record(5 * i) for i in range(40)]
    world.records[30] |= {"frameCount": "many"}
    lost = world.records[1]
    world.scan()
    world.records = [{**r, "bucket": "other"} for r in world.records if r is not lost]
    killed(world, step, count)
    kept = len(bronze(world)) - 39
    before = attempts(world)
    finished = set(before.filter(pl.col("status") == "DOWNLOADED", run_of(world))["unit_id"])
    report = world.scan()
    assert report.job_id == last_job(world)
    assert report.counts() == {
        "new": 0,
        "changed": 38 - kept,
        "unchanged": kept,
        "rejected": 1,
        "missing": 1,
    }
    assert len(bronze(world)) == 39 + 38
    after = attempts(world).filter(pl.col("attempt_id") > before["attempt_id"].max())
    assert len(finished) > 2
    # All but the batch whose end was not noted yet.
    assert len(finished & set(after["unit_id"])) <= 2
    assert world.scan().counts()["unchanged"] == 38


def run_of(world: World) -> pl.Expr:
    return pl.col("job_id") == last_job(world)


def last_job(world: World) -> str:
    with (
        Ledger.open(f"sqlite:///{world.folder / 'l2.sqlite'}") as ledger,
        ledger.engine.connect() as connection,
    ):
        query = sa.select(batch_jobs.c.job_id).order_by(batch_jobs.c.submitted_at.desc()).limit(1)
        return str(connection.execute(query).scalar_one())


def test_a_scan_killed_long_ago_is_not_gone_on_with(world: World, record: Make) -> None:
    world.records = [record(5 * i) for i in range(20)]
    killed(world, "database: task SUCCESS", 2)
    old = last_job(world)
    set_back(world, timedelta(hours=2))
    kept = len(bronze(world))
    report = world.scan()
    assert report.job_id != old
    assert (report.datasets.new, report.datasets.unchanged) == (20 - kept, kept)
    manifests = {path.parent.name: json.loads(path.read_text()) for path in jobs(world, "manifest.json")}
    assert {name: manifest["status"] for name, manifest in manifests.items()} == {
        old: "FAILED",
        report.job_id: "SUCCESS",
    }


def test_a_scan_that_an_earlier_version_began_is_made_anew(world: World, record: Make) -> None:
    world.records = [record(5 * i) for i in range(20)]
    killed(world, "database: task SUCCESS", 2)
    old = last_job(world)
    for path in jobs(world, "batches/*.json"):
        content = json.loads(path.read_text())
        del content["job"]["source_params"]["job_id"]
        path.write_text(json.dumps(content))
    kept = len(bronze(world))
    report = world.scan()
    assert report.job_id != old
    assert (report.datasets.new, report.datasets.unchanged) == (20 - kept, kept)


def jobs(world: World, name: str) -> list[Any]:
    return sorted((world.folder / "jobs").glob(f"*/{name}"))


def test_a_scan_that_failed_is_made_anew(world: World, record: Make) -> None:
    world.records = [record(5 * i) for i in range(20)]
    world.sweep_options = {"window_records": 3}
    world.faults.add("graphql_errors", match="datasetInventories(", skip=4, times=1)
    with pytest.raises(Exception, match="windows could not be read"):
        world.scan()
    failed = last_job(world)
    world.faults.clear()
    assert world.scan().job_id != failed


def test_a_window_that_fails_for_a_while_is_tried_again_in_the_same_scan(world: World, record: Make) -> None:
    world.records = [record(5 * i) for i in range(20)]
    world.sweep_options, world.retry_s = {"window_records": 3, "workers": 1}, 20.0
    # Two questions for the first and last record, then the windows; a question is asked twice.
    world.faults.add("status", status=503, match="datasetInventories(", skip=4, times=2)
    report = world.scan()
    assert (report.datasets.new, report.windows.failed) == (20, [])
    root = world.folder / "jobs" / report.job_id
    retry = json.loads((root / "retries" / "retry-1" / "manifest.json").read_text())
    assert retry["error_types"] == {"StoreUnreachable": 1}
    assert set(Counter(attempts(world)["status"])) == {"PENDING", "FAILED", "DOWNLOADED"}


def test_a_scan_without_changes_writes_no_parquet_anywhere_and_says_so(world: World, record: Make) -> None:
    world.records = [record(5 * i) for i in range(40)]
    world.sweep_options = {"window_records": 3}
    world.scan()
    before = set(world.folder.rglob("*.parquet"))
    report = world.scan()
    assert set(world.folder.rglob("*.parquet")) == before
    assert not list(world.folder.rglob("*.tmp"))
    assert not (world.folder / "scratch").exists()
    root = world.folder / "jobs" / report.job_id
    tasks = [json.loads(path.read_text()) for path in root.glob("tasks/*/manifest.json")]
    batches = [task for task in tasks if task["role"] == "worker"]
    assert sum(task["metrics"]["records"] for task in batches) == 40
    assert {task["output_file"] for task in batches} == {None}
    assert sum(task["metrics"]["windows"] for task in batches) == report.windows.planned > len(batches)
    assert json.loads((root / "sweep.json").read_text())["counts"]["unchanged"] == 40


def test_a_look_at_what_is_new_finds_it_and_marks_nothing_missing(world: World, record: Make) -> None:
    world.records = [record(5 * i) for i in range(30)]
    with pytest.raises(WrongUse, match="run l2 scan first"):
        recent(world)
    world.scan()
    now = datetime.now(UTC).replace(tzinfo=None).isoformat()
    world.records.pop(3)
    world.records[5] |= {"frameCount": 11, "updateDate": now}
    world.records[6] |= {"frameCount": 12}
    world.records += [record(900, createDate=now), record(901, createDate=now, frameCount="many")]
    for new, changed, unchanged in ((1, 1, 0), (0, 0, 2)):
        counts = recent(world).counts()
        assert counts == {
            "new": new,
            "changed": changed,
            "unchanged": unchanged,
            "rejected": 1,
            "missing": 0,
        }
    assert ScanTables.under(world.lake).missing.scan().collect().is_empty()
    whole = world.scan()
    assert whole.counts() | {"unchanged": 0} == {
        "new": 0,
        "changed": 1,
        "unchanged": 0,
        "rejected": 1,
        "missing": 1,
    }


def test_a_look_at_what_is_new_begins_with_no_scan_that_came_to_no_end(world: World, record: Make) -> None:
    world.records = [record(5 * i) for i in range(30)]
    killed(world, "write sweep.json", 1)
    with pytest.raises(WrongUse, match="run l2 scan first"):
        recent(world)


def test_workers_in_processes_of_their_own_find_the_same(
    world: World, record: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    world.records = [record(5 * i) for i in range(20)]
    world.scan()
    world.records = [{**r, "frameCount": 11} if i < 3 else r for i, r in enumerate(world.records)]
    world.records = [*world.records[:-1], record(900)]
    with world.served() as client, Ledger.open(f"sqlite:///{world.folder / 'l2.sqlite'}") as ledger:
        monkeypatch.setenv("L2_STORE_URL", client.url)
        monkeypatch.setenv("L2_DATA_DIR", str(world.folder))
        world.sweep_options = {"query": {"store": client.url, "kind": "graphql"}}
        world.executor = "processes"
        report = world.sweep(client, ledger).run()
    assert report.counts() == {"new": 1, "changed": 3, "unchanged": 16, "rejected": 0, "missing": 1}
    assert report.datasets.by_field == {"frame_count": 3}
