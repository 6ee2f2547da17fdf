"""The merge of 1000 files of 5000 rows against one DuckDB COPY of the same files, and with twice the input.

``apart``: each file covers its own span of time, as batches of windows do. ``mixed``: every file covers the
whole span, and over a third of the rows are older versions of others. Each run is a process of its own, so
that its peak memory is its own. The limits are printed beside the figures; the exit code says whether they
hold. ``by CPU`` is the same ratio in seconds of processor time, which a loaded machine distorts less.
"""

from __future__ import annotations

import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import duckdb
import numpy as np
import polars as pl

from dagster_l2.batch import Order, merge_files
from dagster_l2.batch.merge import write_rows

FILES, ROWS = 1000, 5000
MIN_RATIO, MAX_PEAK_MB, MAX_GROWTH = 0.5, 500, 1.15
ORDER = Order(("ob_time", "id_sensor"), ("id_sensor", "ob_time"), "created_at")
SCHEMA: dict[str, pl.DataType] = {
    "id_sensor": pl.String(),
    "ob_time": pl.Datetime("us"),
    "created_at": pl.Datetime("us"),
    "lat": pl.Float64(),
    "lon": pl.Float64(),
    "alt": pl.Float64(),
    "dose": pl.Float64(),
    "id": pl.String(),
}
EPOCH_US, CADENCE_US = 1_700_000_000_000_000, 5_000_000


def make(folder: Path, kind: str, files: int) -> list[Path]:
    folder.mkdir()
    rng = np.random.default_rng(7)
    out = []
    for number in range(files):
        first, count = (number * ROWS // 10, ROWS // 10) if kind == "apart" else (0, files * ROWS // 10)
        ticks = first + (np.arange(ROWS) // 10 if kind == "apart" else rng.integers(0, count, ROWS))
        created = EPOCH_US + rng.integers(0, 10**9, ROWS) * 1000
        frame = pl.DataFrame(
            {
                "id_sensor": np.char.add("REACH-", (100 + np.arange(ROWS) % 10).astype(str)),
                "ob_time": pl.Series(EPOCH_US + ticks * CADENCE_US).cast(pl.Datetime("us")),
                "created_at": pl.Series(created).cast(pl.Datetime("us")),
                **{name: rng.random(ROWS) for name in ("lat", "lon", "alt", "dose")},
                "id": [f"{number:05d}-{value:08x}" for value in rng.integers(1 << 32, size=ROWS)],
            }
        )
        once = ORDER.once(frame.select(list(SCHEMA)))
        path = folder / f"{number:05d}.parquet"
        write_rows(lambda once=once: iter([once]), path, SCHEMA)
        out.append(path)
    return out


def measure(what: str, folder: Path) -> None:
    """In a process of its own: merge or copy, and print seconds, peak memory and rows."""
    inputs, output = sorted(folder.glob("*.parquet")), folder.parent / f"{what}.parquet"
    started, used = time.perf_counter(), time.process_time()
    if what == "merge":
        rows = merge_files(inputs, output, order=ORDER, schema=SCHEMA, scratch=folder.parent).rows
    else:
        names = ", ".join(f"'{path}'" for path in inputs)
        query = (
            f"copy (select * from read_parquet([{names}])) to '{output}' (format parquet, compression zstd)"
        )
        rows = duckdb.connect().execute(query).fetchall()[0][0]
    seconds, cpu = time.perf_counter() - started, time.process_time() - used
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
    print(json.dumps({"seconds": seconds, "cpu": cpu, "peak_mb": peak, "rows": rows}))


def best(what: str, folder: Path, times: int = 3) -> dict[str, float]:
    command = [sys.executable, __file__, what, str(folder)]
    runs = [json.loads(subprocess.check_output(command)) for _ in range(times)]
    lowest = {name: min(run[name] for run in runs) for name in ("seconds", "cpu")}
    return {**lowest, "peak_mb": max(run["peak_mb"] for run in runs)}


def main() -> int:
    is_well = True
    files = int(os.environ.get("MERGE_FILES", FILES))
    heads = ("rows in", "merge s", "copy s", "ratio", "limit", "by CPU", "peak MB", "limit")
    print(f"{'input':<12}" + "".join(f"{head:>10}" for head in heads))
    for kind in ("apart", "mixed"):
        peaks = []
        for count in (files, 2 * files):
            with tempfile.TemporaryDirectory() as name:
                folder = Path(name) / "inputs"
                rows = sum(len(pl.read_parquet(path)) for path in make(folder, kind, count))
                merge, copy = best("merge", folder), best("copy", folder)
            ratio, by_cpu = copy["seconds"] / merge["seconds"], copy["cpu"] / merge["cpu"]
            peaks.append(merge["peak_mb"])
            print(
                f"{kind + ' ' + str(count):<12}{rows:>10}{merge['seconds']:>10.2f}{copy['seconds']:>10.2f}"
                f"{ratio:>10.2f}{MIN_RATIO:>10}{by_cpu:>10.2f}"
                f"{merge['peak_mb']:>10.0f}{MAX_PEAK_MB:>10}",
                flush=True,
            )
            is_well &= ratio >= MIN_RATIO and merge["peak_mb"] < MAX_PEAK_MB
        growth = peaks[1] / peaks[0]
        print(f"{kind}: peak memory of twice the input is {growth:.2f} of the first (limit {MAX_GROWTH})")
        is_well &= growth <= MAX_GROWTH
    return 0 if is_well else 1


if __name__ == "__main__":
    if len(sys.argv) == 3:
        measure(sys.argv[1], Path(sys.argv[2]))
    else:
        sys.exit(main())
