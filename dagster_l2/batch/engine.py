"""Run the windows of a source: fetch each, hand it on, log every attempt; one failure stops no other.

What a source is and what its records mean is in ``sources``; how a file is committed is in ``lake``.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Generic, Protocol, TypeVar

from dagster_l2.batch.attempts import Attempt, Attempts, AttemptStatus
from dagster_l2.batch.windows import Window

FetchedT = TypeVar("FetchedT", bound="Fetched")


class Fetched(Protocol):
    """What a source hands over for one window."""

    @property
    def records(self) -> int:
        """Records received."""

    @property
    def expected_records(self) -> int:
        """Records that the source said the window holds."""


@dataclass(frozen=True, slots=True)
class Stored:
    """What became of a window's records: bytes written, and the file if there is one."""

    bytes: int = 0
    artifact: str | None = None


@dataclass(slots=True)
class Summary:
    """The outcome of a run over windows."""

    planned: int = 0
    downloaded: int = 0
    skipped_no_data: int = 0
    failed: list[tuple[Window, str]] = field(default_factory=list)


def new_job_id(name: str) -> str:
    """An id for one run of a job: its name, the moment, and 32 random bits."""
    return f"{name}-{datetime.now(UTC):%Y%m%dT%H%M%S}-{secrets.token_hex(4)}"


class WindowRun(Generic[FetchedT]):
    """One run over the windows of one source.

    Parameters
    ----------
    attempts
        The append-only log.
    job_id, source
        Stamped on every attempt.
    fetch
        Gets the records of one window; called in threads.
    store
        Writes what was fetched; called in one thread, one window after the other.
    workers
        Windows in flight at once.
    expected_errors
        Exceptions that fail a window and not the run; ``records`` and ``expected_records`` of one are logged.
    progress
        Told windows done, windows planned, and records so far.
    """

    def __init__(
        self,
        *,
        attempts: Attempts,
        job_id: str,
        source: str,
        fetch: Callable[[Window], FetchedT],
        store: Callable[[Window, FetchedT], Stored],
        workers: int = 4,
        expected_errors: tuple[type[Exception], ...] = (),
        progress: Callable[[int, int, int], None] | None = None,
    ) -> None:
        self._attempts = attempts
        self._job_id = job_id
        self._source = source
        self._fetch = fetch
        self._store = store
        self._workers = workers
        self._expected_errors = expected_errors
        self._progress = progress

    def run(self, windows: Sequence[Window]) -> Summary:
        """Run all windows; a failed one is logged and the others go on."""
        summary = Summary(planned=len(windows))
        waiting = list(reversed(windows))
        running: dict[Future[FetchedT], Attempt] = {}
        records = 0
        with ThreadPoolExecutor(self._workers, thread_name_prefix=self._source) as pool:
            try:
                while waiting or running:
                    while waiting and len(running) < self._workers:
                        attempt = self._attempts.start(self._job_id, self._source, waiting.pop())
                        running[pool.submit(self._fetch, attempt.window)] = attempt
                    for future in wait(running, return_when=FIRST_COMPLETED).done:
                        records += self._settle(future, running.pop(future), summary)
                        if self._progress:
                            self._progress(
                                summary.planned - len(waiting) - len(running), len(windows), records
                            )
            finally:
                pool.shutdown(wait=True, cancel_futures=True)
        return summary

    def _settle(self, future: Future[FetchedT], attempt: Attempt, summary: Summary) -> int:
        try:
            fetched = future.result()
            stored = self._store(attempt.window, fetched)
        except self._expected_errors as error:
            summary.failed.append((attempt.window, str(error)))
            self._attempts.finish(
                attempt,
                AttemptStatus.FAILED,
                records=getattr(error, "records", None),
                expected_records=getattr(error, "expected_records", None),
                error=error,
            )
            return 0
        empty = fetched.records == 0
        if empty:
            summary.skipped_no_data += 1
        else:
            summary.downloaded += 1
        self._attempts.finish(
            attempt,
            AttemptStatus.SKIPPED_NO_DATA if empty else AttemptStatus.DOWNLOADED,
            records=fetched.records,
            expected_records=fetched.expected_records,
            bytes=stored.bytes,
            artifact=stored.artifact,
        )
        return fetched.records
