"""The dump: to the byte the same from either database, and nothing taken that is not as it was written."""

from __future__ import annotations

import io
import json
import signal
import subprocess
import sys
from datetime import UTC, datetime

import pytest
import sqlalchemy as sa
from alembic import command

from dagster_l2.batch import STATE_TABLES, batch_attempts
from dagster_l2.ledger import (
    BadDump,
    Delivery,
    Ledger,
    LedgerUnavailable,
    Request,
    State,
    check_database,
    guards,
)
from dagster_l2.ledger import tables as ledger_tables
from dagster_l2.ledger.chain import Chain, verify
from dagster_l2.ledger.database import reach_database
from dagster_l2.ledger.migrate import config, head, revisions

OTHERS = [batch_attempts]
ODD_IDS = ("id.1", " Ωp\t'; DROP TABLE x --", "𝔬𝔭/../" + "é" * 900, "\u202ereversed", "NULL", '"quoted"\\n')
ODD_SHARES = (0.1 + 0.2, 99.999999999999986, 5e-324, 1.7976931348623157e308, 100.0, -0.0, 2.0**53 + 2.0)
FIRST = datetime(2026, 1, 1, 0, 0, 0, 1, tzinfo=UTC)


def fill(ledger, bring):
    """Rows of every kind in every table, with what is hard to carry over."""
    for state in State:
        bring(ledger, state.value, state)
    for op_id in ODD_IDS:
        odd = {"λ": [1e-7, 123456789012345678901, None, True, 0.1], "text": "a\u2028b\x7f\x01", "": {}}
        ledger.append(op_id, State.DISCOVERED, actor="Ann Ōe", cause="c\n\n", occurred_at=FIRST, details=odd)
        ledger.annotate(op_id, kind="note", actor="x", details={"text": op_id})
    ledger.submit_ready("Working", products="/späť", commit_hash="abc", actor="bob")
    ledger.withdraw("Inverted", actor="ann", reason="r")
    details = {"é": ["\u2028", 1e-7]}
    ledger.record_step(
        "Working", inversion_id="inv.A", subject="é", step="s", details=details, actor="a", run_id=None
    )
    ledger.refuse_delivery(Delivery("𝔬𝔭", "file", "é.json"), "no JSON", "\0{")
    token, _secret = ledger.add_token("Zoë", "scientist", actor="ann")
    ledger.revoke_token(token.token_id, actor="ann")
    ledger.once(Request("Zoë", "𝔬𝔭", "{}")).note("Working", "t", actor="Zoë")
    rows = [
        {
            "job_id": "j",
            "unit_id": f"u{number}",
            "source": "s",
            "status": "DOWNLOADED",
            "query": None if number % 2 else {"day": "2026-01-01", "n": 1.5},
            "window_start": FIRST,
            "bytes": 2**62 + number,
            "availability_pct": share,
            "seconds": share,
            "recorded_at": datetime.now(UTC),
        }
        for number, share in enumerate(ODD_SHARES)
    ]
    with ledger.engine.begin() as connection:
        connection.execute(sa.insert(batch_attempts), rows)


def dumped(ledger):
    file = io.BytesIO()
    ledger.dump(file, others=OTHERS)
    return file.getvalue()


@pytest.fixture
def small(tmp_path, bring):
    """The lines of a small dump, from a ledger of its own."""
    with Ledger.open(f"sqlite:///{tmp_path / 'small.sqlite'}") as source:
        bring(source, "op", State.INVERTED)
        source.annotate("op", kind="note", actor="a", details={"text": "t"})
        return dumped(source).splitlines(keepends=True)


def test_from_one_database_to_another_and_back_to_the_byte(ledger, place, postgres_url, bring, tmp_path):
    fill(ledger, bring)
    first = dumped(ledger)
    path = tmp_path / "first.jsonl"
    path.write_bytes(first)
    away = f"sqlite:///{tmp_path / 'away.sqlite'}" if not place.is_sqlite else postgres_url
    schema = f"{place.schema}_away"
    try:
        with Ledger.open(away, schema=schema) as other:
            assert other.load(path, others=OTHERS).is_new
            assert dumped(other) == first
            assert other.present_all() == ledger.present_all()
            # What comes next draws ids above those that came in.
            other.append("Error", State.DISCOVERED, actor="a", cause="c")
            other.annotate("Error", kind="note", actor="a", details={})
            second = dumped(other)
        assert check_database(away, schema=schema, others=STATE_TABLES).findings == []
        path.write_bytes(second)
        with Ledger.open(f"sqlite:///{tmp_path / 'back.sqlite'}") as back:
            back.load(path, others=OTHERS)
            assert dumped(back) == second
            assert back.history("Error")[:-1] == ledger.history("Error")
    finally:
        if place.is_sqlite:
            engine = sa.create_engine(postgres_url)
            with engine.begin() as connection:
                connection.exec_driver_sql(f'DROP SCHEMA IF EXISTS "{schema}" CASCADE')
            engine.dispose()


def test_a_second_import_does_nothing_and_another_ledger_is_refused(ledger, small, tmp_path):
    path = tmp_path / "dump.jsonl"
    path.write_bytes(b"".join(small))
    assert ledger.load(path, others=OTHERS).is_new
    loaded = ledger.load(path, others=OTHERS)
    assert not loaded.is_new
    assert loaded.dump.rows == len(small) - 2
    assert dumped(ledger) == b"".join(small)
    ledger.annotate("op", kind="note", actor="a", details={"text": "one more"})
    before = dumped(ledger)
    with pytest.raises(
        LedgerUnavailable, match=rf"has {len(small) - 1} rows that are not those of .*dump.jsonl; import"
    ):
        ledger.load(path, others=OTHERS)
    assert dumped(ledger) == before


def test_every_byte_that_is_changed_is_found_in_its_line(small):
    verify(small, "F")
    for number, line in enumerate(small, 1):
        for position in range(0, len(line) - 1, 7):
            changed = line[:position] + bytes([line[position] ^ 1]) + line[position + 1 :]
            with pytest.raises(BadDump, match=rf"(Line|line) {number}\b"):
                verify([*small[: number - 1], changed, *small[number:]], "F")


def test_lines_that_are_lost_swapped_doubled_or_cut_are_found(small):
    count = len(small)
    for number in range(1, count):
        lost = small[: number - 1] + small[number:]
        with pytest.raises(BadDump, match=rf"Line {number} of F is not the one that was written there"):
            verify(lost, "F")
        swapped = [*small[: number - 1], small[number], small[number - 1], *small[number + 1 :]]
        with pytest.raises(BadDump, match=rf"Line {number} of F is not the one"):
            verify(swapped, "F")
        with pytest.raises(BadDump, match=rf"Line {number + 1} of F is not the one"):
            verify([*small[:number], small[number - 1], *small[number:]], "F")
        with pytest.raises(
            BadDump, match=rf"no end: it was cut off after line {number}; take the whole file"
        ):
            verify(small[:number], "F")
        torn = [*small[: number - 1], small[number - 1][:-1]]
        with pytest.raises(BadDump, match=rf"ends in the middle of line {number}"):
            verify(torn, "F")
    with pytest.raises(BadDump, match=rf"goes on after its end, at line {count + 1}"):
        verify([*small, small[-1]], "F")
    with pytest.raises(BadDump, match="F is empty"):
        verify([], "F")
    with pytest.raises(BadDump, match="Line 1 of F is not one of a ledger's dump"):
        verify([b"{}\n"], "F")


def forged(rows, revision=None):
    """A dump whose chain is right, whatever its rows are."""
    chain = Chain(revision or head())
    return b"".join([chain.first(), *(chain.row(table, row) for table, row in rows), chain.last()])


def rows_of(lines):
    contents = [json.loads(line) for line in lines[1:-1]]
    return [(content["table"], content["row"]) for content in contents]


FORGERIES = {
    "a gap": (2, {"seq": 4}, "seq does not follow the last one of the OP"),
    "no edge": (2, {"to_state": "Published"}, "there is no such step between states"),
    "a text for a number": (3, {"seq": "4"}, "its seq is '4', which the column does not take"),
    "a number for a text": (3, {"actor": 4}, "its actor is 4, which the column does not take"),
    "no zone": (3, {"occurred_at": "2026-01-01T00:00:00"}, "its occurred_at is '2026-01-01T00:00:00', which"),
    "no time": (3, {"occurred_at": "soon"}, "Invalid isoformat string: 'soon'"),
    "a NUL": (3, {"cause": "a\0b"}, "its cause is 'a\\x00b', which the column does not take"),
    "half a pair": (3, {"details": {"a": "\ud800"}}, "a text in it is not valid Unicode"),
    "a column more": (3, {"mood": "good"}, "it has not the columns of op_transitions"),
    "an outcome": (7, {"outcome": "perhaps"}, "The database refused the record"),
}  # fmt: skip


def test_a_row_that_is_refused_is_named_and_nothing_is_imported(ledger, small, tmp_path):
    path = tmp_path / "dump.jsonl"
    for name, (line, change, sentence) in FORGERIES.items():
        rows = rows_of(small)
        table, row = rows[line - 1]
        rows[line - 1] = (table, {**row, **change})
        path.write_bytes(forged(rows))
        with pytest.raises(BadDump) as caught:
            ledger.load(path, others=OTHERS)
        assert f"Line {line + 1} of {path}" in str(caught.value), name
        assert sentence in str(caught.value), name
        assert ledger.present_all() == {}
    path.write_bytes(forged([("op_edges", {"from_state": "", "to_state": "Working"})]))
    with pytest.raises(BadDump, match=r"Line 2 of .*: no table of the ledger is named"):
        ledger.load(path, others=OTHERS)
    path.write_bytes(forged(rows_of(small), revision="9999"))
    with pytest.raises(
        LedgerUnavailable, match=f"by a newer version .revision 9999, and this one knows up to {head()}"
    ):
        ledger.load(path, others=OTHERS)
    path.write_bytes(b"".join(small))
    assert ledger.load(path, others=OTHERS).is_new


def test_every_revision_has_the_columns_of_today(tmp_path):
    """When this fails a revision changed a table: let `Dumping.load` fill in what older rows lack."""
    database = reach_database(f"sqlite:///{tmp_path / 'older.sqlite'}", "l2")
    today = {table.name: set(table.c.keys()) for table in (*ledger_tables.metadata.sorted_tables, *OTHERS)}
    for revision in revisions():
        with database.engine.connect().execution_options(l2_writing=True) as connection, connection.begin():
            command.upgrade(config(connection, None), revision)
            inspector = sa.inspect(connection)
            for name in set(inspector.get_table_names()) & guards.APPEND_ONLY.keys():
                assert {column["name"] for column in inspector.get_columns(name)} == today[name], revision
    database.engine.dispose()


def test_a_dump_of_an_older_revision_is_taken(ledger, small, tmp_path):
    path = tmp_path / "dump.jsonl"
    path.write_bytes(forged(rows_of(small), revision="0003"))
    assert ledger.load(path, others=OTHERS).is_new
    assert not ledger.load(path, others=OTHERS).is_new
    assert dumped(ledger) == b"".join(small)
    ledger.annotate("op", kind="note", actor="a", details={})
    with pytest.raises(LedgerUnavailable, match="rows that are not those of"):
        ledger.load(path, others=OTHERS)


LOADER = """
import sys, time
from pathlib import Path
from dagster_l2.batch import batch_attempts
from dagster_l2.ledger import Ledger, dump

def stop(what, rows):
    if what == "imported" and rows >= 1500:
        print("there", flush=True)
        time.sleep(60)

dump._PAGE, dump._TICK = 500, 500
with Ledger.open(sys.argv[1], schema=sys.argv[2]) as ledger:
    ledger.load(Path(sys.argv[3]), others=[batch_attempts], progress=stop)
"""


def test_a_killed_import_leaves_nothing_and_the_next_one_succeeds(ledger, place, tmp_path):
    moment = "2026-01-01T00:00:00.000000+00:00"
    row = dict.fromkeys(("from_state", "inputs_hash", "rule_version", "inversion_id", "run_id"))
    row |= {"seq": 1, "to_state": "Discovered", "occurred_at": moment, "recorded_at": moment}
    row |= {"actor": "a", "cause": "c", "details": {}}
    rows = [("op_transitions", {**row, "transition_id": n, "op_id": f"op {n}"}) for n in range(1, 2001)]
    path = tmp_path / "dump.jsonl"
    path.write_bytes(forged(rows))
    loader = subprocess.Popen(
        [sys.executable, "-c", LOADER, place.url, place.schema, str(path)], stdout=subprocess.PIPE, text=True
    )
    assert loader.stdout.readline() == "there\n"
    loader.send_signal(signal.SIGKILL)
    loader.wait()
    loader.stdout.close()
    assert ledger.present_all() == {}
    assert ledger.load(path, others=OTHERS).is_new
    assert len(ledger.present_all()) == 2000
    assert dumped(ledger) == path.read_bytes()
