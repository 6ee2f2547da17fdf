"""The aggregator: every result checked by marker, size and hash, then merged into one file.

How files are merged is in ``merge``; when it is time is decided in ``phases``.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path

from dagster_l2.base.files import sha256, step, write_json
from dagster_l2.batch.commit import commit_rows
from dagster_l2.batch.jobs.chunks import order_of
from dagster_l2.batch.jobs.folders import (
    AggregationManifest,
    JobFolders,
    JobOrder,
    TaskManifest,
    read_aggregation,
    read_order,
    read_windows,
)
from dagster_l2.batch.jobs.model import JobError, Phase, Status, Stopped, Task
from dagster_l2.batch.merge import merge_files
from dagster_l2.batch.source import Source
from dagster_l2.lake import is_intact, read_manifest

_LOG = logging.getLogger(__name__)


class ResultsDamaged(JobError):
    """Results that should be there are not, or are not what their markers say."""


def output_path(order: JobOrder) -> Path:
    """The file that a job's rows end in."""
    return Path(order.output_folder) / f"{order.job_id}.parquet"


def damaged_results(order: JobOrder, tasks: Sequence[Task]) -> list[Task]:
    """The tasks whose results do not count any more."""
    folders = JobFolders.of(order)
    return [task for task in tasks if task.has_output and not is_intact(folders.results(task.task_id))]


def aggregate(
    order: JobOrder, source: Source, tasks: Sequence[Task], check: Callable[[], object] = bool
) -> AggregationManifest:
    """Merge the results of a job into its output, and write the aggregation manifest.

    ``check`` is called now and then; what it raises ends the work.

    Raises
    ------
    ResultsDamaged
        When the results of a task are not there as its marker says.
    """
    folders = JobFolders.of(order)
    with_output = [task for task in tasks if task.has_output]
    damaged = damaged_results(order, with_output)
    if damaged:
        names = ", ".join(task.task_id for task in damaged[:3])
        raise ResultsDamaged(
            f"The results of {len(damaged)} tasks are damaged ({names}); they are made anew."
        )
    files = [folders.results(task.task_id) for task in _in_order(folders, with_output)]
    counts: dict[str, int] = {}
    for task in with_output:
        manifest = read_manifest(folders.results(task.task_id))
        counts[task.batch_id or task.task_id] = manifest.row_count if manifest else 0
    output, rows, removed = output_path(order), 0, 0

    def fill(temporary: Path) -> int:
        nonlocal rows, removed
        merged = merge_files(
            files,
            temporary,
            order=order_of(source),
            schema=source.schema,
            scratch=output.parent,
            fan_in=order.definition.fan_in,
            check=check,
        )
        rows, removed = merged.rows, merged.duplicates_removed
        return rows

    if any(counts.values()):
        output.parent.mkdir(parents=True, exist_ok=True)
        commit_rows(output, fill, source.schema, job_id=order.job_id, batch_id="all")
    done = AggregationManifest(
        job_id=order.job_id,
        phase=Phase.AGGREGATION,
        input_files=[folders.relative(path) for path in files],
        output_file=folders.named(output) if rows else None,
        total_rows=rows,
        duplicates_removed=removed,
        output_hash=sha256(output) if rows else None,
        row_counts_by_batch=dict(sorted(counts.items())),
        written_at=datetime.now(UTC).isoformat(),
    )
    folders.write(folders.aggregation, done)
    return done


def drop_merged_results(order: JobOrder, tasks: Sequence[Task]) -> None:
    """Remove the rows of tasks that the output holds, too, so that they lie on the disk once.

    Nothing is removed where the output is not what the aggregation manifest says.
    """
    folders = JobFolders.of(order)
    manifest = read_aggregation(folders.aggregation)
    if manifest is None or manifest.output_file is None:
        return
    output = folders.found(manifest.output_file)
    if not is_intact(output) or sha256(output) != manifest.output_hash:
        return
    merged = set(manifest.input_files)
    for task in tasks:
        results = folders.results(task.task_id)
        if task.has_output and folders.relative(results) in merged and results.exists():
            step(f"remove {results.name}")
            results.unlink(missing_ok=True)


class Published:
    """Whether the rows of tasks are where a reader finds them; what it read of a job it keeps in mind.

    That is the output of the job, as its aggregation manifest says: the task's own results may be gone by
    then. For a job without aggregation it is the task's own results.

    Parameters
    ----------
    jobs_root, scratch_root
        See `JobFolders`.
    """

    def __init__(self, jobs_root: Path, scratch_root: Path) -> None:
        self._jobs_root, self._scratch_root = jobs_root, scratch_root
        self._jobs: dict[str, tuple[frozenset[str], bool] | None] = {}

    def __call__(self, artifact: str) -> bool:
        """Ask for one; the name is what the log of attempts holds: a path below the folder of all jobs."""
        parts = Path(artifact).parts
        if len(parts) < 3 or Path(artifact).is_absolute() or ".." in parts:
            return False
        folders = JobFolders(self._jobs_root, self._scratch_root, parts[0])
        if parts[0] not in self._jobs:
            self._jobs[parts[0]] = self._merged(folders)
        merged = self._jobs[parts[0]]
        if merged is not None:
            return merged[1] and artifact in merged[0]
        try:
            order = read_order(self._jobs_root, parts[0])
        except JobError:
            return False
        return Phase.AGGREGATION not in order.definition.phases and is_intact(self._jobs_root / artifact)

    @staticmethod
    def _merged(folders: JobFolders) -> tuple[frozenset[str], bool] | None:
        """What was merged, and whether the output is whole; None where nothing was."""
        is_whole, manifest = is_merged_whole(folders), read_aggregation(folders.aggregation)
        return None if is_whole is None or manifest is None else (frozenset(manifest.input_files), is_whole)


def is_merged_whole(folders: JobFolders) -> bool | None:
    """Whether the output of a job is there as it was written; None where nothing was merged."""
    manifest = read_aggregation(folders.aggregation)
    if manifest is None:
        return None
    return manifest.output_file is None or is_intact(folders.found(manifest.output_file))


def run_aggregator(
    order: JobOrder, source: Source, task: Task, tasks: Sequence[Task], check: Callable[[], object] = bool
) -> None:
    """Do the aggregator's task, with its manifest when it starts and when it ends; see `aggregate`."""
    folders = JobFolders.of(order)
    started = datetime.now(UTC).isoformat()
    path = folders.task_manifest(task.task_id)

    def note(status: Status, *, output: str | None = None, error: str | None = None, rows: int = 0) -> None:
        manifest = TaskManifest(
            job_id=task.job_id,
            task_id=task.task_id,
            batch_id=None,
            role=task.role,
            phase=task.phase,
            group=task.group,
            input=folders.relative(folders.root / "tasks"),
            output_file=output,
            status=status,
            start_time=started,
            end_time=None if status is Status.RUNNING else datetime.now(UTC).isoformat(),
            metrics={"rows": rows},
            error=error,
        )
        write_json(path, asdict(manifest))

    note(Status.RUNNING)
    try:
        done = aggregate(order, source, tasks, check)
    except Stopped:
        raise
    except JobError as error:
        note(Status.FAILED, error=str(error))
        raise
    note(Status.SUCCESS, output=done.output_file, rows=done.total_rows)
    _LOG.info(
        "Merge done: %d rows of %d files, %d duplicates removed.",
        done.total_rows,
        len(done.input_files),
        done.duplicates_removed,
    )


def _in_order(folders: JobFolders, tasks: Sequence[Task]) -> list[Task]:
    """By the windows that they cover, so that it does not matter which task was done when."""

    def key(task: Task) -> tuple[object, ...]:
        left = {window.window for window in task.left}
        windows = read_windows(folders.batch(str(task.batch_id)))
        return (min(window for window in windows if window not in left), task.batch_id)

    return sorted(tasks, key=key)
