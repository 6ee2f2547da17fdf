"""What the database refuses by itself, to anybody with a connection: changes, gaps, stale and false rows."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
import sqlalchemy as sa

from dagster_l2.batch.tables import batch_attempts
from dagster_l2.ledger import State
from dagster_l2.ledger.guards import APPEND_ONLY, names

TABLES = [*APPEND_ONLY, "op_edges"]
REFUSED = "l2-append-only|l2-edges"


@pytest.fixture
def filled(ledger, bring):
    """A ledger with a row in every table."""
    bring(ledger, "op", State.INVERTED)
    ledger.annotate("op", kind="note", actor="a", details={"text": "t"})
    row = {
        "job_id": "j",
        "unit_id": "u",
        "source": "s",
        "status": "PENDING",
        "recorded_at": datetime.now(UTC),
    }
    with ledger.engine.begin() as connection:
        connection.execute(sa.insert(batch_attempts).values(row))
    return ledger


@pytest.fixture
def contents(sql):
    return lambda: {table: sorted(map(str, sql(f"SELECT * FROM {{s}}{table}"))) for table in TABLES}


@pytest.mark.parametrize("table", TABLES)
def test_no_row_is_updated_or_deleted(filled, sql, contents, table):
    before = contents()
    assert before[table]
    key = APPEND_ONLY.get(table, "to_state")
    for statement in (
        f"UPDATE {{s}}{table} SET {key} = {key}",
        f"DELETE FROM {{s}}{table}",
        f"DELETE FROM {{s}}{table} WHERE {key} IS NOT NULL",
    ):
        with pytest.raises(sa.exc.IntegrityError, match=REFUSED):
            sql(statement)
    assert contents() == before


@pytest.mark.parametrize("table", TABLES)
def test_no_table_is_truncated(filled, sql, contents, place, table):
    if place.is_sqlite:
        pytest.skip("SQLite has no TRUNCATE")
    before = contents()
    for how in ("", " CASCADE", " RESTART IDENTITY CASCADE"):
        with pytest.raises(sa.exc.DBAPIError, match=f"{REFUSED}|referenced in a foreign key"):
            sql(f"TRUNCATE {{s}}{table}{how}")
    # A replication role switches ordinary triggers off.
    with filled.engine.connect() as connection:
        connection.exec_driver_sql("SET LOCAL session_replication_role = replica")
        with pytest.raises(sa.exc.IntegrityError, match=REFUSED):
            connection.exec_driver_sql(f'DELETE FROM "{place.schema}".{table}')
    assert contents() == before


@pytest.mark.parametrize("table", [*APPEND_ONLY])
def test_no_row_is_replaced_by_its_key(filled, sql, contents, place, table):
    before = contents()
    key = APPEND_ONLY[table]
    if place.is_sqlite:
        statements = [
            f"{verb} INTO {table} SELECT * FROM {table} LIMIT 1"
            for verb in ("REPLACE", "INSERT OR REPLACE", "INSERT OR IGNORE")
        ]
        statements.append(f"UPDATE OR REPLACE {table} SET {key} = {key}")
    else:
        statements = [
            f"INSERT INTO {{s}}{table} OVERRIDING SYSTEM VALUE SELECT * FROM {{s}}{table} LIMIT 1"
            f" ON CONFLICT DO UPDATE SET {key} = excluded.{key}".replace(
                "ON CONFLICT", f"ON CONFLICT ({key})"
            )
        ]
    for statement in statements:
        with pytest.raises(sa.exc.IntegrityError, match="l2-"):
            sql(statement)
    assert contents() == before


def test_the_table_of_edges_takes_no_new_edge(filled, sql, contents):
    before = contents()
    with pytest.raises(sa.exc.IntegrityError, match="l2-edges"):
        sql("INSERT INTO {s}op_edges VALUES ('Published', 'Working')")
    assert contents() == before


def test_all_guards_are_in_place(ledger, sql, place):
    if place.is_sqlite:
        found = sql("SELECT name FROM sqlite_master WHERE type = 'trigger'")
        assert {name for (name,) in found} == names("sqlite")
    else:
        query = (
            "SELECT tgname, tgenabled FROM pg_trigger JOIN pg_class ON pg_class.oid = tgrelid"
            " WHERE relnamespace = CAST(:schema AS regnamespace) AND NOT tgisinternal"
        )
        assert set(sql(query, schema=place.schema)) == {(name, "A") for name in names("postgresql")}


ROW = """
    INSERT INTO {s}op_transitions (op_id, seq, from_state, to_state, occurred_at, recorded_at, actor, cause,
        inversion_id, details)
    VALUES (:op_id, :seq, :from_state, :to_state, :occurred_at, :recorded_at, 'sql', 'sql', :inversion_id,
        :details)
"""


@pytest.fixture
def row(ledger, place):
    """A function that makes the next row of an OP, right but for what is changed."""

    def make(op_id: str, to_state: str, **changed: object) -> dict[str, object]:
        present = ledger.present(op_id)
        values = {
            "op_id": op_id,
            "seq": present.seq + 1,
            "from_state": present.state,
            "to_state": to_state,
            "occurred_at": present.since,
            "recorded_at": present.since,
            "inversion_id": present.inversion_id,
            "details": "{}",
            **changed,
        }
        for name in ("occurred_at", "recorded_at"):
            if place.is_sqlite and isinstance(values[name], datetime):
                values[name] = values[name].isoformat(timespec="microseconds")
        return values

    return make


def test_a_right_row_is_taken(ledger, bring, sql, row):
    bring(ledger, "op", State.INVERTIBLE)
    sql(ROW, **row("op", "Preprocessed"))
    assert ledger.present("op").state is State.PREPROCESSED


@pytest.mark.parametrize("seq", [-1, 0, 1, 2, 4, 2**31 - 1])
def test_a_gap_or_a_used_seq_is_refused(ledger, bring, sql, row, seq):
    bring(ledger, "op", State.INVERTIBLE)  # seq 2
    with pytest.raises(sa.exc.IntegrityError, match="l2-gap"):
        sql(ROW, **row("op", "Preprocessed", seq=seq))
    assert len(ledger.history("op")) == 2


@pytest.mark.parametrize("stale", ["Discovered", "Preprocessed", None])
def test_a_from_state_that_is_not_the_present_one_is_refused(ledger, bring, sql, row, stale):
    bring(ledger, "op", State.INVERTIBLE)
    for end in ("Invertible", "NotInvertible", "Discovered", "Working"):
        with pytest.raises(sa.exc.IntegrityError, match="l2-stale"):
            sql(ROW, **row("op", end, from_state=stale))


def test_time_does_not_run_backwards(ledger, bring, sql, row):
    since = bring(ledger, "op", State.INVERTIBLE).since
    with pytest.raises(sa.exc.IntegrityError, match="l2-time"):
        sql(ROW, **row("op", "Preprocessed", occurred_at=since - timedelta(microseconds=1)))
    sql(ROW, **row("op", "Preprocessed", occurred_at=since))


@pytest.mark.parametrize("time", ["yesterday", "2999-01-01", "2999-01-01T00:00:00", "9"])
def test_sqlite_takes_no_time_that_would_sort_wrongly(ledger, bring, sql, row, place, time):
    if not place.is_sqlite:
        pytest.skip("PostgreSQL has a type for it")
    bring(ledger, "op", State.INVERTIBLE)
    with pytest.raises(sa.exc.IntegrityError, match="l2-time"):
        sql(ROW, **row("op", "Preprocessed", occurred_at=time))


def test_an_inversion_id_is_there_from_working_on(ledger, bring, sql, row):
    bring(ledger, "prepared", State.PREPROCESSED)
    working = bring(ledger, "working", State.WORKING)
    bring(ledger, "inverted", State.INVERTED)
    for missing in (None, ""):
        for op_id, end in (("prepared", "Working"), ("working", "Inverted"), ("inverted", "Published")):
            with pytest.raises(sa.exc.IntegrityError, match="l2-inversion"):
                sql(ROW, **row(op_id, end, inversion_id=missing))
    with pytest.raises(sa.exc.IntegrityError, match="l2-inversion"):
        sql(ROW, **row("working", "Inverted", inversion_id="inv.OTHER0"))
    with pytest.raises(sa.exc.IntegrityError, match="l2-inversion"):
        sql(ROW, **row("working", "Preprocessed", inversion_id=working.inversion_id))


def test_an_inversion_id_belongs_to_one_op_for_ever(ledger, bring, sql, row, place):
    taken = bring(ledger, "one", State.WORKING).inversion_id
    ledger.release("one", actor="bob")
    bring(ledger, "two", State.PREPROCESSED)
    refused = "l2-exists" if place.is_sqlite else "uq_op_transitions_new_inversion"
    for op_id in ("one", "two"):
        with pytest.raises(sa.exc.IntegrityError, match=refused):
            sql(ROW, **row(op_id, "Working", inversion_id=taken))
    if place.is_sqlite:
        with pytest.raises(sa.exc.IntegrityError, match=refused):
            sql(ROW.replace("INSERT", "REPLACE"), **row("two", "Working", inversion_id=taken))
    assert [row.inversion_id for row in ledger.history("one")].count(taken) == 1


def test_an_outcome_needs_its_event_and_a_known_word(ledger, bring, sql, place):
    bring(ledger, "op", State.WORKING)
    event = ledger.submit_ready("op", products="/p", commit_hash="c", actor="bob")
    statement = "INSERT INTO {s}science_event_outcomes VALUES (:id, :word, NULL, :now, 'a', NULL, :details)"
    now = "2026-01-01T00:00:00.000000+00:00" if place.is_sqlite else datetime.now(UTC)
    for event_id, word in (("no such event", "accepted"), (event.event_id, "perhaps")):
        with pytest.raises(sa.exc.IntegrityError):
            sql(statement, id=event_id, word=word, now=now, details="{}")
    assert ledger.pending_events() == [event]
