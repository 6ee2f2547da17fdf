"""Decisions in words, tried with other thresholds, and made again after the records have changed."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import duckdb
import pytest

from tests.end_to_end.kit import Pipeline, Row, Store, by_op, current, expected_states, generated

pytestmark = pytest.mark.xdist_group("explain")

NOW = "2999-01-01T00:00:00"


class World:
    """Two passes; between them one OP loses frames, one its datasets, and one is new and still arriving."""

    def __init__(self, folder: Path) -> None:
        home = folder / "home"
        home.mkdir()
        self.l2 = Pipeline(home)
        self.store = Store(folder, generated(8, seed=3))
        states = expected_states(self.store.records)
        good = sorted(op_id for op_id, state in states.items() if state == "Preprocessed")
        self.bad = next(op_id for op_id, state in sorted(states.items()) if state == "NotInvertible")
        self.stays, self.spoilt, self.gone, self.arriving = good[0], good[1], good[2], "eid_new_op"
        self._pass()
        self.before = {row["dataset_id"]: row for row in self.l2.sql("select * from datasets")}
        self.between = self.l2.sql("select built_at from warehouse_info")[0]["built_at"]
        self._change()
        self._pass()

    def _pass(self) -> None:
        with self.store.served() as settings:
            self.l2.settings = settings
            self.l2("run", "--json")

    def _change(self) -> None:
        records = self.store.records
        ops = by_op(records.datasets)
        self.changed = next(
            record for record in current(ops[self.spoilt]) if record["instrumentName"] == "VISP"
        )
        self.changed["health"] = {**self.changed["health"], "good": self.changed["frameCount"] * 7 // 10}
        for record in ops[self.gone]:
            record["status"] = "DEPRECATED"
        for record in ops[self.stays]:
            new = copy.deepcopy(record)
            new |= {"observingProgramExecutionId": self.arriving, "createDate": NOW}
            for key in ("datasetId", "productId", "instrumentProgramExecutionId"):
                new[key] = f"NEW{new[key]}"
            records.datasets.append(new)
        for record in (*ops[self.spoilt], *ops[self.gone]):
            record["updateDate"] = "2025-07-01T00:00:00"


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    return World(tmp_path_factory.mktemp("explain"))


def _why(world: World, op_id: str) -> Row:
    content: Row = world.l2.here("why", op_id, "--json").json
    text = world.l2.here("why", op_id).out
    assert content["headline"] in text
    for row in (*content["failed"], *content["passed"]):
        assert row["explanation"] in text
    for warning in content["warnings"]:
        assert warning in text
    return content


def test_why_says_what_failed_and_where(world: World) -> None:
    content = _why(world, world.spoilt)
    frames, dataset = world.changed["frameCount"], world.changed["datasetId"]
    assert content["headline"] == (
        f"not invertible: health: {frames * 7 // 10} of {frames} frames good"
        f" ({round(frames * 7 // 10 / frames, 4):g}) in {dataset}; needs at least 0.75 in every dataset"
    )
    assert [row["criterion"] for row in content["failed"]] == ["health"]
    assert content["failed"][0]["worst_dataset_id"] == dataset
    assert content["failed"][0]["margin"] == pytest.approx(frames * 7 // 10 / frames - 0.75)
    shown = world.l2.here("show", world.spoilt).out
    assert content["headline"] in shown


def test_why_says_by_how_much_it_passed(world: World) -> None:
    content = _why(world, world.stays)
    assert (content["verdict"], content["failed"]) == ("invertible", [])
    passed = {row["criterion"]: row for row in content["passed"]}
    assert len(passed) == 8
    assert passed["stokes"]["explanation"] == "Stokes is IQUV in every dataset"
    for name in ("health", "adaptive_optics"):
        assert passed[name]["margin"] == pytest.approx(passed[name]["measured_value"] - 0.75)
        assert passed[name]["explanation"].endswith(" to spare")


def test_why_says_what_is_waited_for(world: World) -> None:
    content = _why(world, world.arriving)
    assert content["verdict"] == "not decided yet"
    assert "waits for all its datasets: the store plans no recipes for it" in content["headline"]
    assert "2999-01-08 00:00 UTC" in content["waits_for"]
    gone = world.l2.here("why", world.gone, "--json").json
    assert gone["verdict"] is None
    assert "none of its datasets is current" in gone["headline"]
    assert gone["state"] == "NotInvertible"


def test_another_threshold_is_tried_and_decides_nothing(world: World) -> None:
    states, bronze = world.l2.here("status", "--json").json["states"], world.l2.bronze()
    gold = (world.l2.data / "l2.duckdb").stat().st_mtime_ns
    tried = world.l2.here("what-if", "--set", "health=0.6", "--json").json
    assert tried["thresholds"] == [{"threshold": "health", "now": 0.75, "tried": 0.6}]
    moved = {row["op_id"]: row for row in tried["moved"]}
    assert moved[world.spoilt]["from"] == "not invertible"
    assert moved[world.spoilt]["to"] == "invertible"
    assert moved[world.spoilt]["by"] == ["health"]
    assert (moved[world.spoilt]["state"], moved[world.spoilt]["next_state"]) == (
        "NotInvertible",
        "Invertible",
    )
    assert world.stays not in moved

    both = world.l2.here("what-if", "--set", "health=0.6", "--set", "min_ao_locked_fraction=1", "--json").json
    assert both["judged"] == tried["judged"]
    hard = world.l2.here("what-if", "--set", "min_health_fraction=0.75", "--json").json
    assert (hard["moved"], hard["counts"]) == ([], [])
    later = world.l2.here("what-if", "--set", "quiet_days=36500", "--json").json
    assert {row["to"] for row in later["moved"]} == {"not decided yet"}
    assert "Nothing was decided" in world.l2.here("what-if", "--set", "health=0.6").out

    assert world.l2.here("status", "--json").json["states"] == states
    assert world.l2.bronze() == bronze
    assert (world.l2.data / "l2.duckdb").stat().st_mtime_ns == gold


@pytest.mark.parametrize(
    ("setting", "says"),
    [
        ("helth=0.6", "no threshold 'helth'"),
        ("on_disk=1", "no threshold that could be set"),
        ("health=1.5", "between 0 and 1"),
        ("health=NaN", "between 0 and 1"),
        ("health=many", "a number"),
        ("quiet_days=2.5", "a whole number"),
        ("stokes=XYZ", "IQUV"),
        ("health", "health=0.6"),
    ],
)
def test_a_threshold_that_cannot_be_is_refused(world: World, setting: str, says: str) -> None:
    assert says in world.l2.here("what-if", "--set", setting, code=2).error


def test_every_decision_comes_out_again(world: World) -> None:
    """Those of the first pass, too, though the records of three OPs have changed since."""
    replayed = world.l2.here("replay", "--all", "--json").json
    assert all(row["is_equal"] and row["are_records_exact"] and row["are_rules_exact"] for row in replayed)
    decided = {(row["op_id"], row["seq"]) for row in replayed}
    history = world.l2.sql("select op_id, seq, to_state from op_history")
    verdicts = {"Discovered", "Invertible", "NotInvertible"}
    assert decided == {(row["op_id"], row["seq"]) for row in history if row["to_state"] in verdicts}
    spoilt = [row["to_state"] for row in replayed if row["op_id"] == world.spoilt]
    assert spoilt == ["Discovered", "Invertible", "NotInvertible"]
    gone = [row for row in replayed if row["op_id"] == world.gone]
    assert gone[-1]["again"]["cause"] == gone[-1]["then"]["cause"]
    assert len({row["known_at"] for row in replayed}) == 2

    one = world.l2.here("replay", world.spoilt, "--seq", "2", "--json").json
    assert [row["again"]["failed_criteria"] for row in one] == [[]]
    assert "The answer is the same" in world.l2.here("replay", world.spoilt, "--seq", "2").out


def test_what_is_no_decision_is_not_replayed(world: World) -> None:
    said = world.l2.here("replay", world.stays, "--seq", "3", code=2).error
    assert "no verdict of the rules" in said
    assert "there is no 99" in world.l2.here("replay", world.stays, "--seq", "99", code=2).error
    assert "--all" in world.l2.here("replay", code=2).error


def test_a_lost_file_shows(world: World) -> None:
    """Without the records of then the answer is not the same, and the replay says why."""
    folder = world.l2.data / "lake" / "bronze" / "datasets"
    done = min((path for path in folder.glob("scan-*.done")), key=lambda path: path.stat().st_mtime_ns)
    aside = done.rename(folder / "aside")
    try:
        (row,) = world.l2.here("replay", world.spoilt, "--seq", "2", "--json", code=1).json
        assert not row["is_equal"]
        assert not row["are_records_exact"]
        assert any("files of bronze" in remark for remark in row["remarks"])
    finally:
        aside.rename(done)


def test_versions_say_what_changed_and_the_past_can_be_asked(world: World) -> None:
    dataset = world.changed["datasetId"]
    rows = world.l2.sql(f"select * from dataset_versions where dataset_id = '{dataset}' order by seen_at")
    assert [row["change_type"] for row in rows] == ["new", "changed"]
    assert rows[0]["superseded_at"] == rows[1]["seen_at"]
    assert sorted(rows[1]["changed_fields"]) == ["health", "update_date"]
    changes = {change["field"]: change for change in rows[1]["changes"]}
    assert f'"good":{rows[0]["health_good_count"]}' in changes["health"]["old_value"]
    assert f'"good":{rows[1]["health_good_count"]}' in changes["health"]["new_value"]
    assert rows[1]["store_updated_at"].startswith("2025-07-01")

    columns = "dataset_id, product_id, op_id, status, frame_count, health_good_count, content_hash"
    with closing(duckdb.connect(str(world.l2.data / "l2.duckdb"), read_only=True)) as gold:
        now = gold.execute(f"select {columns} from datasets order by all").fetchall()
        assert gold.execute(f"select {columns} from datasets_as_of('{NOW}') order by all").fetchall() == now
        then = gold.execute(f"select {columns} from datasets_as_of('{world.between}')").fetchall()
    names = columns.split(", ")
    assert {row[0]: dict(zip(names, row, strict=True)) for row in then} == {
        dataset_id: {name: row[name] for name in names} for dataset_id, row in world.before.items()
    }
    assert len(then) != len(now)
