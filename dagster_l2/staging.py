"""Staging: the frames of the OPs that are next brought into their input packages, as jobs of the engine.

Level-triggered and off the way of everything else: an OP is Preprocessed and can be claimed without its
frames. What a package is, and how a frame is fetched, is in ``inputs``.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NoReturn

import polars as pl

from dagster_l2.batch import FailureClass, JobRequest, Jobs, load_definition, new_job_id
from dagster_l2.downloads import git_commit, open_jobs
from dagster_l2.errors import error_class, one_sentence_of
from dagster_l2.files import AlreadyRunning, only_one, safe_name, write_json
from dagster_l2.gold import NoGold
from dagster_l2.inputs import (
    Frame,
    FramesNotStaged,
    FrameStaging,
    Objects,
    absent,
    bytes_of,
    evict,
    is_staged,
    mark_staged,
    package_folder,
    read_frames,
    read_package,
    staged_bytes,
    write_http_list,
    write_listing,
)
from dagster_l2.ledger import Conflict, IllegalTransition, Ledger, Present, State
from dagster_l2.queue import live_queue
from dagster_l2.settings import REPOSITORY, Settings
from dagster_l2.store import StoreClient, StoreError
from dagster_l2.wiring import has_objects, open_objects

HAVE_PACKAGE = (State.PREPROCESSED, State.WORKING, State.INVERTED)
_BEGUN = "staging.json"
_MISSING = "frames_missing.json"
_GB = 10**9


@dataclass
class StageReport:
    """What staging did: OPs staged, and (op_id, reason) of those left out and of those that failed."""

    staged: list[str] = field(default_factory=list)
    already: list[str] = field(default_factory=list)
    left_out: list[tuple[str, str]] = field(default_factory=list)
    failed: list[tuple[str, str]] = field(default_factory=list)
    evicted: list[str] = field(default_factory=list)
    files: int = 0
    bytes: int = 0


class Staging:
    """Bring the frames of OPs here.

    Parameters
    ----------
    store
        Asked which frames there are.
    objects
        Where they lie.
    """

    def __init__(
        self, settings: Settings, ledger: Ledger, store: StoreClient, objects: Objects, *, run_id: str | None
    ) -> None:
        self._settings, self._ledger = settings, ledger
        self._store, self._objects = store, objects
        self._run_id = run_id
        self.report = StageReport()

    def stage(self, present: Present, *, actor: str) -> None:
        """Stage one OP; frames that do not arrive bring it to Error, an outage of the store does not."""
        try:
            self._stage(present)
        except AlreadyRunning as error:
            self.report.left_out.append((present.op_id, str(error)))
        except StoreError as error:
            self.report.failed.append((present.op_id, str(error)))
        except Exception as error:  # noqa: BLE001 - one OP stops no other
            message = one_sentence_of(error)
            self.report.failed.append((present.op_id, message))
            try:
                self._ledger.fail(
                    present.op_id,
                    step="stage",
                    error_class=error_class(error),
                    message=message,
                    actor=actor,
                    run_id=self._run_id,
                    seen=present.seq,
                )
            except (Conflict, IllegalTransition) as moved:
                self.report.left_out.append((present.op_id, str(moved)))

    def _stage(self, present: Present) -> None:
        op_id = present.op_id
        folder = package_folder(self._settings.data, op_id)
        package = read_package(folder)
        dataset_ids = [row["dataset_id"] for group in package["groups"] for row in group["datasets"]]
        frames = read_frames(self._store.frames(op_id, dataset_ids))
        if not any(frame.is_available for frame in frames):
            self.report.left_out.append((op_id, "the store lists no frames"))
            return
        if is_staged(folder, frames):
            self.report.already.append(op_id)
            return
        need = bytes_of([frame for frame in frames if frame.object_key in set(absent(folder, frames))])
        have = sum(staged_bytes(path) for path in (self._settings.data / "inputs").iterdir())
        if need + have > self._settings.stage_quota_gb * _GB:
            reason = f"its {need / _GB:.3g} GB would exceed L2_STAGE_QUOTA_GB; {have / _GB:.3g} GB are taken"
            self.report.left_out.append((op_id, reason))
            return
        lock = self._settings.data / "locks" / f"stage-{safe_name(op_id)}.lock"
        with only_one(lock, f"The staging of {op_id}"):
            said = self._run(op_id, frames, folder)
        self.report.staged.append(op_id)
        self.report.files += said["files"]
        self.report.bytes += said["bytes"]

    def _run(self, op_id: str, frames: list[Frame], folder: Path) -> dict[str, Any]:
        listing = write_listing(folder, frames)
        place = self._settings.frames_from or ""
        if place.startswith("http"):
            write_http_list(folder, place.rstrip("/"), frames)
        source = FrameStaging(op_id, frames, folder, self._objects)
        jobs = open_jobs(self._settings, self._ledger, output_folder=folder / "jobs").over(source)
        output: Path | None = None
        for _ in range(2):
            summary = jobs.run(self._request(op_id, source, listing, folder))
            if summary.failed:
                self._refuse(folder, frames, jobs, str(summary.job_id))
            output = summary.output
            if output is not None and not absent(folder, frames):
                break
            # The job had come to its end before, and what it brought is gone or was never written down:
            # another one looks at what is here and fetches the rest.
            (folder / _BEGUN).unlink(missing_ok=True)
        if output is None or absent(folder, frames):
            raise FramesNotStaged(f"Staged frames of {op_id!r} vanish from {folder}; is its disk sound?")
        said = mark_staged(folder, frames, pl.read_parquet(output))
        (folder / _BEGUN).unlink(missing_ok=True)
        (folder / _MISSING).unlink(missing_ok=True)
        return said

    def _request(self, op_id: str, source: FrameStaging, listing: Path, folder: Path) -> JobRequest:
        definition = load_definition(REPOSITORY / "jobs" / "frames.yaml")
        return JobRequest(
            definition=definition,
            windows=source.windows(),
            source_params={"op_id": op_id, "listing": str(listing), "folder": str(folder)},
            sweep_id=_begun(folder),
            run_id=self._run_id,
            git_commit=git_commit(),
            config_file="jobs/frames.yaml",
        )

    def _refuse(self, folder: Path, frames: list[Frame], jobs: Jobs, job_id: str) -> NoReturn:
        """Write down what did not arrive, and say so."""
        keys = absent(folder, frames)
        write_json(folder / _MISSING, keys)
        (folder / _BEGUN).unlink(missing_ok=True)
        failed = [item for item in jobs.items.of_job(job_id) if item.status == "FAILED"]
        raise FramesNotStaged(
            f"{len(keys)} of {sum(frame.is_available for frame in frames)} frames did not arrive"
            f" ({failed[0].error_message if failed else 'no reason known'});"
            f" they are listed in {folder / _MISSING}.",
            keys,
            is_passing=any(item.failure_class is FailureClass.PASSING for item in failed),
        )


def _begun(folder: Path) -> str:
    """The id of the staging that goes on until all frames are here; a killed one is gone on with."""
    path = folder / _BEGUN
    try:
        return str(json.loads(path.read_text(encoding="utf-8"))["id"])
    except (OSError, ValueError, KeyError, TypeError):
        begun = new_job_id("stage")
        write_json(path, {"id": begun})
        return begun


def stage_next(
    settings: Settings, ledger: Ledger, store: StoreClient, *, actor: str, run_id: str | None
) -> StageReport:
    """Stage what is claimed and the head of the queue, and remove what is published.

    Without an object space only the latter.
    """
    presents = ledger.present_all()
    evicted = evict_published(settings, presents.values())
    if not has_objects(settings):
        return StageReport(evicted=evicted)
    wanted = [present for present in presents.values() if present.state is State.WORKING]
    try:
        ranked = [row["op_id"] for row in live_queue(settings.gold, ledger)]
    except NoGold:
        ranked = []
    ready = [presents[op] for op in ranked if presents[op].state is State.PREPROCESSED]
    wanted += ready[: settings.stage_first]
    return stage(settings, ledger, store, wanted, actor=actor, run_id=run_id, evicted=evicted)


def stage(
    settings: Settings,
    ledger: Ledger,
    store: StoreClient,
    presents: Iterable[Present],
    *,
    actor: str,
    run_id: str | None,
    evicted: Iterable[str] = (),
) -> StageReport:
    """Stage these OPs, one after the other.

    Raises
    ------
    WrongUse
        When nobody said where frames lie.
    """
    with ExitStack() as stack:
        objects = stack.enter_context(open_objects(settings, store))
        staging = Staging(settings, ledger, store, objects, run_id=run_id)
        staging.report.evicted.extend(evicted)
        for present in presents:
            if present.state in HAVE_PACKAGE:
                staging.stage(present, actor=actor)
        return staging.report


def evict_published(settings: Settings, presents: Iterable[Present]) -> list[str]:
    """Remove the staged frames of published OPs; nobody needs them here any more."""
    out = []
    for present in presents:
        if present.state is State.PUBLISHED and evict(package_folder(settings.data, present.op_id)):
            out.append(present.op_id)
    return out
