"""A process that lets copies of itself run a small job, spoils each at another step, and lets another resume.

Each copy is killed (``kill``), or the disk refuses it one operation (``refuse``).

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
from pathlib import Path

from sqlalchemy.exc import OperationalError

from dagster_l2.base.errors import L2Error, one_sentence_of
from dagster_l2.base.files import watch_steps
from dagster_l2.batch import RunSummary
from tests.apart import apart

from .failing_disk import Disk
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


def _die_at(folder: Path, at: int) -> None:
    left = at

    def die(_step: str) -> None:
        nonlocal left
        if left == 0:
            os.kill(os.getpid(), signal.SIGKILL)
        left -= 1

    watch_steps(die)
    run(folder)


def _be_refused(folder: Path, at: int) -> None:
    """Run on a disk that refuses one operation, and note what a person would be told."""
    said: str | None = None
    try:
        with Disk(at, but=folder / "faltering").mounted():
            run(folder)
    except (OSError, L2Error) as error:
        said = one_sentence_of(error)
    except OperationalError as error:
        said = str(error.orig)
    (folder / "said.json").write_text(json.dumps(said))


def _finish(folder: Path) -> None:
    run(folder)
    (folder / "digest").write_text(hashlib.sha256(merged(folder)).hexdigest())


def _steps(folder: Path) -> None:
    steps: list[str] = []
    watch_steps(steps.append)
    _finish(folder)
    (job,) = (folder / "out").glob("*.parquet")
    (folder / "steps.json").write_text(json.dumps([step.replace(job.stem, "JOB") for step in steps]))


def _operations(folder: Path) -> None:
    disk = Disk(but=folder / "faltering")
    with disk.mounted():
        run(folder)
    _finish(folder)
    (folder / "steps.json").write_text(json.dumps(disk.seen))


def main(mode: str, template: Path, folder: Path, part: int, parts: int) -> None:
    folder.mkdir()
    gc.disable()  # a collection in a copy would touch, and so copy, every page
    whole = copy(template, folder / "whole")
    count = _steps if mode == "kill" else _operations
    assert apart(lambda: count(whole)) == 0
    steps = json.loads((whole / "steps.json").read_text())
    after, said = {}, {}
    for at in range(part, len(steps), parts):
        some = copy(template, folder / str(at))
        if mode == "kill":
            ended = apart(lambda some=some, at=at: _die_at(some, at))  # type: ignore[misc]
            assert ended == -signal.SIGKILL, (steps[at], ended)
        else:
            ended = apart(lambda some=some, at=at: _be_refused(some, at))  # type: ignore[misc]
            assert ended == 0, (steps[at], ended)
            said[at] = json.loads((some / "said.json").read_text())
        code = apart(lambda some=some: _finish(some))  # type: ignore[misc]
        after[at] = (some / "digest").read_text() if code == 0 else f"exit code {code}"
        shutil.rmtree(some)
    report = {"steps": steps, "merged": (whole / "digest").read_text(), "after": after, "said": said}
    print(json.dumps(report))


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]), Path(sys.argv[3]), int(sys.argv[4]), int(sys.argv[5]))
