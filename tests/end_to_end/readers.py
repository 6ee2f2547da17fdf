"""Analysts in processes of their own: some hold the file open, some open it anew for each question."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

_ANALYST = """
import json, sys, time
import duckdb

path, is_holding, pause_s = sys.argv[1], sys.argv[2] == "holds", float(sys.argv[3])

def connect():
    connection = duckdb.connect(path, read_only=True)
    # On a slow machine DuckDB would draw a bar among the answers, since `python -c` passes for interactive.
    connection.execute("set enable_progress_bar = false")
    return connection

held = connect()
first = None
while True:
    started = time.monotonic()
    if not is_holding:
        held.close()
        held = connect()
    states, programs, built_at = held.execute(
        "select (select count(*) from op_latest_state), (select count(*) from observing_programs),"
        " (select epoch_us(built_at) from warehouse_info)"
    ).fetchone()
    assert states == programs > 0, (states, programs)
    first = first or built_at
    assert built_at == first if is_holding else built_at >= first, (first, built_at)
    first = built_at
    print(json.dumps([built_at, started]), flush=True)
    time.sleep(pause_s)
"""


@dataclass
class Analysts:
    """What the analysts have been answered so far, by manner."""

    files: list[tuple[str, Path]] = field(default_factory=list)

    def answers(self, manner: str) -> list[list[tuple[int, float]]]:
        """Of each analyst and answer the version (its build, µs) and when it was asked for (s)."""
        return [_lines(path) for name, path in self.files if name == manner]

    def wait_for_version(self, built_at: int, deadline_s: float = 60) -> None:
        """Wait until all who open the file anew have seen a version."""
        deadline = time.monotonic() + deadline_s
        while not all(seen and seen[-1][0] >= built_at for seen in self.answers("opens")):
            assert time.monotonic() < deadline, f"an analyst did not see {built_at}"
            time.sleep(0.05)

    def wait_for_questions(self, deadline_s: float = 60) -> None:
        """Wait until all have asked something from now on, and have been answered."""
        now = time.monotonic()  # one clock for all processes
        while not all(_lines(path)[-1][1] >= now for _, path in self.files):
            assert time.monotonic() < now + deadline_s, "an analyst waits for an answer"
            time.sleep(0.02)


@contextmanager
def analysts(gold: Path, log: Path, *, each: int = 1, pause_s: float = 0.5) -> Iterator[Analysts]:
    """Analysts of both manners ask gold for as long as the block lasts; fails when one was ever refused.

    Who holds it must see one version, who opens it anew never an older one, and both a whole one.
    """
    found, processes = Analysts(), []
    for number in range(each):
        for manner in ("holds", "opens"):
            name = log / (manner if each == 1 else f"{manner}-{number}")
            with name.with_suffix(".out").open("w") as out, name.with_suffix(".err").open("w") as err:
                command = [sys.executable, "-c", _ANALYST, str(gold), manner, str(pause_s)]
                processes.append((manner, name, subprocess.Popen(command, stdout=out, stderr=err)))
            found.files.append((manner, name.with_suffix(".out")))
    try:
        for _, name, _ in processes:
            _wait_for_an_answer(name.with_suffix(".out"))
        yield found
        for manner, name, process in processes:
            assert process.poll() is None, name.with_suffix(".err").read_text()
            answers = len(name.with_suffix(".out").read_text().splitlines())
            assert answers > 10, f"the analyst who {manner} it got {answers} answers only"
    finally:
        for _, _, process in processes:
            process.kill()
            process.wait()


def _lines(path: Path) -> list[tuple[int, float]]:
    text = path.read_text()
    whole = text[: text.rfind("\n") + 1]
    rows: list[Any] = [json.loads(line) for line in whole.splitlines()]
    return [(int(built_at), float(asked)) for built_at, asked in rows]


def _wait_for_an_answer(out: Path) -> None:
    deadline = time.monotonic() + 60
    while not out.read_text():
        assert time.monotonic() < deadline, "an analyst got no answer"
        time.sleep(0.05)
