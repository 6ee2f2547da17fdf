"""The start of a job: its manifest and its batches on disk, then its tasks in the state database.

What is to be done is decided by the coordinator; how it is worked on is in ``runner``.
"""

from __future__ import annotations

import getpass
import logging
import shutil
from collections.abc import Sequence
from datetime import UTC, datetime

from dagster_l2.batch.jobs.folders import JobFolders, JobOrder, TaskManifest
from dagster_l2.batch.jobs.model import INITIAL_GROUP, Phase, Role, Status, Task, split
from dagster_l2.batch.jobs.phases import write_job_manifest
from dagster_l2.batch.jobs.tasks import AlreadyJoined, TaskStore
from dagster_l2.batch.windows import Window

_LOG = logging.getLogger(__name__)


def start_job(order: JobOrder, store: TaskStore, identity: str, windows: Sequence[Window]) -> str:
    """Write the manifest and the batches of a job, and make its tasks; gives the id of the job to work on.

    That is another's where the same work was begun at the same moment; the folder made here is then
    removed again.
    """
    folders, batches = JobFolders.of(order), split(windows, order.definition.batch_size)
    write_job_manifest(order, None, task_count=len(batches))
    folders.write_batches(order, batches)
    tasks = [
        Task(
            task_id=f"{order.job_id}-{seq:05d}",
            job_id=order.job_id,
            role=Role.WORKER,
            phase=Phase.INITIAL,
            group=INITIAL_GROUP,
            seq=seq,
            batch_id=batch.batch_id,
        )
        for seq, batch in enumerate(batches, start=1)
    ]
    coordinator = Task(
        task_id=f"{order.job_id}-00000",
        job_id=order.job_id,
        role=Role.COORDINATOR,
        phase=Phase.INITIAL,
        group="coordinator",
        seq=0,
        status=Status.SUCCESS,
    )
    try:
        store.start_job(order.job_id, order.definition.name, identity, [coordinator, *tasks])
    except AlreadyJoined as other:
        shutil.rmtree(folders.root, ignore_errors=True)
        return other.job_id
    _note_coordinator(order, coordinator, len(tasks))
    _LOG.info(
        "Job started: %d windows in %d batches.",
        len(windows),
        len(batches),
        extra={"job_id": order.job_id, "source": order.definition.source},
    )
    return order.job_id


def _note_coordinator(order: JobOrder, task: Task, count: int) -> None:
    folders = JobFolders.of(order)
    manifest = TaskManifest(
        job_id=order.job_id,
        task_id=task.task_id,
        batch_id=None,
        role=task.role,
        phase=task.phase,
        group=task.group,
        input=None,
        output_file=folders.relative(folders.batches),
        status=Status.SUCCESS,
        start_time=order.submitted_at,
        end_time=datetime.now(UTC).isoformat(),
        metrics={"batches": count},
        error=None,
    )
    folders.write(folders.task_manifest(task.task_id), manifest)


def user_name() -> str | None:
    """Who runs this process, where the system knows."""
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        return None
