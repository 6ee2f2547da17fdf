"""The limit of requests to the store, which all processes share through the state database."""

from __future__ import annotations

import time
from pathlib import Path

import pytest
import sqlalchemy as sa

from dagster_l2.batch import rate_limits
from dagster_l2.ledger import Ledger
from dagster_l2.pipeline.wiring import open_store
from dagster_l2.settings import Settings
from dagster_l2.store.server import LocalStoreServer, generate, store_app


def test_the_limit_holds_and_is_kept_in_the_state_database(tmp_path: Path) -> None:
    app = store_app(generate(2, seed=1), inversions_file=tmp_path / "inversions.sqlite")
    with LocalStoreServer(app) as server:
        settings = Settings(data_dir=tmp_path / "data", store_url=server.url, store_rate_max=20)
        began = time.monotonic()
        with open_store(settings) as store:
            for _ in range(15):
                store.dataset_count()
        assert time.monotonic() - began > 0.5
    with Ledger.open(settings.state_url) as ledger, ledger.engine.connect() as connection:
        assert len(connection.execute(sa.select(rate_limits)).all()) == 1


def test_without_a_limit_nothing_is_opened_beside_the_store(tmp_path: Path) -> None:
    app = store_app(generate(2, seed=1), inversions_file=tmp_path / "inversions.sqlite")
    with LocalStoreServer(app) as server:
        settings = Settings(data_dir=tmp_path / "data", store_url=server.url)
        with open_store(settings) as store:
            assert store.dataset_count() > 0
    assert not settings.data.exists()


def test_a_limit_of_nothing_is_refused() -> None:
    with pytest.raises(ValueError, match="greater than 0"):
        Settings(store_rate_max=0)
