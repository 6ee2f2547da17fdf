"""A history that grows by passes is the one that would be made anew, whatever happened between them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import datetime, timedelta
from typing import Any

import pytest
from warehouse_kit import Warehouse

START = datetime(2025, 1, 1)  # bronze times are UTC without a zone
STATES = ("Discovered", "Invertible", "Preprocessed", "Working", "Inverted", "Published")

# From bronze alone, in other words than the models'.
LAST = """
    select
        ours.op_id, ours.transition_id, ours.seq, ours.to_state, ours.occurred_at, ours.cause,
        ours.inversion_id,
        (
            select max_by(named.inputs_hash, named.seq) from bronze.transitions as named
            where named.op_id = ours.op_id
        ),
        (
            select coalesce(list(told.inversion_id order by told.seq), []) from bronze.transitions as told
            where told.op_id = ours.op_id and told.to_state = 'Published'
        )
    from bronze.transitions as ours
    where ours.seq = (select max(all_.seq) from bronze.transitions as all_ where all_.op_id = ours.op_id)
    order by 1
"""
KEPT = """
    select
        op_id, transition_id, seq, to_state, occurred_at, cause, inversion_id, inputs_hash,
        published_inversion_ids
    from int_op_last_transition order by 1
"""
INVERSIONS = """
    select
        inversion_id, min(op_id), min(occurred_at) filter (where to_state = 'Working'), max_by(to_state, seq),
        max(occurred_at) filter (where to_state = 'Published'), max_by(details ->> 'bucket', seq)
    from bronze.transitions where inversion_id is not null group by inversion_id order by 1
"""
KEPT_INVERSIONS = """
    select inversion_id, op_id, claimed_at, last_state, published_at, bucket from inversions order by 1
"""
QUALITY = """
    select inversion_id, op_id, occurred_at, (details ->> '$.statistics[0].mean')::double
    from bronze.transitions where to_state = 'Inverted' order by 1
"""
KEPT_QUALITY = "select inversion_id, op_id, verified_at, mean from inversion_quality order by 1"
HISTORY = """
    select
        ours.transition_id, ours.op_id, ours.seq, ours.from_state, ours.to_state, ours.occurred_at,
        (
            select min_by(later.occurred_at, later.seq) from bronze.transitions as later
            where later.op_id = ours.op_id and later.seq > ours.seq
        ),
        ours.recorded_at, ours.cause, ours.details
    from bronze.transitions as ours order by 1
"""
SHOWN_HISTORY = """
    select
        transition_id, op_id, seq, from_state, to_state, occurred_at, ended_at, recorded_at, cause, details
    from op_history order by 1
"""

_DETAILS = {
    4: '{"bucket": "bucket %d"}',
    5: '{"statistics": [{"file": "inv_res_mod.fits", "quantity": "temperature", "mean": %d}]}',
}


def _rows(*steps: tuple[int, str, int], ledger: str = "a") -> Iterator[dict[str, Any]]:
    for transition_id, op_id, seq in steps:
        moment = START + timedelta(hours=transition_id)
        yield {
            "transition_id": transition_id,
            "op_id": op_id,
            "seq": seq,
            "from_state": STATES[seq - 2] if seq > 1 else None,
            "to_state": STATES[seq - 1],
            "occurred_at": moment,
            "recorded_at": moment,
            "cause": f"{op_id} of {ledger}",
            "inputs_hash": f"hash {transition_id}" if seq == 2 else None,
            "inversion_id": f"inversion of {op_id}" if seq > 3 else None,
            "details": _DETAILS[seq] % transition_id if seq in _DETAILS else None,
        }


@pytest.fixture(scope="module")
def warehouse(new_warehouse: Callable[[], Warehouse]) -> Warehouse:
    """Two passes, and between them marks on rows that the second has no reason to touch."""
    warehouse = new_warehouse()
    # The second step of `b`, number 5, was at work in its transaction while the export read.
    steps = [(1, "a", 1), (2, "b", 1), (3, "a", 2), (4, "c", 1), (6, "e", 5), (7, "f", 4)]
    warehouse.insert("transitions", _rows(*steps))
    _pass(warehouse, "stg_ledger__transitions", "op_history")
    warehouse.query("update int_op_last_transition set cause = 'mark' where op_id = 'c'")
    warehouse.query("update inversions set bucket = 'mark' where op_id = 'e'")
    warehouse.query("update inversion_quality set mean = -1 where op_id = 'e'")
    more = [(8, "b", 3), (9, "a", 3), (10, "a", 4), (11, "d", 1), (12, "f", 5), (13, "f", 6)]
    warehouse.insert("transitions", _rows(*more))
    _pass(warehouse)
    return warehouse


def _pass(warehouse: Warehouse, *more: str, check: bool = True) -> int:
    return warehouse.dbt(
        "run", "--select", *more, "int_op_last_transition", "inversions", "inversion_quality", check=check
    ).returncode


def _kept(warehouse: Warehouse) -> list[list[tuple[Any, ...]]]:
    return [warehouse.query(query) for query in (KEPT, KEPT_INVERSIONS, KEPT_QUALITY)]


def _anew(warehouse: Warehouse, *, marked: bool = False) -> list[list[tuple[Any, ...]]]:
    last, inversions, quality = (warehouse.query(query) for query in (LAST, INVERSIONS, QUALITY))
    if marked:
        last = [(*row[:5], "mark", *row[6:]) if row[0] == "c" else row for row in last]
        inversions = [(*row[:5], "mark") if row[1] == "e" else row for row in inversions]
        quality = [(*row[:3], -1) if row[1] == "e" else row for row in quality]
    return [last, inversions, quality]


def test_a_pass_brings_what_is_new_and_touches_nothing_else(warehouse: Warehouse) -> None:
    assert [row[1] for row in warehouse.query(KEPT_QUALITY)] == ["e", "f"]
    assert _kept(warehouse) == _anew(warehouse, marked=True)


def test_a_pass_without_news_changes_nothing(warehouse: Warehouse) -> None:
    before = _kept(warehouse)
    _pass(warehouse)
    assert _kept(warehouse) == before


def test_the_history_says_when_each_state_ended(warehouse: Warehouse) -> None:
    assert warehouse.query(SHOWN_HISTORY) == warehouse.query(HISTORY)


def test_a_pass_that_fails_leaves_all_as_it_was(warehouse: Warehouse) -> None:
    before = _kept(warehouse)
    # What cannot be read is met by the second of the models.
    warehouse.insert("transitions", [{**row, "details": "{"} for row in _rows((14, "f", 6))])
    assert _pass(warehouse, check=False) == 1
    assert warehouse.query(KEPT_INVERSIONS) == before[1]
    warehouse.query("delete from bronze.transitions where transition_id = 14")
    warehouse.insert("transitions", _rows((15, "d", 2)))
    _pass(warehouse)
    assert _kept(warehouse) == _anew(warehouse)


def test_a_row_that_came_late_takes_its_place(warehouse: Warehouse) -> None:
    warehouse.insert("transitions", _rows((5, "b", 2)))
    _pass(warehouse)
    assert _kept(warehouse) == _anew(warehouse)


def test_another_ledger_takes_the_place_of_the_first(warehouse: Warehouse) -> None:
    warehouse.query("delete from bronze.transitions")
    steps = [(number, "a", number) for number in range(1, 5)]
    others = [(number, f"op{number}", 1) for number in range(5, 16)]
    warehouse.insert("transitions", _rows(*steps, *others, ledger="b"))
    warehouse.query("update bronze.transitions set recorded_at = recorded_at + interval 1 second")
    _pass(warehouse)
    assert _kept(warehouse) == _anew(warehouse)


def test_a_table_of_a_version_with_other_columns_is_made_anew(warehouse: Warehouse) -> None:
    warehouse.query("alter table inversions drop column bucket")
    warehouse.query("alter table int_op_last_transition add column earlier integer")
    _pass(warehouse)
    assert _kept(warehouse) == _anew(warehouse)
