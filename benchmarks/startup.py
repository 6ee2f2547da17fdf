"""How soon things start: `l2 --help`, `l2 queue` and the code location, beside bare imports in the same run.

CPU seconds (user and system) of whole processes, in turns, the best of them: what a process does and not
how long it waited for others. ``--data`` names a data folder with gold; without it one pass over generated
records makes one. The exit code says whether the limits hold.
"""

from __future__ import annotations

import argparse
import os
import resource
import subprocess
import sys
import tempfile
from pathlib import Path

import kit

MAX_HELP_S, MAX_QUEUE_S, MAX_LOCATION = 0.3, 1.0, 1.5
L2 = [sys.executable, "-c", "from dagster_l2.cli import main; main()"]
COMMANDS = {
    "python": [sys.executable, "-c", "pass"],
    "l2 --help": [*L2, "--help"],
    "l2 queue": [*L2, "queue"],
    "import dagster": [sys.executable, "-c", "import dagster"],
    "import dagster_dbt": [sys.executable, "-c", "import dagster_dbt"],
    "code location": [sys.executable, "-c", "import dagster_l2.definitions"],
}


def cpu_seconds(command: list[str], environment: dict[str, str]) -> float:
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"{' '.join(command)} failed: {done.stderr[-500:]}")
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path)
    parser.add_argument("--times", type=int, default=5)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="l2_bench_") as folder:
        data = options.data or Path(folder) / "data"
        # Installed packages have their bytecode; so must ours, or compiling it would be measured.
        environment = {name: value for name, value in os.environ.items() if not name.startswith("L2_")}
        environment |= {"L2_DATA_DIR": str(data), "PYTHONPYCACHEPREFIX": f"{folder}/bytecode"}
        environment.pop("PYTHONDONTWRITEBYTECODE", None)
        if options.data is None:
            subprocess.run([*L2, "run"], env=environment, capture_output=True, check=True)
        for command in COMMANDS.values():
            cpu_seconds(command, environment)
        taken = {name: [] for name in COMMANDS}
        for _ in range(options.times):
            for name, command in COMMANDS.items():
                taken[name].append(cpu_seconds(command, environment))
    best = {name: min(values) for name, values in taken.items()}
    limits = {
        "l2 --help": MAX_HELP_S,
        "l2 queue": MAX_QUEUE_S,
        "code location": MAX_LOCATION * best["import dagster_dbt"],
    }
    rows = [{"what": name, "cpu s": best[name], "limit s": limits.get(name)} for name in COMMANDS]
    kit.report("start-up", rows, as_json=options.json)
    return 0 if all(best[name] < limit for name, limit in limits.items()) else 1


if __name__ == "__main__":
    sys.exit(main())
