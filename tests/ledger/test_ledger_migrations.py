"""The schema of the state database: from empty, twice, by several at once, equal to the tables."""

from __future__ import annotations

import hashlib
import subprocess
import sys
from contextlib import contextmanager
from datetime import UTC, datetime

import pytest
import sqlalchemy as sa
from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory

from dagster_l2.batch import STATE_TABLES, batch_attempts
from dagster_l2.ledger import EDGES, Ledger, LedgerUnavailable, State, guards, successors
from dagster_l2.ledger import tables as ledger_tables
from dagster_l2.ledger.database import reach_database
from dagster_l2.ledger.migrate import VERSION_TABLE, config, head, revision
from dagster_l2.ledger.migrations import guards_0001
from dagster_l2.ledger.shape import shape_findings

LATER = (*guards.OF_0004, *guards.OF_0005, *guards.OF_0006)
"""The tables that came after those of revision 0003."""

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
    for table in (*ledger_tables.metadata.sorted_tables, *STATE_TABLES):
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


@contextmanager
def at_revision(place, wanted):
    """A ledger on a new place at an older revision, with the rules of then."""
    database = reach_database(place.url, place.schema)
    with database.engine.connect().execution_options(l2_writing=True) as connection, connection.begin():
        if database.schema is not None:
            connection.execute(sa.schema.CreateSchema(database.schema))
        command.upgrade(config(connection, database.schema), wanted)
    with Ledger(database) as ledger:
        yield ledger


def contents(ledger):
    with ledger.engine.connect() as connection:
        return {
            table: connection.execute(sa.select(table)).all()
            for table in (*ledger_tables.metadata.sorted_tables, batch_attempts)
            if table.name not in ("op_edges", *LATER)
        }


def test_a_ledger_of_revision_0001_goes_on_with_all_it_has(place, bring):
    """Among it a row that 0001 took and the rules of today would not: recorded long before it occurred."""
    attempt = {"job_id": "j", "unit_id": "u", "source": "s", "status": "PENDING"}
    with at_revision(place, "0001") as ledger:
        for state in State:
            bring(ledger, state, state)
        bring(ledger, "ahead", State.DISCOVERED)
        ledger.annotate("ahead", kind="note", actor="a", details={"text": "t"})
        first = ledger.history("ahead")[0]
        row = {column.name: getattr(first, column.name) for column in ledger_tables.op_transitions.c}
        future = datetime(2999, 1, 1, tzinfo=UTC)
        row |= {"seq": 2, "from_state": "Discovered", "to_state": "Invertible", "occurred_at": future}
        del row["transition_id"]
        with ledger.engine.begin() as connection:
            connection.execute(sa.insert(ledger_tables.op_transitions), row)
            connection.execute(sa.insert(batch_attempts), attempt | {"recorded_at": datetime.now(UTC)})
        before = contents(ledger)
        states = ledger.present_all()
    assert all(before.values())
    with place.open() as ledger:
        assert contents(ledger) == before
        assert ledger.present_all() == states
        with ledger.engine.connect() as connection:
            schema = None if place.is_sqlite else place.schema
            assert revision(connection, schema) == head()
            assert shape_findings(connection, schema, STATE_TABLES) == []
        # Each goes on from where it is, by the rules of today; the time of the one ahead stands still.
        for op_id, present in states.items():
            back = present.previous_state if present.state is State.ERROR else None
            row = ledger.append(op_id, back or successors(present.state)[0], actor="a", cause="c")
            assert row.seq == present.seq + 1
        assert (row.op_id, row.occurred_at, row.recorded_at) == ("ahead", future, future)
        assert row.transition_id > max(old.transition_id for old in before[ledger_tables.op_transitions])


def test_a_ledger_of_revision_0002_goes_on_with_all_it_has_and_gets_room_for_jobs(place, bring):
    attempt = {"job_id": "j", "unit_id": "u", "source": "s", "status": "PENDING"}
    with at_revision(place, "0002") as ledger:
        bring(ledger, "op", State.PUBLISHED)
        with ledger.engine.begin() as connection:
            connection.execute(sa.insert(batch_attempts), attempt | {"recorded_at": datetime.now(UTC)})
        before = contents(ledger)
    with place.open() as ledger:
        assert contents(ledger) == before
        with ledger.engine.connect() as connection:
            schema = None if place.is_sqlite else place.schema
            assert shape_findings(connection, schema, STATE_TABLES) == []
            assert [connection.execute(sa.select(table)).all() for table in STATE_TABLES[1:]] == [[]] * 5


def test_the_newest_revision_is_the_one_alembic_finds():
    assert head() == ScriptDirectory.from_config(config()).get_current_head()


def test_guards_of_a_revision_never_change():
    """When this fails the guards changed: freeze the ones of before beside ``guards_0001``, and write a
    revision that takes them away and installs those of today; then the sums here change."""

    def checksum(statements):
        return hashlib.sha256("\n".join(statements).encode()).hexdigest()[:16]

    frozen = [*guards_0001._sqlite(), *guards_0001._postgresql('"l2".'), *map(str, guards_0001._EDGES)]
    old = [table for table in guards.APPEND_ONLY if table not in LATER]
    of_0002, newest = (
        [
            *guards.statements("sqlite", None, tables),
            *guards.statements("postgresql", "l2", tables),
            *map(str, EDGES),
        ]
        for tables in (old, tuple(guards.APPEND_ONLY))
    )
    sums = [checksum(statements) for statements in (frozen, sorted(of_0002), newest)]
    assert (head(), sums) == ("0007", ["88a40f0d3585aa31", "4cd2aff038af98b9", "a1c96f21ab6e87ab"])


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
