"""Which rows fail a data test of the warehouse, by their keys, so that a person can look at them.

dbt only counts them. Asked after a test has failed, of the tables that it was run on; nothing is stored.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

import duckdb

from dagster_l2.pipeline.gold import Row

SHOWN = 20
_TOLD = 3
_WIDEST = 80
# What dbt's own tests call the column that they test.
_RENAMED = ("from_field", "value_field", "unique_field")


def failing_rows(
    connection: Any, manifest: Mapping[str, Any], unique_id: str, compiled: str, message: str = ""
) -> list[Row]:
    """The first rows that fail a test, or that a model's constraint refuses: their keys and what is wrong.

    Parameters
    ----------
    connection
        Open on the warehouse.
    manifest
        dbt's manifest.
    unique_id
        The test, or the model that could not be built.
    compiled
        Its SQL: of a test, what gives the rows that fail.
    message
        What DuckDB said when it refused the model.

    Returns
    -------
    list
        At most `SHOWN` rows; none where they cannot be told.
    """
    node = manifest["nodes"].get(unique_id)
    if node is None or not compiled:
        return []
    try:
        query = _query(connection, manifest, node, compiled, message)
        return _rows(connection, f"{query} limit {SHOWN}") if query else []
    except duckdb.Error:
        return []  # The test itself is broken; its error is told instead.


def in_words(rows: Sequence[Row]) -> str:
    """The first rows as text, such as ``op_id op_a, state Lost; …``."""
    told = [", ".join(f"{name} {_short(value)}" for name, value in row.items()) for row in rows[:_TOLD]]
    return "; ".join(told) + ("; …" if len(rows) > _TOLD else "")


def _query(
    connection: Any, manifest: Mapping[str, Any], node: Mapping[str, Any], compiled: str, message: str
) -> str | None:
    failing = f"select * from ({compiled.strip().rstrip(';')})"
    if node["resource_type"] != "test":
        column = message.partition("NOT NULL constraint failed: ")[2].split(" ")[0].rpartition(".")[2]
        keys = [key for key in _keys(manifest, node["unique_id"]) if key != column]
        return (
            f'select {_list([*keys, column])} from ({failing}) where "{column}" is null' if column else None
        )
    given = connection.execute(f"{failing} limit 0").description
    names = [name for name, *_ in given]
    keys = _keys(manifest, node["attached_node"])
    tested = [node["column_name"]] if node.get("column_name") else []
    columns = list(dict.fromkeys([*keys, *tested]))
    renamed = next((name for name in _RENAMED if name in names), None)
    if renamed and tested and keys:
        relation = manifest["nodes"][node["attached_node"]]["relation_name"]
        schema_and_table = relation.partition(".")[2]
        return (
            f"select distinct {_list(columns)} from {schema_and_table}"
            f' where "{tested[0]}" in (select {renamed} from ({failing})) order by all'
        )
    if columns and set(columns) <= set(names):
        about = str(node["test_metadata"]["kwargs"].get("condition", ""))
        of_model = manifest["nodes"][node["attached_node"]]["columns"]
        extra = [
            name
            for name in names
            if name not in columns and (name not in of_model or re.search(rf"\b{name}\b", about))
        ]
        return f"select {_list([*columns, *extra])} from ({failing}) order by all"
    return failing


def _keys(manifest: Mapping[str, Any], model: str | None) -> list[str]:
    """The columns that identify a row, as the model's own tests say."""
    keys: dict[str, list[str]] = {}
    for test in manifest["nodes"].values():
        if model is not None and test["resource_type"] == "test" and test.get("attached_node") == model:
            about = test.get("test_metadata") or {}
            arguments = about.get("kwargs", {})
            arguments = {**arguments, **(arguments.get("arguments") or {})}
            named = arguments.get("columns") or [arguments.get("column_name")]
            keys.setdefault(about.get("name", ""), list(named))
    return keys.get("unique") or keys.get("unique_combination") or []


def _list(names: Sequence[str]) -> str:
    return ", ".join(f'"{name}"' for name in names)


def _rows(connection: Any, query: str) -> list[Row]:
    cursor = connection.execute(query)
    names = [name for name, *_ in cursor.description]
    return [dict(zip(names, row, strict=True)) for row in cursor.fetchall()]


def _short(value: Any) -> str:
    text = "null" if value is None else " ".join(str(value).split())
    return text if len(text) <= _WIDEST else text[: _WIDEST - 1] + "…"
