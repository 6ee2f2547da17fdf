"""From transitions to states, history, queue and inversions; made records, hostile ids among them."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from datetime import datetime, timedelta
from typing import Any

import duckdb
import pytest
from warehouse_kit import DBT_PROJECT, Warehouse, visp_record

START = datetime(2025, 1, 1)  # bronze times are UTC without a zone
HOSTILE = "../../etc/'; drop table op_history; --\n" + "x" * 300
WITHDRAWN = "op_withdrawn"


STEPS: dict[str, list[tuple[str, dict[str, Any]]]] = {
    HOSTILE: [
        ("Discovered", {}),
        ("Invertible", {"inputs_hash": "recorded"}),
        ("Preprocessed", {"inputs_hash": "recorded", "details": {"dataset_ids": ["A"]}}),
        (
            "Working",
            {
                "inversion_id": "inv.AAAAAA",
                "actor": "ada",
                "details": {"claimed_by": "ada", "dataset_ids": ["A"], "instrument_program_id": "id.1"},
            },
        ),
    ],
    "op_good": [("Discovered", {}), ("Invertible", {"inputs_hash": "recorded"})],
    WITHDRAWN: [("Discovered", {}), ("NotInvertible", {})],
}


def _transitions() -> Iterator[dict[str, Any]]:
    number = 0
    for op_id, steps in STEPS.items():
        for seq, (state, extra) in enumerate(steps, start=1):
            number += 1
            moment = START + timedelta(hours=seq)
            yield {
                "transition_id": number,
                "op_id": op_id,
                "seq": seq,
                "from_state": steps[seq - 2][0] if seq > 1 else None,
                "to_state": state,
                "occurred_at": moment,
                "recorded_at": moment + timedelta(minutes=30),
                "actor": "pipeline",
                **extra,
                "details": json.dumps(extra.get("details", {})),
            }


@pytest.fixture(scope="module")
def warehouse(new_warehouse: Callable[[], Warehouse]) -> Warehouse:
    warehouse = new_warehouse()
    warehouse.environment = {"L2_STORE_NAME": "the observatory's store", "L2_IS_DEMO": "true"}
    records = [
        visp_record("A", HOSTILE, isEmbargoed=True, embargoEndDate="2999-03-01T00:00:00Z"),
        visp_record("B", "op_good"),
        visp_record(
            "B0", "op_good", productId="product-B", createDate="2024-11-01T00:00:00", stokesParameters="I"
        ),
        visp_record("C", WITHDRAWN, status="DEPRECATED"),
        visp_record("D", None),
        visp_record(
            "E", "op_garbage", boundingBox="(NaN,NaN),(NaN,NaN)", frameCount=0, health=None, spectralLines=[]
        ),
        {"datasetId": "F", "createDate": "2024-12-01T00:00:00", "primaryProposalId": "pid_1"},
        {
            "datasetId": "G",
            "createDate": "2024-12-01T00:00:00",
            "primaryProposalId": "pid_1",
            "observingProgramExecutionId": "op_bare",
        },
        {
            "datasetId": "H",
            "createDate": "2024-12-01T00:00:00",
            "primaryProposalId": "pid_1",
            "observingProgramExecutionId": "op_bare",
            "instrumentName": "VISP",
        },
    ]
    warehouse.scan("datasets", records, START)
    unread = {"table_name": "datasets", "reason": "it is no JSON object", "raw_json": "7", "job_id": "job"}
    warehouse.insert("rejected", [{**unread, "scanned_at": START, "content_hash": "h"}] * 2)
    warehouse.build("verdicts")
    warehouse.insert("transitions", _transitions())
    warehouse.build("states")
    return warehouse


def test_a_withdrawn_op_has_no_verdict_and_keeps_its_state(warehouse: Warehouse) -> None:
    ops = {op for (op,) in warehouse.query("select op_id from observing_programs")}
    assert ops == {HOSTILE, "op_good", "op_garbage", "op_bare"}
    assert warehouse.query("select state from op_latest_state where op_id = ?", WITHDRAWN) == [
        ("NotInvertible",)
    ]
    assert warehouse.query("select op_count, undecided_count, not_invertible_count from proposals") == [
        (5, 2, 1)
    ]


def test_an_earlier_version_of_a_product_decides_nothing(warehouse: Warehouse) -> None:
    assert warehouse.query("select dataset_ids, is_invertible from op_verdicts where op_id = 'op_good'") == [
        (["B"], True)
    ]


def test_garbage_fails_its_criteria_and_says_what_was_not_recorded(warehouse: Warehouse) -> None:
    outcomes = dict(warehouse.query("select criterion, outcome from op_criteria where op_id = 'op_garbage'"))
    assert outcomes == {
        "instrument": "pass",
        "one_program": "pass",
        "on_disk": "fail",
        "fe_i_630": "pass",
        "stokes": "pass",
        "health": "not_recorded",
        "gos": "fail",
        "adaptive_optics": "fail",
    }


def test_a_record_with_nothing_but_its_ids_is_judged_too(warehouse: Warehouse) -> None:
    rows = warehouse.query(
        "select instrument, criterion, outcome from op_criteria where op_id = 'op_bare' order by all"
    )
    assert {
        outcome
        for instrument, criterion, outcome in rows
        if (instrument, criterion) != ("VISP", "instrument")
    } == {"not_recorded"}
    assert ("VISP", "instrument", "pass") in rows
    assert ("unknown", "instrument", "not_recorded") in rows
    assert warehouse.query("select op_id, spectral_lines from datasets where dataset_id = 'F'") == [
        (None, [])
    ]


def test_changed_inputs_are_flagged_from_working_on(warehouse: Warehouse) -> None:
    flags = dict(warehouse.query("select op_id, inputs_changed from op_latest_state"))
    assert flags == {HOSTILE: True, "op_good": False, WITHDRAWN: False}


def test_the_queue_names_who_acts_and_since_when(warehouse: Warehouse) -> None:
    rows = warehouse.rows("select * from work_queue order by rank")
    queue = {row["op_id"]: row for row in rows}
    assert [row["rank"] for row in rows] == [1, 2]
    assert queue[HOSTILE]["responsible"] == "ada"
    assert queue["op_good"]["responsible"] == "pipeline"
    assert all(row["is_overdue"] and row["days_in_state"] > 60 for row in rows)


def test_an_inversion_belongs_to_who_claimed_it(warehouse: Warehouse) -> None:
    rows = warehouse.query("select inversion_id, op_id, claimed_by, dataset_ids, inverted_at from inversions")
    assert rows == [("inv.AAAAAA", HOSTILE, "ada", ["A"], None)]


def test_history_has_each_transition_with_its_length(warehouse: Warehouse) -> None:
    rows = warehouse.query("select to_state, duration from op_history where op_id = ? order by seq", HOSTILE)
    assert rows == [
        ("Discovered", 3600.0),
        ("Invertible", 3600.0),
        ("Preprocessed", 3600.0),
        ("Working", None),
    ]


def test_the_warehouse_says_what_it_is(warehouse: Warehouse) -> None:
    ((built_at, last_scan_at, version, store, is_demo),) = warehouse.query(
        "select built_at, last_scan_at, rule_version, store, is_demo from warehouse_info"
    )
    assert built_at > START
    assert (last_scan_at, store, is_demo) == (START, "the observatory's store", True)
    assert warehouse.query("select distinct rule_version from op_verdicts") == [(version,)]
    assert version.startswith("2025-11.")


def test_what_cannot_be_used_is_listed_and_counted(warehouse: Warehouse) -> None:
    """D and F name no OP; one bad record that two windows brought is one."""
    assert warehouse.query("select dataset_id from orphan_datasets order by 1") == [("D",), ("F",)]
    assert warehouse.query("select rejected_at, reason, last_accepted_at from rejected_records") == [
        (START, "it is no JSON object", None)
    ]
    assert warehouse.query("select rejected_record_count, orphan_dataset_count from warehouse_info") == [
        (1, 2)
    ]


def test_op_state_as_of_tells_what_was_known_then(warehouse: Warehouse) -> None:
    """A transition counts from when it was recorded, half an hour after it occurred."""
    with duckdb.connect(str(warehouse.path)) as connection:
        connection.execute((DBT_PROJECT / "gold_macros.sql").read_text(encoding="utf-8"))

        def state(moment: datetime) -> list[tuple[Any, ...]]:
            sql = "select state, seq from op_state_as_of(?) where op_id = ?"
            return connection.execute(sql, [moment, HOSTILE]).fetchall()

        assert state(START) == []
        assert state(START + timedelta(hours=2, minutes=29)) == [("Discovered", 1)]
        assert state(START + timedelta(hours=2, minutes=30)) == [("Invertible", 2)]
        assert state(START + timedelta(days=9)) == [("Working", 4)]


def test_building_twice_gives_the_same_verdicts(warehouse: Warehouse) -> None:
    before = warehouse.query("select * from op_verdicts order by op_id")
    warehouse.build("verdicts")
    assert warehouse.query("select * from op_verdicts order by op_id") == before
