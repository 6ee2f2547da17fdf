"""A small source, a real server for it, and a place for jobs over it. Imported by worker processes too."""

from __future__ import annotations

import json
import os
import signal
import threading
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import polars as pl
import sqlalchemy as sa
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from dagster_l2.base.errors import L2Error
from dagster_l2.base.telemetry import count
from dagster_l2.batch import (
    DAY,
    Chunk,
    FailureClass,
    FetchedChunk,
    JobDefinition,
    JobRequest,
    Jobs,
    RunSummary,
    Window,
    batch_attempts,
    batch_jobs,
)

REPOSITORY = Path(__file__).resolve().parents[2]
FIRST = datetime(2025, 1, 1, tzinfo=UTC)
STEP = timedelta(minutes=30)
SENSORS = ("REACH-101", "REACH-102")


def days(count: int, first: int = 0) -> list[Window]:
    return [Window(FIRST + i * DAY, FIRST + (i + 1) * DAY) for i in range(first, first + count)]


def records_of(start: datetime, end: datetime) -> list[dict[str, Any]]:
    """The observations in [start, end), and a correction of one that belongs to the day before."""
    out = []
    moment = start
    while moment < end:
        for number, sensor in enumerate(SENSORS):
            value = moment.timestamp() % 1000 + number
            out.append({"sensor": sensor, "time": _text(moment), "created": _text(moment), "value": value})
        moment += STEP
    if start.hour == 0 and start > FIRST:
        late = start - STEP
        out.append({"sensor": SENSORS[0], "time": _text(late), "created": _text(start), "value": -1.0})
    return out


def _text(moment: datetime) -> str:
    return moment.replace(tzinfo=None).isoformat()


class ChunkFailed(L2Error):
    def __init__(self, message: str, failure_class: FailureClass) -> None:
        super().__init__(message)
        self.failure_class = failure_class


class TinySource:
    name = "tiny"
    schema_version = 1
    schema: Mapping[str, pl.DataType] = {
        "sensor": pl.String(),
        "time": pl.Datetime("us"),
        "created": pl.Datetime("us"),
        "value": pl.Float64(),
        "pos": pl.List(pl.Float64()),
    }
    key = ("sensor", "time")
    newest_by = "created"
    sort_by = ("time", "sensor")

    def __init__(
        self, url: str | None = None, descriptor: str = "A", chunk_hours: int = 6, log: str | None = None
    ) -> None:
        self.query = {"descriptor": descriptor}
        self._step = timedelta(hours=chunk_hours)
        self._http = httpx.Client(base_url=url, timeout=30) if url else None
        self._log = Path(log) if log else None

    def close(self) -> None:
        if self._http:
            self._http.close()

    def can_change(self, window: Window, now: datetime) -> bool:
        return window.end > now - 7 * DAY

    def chunks(self, window: Window) -> list[Chunk]:
        count = (window.end - window.start) // self._step
        return [
            Chunk(window.start + i * self._step, window.start + (i + 1) * self._step) for i in range(count)
        ]

    def expected_records(self, window: Window) -> int | None:
        return 2 * ((window.end - window.start) // STEP)

    def fetch(self, chunk: Chunk) -> FetchedChunk:
        count("api_requests")
        if self._log:
            with self._log.open("a") as file:
                file.write(chunk.chunk_id + "\n")
        if self._http is None:
            raw = records_of(chunk.start, chunk.end)
        else:
            answer = self._http.get("/records", params={"start": _text(chunk.start), "end": _text(chunk.end)})
            if answer.status_code == 503:
                raise ChunkFailed("The server is overloaded.", FailureClass.PASSING)
            if answer.status_code == 410:
                raise ChunkFailed("The server no longer has it.", FailureClass.GONE)
            if answer.status_code == 400:
                raise ChunkFailed("The server does not take the question.", FailureClass.PERMANENT)
            raw = answer.json()
        good = [record for record in raw if isinstance(record.get("value"), float)]
        bad = [("no value", json.dumps(record)) for record in raw if record not in good]
        texts = {"sensor": pl.String, "time": pl.String, "created": pl.String, "value": pl.Float64}
        times = [pl.col(name).str.to_datetime(time_unit="us") for name in ("time", "created")]
        frame = pl.DataFrame(good, schema=texts).with_columns(times)
        frame = frame.with_columns(pos=pl.concat_list("value", "value"))
        return FetchedChunk(frame, len(raw), rejected=bad, bytes=len(json.dumps(raw)))


def make(**params: Any) -> TinySource:
    return TinySource(**params)


def make_other(**params: Any) -> TinySource:
    source = TinySource(**params)
    source.name = "other"
    return source


class DeadlySource(TinySource):
    """Takes its process with it, once, at the chunk that a file names."""

    def __init__(self, fatal: str, log: str | None = None) -> None:
        super().__init__(log=log)
        self._fatal = Path(fatal)

    def fetch(self, chunk: Chunk) -> FetchedChunk:
        if self._fatal.exists() and chunk.chunk_id.startswith(self._fatal.read_text()):
            self._fatal.unlink()
            os.kill(os.getpid(), signal.SIGKILL)
        return super().fetch(chunk)


class DefectiveSource(TinySource):
    """Breaks its own promises: another error than it should raise, and other columns."""

    def fetch(self, chunk: Chunk) -> FetchedChunk:
        found = super().fetch(chunk)
        if chunk.start == FIRST:
            raise KeyError("obTime")
        if chunk.start == FIRST + DAY:
            return FetchedChunk(found.frame.drop("created"), found.received)
        return found

    def chunks(self, window: Window) -> list[Chunk]:
        if window.start == FIRST + 2 * DAY:
            raise ZeroDivisionError("no step")
        return super().chunks(window)


def make_defective(**params: Any) -> TinySource:
    return DefectiveSource(**params)


def make_deadly(**params: Any) -> TinySource:
    return DeadlySource(**params)


class FalteringSource(TinySource):
    """Fails once, for a passing reason, at the chunk that a file names."""

    def __init__(self, faltering: str) -> None:
        super().__init__(chunk_hours=24)
        self._faltering = Path(faltering)

    def fetch(self, chunk: Chunk) -> FetchedChunk:
        if self._faltering.exists() and chunk.chunk_id.startswith(self._faltering.read_text()):
            self._faltering.unlink()
            raise ChunkFailed("The server is overloaded.", FailureClass.PASSING)
        return super().fetch(chunk)


def make_faltering(**params: Any) -> TinySource:
    return FalteringSource(**params)


@dataclass
class Server:
    """What the real server does: statuses by chunk start, each for a number of times (None: for ever)."""

    faults: dict[str, tuple[int, int | None]] = field(default_factory=dict)
    empty: set[str] = field(default_factory=set)
    spoil: set[str] = field(default_factory=set)
    slow_s: float = 0.0
    asked: list[str] = field(default_factory=list)
    lock: threading.Lock = field(default_factory=threading.Lock)

    def app(self) -> Starlette:
        return Starlette(routes=[Route("/records", self._records)])

    def count(self) -> Counter[str]:
        return Counter(self.asked)

    def _records(self, request: Request) -> Response:
        start, end = (datetime.fromisoformat(request.query_params[n]) for n in ("start", "end"))
        name = f"{start:%m-%dT%H}"
        with self.lock:
            self.asked.append(name)
            status, times = self.faults.get(name, (200, None))
            if status != 200 and times is not None:
                self.faults[name] = (status, times - 1)
                status = status if times > 0 else 200
        time.sleep(self.slow_s)
        if status != 200:
            return Response(status_code=status)
        raw = [] if name[:5] in self.empty else records_of(start.replace(tzinfo=UTC), end.replace(tzinfo=UTC))
        if name in self.spoil:
            raw[0]["value"] = "much"
        return JSONResponse(raw)


def definition(**changes: Any) -> JobDefinition:
    values: dict[str, Any] = {
        "name": "tiny",
        "handler": "tests.batch.job_kit:make",
        "source": "tiny",
        "batch_size": 2,
        "retries": {"budget_s": 5, "first_wait_s": 0.01, "max_wait_s": 0.05},
        "executor": {"workers": 1, "in_flight": 3, "lease_s": 20},
        "fan_in": 2,
    }
    for name, value in changes.items():
        values[name] = {**values[name], **value} if isinstance(value, dict) else value
    return JobDefinition.model_validate(values)


def make_tables(url: str, schema: str | None = None) -> None:
    engine = sa.create_engine(url)
    with engine.begin() as connection:
        if schema:
            connection.exec_driver_sql(f"CREATE SCHEMA {schema}")
        else:
            connection.exec_driver_sql("PRAGMA journal_mode = WAL")
        translated = connection.execution_options(schema_translate_map={None: schema})
        for table in (batch_attempts, batch_jobs):
            table.metadata.create_all(translated)
    engine.dispose()


class Place:
    """Folders and a state database for jobs."""

    def __init__(self, folder: Path, url: str | None = None, schema: str | None = None) -> None:
        self.folder = folder
        self.url = url or f"sqlite:///{folder / 'state.sqlite'}"
        self.schema = schema
        options: dict[str, Any] = {"schema_translate_map": {None: schema}} if schema else {}
        connect = {} if schema else {"timeout": 60}
        self.engine = sa.create_engine(self.url, execution_options=options, connect_args=connect)

    def close(self) -> None:
        self.engine.dispose()

    def jobs(self, **options: Any) -> Jobs:
        return Jobs(
            self.engine,
            database_url=self.url,
            database_schema=self.schema,
            jobs_root=self.folder / "jobs",
            scratch_root=self.folder / "scratch",
            output_folder=self.folder / "out",
            **options,
        )

    def run(self, windows: list[Window], *, jobs: dict[str, Any] | None = None, **request: Any) -> RunSummary:
        request.setdefault("definition", definition())
        return self.jobs(**jobs or {}).run(JobRequest(windows=windows, **request))

    def root(self, summary: RunSummary) -> Path:
        return self.folder / "jobs" / str(summary.job_id)

    def read(self, summary: RunSummary, name: str) -> Any:
        return json.loads((self.root(summary) / name).read_text())

    def task_manifests(self, summary: RunSummary) -> list[dict[str, Any]]:
        return [
            json.loads(path.read_text()) for path in sorted(self.root(summary).glob("tasks/*/manifest.json"))
        ]

    def statuses(self) -> list[str]:
        with self.engine.connect() as connection:
            query = sa.select(batch_attempts.c.status).order_by(batch_attempts.c.attempt_id)
            return list(connection.execute(query).scalars())

    def leftovers(self) -> Iterator[Path]:
        return (path for path in self.folder.rglob("*.tmp"))


def expected_rows(windows: list[Window], *, but: set[str] = frozenset()) -> pl.DataFrame:  # type: ignore[assignment]
    """What one file of these windows must hold, said another way than the engine does it."""
    newest: dict[tuple[str, str], dict[str, Any]] = {}
    for window in windows:
        for hour in range(0, 24, 6):
            start = window.start + timedelta(hours=hour)
            if f"{start:%m-%dT%H}" in but or f"{start:%m-%d}" in but:
                continue
            for record in records_of(start, start + timedelta(hours=6)):
                key = (record["time"], record["sensor"])
                if key not in newest or record["created"] > newest[key]["created"]:
                    newest[key] = record
    rows = [newest[key] for key in sorted(newest)]
    frame = pl.DataFrame(rows, schema=["sensor", "time", "created", "value"])
    times = [pl.col(name).str.to_datetime(time_unit="us") for name in ("time", "created")]
    return frame.with_columns(times).with_columns(pos=pl.concat_list("value", "value"))


# For processes of their own: what they run is here, where they import nothing more to find it.
PRELOAD = ["pytest", "tests.batch.job_kit"]


def run_eight_days(folder: str, url: str, schema: str | None, log: str) -> None:
    place = Place(Path(folder), url, schema)
    chosen = definition(batch_size=1, executor={"lease_s": 30})
    place.run(days(8), source_params={"log": log}, definition=chosen)


# -- the same job whoever works: what the tests of threads, processes, Dask and Slurm share ------------------


def crew(kind: str, **rules: Any) -> dict[str, Any]:
    """The executor rules of a job with few workers of a kind."""
    return {"kind": kind, "workers": 2, "in_flight": 2, **rules}


def output(summary: RunSummary) -> bytes:
    """The merged file of a job that ended well."""
    assert summary.exit_code == 0
    assert summary.output is not None
    return summary.output.read_bytes()


def plain(tmp_path: Path, count: int) -> bytes:
    """What one thread makes of the same days."""
    folder = tmp_path / "plain"
    folder.mkdir()
    place = Place(folder)
    make_tables(place.url)
    made = output(place.run(days(count), definition=definition(batch_size=1)))
    place.close()
    return made


@contextmanager
def shared_place(folder: Path, postgres_url: str) -> Iterator[Place]:
    """A place on PostgreSQL, as workers on other machines need it."""
    schema = f"crew_{os.getpid()}_{abs(hash(folder)) % 10**8}"
    make_tables(postgres_url, schema)
    made = Place(folder, postgres_url, schema)
    yield made
    made.close()
