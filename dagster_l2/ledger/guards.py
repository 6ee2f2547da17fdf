"""The database's own rules, as triggers for SQLite and PostgreSQL, derived from the edges.

A refusal's text starts with ``l2-<code>:`` on both, so that ``database`` can tell them apart by `CODES`.
What is here is what the newest revision installs; those of older revisions are in ``migrations``.
"""

# ruff: noqa: S608 - DDL takes no parameters; every name in it is written in this package

from __future__ import annotations

from collections.abc import Sequence

import sqlalchemy as sa

from dagster_l2.ledger.states import EDGES, HAS_INVERSION, NEW_INVERSION, State
from dagster_l2.ledger.tables import NEW_INVERSION_INDEX

APPEND_ONLY: dict[str, str] = {
    "op_transitions": "transition_id",
    "science_events": "event_id",
    "science_event_outcomes": "event_id",
    "op_annotations": "annotation_id",
    "batch_attempts": "attempt_id",
    "inversion_steps": "record_id",
    "inbox_receipts": "receipt_id",
    "service_tokens": "token_id",
    "service_token_revocations": "token_id",
    "service_requests": "request_id",
    "alerts": "alert_id",
    "alert_deliveries": "delivery_id",
}
"""Tables whose rows never change, with their key (SQLite's REPLACE deletes by it without a trigger)."""

OF_0004 = ("inversion_steps", "inbox_receipts")
"""Those that revision 0004 made, with their guards."""

OF_0005 = ("service_tokens", "service_token_revocations", "service_requests")
"""Those that revision 0005 made, with their guards."""

OF_0006 = ("alerts", "alert_deliveries")
"""Those that revision 0006 made, with their guards; all others had theirs before 0004."""

NUMBERED = ("op_transitions", "op_annotations", "batch_attempts", *OF_0004, *OF_0006)
"""Those whose key is a number that the database gives, ascending."""

CODES: dict[str, str] = {
    "append-only": "rows are only ever added to this table",
    "exists": "a row with this key is already there and stays as it is",
    "number": "the number of the row is not above those given before, or out of range",
    "form": "a text is empty or binary, a time is not a UTC one in range, or the details are no JSON object",
    "stale": "from_state is not the present state of the OP",
    "gap": "seq does not follow the last one of the OP",
    "edge": "there is no such step between states",
    "time": "occurred_at is before the last transition of the OP",
    "recorded": "recorded_at is before the last one of the OP, or before occurred_at",
    "inversion": "the inversion id is missing, not the one of the OP, or out of place",
    "edges": "the table of edges changes only by a migration",
}

UNIQUE: dict[str, tuple[str, ...]] = {
    "inversion_steps": ("subject", "step"),
    "inbox_receipts": ("delivery_id",),
    "alerts": ("cause",),
    "alert_deliveries": ("alert_id", "way"),
}
"""Unique columns beside the key: SQLite's REPLACE deletes by them, too."""

_TEXTS = ("op_id", "actor", "cause")
_TEXTS_OR_NULL = ("inputs_hash", "rule_version", "inversion_id", "run_id")
_LARGEST_NUMBER = 2**53 - 1  # every reader of JSON holds it, and there is always a next one
_FIRST_DAY = "1900-01-01"  # Python's times end at the years 1 and 9999, at midnight in some zone
_LAST_DAY = "9999-01-01"


def install(connection: sa.Connection, schema: str | None) -> None:
    """Fill the empty table of edges from `EDGES` and put the guards of revision 0002 in place.

    Not the index of new inversion ids: revision 0001 made it, and it has not changed.
    Not those of the tables that came later: `install_more` is theirs.

    Parameters
    ----------
    schema : str or None
        The schema of the tables on PostgreSQL, None on SQLite.
    """
    edges = sa.table("op_edges", sa.column("from_state"), sa.column("to_state"), schema=schema)
    rows = [{"from_state": edge.from_state or "", "to_state": edge.to_state} for edge in EDGES]
    connection.execute(sa.insert(edges), rows)
    tables = tuple(table for table in APPEND_ONLY if table not in (*OF_0004, *OF_0005, *OF_0006))
    for statement in statements(connection.dialect.name, schema, tables)[1:]:
        connection.exec_driver_sql(statement)


def install_more(connection: sa.Connection, schema: str | None, tables: Sequence[str]) -> None:
    """Guard append-only tables that came after the others; see `install`."""
    prefix = f'"{schema}".' if schema else ""
    if connection.dialect.name == "sqlite":
        made = list(_sqlite_append_only(tables).values())
    else:
        made = _made(prefix, _postgresql_append_only(prefix, tables))
    for statement in made:
        connection.exec_driver_sql(statement)


def names(dialect: str) -> set[str]:
    """The triggers that must be there, for a check of a database."""
    tables = tuple(APPEND_ONLY)
    return set(_sqlite(tables)) if dialect == "sqlite" else set(_postgresql("", tables))


def statements(dialect: str, schema: str | None, tables: Sequence[str] = tuple(APPEND_ONLY)) -> list[str]:
    """What makes each guard of ``tables``, first the index of new inversion ids."""
    prefix = f'"{schema}".' if schema else ""
    index = (
        f"CREATE UNIQUE INDEX {NEW_INVERSION_INDEX} ON {prefix}op_transitions (inversion_id)"
        f" WHERE {_new_inversion('')}"
    )
    if dialect == "sqlite":
        return [index, *_sqlite(tables).values()]
    functions = [
        f"CREATE FUNCTION {prefix}{name}() RETURNS trigger LANGUAGE plpgsql AS $guard${body}$guard$"
        for name, body in _functions(prefix).items()
    ]
    return [index, *functions, *_made(prefix, _postgresql(prefix, tables))]


def _made(prefix: str, triggers: dict[str, tuple[str, str]]) -> list[str]:
    made = []
    for name, (table, trigger) in triggers.items():
        # ALWAYS: also while a replication role is set, which switches ordinary triggers off.
        made += [trigger, f"ALTER TABLE {prefix}{table} ENABLE ALWAYS TRIGGER {name}"]
    return made


def _text(code: str) -> str:
    return f"l2-{code}: {CODES[code]}"


def _raise(code: str) -> str:
    return f"RAISE EXCEPTION USING ERRCODE = '23000', MESSAGE = '{_text(code)}'"


def _is_any(column: str, states: tuple[State | None, ...]) -> str:
    """SQL: ``column`` is one of ``states``; SQLite would build a table for each longer IN."""
    return "(" + " OR ".join(f"{column} = '{state}'" for state in states) + ")"


def _new_inversion(row: str) -> str:
    """SQL: the row enters Working with a new inversion id."""
    states = ", ".join(f"'{state}'" for state in NEW_INVERSION)
    return f"{row}to_state = '{State.WORKING}' AND {row}from_state IN ({states})"


def _rules(differs: str, prefix: str, gap: str) -> list[tuple[str, str]]:
    """The rules of a transition as (condition that refuses it, code), over ``NEW`` and ``latest``."""
    keeps = _is_any("NEW.to_state", (*HAS_INVERSION, State.ERROR))
    return [
        (gap, "gap"),
        (f"NEW.from_state {differs} latest.to_state", "stale"),
        (
            f"NOT EXISTS (SELECT 1 FROM {prefix}op_edges WHERE from_state = COALESCE(NEW.from_state, '')"
            " AND to_state = NEW.to_state)"
            f" OR NEW.from_state = '{State.ERROR}' AND NEW.to_state {differs} latest.from_state",
            "edge",
        ),
        ("NEW.occurred_at < latest.occurred_at", "time"),
        ("NEW.recorded_at < latest.recorded_at OR NEW.recorded_at < NEW.occurred_at", "recorded"),
        (
            f"CASE WHEN {_new_inversion('NEW.')} THEN COALESCE(NEW.inversion_id, '') = ''"
            f" WHEN {keeps} THEN NEW.inversion_id {differs} latest.inversion_id"
            " ELSE NEW.inversion_id IS NOT NULL END",
            "inversion",
        ),
    ]


def _postgresql_rules(prefix: str) -> list[tuple[str, str]]:
    gap = "NEW.seq IS DISTINCT FROM COALESCE(latest.seq, 0) + 1"
    empty = " OR ".join(f"NEW.{column} = ''" for column in _TEXTS)
    form = (
        f"{empty} OR NEW.occurred_at < TIMESTAMPTZ '{_FIRST_DAY} 00:00:00+00'"
        f" OR NEW.recorded_at >= TIMESTAMPTZ '{_LAST_DAY} 00:00:00+00'"
        " OR json_typeof(NEW.details) <> 'object'"
    )
    number = f"NEW.transition_id NOT BETWEEN 1 AND {_LARGEST_NUMBER}"
    return [(number, "number"), (form, "form"), *_rules("IS DISTINCT FROM", prefix, gap)]


def _functions(prefix: str) -> dict[str, str]:
    """The bodies of the functions that PostgreSQL's triggers call."""
    rules = "".join(
        f" IF ({condition}) THEN {_raise(code)}; END IF;" for condition, code in _postgresql_rules(prefix)
    )
    return {
        "refuse_change": f" BEGIN {_raise('append-only')}; END ",
        "refuse_edge": f" BEGIN {_raise('edges')}; END ",
        "guard_transition": (
            " DECLARE latest record; BEGIN"
            " SELECT seq, from_state, to_state, occurred_at, recorded_at, inversion_id INTO latest"
            f" FROM {prefix}op_transitions WHERE op_id = NEW.op_id ORDER BY seq DESC LIMIT 1;"
            f"{rules} RETURN NEW; END "
        ),
    }


_CHANGES = "DELETE OR UPDATE OR TRUNCATE"


def _postgresql(prefix: str, tables: Sequence[str]) -> dict[str, tuple[str, str]]:
    """The table of each trigger and the statement that makes it, by its name."""
    edges, changes = "op_edges_no_change", f"INSERT OR {_CHANGES}"
    guard, table = "op_transitions_guard", "op_transitions"
    return {
        **_postgresql_append_only(prefix, tables),
        edges: ("op_edges", _trigger(prefix, edges, "op_edges", changes, "STATEMENT", "refuse_edge")),
        guard: (table, _trigger(prefix, guard, table, "INSERT", "ROW", "guard_transition")),
    }


def _postgresql_append_only(prefix: str, tables: Sequence[str]) -> dict[str, tuple[str, str]]:
    names = {f"{table}_no_change": table for table in tables}
    return {
        name: (table, _trigger(prefix, name, table, _CHANGES, "STATEMENT", "refuse_change"))
        for name, table in names.items()
    }


def _trigger(prefix: str, name: str, table: str, events: str, level: str, function: str) -> str:
    return (
        f"CREATE TRIGGER {name} BEFORE {events} ON {prefix}{table}"
        f" FOR EACH {level} EXECUTE FUNCTION {prefix}{function}()"
    )


def _sqlite_form() -> str:
    """SQL: a value has a type or a form that would sort wrongly or could not be read back.

    SQLite keeps any type in any column, and the rows can't be mended afterwards.
    """

    def is_no_time(column: str) -> str:
        # A modifier makes strftime turn the 30th of February into the 2nd of March. It rounds the fraction
        # of a second, so that is looked at as text.
        second = f"substr({column}, 1, 19)"
        return (
            f"strftime('%Y-%m-%dT%H:%M:%S', {second}, '+0 days') IS NOT {second}"
            f" OR substr({column}, 20) NOT GLOB '.[0-9][0-9][0-9][0-9][0-9][0-9]+00:00'"
        )

    empty = " OR ".join(f"NEW.{column} = ''" for column in _TEXTS)
    binary = " OR ".join(f"typeof(NEW.{column}) = 'blob'" for column in (*_TEXTS, *_TEXTS_OR_NULL, "details"))
    return (
        f"{empty} OR {binary} OR {is_no_time('NEW.recorded_at')}"
        f" OR NEW.occurred_at IS NOT NEW.recorded_at AND ({is_no_time('NEW.occurred_at')})"
        f" OR NEW.occurred_at < '{_FIRST_DAY}' OR NEW.recorded_at >= '{_LAST_DAY}'"
        " OR CASE WHEN json_valid(NEW.details) THEN json_type(NEW.details) <> 'object' ELSE 1 END"
    )


def _sqlite_rules() -> list[tuple[str, str]]:
    # Reached through the unique index, without sorting: this runs for every append.
    gap = (
        "latest.seq IS NULL AND NEW.seq IS NOT 1"
        " OR EXISTS (SELECT 1 FROM op_transitions WHERE op_id = NEW.op_id AND seq = NEW.seq)"
    )
    taken = (
        f"{_new_inversion('NEW.')} AND EXISTS (SELECT 1 FROM op_transitions"
        f" WHERE inversion_id = NEW.inversion_id AND {_new_inversion('')})"
    )
    number = _is_given_below("op_transitions")
    return [(number, "number"), (_sqlite_form(), "form"), *_rules("IS NOT", "", gap), (taken, "exists")]


def _is_given_below(table: str) -> str:
    """SQL, before an insert: a number was given that is not above all others (-1 stands for none given)."""
    key = APPEND_ONLY[table]
    return f"NEW.{key} <> -1 AND NEW.{key} <= (SELECT MAX({key}) FROM {table})"


def _refusal(name: str, table: str, when: str, code: str, condition: str = "") -> dict[str, str]:
    where = f" WHEN {condition}" if condition else ""
    return {
        name: f"CREATE TRIGGER {name} {when} ON {table}{where}"
        f" BEGIN SELECT RAISE(ABORT, '{_text(code)}'); END"
    }


def _sqlite(tables: Sequence[str]) -> dict[str, str]:
    """The statement that makes each trigger, by its name."""
    found: dict[str, str] = {}
    for event in ("update", "delete", "insert"):
        found |= _refusal(f"op_edges_no_{event}", "op_edges", f"BEFORE {event.upper()}", "edges")
    found |= _sqlite_append_only(tables)
    rules = "".join(
        f" WHEN {condition} THEN RAISE(ABORT, '{_text(code)}')" for condition, code in _sqlite_rules()
    )
    found["op_transitions_guard"] = (
        f"CREATE TRIGGER op_transitions_guard BEFORE INSERT ON op_transitions BEGIN SELECT CASE{rules} END"
        " FROM (SELECT 1) LEFT JOIN op_transitions AS latest"
        " ON latest.op_id = NEW.op_id AND latest.seq = NEW.seq - 1; END"
    )
    return found


def _sqlite_append_only(tables: Sequence[str]) -> dict[str, str]:
    found: dict[str, str] = {}
    for table in tables:
        key = APPEND_ONLY[table]
        for event in ("update", "delete"):
            found |= _refusal(f"{table}_no_{event}", table, f"BEFORE {event.upper()}", "append-only")
        if table not in NUMBERED:
            exists = f"EXISTS (SELECT 1 FROM {table} WHERE {key} = NEW.{key})"
            found |= _refusal(f"{table}_no_replace", table, "BEFORE INSERT", "exists", exists)
            continue
        if table != "op_transitions":  # whose guard looks at this too: each trigger costs
            found |= _refusal(f"{table}_no_replace", table, "BEFORE INSERT", "number", _is_given_below(table))
        if table in UNIQUE:
            same = " AND ".join(f"{column} = NEW.{column}" for column in UNIQUE[table])
            exists = f"EXISTS (SELECT 1 FROM {table} WHERE {same})"
            found |= _refusal(f"{table}_no_twin", table, "BEFORE INSERT", "exists", exists)
        out_of_range = f"NEW.{key} NOT BETWEEN 1 AND {_LARGEST_NUMBER}"
        found |= _refusal(f"{table}_number", table, "AFTER INSERT", "number", out_of_range)
    return found
