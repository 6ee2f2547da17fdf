"""A job that is killed, or refused by the disk, at any durable step ends in the same bytes all the same."""

from __future__ import annotations

import errno
import json
import subprocess
import sys
from pathlib import Path

import pytest

from dagster_l2.files import watch_steps

from .job_kit import REPOSITORY, Place, make_tables
from .kill_everywhere import copy, merged, run


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("template")
    make_tables(Place(folder).url)
    (folder / "faltering").write_text("20250102T000000")
    return folder


def test_a_kill_at_every_step_changes_no_byte(template: Path, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "tests.batch.kill_everywhere", str(template)]
    helpers = [
        subprocess.Popen(
            [*command, str(tmp_path / part), part, "2"], cwd=REPOSITORY, stdout=subprocess.PIPE, text=True
        )
        for part in ("0", "1")
    ]
    reports = [json.loads(helper.communicate()[0]) for helper in helpers]
    steps, wanted = reports[0]["steps"], reports[0]["merged"]
    assert reports[1]["steps"] == steps
    assert len(steps) > 100
    known = {"write results.parquet", "remove results.parquet", "database: attempt DOWNLOADED"}
    assert known | {"database: claim"} <= set(steps)
    found = {int(at): digest for report in reports for at, digest in report["after_kill"].items()}
    assert sorted(found) == list(range(len(steps)))
    assert {steps[at]: digest for at, digest in found.items() if digest != wanted} == {}


@pytest.mark.parametrize("every", [2, 3, 7, 19, 40, 71])
def test_a_disk_that_fails_every_so_often_changes_no_byte(template: Path, tmp_path: Path, every: int) -> None:
    whole = copy(template, tmp_path / "whole")
    run(whole)
    folder, count, refused = copy(template, tmp_path / "some"), 0, 0

    def refuse(_step: str) -> None:
        nonlocal count
        count += 1
        if count % every == 0:
            raise OSError(errno.ENOSPC, "No space left on device")

    for _ in range(6):
        watch_steps(refuse)
        try:
            run(folder)
            break
        except OSError:
            refused += 1
        finally:
            watch_steps(None)
    assert refused
    if refused == 6:
        assert run(folder).exit_code == 0
    assert merged(folder) == merged(whole)
    assert not list(folder.rglob("*.tmp"))
