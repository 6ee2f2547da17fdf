"""What a person sees of the ledger itself: looking back, `l2 db`, and `l2 ledger`."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from dagster_l2.base.errors import WrongUse
from dagster_l2.cli.past import lasted, parse_time
from dagster_l2.ledger import Ledger, State
from dagster_l2.ledger.migrate import head
from tests.end_to_end.kit import Pipeline

FIRST = datetime(2026, 1, 1, tzinfo=UTC)


@pytest.fixture
def pipeline(tmp_path: Path) -> Pipeline:
    """A data folder with a ledger of two OPs, whose steps occurred in January."""
    pipeline = Pipeline(tmp_path)
    with ledger_of(pipeline) as ledger:
        steps = ((State.DISCOVERED, 0), (State.INVERTIBLE, 1.5), (State.PREPROCESSED, 4.625))
        for op_id, shift in (("one", 0), ("two", 10)):
            for state, day in steps[: 2 if op_id == "two" else 3]:
                moment = FIRST + timedelta(days=day + shift)
                ledger.append(op_id, state, actor="ann", cause="c", occurred_at=moment)
    return pipeline


def ledger_of(pipeline: Pipeline) -> Ledger:
    pipeline.data.mkdir(exist_ok=True)
    return Ledger.open(f"sqlite:///{pipeline.data / 'l2.sqlite'}")


def test_looking_back_shows_what_was_then(pipeline: Pipeline) -> None:
    assert pipeline.here("status", "--json").json["states"] == {"Invertible": 1, "Preprocessed": 1}
    then = pipeline.here("status", "--as-of", "2026-01-11", "--json").json
    assert then["states"] == {"Discovered": 1, "Preprocessed": 1}
    assert then["as_of"] == "2026-01-11T00:00:00+00:00"
    assert "As it was at 2026-01-03 00:00:00 UTC" in pipeline.here("status", "--as-of", "2026-01-03").out
    assert "no OP was there yet" in pipeline.here("status", "--known-at", "2026-01-11").out
    # An hour earlier in UTC than it reads.
    assert pipeline.here("show", "one", "--as-of", "2026-01-02T12:59+01:00", "--json").json["state"] == {
        "state": "Discovered",
        "since": "2026-01-01T00:00:00+00:00",
        "actor": "ann",
        "cause": "c",
        "inversion_id": None,
        "claimed_by": None,
        "inputs_changed": False,
    }
    assert "Invertible" in pipeline.here("show", "one", "--as-of", "2026-01-02 12:00").out
    error = pipeline.here("show", "two", "--as-of", "2026-01-02", code=1).error
    assert error.startswith(
        "The ledger had no OP two at 2026-01-02 00:00:00 UTC; its history begins at 2026-01-11"
    )


def test_notes_and_hand_overs_are_those_of_then(pipeline: Pipeline) -> None:
    with ledger_of(pipeline) as ledger:
        ledger.claim("one", actor="bob")
        event = ledger.submit_ready("one", products="/p", commit_hash="c", actor="bob")
        noted = ledger.note("one", "look at this", actor="ann")
        ledger.settle(event, lambda _event: {"products": []}, run_id=None, actor="pipeline")

    def show(moment: datetime) -> dict[str, object]:
        content: dict[str, object] = pipeline.here(
            "show", "one", "--as-of", moment.isoformat(), "--json"
        ).json
        return content

    before, then = show(event.received_at - timedelta(microseconds=1)), show(noted.recorded_at)
    now = pipeline.here("show", "one", "--json").json
    assert [content["hand_overs"] == [] for content in (before, then, now)] == [True, False, False]
    assert [content["hand_overs"][0]["outcome"] for content in (then, now)] == ["waiting", "accepted"]
    assert [len(content["people"]["notes"]) for content in (before, then, now)] == [0, 1, 1]
    assert [content["state"]["state"] for content in (before, then, now)] == [
        "Working",
        "Working",
        "Inverted",
    ]


@pytest.mark.parametrize("time", ["soon", "", "2026-13-01", "2026-01-01T25:00", "0001-01-01T00:00+05:00"])
def test_a_wrong_time_is_one_sentence(pipeline: Pipeline, time: str) -> None:
    for arguments in (("status", "--as-of"), ("show", "one", "--known-at")):
        assert "is no time; write it like 2026-11-21" in pipeline.here(*arguments, time, code=2).error
    with pytest.raises(WrongUse):
        parse_time(time)


def test_a_history_tells_how_long_each_state_lasted(pipeline: Pipeline) -> None:
    rows = pipeline.here("history", "one", "--json").json
    assert [row["duration_s"] for row in rows] == [1.5 * 86400, 3.125 * 86400, None]
    assert [row["ended_at"] for row in rows] == [rows[1]["occurred_at"], rows[2]["occurred_at"], None]
    lines = pipeline.here("history", "one").out.splitlines()
    assert all("ann" in line for line in lines[1:])
    assert " 1 d 12 h " in lines[1]
    assert " 3 d 3 h " in lines[2]
    assert " so far " in lines[3]
    assert [lasted(timedelta(seconds=seconds)) for seconds in (0, 59.9, 60, 3661, 86400, 86460)] == [
        "0 s", "59 s", "1 min", "1 h 1 min", "1 d", "1 d"
    ]  # fmt: skip


def test_upgrade_says_from_where_to_where_and_check_what_is_wrong(tmp_path: Path) -> None:
    pipeline = Pipeline(tmp_path)
    assert "There is no ledger in" in pipeline.here("db", "check", code=1).error
    assert not pipeline.data.exists()
    first, second = pipeline.here("db", "upgrade").out, pipeline.here("db", "upgrade").out
    assert f"was upgraded from nothing to {head()}" in first
    assert f"is already at revision {head()}" in second
    with ledger_of(pipeline) as ledger:
        for number in range(60):
            ledger.append(f"op {number:02}", State.DISCOVERED, actor="a", cause="c")
            ledger.append(f"op {number:02}", State.INVERTIBLE, actor="a", cause="c")
        assert "60 OPs, 120 transitions: in order" in pipeline.here("db", "check").out
        with ledger.engine.begin() as connection:
            connection.exec_driver_sql("DROP TRIGGER op_transitions_no_update")
            connection.exec_driver_sql("UPDATE op_transitions SET to_state = 'Published' WHERE seq = 2")
    done = pipeline.here("db", "check", code=1)
    assert "The trigger op_transitions_no_update is missing." in done.error
    assert "(and 60 more)" in done.error
    assert "… and 11 more." in done.out
    assert "there is no step from Discovered to Published" in done.out
    report = pipeline.here("db", "check", "--json", code=1).json
    assert (report["is_in_order"], report["found"], len(report["findings"])) == (False, 61, 61)
    assert report["findings"][1]["op_id"] == "op 00"


def test_a_ledger_moves_from_one_data_folder_to_another(pipeline: Pipeline, tmp_path: Path) -> None:
    other, file = Pipeline(tmp_path / "other"), tmp_path / "ledger.jsonl"
    other.home.mkdir()
    exported = pipeline.here("ledger", "export", str(file), "--json").json
    assert exported["rows"] == 5
    assert pipeline("ledger", "export", "-").out == file.read_text()
    assert (
        f"5 rows are imported, last hash {exported['hash']}." in other.here("ledger", "import", str(file)).out
    )
    assert "has the 5 rows of" in other.here("ledger", "import", str(file)).out
    assert other.here("history", "one", "--json").out == pipeline.here("history", "one", "--json").out
    file.write_text(file.read_text().replace("ann", "eve", 1))
    error = other.here("ledger", "import", str(file), code=1).error
    assert error.startswith(f"Line 2 of {file} is not the one that was written there")
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith(".")] == []
