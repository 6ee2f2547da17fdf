"""What jobs that have ended leave on the disk and nobody needs any more.

Found and removed here; what must stay so that a rerun knows what is done is said here, too. When it is
cleaned is for the caller to say.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from dagster_l2.batch.job_tables import batch_jobs
from dagster_l2.batch.jobs.aggregate import is_merged_whole
from dagster_l2.batch.jobs.folders import JobFolders, read_order
from dagster_l2.batch.jobs.model import JobError, Phase, Status
from dagster_l2.batch.jobs.tasks import JobState, TaskStore

_WORKING_FOLDERS = ("tasks", "batches", "retries")


@dataclass(frozen=True, slots=True)
class Leftover:
    """Folders of one job that can go; ``what`` is ``folder`` or ``scratch``."""

    job_id: str
    what: str
    paths: tuple[Path, ...]
    bytes: int

    def remove(self) -> None:
        """Remove them; may be done twice, and be cut short."""
        for path in self.paths:
            shutil.rmtree(path, ignore_errors=True)


def finished_folders(
    store: TaskStore,
    jobs_root: Path,
    scratch_root: Path,
    *,
    older_than: timedelta,
    is_taken_over: Callable[[JobFolders], bool],
) -> Iterator[Leftover]:
    """The folders of jobs that succeeded so long ago, and whose rows lie whole elsewhere.

    The job's own manifest, its summary and the aggregation manifest stay: a rerun knows by the last one
    what it need not fetch again. A job with failures stays as it is, so that it can be retried.

    Parameters
    ----------
    is_taken_over
        Whether the rows of a job without aggregation have been taken elsewhere.
    """
    for job in _ended(store, older_than):
        folders = JobFolders(jobs_root, scratch_root, job.job_id)
        paths = [path for name in _WORKING_FOLDERS if (path := folders.root / name).is_dir()]
        # Whether rows are whole takes reading them: only of jobs that have something left.
        if paths and job.status is Status.SUCCESS and _is_elsewhere(folders, is_taken_over):
            yield _leftover(job.job_id, "folder", paths)


def old_scratch(store: TaskStore, scratch_root: Path, *, older_than: timedelta) -> Iterator[Leftover]:
    """What tasks of jobs that ended so long ago have kept for another try."""
    for job in _ended(store, older_than):
        path = scratch_root / f"job_{job.job_id}"
        if path.is_dir():
            yield _leftover(job.job_id, "scratch", [path])


def _ended(store: TaskStore, older_than: timedelta) -> list[JobState]:
    is_old = batch_jobs.c.finished_at <= datetime.now(UTC) - older_than
    return store.jobs(batch_jobs.c.status != Status.RUNNING, is_old)


def _is_elsewhere(folders: JobFolders, is_taken_over: Callable[[JobFolders], bool]) -> bool:
    try:
        phases = read_order(folders.jobs_root, folders.job_id).definition.phases
    except JobError:
        phases = (Phase.AGGREGATION,)  # a part of it was removed already
    return is_merged_whole(folders) is True if Phase.AGGREGATION in phases else is_taken_over(folders)


def _leftover(job_id: str, what: str, paths: list[Path]) -> Leftover:
    size = sum(file.stat().st_size for path in paths for file in path.rglob("*") if file.is_file())
    return Leftover(job_id, what, tuple(paths), size)
