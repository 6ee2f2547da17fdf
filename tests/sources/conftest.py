"""A store that can be changed between scans, with a lake to scan it into; a UDL."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import orjson
import pytest

from dagster_l2.batch import Jobs, load_definition
from dagster_l2.batch.jobs.definition import RetryRules
from dagster_l2.ledger import Ledger
from dagster_l2.settings import REPOSITORY
from dagster_l2.sources import ScanReport, Sweep
from dagster_l2.store import StoreClient
from dagster_l2.store.server import Faults, LocalStoreServer, RecordSet, store_app

from .reach_kit import UdlWorld, held, seconds, served

DEFINITION = load_definition(REPOSITORY / "jobs" / "metadata_store.yaml")


class World:
    """Records, a server over them, and scans of it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.lake = folder / "lake"
        self.faults = Faults()
        self.options: dict[str, Any] = {}
        self.sweep_options: dict[str, Any] = {}
        self.kind = "graphql"
        self.client_type = StoreClient
        self.retry_s = 0.0
        self.executor = "threads"
        self.records: list[Any] = []

    @contextmanager
    def served(self) -> Iterator[StoreClient]:
        dump = self.folder / "dump.json"
        dump.write_bytes(orjson.dumps({"data": {"datasetInventories": self.records}}))
        app = store_app(
            RecordSet.load([dump]),
            inversions_file=self.folder / "inversions.sqlite",
            faults=self.faults,
            **self.options,
        )
        with (
            LocalStoreServer(app) as server,
            self.client_type(
                server.url, kind=self.kind, attempts=2, first_wait_s=0.01, timeout_s=5
            ) as client,
        ):
            yield client

    def scan(self) -> ScanReport:
        with self.served() as client, Ledger.open(f"sqlite:///{self.folder / 'l2.sqlite'}") as ledger:
            return self.sweep(client, ledger).run()

    def sweep(self, client: StoreClient, ledger: Ledger) -> Sweep:
        jobs = Jobs(
            ledger.engine,
            database_url=f"sqlite:///{self.folder / 'l2.sqlite'}",
            jobs_root=self.folder / "jobs",
            scratch_root=self.folder / "scratch",
            output_folder=self.lake / "bronze" / "datasets",
        )
        retries = RetryRules(budget_s=self.retry_s, first_wait_s=0.01, max_wait_s=0.01)
        executor = DEFINITION.executor.model_copy(update={"kind": self.executor})
        definition = DEFINITION.model_copy(update={"retries": retries, "executor": executor})
        return Sweep(client, self.lake, jobs, definition, **self.sweep_options)


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path)


@pytest.fixture
def record() -> Callable[..., dict[str, Any]]:
    """Make a record; the number gives its id and its day."""

    def make(number: int, **changes: Any) -> dict[str, Any]:
        return {
            "datasetId": f"D{number:04d}",
            "createDate": f"2024-{1 + number // 28 % 12:02d}-{1 + number % 28:02d}T12:00:00",
            "primaryProposalId": "pid_1_1",
            "productId": f"P{number:04d}",
            "status": "ACTIVE",
            "bucket": "data",
            "frameCount": 10,
            "originalFrameCount": 10,
            "observingProgramExecutionId": f"op{number // 5}",
            **changes,
        }

    return make


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[UdlWorld]:
    with served(tmp_path_factory.mktemp("udl")) as world:
        yield world


@pytest.fixture
def udl(running: UdlWorld) -> UdlWorld:
    """A UDL that behaves, with twenty records."""
    running.clear(held(*seconds(20)))
    return running
