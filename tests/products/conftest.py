"""Products that lie in a folder and on a web server, and a home for them."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from fetching_world import INVERSION, OP, Server

from dagster_l2.products import (
    PRODUCT_FILES,
    SyntheticShape,
    write_products,
)
from dagster_l2.store.server import LocalStoreServer


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_products(
        tmp_path_factory.mktemp("there"),
        op_id=OP,
        inversion_id=INVERSION,
        lines=["Fe I (630.15 nm)"],
        seed=1,
        shape=SyntheticShape(depth=3, wavelengths=5, y=4, x=5),
    )


@pytest.fixture
def folder(made: Path, tmp_path: Path) -> Path:
    folder = tmp_path / "there"
    folder.mkdir()
    for name in PRODUCT_FILES:
        (folder / name).write_bytes((made / name).read_bytes())
    return folder


@pytest.fixture
def home(tmp_path: Path) -> Path:
    home = tmp_path / "home"
    home.mkdir()
    return home


@pytest.fixture(scope="module")
def web() -> Iterator[Server]:
    server = Server(Path())
    with LocalStoreServer(server.app) as running:
        server.url = running.url
        yield server


@pytest.fixture
def server(web: Server, folder: Path) -> Server:
    web.folder, web.requests, web.first, web.always = folder, [], [], None
    return web
