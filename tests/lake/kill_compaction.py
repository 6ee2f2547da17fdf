"""A process that lets copies of itself merge files, kills each at another durable step, and looks afterwards.

Forked from here a run costs hundredths of a second, where a new interpreter would cost a second. Nothing that
makes threads may be called in this process itself, only in the copies.
"""

from __future__ import annotations

import gc
import json
import os
import shutil
import signal
import sys
from datetime import timedelta
from functools import partial
from pathlib import Path

import polars as pl

from dagster_l2.base.files import watch_steps
from dagster_l2.lake import BronzeTable, Claim, GrowingTable, compact, compaction
from tests.apart import apart

ROWS, FILES = 3, 7


def table(folder: Path) -> BronzeTable:
    return BronzeTable(folder, "things", {"number": pl.Int64()})


def fill(folder: Path) -> None:
    for after in range(0, ROWS * FILES, ROWS):
        frame = pl.DataFrame({"number": range(after + 1, after + ROWS + 1)})
        table(folder).append(frame, job_id="export", part=f"{after:02d}", claim=Claim(after, after + ROWS))


def merge(folder: Path) -> None:
    """Twice: the second run removes what the first has replaced."""
    for number in range(2):
        compact(table(folder), ["number"], job_id=f"merge{number}-{os.getpid()}")


def look(folder: Path) -> None:
    numbers = sorted(table(folder).scan().collect()["number"])
    assert numbers == list(range(1, ROWS * FILES + 1)), numbers
    assert GrowingTable(table(folder), "number").complete_through == ROWS * FILES


def finish(folder: Path) -> None:
    merge(folder)
    look(folder)
    names = [path.name for path in table(folder).folder.iterdir() if not path.name.startswith("0-schema-")]
    assert len(names) == 4, names  # two files with their manifests, and nothing of those that were killed


def note_steps(folder: Path) -> None:
    steps: list[str] = []
    watch_steps(steps.append)
    finish(folder)
    (folder / "steps.json").write_text(json.dumps(steps))


def die_at(folder: Path, at: int) -> None:
    left = iter(range(at))

    def die(_step: str) -> None:
        if next(left, None) is None:
            os.kill(os.getpid(), signal.SIGKILL)

    watch_steps(die)
    merge(folder)


def main(folder: Path) -> None:
    gc.disable()  # a collection in a copy would touch, and so copy, every page
    compaction.OPEN_FILES, compaction.FULL_ROWS, compaction.KEPT_FOR = 3, 12, timedelta(0)
    template, whole = folder / "template", folder / "whole"
    assert apart(partial(fill, template)) == 0
    shutil.copytree(template, whole)
    assert apart(partial(note_steps, whole)) == 0
    steps = json.loads((whole / "steps.json").read_text())
    for at, step in enumerate(steps):
        some = folder / str(at)
        shutil.copytree(template, some)
        ended = apart(partial(die_at, some, at))
        assert ended == -signal.SIGKILL, (step, ended)
        for work in (look, finish):
            assert apart(partial(work, some)) == 0, (step, work.__name__)
    print(json.dumps(steps))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
