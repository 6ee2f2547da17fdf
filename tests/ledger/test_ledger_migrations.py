"""The schema of the state database: from empty, twice, by several at once, equal to the tables."""

from __future__ import annotations

import subprocess
import sys

import pytest
import sqlalchemy as sa
from alembic.autogenerate import compare_metadata
from alembic.runtime.migration import MigrationContext

from dagster_l2.batch import tables as batch_tables
from dagster_l2.ledger import Ledger, LedgerUnavailable, State
from dagster_l2.ledger import tables as ledger_tables
from dagster_l2.ledger.migrate import VERSION_TABLE, head

OPENER = """
import sys
from dagster_l2.ledger import Ledger, State

sys.stdin.readline()
with Ledger.open(sys.argv[1], schema=sys.argv[2]) as ledger:
    ledger.append(sys.argv[3], State.DISCOVERED, actor="a", cause="c")
"""


def test_the_migrated_schema_is_the_one_of_the_tables(ledger, place):
    schema = None if place.is_sqlite else place.schema
    wanted = sa.MetaData()
    for table in (*ledger_tables.metadata.sorted_tables, *batch_tables.metadata.sorted_tables):
        table.to_metadata(wanted, schema=schema)
    options = {
        "version_table_schema": schema,
        "include_schemas": schema is not None,
        "include_name": lambda name, kind, _parents: kind != "schema" or name == schema,
        # Made by the guards from the edges, so it is in no table.
        "include_object": lambda _o, name, _k, _r, _c: name != ledger_tables.NEW_INVERSION_INDEX,
        "compare_server_default": False,
    }
    with ledger.engine.connect() as connection:
        plain = connection.execution_options(schema_translate_map=None)
        assert compare_metadata(MigrationContext.configure(plain, opts=options), wanted) == []


def test_opening_again_changes_nothing_and_keeps_the_rows(place):
    with place.open() as ledger:
        ledger.append("op", State.DISCOVERED, actor="a", cause="c")
        before = ledger.history("op")
    for _time in range(2):
        with place.open() as ledger:
            assert ledger.history("op") == before


def test_processes_that_open_an_empty_place_at_once_all_get_in(place):
    openers = [
        subprocess.Popen(
            [sys.executable, "-c", OPENER, place.url, place.schema, f"op{number}"],
            stdin=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for number in range(4)
    ]
    for opener in openers:
        opener.stdin.write("go\n")
        opener.stdin.flush()
    for opener in openers:
        _out, errors = opener.communicate(timeout=120)
        assert opener.returncode == 0, errors
    with place.open() as ledger:
        assert sorted(ledger.present_all()) == ["op0", "op1", "op2", "op3"]


def test_everything_lies_in_the_schema_of_its_own(place):
    if place.is_sqlite:
        pytest.skip("SQLite has no schemas")

    def objects(connection):
        query = (
            "SELECT nspname, relname FROM pg_class JOIN pg_namespace n ON n.oid = relnamespace"
            " WHERE nspname NOT LIKE 'pg_%' AND nspname <> 'information_schema'"
        )
        return {tuple(row) for row in connection.exec_driver_sql(query.replace("%", "%%"))}

    engine = sa.create_engine(place.url)
    with engine.connect() as connection:
        before = objects(connection)
    place.open().close()
    with engine.connect() as connection:
        made = objects(connection) - before
    engine.dispose()
    assert {schema for schema, _name in made} == {place.schema}
    assert {"op_transitions", "batch_attempts", VERSION_TABLE} <= {name for _schema, name in made}


def test_a_schema_that_is_there_already_is_used(place):
    if place.is_sqlite:
        pytest.skip("SQLite has no schemas")
    engine = sa.create_engine(place.url)
    with engine.begin() as connection:
        connection.exec_driver_sql(f'CREATE SCHEMA "{place.schema}"')
    engine.dispose()
    with place.open() as ledger:
        assert ledger.present_all() == {}


def test_a_newer_database_is_refused(place, sql):
    sql(f"UPDATE {{s}}{VERSION_TABLE} SET version_num = '9999'")
    with pytest.raises(LedgerUnavailable, match=r"newer version \(revision 9999\); install that version"):
        place.open()
    sql(f"UPDATE {{s}}{VERSION_TABLE} SET version_num = '{head()}'")
    place.open().close()


def test_a_migration_that_breaks_leaves_nothing_behind(place, monkeypatch):
    from dagster_l2.ledger import guards

    def broken(*_args):
        raise RuntimeError("power cut")

    monkeypatch.setattr(guards, "install", broken)
    with pytest.raises(RuntimeError, match="power cut"):
        place.open()
    monkeypatch.undo()
    with place.open() as ledger:
        ledger.append("op", State.DISCOVERED, actor="a", cause="c")


def test_sqlite_is_set_up_to_survive(tmp_path):
    path = tmp_path / "new" / "folder" / "l2.sqlite"
    with Ledger.open(f"sqlite:///{path}") as ledger, ledger.engine.connect() as connection:
        found = {
            name: connection.exec_driver_sql(f"PRAGMA {name}").scalar()
            for name in ("journal_mode", "foreign_keys", "synchronous", "busy_timeout")
        }
    assert (found["journal_mode"], found["foreign_keys"], found["synchronous"]) == ("wal", 1, 2)
    assert found["busy_timeout"] >= 10_000
