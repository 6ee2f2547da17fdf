"""Scans of the metadata store: from settings to a sweep over it, and a quick look at what is new.

Used by the commands and by Dagster alike; nothing is printed. What a sweep does is in ``sources``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from dagster_l2.base.files import only_one
from dagster_l2.batch import load_definition, new_job_id
from dagster_l2.handlers import store_query
from dagster_l2.ledger import Ledger
from dagster_l2.pipeline.downloads import open_jobs
from dagster_l2.pipeline.revision import git_commit
from dagster_l2.pipeline.wiring import open_ledger, open_store
from dagster_l2.settings import REPOSITORY, Settings
from dagster_l2.sources import ScanReport, ScanTables, Sweep, export_attempts
from dagster_l2.store import StoreClient


def sweep_of(
    settings: Settings,
    store: StoreClient,
    ledger: Ledger,
    *,
    run_id: str | None = None,
    progress: Callable[[int, int, int], None] | None = None,
) -> Sweep:
    """A sweep over an open store by ``jobs/metadata_store.yaml``; see `Sweep` for the progress."""
    definition = load_definition(REPOSITORY / "jobs" / "metadata_store.yaml")
    at_once = settings.executor_workers
    if at_once is not None:
        rules = definition.executor.model_copy(update={"workers": at_once})
        definition = definition.model_copy(update={"executor": rules})
    return Sweep(
        store,
        settings.lake,
        open_jobs(settings, ledger, output_folder=ScanTables.under(settings.lake).datasets.folder),
        definition,
        query=store_query(settings),
        run_id=run_id or new_job_id("run"),
        git_commit=git_commit(),
        window_records=settings.scan_window_records,
        workers=max(settings.scan_workers, at_once or 1),
        accept_missing=settings.scan_accept_missing,
        progress=progress,
    )


def scan_all(
    settings: Settings,
    store: StoreClient,
    ledger: Ledger,
    *,
    run_id: str | None = None,
    progress: Callable[[int, int, int], None] | None = None,
) -> ScanReport:
    """Scan everything; the attempts are in bronze afterwards, however it ends."""
    sweep = sweep_of(settings, store, ledger, run_id=run_id, progress=progress)
    try:
        return sweep.run()
    finally:
        export_attempts(settings.lake, ledger.engine, job_id=sweep.report.job_id)


def scan_recent(settings: Settings) -> ScanReport:
    """Take what was created or updated since the last whole scan.

    Raises
    ------
    AlreadyRunning
        When a scan is running.
    """
    with one_scan(settings), open_store(settings) as store, open_ledger(settings) as ledger:
        return sweep_of(settings, store, ledger).recent()


@contextmanager
def one_scan(settings: Settings) -> Iterator[None]:
    """Be the only scan for the time of a block, in a folder whose records come from one place."""
    with only_one(settings.data / "locks" / "scan.lock", "A scan"):
        settings.mark_origin()
        yield
