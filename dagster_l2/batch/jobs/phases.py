"""Which phase follows: retries of what failed for a passing reason, the aggregation, the end.

Anyone may ask; of several who want to move a job, one does. What a task does is in ``worker`` and
``aggregate``.
"""

from __future__ import annotations

import contextlib
import enum
import logging
from collections import Counter
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

from dagster_l2.base.files import write_json
from dagster_l2.base.telemetry import merged_series, sums
from dagster_l2.batch.jobs.aggregate import damaged_results, drop_merged_results
from dagster_l2.batch.jobs.folders import JobFolders, JobManifest, JobOrder, RetryManifest
from dagster_l2.batch.jobs.items import Items
from dagster_l2.batch.jobs.model import (
    FINAL_GROUP,
    Batch,
    LeftWindow,
    Phase,
    Role,
    Status,
    Task,
    retry_group,
)
from dagster_l2.batch.jobs.tasks import JobState, TaskStore
from dagster_l2.batch.source import FailureClass

_LOG = logging.getLogger(__name__)
_MAX_AGGREGATIONS = 5


class Standing(enum.Enum):
    """What there is to do for who asked: look again, wait for others, nothing any more."""

    MOVED = "moved"
    WAITING = "waiting"
    ENDED = "ended"


def advance(order: JobOrder, store: TaskStore) -> Standing:
    """Start the next phase if the present one is over."""
    job = store.job(order.job_id)
    if job.status is not Status.RUNNING:
        return Standing.ENDED
    if store.has_open(order.job_id):
        return Standing.WAITING
    tasks = store.tasks(order.job_id)
    if job.phase is Phase.AGGREGATION:
        _after_aggregation(order, store, job, tasks)
    elif not _plan_retry(order, store, job, tasks):
        if Phase.AGGREGATION in order.definition.phases:
            _start_aggregation(order, store, job, tasks)
        else:
            _end(order, store, job, tasks, is_merged=True)
    return Standing.MOVED


def unsolved(tasks: Sequence[Task]) -> list[tuple[Task, LeftWindow]]:
    """The windows that no task has brought home, each with the last task that tried."""
    taken_up = {(task.previous_task_id, window) for task in tasks for window in task.windows}
    return [
        (task, left) for task in tasks for left in task.left if (task.task_id, left.window) not in taken_up
    ]


def plan_retry(
    order: JobOrder,
    store: TaskStore,
    job: JobState,
    tasks: Sequence[Task],
    classes: set[FailureClass],
    *,
    wait_s: float,
    until: datetime,
) -> bool:
    """Start the failed windows of these classes again, as the next retry; False when there are none."""
    wanted: dict[str, tuple[Task, list[LeftWindow]]] = {}
    for task, left in unsolved(tasks):
        if left.failure_class in classes and task.batch_id is not None:
            wanted.setdefault(task.task_id, (task, []))[1].append(left)
    if not wanted:
        return False
    number = job.retry_round + 1
    first_seq = max(task.seq for task in tasks) + 1
    fresh = _retry_tasks(order, list(wanted.values()), number=number, first_seq=first_seq, wait_s=wait_s)
    manifest = _write_retry_manifest(order, list(wanted.values()), fresh, number=number)
    is_ours = store.move(
        job, phase=Phase.RETRY, status=Status.RUNNING, retry_round=number, retry_until=until, tasks=fresh
    )
    if is_ours:
        _LOG.info(
            "Retry %d planned: %d tasks, in %.0f s at the earliest.",
            number,
            len(fresh),
            wait_s,
            extra={"job_id": job.job_id, "error_types": dict(manifest.error_types)},
        )
    return True


def _retry_tasks(
    order: JobOrder,
    failed: Sequence[tuple[Task, list[LeftWindow]]],
    *,
    number: int,
    first_seq: int,
    wait_s: float,
) -> list[Task]:
    """A task for each that failed, over the windows that it left; writes their batches."""
    batches = [
        Batch(f"{str(task.batch_id).partition('-r')[0]}-r{number}", tuple(left.window for left in lefts))
        for task, lefts in failed
    ]
    JobFolders.of(order).write_batches(order, batches)
    return [
        Task(
            task_id=f"{order.job_id}-{seq:05d}",
            job_id=order.job_id,
            role=Role.RETRY,
            phase=Phase.RETRY,
            group=retry_group(number),
            seq=seq,
            batch_id=batch.batch_id,
            retries=number,
            previous_task_id=task.task_id,
            wait_s=wait_s,
            windows=batch.windows,
        )
        for seq, (batch, (task, _lefts)) in enumerate(zip(batches, failed, strict=True), start=first_seq)
    ]


def _write_retry_manifest(
    order: JobOrder, failed: Sequence[tuple[Task, list[LeftWindow]]], fresh: Sequence[Task], *, number: int
) -> RetryManifest:
    folders, retry_id = JobFolders.of(order), f"retry-{number}"
    errors = Counter(left.error_type or "unknown" for _task, lefts in failed for left in lefts)
    manifest = RetryManifest(
        retry_id=retry_id,
        parent_job_id=order.job_id,
        failed_tasks=[task.task_id for task, _lefts in failed],
        error_types=dict(errors),
        retries_launched=[task.task_id for task in fresh],
        submitted_at=datetime.now(UTC).isoformat(),
    )
    folders.write(folders.retry_manifest(retry_id), manifest)
    return manifest


def _plan_retry(order: JobOrder, store: TaskStore, job: JobState, tasks: Sequence[Task]) -> bool:
    rules = order.definition.retries
    if Phase.RETRY not in order.definition.phases:
        return False
    now, wait_s = datetime.now(UTC), rules.wait_s(job.retry_round + 1)
    until = job.retry_until or now + timedelta(seconds=rules.budget_s)
    if now + timedelta(seconds=wait_s) >= until:
        return False
    return plan_retry(order, store, job, tasks, {FailureClass.PASSING}, wait_s=wait_s, until=until)


def _start_aggregation(order: JobOrder, store: TaskStore, job: JobState, tasks: Sequence[Task]) -> None:
    seq = max(task.seq for task in tasks) + 1
    task = Task(
        task_id=f"{order.job_id}-{seq:05d}",
        job_id=order.job_id,
        role=Role.AGGREGATOR,
        phase=Phase.AGGREGATION,
        group=FINAL_GROUP,
        seq=seq,
    )
    store.move(job, phase=Phase.AGGREGATION, tasks=[task])


def _after_aggregation(order: JobOrder, store: TaskStore, job: JobState, tasks: Sequence[Task]) -> None:
    aggregations = [task for task in tasks if task.role is Role.AGGREGATOR]
    if aggregations[-1].status is Status.SUCCESS:
        _end(order, store, job, tasks, is_merged=True)
        return
    damaged = damaged_results(order, tasks)
    if damaged and len(aggregations) < _MAX_AGGREGATIONS:
        store.move(job, phase=Phase.INITIAL, reset=[task.task_id for task in damaged])
    else:
        _end(order, store, job, tasks, is_merged=False)


def _end(order: JobOrder, store: TaskStore, job: JobState, tasks: Sequence[Task], *, is_merged: bool) -> None:
    """The last word on a job: for people first, in the state database last."""
    status = Status.FAILED if unsolved(tasks) or not is_merged else Status.SUCCESS
    folders = JobFolders.of(order)
    summary = job_summary(order, tasks, Items(store.engine), status)
    write_json(folders.summary, summary)
    write_job_manifest(order, status, task_count=len(tasks))
    if status is Status.SUCCESS and Phase.AGGREGATION in order.definition.phases:
        # Before the job ends, so that who goes on after a death here removes the rest. A job with failures
        # may be retried, and is then merged anew.
        drop_merged_results(order, tasks)
    with contextlib.suppress(OSError):
        folders.scratch.rmdir()  # unless something is kept for another try
    if store.move(job, status=status):
        _LOG.log(
            logging.INFO if status is Status.SUCCESS else logging.WARNING,
            "Job ended: %d records in %.1f s, %d windows left.",
            summary["totals"].get("records", 0),
            summary["seconds"],
            len(summary["windows_left"]),
            extra={"job_id": order.job_id, "status": str(status)},
        )


def job_summary(order: JobOrder, tasks: Sequence[Task], items: Items, status: Status) -> dict[str, Any]:
    """Counts, rates, and failures by class, for people to look at."""
    workers = [task for task in tasks if task.batch_id is not None]
    totals = sums([task.metrics for task in workers])
    totals.pop("windows", None)  # a retry takes up the same ones
    open_items = [item for item in items.of_job(order.job_id) if item.status != "DONE"]
    started = datetime.fromisoformat(order.submitted_at)
    seconds = max(1e-9, (datetime.now(UTC) - started).total_seconds())
    return {
        "job_id": order.job_id,
        "status": status,
        "seconds": round(seconds, 3),
        "records_per_s": round(totals.get("records", 0) / seconds, 3),
        "tasks": Counter(f"{task.group} {task.status}" for task in tasks),
        "totals": totals,
        "over_time": merged_series([task.metrics.get("over_time", {}) for task in workers]),
        "failures_by_class": Counter(str(item.failure_class) for item in open_items),
        "windows_left": [
            {**left.to_json(), "task_id": task.task_id, "error": task.error} for task, left in unsolved(tasks)
        ],
        "written_at": datetime.now(UTC).isoformat(),
    }


def write_job_manifest(order: JobOrder, status: Status | None, *, task_count: int) -> None:
    """Write what the job is, and how it stands; the arrays that were noted stay."""
    folders = JobFolders.of(order)
    manifest = JobManifest(
        job_id=order.job_id,
        job_type=order.definition.name,
        handler=order.definition.handler,
        git_commit=order.git_commit,
        config_file=order.config_file,
        input_file=None,
        batch_size=order.definition.batch_size,
        task_count=task_count,
        cluster_array_id=folders.arrays(),
        submitted_at=order.submitted_at,
        submitted_by=order.submitted_by,
        phases=[str(phase) for phase in order.definition.phases],
        status=status,
    )
    folders.write(folders.manifest, manifest)
