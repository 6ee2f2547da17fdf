"""The warehouse over a made lake: its SQL alone as one DuckDB script, dbt's build, and a pass with news.

``--datasets`` and ``--transitions`` (several, in pairs) set the sizes; the default is the smallest. The
script is the compiled SQL of the same models, on two threads and within the same memory, each model with its
seconds, CPU seconds and peak memory. The files of the transitions are merged first, as passes do.
``count(distinct op_id)`` over the same files stands beside the latest state (and alone over the files as
exported), and so does the least query that gives a state. After 1000 more transitions the models that read
them are built again. From two sizes on the growth is stated as an exponent. A million datasets with 20
million transitions take 25 GB of disk for a while. The exit code says whether the limits hold.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import duckdb
import kit
from made_bronze import add_transitions, make_bronze

from dagster_l2.assets.export import compact_exported
from dagster_l2.assets.warehouse import bronze_tables
from dagster_l2.lake import register_views
from dagster_l2.settings import REPOSITORY

MAX_SQL_S, MAX_PEAK_MB, MAX_LATEST, MAX_PASS_S, MAX_EXPONENT = 60, 6000, 2.0, 2.0, 1.1
DBT_PROJECT = REPOSITORY / "dbt_project"
OF_TRANSITIONS = ("int_op_last_transition", "op_latest_state", "inversions", "inversion_quality")
COUNT = "select count(distinct op_id) from bronze.transitions"
LEAST = (
    "create or replace temp table least as"
    " select op_id, max_by({'state': to_state, 'since': occurred_at}, seq)"
    " from bronze.transitions group by op_id"
)
MEMORY = os.environ.get("L2_WAREHOUSE_MEMORY", "4GB")


def dbt(folder: Path, *arguments: str) -> dict[str, Any]:
    """Run dbt on the warehouse of a folder: its CPU, its peak, and the seconds of SQL of each model."""
    log = folder / "logs" / "dbt.log"
    log.unlink(missing_ok=True)
    environment = {
        **os.environ,
        "L2_WAREHOUSE": str(folder / "warehouse.duckdb"),
        "L2_WAREHOUSE_MEMORY": MEMORY,
        "DBT_TARGET_PATH": str(folder / "target"),
        "DBT_LOG_PATH": str(folder / "logs"),
    }
    command = [str(Path(sys.executable).with_name("dbt")), "--log-format-file", "json", *arguments]
    place = ["--project-dir", str(DBT_PROJECT), "--profiles-dir", str(DBT_PROJECT)]
    before, began = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    done = subprocess.run([*command, *place], env=environment, capture_output=True, text=True, check=False)
    seconds, after = time.perf_counter() - began, resource.getrusage(resource.RUSAGE_CHILDREN)
    if done.returncode:
        raise SystemExit(done.stdout[-3000:])
    sql: dict[str, float] = {}
    for line in log.read_text(encoding="utf-8").splitlines():
        event = json.loads(line)
        if event["info"]["name"] == "SQLQueryStatus":
            name = (event["data"].get("node_info") or {}).get("node_name", "")
            sql[name] = sql.get(name, 0.0) + event["data"]["elapsed"]
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return {"seconds": seconds, "cpu": cpu, "sql": sql}


def register(folder: Path) -> None:
    with duckdb.connect(str(folder / "warehouse.duckdb")) as connection:
        register_views(connection, bronze_tables(folder / "lake"))


def script(folder: Path) -> None:
    """In a process of its own: the compiled models in their order, as one script in a new file."""
    nodes = json.loads((folder / "full" / "manifest.json").read_text(encoding="utf-8"))["nodes"]
    order: list[str] = []

    def visit(name: str) -> None:
        if name in nodes and name not in order:
            for parent in nodes[name]["depends_on"].get("nodes", []):
                visit(parent)
            order.append(name)

    for name in sorted(key for key, node in nodes.items() if node["resource_type"] in ("model", "seed")):
        visit(name)
    out = []
    with duckdb.connect(str(folder / "script.duckdb"), config={"threads": 2}) as connection:
        connection.execute(f"set memory_limit = '{MEMORY}'")
        connection.execute("set TimeZone = 'UTC'")
        register_views(connection, bronze_tables(folder / "lake"))
        distinct, least = _warm(connection, COUNT), _warm(connection, LEAST)
        for name in order:
            node = nodes[name]
            if node["resource_type"] == "seed":
                path = DBT_PROJECT / node["original_file_path"]
                query, kind = f"select * from read_csv('{path}')", "table"
            else:
                compiled = next((folder / "full" / "compiled").rglob(f"{node['name']}.sql"))
                query = compiled.read_text(encoding="utf-8").replace('"warehouse".', "")
                # Gold writes the latest state as a table, which is what is measured here.
                is_view = node["config"]["materialized"] == "view" and node["name"] != "op_latest_state"
                kind = "view" if is_view else "table"
            taken = _timed(connection, f'create table "{node["name"]}" as {query}'.replace("table", kind, 1))
            out.append({"model": node["name"], "kind": kind, **taken})
    peak = max(row["peak MB"] for row in out)
    print(json.dumps({"distinct": distinct, "least": least, "models": out, "peak": peak}))


def _warm(connection: duckdb.DuckDBPyConnection, query: str) -> dict[str, float]:
    """The lesser of two turns: the first one also brings the files into memory."""
    return min((_timed(connection, query) for _ in range(2)), key=lambda taken: taken["cpu s"])


def _merged(folder: Path) -> dict[str, float]:
    """Merge the files of the transitions; what that takes, and the count over them before."""
    with duckdb.connect(config={"threads": 2}) as connection:
        register_views(connection, bronze_tables(folder / "lake"))
        counted = _warm(connection, COUNT)
    began, cpu = time.perf_counter(), time.process_time()
    compact_exported(folder / "lake", "transitions")
    seconds, cpu = time.perf_counter() - began, time.process_time() - cpu
    return {
        "count over files as exported cpu s": counted["cpu s"],
        "merging s": seconds,
        "merging cpu s": cpu,
    }


def _timed(connection: duckdb.DuckDBPyConnection, query: str) -> dict[str, float]:
    Path("/proc/self/clear_refs").write_text("5", encoding="ascii")  # the peak begins anew
    began, cpu = time.perf_counter(), time.process_time()
    connection.execute(query).fetchall()
    seconds, cpu = time.perf_counter() - began, time.process_time() - cpu
    (peak,) = (line for line in Path("/proc/self/status").read_text().splitlines() if "VmHWM" in line)
    return {"s": seconds, "cpu s": cpu, "peak MB": int(peak.split()[1]) // 1024}


def measure(folder: Path, datasets: int, transitions: int, *, as_json: bool) -> dict[str, Any]:
    title = f"{datasets:,} datasets, {transitions:,} transitions"
    rows = make_bronze(folder / "lake", datasets, transitions)
    merged = _merged(folder)
    register(folder)
    full = dbt(folder, "build", "--exclude-resource-type", "test", "unit_test")
    shutil.copytree(folder / "target", folder / "full")
    output = subprocess.check_output([sys.executable, __file__, "--script", str(folder)])
    (folder / "script.duckdb").unlink()
    bare = json.loads(output)
    models = [row for row in bare["models"] if row["kind"] == "table"]
    for row in models:
        row["dbt's SQL s"] = full["sql"].get(row["model"], 0.0)
        del row["kind"]
    kit.report(title, models, as_json=as_json)
    add_transitions(folder / "lake", 1000)
    register(folder)
    news = dbt(folder, "run", "--select", *OF_TRANSITIONS)
    sql_s = sum(row["s"] for row in models)
    cpu = {row["model"]: row["cpu s"] for row in models}
    found = {
        "rows": sum(rows.values()),
        "sql s": sql_s,
        "sql cpu s": sum(cpu.values()),
        "dbt besides cpu s": full["cpu"] - sum(cpu.values()),
        "peak MB": bare["peak"],
        **merged,
        "count cpu s": bare["distinct"]["cpu s"],
        "least state to count": bare["least"]["cpu s"] / bare["distinct"]["cpu s"],
        "latest to count": cpu["op_latest_state"] / bare["distinct"]["cpu s"],
        "latest made anew to count": (cpu["int_op_last_transition"] + cpu["op_latest_state"])
        / bare["distinct"]["cpu s"],
        "pass sql s": sum(news["sql"].get(name, 0.0) for name in OF_TRANSITIONS),
        **{f"pass {name} s": news["sql"].get(name, 0.0) for name in OF_TRANSITIONS},
    }
    limits = {
        "sql s": MAX_SQL_S,
        "peak MB": MAX_PEAK_MB,
        "latest to count": MAX_LATEST,
        "pass sql s": MAX_PASS_S,
    }
    kit.report(
        f"{title}: in all",
        [{"what": name, "found": value, "limit": limits.get(name)} for name, value in found.items()],
        as_json=as_json,
    )
    found["is_well"] = all(found[name] <= limit for name, limit in limits.items())
    return found


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--datasets", type=int, nargs="+", default=[10_000])
    parser.add_argument("--transitions", type=int, nargs="+", default=[100_000])
    parser.add_argument("--script", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    if options.script is not None:
        script(options.script)
        return 0
    found = []
    for datasets, transitions in zip(options.datasets, options.transitions, strict=True):
        with tempfile.TemporaryDirectory(prefix="l2_bench_") as folder:
            found.append(measure(Path(folder), datasets, transitions, as_json=options.json))
    is_well = all(row["is_well"] for row in found)
    if len(found) > 1:
        few, many = found[0], found[-1]
        exponent = math.log(many["sql cpu s"] / few["sql cpu s"]) / math.log(many["rows"] / few["rows"])
        kit.report(
            "growth of the SQL's CPU with rows",
            [{"exponent": exponent, "limit": MAX_EXPONENT}],
            as_json=options.json,
        )
        is_well &= exponent <= MAX_EXPONENT
    return 0 if is_well else 1


if __name__ == "__main__":
    sys.exit(main())
