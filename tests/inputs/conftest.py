"""The OP whose frames are staged."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from starlette.applications import Starlette
from starlette.routing import Route

from dagster_l2.pipeline.wiring import open_ledger
from dagster_l2.settings import Settings
from dagster_l2.store import StoreClient
from dagster_l2.store.server import LocalStoreServer, RecordSet, store_app
from tests.inputs.staging_world import EACH, Space, World, frame, prepare


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    """An OP that is Preprocessed, with two datasets whose frames were taken around midnight."""
    space = Space(tmp_path / "space")
    frames = [frame(number, space.root) for number in range(2 * EACH)]
    frames[-2] |= {"frameStatus": "LOST", "frameSize": None}
    frames[-1] |= {"frameStatus": "REMOVED", "frameSize": None}
    frames.append({**frames[0], "inventoryId": "raw", "objectKey": "raw", "processingType": "RAW"})
    app = store_app(RecordSet({"frameInventories": frames}), inversions_file=tmp_path / "i.sqlite")
    objects = Starlette(routes=[Route("/{path:path}", space.answer)])
    with LocalStoreServer(app) as server, LocalStoreServer(objects) as space_server:
        space.url = space_server.url
        settings = Settings(data_dir=tmp_path / "data", frames_from=space.url, store_url=server.url)
        with open_ledger(settings) as ledger, StoreClient(server.url) as store:
            prepare(ledger, settings)
            yield World(settings, ledger, store, space, frames)
