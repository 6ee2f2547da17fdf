"""The real commands with different workers: what they bring home, what they log, what their manifests count.

Nothing here knows which workers they are; the tests say so by `L2_EXECUTOR`.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import polars as pl
import sqlalchemy as sa

from dagster_l2.lake import committed_files
from dagster_l2.store.server import Faults
from tests.end_to_end.kit import PATIENCE_S, Done, Pipeline, Store, wait_until
from tests.end_to_end.reach_world import ReachWorld

DAYS = 4
# Longer than it takes to find out who waits, and no longer than a client waits for an answer.
_LONG_S, _AT_ONCE = 8.0, 2
# What a scan and a job stamp on their rows; all else is the source's.
_STAMPS = ("scanned_at", "job_id")
SMALL_WINDOWS = {"L2_SCAN_WINDOW_RECORDS": "40"}


def on(kind: str, **more: str) -> dict[str, str]:
    """The settings that choose two workers of a kind, and JSON lines."""
    return {"L2_EXECUTOR": kind, "L2_EXECUTOR_WORKERS": "2", "L2_LOG_FORMAT": "json", **more}


def home(l2: Pipeline, name: str) -> Pipeline:
    """The same command on a data folder of its own."""
    folder = l2.home.parent / name
    folder.mkdir()
    return Pipeline(folder, dict(l2.settings))


def download(world: ReachWorld, name: str, crew: Mapping[str, str], *, kill_day: int | None = None) -> Done:
    """Days of REACH into a data folder of that name, with one request turned down.

    The worker of ``kill_day`` is killed while it waits for the day's third chunk.
    """
    world.l2 = home(world.l2, name)
    faults = world.udl.faults
    faults.clear()
    faults.add("status", status=429, headers={"Retry-After": "0"}, match="obTime=2025-05-01T12", times=1)
    if kill_day is not None:
        faults.add("slow", seconds=600, match=f"obTime=2025-05-{kill_day:02}T12", times=1)
    process = world.l2.start(*world.arguments(1, DAYS), **crew)
    if kill_day is not None:
        wait_until(lambda: _fired(world.udl.faults, "slow") > 0, process, "the worker waits")
        os.kill(_holder(world.l2, process, f"batch-{kill_day - 1:05}"), signal.SIGKILL)
    out, err = process.communicate(timeout=PATIENCE_S)
    assert process.returncode == 0, f"{out}\n{err}"
    return Done(0, out, err)


def _fired(faults: Faults, kind: str) -> int:
    return sum(rule["fired"] for rule in faults.as_json() if rule["kind"] == kind)


def _holder(l2: Pipeline, process: subprocess.Popen[str], batch_id: str | None = None) -> int:
    """The process that works on a batch, or on any, by the task that it holds."""
    found: list[int] = []

    def is_known() -> bool:
        for path in l2.data.glob("jobs/*/tasks/*/manifest.json"):
            manifest = json.loads(path.read_text())
            is_it = manifest["batch_id"] == batch_id if batch_id else manifest["batch_id"] is not None
            if manifest["status"] == "RUNNING" and is_it:
                found.append(_pid(l2, manifest["task_id"]))
        return bool(found)

    wait_until(is_known, process, "the task is known")
    assert found[0] not in (process.pid, os.getpid())
    return found[0]


def _pid(l2: Pipeline, task_id: str) -> int:
    url = l2.settings.get("L2_DATABASE_URL") or f"sqlite:///{l2.data / 'l2.sqlite'}"
    schema = f"{l2.settings['L2_DB_SCHEMA']}." if "L2_DB_SCHEMA" in l2.settings else ""
    engine = sa.create_engine(url.replace("postgresql:", "postgresql+psycopg:"))
    with engine.connect() as connection:
        query = sa.text(f"select lease_holder from {schema}batch_tasks where task_id = :task")
        holder = str(connection.execute(query, {"task": task_id}).scalar_one())
    engine.dispose()
    return int(holder.rsplit("/", 2)[1])


def output(done: Done) -> bytes:
    """The one file of bronze that a download ended in."""
    return Path(done.json["output"]).read_bytes()


def scan(l2: Pipeline, store: Store, name: str, crew: Mapping[str, str], *, is_killed: bool = False) -> Done:
    """A whole scan into a data folder of that name, with one request of it turned down.

    ``is_killed``: one of its workers is, while it waits for the records of a window.
    """
    store.faults.clear()
    asked, passed = "datasetInventories(", 6
    if is_killed:
        store.faults.add("slow", seconds=_LONG_S, match=asked, skip=passed)
        passed = 0
    else:
        _turn_down_one(store, asked, passed)
    mine = home(l2, name)
    with store.served() as settings:
        process = mine.start("scan", "--json", **SMALL_WINDOWS, **settings, **crew)
        if is_killed:
            # All its workers wait by then.
            wait_until(lambda: _fired(store.faults, "slow") >= _AT_ONCE, process, "the workers wait")
            os.kill(_holder(Pipeline(mine.home, {**mine.settings, **crew}), process), signal.SIGKILL)
            store.faults.clear()
            _turn_down_one(store, asked, passed)
        out, err = process.communicate(timeout=PATIENCE_S)
    assert process.returncode == 0, f"{out}\n{err}"
    return Done(0, out, err)


def _turn_down_one(store: Store, asked: str, passed: int) -> None:
    store.faults.add("status", status=429, headers={"Retry-After": "0"}, match=asked, skip=passed, times=1)


def claims(l2: Pipeline) -> list[int]:
    """How often the task of each batch was taken up."""
    engine = sa.create_engine(f"sqlite:///{l2.data / 'l2.sqlite'}")
    with engine.connect() as connection:
        found = connection.execute(sa.text("select claims from batch_tasks where batch_id is not null"))
        out = sorted(int(number) for number in found.scalars())
    engine.dispose()
    return out


def scanned(l2: Pipeline, name: str) -> pl.DataFrame:
    """What bronze holds of the datasets, without what differs from scan to scan."""
    files = committed_files(l2.home.parent / name / "data" / "lake" / "bronze" / "datasets")
    frame = pl.concat([pl.read_parquet(file) for file in files])
    return frame.drop(_STAMPS).sort("dataset_id", "content_hash")


def lines(done: Done, jobs: Path) -> list[dict[str, Any]]:
    """The JSON lines on standard error and in the logs of the tasks of a cluster."""
    texts = [done.err, *(path.read_text() for path in sorted(jobs.glob("*/cluster/*_log.err")))]
    found = [line for text in texts for line in text.splitlines() if line.startswith("{")]
    return [json.loads(line) for line in found]


def check_lines(done: Done, l2: Pipeline, source: str) -> None:
    """Every batch was claimed in a line that names it, and the request that was turned down is told."""
    told = lines(done, l2.data / "jobs")
    workers = [task for task in manifests(l2) if task["role"] == "worker"]
    claimed = [line for line in told if line["message"] == "Task claimed."]
    assert {task["batch_id"] for task in workers} <= {line.get("batch_id") for line in claimed}
    assert {task["task_id"] for task in workers} <= {line["task_id"] for line in claimed}
    assert {line["job_id"] for line in claimed} == {task["job_id"] for task in workers}
    (again,) = [line for line in told if line.get("cause") == "turned_down"]
    if source == "reach":
        assert (again["batch_id"], again["window"]) == ("batch-00000", "2025-05-01..2025-05-01")
        assert again["chunk"].startswith("20250501T12")
    else:
        assert again["window"]
        assert again["batch_id"].startswith("batch-")


def check_counts(l2: Pipeline, asked: int | None) -> None:
    """What the tasks counted, wherever they ran; ``asked``: what the server was asked for in all."""
    metrics = [task["metrics"] for task in manifests(l2) if task["role"] == "worker"]
    assert len(metrics) > 1
    assert sum(one.get("turned_down", 0) for one in metrics) == 1
    assert all(one["api_requests"] > 0 and one["received_bytes"] > 0 for one in metrics)
    if asked is not None:
        assert sum(one["api_requests"] for one in metrics) == asked
        assert sum(one["tokens"] for one in metrics) == asked
        assert all(one["token_wait_s"] >= 0 for one in metrics)


def manifests(l2: Pipeline) -> list[dict[str, Any]]:
    """The manifests of all tasks."""
    paths = sorted((l2.data / "jobs").glob("*/tasks/*/manifest.json"))
    return [json.loads(path.read_text()) for path in paths]
