"""A REACH day of 288 chunks over real HTTP, by the real downloader, at a server with a quota.

Server and client read one clock, which goes faster than the system's. What is compared with what is in
``reach_rates``.
"""

from __future__ import annotations

import asyncio
import random
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from urllib.parse import parse_qs

from rate_world import LATENCY_S, UPWARD, QuotaServer
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from dagster_l2.batch import Clock, DatabaseRates, Limiter, RateSettings, open_engine, rate_key
from dagster_l2.pipeline.downloads import open_jobs, reach_request
from dagster_l2.pipeline.wiring import open_ledger
from dagster_l2.settings import Settings
from dagster_l2.sources import Reach, UdlClient
from dagster_l2.store.server import LocalStoreServer, ReachFleet, udl_app

IN_FLIGHT = 8
SATELLITES, CADENCE_S = 2, 60
FIRST_DAY = date(2025, 5, 1)


@dataclass(frozen=True, slots=True)
class Day:
    """How a day went, in seconds of the fast clock from the first request to the last answer."""

    arrived: int
    seconds: float
    requests: int
    turned_down: int


@dataclass
class Guarded:
    """The app behind a quota, and as far away as the server of ``rate_world``."""

    app: ASGIApp
    server: QuotaServer
    clock: Clock
    random: random.Random = field(default_factory=lambda: random.Random(1))
    requests: list[float] = field(default_factory=list)
    answered: dict[str, float] = field(default_factory=dict)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        self.requests.append(self.clock.now())
        latency = self.random.uniform(*LATENCY_S) / self.clock.speed
        await asyncio.sleep(UPWARD * latency)
        admitted, headers = self.server.answer(self.clock.now())
        await asyncio.sleep((1 - UPWARD) * latency)

        async def send_on(message: Message) -> None:
            if message["type"] == "http.response.start":
                more = [(name.lower().encode(), value.encode()) for name, value in headers.items()]
                message = {**message, "headers": [*message["headers"], *more]}
            await send(message)

        if not admitted:
            await JSONResponse({"message": "Too many requests"}, 429)(scope, receive, send_on)
            return
        await self.app(scope, receive, send_on)
        asked = parse_qs(scope["query_string"].decode())["obTime"][0]
        self.answered[asked] = self.clock.now()


@contextmanager
def _world(folder: Path) -> Iterator[tuple[Guarded, Settings]]:
    fleet = ReachFleet(satellites=SATELLITES, cadence_s=CADENCE_S, now=datetime.now(UTC))
    guarded = Guarded(udl_app(fleet), QuotaServer.__new__(QuotaServer), Clock())
    with LocalStoreServer(guarded) as running:
        yield (
            guarded,
            Settings(
                data_dir=folder, udl_url=running.url, reach_satellites=SATELLITES, reach_cadence_s=CADENCE_S
            ),
        )


def two_days(quota_server: list[QuotaServer], *, speed: float) -> list[Day]:
    """Two days one after the other in a fresh data folder: the second knows what the first has learned.

    Parameters
    ----------
    quota_server
        The server as it is on each day.
    speed
        How much faster than the system's clock all clocks go.
    """
    done = []
    with tempfile.TemporaryDirectory(prefix="l2_bench_") as folder, _world(Path(folder)) as (app, settings):
        since = time.time()
        for number, server in enumerate(quota_server):
            app.server, app.clock = server, Clock(speed, since, number * 86_400.0)
            app.requests.clear()
            app.answered.clear()
            done.append(_one_day(app, settings, FIRST_DAY + timedelta(days=number)))
    return done


def _one_day(app: Guarded, settings: Settings, day: date) -> Day:
    request = reach_request(settings, day, day, max_concurrent_requests=IN_FLIGHT)
    params, rules = request.source_params, request.definition.rate
    bounds = RateSettings(rules.initial, rules.increase, rules.decrease, rules.min, rules.max)
    with open_ledger(settings) as ledger:
        engine = open_engine(settings.state_url, settings.db_schema)
        rates = DatabaseRates(engine, rate_key(params["url"], "reach"), clock=app.clock)
        with Limiter(rates, bounds, clock=app.clock) as pace:
            client = UdlClient(params["url"], pace=pace, clock=app.clock)
            source = Reach(client, satellites=params["satellites"], cadence_s=params["cadence_s"])
            summary = open_jobs(settings, ledger).over(source).run(request)
        engine.dispose()
    chunks = {asked: at for asked, at in app.answered.items() if _is_chunk(asked)}
    return Day(
        arrived=len(chunks) if summary.downloaded == 1 else 0,
        seconds=max(app.answered.values()) - app.requests[0],
        requests=len(app.requests),
        turned_down=app.server.turned_down,
    )


def _is_chunk(asked: str) -> bool:
    start, end = (datetime.fromisoformat(part) for part in asked.split(".."))
    return end - start == timedelta(minutes=5)
