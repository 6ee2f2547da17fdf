"""A place for jobs, and a server for the small source."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from dagster_l2.store.server import LocalStoreServer

from .job_kit import Place, Server, make_tables


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Place]:
    made = Place(tmp_path / "data")
    made.folder.mkdir()
    make_tables(made.url)
    yield made
    made.engine.dispose()


@pytest.fixture
def server() -> Server:
    return Server()


@pytest.fixture
def url(server: Server) -> Iterator[str]:
    with LocalStoreServer(server.app()) as running:
        yield running.url
