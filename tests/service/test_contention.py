"""Many claim at once, over HTTP and by the commands: one winner each, on both databases."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import sqlalchemy as sa
from service_world import World, bring, make_gold, op_name, running

from dagster_l2.cli import _run
from dagster_l2.ledger import State
from dagster_l2.settings import Settings

OPS, CLIENTS, TRIES, COMMANDS = 50, 32, 8, 2


@pytest.fixture(params=["sqlite", "postgresql"])
def crowd(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[World]:
    url = None
    if request.param == "postgresql":
        url = request.getfixturevalue("postgres_url")
    settings = Settings(data_dir=tmp_path, database_url=url, db_schema="service_crowd")
    make_gold(settings.gold, OPS)
    with running(settings) as world:
        for number in range(OPS):
            bring(world.ledger, op_name(number), State.PREPROCESSED)
        yield world
    if url is not None:
        engine = sa.create_engine(url)
        with engine.begin() as connection:
            connection.exec_driver_sql('DROP SCHEMA "service_crowd" CASCADE')
        engine.dispose()


def test_thirty_two_clients_and_commands_claim_fifty_ops_and_each_has_one_winner(crowd, monkeypatch):
    monkeypatch.setenv("L2_DATA_DIR", str(crowd.settings.data))
    monkeypatch.setenv("L2_DB_SCHEMA", crowd.settings.db_schema)
    if crowd.settings.database_url is not None:
        monkeypatch.setenv("L2_DATABASE_URL", crowd.settings.database_url)
    for number in range(CLIENTS):
        crowd.token(f"client{number}", "scientist")

    def over_http(number: int) -> list[tuple[str, str]]:
        won = []
        with crowd.client(f"client{number}") as client:
            for op in [(number * 3 + step * 7) % OPS for step in range(TRIES)]:
                path = f"/observing-programs/{op_name(op)}/claim"
                key = {"Idempotency-Key": f"claim {op}"}
                answer = client.post(path, headers=key)
                assert answer.status_code in (200, 409), answer.text
                if answer.status_code == 200:
                    # Sent again, as by a client whose answer was cut off.
                    assert client.post(path, headers=key).text == answer.text
                    won.append((op_name(op), answer.json()["inversion_id"]))
        return won

    def by_command(number: int) -> list[tuple[str, str]]:
        won = []
        for op in random.Random(-number).sample(range(OPS), OPS // 2):
            status = _run(["claim", op_name(op), "--as", f"command{number}"])
            assert status in (0, 1)
            if status == 0:
                won.append((op_name(op), str(crowd.ledger.present(op_name(op)).inversion_id)))
        return won

    with ThreadPoolExecutor(CLIENTS + COMMANDS) as pool:
        jobs = [pool.submit(over_http, number) for number in range(CLIENTS)]
        jobs += [pool.submit(by_command, number) for number in range(COMMANDS)]
        won = [one for job in jobs for one in job.result()]
    assert Counter(op for op, _inversion in won) == Counter(op_name(number) for number in range(OPS))
    for op, inversion in won:
        steps = [(step.seq, step.to_state) for step in crowd.ledger.history(op)]
        assert steps == [
            (1, State.DISCOVERED),
            (2, State.INVERTIBLE),
            (3, State.PREPROCESSED),
            (4, State.WORKING),
        ]
        assert crowd.ledger.present(op).inversion_id == inversion
