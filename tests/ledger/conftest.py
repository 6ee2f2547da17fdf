"""Each test that takes ``ledger`` or ``place`` runs twice: on SQLite and on PostgreSQL."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import sqlalchemy as sa

from dagster_l2.ledger import Ledger, Present, State

_schemas = itertools.count(1)


@dataclass(frozen=True)
class Place:
    """Where a ledger lies; opens as many ledgers on it as a test wants."""

    url: str
    schema: str

    @property
    def is_sqlite(self) -> bool:
        return self.url.startswith("sqlite")

    def open(self) -> Ledger:
        return Ledger.open(self.url, schema=self.schema)


@pytest.fixture(params=["sqlite", "postgresql"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Place]:
    if request.param == "sqlite":
        yield Place(f"sqlite:///{tmp_path / 'l2.sqlite'}", "l2")
        return
    url = request.getfixturevalue("postgres_url")
    schema = f"ledger_{next(_schemas)}"
    yield Place(url, schema)
    engine = sa.create_engine(url)
    with engine.begin() as connection:
        connection.exec_driver_sql(f'DROP SCHEMA IF EXISTS "{schema}" CASCADE')
    engine.dispose()


@pytest.fixture
def ledger(place: Place) -> Iterator[Ledger]:
    with place.open() as opened:
        yield opened


PACKAGE = {
    "package": "inputs/op/inputs.json",
    "instrument_program_id": "ip_1",
    "dataset_ids": ["AAAAA", "BBBBB", "CCCCC"],
    "spectral_lines": ["Fe I (630.15 nm)"],
    "buckets": ["data"],
}


@pytest.fixture
def package() -> dict[str, object]:
    """The details of an input package."""
    return dict(PACKAGE)


@pytest.fixture
def bring() -> Callable[..., Present]:
    """A function that brings a new OP to a state by the ledger's own operations."""
    return bring_to


def bring_to(
    ledger: Ledger, op_id: str, state: State, *, scientist: str = "bob", hash_: str = "h1"
) -> Present:
    ledger.append(op_id, State.DISCOVERED, actor="scan", cause="found", inputs_hash=hash_, rule_version="1")
    if state is State.NOT_INVERTIBLE:
        ledger.append(op_id, state, actor="verdict", cause="failed", inputs_hash=hash_)
    elif state is State.ERROR:
        ledger.fail(op_id, step="scan", error_class="transient", message="m", actor="x", run_id=None)
    elif state is not State.DISCOVERED:
        ledger.append(op_id, State.INVERTIBLE, actor="verdict", cause="passed", inputs_hash=hash_)
    if state in (State.PREPROCESSED, State.WORKING, State.INVERTED, State.PUBLISHED):
        ledger.record_preprocessed(op_id, inputs_hash=hash_, details=PACKAGE, run_id="r1", actor="pipeline")
    if state in (State.WORKING, State.INVERTED, State.PUBLISHED):
        ledger.claim(op_id, actor=scientist)
    if state in (State.INVERTED, State.PUBLISHED):
        event = ledger.submit_ready(op_id, products="/products", commit_hash="abc", actor=scientist)
        ledger.settle(event, lambda _event: {"products": ["a.fits"]}, run_id="r2", actor="pipeline")
    if state is State.PUBLISHED:
        inversion = ledger.present(op_id).inversion_id
        assert inversion is not None
        details = {"bucket": "data", "dataset_ids": [], "spectral_lines": []}
        ledger.published(op_id, inversion_id=inversion, details=details, actor="pipeline", run_id="r3")
    return ledger.present(op_id)


@pytest.fixture
def sql(ledger: Ledger, place: Place) -> Callable[..., list[tuple[object, ...]]]:
    """A function that runs plain SQL past the ledger; ``{s}`` stands for the schema and its dot."""
    prefix = "" if place.is_sqlite else f'"{place.schema}".'

    def run(statement: str, **values: object) -> list[tuple[object, ...]]:
        with ledger.engine.begin() as connection:
            result = connection.execute(sa.text(statement.replace("{s}", prefix)), values)
            return [tuple(row) for row in result] if result.returns_rows else []

    return run
