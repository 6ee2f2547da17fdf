"""Eight readers ask gold twenty times a second while ten passes build it anew: does anybody fail or wait.

Four readers keep the file open, four open it for each question. Beside it: the same passes without readers.
A pass reads and writes every file that `l2 run` does; readers and passes share the machine's cores, so a
pass takes longer beside them, but by no lock: the longest answer says whether one was waited for.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import kit

READERS, PASSES = 8, 10
MOST_ANSWER_S = 2.0
"""Far less than a build takes, and more than eight readers and a build on two cores keep one another."""

READER = """
import json, pathlib, sys, time
import duckdb

path, is_holding, until = sys.argv[1], sys.argv[2] == "holds", sys.argv[3]
held, longest, answers, versions = None, 0.0, 0, []
while not pathlib.Path(until).exists():
    began = time.monotonic()
    if held is None or not is_holding:
        if held is not None:
            held.close()
        held = duckdb.connect(path, read_only=True)
        held.execute("set enable_progress_bar = false")
    states, programs, version = held.execute(
        "select (select count(*) from op_latest_state), (select count(*) from observing_programs),"
        " (select epoch_us(built_at) from warehouse_info)"
    ).fetchone()
    assert states == programs > 0, (states, programs)
    if version not in versions:
        versions.append(version)
    longest, answers = max(longest, time.monotonic() - began), answers + 1
    time.sleep(0.05)
print(json.dumps({"answers": answers, "longest_s": longest, "versions": versions}))
"""


def one_pass(environment: dict[str, str]) -> float:
    began = time.perf_counter()
    command = [str(Path(sys.executable).parent / "l2"), "run", "--json"]
    subprocess.run(command, env=environment, check=True, capture_output=True)
    return time.perf_counter() - began


def ask(gold: Path, until: Path, number: int) -> subprocess.Popen[str]:
    manner = "holds" if number % 2 else "opens"
    command = [sys.executable, "-c", READER, str(gold), manner, str(until)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def answers_of(readers: list[subprocess.Popen[str]]) -> list[dict[str, Any]]:
    out = []
    for reader in readers:
        said, problem = reader.communicate()
        if reader.returncode:
            raise SystemExit(f"A reader failed: {problem.splitlines()[-1]}")
        out.append(json.loads(said))
    return out


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--passes", type=int, default=PASSES)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="l2_bench_") as folder:
        data = Path(folder) / "data"
        environment = os.environ | {"L2_DATA_DIR": str(data), "L2_STAGE_FIRST": "0"}
        one_pass(environment)  # the first scan and its history are not what is compared
        alone = [one_pass(environment) for _ in range(3)]
        until = Path(folder) / "enough"
        readers = [ask(data / "l2.duckdb", until, number) for number in range(READERS)]
        try:
            beside = [one_pass(environment) for _ in range(options.passes)]
            until.touch()
            found = answers_of(readers)
        finally:
            for reader in readers:
                reader.kill()
    longest = max(one["longest_s"] for one in found)
    seen = [len(one["versions"]) for one in found]
    rows = [
        {"what": "a pass alone, s", "measured": statistics.median(alone)},
        {"what": f"a pass beside {READERS} readers, s", "measured": statistics.median(beside)},
        {"what": "answers", "measured": sum(one["answers"] for one in found)},
        {
            "what": "the longest answer, s",
            "measured": longest,
            "limit": MOST_ANSWER_S,
            "holds": longest <= MOST_ANSWER_S,
        },
        {
            "what": "versions that a reader saw who keeps the file open",
            "measured": max(seen[1::2]),
            "limit": 1,
            "holds": max(seen[1::2]) == 1,
        },
        {
            "what": "versions that a reader saw who opens it anew",
            "measured": min(seen[::2]),
            "limit": options.passes,
            "holds": min(seen[::2]) >= options.passes,
        },
    ]
    kit.report(f"{READERS} readers during {options.passes} passes", rows, as_json=options.json)
    return 0 if all(row.get("holds", True) for row in rows) else 1


if __name__ == "__main__":
    sys.exit(main())
