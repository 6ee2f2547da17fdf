"""Reads of a large ledger: latest state, as-of, history, the export to parquet, the same in the warehouse.

Each figure stands beside the bare driver's, which is the limit. What has a peak of memory runs in a process
of its own. `python benchmarks/ledger_reads.py --rows 10000000` is the documented run.
"""

from __future__ import annotations

import argparse
import json
import random
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import kit
from made_history import BEGIN, COHORT, STEP, STEPS, fill, op_name

from dagster_l2.ledger import Ledger

NEW_ROWS = 1_000_000
LOOKUPS = 1_000


@dataclass(frozen=True)
class World:
    """A loaded ledger, and a folder for what a figure leaves for the next."""

    url: str
    count: int
    folder: Path


# In the order in which they are taken. The load too is a process of its own: a process begins with the
# highest memory of the one that started it.
MEASURES: dict[str, Callable[[World], dict[str, Any]]] = {}


def measure(function: Callable[[World], dict[str, Any]]) -> Callable[[World], dict[str, Any]]:
    """A figure that is taken in a process of its own, by name."""
    MEASURES[function.__name__] = function
    return function


@measure
def load(world: World) -> dict[str, Any]:
    return _timed(lambda: fill(world.url, world.count))


def bare(ledger: Ledger) -> tuple[Any, str]:
    """The driver's connection, and the table as its SQL names it."""
    raw = ledger.engine.raw_connection().driver_connection
    is_sqlite = ledger.engine.dialect.name == "sqlite"
    return raw, "op_transitions" if is_sqlite else "l2.op_transitions"


def names(count: int) -> list[str]:
    """Some OPs with a whole history, at random."""
    known = count // len(STEPS) // COHORT * COHORT or count // len(STEPS)
    chosen = random.Random(1)
    return [op_name(chosen.randrange(known)) for _ in range(LOOKUPS)]


def times(work: Callable[[str], Any], op_ids: list[str]) -> dict[str, float]:
    """Median and 99th percentile over the OPs, in milliseconds, after a round that warms up."""
    for op_id in op_ids[:20]:
        work(op_id)
    taken = []
    for op_id in op_ids:
        started = time.perf_counter()
        work(op_id)
        taken.append((time.perf_counter() - started) * 1e3)
    return {"ms": statistics.median(taken), "p99_ms": statistics.quantiles(taken, n=100)[98]}


def _beside(ours: dict[str, float], limit: dict[str, float]) -> dict[str, Any]:
    return {
        **ours,
        **{f"limit_{name}": value for name, value in limit.items()},
        "ratio": ours["ms"] / limit["ms"],
    }


def _looked_up(world: World, ours: Callable[[Ledger, str], Any], tail: str) -> dict[str, Any]:
    with Ledger.open(world.url) as ledger:
        connection, table = bare(ledger)
        mark = "?" if table == "op_transitions" else "%s"
        cursor = connection.cursor()

        def plain(op_id: str) -> Any:
            cursor.execute(f"SELECT * FROM {table} WHERE op_id = {mark} ORDER BY seq {tail}", (op_id,))
            found = cursor.fetchall()
            if mark == "%s":
                connection.rollback()
            return found

        op_ids = names(world.count)
        limit = times(plain, op_ids)
        return _beside(times(lambda op_id: ours(ledger, op_id), op_ids), limit)


@measure
def present_of_one(world: World) -> dict[str, Any]:
    return _looked_up(world, lambda ledger, op_id: ledger.present(op_id), "DESC LIMIT 1")


@measure
def history_of_one(world: World) -> dict[str, Any]:
    return _looked_up(world, lambda ledger, op_id: ledger.history(op_id), "")


@measure
def present_of_one_as_of(world: World) -> dict[str, Any]:
    middle = BEGIN + STEP * (world.count * 3 // 4)
    op_ids = [op_name(number % 1000) for number in range(LOOKUPS)]
    with Ledger.open(world.url) as ledger:
        return times(lambda op_id: ledger.present(op_id, at=middle, known_at=middle), op_ids)


@measure
def present_of_all(world: World) -> dict[str, Any]:
    with Ledger.open(world.url) as ledger:
        return _timed(lambda: len(ledger.present_all()))


@measure
def present_of_all_as_of_the_middle(world: World) -> dict[str, Any]:
    with Ledger.open(world.url) as ledger:
        return _timed(lambda: len(ledger.present_all(at=BEGIN + STEP * (world.count // 2))))


@measure
def present_of_all_bare_sql(world: World) -> dict[str, Any]:
    with Ledger.open(world.url) as ledger:
        connection, table = bare(ledger)
        latest = f"SELECT op_id, max(seq) AS seq FROM {table} GROUP BY op_id"
        return _timed(
            lambda: _drained(connection, f"SELECT t.* FROM {table} t JOIN ({latest}) l USING (op_id, seq)")
        )


@measure
def count_of_states(world: World) -> dict[str, Any]:
    with Ledger.open(world.url) as ledger:
        return _timed(lambda: sum(ledger.count_states().values()))


@measure
def export_of_new_rows(world: World) -> dict[str, Any]:
    """The lake has all but the last million."""
    import polars as pl

    from dagster_l2.assets.export import export_rows, exported_table
    from dagster_l2.lake import Claim

    lake = world.folder / "new"
    if world.count > NEW_ROWS:
        table = exported_table(lake, "transitions")
        empty = pl.DataFrame(schema=dict(table.schema))
        table.append(empty, job_id="before", part="0", claim=Claim(0, world.count - NEW_ROWS))
    with Ledger.open(world.url) as ledger:
        return _timed(lambda: export_rows(ledger, lake, "transitions"))


@measure
def export_of_nothing_new(world: World) -> dict[str, Any]:
    from dagster_l2.assets.export import export_rows

    with Ledger.open(world.url) as ledger:
        return _timed(lambda: export_rows(ledger, world.folder / "new", "transitions"))


@measure
def read_of_new_rows_bare_cursor(world: World) -> dict[str, Any]:
    with Ledger.open(world.url) as ledger:
        connection, table = bare(ledger)
        after = max(0, world.count - NEW_ROWS)
        query = f"SELECT * FROM {table} WHERE transition_id > {after} ORDER BY transition_id"
        return _timed(lambda: _drained(connection, query))


@measure
def export_of_all(world: World) -> dict[str, Any]:
    from dagster_l2.assets.export import export_rows

    with Ledger.open(world.url) as ledger:
        return _timed(lambda: export_rows(ledger, world.folder / "all", "transitions"))


def warehouse(folder: Path) -> Any:
    """A DuckDB file over what was exported, with the history as analysts have it."""
    import duckdb

    from dagster_l2.assets.export import exported_table
    from dagster_l2.lake import register_views

    connection = duckdb.connect(str(folder / "warehouse.duckdb"))
    connection.execute("set TimeZone = 'UTC'")
    register_views(connection, [exported_table(folder / "all", "transitions")])
    return connection


@measure
def warehouse_history_table(world: World) -> dict[str, Any]:
    with warehouse(world.folder) as connection:
        query = "create table op_history as select * from bronze.transitions"
        return _timed(lambda: connection.execute(query).fetchone()[0])


@measure
def warehouse_latest_state(world: World) -> dict[str, Any]:
    query = """
        create or replace table latest as
        select op_id, to_state, occurred_at, seq, actor, inversion_id, details
        from bronze.transitions qualify row_number() over (partition by op_id order by seq desc) = 1"""
    with warehouse(world.folder) as connection:
        return _timed(lambda: connection.execute(query).fetchone()[0])


@measure
def warehouse_state_as_of(world: World) -> dict[str, Any]:
    macros = Path(__file__).resolve().parent.parent / "dbt_project" / "gold_macros.sql"
    middle = BEGIN + STEP * (world.count // 2)
    with warehouse(world.folder) as connection:
        connection.execute(macros.read_text(encoding="utf-8"))
        query = f"select count(*) from op_state_as_of(timestamp '{middle:%Y-%m-%d %H:%M:%S}')"
        return _timed(lambda: connection.execute(query).fetchone()[0])


def _drained(connection: Any, query: str) -> int:
    cursor = connection.cursor() if hasattr(connection, "executescript") else connection.cursor(name="bench")
    cursor.execute(query)
    count = 0
    while part := cursor.fetchmany(10_000):
        count += len(part)
    return count


def _timed(work: Callable[[], int]) -> dict[str, Any]:
    before, started = _peak_mb(), time.perf_counter()
    count = work()
    seconds = time.perf_counter() - started
    peak = _peak_mb()
    return {"rows": count, "seconds": seconds, "peak_mb": round(peak), "growth_mb": round(peak - before)}


def _peak_mb() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def run(database: str, count: int, *, with_warehouse: bool) -> dict[str, Any]:
    """All figures of one database."""
    with kit.place(database) as url, tempfile.TemporaryDirectory(prefix="l2_bench_lake_") as folder:
        figures: dict[str, Any] = {}
        for name in MEASURES:
            if not with_warehouse and (name.startswith("warehouse") or name == "export_of_all"):
                continue
            say(f"{database}: {name}")
            command = [sys.executable, __file__, "--measure", name, "--url", url, "--folder", folder]
            done = subprocess.run(
                [*command, "--rows", str(count)], stdout=subprocess.PIPE, check=True, text=True
            )
            figures[name] = json.loads(done.stdout)
        return figures


def say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=1_000_000, help="transitions in the ledger")
    parser.add_argument("--database", choices=[*kit.DATABASES, "both"], default="both")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.add_argument("--measure", choices=[*MEASURES], help=argparse.SUPPRESS)
    parser.add_argument("--url", help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.measure:
        print(json.dumps(MEASURES[options.measure](World(options.url, options.rows, options.folder))))
        return
    databases = kit.DATABASES if options.database == "both" else [options.database]
    rows = [
        {"database": database, "figure": name.replace("_", " "), **found}
        for database in databases
        for name, found in run(database, options.rows, with_warehouse=database == databases[0]).items()
    ]
    kit.report(f"Reads of {options.rows:,} transitions", rows, as_json=options.json)


if __name__ == "__main__":
    main()
