"""A process that lets copies of itself stage an OP, kills each at another step, and lets another go on.

Forked from here a run costs tenths of a second, where a new interpreter would cost seconds. Nothing that
makes threads may be called in this process itself, only in the copies.
"""

from __future__ import annotations

import gc
import hashlib
import json
import os
import shutil
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

# Loaded once, for all copies.
import anyio  # noqa: F401
import astropy.table  # noqa: F401
import httpcore  # noqa: F401
import polars.datatypes  # noqa: F401

from dagster_l2.base.files import watch_steps
from dagster_l2.inputs import package_folder
from dagster_l2.ledger import State
from dagster_l2.pipeline import staging
from dagster_l2.pipeline.preprocess import cubes_of
from dagster_l2.pipeline.wiring import open_ledger
from dagster_l2.settings import Settings
from dagster_l2.store import StoreClient
from tests.apart import apart

# The engine's own steps are killed one by one by a test of its own.
_OWN = ("VISP_", "frames.json", "frames_", "quicklook", "inputs.json", "cube", "staging.json")


def telling(steps: list[str]) -> list[int]:
    """Which of the steps are died at.

    Each of our files before it gets its name: all before are there then, and its own content lies beside.
    And each other kind of step once (writing and syncing a file, its folder, a frame, a plane of a cube),
    as files are written by the same code.
    """
    own = [at for at, name in enumerate(steps) if any(word in name for word in _OWN)]
    kinds: dict[str, int] = {}
    for at in own:
        verb, _, name = steps[at].rpartition(" ")
        kinds.setdefault(f"{verb.split(' ')[0]} {verb.count(' ')} {'VISP_' in name}", at)
    return sorted({at for at in own if steps[at].startswith("rename ")} | set(kinds.values()))


def run(folder: Path, space: Path, store_url: str, op_id: str) -> None:
    """Stage the OP and make its cubes."""
    settings = Settings(data_dir=folder, frames_from=str(space), store_url=store_url)
    with open_ledger(settings) as ledger, StoreClient(store_url) as store:
        present = ledger.present(op_id)
        assert present.state is State.PREPROCESSED, present
        report = staging.stage(settings, ledger, store, [present], actor="test", run_id=None)
        assert report.staged + report.already == [op_id], report
        cubes_of(settings, present, package_folder(folder, op_id))
        assert ledger.present(op_id) == present


def end_state(folder: Path, op_id: str) -> dict[str, str]:
    """Every file of the input package by its content, but for when and by which job it was brought."""
    root = package_folder(folder, op_id)
    out = {}
    for path in sorted(path for path in root.rglob("*") if path.is_file()):
        name, content = str(path.relative_to(root)), path.read_bytes()
        if name.startswith("jobs/"):
            continue
        if name == "inputs.json":
            package: dict[str, Any] = json.loads(content)
            package["frames"]["provenance"] |= {"staged_at": None, "job_id": None}
            content = json.dumps(package, sort_keys=True).encode()
        out[name] = hashlib.sha256(content).hexdigest()
    return out


def _watched(folder: Path, die_at: int | None, work: Callable[[], None]) -> None:
    """Note each step in a file beside the folder, and die at one."""
    count = 0
    with folder.with_suffix(".steps").open("a", encoding="utf-8") as log:

        def note(name: str) -> None:
            nonlocal count
            log.write(name + "\n")
            log.flush()
            if count == die_at:
                os.kill(os.getpid(), signal.SIGKILL)
            count += 1

        watch_steps(note)
        work()


def main(template: Path, work: Path, space: Path, store_url: str, op_id: str) -> None:
    work.mkdir()
    gc.disable()  # a collection in a copy would touch, and so copy, every page
    # The picture is drawn by no step of its own, and would cost more than all the rest.
    staging.quicklook = lambda *_: b"a picture"  # type: ignore[attr-defined]

    def finish(folder: Path, die_at: int | None = None) -> None:
        _watched(folder, die_at, lambda: run(folder, space, store_url, op_id))

    whole = Path(shutil.copytree(template, work / "whole"))
    assert apart(lambda: finish(whole)) == 0
    steps = whole.with_suffix(".steps").read_text().splitlines()
    after_kill = {}
    for at in telling(steps):
        some = Path(shutil.copytree(template, work / str(at)))
        ended = apart(lambda some=some, at=at: finish(some, at))  # type: ignore[misc]
        assert ended == -signal.SIGKILL, (steps[at], ended)
        code = apart(lambda some=some: finish(some))  # type: ignore[misc]
        taken = some.with_suffix(".steps").read_text().splitlines()
        killed_at = taken[at]
        renamed = [name for name in taken if name.startswith("rename VISP_")]
        if killed_at in renamed:
            renamed.remove(killed_at)  # it was about to be taken
        state = end_state(some, op_id) if code == 0 else {"exit code": str(code)}
        after_kill[at] = {"killed_at": killed_at, "state": state, "renamed": sorted(renamed)}
        shutil.rmtree(some)
    report = {"steps": steps, "whole": end_state(whole, op_id), "after_kill": after_kill}
    print(json.dumps(report))


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]), Path(sys.argv[3]), sys.argv[4], sys.argv[5])
