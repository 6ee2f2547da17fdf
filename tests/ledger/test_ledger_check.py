"""The check of a database finds what was done behind the guards' back, and names it."""

from __future__ import annotations

import hashlib
from datetime import UTC, datetime
from pathlib import Path

import pytest
import sqlalchemy as sa

from dagster_l2.batch import STATE_TABLES, batch_attempts
from dagster_l2.ledger import EDGES, LedgerUnavailable, State, check_database
from dagster_l2.ledger.migrate import head

LONG_AGO = "1999-01-01T00:00:00.000000+00:00"
FAR_OFF = "2999-01-01T00:00:00.000000+00:00"


@pytest.fixture
def check(place):
    return lambda **more: check_database(place.url, schema=place.schema, others=STATE_TABLES, **more)


@pytest.fixture
def behind(sql, place):
    """A function that runs statements with no guard on a table, and puts the guards back exactly."""

    def run(table: str, *statements: str) -> None:
        if place.is_sqlite:
            query = "SELECT name, sql FROM sqlite_master WHERE type = 'trigger' AND tbl_name = :table"
            triggers = {name: made.replace(":", r"\:") for name, made in sql(query, table=table)}
            for name in triggers:
                sql(f"DROP TRIGGER {name}")
        else:
            query = (
                "SELECT tgname FROM pg_trigger WHERE tgrelid = CAST(:table AS regclass) AND NOT tgisinternal"
            )
            always = f"ALTER TABLE {{s}}{table} ENABLE ALWAYS TRIGGER "
            triggers = {name: always + name for (name,) in sql(query, table=f'"{place.schema}".{table}')}
            sql(f"ALTER TABLE {{s}}{table} DISABLE TRIGGER USER")
        for statement in (*statements, *triggers.values()):
            sql(statement)

    return run


def add_attempt(ledger):
    row = {
        "job_id": "j",
        "unit_id": "u",
        "source": "s",
        "status": "PENDING",
        "recorded_at": datetime.now(UTC),
    }
    with ledger.engine.begin() as connection:
        connection.execute(sa.insert(batch_attempts).values(row))


def test_a_ledger_that_only_the_ledger_wrote_is_in_order(ledger, bring, check):
    for state in State:
        bring(ledger, state.value, state)
    ledger.retry("Error", actor="a")
    ledger.release("Working", actor="bob")
    ledger.withdraw("Inverted", actor="ann", reason="r")
    ledger.reopen("Published", actor="ann", reason="r")
    ledger.annotate("Discovered", kind="note", actor="a", details={"text": "t"})
    add_attempt(ledger)
    told = []
    report = check(progress=lambda done, about: told.append((done, about)))
    assert (report.findings, report.remarks, report.is_in_order) == ([], [], True)
    count = sum(len(ledger.history(state.value)) for state in State)
    assert (report.ops, report.transitions) == (len(State), count)
    assert told[-1] == (count, count)


DAMAGE = {
    # OP and the state it is brought to: what is done to it, the seq and sentence that must come of it.
    "gap": (State.PUBLISHED, "DELETE FROM {t} WHERE {me} AND seq = 3", 4, "its seq follows 2, so rows"),
    "headless": (State.INVERTIBLE, "DELETE FROM {t} WHERE {me} AND seq = 1", 2, "rows before it are missing"),
    "edge": (
        State.INVERTIBLE,
        "UPDATE {t} SET to_state = 'Published', inversion_id = NULL WHERE {me} AND seq = 2",
        2,
        "there is no step from Discovered to Published",
    ),
    "stale": (
        State.PREPROCESSED,
        "UPDATE {t} SET from_state = 'NotInvertible' WHERE {me} AND seq = 3",
        3,
        "it leaves NotInvertible, but the OP was in Invertible",
    ),
    "unknown": (
        State.INVERTIBLE, "UPDATE {t} SET to_state = 'Gone' WHERE {me} AND seq = 2", 2, "'Gone' is no state"
    ),
    "detour": (
        State.ERROR,
        "INSERT INTO {t} (op_id, seq, from_state, to_state, occurred_at, recorded_at, actor, cause, details)"
        " SELECT op_id, 3, 'Error', 'Invertible', occurred_at, recorded_at, actor, cause, details FROM {t}"
        " WHERE {me} AND seq = 2",
        3,
        "it returns from Error to Invertible, but the Error came from Discovered",
    ),
    "backwards": (
        State.INVERTIBLE,
        f"UPDATE {{t}} SET occurred_at = '{LONG_AGO}' WHERE {{me}} AND seq = 2",
        2,
        "it occurred at 1999",
    ),
    "no id": (
        State.WORKING,
        "UPDATE {t} SET inversion_id = NULL WHERE {me} AND seq = 4",
        4,
        "it enters Working without an inversion id",
    ),
    "other id": (
        State.INVERTED,
        "UPDATE {t} SET inversion_id = 'inv.OTHER0' WHERE {me} AND seq = 5",
        5,
        "its inversion id is inv.OTHER0, but the OP's was inv.",
    ),
    "early id": (
        State.PREPROCESSED,
        "UPDATE {t} SET inversion_id = 'inv.OTHER0' WHERE {me} AND seq = 3",
        3,
        "it has the inversion id inv.OTHER0, but Preprocessed has none",
    ),
    "no event": (
        State.INVERTED,
        "UPDATE {t} SET details = '{{}}' WHERE {me} AND seq = 5",
        5,
        "it became Inverted without an accepted hand-over",
    ),
}  # fmt: skip


def test_each_kind_of_damage_to_a_history_is_found_and_named(ledger, bring, check, behind):
    wanted = set()
    for op_id, (state, _statement, seq, sentence) in DAMAGE.items():
        bring(ledger, op_id, state)
        wanted.add((op_id, seq, sentence))
    bring(ledger, "untouched", State.PUBLISHED)
    behind(
        "op_transitions",
        *(
            statement.format(t="{s}op_transitions", me=f"op_id = '{op_id}'")
            for op_id, (_state, statement, _seq, _sentence) in DAMAGE.items()
        ),
    )
    report = check()
    found = [(finding.op_id, finding.seq, finding.sentence) for finding in report.findings]
    for op_id, seq, sentence in wanted:
        assert any(
            found_op == op_id and found_seq == seq and sentence in told for found_op, found_seq, told in found
        ), (
            op_id,
            found,
        )
    assert {op_id for op_id, _seq, _sentence in found} == set(DAMAGE)
    assert report.found == len(found)


def test_what_only_newer_guards_refuse_is_a_remark(ledger, bring, check, behind):
    for op_id in ("late", "unordered"):
        bring(ledger, op_id, State.INVERTIBLE)
    behind(
        "op_transitions",
        f"UPDATE {{s}}op_transitions SET occurred_at = '{FAR_OFF}' WHERE op_id = 'late' AND seq = 2",
        f"UPDATE {{s}}op_transitions SET occurred_at = '{LONG_AGO}' WHERE op_id = 'unordered'",
        f"UPDATE {{s}}op_transitions SET recorded_at = '{LONG_AGO}' WHERE op_id = 'unordered' AND seq = 2",
    )
    report = check()
    assert report.is_in_order
    assert [(remark.op_id, remark.seq) for remark in report.remarks] == [("late", 2), ("unordered", 2)]
    assert "after it was recorded" in report.remarks[0].sentence
    assert "it was recorded at 1999" in report.remarks[1].sentence


def test_an_inversion_id_of_two_ops_is_found(ledger, bring, check, behind, sql):
    one = bring(ledger, "one", State.WORKING).inversion_id
    bring(ledger, "two", State.WORKING)
    sql("DROP INDEX {s}uq_op_transitions_new_inversion")
    behind(
        "op_transitions",
        f"UPDATE {{s}}op_transitions SET inversion_id = '{one}' WHERE inversion_id IS NOT NULL",
    )
    told = {(finding.op_id, finding.seq, finding.sentence) for finding in check().findings}
    given = f"its inversion id {one} was given more than once"
    assert {("one", 4, given), ("two", 4, given)} < told
    assert (None, None, "The index uq_op_transitions_new_inversion is missing.") in told


def test_rows_that_belong_to_nothing_are_found(ledger, bring, check, behind):
    inverted = bring(ledger, "inverted", State.INVERTED)
    event = inverted.details["event_id"]
    bring(ledger, "other", State.INVERTED)
    ledger.annotate("other", kind="note", actor="a", details={"text": "t"})
    behind("op_annotations", "UPDATE {s}op_annotations SET op_id = 'nobody'")
    behind(
        "science_events",
        f"UPDATE {{s}}science_events SET inversion_id = 'inv.OTHER0' WHERE event_id = '{event}'",
    )
    told = [(finding.op_id, finding.seq, finding.sentence) for finding in check().findings]
    assert told == [
        ("inverted", None, f"hand-over {event} was accepted, but no step to Inverted names it"),
        ("inverted", 5, "it became Inverted without an accepted hand-over"),
        ("nobody", None, "annotation 1 is about it, but it has no history"),
        ("inverted", None, f"hand-over {event} is about inversion inv.OTHER0, which it never had"),
    ]


def test_values_that_only_sqlite_would_store_are_found(ledger, bring, check, behind, place):
    if not place.is_sqlite:
        pytest.skip("PostgreSQL has types for them")
    for op_id in ("text", "number", "details"):
        bring(ledger, op_id, State.INVERTIBLE)
    behind(
        "op_transitions",
        "UPDATE op_transitions SET occurred_at = 'yesterday' WHERE op_id = 'text' AND seq = 2",
        "UPDATE op_transitions SET recorded_at = 7, seq = 'two' WHERE op_id = 'number' AND seq = 2",
        "UPDATE op_transitions SET details = 'none' WHERE op_id = 'details' AND seq = 2",
    )
    told = {(finding.op_id, finding.sentence) for finding in check().findings}
    assert told == {
        ("text", "its occurred_at 'yesterday' is no UTC time"),
        ("number", "its recorded_at '7' is no UTC time"),
        ("number", "its seq follows 1, so rows are missing"),
        ("details", "its details are not JSON"),
    }


def test_differences_of_the_schema_are_told_in_words(ledger, check, sql, behind, place):
    sql("ALTER TABLE {s}batch_attempts DROP COLUMN artifact")
    sql("ALTER TABLE {s}op_annotations ADD COLUMN mood text")
    sql("DROP INDEX {s}ix_science_events_op_id")
    sql("CREATE TABLE {s}diary (day text)")
    edge = "from_state = 'Published' AND to_state = 'Invertible'"
    behind(
        "op_edges",
        f"DELETE FROM {{s}}op_edges WHERE {edge}",
        "INSERT INTO {s}op_edges VALUES ('Published', 'Working')",
    )
    wanted = {
        "Column batch_attempts.artifact is missing.",
        "Column op_annotations.mood is not one of the ledger.",
        "The index ix_science_events_op_id of table science_events is missing.",
        "Table diary is not one of the ledger.",
    }
    if not place.is_sqlite:
        sql("ALTER TABLE {s}op_transitions ALTER COLUMN actor DROP NOT NULL")
        sql("ALTER TABLE {s}science_event_outcomes DROP CONSTRAINT fk_science_event_outcomes_event_id")
        check_name = sql(
            "SELECT conname FROM pg_constraint WHERE contype = 'c' AND conrelid = CAST(:table AS regclass)",
            table=f'"{place.schema}".science_event_outcomes',
        )[0][0]
        sql(f"ALTER TABLE {{s}}science_event_outcomes DROP CONSTRAINT {check_name}")
        wanted |= {
            "Column op_transitions.actor has nullable True, not False.",
            "The foreign key fk_science_event_outcomes_event_id of table science_event_outcomes is missing.",
            "The check (outcome IN ('accepted', 'refused')) of table science_event_outcomes is missing or"
            " another.",
        }
    assert {finding.sentence for finding in check().findings} == wanted
    sql("ALTER TABLE {s}batch_attempts ADD COLUMN artifact text")
    told = {finding.sentence for finding in check().findings}
    assert "The table of edges lacks the step from Published to Invertible." in told
    assert "The table of edges has a step from Published to Working that is none." in told
    assert len(EDGES) > 20


def test_a_guard_that_is_gone_weakened_or_strange_is_found(ledger, check, sql, place):
    if place.is_sqlite:
        guard = sql("SELECT sql FROM sqlite_master WHERE name = 'op_transitions_guard'")[0][0]
        sql("DROP TRIGGER op_transitions_guard")
        sql("DROP TRIGGER op_transitions_no_update")
        sql(guard.replace(":", r"\:").replace("'l2-gap", "'l2-GAP"))
        sql("CREATE TRIGGER mine AFTER INSERT ON op_annotations BEGIN SELECT 1; END")
        wanted = {
            "trigger op_transitions_no_update is missing",
            "trigger op_transitions_guard is not the one",
        }
    else:
        table = "{s}op_transitions"
        sql(f"DROP TRIGGER op_transitions_no_change ON {table}")
        sql(f"ALTER TABLE {table} ENABLE TRIGGER op_transitions_guard")
        sql("ALTER TABLE {s}op_annotations DISABLE TRIGGER op_annotations_no_change")
        sql(
            "CREATE OR REPLACE FUNCTION {s}guard_transition() RETURNS trigger LANGUAGE plpgsql AS"
            " $$ BEGIN RETURN NEW; END $$"
        )
        sql("CREATE TRIGGER mine AFTER INSERT ON {s}op_annotations EXECUTE FUNCTION {s}refuse_change()")
        sql("CREATE RULE quiet AS ON UPDATE TO {s}science_events DO INSTEAD NOTHING")
        wanted = {
            "trigger op_transitions_no_change is missing",
            "trigger op_transitions_guard is not the one that this version makes: not always enabled",
            "trigger op_annotations_no_change is not the one that this version makes: disabled",
            "function guard_transition is not the one",
            "rule quiet on science_events is not one of the ledger's",
        }
    wanted.add("trigger mine is not one of the ledger's")
    told = [finding.sentence for finding in check().findings]
    assert len(told) == len(wanted)
    assert all(any(sentence.startswith(f"The {want}") for sentence in told) for want in wanted), told


def test_ids_below_those_that_are_there_are_found(ledger, bring, check, sql, place):
    if place.is_sqlite:
        pytest.skip("SQLite draws above the highest by itself")
    bring(ledger, "op", State.INVERTIBLE)
    sequence = sql(
        "SELECT pg_get_serial_sequence(:table, 'transition_id')", table=f'"{place.schema}".op_transitions'
    )
    sql(f"SELECT setval('{sequence[0][0]}', 1)")
    (finding,) = check().findings
    assert finding.sentence == "The sequence of op_transitions.transition_id is at 1, below the highest id 2."


def test_another_revision_and_an_empty_place_are_findings(place, check, sql, ledger):
    sql("UPDATE {s}alembic_version SET version_num = '0001'")
    (finding,) = check().findings
    assert finding.sentence.startswith(f"The database is at revision 0001, this version works with {head()}")
    sql("DROP TABLE {s}alembic_version")
    (finding,) = check().findings
    assert "no ledger in it; `l2 db upgrade` makes one" in finding.sentence


def test_a_check_makes_and_changes_nothing(place, check, tmp_path):
    if not place.is_sqlite:
        assert not check().is_in_order
        engine = sa.create_engine(place.url)
        assert place.schema not in sa.inspect(engine).get_schema_names()
        engine.dispose()
        return
    with pytest.raises(LedgerUnavailable, match=r"There is no ledger in .*l2\.sqlite"):
        check()
    assert list(tmp_path.iterdir()) == []
    place.open().close()
    path = Path(place.url.removeprefix("sqlite:///"))
    before = hashlib.sha256(path.read_bytes()).hexdigest()
    assert check().is_in_order
    assert hashlib.sha256(path.read_bytes()).hexdigest() == before


def test_a_file_that_is_no_database_is_one_sentence(tmp_path):
    path = tmp_path / "l2.sqlite"
    path.write_bytes(b"no database at all" * 100)
    with pytest.raises(LedgerUnavailable, match="can't be used"):
        check_database(f"sqlite:///{path}", others=STATE_TABLES)
