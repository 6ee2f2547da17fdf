"""The worker: one batch, from its windows to a committed file of rows.

Finished chunks stay in the scratch folder, so a rerun fetches only the rest. Which task is run, and what
follows it, is decided in ``phases`` and ``coordinator``.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

import sqlalchemy as sa
from sqlalchemy.exc import SQLAlchemyError

from dagster_l2.base.errors import one_sentence_of
from dagster_l2.base.telemetry import Tally, at_work_on, count, tallying
from dagster_l2.batch.attempts import Attempts, AttemptStatus, Ended, jobs_without_result
from dagster_l2.batch.jobs.chunks import ChunkStore
from dagster_l2.batch.jobs.folders import JobFolders, JobOrder, TaskManifest
from dagster_l2.batch.jobs.items import Item, Items
from dagster_l2.batch.jobs.lease import Lease
from dagster_l2.batch.jobs.model import Batch, JobError, LeftWindow, Phase, Role, Status, Stopped, Task
from dagster_l2.batch.jobs.results import HandedOver, hand_over
from dagster_l2.batch.jobs.tasks import TaskStore
from dagster_l2.batch.jobs.threads import in_threads
from dagster_l2.batch.jobs.work import WindowWork, batch_metrics, failure_class_of, stops_job
from dagster_l2.batch.source import Chunk, FailureClass, FetchedChunk, Source
from dagster_l2.batch.windows import Window
from dagster_l2.lake import LakeError

_LOG = logging.getLogger(__name__)


class LeaseLost(JobError):
    """Another worker has the task by now."""


class WorkerDied(JobError):
    """The workers of a task ended without a word, again and again."""


class BatchWorker:
    """Runs worker and retry tasks of one job, one after the other.

    Parameters
    ----------
    order
        The job.
    source
        What is fetched from.
    stop
        Says whether to stop.
    """

    def __init__(
        self, order: JobOrder, source: Source, engine: sa.Engine, *, stop: Callable[[], bool]
    ) -> None:
        self._order, self._source, self._stop = order, source, stop
        self._folders = JobFolders.of(order)
        self._rules = order.definition.executor
        self._engine = engine
        self._store = TaskStore(engine)
        self._items = Items(engine)
        inputs = {**source.query, **order.inputs}
        self._attempts = Attempts(engine, run_id=order.run_id, query=inputs)

    def run(self, task: Task, batch: Batch, holder: str) -> None:
        """Do a claimed task and end it.

        Raises
        ------
        Stopped
            When told to stop; the task is free again.
        OSError
            When the disk refuses; the task is free again.
        """
        started = datetime.now(UTC)
        try:
            with tallying() as tally, Lease(self._store, task.task_id, holder, self._rules.lease_s) as lease:
                self._manifest(task, batch, started, Status.RUNNING)
                deaths = task.claims - 1
                if deaths >= self._order.definition.retries.max_claims:
                    raise WorkerDied(
                        f"Its worker ended without a word {deaths} times; see what it asks for,"
                        " then retry the job."
                    )
                self._do(task, batch, holder, lease, started, tally)
        except LeaseLost:
            _LOG.warning("Task %s is another worker's by now.", task.task_id)
        except (Stopped, OSError, LakeError, SQLAlchemyError):
            self._store.release(task.task_id, holder)
            _LOG.info("Task given back undone.")
            raise
        except Exception as error:
            if stops_job(error):
                self._store.release(task.task_id, holder)
                raise
            # A defect fails its batch, not the job.
            self._give_up(task, batch, holder, started, error)
        except BaseException:
            self._store.release(task.task_id, holder)
            raise

    def _do(
        self, task: Task, batch: Batch, holder: str, lease: Lease, started: datetime, tally: Tally
    ) -> None:
        clock = time.monotonic()
        definition = self._order.definition
        chunks = ChunkStore(
            self._folders.task_scratch(task.task_id), self._source, is_kept=definition.keep_chunks
        )
        chunks.clean()
        works = self._begin(batch.windows)
        self._fetch(task, works, chunks, lease)
        if not lease.renew():
            raise LeaseLost(f"Task {task.task_id} is another worker's.")
        complete = [work for work in works if work.failure_class is None]
        left = [
            LeftWindow(work.window, kind, type(work.error).__name__)
            for work in works
            if (kind := work.failure_class) is not None
        ]
        done = HandedOver()
        if complete:
            done = hand_over(
                self._folders,
                self._source,
                task,
                batch,
                complete,
                may_be_none=Phase.AGGREGATION not in definition.phases,
                check=self._go_on,
            )
        self._log_attempts(works, self._folders.results(task.task_id), done)
        kind, error = _worst(works)
        status = Status.FAILED if left else Status.SUCCESS
        metrics = batch_metrics(works, tally)
        metrics |= {"rows": done.rows, "duplicates_removed": done.duplicates_removed}
        metrics |= {"seconds": time.monotonic() - clock}
        self._manifest(task, batch, started, status, has_output=done.has_rows, metrics=metrics, error=error)
        is_ours = self._store.finish(
            task.task_id,
            holder,
            status,
            has_output=done.has_rows,
            left=left,
            failure_class=kind,
            error=error,
            metrics=metrics,
        )
        if is_ours:
            chunks.forget([chunk for work in complete for chunk in work.stored.values()])
            _LOG.log(
                logging.WARNING if left else logging.INFO,
                "Task ended: %d of %d windows complete, %d records.",
                len(complete),
                len(works),
                metrics["records"],
                extra={"status": str(status), "failure_class": kind, "error": error},
            )

    def _begin(self, windows: Sequence[Window]) -> list[WindowWork]:
        attempts = self._attempts.start(self._order.job_id, self._source.name, windows)
        return [WindowWork(one.window, one, self._source.chunks(one.window)) for one in attempts]

    # -- fetching -----------------------------------------------------------------------------------------

    def _fetch(self, task: Task, works: Sequence[WindowWork], chunks: ChunkStore, lease: Lease) -> None:
        calls: list[tuple[tuple[WindowWork, Chunk | None], Callable[[], Any]]] = []
        known = self._items.of_units([work.attempt.unit_id for work in works])
        for work in works:
            calls.append(((work, None), partial(self._source.expected_records, work.window)))
            for chunk in self._sort_out(task, work, chunks, known[work.attempt.unit_id]):
                calls.append(((work, chunk), partial(self._ask, work.window, chunk)))
        is_over = lambda: self._stop() or lease.is_lost  # noqa: E731
        for (work, chunk), result in in_threads(calls, at_once=self._rules.in_flight, stop=is_over):
            if isinstance(result, FetchedChunk) and chunk is not None:
                self._keep(task, work, chunk, result, chunks)
            elif isinstance(result, Exception):
                if stops_job(result):
                    raise result
                self._note(task, work, chunk, result)
            else:
                work.expected = result
        if lease.is_lost:
            raise LeaseLost(f"Task {task.task_id} is another worker's.")
        if self._stop():
            raise Stopped
        self._items_done(works)

    def _ask(self, window: Window, chunk: Chunk) -> FetchedChunk:
        with at_work_on(window=window, chunk=chunk.chunk_id):
            return self._source.fetch(chunk)

    def _keep(
        self, task: Task, work: WindowWork, chunk: Chunk, fetched: FetchedChunk, chunks: ChunkStore
    ) -> None:
        try:
            work.stored[chunk] = chunks.put(work.attempt.unit_id, chunk, fetched)
            count("fetched_chunks")
            count("fetched_records", fetched.received)
        except (OSError, LakeError):
            raise
        except Exception as error:  # noqa: BLE001 - rows that are not what the source says they are
            self._note(task, work, chunk, error)

    def _sort_out(
        self, task: Task, work: WindowWork, chunks: ChunkStore, known: Mapping[str, Item]
    ) -> list[Chunk]:
        """The chunks that are still to be fetched; those finished before, or gone, are noted."""
        unit_id = work.attempt.unit_id
        earlier = self._earlier(unit_id) if self._order.definition.keep_chunks else []
        out = []
        for chunk in work.chunks:
            item = known.get(chunk.chunk_id)
            found = chunks.find(unit_id, chunk, earlier, partial(self._is_settled, work.window))
            if found is not None:
                work.stored[chunk] = found
                count("reused_chunks")
            elif item is not None and item.status == "GONE":
                work.gone.add(chunk)
            elif (
                item is not None
                and task.role is Role.RETRY
                and (item.status, item.failure_class) == ("FAILED", FailureClass.PERMANENT)
            ):
                work.failures.append((item.failure_class, JobError(item.error_message or "It failed.")))
            else:
                out.append(chunk)
        return out

    def _earlier(self, unit_id: str) -> list[Path]:
        """The scratch folders in which chunks of this window may lie."""
        jobs = jobs_without_result(self._engine, unit_id) | {self._order.job_id}
        root = self._folders.scratch.parent
        return sorted(folder for job in jobs for folder in _task_folders(root / f"job_{job}"))

    def _is_settled(self, window: Window, fetched_at: datetime) -> bool:
        return not self._source.can_change(window, fetched_at)

    def _note(self, task: Task, work: WindowWork, chunk: Chunk | None, error: Exception) -> None:
        kind = failure_class_of(error)
        if chunk is None and kind is FailureClass.GONE:
            kind = FailureClass.PERMANENT
        item_id = chunk.chunk_id if chunk else "expected"
        _LOG.warning(
            "%s of %s failed (%s): %s",
            item_id,
            work.window,
            kind,
            error,
            extra={
                "window": str(work.window),
                "failure_class": str(kind),
                "error_type": type(error).__name__,
            },
        )
        self._items.note(
            unit_id=work.attempt.unit_id,
            item_id=item_id,
            job_id=task.job_id,
            task_id=task.task_id,
            source=self._source.name,
            failure_class=kind,
            error=error,
        )
        if kind is FailureClass.GONE and chunk is not None:
            work.gone.add(chunk)
        else:
            work.failures.append((kind, error))

    def _items_done(self, works: Sequence[WindowWork]) -> None:
        known = self._items.of_units([work.attempt.unit_id for work in works])
        for work in works:
            failed = set(known[work.attempt.unit_id])
            done = failed & {chunk.chunk_id for chunk in work.stored}
            if work.expected is not None:
                done |= failed & {"expected"}
            if done:
                self._items.done(work.attempt.unit_id, sorted(done))

    # -- results ------------------------------------------------------------------------------------------

    def _go_on(self) -> None:
        if self._stop():
            raise Stopped

    def _log_attempts(self, works: Sequence[WindowWork], results: Path, done: HandedOver) -> None:
        ended = []
        for work in works:
            records, expected = work.received, work.expected_records()
            error: Exception | None = None
            status = AttemptStatus.DOWNLOADED if records else AttemptStatus.SKIPPED_NO_DATA
            if work.failure_class is not None:
                status, error = AttemptStatus.FAILED, work.error
                # What an error counted says more of the window than what could be kept of it.
                records = getattr(error, "records", None) or records
                expected = getattr(error, "expected_records", None) or expected
            is_there = status is AttemptStatus.DOWNLOADED and done.has_rows
            ended.append(
                Ended(
                    work.attempt,
                    status,
                    records=records,
                    expected_records=expected,
                    bytes=done.bytes if is_there else None,
                    artifact=self._folders.relative(results) if is_there else None,
                    error=error,
                )
            )
        self._attempts.finish(ended)

    def _give_up(self, task: Task, batch: Batch, holder: str, started: datetime, error: Exception) -> None:
        """Fail the batch as a whole, for good."""
        said = one_sentence_of(error)
        _LOG.error("Task %s is given up: %s", task.task_id, said, exc_info=error)
        attempts = self._attempts.start(task.job_id, self._source.name, batch.windows)
        self._attempts.finish([Ended(one, AttemptStatus.FAILED, error=error) for one in attempts])
        self._manifest(task, batch, started, Status.FAILED, error=said)
        self._store.finish(
            task.task_id,
            holder,
            Status.FAILED,
            left=[
                LeftWindow(window, FailureClass.PERMANENT, type(error).__name__) for window in batch.windows
            ],
            failure_class=FailureClass.PERMANENT,
            error=said,
        )

    def _manifest(
        self,
        task: Task,
        batch: Batch,
        started: datetime,
        status: Status,
        *,
        has_output: bool = False,
        metrics: Mapping[str, Any] | None = None,
        error: str | None = None,
    ) -> None:
        results = self._folders.results(task.task_id)
        manifest = TaskManifest(
            job_id=task.job_id,
            task_id=task.task_id,
            batch_id=batch.batch_id,
            role=task.role,
            phase=task.phase,
            group=task.group,
            input=self._folders.relative(self._folders.batch(batch.batch_id)),
            output_file=self._folders.relative(results) if has_output else None,
            status=status,
            start_time=started.isoformat(),
            end_time=None if status is Status.RUNNING else datetime.now(UTC).isoformat(),
            metrics=metrics or {},
            error=error,
        )
        self._folders.write(self._folders.task_manifest(task.task_id), manifest)


def _task_folders(folder: Path) -> list[Path]:
    try:
        return list(folder.glob("task_*"))
    except FileNotFoundError:  # its job ended, or its last chunk was taken over, in this very moment
        return []


def _worst(works: Sequence[WindowWork]) -> tuple[FailureClass | None, str | None]:
    """The failure that a task is known by: one that may pass before any other, as it is tried again."""
    failed = sorted(
        (work for work in works if work.failure_class is not None),
        key=lambda work: work.failure_class is not FailureClass.PASSING,
    )
    return (failed[0].failure_class, str(failed[0].error)) if failed else (None, None)
