"""The worlds of the tests, at the moments that they begin at."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from dagster_l2.ledger import Ledger
from dagster_l2.settings import load_settings
from tests.end_to_end.kit import Store, by_op, generated
from tests.recovery.recovery_world import World, a_row


@pytest.fixture
def world(data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[World]:
    store = Store(tmp_path, generated(3, seed=2))
    with store.served() as settings:
        for name, text in settings.items():
            monkeypatch.setenv(name, text)
        datasets = [records[0] for records in by_op(store.records.datasets).values()]
        rows = {
            f"op{number}": a_row(f"op{number}", record) for number, record in enumerate(datasets, start=1)
        }
        data.mkdir()
        with Ledger.open(load_settings().state_url) as ledger:
            yield World(data, store, ledger, rows, settings)


@pytest.fixture
def prepared(world: World) -> World:
    world.decide()
    world.prepare()
    return world
