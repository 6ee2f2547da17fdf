"""The rows that fail a test are named by their keys, whatever dbt's test gives back."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import duckdb
import pytest

from dagster_l2.assets.failing_rows import failing_rows, in_words
from dagster_l2.project import warehouse_project


@pytest.fixture(scope="module")
def manifest() -> dict[str, Any]:
    content: dict[str, Any] = json.loads(warehouse_project.manifest_path.read_text(encoding="utf-8"))
    return content


@pytest.fixture
def warehouse() -> Iterator[Any]:
    with duckdb.connect() as connection:
        connection.execute(
            "create table op_latest_state as from (values"
            " ('op_a', 'Lost', 1.0), ('op_b', 'Working', 2.0), ('op_b', null, 3.0)) t(op_id, state, days)"
        )
        connection.execute(
            "create table op_history as from (values ('op_a', 1, 'x'), ('op_a', 1, 'y')) t(op_id, seq, actor)"
        )
        yield connection


def _test(manifest: dict[str, Any], kind: str, model: str, column: str | None = None) -> str:
    (found,) = [
        unique_id
        for unique_id, node in manifest["nodes"].items()
        if node["resource_type"] == "test"
        and (node.get("test_metadata") or {}).get("name") == kind
        and node["attached_node"] == f"model.dagster_l2.{model}"
        and node.get("column_name") == column
    ]
    return found


def test_each_kind_of_test(manifest: dict[str, Any], warehouse: Any) -> None:
    """The SQL is as dbt compiles it."""
    values = _test(manifest, "relationships", "op_latest_state", "state")
    sql = "select state as from_field from main.op_latest_state where state = 'Lost'"
    assert failing_rows(warehouse, manifest, values, sql) == [{"op_id": "op_a", "state": "Lost"}]

    unique = _test(manifest, "unique", "op_latest_state", "op_id")
    sql = "select op_id as unique_field, count(*) as n from op_latest_state group by 1 having count(*) > 1"
    assert failing_rows(warehouse, manifest, unique, sql) == [{"op_id": "op_b"}]

    combination = _test(manifest, "unique_combination", "op_history")
    sql = "select op_id, seq, count(*) as row_count from op_history group by all having count(*) > 1"
    assert failing_rows(warehouse, manifest, combination, sql) == [
        {"op_id": "op_a", "seq": 1, "row_count": 2}
    ]

    nulls = _test(manifest, "never_null", "int_op_wishes")
    sql = "select op_id, 1 as priority, ['priority', 'x'] as null_columns from op_latest_state limit 1"
    assert failing_rows(warehouse, manifest, nulls, sql) == [
        {"op_id": "op_a", "null_columns": ["priority", "x"]}
    ]


def test_a_constraint_that_refuses_a_model(manifest: dict[str, Any], warehouse: Any) -> None:
    rows = failing_rows(
        warehouse,
        manifest,
        "model.dagster_l2.op_latest_state",
        "select * from op_latest_state",
        "Runtime Error in model op_latest_state: NOT NULL constraint failed: op_latest_state__dbt_tmp.state",
    )
    assert rows == [{"op_id": "op_b", "state": None}]
    assert in_words(rows) == "op_id op_b, state null"


def test_what_cannot_be_told_is_not_told(manifest: dict[str, Any], warehouse: Any) -> None:
    values = _test(manifest, "relationships", "op_latest_state", "state")
    assert failing_rows(warehouse, manifest, values, "select broken") == []
    assert failing_rows(warehouse, manifest, values, "") == []
    assert (
        failing_rows(warehouse, manifest, "model.dagster_l2.op_latest_state", "select 1", "Out of memory")
        == []
    )


def test_many_and_long_rows_are_told_shortly() -> None:
    told = in_words([{"op_id": f"op_{number}", "text": "long " * 100} for number in range(9)])
    assert told.startswith("op_id op_0, text long long")
    assert told.endswith("; …")
    assert len(told) < 400
