"""From which columns each column of a model comes, told from its SQL and from the tables' columns.

dagster-dbt can tell it too, but its dbt adapter keeps the DuckDB file open in this process, and nobody else
can open it then. Here no file is opened: the columns are handed in.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from dagster_l2.base.files import write_json

# schema → table → column → type
Columns = Mapping[str, Mapping[str, Mapping[str, str]]]
# column → [(schema, table, column), …]
Origins = dict[str, list[tuple[str, str, str]]]


class LineageCache:
    """The lineage of models whose SQL and parents are the same as when it was told last."""

    def __init__(self, path: Path, columns: Columns) -> None:
        self._path = path
        self._columns = columns
        self._schema_hash = _hash(json.dumps(columns, sort_keys=True))
        try:
            self._known: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            self._known = {}
        self._is_changed = False

    def origins(self, model: str, sql: str) -> Origins:
        """Where each column of a model comes from; told anew only when something has changed.

        Values in the SQL, such as the moment of the build, change nothing.
        """
        key = _hash(re.sub(r"'[^']*'", "''", sql) + self._schema_hash)
        entry = self._known.get(model)
        if not isinstance(entry, dict) or entry.get("key") != key:
            entry = {"key": key, "origins": column_origins(sql, self._columns)}
            self._known[model] = entry
            self._is_changed = True
        return {
            column: [(origin[0], origin[1], origin[2]) for origin in origins]
            for column, origins in entry["origins"].items()
        }

    def save(self) -> None:
        """Keep what was told for the next build."""
        if self._is_changed:
            write_json(self._path, self._known, indent=None)


def column_origins(sql: str, columns: Columns) -> Origins:
    """The columns that each column of a query is made of; empty for a constant or a count of rows.

    Parameters
    ----------
    sql
        One query, in DuckDB's SQL.
    columns
        The columns of the tables it reads, and their types.

    Returns
    -------
    dict
        Of each column the schema, table and name of its origins, sorted. Empty when the SQL cannot be read:
        lineage is an aid, and no build fails for it.
    """
    from sqlglot import exp, parse_one
    from sqlglot.errors import SqlglotError
    from sqlglot.lineage import lineage
    from sqlglot.optimizer.qualify import qualify
    from sqlglot.optimizer.scope import build_scope

    try:
        query: Any = qualify(
            parse_one(sql, dialect="duckdb"),
            schema={schema: dict(tables) for schema, tables in columns.items()},
            dialect="duckdb",
            db="main",
            validate_qualify_columns=False,
        )
        _fill_unions_by_name(query)
        scope = build_scope(query)
        found: Origins = {}
        for column in query.named_selects:
            node = lineage(column, query, {}, dialect="duckdb", scope=scope)
            found[column] = sorted(
                {
                    (table.db, table.name, exp.to_column(leaf.name).name)
                    for leaf in node.walk()
                    if not leaf.downstream and (table := leaf.expression.find(exp.Table)) is not None
                }
            )
    except (SqlglotError, ValueError, AttributeError, KeyError):
        return {}
    return found


def _fill_unions_by_name(query: Any) -> None:
    """Give each branch of a ``union by name`` all its columns; sqlglot takes them for positional."""
    from sqlglot import exp

    for union in query.find_all(exp.SetOperation):
        if not union.args.get("by_name"):
            continue
        branches = list(_branches(union))
        names = dict.fromkeys(name for branch in branches for name in branch.named_selects)
        for branch in branches:
            own = dict(zip(branch.named_selects, branch.selects, strict=True))
            branch.set("expressions", [own.get(name) or exp.alias_(exp.null(), name) for name in names])


def _branches(node: Any) -> Iterator[Any]:
    from sqlglot import exp

    if isinstance(node, exp.SetOperation):
        yield from _branches(node.left)
        yield from _branches(node.right)
    elif isinstance(node, exp.Select):
        yield node


def _hash(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:16]
