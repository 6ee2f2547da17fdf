"""The real records of three dates, scanned one after the other, and what the warehouse makes of them."""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest
from agreement import disagreements
from rules_in_python import Program
from warehouse_kit import DUMPS, Warehouse, dump

Rows = dict[str, dict[str, Any]]


@pytest.fixture(scope="module")
def compared() -> list[tuple[dict[str, Program], list[str]]]:
    """What the rules in Python say after each date, and where the warehouse says something else."""
    return []


@pytest.fixture(scope="module")
def builds(
    new_warehouse: Callable[[], Warehouse],
    real_records: Path,
    compared: list[tuple[dict[str, Program], list[str]]],
) -> tuple[Warehouse, list[int], list[Rows]]:
    """The warehouse after the last date, the rows each scan wrote, and the verdicts after each."""
    warehouse = new_warehouse()
    written, verdicts = [], []
    latest: dict[str, dict[str, Any]] = {}
    for date in DUMPS:
        records, scanned_at = dump(real_records, date), datetime.fromisoformat(date)
        latest |= {record["datasetId"]: record for record in records}
        written.append(warehouse.scan("datasets", records, scanned_at))
        warehouse.build("verdicts")
        # A scan that brings no window's attempt stands at the moment of its newest record.
        compared.append(disagreements(warehouse, latest.values(), [], scanned_at))
        verdicts.append({row["op_id"]: row for row in warehouse.rows("select * from op_verdicts")})
    warehouse.build("states")
    return warehouse, written, verdicts


def _visp(records: list[dict[str, Any]]) -> dict[str, dict[str, dict[str, Any]]]:
    """The ViSP records of each OP, by dataset id."""
    by_op: dict[str, dict[str, dict[str, Any]]] = {}
    for record in records:
        if record["instrumentName"] == "VISP":
            by_op.setdefault(record["observingProgramExecutionId"], {})[record["datasetId"]] = record
    return by_op


def test_only_what_is_new_or_changed_is_written(builds: tuple[Warehouse, list[int], list[Rows]]) -> None:
    assert builds[1] == [360, 213, 508]


def test_the_rules_in_python_agree_on_every_row(
    builds: tuple[Warehouse, list[int], list[Rows]], compared: list[tuple[dict[str, Program], list[str]]]
) -> None:
    assert len(compared) == len(DUMPS)
    for programs, found in compared:
        assert found[:20] == []
        assert len(programs) > 50
    last = compared[-1][0].values()
    assert (len(last), sum(program.is_invertible for program in last)) == (73, 47)


def test_the_verdicts_after_the_last_date(builds: tuple[Warehouse, list[int], list[Rows]]) -> None:
    verdicts = builds[2][-1].values()
    assert Counter((row["proposal_id"], row["is_invertible"]) for row in verdicts) == {
        ("pid_1_118", True): 17,
        ("pid_2_114", True): 30,
        ("pid_2_114", False): 26,
    }
    assert all(row["is_complete"] for row in verdicts)
    assert all("stokes" in row["failed_criteria"] for row in verdicts if not row["is_invertible"])
    assert {c for row in verdicts for c in row["failed_criteria"]} == {"stokes", "health", "adaptive_optics"}


def test_no_verdict_moves_between_the_dates(builds: tuple[Warehouse, list[int], list[Rows]]) -> None:
    """Line names are filled in and 147 VBI datasets arrive; the verdicts stay as they are."""
    first, second, third = builds[2]
    for earlier, later in ((first, second), (second, third)):
        assert set(earlier) <= set(later)
        for op_id, row in earlier.items():
            for column in ("is_invertible", "failed_criteria", "instrument_program_id"):
                assert later[op_id][column] == row[column], (op_id, column)


def test_the_inputs_change_where_a_visp_dataset_or_its_frames_did(
    builds: tuple[Warehouse, list[int], list[Rows]], real_records: Path
) -> None:
    snapshots = [_visp(dump(real_records, date)) for date in DUMPS]
    for index in (1, 2):
        frames = [
            {op: {i: r["frameCount"] for i, r in records.items()} for op, records in snapshot.items()}
            for snapshot in snapshots[index - 1 : index + 1]
        ]
        expected = {op for op in frames[1] if op in frames[0] and frames[0][op] != frames[1][op]}
        before, after = builds[2][index - 1], builds[2][index]
        changed = {op for op in before if before[op]["inputs_hash"] != after[op]["inputs_hash"]}
        assert changed == expected
        assert changed, (
            "The dates differ in at least one ViSP dataset, so this test would see a hash that never moves."
        )


def test_a_dozen_verdicts_by_hand(
    builds: tuple[Warehouse, list[int], list[Rows]], real_records: Path
) -> None:
    """Each criterion of every sixth OP, worked out here from its records."""
    records = _visp(dump(real_records, DUMPS[-1]))
    checked = 0
    for op_id in sorted(records)[::6]:
        datasets = list(records[op_id].values())
        rows = builds[0].rows("select * from op_criteria where op_id = ? and instrument = 'VISP'", op_id)
        criteria = {row["criterion"]: row for row in rows}
        assert len(criteria) == 8
        health = [(r["health"]["good"] or 0) / r["frameCount"] for r in datasets]
        locked = [r["aoLocked"] / r["frameCount"] for r in datasets]
        reaches = [_reach(r) for r in datasets]
        worst = max(range(len(datasets)), key=lambda i: reaches[i] - _radius(datasets[i]))
        assert criteria["health"]["measured_value"] == pytest.approx(min(health))
        assert criteria["health"]["passed"] == (min(health) >= 0.75)
        assert criteria["adaptive_optics"]["measured_value"] == pytest.approx(min(locked))
        assert criteria["adaptive_optics"]["passed"] == (min(locked) >= 0.75)
        assert criteria["on_disk"]["measured_value"] == pytest.approx(reaches[worst])
        assert criteria["on_disk"]["threshold"] == pytest.approx(_radius(datasets[worst]))
        assert criteria["on_disk"]["passed"] == all(_reach(r) < _radius(r) for r in datasets)
        assert criteria["stokes"]["passed"] == all(r["stokesParameters"] == "IQUV" for r in datasets)
        assert criteria["gos"]["passed"] == all(r["gosStatus"]["open"] >= r["frameCount"] for r in datasets)
        assert criteria["fe_i_630"]["passed"]
        checked += 1
    assert checked >= 12


def _reach(record: dict[str, Any]) -> float:
    x1, y1, x2, y2 = (float(n) for n in record["boundingBox"].replace("(", "").replace(")", "").split(","))
    return max(math.hypot(x, y) for x in (x1, x2) for y in (y1, y2))


def _radius(record: dict[str, Any]) -> float:
    day = datetime.fromisoformat(record["startTime"]).timetuple().tm_yday
    distance = 149_600_000 * (1 - 0.0167 * math.cos(2 * math.pi * (day - 3) / 365))
    return math.atan(696_340 / distance) * 206_265


def test_each_op_has_the_inputs_of_its_package(builds: tuple[Warehouse, list[int], list[Rows]]) -> None:
    warehouse, _, verdicts = builds
    arms: dict[str, list[str]] = {}
    for row in warehouse.rows("select * from int_input_datasets"):
        arms.setdefault(row["op_id"], []).append(row["arm"])
    assert set(arms) == set(verdicts[-1])
    for op_id, names in arms.items():
        assert len(names) == len(set(names)) == len(verdicts[-1][op_id]["dataset_ids"])
        assert any(name.startswith("Fe I (630") for name in names)


def test_the_verdict_carries_its_measurements(builds: tuple[Warehouse, list[int], list[Rows]]) -> None:
    for row in builds[2][-1].values():
        measured = {entry["criterion"]: entry["outcome"] for entry in json.loads(row["measured"])}
        assert [c for c, outcome in measured.items() if outcome != "pass"] == row["failed_criteria"]


def test_proposals_count_what_the_ledger_has_not_decided(
    builds: tuple[Warehouse, list[int], list[Rows]],
) -> None:
    rows = builds[0].query("select proposal_id, op_count, undecided_count from proposals order by 1")
    assert rows == [("pid_1_118", 17, 17), ("pid_2_114", 56, 56)]
