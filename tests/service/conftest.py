"""One running service for the tests that only need some OP of their own, on SQLite."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from service_world import World, bring, make_gold, op_name, running

from dagster_l2.ledger import State
from dagster_l2.settings import Settings

_numbers = itertools.count(100)


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    """A service over 20 OPs of gold; the ledger has one in each state."""
    data: Path = tmp_path_factory.mktemp("service") / "data"
    make_gold(data / "l2.duckdb", 20)
    with running(Settings(data_dir=data)) as world:
        for number, state in enumerate(("DISCOVERED", "PREPROCESSED", "WORKING", "INVERTED", "PUBLISHED")):
            bring(world.ledger, op_name(number), State[state])
        yield world


@pytest.fixture
def new_op(world: World) -> Callable[..., str]:
    """A function that makes an OP of the test's own and names it."""

    def make(state: State = State.PREPROCESSED, scientist: str = "bob") -> str:
        op_id = op_name(next(_numbers))
        bring(world.ledger, op_id, state, scientist)
        return op_id

    return make
