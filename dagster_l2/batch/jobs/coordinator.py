"""The coordinator: plan a run, split it into batches, have them worked on to the end, say what came of it.

Several processes may run the same job: they join one, and whoever is last starts the next phase.
"""

from __future__ import annotations

import copy
import gc
import hashlib
import json
import logging
import threading
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import sqlalchemy as sa

from dagster_l2.base.errors import L2Error
from dagster_l2.batch.attempts import latest_attempts, unit_id
from dagster_l2.batch.decide import Action, LastAttempt, Planned, decide, limited
from dagster_l2.batch.jobs.aggregate import Published, output_path
from dagster_l2.batch.jobs.chunks import order_of
from dagster_l2.batch.jobs.definition import ExecutorRules, JobDefinition
from dagster_l2.batch.jobs.executors import check_crew, open_crew
from dagster_l2.batch.jobs.folders import JobFolders, JobOrder, read_order, read_windows
from dagster_l2.batch.jobs.items import Items
from dagster_l2.batch.jobs.model import (
    JobError,
    Status,
    Stopped,
    Task,
    new_job_id,
)
from dagster_l2.batch.jobs.phases import Standing, plan_retry, unsolved, write_job_manifest
from dagster_l2.batch.jobs.request import JobRequest
from dagster_l2.batch.jobs.runner import Runner, close_source, load_source, without_password
from dagster_l2.batch.jobs.start import start_job, user_name
from dagster_l2.batch.jobs.summary import RunSummary, summarize
from dagster_l2.batch.jobs.tasks import JobState, TaskStore
from dagster_l2.batch.source import FailureClass, Source
from dagster_l2.batch.windows import Window

Progress = Callable[[int, int, int], None]
_POLL_S = 0.1
_LOG = logging.getLogger(__name__)


class Jobs:
    """Runs jobs, and resumes and retries those that were run before.

    Parameters
    ----------
    engine, database_url, database_schema
        The state database; the address is for workers in processes of their own, and its password is
        written nowhere.
    executor
        Executor rules that count for more than those of a job.
    jobs_root, scratch_root, output_folder
        Folders of the manifests and results, of what tasks keep for themselves, of the merged files.
    stop
        Set to interrupt; everything ends within two seconds and keeps what is finished.
    progress
        Told tasks ended, tasks in all, and records so far.
    on_start
        Told the id of a job when the work on it begins.
    """

    def __init__(
        self,
        engine: sa.Engine,
        *,
        database_url: str,
        jobs_root: Path,
        scratch_root: Path,
        output_folder: Path,
        database_schema: str | None = None,
        executor: Mapping[str, Any] | None = None,
        stop: threading.Event | None = None,
        progress: Progress | None = None,
        on_start: Callable[[str], None] | None = None,
    ) -> None:
        self._engine, self._url, self._schema = engine, database_url, database_schema
        self._jobs_root, self._scratch_root = jobs_root.absolute(), scratch_root.absolute()
        self._output_folder = output_folder.absolute()
        self._executor = dict(executor or {})
        self._stop = stop or threading.Event()
        self._progress, self._on_start = progress, on_start
        self._open: Source | None = None
        self._on_end: Callable[[Task], None] | None = None
        self.store = TaskStore(engine)
        self.items = Items(engine)

    def over(self, source: Source, *, on_end: Callable[[Task], None] | None = None) -> Jobs:
        """The same over a source that is open already, for work in this process.

        Parameters
        ----------
        on_end
            Told each task of a batch that ended in this process, in the thread that did it.
        """
        other = copy.copy(self)
        other._open, other._on_end = source, on_end
        return other

    def folders(self, job_id: str) -> JobFolders:
        """Where the files of a job lie."""
        return JobFolders(self._jobs_root, self._scratch_root, job_id)

    def order(self, job_id: str) -> JobOrder:
        """What a job was to do.

        Raises
        ------
        JobError
            When its folder is not there.
        """
        return read_order(self._jobs_root, job_id)

    def left(self, job_id: str) -> list[tuple[Window, str]]:
        """The windows that a job did not bring home, each with the reason."""
        found = unsolved(self.store.tasks(job_id))
        return [(left.window, task.error or "It failed.") for task, left in found]

    def abandon(self, job_id: str) -> None:
        """End a job that nobody will go on with."""
        job = self.store.job(job_id)
        if job.status is not Status.RUNNING:
            return
        if self.folders(job_id).batches.is_dir():
            write_job_manifest(self.order(job_id), Status.FAILED, task_count=self.store.count(job_id))
        self.store.move(job, status=Status.FAILED)

    # -- what a person asks for ---------------------------------------------------------------------------

    def plan(self, request: JobRequest) -> Planned:
        """What a run would do. It writes nothing and asks the source for no records."""
        source = self._source(request)
        try:
            return self._plan(request, source)
        finally:
            close_source(source)

    def found(self, request: JobRequest) -> dict[Window, LastAttempt]:
        """The newest attempt at each window of a request that has one."""
        source = self._source(request)
        try:
            units = self._units(request, source)
        finally:
            close_source(source)
        latest = latest_attempts(self._engine, list(units.values()))
        return {window: latest[unit] for window, unit in units.items() if unit in latest}

    def run(self, request: JobRequest) -> RunSummary:
        """Run a job to its end, or join the same one that is running or was interrupted.

        Raises
        ------
        Stopped
            When interrupted; the next run goes on from there.
        OSError
            When the disk refuses; likewise.
        """
        source = self._source(request)
        try:
            joined = self._running(self._identity(request, source))
            if joined is not None:
                self.folders(joined).remove_leftovers()
                self._work(self._order(joined), source)
            # Who went on with a job that was to do less, or planned otherwise, has the rest before him.
            rest = request if joined is None else self._without(request, self._windows(joined))
            started = self._start(rest, source, self._identity(rest, source))
            if started is not None:
                self._work(self._order(started), source)
            return self._summary(request, source, [job_id for job_id in (joined, started) if job_id])
        finally:
            close_source(source)

    def resume(self, job_id: str) -> JobState:
        """Bring an interrupted job to its end; one that has ended is left as it is."""
        self.store.job(job_id)
        order = self._order(job_id)
        self.folders(job_id).remove_leftovers()
        source = self._open or load_source(order.definition.handler, order.source_params)
        try:
            self._work(order, source)
        finally:
            close_source(source)
        return self.store.job(job_id)

    def retry(self, job_id: str, classes: set[FailureClass]) -> JobState:
        """Try the failed windows of an ended job again, and merge anew; what is gone stays gone.

        Raises
        ------
        JobError
            When the job still runs, or nothing in it failed in such a way.
        """
        job, order = self.store.job(job_id), self._order(job_id)
        if job.status is Status.RUNNING:
            raise JobError(f"Job {job_id} has not ended; resume it or wait for it to end.")
        wanted = classes - {FailureClass.GONE}
        self.items.reopen(job_id, wanted)
        budget = timedelta(seconds=order.definition.retries.budget_s)
        try:
            is_planned = plan_retry(
                order,
                self.store,
                job,
                self.store.tasks(job_id),
                wanted,
                wait_s=0.0,
                until=datetime.now(UTC) + budget,
            )
        except sa.exc.IntegrityError:
            raise JobError(f"The same work as job {job_id} is running; wait for it to end.") from None
        if not is_planned:
            named = ", ".join(sorted(classes)) or "no class"
            raise JobError(f"Nothing in job {job_id} failed as {named}; look at its summary.")
        return self.resume(job_id)

    # -- starting -----------------------------------------------------------------------------------------

    def _source(self, request: JobRequest) -> Source:
        check_crew(self._rules(request.definition), self._url)
        source = self._open or load_source(request.definition.handler, request.source_params)
        if source.name != request.definition.source:
            raise JobError(
                f"The handler {request.definition.handler} makes the source {source.name}, not"
                f" {request.definition.source}; correct the job's definition."
            )
        order_of(source)
        return source

    @staticmethod
    def _inputs(request: JobRequest, source: Source) -> dict[str, Any]:
        sweep = {} if request.sweep_id is None else {"sweep": request.sweep_id}
        return {"format": request.format, "schema_version": source.schema_version, **sweep}

    def _units(self, request: JobRequest, source: Source) -> dict[Window, str]:
        query = {**source.query, **self._inputs(request, source)}
        return {window: unit_id(source.name, query, window) for window in request.windows}

    def _identity(self, request: JobRequest, source: Source) -> str:
        units = list(self._units(request, source).values())
        place = [request.definition.name, str(self._jobs_root), str(self._output_folder)]
        return hashlib.sha256(json.dumps([*place, *units]).encode()).hexdigest()[:32]

    def _plan(self, request: JobRequest, source: Source) -> Planned:
        units = self._units(request, source)
        latest = latest_attempts(self._engine, list(units.values()))
        is_whole = Published(self._jobs_root, self._scratch_root)

        def action(window: Window) -> Action:
            last = latest.get(units[window])
            artifact = last.artifact if last else None
            could_change = request.sweep_id is None and source.can_change(
                window, (last and last.started_at) or datetime.now(UTC)
            )
            return decide(
                last,
                is_artifact_intact=artifact is not None and is_whole(artifact),
                could_change=could_change,
                wishes=request.wishes,
            )

        return limited(((window, action(window)) for window in request.windows), request.wishes.limit)

    def _running(self, identity: str) -> str | None:
        job_id = self.store.running(identity)
        if job_id is None:
            return None
        try:
            self._windows(job_id)
        except L2Error as error:
            # Nobody can go on with a job whose batches were removed or can't be read; it must not stand in
            # the way for ever.
            _LOG.warning("Job %s is given up, and its work begun anew: %s", job_id, error)
            self.store.move(self.store.job(job_id), status=Status.FAILED)
            return None
        return job_id

    def _start(self, request: JobRequest, source: Source, identity: str) -> str | None:
        """Make the job; None when nothing is to be done."""
        windows = self._plan(request, source).of(Action.RUN)
        if not windows:
            return None
        definition = request.definition
        order = JobOrder(
            job_id=request.job_id or new_job_id(definition.name),
            definition=definition,
            source_params=dict(request.source_params),
            inputs=self._inputs(request, source),
            run_id=request.run_id,
            submitted_at=datetime.now(UTC).isoformat(),
            submitted_by=user_name(),
            git_commit=request.git_commit,
            config_file=request.config_file,
            jobs_root=str(self._jobs_root),
            scratch_root=str(self._scratch_root),
            output_folder=str(self._output_folder),
            database_url=without_password(self._url),
            database_schema=self._schema,
        )
        return start_job(order, self.store, identity, windows)

    def _order(self, job_id: str) -> JobOrder:
        return read_order(self._jobs_root, job_id)

    # -- working ------------------------------------------------------------------------------------------

    def _work(self, order: JobOrder, source: Source) -> None:
        halted = threading.Event()
        stop = lambda: self._stop.is_set() or halted.is_set()  # noqa: E731
        runner = Runner(order, source, self._engine, stop=stop, on_end=self._on_end)
        if self.store.job(order.job_id).status is not Status.RUNNING:
            return
        if self._on_start:
            self._on_start(order.job_id)
        self.store.free_the_dead(order.job_id)
        write_job_manifest(order, Status.RUNNING, task_count=self.store.count(order.job_id))
        watch = threading.Thread(target=self._watch, args=(order.job_id, halted), daemon=True)
        if self._progress:
            watch.start()
        # What was imported stays: looking through it for garbage holds all requests up for a tenth of a
        # second, and those of the next window then come too soon after them.
        gc.freeze()
        try:
            with open_crew(self._rules(order.definition), order, self._url) as crew:
                while (standing := runner.advance()) is not Standing.ENDED:
                    if self._stop.is_set():
                        raise Stopped
                    if standing is Standing.WAITING:
                        crew.work(runner, stop=stop, halt=halted.set)
                        self._pause(order.job_id)
        finally:
            gc.unfreeze()
            halted.set()
            if self._progress:
                watch.join()
                self._tell(order.job_id)

    def _rules(self, definition: JobDefinition) -> ExecutorRules:
        return ExecutorRules.model_validate(definition.executor.model_dump() | self._executor)

    def _pause(self, job_id: str) -> None:
        """Wait while all that is left is another's, or waits for its time."""
        if self.store.has_open(job_id) and not self.store.has_claimable(job_id):
            self._stop.wait(_POLL_S)
            self.store.free_the_dead(job_id)

    def _watch(self, job_id: str, halted: threading.Event) -> None:
        while not halted.wait(1.0):
            self._tell(job_id)

    def _tell(self, job_id: str) -> None:
        if self._progress:
            self._progress(*self.store.progress(job_id))

    # -- the outcome --------------------------------------------------------------------------------------

    def _windows(self, job_id: str) -> set[Window]:
        paths = sorted(JobFolders.of(self._order(job_id)).batches.glob("*.json"))
        return {window for path in paths for window in read_windows(path)}

    @staticmethod
    def _without(request: JobRequest, windows: set[Window]) -> JobRequest:
        """The same of the other windows."""
        limit = request.wishes.limit
        left = limit if limit is None else max(0, limit - len(windows))
        others = [window for window in request.windows if window not in windows]
        return replace(request, windows=others, wishes=replace(request.wishes, limit=left))

    def _summary(self, request: JobRequest, source: Source, job_ids: Sequence[str]) -> RunSummary:
        units = self._units(request, source)
        run = {window for job_id in job_ids for window in self._windows(job_id)} & set(request.windows)
        outputs = [output_path(self._order(job_id)) for job_id in job_ids]
        rest = self._without(request, run)
        rest = replace(rest, wishes=replace(rest.wishes, limit=None))
        skipped = Counter(action for _window, action in self._plan(rest, source).actions)
        # Its own attempts: another job may be at one of the windows, and that is no failure of this run.
        latest = latest_attempts(self._engine, [units[window] for window in run], jobs=job_ids)
        return summarize(
            run_id=request.run_id,
            job_id=job_ids[-1] if job_ids else None,
            statuses=[latest[units[w]].status if units.get(w) in latest else None for w in sorted(run)],
            skipped=skipped,
            output=next((output for output in reversed(outputs) if output.exists()), None),
        )
