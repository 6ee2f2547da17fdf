"""A job of ten thousand tiny tasks, whole, against one of a thousand: processor time by task must not grow.

Each task has one window of one row; so what is measured is what a task costs: claims, leases, manifests,
commits, attempts, and the merge of all the files. `python benchmarks/many_tasks.py` is the documented run.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import kit
import polars as pl

from dagster_l2.batch import DAY, Chunk, FetchedChunk, JobRequest, Jobs, Window, parse_definition
from dagster_l2.ledger import Ledger

TASKS = (1_000, 10_000)
MAX_GROWTH = 1.25
FIRST = datetime(1990, 1, 1, tzinfo=UTC)


class OneRow:
    """A source with one row a day, made on the spot."""

    name = "one_row"
    schema_version = 1
    schema: Mapping[str, pl.DataType] = {
        "day": pl.Datetime("us"),
        "made": pl.Datetime("us"),
        "value": pl.Float64(),
    }
    key = ("day",)
    newest_by = "made"
    sort_by = ("day",)
    query: Mapping[str, Any] = {}

    def can_change(self, window: Window, now: datetime) -> bool:  # noqa: ARG002
        return False

    def chunks(self, window: Window) -> list[Chunk]:
        return [Chunk(window.start, window.end)]

    def expected_records(self, window: Window) -> int:  # noqa: ARG002
        return 1

    def fetch(self, chunk: Chunk) -> FetchedChunk:
        day = chunk.start.replace(tzinfo=None)
        return FetchedChunk(pl.DataFrame([(day, day, 1.0)], schema=dict(self.schema), orient="row"), 1)


def make() -> OneRow:
    return OneRow()


def measure(tasks: int, *, keep_chunks: bool) -> dict[str, Any]:
    """In a process of its own: run the job, look at what it made."""
    definition = parse_definition(
        {
            "name": "one_row",
            "handler": "many_tasks:make",
            "source": "one_row",
            "batch_size": 1,
            "keep_chunks": keep_chunks,
            "executor": {"kind": "threads", "workers": 2, "in_flight": 1},
        },
        "many_tasks.py",
    )
    windows = [Window(FIRST + i * DAY, FIRST + (i + 1) * DAY) for i in range(tasks)]
    with tempfile.TemporaryDirectory(prefix="l2_bench_") as name:
        folder = Path(name)
        database = f"sqlite:///{folder}/l2.sqlite"
        with Ledger.open(database) as ledger:
            jobs = Jobs(
                ledger.engine,
                database_url=database,
                jobs_root=folder / "jobs",
                scratch_root=folder / "scratch",
                output_folder=folder / "out",
            ).over(make())
            began, spent = time.perf_counter(), time.process_time()
            summary = jobs.run(JobRequest(definition=definition, windows=windows))
            seconds, cpu = time.perf_counter() - began, time.process_time() - spent
        rows = 0 if summary.output is None else len(pl.read_parquet(summary.output))
        if (summary.downloaded, rows) != (tasks, tasks):
            raise SystemExit(f"{summary.downloaded} of {tasks} tasks brought {rows} rows home.")
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
    return {"tasks": tasks, "seconds": seconds, "cpu_s": cpu, "ms_a_task": 1e3 * cpu / tasks, "peak_mb": peak}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--tasks", type=int, nargs="+", default=list(TASKS))
    parser.add_argument("--no-chunks", action="store_true", help="keep no finished chunks, as a scan does")
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--measure", type=int)
    options = parser.parse_args()
    if options.measure:
        print(json.dumps(measure(options.measure, keep_chunks=not options.no_chunks)))
        return 0
    rows: list[dict[str, Any]] = []
    for tasks in options.tasks:
        more = ["--no-chunks"] if options.no_chunks else []
        command = [sys.executable, __file__, "--measure", str(tasks), *more]
        rows.append(json.loads(subprocess.check_output(command).splitlines()[-1]))
        growth = rows[-1]["ms_a_task"] / rows[0]["ms_a_task"]
        limit = {"measured": growth, "limit": f"≤ {MAX_GROWTH} of the first", "holds": growth <= MAX_GROWTH}
        rows[-1] |= limit if len(rows) > 1 else {}
    kit.report("a job of many tasks", rows, as_json=options.json)
    return 0 if all(row.get("holds", True) for row in rows) else 1


if __name__ == "__main__":
    sys.exit(main())
