"""A process that lets copies of itself run a small job, kills each at another step, and lets another resume.

Forked from here a run costs hundredths of a second, where a new interpreter would cost a second. Nothing
that makes threads may be called in this process itself, only in the copies.
"""

from __future__ import annotations

import contextlib
import gc
import hashlib
import json
import os
import shutil
import signal
import sys
from collections.abc import Callable
from pathlib import Path

from dagster_l2.batch import RunSummary
from dagster_l2.files import watch_steps

from .job_kit import Place, days, definition


def copy(template: Path, folder: Path) -> Path:
    shutil.copytree(template, folder)
    return folder


def run(folder: Path) -> RunSummary:
    """The job: a batch of two windows, one of which comes only with the retry, and their merge."""
    place = Place(folder)
    with contextlib.closing(place):
        chosen = definition(
            handler="tests.batch.job_kit:make_faltering",
            batch_size=2,
            retries={"first_wait_s": 0, "max_wait_s": 0},
            executor={"in_flight": 1},
        )
        return place.run(days(2), definition=chosen, source_params={"faltering": str(folder / "faltering")})


def merged(folder: Path) -> bytes:
    """The merged file, when everything about it is as it should be."""
    (output,) = (folder / "out").glob("*.parquet")
    assert json.loads(output.with_suffix(".done").read_text())["bytes"] == output.stat().st_size
    with contextlib.closing(Place(folder)) as place:
        (job,) = place.jobs().store.jobs()
    assert (job.status, job.job_id) == ("SUCCESS", output.stem)
    assert json.loads((folder / "jobs" / job.job_id / "manifest.json").read_text())["status"] == "SUCCESS"
    assert not list((folder / "jobs").glob("*/tasks/*/results.parquet"))
    return output.read_bytes()


def _apart(work: Callable[[], None]) -> int:
    """Do something in a copy of this process; its exit code, or the signal that ended it, negative."""
    child = os.fork()
    if child == 0:
        code = 1
        try:
            work()
            code = 0
        finally:
            os._exit(code)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def _die_at(folder: Path, at: int) -> None:
    left = at

    def die(_step: str) -> None:
        nonlocal left
        if left == 0:
            os.kill(os.getpid(), signal.SIGKILL)
        left -= 1

    watch_steps(die)
    run(folder)


def _finish(folder: Path) -> None:
    run(folder)
    (folder / "digest").write_text(hashlib.sha256(merged(folder)).hexdigest())


def _count(folder: Path) -> None:
    steps: list[str] = []
    watch_steps(steps.append)
    _finish(folder)
    (job,) = (folder / "out").glob("*.parquet")
    (folder / "steps.json").write_text(json.dumps([step.replace(job.stem, "JOB") for step in steps]))


def main(template: Path, folder: Path, part: int, parts: int) -> None:
    folder.mkdir()
    gc.disable()  # a collection in a copy would touch, and so copy, every page
    whole = copy(template, folder / "whole")
    assert _apart(lambda: _count(whole)) == 0
    steps = json.loads((whole / "steps.json").read_text())
    after_kill = {}
    for at in range(part, len(steps), parts):
        some = copy(template, folder / str(at))
        ended = _apart(lambda some=some, at=at: _die_at(some, at))  # type: ignore[misc]
        assert ended == -signal.SIGKILL, (steps[at], ended)
        code = _apart(lambda some=some: _finish(some))  # type: ignore[misc]
        after_kill[at] = (some / "digest").read_text() if code == 0 else f"exit code {code}"
        shutil.rmtree(some)
    report = {"steps": steps, "merged": (whole / "digest").read_text(), "after_kill": after_kill}
    print(json.dumps(report))


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3]), int(sys.argv[4]))
