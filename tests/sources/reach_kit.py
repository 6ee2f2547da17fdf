"""A UDL on loopback, a pace that lets everything through and remembers it, and records to serve."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from dagster_l2.batch import Window
from dagster_l2.sources.udl import Question, UdlClient
from dagster_l2.store.server import Faults, LocalStoreServer, RecordSet, store_app
from dagster_l2.store.server.udl import HeldObservations, Observations

DAY = datetime(2025, 5, 1, tzinfo=UTC)
WINDOW = Window(DAY, DAY + timedelta(days=1))
MINUTES = timedelta(minutes=1)
TOKEN = "c2VjcmV0LXVzZXI6c2VjcmV0LXdvcmQ="
LIST, COUNT = "/udl/spaceenvobservation", "/udl/spaceenvobservation/count"


class FreePace:
    """Lets every request go at once; ``before`` is called first."""

    def __init__(self, before: Callable[[], None] | None = None) -> None:
        self.granted = 0
        self.answered = 0
        self.turned_down: list[str | None] = []
        self.before = before

    def acquire(self) -> float:
        if self.before is not None:
            self.before()
        self.granted += 1
        return float(self.granted)

    def succeeded(self, granted_at: float, headers: Mapping[str, str]) -> None:
        assert 0 < granted_at <= self.granted
        self.answered += 1

    def congested(self, granted_at: float, headers: Mapping[str, str]) -> None:
        assert 0 < granted_at <= self.granted
        self.turned_down.append(headers.get("Retry-After"))


class UdlWorld:
    """One running UDL over observations that can be exchanged, and clients of it."""

    def __init__(self, url: str, app: Any, stock: Exchangeable) -> None:
        self.url = url
        self.app = app
        self.stock = stock
        self.faults: Faults = app.state.faults
        self.pace = FreePace()
        self.clients: list[UdlClient] = []

    def close(self) -> None:
        """Close the clients that are open."""
        while self.clients:
            self.clients.pop().close()

    def clear(self, observations: Observations | None = None) -> None:
        """Behave again, serve these (nothing unless given), forget what was asked."""
        self.close()
        self.stock.now = observations or HeldObservations()
        self.faults.clear()
        self.app.state.requests.clear()
        self.pace = FreePace()

    def client(self, url: str | None = None, **options: Any) -> UdlClient:
        options = {
            "token": TOKEN,
            "pace": self.pace,
            "timeout_s": 5.0,
            "first_wait_s": 0.01,
            "longest_wait_s": 0.02,
            "budget_s": 5.0,
            **options,
        }
        self.clients.append(UdlClient(url or self.url, **options))
        return self.clients[-1]

    @property
    def asked(self) -> list[tuple[str, str]]:
        """(Path, query) of every request that came."""
        return [names for _, names in self.app.state.requests]

    @property
    def paths(self) -> list[str]:
        return [path for path, _ in self.asked]


class Exchangeable:
    """Observations that are others from one test to the next."""

    def __init__(self) -> None:
        self.now: Any = HeldObservations()

    @property
    def is_strict_json(self) -> bool:
        return bool(self.now.is_strict_json)

    def count(self, ask: Any) -> int:
        return int(self.now.count(ask))

    def page(self, ask: Any, first: int, most: int) -> list[Any]:
        return list(self.now.page(ask, first, most))


@contextmanager
def served(folder: Path, **options: Any) -> Iterator[UdlWorld]:
    """A UDL that wants `TOKEN`, for as long as the block."""
    stock = Exchangeable()
    app = store_app(
        RecordSet(),
        inversions_file=folder / "inversions.sqlite",
        reach=stock,
        udl_token=TOKEN,
        **options,
    )
    with LocalStoreServer(app) as server:
        world = UdlWorld(server.url, app, stock)
        try:
            yield world
        finally:
            world.close()


def question(minutes: float = 5, **more: Any) -> Question:
    return Question(**{"start": DAY, "end": DAY + minutes * MINUTES, "descriptor": "QUICKLOOK", **more})


def text(moment: datetime) -> str:
    return moment.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")


def row(when: datetime, number: int = 0, **changes: Any) -> dict[str, Any]:
    """A record as the facts describe it; the number tells it from others, and is in many of its values."""
    record = {
        "id": f"id-{number}-{text(when)}",
        "classificationMarking": "U",
        "dataType": "DOSIMETER",
        "genTime": text(when + MINUTES),
        "idOnOrbit": str(43_100 + number),
        "satNo": 43_100 + number,
        "idSensor": "REACH-101",
        "origSensorId": "101-A",
        "observatoryType": "LEO",
        "observatoryName": "REACH",
        "instrumentType": "DOSIMETER",
        "lat": 10.0 + number,
        "lon": 20.0 + number,
        "alt": 780.0 + number,
        "senPos": [1.0 + number, 2.0, 3.0],
        "obSetId": "REACH-101-2025-05-01",
        "particleType": "ELECTRON",
        "obTime": text(when),
        "seoList": [
            {
                "obType": "Dose Rate",
                "obUoM": "rad/s",
                "obValue": 0.5 + number,
                "obQuality": "good",
                "obDescription": "Dosimeter A dose rate",
            }
        ],
        "descriptor": "QUICKLOOK",
        "createdAt": text(when + 5 * MINUTES),
        "createdBy": "reach.ingest",
        "source": "Aerospace",
        "dataMode": "REAL",
        "origNetwork": "OPS1",
    }
    return {**record, **changes}


def held(*records: dict[str, Any]) -> HeldObservations:
    """A stock that files each record under its own ``obTime``."""
    return HeldObservations((datetime.fromisoformat(record["obTime"]), record) for record in records)


def seconds(count: int, **changes: Any) -> list[dict[str, Any]]:
    """That many records, a second apart from the day's first instant on."""
    return [row(DAY + timedelta(seconds=number), number, **changes) for number in range(count)]
