"""Staging: the frames of the OPs that are next brought into their input packages, as jobs of the engine.

Level-triggered and off the way of everything else: an OP is Preprocessed and can be claimed without its
frames. What a package is, and how a frame is fetched, is in ``inputs``.
"""

from __future__ import annotations

import functools
import json
import logging
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NoReturn

import polars as pl

from dagster_l2.base.errors import error_class, one_sentence_of
from dagster_l2.base.files import (
    AlreadyRunning,
    only_one,
    remove_leftovers,
    write_durably,
    write_json,
)
from dagster_l2.batch import FailureClass, JobRequest, Jobs, Status, load_definition, new_job_id
from dagster_l2.inputs import (
    MISSING_FILE,
    PICTURE_FILE,
    SOURCE,
    WRONG_FILE,
    Finding,
    Frame,
    FramesNotStaged,
    FrameStaging,
    FramesWrong,
    Objects,
    absent,
    bytes_of,
    check_frames,
    is_staged,
    mark_staged,
    package_folder,
    quicklook,
    read_frames,
    read_listing,
    read_package,
    remove_frames,
    write_http_list,
    write_listing,
)
from dagster_l2.ledger import Conflict, IllegalTransition, Ledger, Present, State
from dagster_l2.pipeline.downloads import open_jobs
from dagster_l2.pipeline.gold import NoGold
from dagster_l2.pipeline.queue import live_queue
from dagster_l2.pipeline.quota import evict_published, make_room, over_quota, staging_lock
from dagster_l2.pipeline.revision import git_commit
from dagster_l2.pipeline.unstaged import MAY_GO_ON, note_failure, note_success
from dagster_l2.pipeline.wiring import has_objects, open_objects, store_name
from dagster_l2.settings import REPOSITORY, Settings
from dagster_l2.sources import without_secrets
from dagster_l2.store import StoreClient, StoreError

HAVE_PACKAGE = (State.PREPROCESSED, State.WORKING, State.INVERTED)
_BEGUN = "staging.json"
_LOG = logging.getLogger(__name__)


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
    """Bring the frames of OPs here, and check that they are theirs.

    Parameters
    ----------
    spare
        OPs whose frames may go where there is no room, those first that come last here.
    progress
        Told an OP, how many of its frames are here, of how many, as they come.
    """

    def __init__(
        self,
        settings: Settings,
        ledger: Ledger,
        *,
        run_id: str | None,
        spare: Iterable[str] = (),
        progress: Callable[[str, int, int], None] | None = None,
    ) -> None:
        self._settings, self._ledger = settings, ledger
        self._spare = list(spare)
        self._run_id, self._progress = run_id, progress
        self.report = StageReport()

    def stage(self, present: Present, store: StoreClient, objects: Objects, *, actor: str) -> None:
        """Stage one OP.

        Frames that do not arrive bring a Preprocessed one to Error and are noted on one that is claimed; an
        outage of the store does neither.
        """
        with self._one_fails_alone(present, actor):
            self._stage(present.op_id, store, objects)

    def complete(self, present: Present, jobs: Jobs, job_id: str, *, actor: str) -> None:
        """Take over what a job brought that was resumed by itself."""
        with self._one_fails_alone(present, actor):
            order = jobs.order(job_id)
            folder = package_folder(self._settings.data, present.op_id)
            frames = read_listing(Path(order.source_params["listing"]))
            with self._alone(present.op_id):
                output = Path(order.output_folder) / f"{job_id}.parquet"
                if not is_staged(folder, frames) and output.is_file() and not absent(folder, frames):
                    self._take(present.op_id, frames, folder, output, job_id)

    @contextmanager
    def _one_fails_alone(self, present: Present, actor: str) -> Iterator[None]:
        try:
            yield
        except AlreadyRunning as error:
            self.report.left_out.append((present.op_id, str(error)))
        except StoreError as error:
            self.report.failed.append((present.op_id, str(error)))
        except Exception as error:  # noqa: BLE001 - one OP stops no other
            self.report.failed.append((present.op_id, one_sentence_of(error)))
            try:
                self._blame(present, error, actor)
            except (Conflict, IllegalTransition) as moved:
                self.report.left_out.append((present.op_id, str(moved)))
        else:
            if present.op_id in (*self.report.staged, *self.report.already):
                note_success(self._ledger, present.op_id, actor=actor)

    def _blame(self, present: Present, error: Exception, actor: str) -> None:
        # Somebody may have claimed it meanwhile; in Error, a claimed one would have its products refused.
        if self._ledger.present(present.op_id).state in MAY_GO_ON:
            note_failure(self._ledger, present, error, actor=actor)
            return
        self._ledger.fail(
            present.op_id,
            step="preprocess" if isinstance(error, FramesWrong) else "stage",
            error_class=error_class(error),
            message=one_sentence_of(error),
            actor=actor,
            run_id=self._run_id,
            seen=present.seq,
        )

    def _alone(self, op_id: str) -> AbstractContextManager[None]:
        return only_one(staging_lock(self._settings, op_id), f"The staging of {op_id}")

    def _stage(self, op_id: str, store: StoreClient, objects: Objects) -> None:
        folder = package_folder(self._settings.data, op_id)
        package = read_package(folder)
        dataset_ids = [row["dataset_id"] for group in package["groups"] for row in group["datasets"]]
        frames = read_frames(store.frames(op_id, dataset_ids))
        if not any(frame.is_available for frame in frames):
            self.report.left_out.append((op_id, "the store lists no frames"))
            return
        if is_staged(folder, frames):
            _forget(folder)
            self.report.already.append(op_id)
            return
        need = bytes_of([frame for frame in frames if frame.object_key in set(absent(folder, frames))])
        self.report.evicted += make_room(self._settings, need, self._spare)
        reason = over_quota(self._settings, need)
        if reason is not None:
            self.report.left_out.append((op_id, reason))
            return
        with self._alone(op_id):
            remove_leftovers(folder)
            self._run(op_id, frames, folder, objects)

    def _run(self, op_id: str, frames: list[Frame], folder: Path, objects: Objects) -> None:
        listing = write_listing(folder, frames)
        place = self._settings.frames_from or ""
        if place.startswith("http"):
            write_http_list(folder, place.rstrip("/"), frames)
        told = functools.partial(self._progress, op_id) if self._progress else None
        source = FrameStaging(op_id, frames, folder, objects, progress=told)
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
        self._take(op_id, frames, folder, output, output.stem)

    def _take(self, op_id: str, frames: list[Frame], folder: Path, output: Path, job_id: str) -> None:
        """Check what a job brought, draw it, and say in the package that it is there."""
        arrived = pl.read_parquet(output)
        rows, package = arrived.to_dicts(), read_package(folder)
        findings = check_frames(package, frames, rows)
        if findings:
            _refuse_wrong(folder, frames, findings)
        _draw(folder, package, rows)
        said = mark_staged(folder, frames, arrived, self._provenance(job_id))
        _forget(folder)
        self.report.staged.append(op_id)
        self.report.files += said["files"]
        self.report.bytes += said["bytes"]

    def _provenance(self, job_id: str) -> dict[str, Any]:
        place = self._settings.frames_from
        return {
            "store": store_name(self._settings),
            "frames_from": without_secrets(place)[0] or place if place else "local store",
            "staged_at": datetime.now(UTC).isoformat(timespec="seconds"),
            "job_id": job_id,
            "software_commit": git_commit(),
        }

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
        write_json(folder / MISSING_FILE, keys)
        (folder / _BEGUN).unlink(missing_ok=True)
        failed = [item for item in jobs.items.of_job(job_id) if item.status == "FAILED"]
        raise FramesNotStaged(
            f"{len(keys)} of {sum(frame.is_available for frame in frames)} frames did not arrive"
            f" ({failed[0].error_message if failed else 'no reason known'});"
            f" they are listed in {folder / MISSING_FILE}.",
            keys,
            is_passing=any(item.failure_class is FailureClass.PASSING for item in failed),
        )


def _refuse_wrong(folder: Path, frames: list[Frame], findings: list[Finding]) -> NoReturn:
    """Write down what is wrong and why, and remove the wrong frames: mended ones are fetched anew."""
    write_json(folder / WRONG_FILE, [finding.as_dict() for finding in findings])
    wrong = FramesWrong(findings, sum(frame.is_available for frame in frames), folder / WRONG_FILE)
    remove_frames(folder, frames, wrong.keys)
    (folder / _BEGUN).unlink(missing_ok=True)
    raise wrong


def _draw(folder: Path, package: dict[str, Any], rows: list[dict[str, Any]]) -> None:
    """Draw the picture; one that can't be drawn is no reason to withhold the frames."""
    try:
        png = quicklook(folder, package, rows)
    except OSError:
        raise
    except Exception as error:  # noqa: BLE001 - as above
        _LOG.warning("No picture of %s: %s", package["op_id"], one_sentence_of(error))
        (folder / PICTURE_FILE).unlink(missing_ok=True)
        return
    write_durably(folder / PICTURE_FILE, lambda temporary: _write(temporary, png))


def _write(path: Path, content: bytes) -> None:
    path.write_bytes(content)


def _forget(folder: Path) -> None:
    """Remove what was noted on a staging that has come to its end."""
    for name in (_BEGUN, MISSING_FILE, WRONG_FILE):
        (folder / name).unlink(missing_ok=True)


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
    settings: Settings,
    ledger: Ledger,
    store: StoreClient,
    *,
    actor: str,
    run_id: str | None,
    progress: Callable[[str, int, int], None] | None = None,
) -> StageReport:
    """Stage what is claimed and the head of the queue, and remove what is published.

    Where the quota leaves no room, frames go that nobody waits for: of OPs that cannot be inverted any more,
    then of those that are last in the queue. Without an object space nothing is staged.
    """
    presents = ledger.present_all()
    evicted = evict_published(settings, presents.values())
    wanted = [present for present in presents.values() if present.state is State.WORKING]
    try:
        ranked = [row["op_id"] for row in live_queue(settings.gold, ledger)]
    except NoGold:
        ranked = []
    # The queue is read after the states, and may know an OP that was new between the two.
    known = [presents[op] for op in ranked if op in presents]
    ready = [present for present in known if present.state is State.PREPROCESSED]
    wanted += ready[: settings.stage_first]
    spare = [present.op_id for present in ready[settings.stage_first :]]
    spare += [op_id for op_id, present in presents.items() if present.state is State.NOT_INVERTIBLE]
    evicted += make_room(settings, 0, spare)
    if not has_objects(settings):
        return StageReport(evicted=evicted)
    return stage(
        settings,
        ledger,
        store,
        wanted,
        actor=actor,
        run_id=run_id,
        evicted=evicted,
        spare=spare,
        progress=progress,
    )


def stage(
    settings: Settings,
    ledger: Ledger,
    store: StoreClient,
    presents: Iterable[Present],
    *,
    actor: str,
    run_id: str | None,
    evicted: Iterable[str] = (),
    spare: Iterable[str] = (),
    progress: Callable[[str, int, int], None] | None = None,
) -> StageReport:
    """Stage these OPs, one after the other.

    Raises
    ------
    WrongUse
        When nobody said where frames lie.
    """
    with ExitStack() as stack:
        objects = stack.enter_context(open_objects(settings, store))
        staging = Staging(settings, ledger, run_id=run_id, spare=spare, progress=progress)
        staging.report.evicted.extend(evicted)
        for present in presents:
            if present.state in HAVE_PACKAGE:
                staging.stage(present, store, objects, actor=actor)
        return staging.report


def complete_job(settings: Settings, ledger: Ledger, job_id: str, *, actor: str) -> StageReport | None:
    """Let the package say what a job brought that was resumed by its id; None when it stages no frames."""
    jobs = open_jobs(settings, ledger)
    state = jobs.store.job(job_id)
    if state.name != SOURCE or state.status is not Status.SUCCESS:
        return None
    staging = Staging(settings, ledger, run_id=None)
    present = ledger.present(jobs.order(job_id).source_params["op_id"])
    if present.state in HAVE_PACKAGE:
        staging.complete(present, jobs, job_id, actor=actor)
    return staging.report
