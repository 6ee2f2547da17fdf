"""A history that grows by passes is the one that would be made anew, whatever happened between them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import datetime, timedelta
from typing import Any

import pytest
from warehouse_kit import Warehouse

START = datetime(2025, 1, 1)  # bronze times are UTC without a zone
STATES = ("Discovered", "Invertible", "Preprocessed", "Working", "Inverted", "Published")

# From bronze alone, in other words than the model's.
ANEW = """
    select
        ours.transition_id, ours.op_id, ours.seq, ours.from_state, ours.to_state, ours.occurred_at,
        (
            select min_by(later.occurred_at, later.seq) from bronze.transitions as later
            where later.op_id = ours.op_id and later.seq > ours.seq
        ),
        ours.recorded_at, ours.cause, ours.details
    from bronze.transitions as ours order by 1
"""
KEPT = """
    select
        transition_id, op_id, seq, from_state, to_state, occurred_at, ended_at, recorded_at, cause, details
    from op_history order by 1
"""


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
            "details": "{}",
        }


@pytest.fixture(scope="module")
def warehouse(new_warehouse: Callable[[], Warehouse]) -> Warehouse:
    """Two passes, and between them a mark on a row that the second has no reason to touch."""
    warehouse = new_warehouse()
    # The second step of `b`, number 5, was at work in its transaction while the export read.
    warehouse.insert("transitions", _rows((1, "a", 1), (2, "b", 1), (3, "a", 2), (4, "c", 1)))
    warehouse.dbt("run", "--select", "stg_ledger__transitions", "op_history")
    warehouse.query("update op_history set cause = 'mark' where transition_id = 1")
    warehouse.insert("transitions", _rows((6, "b", 3), (7, "a", 3), (8, "a", 4), (9, "d", 1)))
    _pass(warehouse)
    return warehouse


def _pass(warehouse: Warehouse, *, check: bool = True) -> int:
    return warehouse.dbt("run", "--select", "op_history", check=check).returncode


def _marked(rows: list[tuple[Any, ...]]) -> list[tuple[Any, ...]]:
    return [(*row[:8], "mark", row[9]) if row[0] == 1 else row for row in rows]


def test_a_pass_brings_what_is_new_and_touches_nothing_else(warehouse: Warehouse) -> None:
    assert warehouse.query(KEPT) == _marked(warehouse.query(ANEW))


def test_a_pass_that_fails_leaves_the_history_as_it_was(warehouse: Warehouse) -> None:
    before = warehouse.query(KEPT)
    (bad,) = _rows((10, "d", 2))
    warehouse.insert("transitions", [{**bad, "occurred_at": None}, *_rows((11, "c", 2))])
    assert _pass(warehouse, check=False) == 1
    assert warehouse.query(KEPT) == before
    warehouse.query("delete from bronze.transitions where transition_id = 10")
    _pass(warehouse)
    assert warehouse.query(KEPT) == _marked(warehouse.query(ANEW))


def test_a_row_that_came_late_takes_its_place(warehouse: Warehouse) -> None:
    warehouse.insert("transitions", _rows((5, "b", 2)))
    _pass(warehouse)
    assert warehouse.query(KEPT) == warehouse.query(ANEW)


def test_another_ledger_takes_the_place_of_the_first(warehouse: Warehouse) -> None:
    warehouse.query("delete from bronze.transitions")
    steps = [(number, "a", number) for number in range(1, 5)]
    others = [(number, f"op{number}", 1) for number in range(5, 13)]
    warehouse.insert("transitions", _rows(*steps, *others, ledger="b"))
    warehouse.query("update bronze.transitions set recorded_at = recorded_at + interval 1 second")
    _pass(warehouse)
    assert warehouse.query(KEPT) == warehouse.query(ANEW)
