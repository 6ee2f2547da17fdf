"""A job that is killed, or refused by the disk, at any durable step ends in the same bytes all the same."""

from __future__ import annotations

import errno
import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from dagster_l2.base.files import watch_steps

from .job_kit import REPOSITORY, Place, make_tables
from .kill_everywhere import copy, merged, run

EVERY = 14
"""Every so manieth operation of the disk is refused, by each of two helpers."""


SENTENCE = (
    re.compile(r"The disk refused \(/.+\): .+ Make room or mend the rights and run again; nothing is lost\."),
    re.compile(r"disk I/O error|database or disk is full"),
)
"""What a person is told, of a file and of the state database."""


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("template")
    make_tables(Place(folder).url)
    (folder / "faltering").write_text("20250102T000000")
    return folder


def spoiled(mode: str, template: Path, folder: Path, *, helpers: int = 2, parts: int = 2) -> list[Any]:
    """What became of the job, spoiled at every ``parts``-th step from each helper's own number on."""
    command = [sys.executable, "-m", "tests.batch.kill_everywhere", mode, str(template)]
    running = [
        subprocess.Popen(
            [*command, str(folder / str(part)), str(part * parts // helpers), str(parts)],
            cwd=REPOSITORY,
            stdout=subprocess.PIPE,
            text=True,
        )
        for part in range(helpers)
    ]
    return [json.loads(helper.communicate()[0]) for helper in running]


def test_a_kill_at_every_step_changes_no_byte(template: Path, tmp_path: Path) -> None:
    reports = spoiled("kill", template, tmp_path)
    steps, wanted = reports[0]["steps"], reports[0]["merged"]
    assert reports[1]["steps"] == steps
    assert len(steps) > 100
    known = {"write results.parquet", "remove results.parquet", "database: attempt DOWNLOADED"}
    assert known | {"database: claim"} <= set(steps)
    found = {int(at): digest for report in reports for at, digest in report["after"].items()}
    assert sorted(found) == list(range(len(steps)))
    assert {steps[at]: digest for at, digest in found.items() if digest != wanted} == {}


def test_the_nth_operation_that_the_disk_refuses_is_said_and_changes_no_byte(
    template: Path, tmp_path: Path
) -> None:
    reports = spoiled("refuse", template, tmp_path, parts=EVERY)
    wanted = reports[0]["merged"]
    tried = set()
    for report in reports:
        for at, digest in report["after"].items():
            operation, said = report["steps"][int(at)], report["said"][at]
            tried.add(operation.partition(" ")[0])
            assert digest == wanted, (at, operation, said)
            # A transaction may have had nothing to write.
            is_said = said and SENTENCE[operation == "database"].fullmatch(said)
            assert is_said or (operation, said) == ("database", None), (at, operation, said)
    assert tried >= {"write", "fsync", "replace", "database"}


@pytest.mark.parametrize("every", [3, 40])
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
