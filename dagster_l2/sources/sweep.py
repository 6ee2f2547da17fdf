"""One scan of the metadata store: the whole of it as a job in windows, or what is new by its dates.

A scan that was killed is gone on with for an hour; after that the store is read anew. What is found goes to
bronze through ``findings``.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import polars as pl
from sqlalchemy import Engine

from dagster_l2.base.errors import L2Error, WrongUse
from dagster_l2.base.files import only_one, remove_leftovers, write_json
from dagster_l2.batch import (
    JobDefinition,
    JobError,
    JobRequest,
    Jobs,
    JobState,
    Status,
    Stopped,
    Task,
    batch_jobs,
    new_job_id,
    read_attempts,
    read_notes,
)
from dagster_l2.lake import is_intact
from dagster_l2.sources.bronze import ScanTables
from dagster_l2.sources.findings import Findings, ScanFailed, ScanReport
from dagster_l2.sources.metadata_store import MetadataStore, parse_batch
from dagster_l2.store import (
    DATASETS,
    EXPERIMENTS,
    PROCESSING_CANDIDATES,
    Rejected,
    StoreClient,
)

RESUME_WITHIN = timedelta(hours=1)
"""How old a scan may be that is gone on with; what an older one read may be out of date."""

RECENT_SLACK = timedelta(hours=1)
"""How far before the last scan a look at what is new begins: clocks differ, and records arrive late."""

_EXPORT_WAIT_S = 60.0
_TASKS = 8
_END = "sweep.json"


class Sweep:
    """One scan.

    Parameters
    ----------
    client
        The store.
    lake
        Folder of the lake.
    jobs
        What runs the windows.
    definition
        The template of the job; it is cut into smaller batches where there are few windows.
    query
        How the store is named in the log of attempts and in the job; no secrets.
    run_id, git_commit
        Stamped on attempts and job.
    window_records, workers
        Size of a window in records, and windows in flight.
    accept_missing
        Mark the missing ones even when more than a tenth went at once.
    progress
        Told windows done, windows planned, records so far.
    """

    def __init__(
        self,
        client: StoreClient,
        lake: Path,
        jobs: Jobs,
        definition: JobDefinition,
        *,
        query: Mapping[str, Any] | None = None,
        run_id: str | None = None,
        git_commit: str | None = None,
        window_records: int = 3000,
        workers: int = 4,
        accept_missing: bool = False,
        progress: Callable[[int, int, int], None] | None = None,
    ) -> None:
        self._client, self._lake, self._definition = client, lake, definition
        self._query = dict(query or {})
        self._run_id, self._git_commit = run_id, git_commit
        self._window_records, self._workers = window_records, workers
        self._accept_missing = accept_missing
        self._progress = progress
        now = datetime.now(UTC)
        self.report = ScanReport(new_job_id("scan"), now.replace(tzinfo=None))
        self._source = MetadataStore(
            client,
            window_records=window_records,
            query=self._query,
            differs=self._differs,
            stamp=lambda: (self.report.scanned_at, self.report.job_id),
        )
        self._jobs = jobs.over(self._source, on_end=self._ended)
        self._lock = threading.Lock()
        self._taken: set[str] = set()
        self._received = self._windows = 0
        self._findings: Findings | None = None

    @property
    def findings(self) -> Findings:
        """Bronze during this scan; it is opened when it is first asked for."""
        with self._lock:
            if self._findings is None:
                self._findings = Findings(self._lake, self.report)
            return self._findings

    def run(self) -> ScanReport:
        """Scan everything, and return what was found.

        Raises
        ------
        ScanFailed
            When a window failed, when the windows hold fewer records than the store counts, or when more
            than a tenth of the known datasets went missing at once.
        StoreError
            When the store cannot be asked at all.
        """
        for table in ScanTables.under(self._lake).all():
            remove_leftovers(table.folder)
        unfinished = self._unfinished()
        if unfinished is None:
            self._start()
        else:
            self._resume(unfinished)
        try:
            try:
                self._finish()
            finally:
                self.findings.write_rejected()
        except Stopped:
            raise
        except L2Error as error:
            self._end(str(error))
            raise
        self._end(None)
        return self.report

    def recent(self) -> ScanReport:
        """Take what was created or updated since the last whole scan; nothing is marked missing.

        Raises
        ------
        WrongUse
            When there was no whole scan yet.
        """
        whole = next((job for job in self._known_jobs() if self._was_whole(job)), None)
        if whole is None:
            raise WrongUse("There was no whole scan yet; run l2 scan first.")
        batches = self._source.since(whole.submitted_at - RECENT_SLACK)
        frame = pl.concat([batch.frame.with_columns(batch.hashes) for batch in batches]).unique()
        rejected = {bad.content_hash: bad for batch in batches for bad in batch.rejected}
        self.report.total = len(frame) + len(rejected)
        self.findings.note(DATASETS.table, rejected.values())
        if len(frame):
            self.findings.take(frame.drop("content_hash"), frame["content_hash"], part="recent")
        self.findings.settle()
        self.findings.write_rejected()
        return self.report

    # -- the job ------------------------------------------------------------------------------------------

    def _start(self) -> None:
        windows = self._source.plan(datetime.now(UTC))
        report = self.report
        report.total, self._windows = self._source.total, len(windows)
        report.windows.planned = len(windows)
        if not windows:
            return
        rules = self._definition.executor
        workers = max(1, min(rules.workers, self._workers))
        executor = rules.model_copy(
            update={"workers": workers, "in_flight": max(1, self._workers // workers)}
        )
        size = max(1, min(self._definition.batch_size, -(-len(windows) // _TASKS)))
        request = JobRequest(
            definition=self._definition.model_copy(update={"batch_size": size, "executor": executor}),
            windows=windows,
            source_params={**self._query, **self._own_params()},
            sweep_id=report.job_id,
            job_id=report.job_id,
            run_id=self._run_id,
            git_commit=self._git_commit,
            config_file="jobs/metadata_store.yaml",
        )
        self._jobs.run(request)

    def _own_params(self) -> dict[str, Any]:
        return {
            "lake": str(self._lake),
            "job_id": self.report.job_id,
            "scanned_at": self.report.scanned_at.isoformat(),
            "total": self.report.total,
        }

    def _resume(self, job_id: str) -> None:
        params = self._jobs.order(job_id).source_params
        self.report.job_id = job_id
        self.report.scanned_at = datetime.fromisoformat(params["scanned_at"])
        self.report.total = params["total"]
        self._jobs.resume(job_id)

    def _unfinished(self) -> str | None:
        """The scan to go on with; older ones are ended."""
        found: str | None = None
        for number, job in enumerate(self._known_jobs()):
            is_young = datetime.now(UTC) - job.submitted_at < RESUME_WITHIN
            if number == 0 and is_young and job.status is not Status.FAILED and self._is_ours(job.job_id):
                found = job.job_id
            elif job.status is Status.RUNNING:
                self._jobs.abandon(job.job_id)
        return found

    def _is_ours(self, job_id: str) -> bool:
        """Whether a scan is of this store into this lake, and has not come to its end."""
        try:
            params = self._jobs.order(job_id).source_params
        except JobError:
            return False
        asked = {**self._query, "lake": str(self._lake)}
        is_same = all(params.get(name) == value for name, value in asked.items())
        # What an earlier version began lacks some, and its workers could not be told what they need.
        is_whole = set(self._own_params()) <= params.keys()
        return is_same and is_whole and not (self._jobs.folders(job_id).root / _END).exists()

    def _was_whole(self, job: JobState) -> bool:
        """Whether a scan read all windows and agreed with the store's count in the end."""
        root = self._jobs.folders(job.job_id).root
        if job.status is not Status.SUCCESS or not root.is_dir():
            return job.status is Status.SUCCESS  # its files have been cleaned away since
        try:
            return json.loads((root / _END).read_bytes())["error"] is None
        except (OSError, ValueError, KeyError):
            return False

    def _known_jobs(self) -> list[JobState]:
        return self._jobs.store.jobs(batch_jobs.c.name == self._definition.name)

    # -- what its tasks bring -----------------------------------------------------------------------------

    def _differs(self, keys: pl.Series, hashes: pl.Series) -> pl.Series:
        return self.findings.differs(keys, hashes)

    def _ended(self, task: Task) -> None:
        self._collect(task.task_id, str(task.batch_id), is_own=True)

    def _collect(self, task_id: str, batch_id: str, *, is_own: bool) -> None:
        """Take what a task brought into bronze, once; a task that was given back undone brought nothing."""
        folders = self._jobs.folders(self.report.job_id)
        with self._lock:
            if task_id in self._taken or not folders.notes(task_id).exists():
                return
            self._taken.add(task_id)
        results = folders.results(task_id)
        if is_intact(results):
            self.findings.take_file(results, part=batch_id)
        windows = self.report.windows
        for _window, notes in read_notes(folders.notes(task_id)):
            if not is_own:
                self.findings.saw(notes["unchanged"])
            self.findings.unchanged(len(notes["unchanged"]))
            self.findings.note(DATASETS.table, [Rejected(*bad) for bad in notes["rejected"]])
            with self._lock:
                self._received += notes["received"]
                windows.downloaded += notes["received"] > 0
                windows.skipped_no_data += notes["received"] == 0
        if self._progress:
            done = windows.downloaded + windows.skipped_no_data
            self._progress(done, max(self._windows, done), self._received)

    # -- the end ------------------------------------------------------------------------------------------

    def _finish(self) -> None:
        """Everything that needs all windows."""
        report, findings = self.report, self.findings
        for task in self._jobs.store.tasks(report.job_id):
            if task.batch_id is not None:
                self._collect(task.task_id, task.batch_id, is_own=False)
        windows = report.windows
        windows.failed = self._jobs.left(report.job_id)
        windows.planned = windows.downloaded + windows.skipped_no_data + len(windows.failed)
        self._check()
        findings.settle()
        tables = findings.tables
        for record_type, table, raw in (
            (EXPERIMENTS, tables.experiments, self._client.experiments),
            (PROCESSING_CANDIDATES, tables.processing_candidates, self._client.processing_candidates),
        ):
            changes = findings.whole(record_type, table, parse_batch(record_type, raw()))
            setattr(report, record_type.table, changes)
        findings.mark_missing(accept=self._accept_missing)

    def _check(self) -> None:
        report, failed = self.report, self.report.windows.failed
        if failed:
            window, reason = failed[0]
            raise ScanFailed(
                f"{len(failed)} of {report.windows.planned} windows could not be read,"
                f" first {window}: {reason} The others are kept; run the scan again."
            )
        if self._received < report.total:
            leftovers = self._source.leftovers()
            self.findings.note(DATASETS.table, leftovers)
            self._received += len(leftovers)
        if self._received < report.total:
            raise ScanFailed(
                f"The store counts {report.total} datasets and its windows hold {self._received};"
                " nothing was marked missing, run the scan again."
            )

    def _end(self, error: str | None) -> None:
        """Say that the scan came to its end, so that the next one reads the store anew."""
        root = self._jobs.folders(self.report.job_id).root
        if root.is_dir():
            counts = self.report.counts()
            write_json(root / _END, {"counts": counts, "total": self.report.total, "error": error})


def export_attempts(lake: Path, engine: Engine, *, job_id: str) -> int:
    """Write the attempts that bronze does not hold yet; returns how many."""
    table = ScanTables.under(lake).attempts
    # A scan and downloads may end at once, and each attempt is to be in bronze once.
    lock = lake.parent / "locks" / "attempts.lock"
    with only_one(lock, "Another export of attempts", wait_s=_EXPORT_WAIT_S):
        remove_leftovers(table.folder)
        table.ensure()
        known = set(table.scan().select("attempt_id").collect()["attempt_id"])
        frame = read_attempts(engine, but=known)
        table.append(frame, job_id=job_id, part="attempts")
    return len(frame)
