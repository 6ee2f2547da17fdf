"""One rate for real processes over a real database, one of them killed; what is learned stays there."""

from __future__ import annotations

import itertools
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import sqlalchemy as sa

from dagster_l2.batch.headers import Quota
from dagster_l2.batch.leases import DatabaseRates, RateUnavailable
from dagster_l2.batch.rate import Limiter
from dagster_l2.batch.rate_tables import metadata, rate_leases, rate_limits
from dagster_l2.batch.rate_terms import RateSettings
from tests.batch.rate_process import open_engine
from tests.batch.test_rate_property import most_in_a_window

_schemas = itertools.count(1)
PROCESS = Path(__file__).with_name("rate_process.py")
QUOTA = Quota(16, 1.0)


@pytest.fixture(params=["sqlite", "postgresql"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[tuple[str, str]]:
    """The address and the schema of a database with the tables in it."""
    schema = f"rate_{next(_schemas)}"
    if request.param == "sqlite":
        url = f"sqlite:///{tmp_path / 'l2.sqlite'}"
        engine = open_engine(url, schema)
        with engine.begin() as connection:
            connection.exec_driver_sql("PRAGMA journal_mode = WAL")
    else:
        url = request.getfixturevalue("postgres_url")
        engine = open_engine(url, schema)
        with engine.begin() as connection:
            connection.execute(sa.schema.CreateSchema(schema))
    metadata.create_all(engine)
    yield url, schema
    if request.param == "postgresql":
        with engine.begin() as connection:
            connection.execute(sa.schema.DropSchema(schema, cascade=True))
    engine.dispose()


@pytest.fixture
def engine(place: tuple[str, str]) -> Iterator[sa.Engine]:
    opened = open_engine(*place)
    yield opened
    opened.dispose()


def start(place: tuple[str, str], path: Path, run_s: float) -> subprocess.Popen[bytes]:
    numbers = (str(QUOTA.requests), str(QUOTA.seconds), str(run_s))
    return subprocess.Popen([sys.executable, PROCESS, *place, path, *numbers], stdout=subprocess.PIPE)


def grants(path: Path) -> list[float]:
    return [float(line) for line in path.read_text().splitlines() if line.strip()] if path.exists() else []


def test_three_processes_share_one_quota_and_one_is_killed(place: tuple[str, str], tmp_path: Path) -> None:
    paths = [tmp_path / f"{n}.txt" for n in range(3)]
    processes = [start(place, path, 3.0) for path in paths]
    deadline = time.monotonic() + 20
    while not all(len(grants(path)) >= 3 for path in paths) and time.monotonic() < deadline:
        time.sleep(0.02)
    processes[0].send_signal(signal.SIGKILL)
    outputs = [process.communicate(timeout=30)[0] for process in processes]
    assert [process.returncode for process in processes] == [-signal.SIGKILL, 0, 0]

    every = sorted(itertools.chain.from_iterable(map(grants, paths)))
    assert most_in_a_window(every, QUOTA.seconds) <= QUOTA.requests
    # What the dead one held comes back: the two that live use the whole quota up.
    end = min(grants(paths[1])[-1], grants(paths[2])[-1])
    late = [grant for grant in every if end - 1.5 < grant <= end]
    assert len(late) >= 0.5 * 1.5 * QUOTA.rate
    transactions = sum(int(output) for output in outputs[1:])
    assert transactions <= 0.8 * len(every)


def test_a_learned_quota_is_there_for_the_next_process(engine: sa.Engine) -> None:
    headers = {"RateLimit-Policy": "5;w=60"}
    with Limiter(DatabaseRates(engine, "server/a"), RateSettings(initial=25.0)) as first:
        for _ in range(3):
            first.succeeded(first.acquire(), headers)
    second = Limiter(DatabaseRates(engine, "server/a"), RateSettings(initial=25.0))
    granted = [second.poll()[0] for _ in range(400) if not time.sleep(0.002)]
    assert len([grant for grant in granted if grant]) == 2  # three of five are used up, by whomever
    assert second.stats().quota == Quota(5, 60)
    with engine.connect() as connection:
        row = connection.execute(sa.select(rate_limits)).mappings().one()
    assert (row["key"], row["quota_requests"], row["quota_seconds"]) == ("server/a", 5, 60)


def test_another_process_honours_a_pause_in_spite_of_its_lease(engine: sa.Engine) -> None:
    first, second = (Limiter(DatabaseRates(engine, "server/b"), RateSettings(initial=20.0)) for _ in range(2))
    granted_at = first.acquire()
    second.succeeded(second.acquire(), {})
    first.congested(granted_at, {"Retry-After": "2"})
    paused_at = first.store.clock()
    time.sleep(0.3)
    assert second.acquire() >= paused_at + 1.99
    assert second.stats().congestion_events == 1


def test_leases_are_shown_and_given_back(engine: sa.Engine) -> None:
    limiter = Limiter(DatabaseRates(engine, "server/c"), RateSettings(initial=20.0))
    limiter.succeeded(limiter.acquire(), {})
    with engine.connect() as connection:
        lease = connection.execute(sa.select(rate_leases)).mappings().one()
    assert (lease["key"], lease["holder"]) == ("server/c", limiter.holder)
    assert lease["tokens"] >= 1
    assert lease["expires_at"] >= lease["granted_at"]
    limiter.close()
    with engine.connect() as connection:
        assert connection.execute(sa.select(rate_leases)).all() == []


def test_a_torn_state_in_the_database_begins_anew(engine: sa.Engine) -> None:
    with engine.begin() as connection:
        connection.execute(sa.insert(rate_limits).values(key="server/d", version=0, state={"rate": "torn"}))
    limiter = Limiter(DatabaseRates(engine, "server/d"))
    assert limiter.acquire() > 0


def test_a_database_that_is_gone_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dagster_l2.batch.leases._PATIENCE_S", 0.1)
    engine = open_engine(f"sqlite:///{tmp_path / 'empty.sqlite'}", "")
    with pytest.raises(RateUnavailable, match="server/e can't be used"):
        Limiter(DatabaseRates(engine, "server/e")).acquire()
    engine.dispose()
