"""What the database refuses by itself, to anybody with a connection: changes, gaps, stale and false rows."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
import sqlalchemy as sa

from dagster_l2.batch.tables import batch_attempts
from dagster_l2.ledger import Delivery, Request, State
from dagster_l2.ledger.guards import APPEND_ONLY, NUMBERED, names
from dagster_l2.ledger.tables import metadata

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
    ledger.record_step(
        "op", inversion_id="inv.A", subject="inv.A", step="s", details={}, actor="a", run_id=None
    )
    ledger.refuse_delivery(Delivery("d", "file", "x.json"), "no JSON", "body")
    token, _secret = ledger.add_token("bob", "reader", actor="ann")
    ledger.revoke_token(token.token_id, actor="ann")
    ledger.once(Request("bob", "key", "a note")).note("op", "t", actor="bob")
    ledger.raise_alert("cause", kind="overdue", ways=["mail"], details={})
    ledger.record_alert_delivery(ledger.undelivered("mail", limit=1)[0].alert_id, "mail")
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


@pytest.mark.parametrize("seq", [None, -1, 0, 1, 2, 4, 2**31 - 1])
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
    with pytest.raises(sa.exc.IntegrityError, match="l2-form"):
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


def test_nothing_is_recorded_out_of_order_or_before_it_occurred(ledger, bring, sql, row):
    since = bring(ledger, "op", State.INVERTIBLE).recorded_at
    tick, later = timedelta(microseconds=1), since + timedelta(days=1)
    for times in (
        {"occurred_at": since, "recorded_at": since - tick},
        {"occurred_at": later, "recorded_at": later - tick},
        {"occurred_at": datetime(2999, 1, 1, tzinfo=UTC), "recorded_at": since},
    ):
        with pytest.raises(sa.exc.IntegrityError, match="l2-recorded"):
            sql(ROW, **row("op", "Preprocessed", **times))
    sql(ROW, **row("op", "Preprocessed", occurred_at=since, recorded_at=later))
    # The ledger's clock is behind that by a day now, and goes on nevertheless.
    assert ledger.append("op", State.INVERTIBLE, actor="a", cause="c").recorded_at == later


def test_rows_of_one_statement_are_judged_one_after_the_other(ledger, bring, sql, place):
    first = bring(ledger, "op", State.INVERTIBLE)
    moment = first.since.isoformat(timespec="microseconds")
    value = f"('op', {{}}, '{{}}', '{{}}', '{moment}', '{moment}', 'sql', 'sql', '{{{{}}}}')"
    into = (
        "INSERT INTO {s}op_transitions"
        " (op_id, seq, from_state, to_state, occurred_at, recorded_at, actor, cause, details) VALUES "
    )

    def together(*steps):
        sql(into + ", ".join(value.format(*step) for step in steps))

    right = (3, "Invertible", "Preprocessed")
    for wrong in (right, (5, "Preprocessed", "Invertible"), (4, "Invertible", "NotInvertible")):
        with pytest.raises(sa.exc.IntegrityError, match="l2-"):
            together(right, wrong)
        assert ledger.present("op").seq == 2
    together(right, (4, "Preprocessed", "Invertible"))
    assert [step.to_state for step in ledger.history("op")][2:] == ["Preprocessed", "Invertible"]


def test_no_row_takes_the_place_of_another_by_its_seq(ledger, bring, sql, row, place):
    """By a key that is not the primary one; SQLite tells no trigger of a row that it replaces."""
    bring(ledger, "op", State.PREPROCESSED)
    before = ledger.history("op")
    twice = row("op", "Preprocessed", seq=3, from_state="Invertible", inversion_id=None)
    conflict = " ON CONFLICT (op_id, seq) DO UPDATE SET cause = 'other'"
    statements = [ROW + conflict, ROW + " ON CONFLICT DO NOTHING"]
    if place.is_sqlite:
        statements += [ROW.replace("INSERT", f"INSERT OR {how}") for how in ("REPLACE", "IGNORE", "FAIL")]
    else:
        statements.append(
            "MERGE INTO {s}op_transitions t USING (SELECT 'op' AS op_id) s ON t.op_id = s.op_id"
            " WHEN MATCHED THEN UPDATE SET cause = 'other'"
        )
    for statement in statements:
        for recursive in ("ON", "OFF") if place.is_sqlite else ("",):
            if place.is_sqlite:
                sql(f"PRAGMA recursive_triggers = {recursive}")
            with pytest.raises(sa.exc.IntegrityError, match="l2-"):
                sql(statement, **(twice if ":seq" in statement else {}))
    assert ledger.history("op") == before


def test_rows_copied_in_are_judged_too(ledger, bring, place):
    if place.is_sqlite:
        pytest.skip("SQLite has no COPY")
    present = bring(ledger, "op", State.INVERTIBLE)
    copy = (
        f'COPY "{place.schema}".op_transitions (op_id, seq, from_state, to_state, occurred_at, recorded_at,'
        " actor, cause, details) FROM STDIN"
    )
    for end in ("Published", "Preprocessed"):
        values = ("op", 3, "Invertible", end, present.since, present.since, "copy", "copy", "{}")
        with ledger.engine.connect() as connection, connection.connection.cursor() as cursor:
            if end == "Published":
                with pytest.raises(Exception, match="l2-edge"), cursor.copy(copy) as rows:
                    rows.write_row(values)
            else:
                with cursor.copy(copy) as rows:
                    rows.write_row(values)
                connection.connection.commit()
    assert [step.to_state for step in ledger.history("op")][2:] == ["Preprocessed"]


@pytest.mark.parametrize("table", NUMBERED)
def test_a_number_is_never_below_those_given_nor_the_last_possible(filled, sql, contents, place, table):
    """One that is given lower would be missed by exports; the last possible would end the table."""
    if not place.is_sqlite and table != "op_transitions":
        pytest.skip("the numbers of PostgreSQL come from its sequence")
    key = APPEND_ONLY[table]
    others = [column.name for column in metadata_of(table).c if column.name != key]
    # A new OP's first row, as far as the table has states.
    unique = ("op_id", "subject", "delivery_id", "cause", "way")
    changed = {name: "'new'" for name in unique if name in others}
    names = ", ".join(others)
    values = ", ".join(changed.get(name, name) for name in others)
    first = "WHERE seq = 1" if table == "op_transitions" else ""
    before = contents()
    for number in (-1, 0, 1, 2**53, 2**63 - 1) if place.is_sqlite else (-1, 0, 2**53):
        with pytest.raises(sa.exc.IntegrityError, match="l2-number"):
            sql(
                f"INSERT INTO {{s}}{table} ({key}, {names}) SELECT {number}, {values}"
                f" FROM {{s}}{table} {first} LIMIT 1"
            )
    assert contents() == before
    sql(f"INSERT INTO {{s}}{table} ({names}) SELECT {values} FROM {{s}}{table} {first} LIMIT 1")


def metadata_of(table):
    return batch_attempts if table == "batch_attempts" else metadata.tables[table]


def test_no_row_is_taken_that_could_not_be_read_back(ledger, bring, sql, row, place):
    bring(ledger, "op", State.INVERTIBLE)
    wrong = [{"details": details} for details in ("[]", "null", '"text"', "1")]
    wrong += [{"actor": ""}, {"cause": ""}]
    if place.is_sqlite:
        blob = b"x"
        wrong += [{"details": details} for details in ("", "{", "{'a': 1}", b"{}")]
        wrong += [{name: blob} for name in ("actor", "cause", "run_id", "rule_version", "inputs_hash")]
        wrong += [
            {"occurred_at": time, "recorded_at": time}
            for time in (
                "2999-02-30T00:00:00.000000+00:00",
                "2999-01-01T25:00:00.000000+00:00",
                "2999-01-01t00:00:00.000000+00:00",
                "2999-01-01T00:00:00.00000x+00:00",
                "2999-01-01T00:00:00.000000+01:00",
                "9999-12-31T23:59:59.999999+00:00",
                b"2999-01-01T00:00:00.000000+00:00",
            )
        ]
    else:
        wrong += [{"occurred_at": time, "recorded_at": time} for time in ("infinity", "9999-12-31 23:59Z")]
    statement = """
        INSERT INTO {s}op_transitions (op_id, seq, from_state, to_state, occurred_at, recorded_at, actor,
            cause, run_id, rule_version, inputs_hash, details)
        VALUES (:op_id, :seq, :from_state, :to_state, :occurred_at, :recorded_at, :actor, :cause, :run_id,
            :rule_version, :inputs_hash, :details)
    """
    right = row("op", "Preprocessed", actor="a", cause="c", run_id="r", rule_version="1", inputs_hash="h")
    first = {**right, "seq": 1, "from_state": None, "to_state": "Discovered"}
    wrong_first = [{"op_id": ""}, *([{"op_id": b"op"}] if place.is_sqlite else [])]
    for base, changes in ((right, wrong), (first, wrong_first)):
        for changed in changes:
            with pytest.raises(sa.exc.IntegrityError, match="l2-form"):
                sql(statement, **{**base, **changed})
    assert list(ledger.present_all()) == ["op"]
    sql(statement, **right)
    assert ledger.present("op").state is State.PREPROCESSED


def test_an_outcome_needs_its_event_and_a_known_word(ledger, bring, sql, place):
    bring(ledger, "op", State.WORKING)
    event = ledger.submit_ready("op", products="/p", commit_hash="c", actor="bob")
    statement = "INSERT INTO {s}science_event_outcomes VALUES (:id, :word, NULL, :now, 'a', NULL, :details)"
    now = "2026-01-01T00:00:00.000000+00:00" if place.is_sqlite else datetime.now(UTC)
    for event_id, word in (("no such event", "accepted"), (event.event_id, "perhaps")):
        with pytest.raises(sa.exc.IntegrityError):
            sql(statement, id=event_id, word=word, now=now, details="{}")
    assert ledger.pending_events() == [event]
