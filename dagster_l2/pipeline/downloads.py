"""REACH downloaded: from settings and a span of days to a job over them, and its rows in bronze.

Used by the commands and by Dagster alike; nothing is printed. How jobs run is in ``batch``, how the source is
opened in ``handlers``.
"""

from __future__ import annotations

import json
import os
import re
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, date, datetime, timedelta
from itertools import islice
from pathlib import Path

import sqlalchemy as sa

from dagster_l2.base.errors import WrongUse
from dagster_l2.base.files import remove_leftovers
from dagster_l2.base.telemetry import Speed, tallying
from dagster_l2.batch import (
    DAY,
    FailureClass,
    JobDefinition,
    JobError,
    JobRequest,
    Jobs,
    JobState,
    Leftover,
    Planned,
    RunSummary,
    Window,
    Wishes,
    batch_attempts,
    batch_jobs,
    finished_folders,
    load_definition,
    new_job_id,
    old_scratch,
    parse_definition,
)
from dagster_l2.handlers import udl_address
from dagster_l2.lake import BronzeTable
from dagster_l2.ledger import Ledger, reach_database
from dagster_l2.pipeline.metrics import write_metrics
from dagster_l2.pipeline.revision import git_commit
from dagster_l2.pipeline.wiring import open_ledger
from dagster_l2.settings import REPOSITORY, Settings
from dagster_l2.sources import (
    ALL,
    DESCRIPTORS,
    REACH_SCHEMA,
    SCAN_END,
    SOURCE,
    chunk_length,
    export_attempts,
)

_SAME = ("url", "sensor", "descriptor")
_FIRST_DAY, _LAST_DAY = date(1957, 10, 4), date(2999, 12, 31)
_SENSOR = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}\Z")


@dataclass(frozen=True, slots=True)
class Standing:
    """How far a download is.

    ``requests`` counts the chunks that were fetched, ``all_requests`` all that are not there already, and
    ``there_already`` those that an interrupted run has left.
    """

    days: int
    all_days: int
    requests: int
    all_requests: int
    records: int
    there_already: int = 0

    def line(self, speed: Speed) -> str:
        """How far it is, how fast, and how long it will still take."""
        there = f" ({self.there_already:,} more were there already)" if self.there_already else ""
        return (
            f"{self.days}/{self.all_days} days, {self.requests:,}/{self.all_requests:,} chunks{there},"
            f" {self.records:,} records, {speed.of(self.requests, self.all_requests, 'chunks')}"
        )


def reach_table(lake: Path) -> BronzeTable:
    """Bronze's table of observations: a file for each job, which may hold a record that another has, too."""
    return BronzeTable(lake, "reach", REACH_SCHEMA)


def open_jobs(
    settings: Settings,
    ledger: Ledger | sa.Engine,
    *,
    stop: threading.Event | None = None,
    progress: Callable[[int, int, int], None] | None = None,
    on_start: Callable[[str], None] | None = None,
    output_folder: Path | None = None,
) -> Jobs:
    """Jobs on the state database and folders of this installation; for the options see `Jobs`.

    Parameters
    ----------
    ledger
        The state database, or only its engine.
    output_folder
        Where merged files are committed; ``bronze/reach`` unless given.
    """
    engine = ledger.engine if isinstance(ledger, Ledger) else ledger
    password = sa.make_url(settings.state_url).password
    if settings.executor == "slurm" and password:
        # It lies in no batch file; Slurm hands the environment of this process on to the array.
        os.environ.setdefault("PGPASSWORD", str(password))
    return Jobs(
        engine,
        database_url=settings.state_url,
        database_schema=None if engine.dialect.name == "sqlite" else settings.db_schema,
        jobs_root=settings.jobs_folder,
        scratch_root=settings.scratch,
        output_folder=output_folder or reach_table(settings.lake).folder,
        executor={name: value for name, value in settings.executor_rules.items() if name != "workers"},
        stop=stop,
        progress=progress,
        on_start=on_start,
    )


def reach_request(
    settings: Settings,
    start: date,
    end: date,
    *,
    sensor: str | None = None,
    descriptor: str = "QUICKLOOK",
    wishes: Wishes | None = None,
    rate: Mapping[str, float] | None = None,
    max_concurrent_requests: int | None = None,
    run_id: str | None = None,
) -> JobRequest:
    """A job over the UTC days from ``start`` to ``end``, both included, by ``jobs/reach.yaml``.

    Parameters
    ----------
    sensor
        Such as ``REACH-101``; None or ``ALL`` means all of them.
    wishes
        What is run beyond what is new; its availability floor is the setting unless it says one.
    rate
        Some of initial, increase, decrease, min, max, instead of the definition's.

    Raises
    ------
    WrongUse
        When what is asked for can't be meant.
    """
    for day in (start, end):
        if not _FIRST_DAY <= day <= _LAST_DAY:
            raise WrongUse(f"{day} is no day that a satellite observed; correct it.")
    if end < start:
        raise WrongUse(f"The last day, {end}, is before the first, {start}; change them over.")
    if sensor is not None and not _SENSOR.match(sensor):
        raise WrongUse(f"{sensor!r} is no sensor; name one like REACH-101, or ALL.")
    if descriptor not in DESCRIPTORS:
        raise WrongUse(f"{descriptor!r} is no descriptor; take one of {', '.join(DESCRIPTORS)}.")
    days = (end - start).days + 1
    definition = _definition(rate or {}, max_concurrent_requests, settings.executor_rules, days)
    first = datetime(start.year, start.month, start.day, tzinfo=UTC)
    wishes = wishes or Wishes()
    if wishes.availability_floor is None and settings.availability_floor:
        wishes = replace(wishes, availability_floor=settings.availability_floor)
    return JobRequest(
        definition=definition,
        windows=[Window(first + i * DAY, first + (i + 1) * DAY) for i in range(days)],
        source_params={
            "url": udl_address(settings),
            "sensor": None if sensor == ALL else sensor,
            "descriptor": descriptor,
            "settled_after_days": settings.reach_settled_days,
            "satellites": settings.reach_satellites,
            "cadence_s": settings.reach_cadence_s,
            "rate": definition.rate.model_dump(),
        },
        wishes=wishes,
        run_id=run_id or new_job_id("run"),
        git_commit=git_commit(),
        config_file="jobs/reach.yaml",
    )


def _definition(
    rate: Mapping[str, float], at_once: int | None, executor: Mapping[str, str | int], days: int
) -> JobDefinition:
    path = REPOSITORY / "jobs" / "reach.yaml"
    content = load_definition(path).model_dump(mode="json")
    content["rate"] |= rate
    if "initial" not in rate:
        low, high = content["rate"]["min"], content["rate"]["max"]
        content["rate"]["initial"] = max(low, min(content["rate"]["initial"], high))
    content["executor"] |= executor
    if at_once is not None:
        # Two days at once where there is room: one is fetched while the other is written. One has all.
        workers = min(content["executor"]["workers"], at_once, days)
        content["executor"] |= {"workers": workers, "in_flight": at_once // workers}
    return parse_definition(content, "The rate" if rate else path.name)


def plan_reach(settings: Settings, request: JobRequest) -> Planned:
    """What a download would do. It writes nothing, makes no folder, and asks the UDL for nothing."""
    settings.check_reach()
    with _as_it_is(settings) as engine:
        return open_jobs(settings, engine).plan(request)


@contextmanager
def _as_it_is(settings: Settings) -> Iterator[sa.Engine]:
    """The state database, not even made; an empty one in its place where it has no attempts yet."""
    engine = _with_attempts(settings)
    if engine is None:
        engine = sa.create_engine("sqlite://")
        batch_attempts.metadata.create_all(engine)
    try:
        yield engine
    finally:
        engine.dispose()


def _with_attempts(settings: Settings) -> sa.Engine | None:
    url = sa.make_url(settings.state_url)
    if url.get_backend_name() == "sqlite" and not Path(url.database or "").is_file():
        return None
    database = reach_database(settings.state_url, settings.db_schema, only_look=True)
    if sa.inspect(database.engine).has_table(batch_attempts.name, schema=database.schema):
        return database.engine
    database.engine.dispose()
    return None


def download_reach(
    settings: Settings,
    request: JobRequest,
    *,
    ledger: Ledger | None = None,
    stop: threading.Event | None = None,
    progress: Callable[[Standing], None] | None = None,
    on_start: Callable[[str], None] | None = None,
) -> RunSummary:
    """Run a download to its end, or join the same one that is running or was interrupted.

    What was downloaded is in bronze afterwards, and so are the attempts. ``on_start`` is told the id of a
    job when the work on it begins.

    Raises
    ------
    Stopped
        When ``stop`` was set; the next run goes on from there.
    UdlRefused
        When the UDL does not take the token; likewise.
    """
    settings.mark_reach_origin()
    table = reach_table(settings.lake)
    remove_leftovers(table.folder)
    table.ensure()
    if ledger is None:
        with open_ledger(settings) as opened:
            return download_reach(
                settings, request, ledger=opened, stop=stop, progress=progress, on_start=on_start
            )
    with tallying() as tally:
        each = int(DAY / chunk_length(request.source_params["sensor"]))
        before: list[int] = []

        def tell(days: int, all_days: int, records: int) -> None:
            before[:] = before or [days]
            counts = tally.counts()
            there = int(counts.get("reused_chunks", 0))
            chunks = all_days * each - there
            done = max(days * each - there, before[0] * each + int(counts.get("fetched_chunks", 0)))
            records = max(records, int(counts.get("fetched_records", 0)))
            if progress:
                progress(Standing(days, all_days, min(done, chunks), chunks, records, there))

        jobs = open_jobs(settings, ledger, stop=stop, progress=tell if progress else None, on_start=on_start)
        try:
            done = jobs.run(request)
            for leftover in old_scratch(
                jobs.store, settings.scratch, older_than=timedelta(days=settings.scratch_days)
            ):
                leftover.remove()
            return done
        finally:
            export_attempts(settings.lake, ledger.engine, job_id=str(request.run_id))
            write_metrics(settings, ledger)


def unfinished(settings: Settings, ledger: Ledger, request: JobRequest) -> list[str]:
    """The jobs over other spans of the same observations that were interrupted, or still run."""
    jobs = open_jobs(settings, ledger)
    wanted = [request.source_params[name] for name in _SAME]
    out = []
    for job in jobs.store.jobs(
        batch_jobs.c.status == "RUNNING", batch_jobs.c.name == request.definition.name
    ):
        try:
            params = jobs.order(job.job_id).source_params
        except JobError:  # its folder was removed
            continue
        if [params.get(name) for name in _SAME] == wanted:
            out.append(job.job_id)
    return out


def go_on(
    settings: Settings,
    job_id: str,
    classes: Iterable[FailureClass] | None = None,
    *,
    ledger: Ledger,
    stop: threading.Event | None = None,
    progress: Callable[[int, int, int], None] | None = None,
) -> JobState:
    """Bring an interrupted job to its end, or try again what failed in one that has ended.

    Parameters
    ----------
    classes
        What is tried again; None resumes.

    Raises
    ------
    JobError
        When there is nothing to go on with, or a job is a scan's.
    """
    jobs = open_jobs(settings, ledger, stop=stop, progress=progress)
    if jobs.store.job(job_id).name == SOURCE:
        raise JobError(f"Job {job_id} is a scan of the metadata store; `l2 scan` goes on with it.")
    try:
        return jobs.resume(job_id) if classes is None else jobs.retry(job_id, set(classes))
    finally:
        export_attempts(settings.lake, ledger.engine, job_id=job_id)
        write_metrics(settings, ledger)


def clean_jobs(
    settings: Settings,
    ledger: Ledger,
    *,
    older_than_days: float | None,
    most: int | None = None,
    dry_run: bool = False,
) -> list[Leftover]:
    """Remove what jobs that have ended leave and nobody needs: working folders, and scratch that is old.

    Parameters
    ----------
    older_than_days
        Working folders go of jobs that succeeded so long ago, with their rows in bronze; None: scratch only.
    most
        Of either kind so many at most, so that it may be called often.
    dry_run
        Only find them.
    """
    store, scratch = open_jobs(settings, ledger).store, settings.scratch
    finished: Iterator[Leftover] = iter(())
    if older_than_days is not None:
        finished = finished_folders(
            store,
            settings.jobs_folder,
            scratch,
            older_than=timedelta(days=older_than_days),
            # The rows of a scan are in bronze batch by batch, all of them when it has come to its end.
            is_taken_over=lambda folders: (folders.root / SCAN_END).exists(),
        )
    kept_for_retries = old_scratch(store, scratch, older_than=timedelta(days=settings.scratch_days))
    found = [*islice(finished, most), *islice(kept_for_retries, most)]
    for leftover in () if dry_run else found:
        leftover.remove()
    return found


def reasons_of(settings: Settings, job_id: str) -> list[str]:
    """Why windows of a job that has ended did not come home, each reason once."""
    try:
        content = json.loads((settings.jobs_folder / job_id / "summary.json").read_text(encoding="utf-8"))
        return list(dict.fromkeys(str(window["error"]) for window in content["windows_left"]))
    except (OSError, ValueError, KeyError, TypeError):
        return []
