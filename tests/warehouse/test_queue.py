"""The queue that people work from: a real ledger, its export, the warehouse's ranking, and what is live."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import dagster as dg
import duckdb
import pytest
import sqlalchemy as sa
from dagster_duckdb import DuckDBResource
from warehouse_kit import Warehouse, visp_record

from dagster_l2.assets.export import export_rows, exported_table
from dagster_l2.assets.warehouse import gold_tables
from dagster_l2.checks import nothing_overdue
from dagster_l2.cli import _run
from dagster_l2.lake import write_gold
from dagster_l2.ledger import Ledger, State
from dagster_l2.pipeline.gold import Row, read_gold
from dagster_l2.pipeline.holds import approve, note_waiting
from dagster_l2.pipeline.queue import OldGold, live_queue
from dagster_l2.publishing import publish_blocker

NOW = datetime.now(UTC)
WAY = (State.DISCOVERED, State.INVERTIBLE, State.PREPROCESSED, State.WORKING, State.INVERTED, State.PUBLISHED)
PARTS = ("readiness", "fried_parameter", "adaptive_optics", "lines", "warnings", "age")
SAME = ["rank", "op_id", "state", "responsible", "reason", "limit_days", "is_overdue", "is_held_by_embargo"]
SAME += ["priority_score", "priority", "merit_score", "assigned_to", "inputs_changed"]
SAME += [f"{part}_score" for part in PARTS]


def bring(ledger: Ledger, op_id: str, state: State, days: float, dataset_id: str = "") -> None:
    """Bring a new OP of one dataset to a state in which it has been for so many days; bob claims it."""
    details: dict[str, Any] = {"dataset_ids": [dataset_id], "claimed_by": "bob"}
    unchanged = hashlib.sha256(f"{dataset_id}:{visp_record(dataset_id, op_id)['frameCount']}".encode())
    steps = [*WAY[: WAY.index(state) + 1]] if state in WAY else [State.DISCOVERED]
    for step in steps:
        moment = NOW - timedelta(days=days)
        ledger.append(
            op_id,
            step,
            actor="t",
            cause="t",
            occurred_at=moment,
            inputs_hash=unchanged.hexdigest(),
            details=details,
        )


@pytest.fixture(scope="module")
def built(new_warehouse: Callable[[], Warehouse]) -> Path:
    """A folder with ``l2.sqlite``, ``l2.duckdb`` and ``warehouse.duckdb``, as a pass leaves them."""
    warehouse = new_warehouse()
    folder = warehouse.folder
    embargo = {"isEmbargoed": True, "embargoEndDate": "2999-03-01T00:00:00Z"}
    seeing = {"friedParameter": {"min": 0.11, "p25": 0.12, "med": 0.12, "p75": 0.12, "max": 0.13}}
    warehouse.scan(
        "datasets",
        [
            visp_record("A", "op_a", **seeing),
            visp_record("B", "op_b"),
            visp_record("C", "op_c", aoLocked=70000),
            visp_record("D", "op_held", **embargo),
            visp_record("E", "op_open"),
            visp_record("F", "op_young"),
        ],
        datetime(2025, 1, 1),
    )
    with Ledger.open(f"sqlite:///{folder / 'l2.sqlite'}") as ledger:
        bring(ledger, "op_a", State.PREPROCESSED, 40)
        bring(ledger, "op_b", State.PREPROCESSED, 31)
        bring(ledger, "op_c", State.WORKING, 61, "C")
        bring(ledger, "op_held", State.INVERTED, 90, "D")
        bring(ledger, "op_open", State.INVERTED, 8, "E")
        bring(ledger, "op_young", State.PREPROCESSED, 1)
        bring(ledger, "op_gone", State.INVERTIBLE, 0.5)
        bring(ledger, "op_failed", State.DISCOVERED, 1)
        ledger.fail("op_failed", step="scan", error_class="permanent", message="m", actor="t", run_id=None)
        bring(ledger, "op_done", State.PUBLISHED, 300)
        for op_id in ("op_a", "op_b", "op_c", "op_young"):
            ledger.assign(op_id, "ann", actor="olga")
        ledger.assign("op_young", None, actor="olga")
        ledger.prioritize("op_b", 1, reason="flare", actor="olga")
        ledger.prioritize("op_c", -2, reason="can wait", actor="olga")
        for table in ("transitions", "annotations"):
            export_rows(ledger, folder / "lake", table)
            rows = exported_table(folder / "lake", table).scan().collect().to_dicts()
            warehouse.insert(table, rows)
    no_tests = ("--exclude-resource-type", "unit_test", "--exclude-resource-type", "test")
    warehouse.dbt("build", *no_tests, "--select", "+work_queue", "op_annotations", "stg_ledger__annotations")
    looked_at = ["observing_programs", "op_criteria", "op_qualification", "op_verdicts"]
    tables = ["work_queue", "op_annotations", "state_rules", "priority_parts", *looked_at]
    assert set(tables) <= set(gold_tables())
    write_gold(warehouse.path, folder / "l2.duckdb", folder / "gold", tables, "")
    return folder


@pytest.fixture
def gold(built: Path, data: Path) -> Path:
    """Gold and the ledger of the built folder, copied to a data folder of the test's own."""
    data.mkdir()
    for name in ("l2.sqlite", "l2.duckdb"):
        shutil.copy(built / name, data / name)
    return data / "l2.duckdb"


@pytest.fixture
def ledger(gold: Path) -> Iterator[Ledger]:
    with Ledger.open(f"sqlite:///{gold.with_name('l2.sqlite')}") as opened:
        yield opened


def queue(gold: Path, ledger: Ledger) -> dict[str, Row]:
    return {row["op_id"]: row for row in live_queue(gold, ledger)}


def test_who_is_responsible_and_who_is_late(built: Path) -> None:
    rows = read_gold(built / "l2.duckdb", "select * from work_queue order by rank")
    assert {row["op_id"]: (row["responsible"], row["is_overdue"]) for row in rows} == {
        "op_a": ("ann", True),
        "op_b": ("ann", True),
        "op_c": ("bob", True),
        "op_held": ("operator", False),
        "op_open": ("operator", True),
        "op_young": ("scientist", False),
        "op_gone": ("pipeline", False),
        "op_failed": ("operator", False),
    }
    assert [row["op_id"] for row in rows][:2] == ["op_b", "op_a"], "A level first, then merit."
    assert rows[-1]["op_id"] == "op_c"


def test_right_after_a_build_the_live_queue_is_the_one_of_gold(gold: Path, ledger: Ledger) -> None:
    """Whatever both tell is told by the same rules, once in SQL and once in Python."""
    stored = read_gold(gold, "select * from work_queue order by rank")
    live = live_queue(gold, ledger)
    assert [{name: row[name] for name in SAME} for row in live] == [
        {name: row[name] for name in SAME} for row in stored
    ]
    assert len(live) == 8


def test_what_was_said_a_second_ago_counts(gold: Path, ledger: Ledger) -> None:
    before = queue(gold, ledger)
    merit = before["op_gone"]["merit_score"]
    ledger.prioritize("op_gone", 2, reason="flare", actor="ann")
    ledger.prioritize("op_b", 0, reason="over", actor="ann")
    ledger.assign("op_a", None, actor="ann")
    ledger.note("op_a", "seeing was fair", actor="ann")
    ledger.claim("op_young", actor="cleo")
    now = queue(gold, ledger)
    first = next(iter(now.values()))
    assert (first["op_id"], first["rank"], first["priority"], first["merit_score"]) == (
        "op_gone",
        1,
        2,
        merit,
    )
    assert first["priority_score"] == pytest.approx(merit + 2)
    assert (now["op_b"]["priority"], now["op_b"]["priority_score"]) == (0, now["op_b"]["merit_score"])
    assert (now["op_a"]["responsible"], now["op_a"]["note"]) == ("scientist", "seeing was fair")
    assert (now["op_young"]["state"], now["op_young"]["responsible"]) == ("Working", "cleo")
    assert [row["rank"] for row in now.values()] == list(range(1, len(now) + 1))


def test_an_op_that_gold_does_not_know_comes_after_those_of_its_priority(gold: Path, ledger: Ledger) -> None:
    bring(ledger, "op_0_new", State.PREPROCESSED, 0)
    bring(ledger, "op_0_urgent", State.PREPROCESSED, 0)
    ledger.prioritize("op_0_urgent", 1, reason="flare", actor="ann")
    ranked = list(queue(gold, ledger))
    assert ranked[:2] == ["op_b", "op_0_urgent"]
    assert ranked[-2:] == ["op_0_new", "op_c"]
    assert queue(gold, ledger)["op_0_new"]["merit_score"] is None


def test_nobody_is_late_while_an_embargo_holds_the_op(gold: Path, ledger: Ledger) -> None:
    """What was noted when publishing was tried comes before what gold had seen."""

    def told(op_id: str) -> tuple[str, bool, bool]:
        row = queue(gold, ledger)[op_id]
        return row["reason"], row["is_held_by_embargo"], row["is_overdue"]

    def reason(**rule: Any) -> str:
        asked = {"approved": False, "is_embargoed": True, "embargo_end_date": None, **rule}
        said = publish_blocker(**{"mode": "auto", "publish_embargoed": False, "now": NOW, **asked})
        assert said is not None
        return said

    assert told("op_held") == ("embargoed until 2999-03-01", True, False)
    assert told("op_open") == ("waits to be published", False, True)
    for end in (None, datetime(2999, 5, 1, tzinfo=UTC)):
        noted = reason(embargo_end_date=end)
        note_waiting(ledger, ledger.present("op_open"), noted, actor="pipeline")
        assert told("op_open") == (noted, True, False)
    noted = reason(mode="approve", publish_embargoed=True)
    note_waiting(ledger, ledger.present("op_held"), noted, actor="pipeline")
    assert told("op_held") == (noted, False, True)
    approve(ledger, ledger.present("op_held"), actor="olga")
    assert told("op_held") == ("approved by olga: the next run publishes it", False, True)
    ledger.withdraw("op_open", actor="bob", reason="again")
    assert told("op_open") == ("waits for the products", False, False)


def test_an_embargo_that_has_ended_since_gold_was_built_holds_nothing(gold: Path, ledger: Ledger) -> None:
    with duckdb.connect(str(gold)) as connection:
        connection.execute(
            "update work_queue set embargo_end_date = now() - interval 1 hour where is_held_by_embargo"
        )
    row = queue(gold, ledger)["op_held"]
    assert (row["reason"], row["is_overdue"]) == ("waits to be published", True)


def test_more_ops_take_no_more_queries(gold: Path, ledger: Ledger) -> None:
    statements: list[str] = []
    sa.event.listen(ledger.engine, "before_cursor_execute", lambda *args: statements.append(args[2]))
    live_queue(gold, ledger)
    few = len(statements)
    for number in range(20):
        bring(ledger, f"more_{number}", State.INVERTED, 1)
        ledger.note(f"more_{number}", "x", actor="ann")
    statements.clear()
    assert len(live_queue(gold, ledger)) == 28
    assert len(statements) == few


def test_gold_of_an_earlier_version_says_what_to_do(gold: Path, ledger: Ledger) -> None:
    with duckdb.connect(str(gold)) as connection:
        connection.execute("drop table priority_parts")
    with pytest.raises(OldGold, match="l2 run"):
        live_queue(gold, ledger)


def test_an_annotation_that_can_never_be_taken_back_stops_no_queue(gold: Path, ledger: Ledger) -> None:
    ledger.annotate("op_a", kind="priority", actor="x", details={"level": 1000})
    ledger.annotate("op_young", kind="priority", actor="x", details={"level": "high"})
    rows = queue(gold, ledger)
    assert (rows["op_a"]["priority"], rows["op_young"]["priority"]) == (9, 0)


def test_the_check_warns_and_names_who_is_responsible(built: Path, tmp_path: Path) -> None:
    def checked(path: Path) -> dg.AssetCheckResult:
        result = nothing_overdue(warehouse=DuckDBResource(database=str(path)))
        assert isinstance(result, dg.AssetCheckResult)
        return result

    result = checked(built / "warehouse.duckdb")
    assert (result.passed, result.severity) == (False, dg.AssetCheckSeverity.WARN)
    assert result.description == "4 OPs are overdue: ann 2, bob 1, operator 1"
    first = result.metadata["first"]
    assert isinstance(first, dg.TableMetadataValue)
    assert [record.data["op_id"] for record in first.records] == ["op_b", "op_a", "op_open", "op_c"]
    assert result.metadata["overdue"].value == 4
    copy = shutil.copy(built / "warehouse.duckdb", tmp_path / "copy.duckdb")
    with duckdb.connect(str(copy)) as connection:
        connection.execute("delete from work_queue where is_overdue")
    assert checked(copy).passed


def test_analysts_read_what_was_said(built: Path) -> None:
    rows = read_gold(built / "l2.duckdb", "select op_id, actor, remark from op_annotations order by all")
    assert len(rows) == 7
    assert {"op_id": "op_b", "actor": "olga", "remark": "priority 1: flare"} in rows
    assert {"op_id": "op_young", "actor": "olga", "remark": "assigned to nobody"} in rows


@pytest.fixture
def l2(gold: Path, capsys: pytest.CaptureFixture[str]) -> Callable[..., str]:
    """A function that runs a command and gives what it printed."""

    def run(*arguments: str, code: int = 0) -> str:
        assert _run(list(arguments)) == code, capsys.readouterr()
        out, err = capsys.readouterr()
        return out if code == 0 else err

    return run


def shown(l2: Callable[..., str], *options: str) -> list[str]:
    return [row["op_id"] for row in json.loads(l2("queue", "--json", *options))]


def test_the_queue_of_one_person_one_role_some_states_and_what_is_late(l2: Callable[..., str]) -> None:
    assert shown(l2, "--for", "ann") == ["op_b", "op_a"]
    assert shown(l2, "--for", "scientist") == ["op_young"]
    assert shown(l2, "--for", "nobody_of_that_name") == []
    assert "None of the 8 OPs that wait" in l2("queue", "--for", "nobody_of_that_name")
    assert set(shown(l2, "--state", "Working", "--state", "Error")) == {"op_c", "op_failed"}
    assert shown(l2, "--overdue", "--for", "operator") == ["op_open"]
    ranks = [row["rank"] for row in json.loads(l2("queue", "--json", "--state", "Working"))]
    assert ranks == [8], "The rank is the place among all, whatever is shown."
    table = l2("queue", "--limit", "2")
    assert "op_b" in table
    assert "… and 6 more" in table
    assert table.splitlines()[-1] == "4 overdue: ann 2, bob 1, operator 1"
    assert "overdue:" not in l2("queue", "--for", "pipeline")
    parts = l2("queue", "--parts")
    assert all(f"{part}_score" in parts for part in PARTS)


def test_people_say_what_is_urgent_and_who_takes_it(l2: Callable[..., str], ledger: Ledger) -> None:
    assert "priority -3" in l2("prioritize", "op_b", "-3", "--reason", "clouds", "--as", "ann")
    assert shown(l2)[-1] == "op_b"
    assert json.loads(l2("prioritize", "op_b", "9", "--reason", "flare", "--json"))["level"] == 9
    assert shown(l2)[0] == "op_b"
    assert "assigned to eve" in l2("assign", "op_young", "eve")
    assert shown(l2, "--for", "eve") == ["op_young"]
    assert json.loads(l2("assign", "op_young", "--nobody", "--json"))["to"] is None
    assert shown(l2, "--for", "eve") == []
    assert "op_young" in l2("note", "op_young", "seeing was fair", "--as", "eve")
    content = json.loads(l2("show", "op_b", "--json"))["people"]
    assert (content["assigned_to"], content["priority"]["reason"]) == ("ann", "flare")
    text = l2("show", "op_young")
    assert "seeing was fair" in text
    assert "eve" in text
    assert [ledger.present(op_id).seq for op_id in ("op_b", "op_young")] == [3, 3]


def test_what_cannot_be_meant_is_refused_in_one_sentence(l2: Callable[..., str]) -> None:
    assert "from -9 to 9" in l2("prioritize", "op_b", "10", "--reason", "x", code=1)
    assert "--reason" in l2("prioritize", "op_b", "1", code=2)
    assert "reason is empty" in l2("prioritize", "op_b", "1", "--reason", "", code=1)
    assert "no OP nowhere" in l2("note", "nowhere", "x", code=1)
    assert "text of the note is empty" in l2("note", "op_b", " ", code=1)
    assert "--nobody" in l2("assign", "op_b", code=2)
    assert "--nobody" in l2("assign", "op_b", "eve", "--nobody", code=2)
    assert "--as names nobody" in l2("claim", "op_a", "--as", "", code=2)
    assert "x>=0" in l2("alerts", "--limit", "-1", code=2)
    assert "x>=0" in l2("inbox", "--limit", "-1", code=2)


def test_a_claim_says_whom_the_op_was_assigned_to_and_who_has_it(l2: Callable[..., str]) -> None:
    assert "(it was assigned to ann)" in l2("claim", "op_a", "--as", "bob")
    assert "bob has claimed it" in l2("claim", "op_a", "--as", "ann", code=1)
    assert "assigned" not in l2("claim", "op_b", "--as", "ann")
    assert "assigned" not in l2("claim", "op_young", "--as", "ann")
