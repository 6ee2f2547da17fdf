"""A real local store over HTTP and a real ledger, on SQLite and on PostgreSQL."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from pathlib import Path

import pytest
import sqlalchemy as sa
from publishing_world import PROPOSAL, World

from dagster_l2.ledger import Ledger
from dagster_l2.store import StoreClient
from dagster_l2.store.server import Faults, LocalStoreServer, RecordSet, store_app

_schemas = itertools.count(1)


@pytest.fixture(params=["sqlite", "postgresql"])
def world(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[World]:
    url, schema = f"sqlite:///{tmp_path / 'l2.sqlite'}", "l2"
    if request.param == "postgresql":
        url, schema = request.getfixturevalue("postgres_url"), f"publishing_{next(_schemas)}"
    faults = Faults()
    inversions = tmp_path / "inversions.sqlite"
    record = {
        "datasetId": "AAAAA",
        "primaryProposalId": PROPOSAL,
        "bucket": "data",
        "isEmbargoed": False,
        "startTime": "2024-04-17T20:25:26.516000",
        "endTime": "2024-04-17T20:25:30",
    }
    app = store_app(RecordSet({"datasetInventories": [record]}), inversions_file=inversions, faults=faults)
    with LocalStoreServer(app) as server, Ledger.open(url, schema=schema) as ledger:
        client = StoreClient(server.url, attempts=2, first_wait_s=0.01, timeout_s=5.0, patience_s=0.1)
        with client:
            yield World(server.url, url, schema, faults, inversions, ledger, client, app.state.requests)
    if request.param == "postgresql":
        engine = sa.create_engine(url)
        with engine.begin() as connection:
            connection.exec_driver_sql(f'DROP SCHEMA IF EXISTS "{schema}" CASCADE')
        engine.dispose()
