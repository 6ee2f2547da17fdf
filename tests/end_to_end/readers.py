"""Analysts in processes of their own: one holds the file open, one opens it anew for each question."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_ANALYST = """
import sys, time
import duckdb

path, is_holding = sys.argv[1], sys.argv[2] == "holds"
held = duckdb.connect(path, read_only=True)
answers = 0
while True:
    if not is_holding:
        held.close()
        held = duckdb.connect(path, read_only=True)
    states, programs = held.execute(
        "select (select count(*) from op_latest_state), (select count(*) from observing_programs)"
    ).fetchone()
    assert states == programs > 0, (states, programs)
    answers += 1
    print(answers, flush=True)
    time.sleep(0.5)
"""


@contextmanager
def analysts(gold: Path, log: Path) -> Iterator[None]:
    """Two analysts ask gold for as long as the block lasts; fails when one was ever refused."""
    processes = []
    for manner in ("holds", "opens"):
        with (log / f"{manner}.out").open("w") as out, (log / f"{manner}.err").open("w") as err:
            command = [sys.executable, "-c", _ANALYST, str(gold), manner]
            processes.append((manner, subprocess.Popen(command, stdout=out, stderr=err)))
    try:
        for manner, _ in processes:
            _wait_for_an_answer(log / f"{manner}.out")
        yield
        for manner, process in processes:
            assert process.poll() is None, (log / f"{manner}.err").read_text()
            answers = len((log / f"{manner}.out").read_text().splitlines())
            assert answers > 10, f"the analyst who {manner} it got {answers} answers only"
    finally:
        for _, process in processes:
            process.kill()
            process.wait()


def _wait_for_an_answer(out: Path) -> None:
    deadline = time.monotonic() + 30
    while not out.read_text():
        assert time.monotonic() < deadline, "an analyst got no answer"
        time.sleep(0.05)
