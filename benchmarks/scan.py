"""A scan of the whole store down to committed parquet, beside a bare client and dlt; a re-scan; peak memory.

The store answers from memory, in its own process. Each figure is a process of its own, in turns, and the best
of them counts. `python benchmarks/scan.py --records 200000` is the documented run; `--memory` scans a million
records and states the peak. The limits stand beside the figures, and the exit code says whether they hold.

The pages are rendered beforehand and sent uncompressed, one write each, so what bare measures is a copy
through the kernel, at up to 1 GB/s. The aim of a quarter of bare was written where a bare client took 0.45 s
for 50 000 records (58 MB, 129 MB/s, what a line of 1 Gbit/s carries): the line "1 Gbit/s" sets the scan
against that rate. It replaces no limit.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx
import kit
import orjson
import pyarrow.parquet as pq
from memory_store import memory_store

from dagster_l2.batch import Jobs, load_definition
from dagster_l2.ledger import Ledger
from dagster_l2.settings import REPOSITORY, Settings
from dagster_l2.sources import ScanReport, Sweep
from dagster_l2.sources.metadata_store import MetadataStore
from dagster_l2.store import DATASETS, StoreClient
from dagster_l2.store.page import read_page

MIN_OF_DLT, MIN_OF_BARE, MAX_RESCAN, MAX_PEAK_MB = 5.0, 0.25, 1.0, 600
LINE_S_A_RECORD = 0.45 / 50_000
"""What a record took the bare client that the aim was set by."""
MEMORY_RECORDS = 1_000_000
WINDOW_RECORDS = int(
    os.environ.get("L2_SCAN_WINDOW_RECORDS", Settings.model_fields["scan_window_records"].default)
)


def scan(url: str, folder: Path) -> Callable[[], dict[str, Any]]:
    folder.mkdir(exist_ok=True)
    with Ledger.open(f"sqlite:///{folder}/l2.sqlite"):
        pass  # the state database is there, as it is for every scan but the first of an installation

    def work() -> dict[str, Any]:
        began = time.time()
        report = _sweep(url, folder)
        datasets = report.datasets
        if report.total != datasets.new + datasets.changed + datasets.unchanged:
            raise SystemExit(f"{report.total} records of the store became {datasets}.")
        written = sum(1 for path in folder.rglob("*.parquet") if path.stat().st_mtime >= began)
        return {"records": report.total, "new": datasets.new, "files": written}

    return work


def _sweep(url: str, folder: Path) -> ScanReport:
    database, lake = f"sqlite:///{folder}/l2.sqlite", folder / "lake"
    definition = load_definition(REPOSITORY / "jobs" / "metadata_store.yaml")
    with StoreClient(url) as client, Ledger.open(database) as ledger:
        jobs = Jobs(
            ledger.engine,
            database_url=database,
            jobs_root=folder / "jobs",
            scratch_root=folder / "scratch",
            output_folder=lake / "bronze" / "datasets",
        )
        return Sweep(client, lake, jobs, definition, window_records=WINDOW_RECORDS).run()


def bare(url: str, _folder: Path) -> Callable[[], dict[str, Any]]:
    """The scan's requests for records, sent again by a client that does nothing with the answers."""
    sent = _requests(url)

    def work() -> dict[str, Any]:
        size = 0
        with httpx.Client(base_url=url) as client:
            for content in sent:
                size += len(client.post("/graphql", content=content).content)
        return {"requests": len(sent), "bytes": size}

    return work


def plain(url: str, folder: Path) -> Callable[[], dict[str, Any]]:
    """The same requests and the least that a client can do to have parquet: Arrow parses, Arrow writes."""
    sent = _requests(url)
    folder.mkdir(exist_ok=True)

    def work() -> dict[str, Any]:
        rows = 0
        with httpx.Client(base_url=url) as client:
            for number, content in enumerate(sent):
                page = read_page(DATASETS, client.post("/graphql", content=content).content)
                if page is None:
                    raise SystemExit("A page of the benchmark's store is not well formed.")
                pq.write_table(page.frame.to_arrow(), folder / f"{number}.parquet", compression="zstd")
                rows += len(page)
        return {"records": rows, "files": len(sent)}

    return work


def _requests(url: str) -> list[bytes]:
    sent: list[bytes] = []

    def keep(request: httpx.Request) -> None:
        if b"datasetInventories(" in request.content:
            sent.append(request.content)

    with StoreClient(url) as client:
        client._exchange.http.event_hooks = {"request": [keep]}
        store = MetadataStore(client, window_records=WINDOW_RECORDS)
        windows = store.plan(datetime.now(UTC))
        sent.clear()
        for window in windows:
            store.read(window)
    return sent


def dlt(url: str, folder: Path) -> Callable[[], dict[str, Any]]:
    os.environ.update(RUNTIME__DLTHUB_TELEMETRY="false", RUNTIME__LOG_LEVEL="CRITICAL")
    import dlt as tool
    from dlt.sources.rest_api import rest_api_source

    def work() -> dict[str, Any]:
        pages = {"type": "page_number", "base_page": 0, "total_path": None}
        endpoint = {"path": "pages", "data_selector": "data.datasetInventories", "paginator": pages}
        source = rest_api_source(
            {"client": {"base_url": f"{url}/"}, "resources": [{"name": "datasets", "endpoint": endpoint}]}
        )
        target = tool.destinations.filesystem(bucket_url=f"file://{folder}/dlt")
        pipeline = tool.pipeline("scan", pipelines_dir=f"{folder}/pipelines", destination=target)
        pipeline.run(source, loader_file_format="parquet")
        return {"records": pipeline.last_trace.last_normalize_info.row_counts["datasets"]}

    return work


MEASURES = {"scan": scan, "bare": bare, "plain": plain, "dlt": dlt}


def measure(name: str, url: str, folder: Path) -> None:
    """In a process of its own: prepare, work, and print seconds and peak memory."""
    work = MEASURES[name](url, folder)
    began, spent = time.perf_counter(), time.process_time()
    found = work()
    seconds, cpu = time.perf_counter() - began, time.process_time() - spent
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
    print(json.dumps({**found, "seconds": seconds, "cpu_s": cpu, "peak_mb": peak}))


def run(name: str, url: str, folder: Path) -> dict[str, Any]:
    command = [sys.executable, __file__, "--measure", name, url, str(folder)]
    out: dict[str, Any] = orjson.loads(subprocess.check_output(command).splitlines()[-1])
    return out


def compare(url: str, turns: int, *, with_dlt: bool) -> list[dict[str, Any]]:
    best: dict[str, dict[str, Any]] = {}
    for _ in range(turns):
        with tempfile.TemporaryDirectory(prefix="l2_bench_") as name:
            place = Path(name)
            found = {"bare": run("bare", url, place), "scan": run("scan", url, place / "l2")}
            found["plain"] = run("plain", url, place / "plain")
            found["re-scan"] = run("scan", url, place / "l2")
            if with_dlt:
                found["dlt"] = run("dlt", url, place)
        for key, one in found.items():
            best[key] = min(best.get(key, one), one, key=lambda one: one["seconds"])
    return [_row(key, best) for key in best] + [_line(best)]


def _line(best: dict[str, dict[str, Any]]) -> dict[str, Any]:
    """The scan against a bare client as fast as the one that the aim was set by."""
    seconds = LINE_S_A_RECORD * best["scan"]["records"]
    ratio = seconds / best["scan"]["seconds"]
    limit = f"scan ≥ {MIN_OF_BARE} of bare at 0.45 s per 50,000 records"
    return {"run": "1 Gbit/s", "seconds": seconds, "measured": ratio, "limit": limit}


def _row(key: str, best: dict[str, dict[str, Any]]) -> dict[str, Any]:
    one = best[key]
    row = {"run": key, **{name: one.get(name) for name in ("seconds", "cpu_s", "peak_mb", "files")}}
    ratio = one["seconds"] / best["scan"]["seconds"]
    if key == "bare":
        row |= {"measured": ratio, "limit": f"scan ≥ {MIN_OF_BARE} of bare", "holds": ratio >= MIN_OF_BARE}
    elif key == "plain":
        row |= {"measured": ratio, "limit": "parse and write only: no limit"}
    elif key == "dlt":
        row |= {"measured": ratio, "limit": f"scan ≥ {MIN_OF_DLT} × dlt", "holds": ratio >= MIN_OF_DLT}
    elif key == "re-scan":
        is_well = ratio <= MAX_RESCAN and one["files"] == 0
        row |= {"measured": ratio, "limit": f"≤ {MAX_RESCAN} of scan, no file", "holds": is_well}
    return row


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--records", type=int)
    parser.add_argument("--turns", type=int, default=3)
    parser.add_argument("--shape", choices=("recorded", "full"), default="recorded")
    parser.add_argument("--memory", action="store_true")
    parser.add_argument("--no-dlt", action="store_true")
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--measure", nargs=3)
    options = parser.parse_args()
    if options.measure:
        name, url, folder = options.measure
        measure(name, url, Path(folder))
        return 0
    count = options.records or (MEMORY_RECORDS if options.memory else 200_000)
    with memory_store(count, options.shape) as url:
        if options.memory:
            with tempfile.TemporaryDirectory(prefix="l2_bench_") as folder:
                one, two = (run("scan", url, Path(folder) / "l2") for _ in range(2))
            rows = [
                {"run": key, **found, "limit": f"< {MAX_PEAK_MB} MB", "holds": found["peak_mb"] < MAX_PEAK_MB}
                for key, found in (("scan", one), ("re-scan", two))
            ]
        else:
            has_dlt = importlib.util.find_spec("dlt") is not None and not options.no_dlt
            rows = compare(url, options.turns, with_dlt=has_dlt)
            if not has_dlt:
                print("dlt is not compared: it is not installed (pip install '.[bench]').", file=sys.stderr)
    kit.report(f"a scan of {count:,} {options.shape} records", rows, as_json=options.json)
    return 0 if all(row.get("holds", True) for row in rows) else 1


if __name__ == "__main__":
    sys.exit(main())
